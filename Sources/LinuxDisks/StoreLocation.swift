// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
import Glibc
import Synchronization

/// Where an image set, or a file of the user's, lies: a folder, or a path on a filesystem found by its label and mounted
/// for as long as the value lives.
public final class StoreLocation: Sendable {
    /// The folder or file to work with.
    public let path: String
    /// The device that was mounted for it; `nil` when it was a plain path.
    public var mountedDevice: String? { volume?.path }
    /// The volume that was mounted for it; `nil` when it was a plain path.
    public let volume: FoundVolume?
    /// Taken out when unmounted: once the folder is free, another process may mount there.
    private let mountPoint: Mutex<String?>

    /// What a user wrote, taken apart.
    public enum Name: Hashable, Sendable {
        /// A path.
        case path(String)
        /// `label:NAME/path`.
        case label(String, path: String)
        /// `uuid:ID/path`.
        case uuid(String, path: String)

        /// Reads a path, `label:NAME/path` or `uuid:ID/path`. Throws `usage` for an empty name and for a path with `..`.
        public init(_ text: String) throws(Fault) {
            for (prefix, make) in [("label:", Name.label), ("uuid:", Name.uuid)] where text.hasPrefix(prefix) {
                // By bytes, as the kernel parts paths: a character may be a slash and what follows in one.
                let pieces = text.utf8.dropFirst(prefix.utf8.count)
                    .split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
                    .map { String(decoding: $0, as: UTF8.self) }
                let name = pieces.first ?? ""
                let parts = pieces.dropFirst().filter { !$0.isEmpty }
                guard !name.isEmpty, !parts.contains(".."), !text.utf8.contains(0) else {
                    throw Fault(
                        .usage, what: "\"\(text)\" does not name a place.",
                        remedy: "Write \(prefix)NAME/folder/of/the/set, without \"..\".")
                }
                self = make(name, parts.joined(separator: "/"))
                return
            }
            guard !text.isEmpty, !text.utf8.contains(0) else {
                throw Fault(
                    .usage, what: "The place of the image set is empty.",
                    remedy: "Name a folder, or label:NAME/folder on a filesystem with that label.")
            }
            self = .path(text)
        }

        private static func label(_ name: String, _ path: String) -> Name { .label(name, path: path) }
        private static func uuid(_ name: String, _ path: String) -> Name { .uuid(name, path: path) }
    }

    /// Folder that private mounts are made in.
    public static let mountFolder = "/run/relight/stores"

    /// Opens the place `text` names: nothing is done for a path; for a label or UUID the one filesystem is mounted
    /// (`nosuid,nodev,noexec`).
    ///
    /// Throws `usage`, `store.missing`, `disk.ambiguous`, `store.failed`.
    public static func open(
        _ text: String, _ access: Access = .readWrite, in scan: DiskScan = DiskScan(),
        identify: VolumeIdentity.Identifier = VolumeIdentity.byProgram
    ) throws(Fault) -> StoreLocation {
        let name = try Name(text)
        if case .path(let path) = name {
            try requirePath(path, scan.files)
            return StoreLocation(path: path, volume: nil, mountPoint: nil)
        }
        let volume = try find(name, in: scan, identify)
        return try mount(volume, below: name.pathOnVolume, access)
    }

    /// The volume `text` names by label or UUID, without mounting it; `nil` for a path. What must not be mounted, because
    /// a mount writes to it, is told from this. Throws `usage`, `store.missing`, `disk.ambiguous`.
    public static func locate(
        _ text: String, in scan: DiskScan = DiskScan(), identify: VolumeIdentity.Identifier = VolumeIdentity.byProgram
    ) throws(Fault) -> FoundVolume? {
        let name = try Name(text)
        if case .path(let path) = name {
            try requirePath(path, scan.files)
            return nil
        }
        return try find(name, in: scan, identify)
    }

