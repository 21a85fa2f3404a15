// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # FileTrees
///
/// Files and folders of a filesystem, read straight from the volume it lies in: nothing is mounted and nothing is
/// written. ext2, ext3 and ext4 are read through libext2fs, as they will be after their journal is replayed; NTFS through
/// libntfs-3g, with compressed and sparse files, alternate streams, and names compared as Windows does; FAT by this
/// program. A filesystem that only the kernel reads (XFS, Btrfs …) is mounted read-only in a child with a mount namespace
/// of its own, and only where ``ProbeHost/mounting`` allows it: in the booted environment.
///
/// A ``FileTree`` never follows a symbolic link by itself, it says where it met one. ``FileTree/find(_:)`` follows them,
/// inside the tree: a link to `/etc` means the tree's own `/etc`, and `..` never leads out of the root.
///
/// C libraries are not proof against hostile bytes. ``ProbeHost/child(program:)`` therefore runs them in a child process with
/// no descriptor but a socket to this program, no rights, and limits on memory and time: it asks for each block it
/// needs. A crash or a hang there is a fault here, `probe.failed`, that names the volume.
///
/// What the room does not promise: files encrypted by the filesystem, files that Windows compressed with WOF
/// (CompactOS) and files that data deduplication took apart are named, but not read.
public import Findings

/// What lies at a name.
public struct TreeEntry: Hashable, Sendable {
    /// What it is.
    public enum Kind: String, Hashable, Sendable {
        /// A file.
        case file
        /// A folder.
        case folder
        /// A symbolic link.
        case link
        /// A device, a socket, a pipe.
        case other
    }
    /// The name in its folder; safe to print. Empty for the root.
    public var name: String
    /// What it is.
    public var kind: Kind
    /// Bytes of a file; 0 for others, and in lists of folders where it takes another read to know.
    public var size: UInt64
    /// Windows' file attributes (FILE_ATTRIBUTE_…), on NTFS and FAT.
    public var attributes: UInt32?
    /// The tag of its reparse point, on NTFS.
    public var reparseTag: UInt32?

    /// An entry.
    public init(
        name: String, kind: Kind, size: UInt64 = 0, attributes: UInt32? = nil, reparseTag: UInt32? = nil
    ) {
        self.name = name
        self.kind = kind
        self.size = size
        self.attributes = attributes
        self.reparseTag = reparseTag
    }
}

/// How far a path leads.
public enum TreeStep: Hashable, Sendable {
    /// To its end.
    case found(TreeEntry)
    /// To a symbolic link, which the first `depth` parts of the path name.
    case link(depth: Int, target: String)
    /// To nothing.
    case missing
}

/// A named stream of a file.
public struct TreeStream: Hashable, Sendable {
    /// Its name.
    public var name: String
    /// Bytes.
    public var size: UInt64

    /// A stream.
    public init(name: String, size: UInt64) {
        self.name = name
        self.size = size
    }
}

/// The files of one filesystem. One thread at a time.
///
/// Paths are parts from the root on; the empty path is the root. All methods throw `interrupted`, ``FaultCode/treeDamaged``
/// where what is read contradicts itself or cannot be read, ``FaultCode/unsupported`` where a file is stored in a way
/// this program does not read, and ``FaultCode/probeFailed``.
public protocol FileTree: AnyObject {
    /// Whether names that differ in case only are different names.
    var isCaseSensitive: Bool { get }
    /// Goes along `path`, up to the first symbolic link.
    func step(_ path: [String]) throws(Fault) -> TreeStep
    /// The names in a folder in the order they are stored, at most `most`; empty where there is no such folder.
    func list(_ path: [String], most: Int) throws(Fault) -> [TreeEntry]
    /// At most `count` bytes (8 MiB) of a file or one of its named streams, from byte `offset` on; fewer at its end only.
    func read(_ path: [String], stream: String?, from offset: UInt64, count: Int) throws(Fault) -> [UInt8]
    /// The named streams of a file; empty where the filesystem has none.
    func streams(_ path: [String]) throws(Fault) -> [TreeStream]
}

