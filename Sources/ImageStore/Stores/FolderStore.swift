// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
public import Geometry
import Glibc
import Synchronization

/// A store in a folder of any filesystem down to FAT32.
///
/// An object is written to `tmp/`, flushed, renamed to its name, and the folder flushed. Plain ASCII names, no links,
/// no extended attributes, no change of a finished file. Objects are regular files: what else has an object's name (a
/// link, a fifo, a folder) is no object, and is never followed or waited for. Nor is an empty file, other than a tombstone:
/// a power cut may leave one on FAT.
///
/// Who still runs is told by locks (`flock`) on the files in `tmp/` and `writers/`. On a filesystem that only one
/// machine has mounted, a free lock means that the owner has ended; so are locks asked for that clients of this machine's
/// own file server hold. On a network filesystem locks of other machines may
/// be invisible, or locks may not work at all: there the age decides too, by the server's clock.
public final class FolderStore: ObjectStore {
    /// The folder.
    public let path: String
    /// The folder's path.
    public var name: String { path }
    /// Stands for this system in the names of files that others may find.
    let host: String
    let renewals = Renewals()
    private let counter = Atomic<UInt64>(0)
    /// What ``isLocal`` answers instead of asking the kernel.
    private let locality: Bool?
    /// What tells whether two files lie in the same place, instead of the kernel: their paths.
    let places: (@Sendable (String, String) -> Bool)?

    /// Seconds an unfinished file of another machine must have been left alone before it counts as left behind.
    static let leftoverAge: UInt64 = 3600

    /// A store in the folder `path`, which need not exist yet.
    public convenience init(path: String) { self.init(path: path, host: HostMark.own) }

    /// A store as another machine (`host`) or on another kind of filesystem would use it, for tests.
    init(
        path: String, host: String = HostMark.own, isLocal: Bool? = nil,
        places: (@Sendable (String, String) -> Bool)? = nil
    ) {
        self.places = places
        var trimmed = path
        while trimmed.utf8.count > 1, trimmed.hasSuffix("/") { trimmed.removeLast() }
        self.path = trimmed
        self.host = host
        locality = isLocal
    }

    /// 4 GiB − 1 on FAT, and what the process may write at most; no limit elsewhere.
    ///
    /// `pathconf(_PC_FILESIZEBITS)` does not help: the C library answers 32 for every filesystem it does not know, among
    /// them tmpfs, exFAT and NFS. A file server that hides a FAT says it when too much is written (`EFBIG`).
    public var maximumObjectSize: ByteCount? {
        var limit: UInt64?
        if filesystem == FilesystemType.fat { limit = 0xFFFF_FFFF }
        let process = relight_file_size_limit()
        if process != .max { limit = min(limit ?? .max, process) }
        return limit.map { ByteCount($0) }
    }

    /// 0, or on a network filesystem 60: clients keep folders for about so long.
    public var listingDelay: UInt64 { isLocal ? 0 : 60 }

    /// Creates the folder and those that must exist before the medium is full: an empty file can then be made in them
    /// without a block of data.
    public func prepare() throws(Fault) {
        for folder in ["tmp", AnnouncementName.folder, "gone"] { try makeFolders(folder) }
    }

    /// The time the filesystem gives a new file: on a network filesystem the server's.
    ///
    /// Where no file can be made, the time a touched `tmp` gets; where nothing can be written at all, this machine's
    /// clock, by which then nothing is removed either.
    public func clock() throws(Fault) -> UInt64 {
        var status = stat()
        let file = "\(path)/\(temporaryName("clock"))"
        let opened = unsafe relight_open(file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644)
        if opened >= 0 {
            let looked = unsafe fstat(opened, &status)
            _ = unsafe unlink(file)
            close(opened)
            if looked == 0 { return UInt64(max(0, status.st_mtim.tv_sec)) }
        }
        // Touching takes no room.
        if unsafe utimensat(AT_FDCWD, "\(path)/tmp", nil, 0) == 0, unsafe stat("\(path)/tmp", &status) == 0 {
            return UInt64(max(0, status.st_mtim.tv_sec))
        }
        return UInt64(max(0, time(nil)))
    }