    /// Throws `usage` for what looks like a misspelt `label:` or `uuid:`: a word and a colon, with which no path begins that
    /// exists. A folder of that name would be made in the current one, and the filesystem that was meant stay empty.
    static func requirePath(_ path: String, _ files: KernelFiles) throws(Fault) {
        let first = path.utf8.prefix { $0 != UInt8(ascii: "/") }
        guard let colon = first.firstIndex(of: UInt8(ascii: ":")), colon != first.startIndex,
            first[..<colon].allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x7A).contains($0 | 0x20) }),
            files.resolved(String(decoding: first, as: UTF8.self)) == nil
        else { return }
        let rest = String(decoding: path.utf8[path.utf8.index(after: colon)...], as: UTF8.self)
        throw Fault(
            .usage,
            what:
                "\"\(String(decoding: first[...colon], as: UTF8.self))\" names no kind of place: there are label: and uuid:, "
                + "in small letters, and paths.", place: path,
            remedy: "Write label:\(rest) for a filesystem with that label, or ./\(path) for a folder of that name.")
    }

    /// The one filesystem a name stands for; throws when there is none or more than one.
    static func find(
        _ name: Name, in scan: DiskScan, _ identify: VolumeIdentity.Identifier
    ) throws(Fault) -> FoundVolume {
        let all = scan.volumes(identify)
        let matches = all.filter { volume in
            switch name {
            case .path: return false
            case .label(let label, _): return volume.identity.label == label
            case .uuid(let uuid, _): return volume.identity.uuid?.lowercased() == uuid.lowercased()
            }
        }
        if let only = matches.first, matches.count == 1 { return only }
        func list(_ volumes: [FoundVolume]) -> String {
            volumes.map {
                "  \($0.path): \($0.identity.kind), label \($0.identity.label ?? "none"), UUID \($0.identity.uuid ?? "none")"
            }.joined(separator: "\n")
        }
        if matches.isEmpty {
            throw Fault(
                .storeMissing, what: "No attached filesystem is \(name.volumeText).",
                remedy: all.isEmpty
                    ? "No filesystem was found at all: attach the disk that holds the image set."
                    : "Attach its disk, or use one of these:\n" + list(all))
        }
        throw Fault(
            .ambiguousDisk, what: "\(matches.count) attached filesystems are \(name.volumeText).",
            remedy: Set(matches.map(\.identity.uuid)).count == matches.count
                ? "Detach all but one, or name one by its UUID (uuid:ID/folder):\n" + list(matches)
                : "Detach all but one: their UUIDs are the same too.\n" + list(matches))
    }

    /// How a filesystem is mounted.
    public enum Access: Sendable {
        /// For writing.
        case readWrite
        /// For reading; a journal that waits is replayed.
        case readOnly
        /// For a look that changes no byte: a journal that waits is left alone.
        case untouched
    }

    /// Mounts a volume that was found and returns the place `below` its top folder.
    /// Throws `unsupported`, `no-access`, `store.failed`.
    public static func mount(
        _ volume: FoundVolume, below: String = "", _ access: Access = .readWrite
    ) throws(Fault) -> StoreLocation {
        let drivers = FilesystemDriver.drivers(for: volume.identity.kind)
        guard !drivers.isEmpty else {
            throw Fault(
                .unsupported, what: "It holds \(volume.identity.kind), which cannot be mounted to keep files in.",
                place: volume.path,
                remedy: "Put the image set on ext4, XFS, Btrfs, exFAT, FAT or NTFS.")
        }
        let point = try makePoint(volume.identity.label ?? volume.identity.uuid ?? "volume")
        var flags = UInt(MS_NOSUID) | UInt(MS_NODEV) | UInt(MS_NOEXEC)
        var problem: Int32 = 0
        for driver in drivers {
            if access != .readWrite || driver.isReadOnly { flags |= UInt(MS_RDONLY) }
            let options = [driver.options, access == .untouched ? driver.untouched : nil].compactMap { $0 }
            problem = unsafe -relight_mount(volume.path, point, driver.name, flags, options.joined(separator: ","))
            if problem == 0 {
                let path = below.isEmpty ? point : "\(point)/\(below)"
                return StoreLocation(path: path, volume: volume, mountPoint: point)
            }
        }
        unsafe rmdir(point)
        throw cannotMount(volume, problem)
    }

    private static func cannotMount(_ volume: FoundVolume, _ problem: Int32) -> Fault {
        let reason = unsafe String(cString: strerror(problem))
        let remedy: String
        switch problem {
        case EROFS, EACCES: remedy = "The disk is write-protected: use its switch, or another disk."
        case EPERM: remedy = "Run relight as root."
        case ENODEV: remedy = "The kernel has no driver for \(volume.identity.kind): use another filesystem."
        case EBUSY: remedy = "Something else holds the device: unmount it there first."
        default:
            remedy =
                volume.identity.kind == "ntfs"
                ? "Windows may not have been shut down fully: start it, choose Shut down while holding Shift, and try again."
                : "Check the filesystem with its own checker (fsck), and read the kernel log with `dmesg`."
        }
        return Fault(
            .storeFailed, what: "Mounting the \(volume.identity.kind) filesystem failed: \(reason).",
            place: volume.path,
            remedy: remedy)
    }

    private static func makePoint(_ name: String) throws(Fault) -> String {
        // The label comes from a disk; only harmless characters of it become a folder's name.
        let safe = String(
            name.unicodeScalars.prefix(64).map { scalar -> Character in
                let isPlain = scalar.isASCII && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar))
                return isPlain || scalar == "-" || scalar == "_" ? Character(scalar) : "_"
            })
        var folder = ""
        for part in mountFolder.split(separator: "/") {
            folder += "/\(part)"
            unsafe mkdir(folder, 0o755)
        }
        for attempt in 0..<1000 {
            let point = attempt == 0 ? "\(folder)/\(safe)" : "\(folder)/\(safe).\(attempt)"
            if unsafe mkdir(point, 0o700) == 0 { return point }
            guard errno == EEXIST else {
                throw Fault(
                    .noAccess, what: "The folder cannot be made: \(unsafe String(cString: strerror(errno))).",
                    place: point,
                    remedy: "Run relight as root.")
            }
        }
        throw Fault(
            .system, what: "There are too many mounts left over.", place: folder,
            remedy: "Unmount what is below it and remove the folders.")
    }

    private init(path: String, volume: FoundVolume?, mountPoint: String?) {
        self.path = path
        self.volume = volume
        self.mountPoint = Mutex(mountPoint)
    }

    /// Unmounts what was mounted; also done when the value is released.
    public func release() {
        let point = mountPoint.withLock { point in
            defer { point = nil }
            return point
        }
        guard let point else { return }
        var status = unsafe relight_unmount(point, 0)
        for _ in 0..<20 where status == -EBUSY {
            usleep(50_000)
            status = unsafe relight_unmount(point, 0)
        }
        // A lazy unmount still writes everything when its last user is gone.
        if status == -EBUSY { _ = unsafe relight_unmount(point, Int32(MNT_DETACH)) }
        unsafe rmdir(point)
    }

    deinit { release() }
}

