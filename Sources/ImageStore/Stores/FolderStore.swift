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
/// no extended attributes, no change of a finished file.
public final class FolderStore: ObjectStore {
    /// The folder.
    public let path: String
    /// The folder's path.
    public var name: String { path }
    private let counter = Atomic<UInt64>(0)

    /// A store in the folder `path`, which need not exist yet.
    public init(path: String) {
        var trimmed = path
        while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed.removeLast() }
        self.path = trimmed
    }

    /// 4 GiB − 1 on FAT32, no limit elsewhere.
    public var maximumObjectSize: ByteCount? {
        var type: UInt64 = 0
        guard unsafe relight_filesystem_type(path, &type) == 0 else { return nil }
        // MSDOS_SUPER_MAGIC of linux/magic.h.
        return type == 0x4d44 ? ByteCount(0xFFFF_FFFF) : nil
    }

    /// Creates the folder and its `tmp`.
    public func prepare() throws(Fault) { try makeFolders("tmp") }

    /// Begins a file in `tmp/`.
    public func upload() throws(Fault) -> any ObjectUpload {
        try makeFolders("tmp")
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<16 {
            let random = String(generator.next() as UInt64, radix: 16)
            let name = "tmp/\(random)-\(counter.add(1, ordering: .relaxed).newValue).part"
            let opened = unsafe relight_open("\(path)/\(name)", O_RDWR | O_CREAT | O_EXCL, 0o644)
            if opened >= 0 {
                // The lock tells a later run that this file's writer is alive. Where locks do not work nothing is lost:
                // files whose lock cannot be taken are left alone. When somebody else has it already, they took this
                // new file for a leftover and are about to remove it.
                if flock(opened, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK {
                    close(opened)
                    continue
                }
                return Upload(store: self, descriptor: opened, temporary: name)
            }
            if opened != -EEXIST { throw failure(-opened, "Creating", name) }
        }
        throw failure(EEXIST, "Creating", "tmp")
    }

    /// Opens a file.
    public func open(_ name: String) throws(Fault) -> (any ObjectHandle)? {
        let opened = unsafe relight_open("\(path)/\(name)", O_RDONLY | O_NONBLOCK, 0)
        if opened == -ENOENT || opened == -ENOTDIR { return nil }
        guard opened >= 0 else { throw failure(-opened, "Opening", name) }
        return try Handle(store: self, descriptor: opened, name: name)
    }

    /// Files below `folder`, at most two folders deep.
    public func list(_ folder: String) throws(Fault) -> [StoredObject] {
        var result: [StoredObject] = []
        try collect(folder, depth: 2, into: &result)
        return result
    }

    private func collect(_ folder: String, depth: Int, into result: inout [StoredObject]) throws(Fault) {
        for entry in try entries(folder, limit: .max) {
            let name = "\(folder)/\(entry)"
            var status = stat()
            guard unsafe lstat("\(path)/\(name)", &status) == 0 else {
                if errno == ENOENT { continue }
                throw failure(errno, "Looking at", name)
            }
            switch status.st_mode & S_IFMT {
            case S_IFREG: result.append(StoredObject(name: name, size: ByteCount(UInt64(max(0, status.st_size)))))
            case S_IFDIR: if depth > 1 { try collect(name, depth: depth - 1, into: &result) }
            default: break
            }
        }
    }

    /// Names in the folder.
    public func topLevelNames(limit: Int) throws(Fault) -> [String] { try entries("", limit: limit).sorted() }

    private func entries(_ folder: String, limit: Int) throws(Fault) -> [String] {
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
        guard unsafe unlink("\(path)/\(name)") == 0 || errno == ENOENT else { throw failure(errno, "Removing", name) }
        try flushFolder(of: name)
    }

    /// Files in `tmp/` whose writer has ended.
    public func leftovers() throws(Fault) -> [any ObjectLeftover] {
        var result: [any ObjectLeftover] = []
        for entry in try entries("tmp", limit: 4096).sorted() where entry.hasSuffix(".part") {
            let opened = unsafe relight_open("\(path)/tmp/\(entry)", O_RDWR | O_NONBLOCK, 0)
            guard opened >= 0 else { continue }
            guard flock(opened, LOCK_EX | LOCK_NB) == 0 else {
                close(opened)
                continue
            }
            result.append(try Handle(store: self, descriptor: opened, name: "tmp/\(entry)"))
        }
        return result
    }

    // MARK: - Parts

    /// Creates the folder `relative` and those above it; new ones are flushed into their parents.
    fileprivate func makeFolders(_ relative: String) throws(Fault) {
        let full = "\(path)/\(relative)"
        if unsafe access(full, F_OK) == 0 { return }
        var made = ""
        for part in full.split(separator: "/", omittingEmptySubsequences: true) {
            if made.isEmpty, !full.hasPrefix("/") { made = String(part) } else { made += "/" + part }
            if unsafe mkdir(made, 0o755) == 0 {
                let parent = made.split(separator: "/").dropLast().joined(separator: "/")
                try flush(folder: made.hasPrefix("/") ? "/" + parent : parent.isEmpty ? "." : parent)
            } else if errno != EEXIST, unsafe access(made, F_OK) != 0 {
                throw failure(errno, "Creating the folder", relative)
            }
        }
    }

    fileprivate func flushFolder(of name: String) throws(Fault) {
        let parts = name.split(separator: "/").dropLast()
        try flush(folder: parts.isEmpty ? path : "\(path)/" + parts.joined(separator: "/"))
    }

    private func flush(folder: String) throws(Fault) {
        let opened = unsafe relight_open(folder, O_RDONLY | O_DIRECTORY, 0)
        guard opened >= 0 else { throw failure(-opened, "Opening the folder", folder) }
        let status = fsync(opened)
        let problem = errno
        close(opened)
        // Some network and FUSE filesystems cannot flush a folder and say so; they have no cache of it either.
        if status != 0, problem != EINVAL, problem != EOPNOTSUPP, problem != ENOSYS {
            throw failure(problem, "Flushing the folder", folder)
        }
    }

    /// Renames without replacing anything; the errno, or 0.
    private static func renameNew(_ from: String, _ to: String) -> Int32 {
        let status = unsafe relight_rename_new(from, to)
        guard status == -EINVAL || status == -ENOSYS else { return -status }
        if unsafe access(to, F_OK) == 0 { return EEXIST }
        return unsafe rename(from, to) == 0 ? 0 : errno
    }

    fileprivate func failure(_ problem: Int32, _ doing: String, _ name: String) -> Fault {
        let place = name.hasPrefix("/") ? name : name.isEmpty ? path : "\(path)/\(name)"
        let reason = unsafe strerror(problem).map { unsafe String(cString: $0) } ?? "error \(problem)"
        switch problem {
        case ENOSPC, EDQUOT:
            return Fault(
                .storeFull, what: "\(doing) failed: \(reason).", place: place,
                remedy:
                    "Finished recovery points are not harmed. Make room there, or name another place; what was already "
                    + "stored completely is used again by the next backup into this set.")
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

    private final class Upload: ObjectUpload {
        let store: FolderStore
        let temporary: String
        /// The open file; nil once sealed or abandoned.
        let descriptor: Mutex<Int32?>
        let raw: Int32

        init(store: FolderStore, descriptor: Int32, temporary: String) {
            self.store = store
            self.raw = descriptor
            self.descriptor = Mutex(descriptor)
            self.temporary = temporary
        }

        deinit { abandon() }

        func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
            let raw = self.raw
            let problem: Int32 = unsafe bytes.withUnsafeBytes { pointer in
                guard let base = pointer.baseAddress else { return 0 }
                var done = 0
                while done < pointer.count {
                    let put = unsafe pwrite(
                        raw, base + done, pointer.count - done, off_t(truncatingIfNeeded: offset.bytes) + off_t(done))
                    if put > 0 {
                        done += put
                    } else if put == 0 {
                        return ENOSPC
                    } else if errno != EINTR {
                        return errno
                    }
                }
                return 0
            }
            if problem != 0 { throw store.failure(problem, "Writing \(bytes.byteCount) bytes", temporary) }
            // Starts the transfer to the medium now, so that the flush at the end has little left to wait for.
            _ = relight_start_writeback(raw, offset.bytes, UInt64(bytes.byteCount))
        }

        func seal(as name: String) throws(Fault) {
            guard descriptor.withLock({ $0 }) != nil else { throw store.failure(EBADF, "Sealing", name) }
            // After a failed fsync the kernel may have dropped the data: the file is of no more use.
            while fsync(raw) != 0 {
                if errno != EINTR { throw store.failure(errno, "Flushing", temporary) }
            }
            let folder = name.split(separator: "/").dropLast().joined(separator: "/")
            if !folder.isEmpty { try store.makeFolders(folder) }
            let problem = FolderStore.renameNew("\(store.path)/\(temporary)", "\(store.path)/\(name)")
            if problem != 0 { throw store.failure(problem, "Renaming to \(name)", temporary) }
            let closing: Int32 = descriptor.withLock { descriptor in
                descriptor = nil
                return Glibc.close(raw) == 0 ? 0 : errno
            }
            if closing != 0, closing != EINTR { throw store.failure(closing, "Closing", name) }
            try store.flushFolder(of: name)
        }

        func abandon() {
            descriptor.withLock { descriptor in
                guard descriptor != nil else { return }
                descriptor = nil
                _ = unsafe unlink("\(store.path)/\(temporary)")
                Glibc.close(raw)
            }
        }
    }

    private final class Handle: ObjectLeftover {
        let store: FolderStore
        let descriptor: Int32
        let name: String
        let size: ByteCount

        init(store: FolderStore, descriptor: Int32, name: String) throws(Fault) {
            self.store = store
            self.descriptor = descriptor
            self.name = name
            var status = stat()
            let looked = unsafe fstat(descriptor, &status)
            guard looked == 0, status.st_mode & S_IFMT == S_IFREG else {
                let problem = looked == 0 ? EINVAL : errno
                self.size = .zero
                throw store.failure(problem, "Looking at", name)
            }
            self.size = ByteCount(UInt64(max(0, status.st_size)))
        }

        deinit { close(descriptor) }

        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            let descriptor = self.descriptor
            let problem: Int32 = unsafe buffer.withUnsafeMutableBytes { pointer in
                guard let base = pointer.baseAddress else { return 0 }
                var done = 0
                while done < pointer.count {
                    let got = unsafe pread(
                        descriptor, base + done, pointer.count - done,
                        off_t(truncatingIfNeeded: offset.bytes) + off_t(done))
                    if got > 0 {
                        done += got
                    } else if got == 0 {
                        return -1
                    } else if errno != EINTR {
                        return errno
                    }
                }
                return 0
            }
            if problem == 0 { return }
            let place = "\(store.path)/\(name)"
            if problem < 0 { throw endsEarly(place, offset: offset, size: size) }
            let reason = unsafe strerror(problem).map { unsafe String(cString: $0) } ?? "error \(problem)"
            throw Fault(
                .storeFailed, what: "Reading at byte \(offset.bytes) failed: \(reason).", place: place,
                remedy:
                    "Check the medium, its cable or network, and the kernel log; another copy of this file may be sound.",
                extent: Extent(start: offset, length: ByteCount(UInt64(buffer.byteCount))))
        }

        func dropCaches() { _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) }

        func remove() throws(Fault) { try store.delete(name) }
    }
}