    /// Begins a file in `tmp/`.
    public func upload() throws(Fault) -> any ObjectUpload {
        try makeFolders("tmp")
        renewals.renewDue()
        for _ in 0..<16 {
            let name = temporaryName("part")
            let opened = unsafe relight_open("\(path)/\(name)", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644)
            if opened >= 0 {
                // The lock tells a later run that this file's writer is alive. Where locks do not work the age tells.
                // When somebody else has it already, or the file is gone, they took this new file for a leftover.
                if SafetyRules.keep(.leftoverLock), flock(opened, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK {
                    close(opened)
                    continue
                }
                FolderEvent.note(.made(file: "\(path)/\(name)"))
                guard isStill(opened, name) else {
                    close(opened)
                    continue
                }
                return FolderUpload(store: self, descriptor: opened, temporary: name)
            }
            if opened != -EEXIST { throw failure(-opened, "Creating", name) }
        }
        throw failure(EEXIST, "Creating", "tmp")
    }

    /// Opens a file.
    public func open(_ name: String) throws(Fault) -> (any ObjectHandle)? {
        let opened = unsafe relight_open("\(path)/\(name)", O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0)
        // ELOOP: a link. ENXIO, ENODEV: a socket, or a device that is not there.
        if [ENOENT, ENOTDIR, ELOOP, ENXIO, ENODEV].contains(-opened) { return nil }
        guard opened >= 0 else { throw failure(-opened, "Opening", name) }
        var status = stat()
        guard unsafe fstat(opened, &status) == 0 else {
            let problem = errno
            close(opened)
            throw failure(problem, "Looking at", name)
        }
        guard status.st_mode & S_IFMT == S_IFREG, status.st_size > 0 || FolderStore.mayBeEmpty(name) else {
            close(opened)
            return nil
        }
        return FolderHandle(
            store: self, descriptor: opened, name: name, size: ByteCount(UInt64(max(0, status.st_size))))
    }

    /// Files below `folder`, at most three folders deep: `copies/packs/ab/….pack` is the deepest there is.
    public func list(_ folder: String) throws(Fault) -> [StoredObject] {
        var result: [StoredObject] = []
        try collect(folder, depth: 3, into: &result) { (fault) throws(Fault) in throw fault }
        return result
    }

    /// Files below `folder`; a folder or file the filesystem does not give is left out.
    public func listReadable(_ folder: String) -> PartialListing {
        var result = PartialListing()
        var faults: [Fault] = []
        do throws(Fault) {
            // A thousand say it all.
            try collect(folder, depth: 3, into: &result.objects) { (fault) throws(Fault) in
                if faults.count < 1000 { faults.append(fault) }
            }
        } catch { faults.append(error) }
        result.faults = faults
        return result
    }

    private func collect(
        _ folder: String, depth: Int, into result: inout [StoredObject], failed: (Fault) throws(Fault) -> Void
    ) throws(Fault) {
        let names: [String]
        do throws(Fault) { names = try entries(folder, limit: .max) } catch { return try failed(error) }
        for entry in names {
            let name = "\(folder)/\(entry)"
            var status = stat()
            guard unsafe lstat("\(path)/\(name)", &status) == 0 else {
                if errno != ENOENT { try failed(failure(errno, "Looking at", name)) }
                continue
            }
            switch status.st_mode & S_IFMT {
            case S_IFREG:
                if status.st_size == 0, !FolderStore.mayBeEmpty(name) { continue }
                result.append(
                    StoredObject(
                        name: name, size: ByteCount(UInt64(max(0, status.st_size))),
                        modified: UInt64(max(0, status.st_mtim.tv_sec))))
            case S_IFDIR: if depth > 1 { try collect(name, depth: depth - 1, into: &result, failed: failed) }
            default: break
            }
        }
    }

    /// Names in the folder.
    public func topLevelNames(limit: Int) throws(Fault) -> [String] {
        try entries("", limit: limit).sorted().filter { name in
            guard ObjectName.headers.contains(name) else { return true }
            // An empty header is none: a power cut leaves one on FAT.
            var status = stat()
            let isKnown = unsafe lstat("\(path)/\(name)", &status) == 0
            return !isKnown || status.st_mode & S_IFMT != S_IFREG || status.st_size > 0
        }
    }

    func entries(_ folder: String, limit: Int) throws(Fault) -> [String] {
        let place = folder.isEmpty ? path : "\(path)/\(folder)"
        guard let stream = unsafe opendir(place) else {
            if errno == ENOENT { return [] }
            if errno == ENOTDIR, folder.isEmpty {
                throw Fault(
                    .notASet, what: "This is a file, not a folder with an image set.", place: path,
                    remedy: "Name the folder of the set; `relight backup DISK --to FOLDER` makes a new one.")
            }
            throw failure(errno, "Reading the folder", folder)
        }
        defer { unsafe closedir(stream) }
        var result: [String] = []
        while result.count < limit {
            errno = 0
            guard let entry = unsafe readdir(stream) else {
                if errno != 0 { throw failure(errno, "Reading the folder", folder) }
                break
            }
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) {
                unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { result.append(name) }
        }
        return result
    }

    /// Removes a file.
    public func delete(_ name: String) throws(Fault) {
        try requireOwnPlace(name)
        let file = "\(path)/\(name)"
        if unsafe unlink(file) != 0 {
            var problem = errno
            if problem == ENOSPC || problem == EDQUOT {
                // Filesystems that copy on write may have no room left for the change of the folder. Cutting the file,
                // which is to go anyway, frees some.
                let opened = unsafe relight_open(file, O_WRONLY | O_TRUNC | O_NOFOLLOW | O_NONBLOCK, 0)
                if opened >= 0 {
                    fsync(opened)
                    close(opened)
                }
                problem = unsafe unlink(file) == 0 ? 0 : errno
            }
            if problem == ENOENT || problem == ENOTDIR { return }
            if problem != 0 { throw failure(problem, "Removing", name) }
        }
        FolderEvent.note(.removed(file: file))
        try flushFolder(of: name)
    }

    /// Files in `tmp/` whose writer has ended: their lock is free, and when another machine made them and may still
    /// hold a lock that is invisible here, nobody there is announced, and they were left alone for an hour.
    public func leftovers() throws(Fault) -> [any ObjectLeftover] {
        var result: [any ObjectLeftover] = []
        let local = isLocal
        var hosts: Set<String>?
        for entry in try entries("tmp", limit: 4096).sorted() {
            let name = "tmp/\(entry)"
            if entry.hasSuffix(".clock") {
                // Whoever made it has it open or has ended.
                _ = unsafe unlink("\(path)/\(name)")
            }
            guard entry.hasSuffix(".part") else { continue }
            let opened = unsafe relight_open("\(path)/\(name)", O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0)
            guard opened >= 0 else { continue }
            let lock = lock(opened, LOCK_EX)
            var status = stat()
            guard lock != EWOULDBLOCK, unsafe fstat(opened, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
                isStill(opened, name)
            else {
                close(opened)
                continue
            }
            if !local, lock != 0 || !madeHere(entry) {
                // Its writer may find nothing new for hours, and then writes nothing: its announcement tells more.
                if hosts == nil { hosts = try hostsAtWork() }
                let now = try clock()
                let modified = UInt64(max(0, status.st_mtim.tv_sec))
                guard hosts?.contains(FolderStore.maker(entry)) != true, now > modified,
                    now - modified > FolderStore.leftoverAge
                else {
                    close(opened)
                    continue
                }
            }
            result.append(
                FolderHandle(
                    store: self, descriptor: opened, name: name, size: ByteCount(UInt64(max(0, status.st_size))),
                    isLeftover: true))
        }
        return result
    }

    // MARK: - Locks and hosts

    /// Tries to lock a file that is open: 0, EWOULDBLOCK when its owner holds it, or why it is not known.
    ///
    /// A filesystem of this machine may be given to others by a file server. Their locks arrive as those of fcntl, which do
    /// not meet those of flock.
    func lock(_ descriptor: Int32, _ kind: Int32) -> Int32 {
        guard flock(descriptor, kind | LOCK_NB) == 0 else { return errno }
        return isLocal && relight_is_record_locked(descriptor) == 1 ? EWOULDBLOCK : 0
    }

    /// Whether at most one machine has this filesystem mounted, so that its locks tell everything.
    var isLocal: Bool {
        if let locality { return locality }
        guard let type = filesystem else { return false }
        if FilesystemType.local.contains(type) { return true }
        // FUSE on a block device (ntfs-3g, exfat) has that device's number; FUSE over a network has none.
        return type == FilesystemType.fuse && isOnDevice
    }

    /// Whether the folder lies on a block device, as far as its number tells.
    var isOnDevice: Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && relight_device_major(UInt64(status.st_dev)) != 0
    }

    /// The type of the filesystem the folder lies on, or will lie on.
    var filesystem: UInt64? {
        var type: UInt64 = 0
        var place = path
        while true {
            let outcome = unsafe relight_filesystem_type(place, &type)
            if outcome == 0 { return type }
            guard outcome == -ENOENT, let slash = place.utf8.lastIndex(of: UInt8(ascii: "/")) else { break }
            if slash == place.startIndex { return unsafe relight_filesystem_type("/", &type) == 0 ? type : nil }
            place = String(place[..<slash])
        }
        return unsafe !path.hasPrefix("/") && relight_filesystem_type(".", &type) == 0 ? type : nil
    }

    /// `tmp/<random>-<number>-<host>.<suffix>`
    private func temporaryName(_ suffix: String) -> String {
        var generator = SystemRandomNumberGenerator()
        let random = String(generator.next() as UInt64, radix: 16)
        return "tmp/\(random)-\(counter.add(1, ordering: .relaxed).newValue)-\(host).\(suffix)"
    }

    /// Whether this running system made the unfinished file.
    private func madeHere(_ entry: String) -> Bool { entry.hasSuffix("-\(host).part") }

    /// The mark of the running system that made the unfinished file.
    private static func maker(_ entry: String) -> String {
        String(entry.dropLast(5).split(separator: "-", omittingEmptySubsequences: false).last ?? "")
    }

    /// Whether the open file still has this name.
    func isStill(_ descriptor: Int32, _ name: String) -> Bool {
        var open = stat()
        var named = stat()
        return unsafe fstat(descriptor, &open) == 0 && lstat("\(path)/\(name)", &named) == 0
            && open.st_dev == named.st_dev && open.st_ino == named.st_ino
    }

    /// Whether an object of this name may have no byte. All others have some: a file without any is what FAT leaves when the
    /// power goes just after a rename, and no object.
    static func mayBeEmpty(_ name: String) -> Bool {
        ["gone/", AnnouncementName.folder + "/", "tmp/"].contains { name.hasPrefix($0) }
    }

    // MARK: - Parts

    /// Creates the folder `relative` and those above it; new ones are flushed into their parents.
    func makeFolders(_ relative: String) throws(Fault) {
        let full = "\(path)/\(relative)"
        if unsafe access(full, F_OK) == 0 { return }
        var made = ""
        for part in full.split(separator: "/", omittingEmptySubsequences: true) {
            if made.isEmpty, !full.hasPrefix("/") { made = String(part) } else { made += "/" + part }
            if unsafe mkdir(made, 0o755) == 0 {
                FolderEvent.note(.madeFolder(made))
                let parent = made.split(separator: "/").dropLast().joined(separator: "/")
                try flush(folder: made.hasPrefix("/") ? "/" + parent : parent.isEmpty ? "." : parent)
            } else if errno != EEXIST, unsafe access(made, F_OK) != 0 {
                throw failure(errno, "Creating the folder", relative)
            }
        }
    }

    func flushFolder(of name: String) throws(Fault) {
        let parts = name.split(separator: "/").dropLast()
        try flush(folder: parts.isEmpty ? path : "\(path)/" + parts.joined(separator: "/"))
    }

    private func flush(folder: String) throws(Fault) {
        let problem = FolderStore.flush(folder: folder)
        if problem != 0 { throw failure(problem, "Flushing the folder", folder) }
    }

    /// Makes what was renamed, made or removed in a folder durable; the errno, or 0.
    static func flush(folder: String) -> Int32 {
        let opened = unsafe relight_open(folder, O_RDONLY | O_DIRECTORY, 0)
        guard opened >= 0 else { return -opened }
        guard SafetyRules.keep(.folderFlush) else {
            close(opened)
            return 0
        }
        let status = fsync(opened)
        let problem = errno
        close(opened)
        if status == 0 { FolderEvent.note(.flushedFolder(folder)) }
        // Some network and FUSE filesystems cannot flush a folder and say so; they have no cache of it either.
        return status != 0 && problem != EINVAL && problem != EOPNOTSUPP && problem != ENOSYS ? problem : 0
    }

    /// Renames an unfinished file without replacing an object; the errno, or 0. An empty file in its place is none.
    func renameNew(_ temporary: String, _ name: String) -> Int32 {
        let (from, to) = ("\(path)/\(temporary)", "\(path)/\(name)")
        guard SafetyRules.keep(.neverReplace) else { return unsafe rename(from, to) == 0 ? 0 : errno }
        let problem = FolderStore.renameNew(from, to)
        var there = stat()
        guard problem == EEXIST, !FolderStore.mayBeEmpty(name), unsafe lstat(to, &there) == 0,
            there.st_mode & S_IFMT == S_IFREG, there.st_size == 0
        else { return problem }
        return unsafe rename(from, to) == 0 ? 0 : errno
    }

    /// Renames without replacing anything; the errno, or 0.
    static func renameNew(_ from: String, _ to: String) -> Int32 {
        guard SafetyRules.keep(.neverReplace) else { return unsafe rename(from, to) == 0 ? 0 : errno }
        let status = unsafe relight_rename_new(from, to)
        guard status == -EINVAL || status == -ENOSYS else { return -status }
        if unsafe access(to, F_OK) == 0 { return EEXIST }
        return unsafe rename(from, to) == 0 ? 0 : errno
    }

    func failure(_ problem: Int32, _ doing: String, _ name: String) -> Fault {
        FolderStore.failure(
            problem, doing, name.hasPrefix("/") ? name : name.isEmpty ? path : "\(path)/\(name)")
    }

    /// The fault for an error number the kernel gave while writing something.
    static func failure(_ problem: Int32, _ doing: String, _ place: String) -> Fault {
        let reason = unsafe strerror(problem).map { unsafe String(cString: $0) } ?? "error \(problem)"
        switch problem {
        case ENOSPC, EDQUOT:
            return Fault(
                .storeFull, what: "\(doing) failed: \(reason).", place: place,
                remedy:
                    "Finished recovery points are not harmed. Make room there, or name another place; what was already "
                    + "stored completely is used again by the next backup into this set.")
        case EEXIST:
            return Fault(
                .storeTaken, what: "\(doing) failed: there is one of that name already.", place: place,
                remedy: "Somebody else writes there too; run the command again.")
        case EFBIG:
            return Fault(
                .storeFailed, what: "\(doing) failed: the filesystem does not take files of this size.", place: place,
                remedy: "Choose a smaller pack size, or a place with another filesystem.")
        case EROFS, EACCES, EPERM:
            return Fault(
                .storeFailed, what: "\(doing) failed: \(reason).", place: place,
                remedy: "Mount the place writable and run relight as a user who may write there.")
        default:
            return Fault(
                .storeFailed, what: "\(doing) failed: \(reason).", place: place,
                remedy:
                    "Check the medium, its cable or network, and the kernel log; finished recovery points are not changed."
            )
        }
    }
}

/// Magic numbers of filesystems, as `statfs` gives them (linux/magic.h and the filesystems' own sources).
enum FilesystemType {
    static let fat: UInt64 = 0x4d44
    static let fuse: UInt64 = 0x6573_5546
    /// Those on which a power cut may leave one end of a rename without the other, besides FUSE on a device.
    static let tearing: Set<UInt64> = [
        fat, 0x2011_BAB0 /* exFAT */, 0x7366_746E /* NTFS3 */, 0x5346_544E /* NTFS */, 0x482B /* HFS+ */,
        0x1501_3346, /* UDF */
    ]
    /// Those that only one machine can have mounted.
    static let local: Set<UInt64> = [
        fat, 0x2011_BAB0 /* exFAT */, 0xEF53 /* ext2/3/4 */, 0x5846_5342 /* XFS */, 0x9123_683E /* Btrfs */,
        0x0102_1994 /* tmpfs */, 0x8584_58F6 /* ramfs */, 0x7366_746E /* NTFS3 */, 0x5346_544E /* NTFS */,
        0xF2F5_2010 /* F2FS */, 0x2FC1_2FC1 /* ZFS */, 0x3153_464A /* JFS */, 0x5265_4973 /* ReiserFS */,
        0x794C_7630 /* overlayfs */, 0x9660 /* ISO 9660 */, 0x1501_3346 /* UDF */, 0x7371_7368 /* SquashFS */,
        0x482B /* HFS+ */, 0xCA45_1A4E /* bcachefs */, 0x3434 /* NILFS2 */,
    ]
}