extension StoreLocation.Name {
    var pathOnVolume: String {
        switch self {
        case .path: return ""
        case .label(_, let path), .uuid(_, let path): return path
        }
    }

    var volumeText: String {
        switch self {
        case .path(let path): return path
        case .label(let name, _): return "label:\(name)"
        case .uuid(let name, _): return "uuid:\(name)"
        }
    }
}

/// The kernel's drivers for a kind of filesystem, best first.
struct FilesystemDriver {
    var name: String
    var options: String?
    /// Options under which a read-only mount leaves a waiting journal alone.
    var untouched: String?
    var isReadOnly = false

    static func drivers(for kind: String) -> [FilesystemDriver] {
        switch kind {
        case "ext2", "ext3", "ext4": return [FilesystemDriver(name: "ext4", untouched: "noload")]
        case "vfat": return [FilesystemDriver(name: "vfat", options: "utf8=1"), FilesystemDriver(name: "vfat")]
        case "ntfs": return [FilesystemDriver(name: "ntfs3")]
        case "xfs": return [FilesystemDriver(name: kind, untouched: "norecovery,nouuid")]
        case "btrfs": return [FilesystemDriver(name: kind, untouched: "rescue=nologreplay")]
        case "f2fs": return [FilesystemDriver(name: kind, untouched: "norecovery")]
        case "exfat", "udf", "jfs": return [FilesystemDriver(name: kind)]
        case "iso9660", "squashfs", "erofs": return [FilesystemDriver(name: kind, isReadOnly: true)]
        default: return []
        }
    }
}