/// Bounds that all trees keep.
public enum TreeLimits {
    /// Bytes of one read.
    public static let read = 8 << 20
    /// Symbolic links followed in one path, as Linux does.
    public static let links = 40
    /// Parts of a path.
    public static let parts = 256
}

extension FaultCode {
    /// A filesystem's metadata, or a file's, are damaged.
    public static let treeDamaged = FaultCode("tree.damaged", exit: .damaged)
    /// The child that looks into a filesystem crashed, hung or was stopped by its limits.
    public static let probeFailed = FaultCode("probe.failed", exit: .failed)
}

/// A place that a path led to, all links followed.
public struct TreePlace: Hashable, Sendable {
    /// The parts that lead there without a link.
    public var path: [String]
    /// What is there.
    public var entry: TreeEntry
}

extension FileTree {
    /// What `path` (parts divided by `/`, from the root) leads to, symbolic links followed inside the tree; `nil` where
    /// nothing is there, or links lead in a circle.
    public func find(_ path: String) throws(Fault) -> TreePlace? {
        var parts = TreePaths.clean(path)
        var links = 0
        while true {
            guard parts.count <= TreeLimits.parts else { return nil }
            switch try step(parts) {
            case .found(let entry): return TreePlace(path: parts, entry: entry)
            case .missing: return nil
            case .link(let depth, let target):
                links += 1
                guard links <= TreeLimits.links, depth >= 1, depth <= parts.count, !target.isEmpty else { return nil }
                parts = TreePaths.following(target, at: depth, of: parts)
            }
        }
    }

    /// Whether a file or folder is at `path`, links followed.
    public func holds(_ path: String) throws(Fault) -> Bool { try find(path) != nil }

    /// Whether a folder is at `path`, links followed.
    public func holdsFolder(_ path: String) throws(Fault) -> Bool { try find(path)?.entry.kind == .folder }

    /// A whole file of at most `limit` bytes (8 MiB); `nil` where no file is there. A larger one throws `tree.damaged`: what is
    /// read this way is small on every sound system.
    public func file(_ path: String, limit: Int = 1 << 20) throws(Fault) -> [UInt8]? {
        guard let place = try find(path), place.entry.kind == .file else { return nil }
        guard place.entry.size <= UInt64(min(limit, TreeLimits.read)) else {
            throw Fault(
                .treeDamaged, what: "It has \(place.entry.size) bytes; at most \(limit) are plausible.", place: path,
                remedy: "Look at the file.")
        }
        return try read(place.path, stream: nil, from: 0, count: Int(place.entry.size))
    }

    /// The first `count` bytes of a file, fewer where it is shorter; `nil` where no file is there.
    public func start(of path: String, count: Int) throws(Fault) -> [UInt8]? {
        guard let place = try find(path), place.entry.kind == .file else { return nil }
        return try read(place.path, stream: nil, from: 0, count: count)
    }

    /// The names in a folder, links followed; empty where no folder is there.
    public func names(in path: String, most: Int = 4096) throws(Fault) -> [TreeEntry] {
        guard let place = try find(path), place.entry.kind == .folder else { return [] }
        return try list(place.path, most: most)
    }
}

/// Paths as parts.
public enum TreePaths {
    /// The parts of `path`: without empty ones and `.`; `..` takes the part before it away.
    public static func clean(_ path: String) -> [String] { add(path, to: []) }

    /// The path to go on with where the first `depth` parts name a link to `target`.
    static func following(_ target: String, at depth: Int, of parts: [String]) -> [String] {
        let base = target.hasPrefix("/") ? [] : Array(parts.prefix(depth - 1))
        // What comes behind the link counts from where it leads, so that `..` there means its parent.
        return add(target, to: base) + parts.dropFirst(depth)
    }

    private static func add(_ path: String, to base: [String]) -> [String] {
        var result = base
        for part in path.split(separator: "/", omittingEmptySubsequences: true) {
            switch part {
            case ".": continue
            case "..": _ = result.popLast()
            default: result.append(String(part))
            }
        }
        return result
    }
}

extension Fault {
    /// Damage met in a tree.
    static func damagedTree(_ what: String, place: String) -> Fault {
        Fault(.treeDamaged, what: what, place: place, remedy: "Check the filesystem with its own checker, on a copy.")
    }
}
