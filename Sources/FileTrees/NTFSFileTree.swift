// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
import CNtfsGlue
import FilesystemMaps
public import Findings
import Geometry
import Glibc
import Threads

/// The files of NTFS, through libntfs-3g on top of our own reads. What lies there is taken as it is: its log is not
/// replayed.
@safe public final class NTFSFileTree: FileTree {
    private let handle: OpaquePointer
    private let channel: Channel
    private let name: String

    /// Upper and lower case do not matter.
    public var isCaseSensitive: Bool { false }

    /// Opens what lies in `source`. Throws `tree.damaged`, `interrupted`.
    public init(_ source: any BlockSource) throws(Fault) {
        let channel = Channel(source)
        var opened: OpaquePointer?
        let status = unsafe relight_ntfs_open(
            { context, offset, buffer, length in
                guard let context = unsafe context, let buffer = unsafe buffer else { return EINVAL }
                return unsafe Unmanaged<Channel>.fromOpaque(context).takeUnretainedValue().read(offset, buffer, length)
            }, Unmanaged.passUnretained(channel).toOpaque(), source.length.bytes, &opened)
        if let fault = channel.interrupted { throw fault }
        guard status == 0, let opened = unsafe opened else {
            throw .damagedTree("Its files cannot be read: \(NTFSFileTree.text(status)).", place: source.name)
        }
        unsafe handle = opened
        self.channel = channel
        name = source.name
    }

    deinit { unsafe relight_ntfs_close(handle) }

    /// Goes along `path`. Reparse points are told as such and not followed.
    public func step(_ path: [String]) throws(Fault) -> TreeStep {
        guard let entry = try look(path) else { return .missing }
        return .found(entry)
    }

    /// The names in a folder; sizes are not among what a list tells.
    public func list(_ path: [String], most: Int) throws(Fault) -> [TreeEntry] {
        guard let folder = try look(path), folder.kind == .folder else { return [] }
        let names = Names(most)
        let status = withExtendedLifetime(names) {
            unsafe relight_ntfs_list(
                handle, NTFSFileTree.joined(path), NTFSFileTree.receive, Unmanaged.passUnretained(names).toOpaque())
        }
        try check(status, path)
        // The files of the filesystem itself have the first records and names that begin with `$`.
        return names.found.filter { ![".", ".."].contains($0.name) && !($0.number < 24 && $0.name.hasPrefix("$")) }
            .map { TreeEntry(name: SafeText.name($0.name), kind: $0.isFolder ? .folder : .file) }
    }

    /// Bytes of a file or one of its streams.
    public func read(_ path: [String], stream: String?, from offset: UInt64, count: Int) throws(Fault) -> [UInt8] {
        guard let entry = try look(path), entry.kind == .file else { return [] }
        if stream == nil, let tag = entry.reparseTag, let how = NTFSFileTree.stored[tag] {
            throw Fault(
                .unsupported, what: "It is stored \(how).", place: "\(name): \(path.joined(separator: "/"))",
                remedy: "Start that Windows to read it.")
        }
        let most = max(0, min(count, TreeLimits.read))
        var buffer = [UInt8](repeating: 0, count: most)
        let text = NTFSFileTree.joined(path)
        let got = unsafe buffer.withUnsafeMutableBytes {
            if let stream {
                unsafe relight_ntfs_read(handle, text, stream, offset, $0.baseAddress, UInt64(most))
            } else {
                unsafe relight_ntfs_read(handle, text, nil, offset, $0.baseAddress, UInt64(most))
            }
        }
        if got < 0 {
            let problem = Int32(truncatingIfNeeded: -got)
            if problem == ENOENT, stream != nil { return [] }
            if problem == EACCES {
                throw Fault(
                    .unsupported, what: "It is encrypted by Windows (EFS).",
                    place: "\(name): \(path.joined(separator: "/"))",
                    remedy: "Its key is known to the Windows that made it only.")
            }
            try check(problem, path)
        }
        return Array(buffer.prefix(Int(clamping: max(0, got))))
    }

    /// The named streams of a file or folder.
    public func streams(_ path: [String]) throws(Fault) -> [TreeStream] {
        guard try look(path) != nil else { return [] }
        let names = Names(1024)
        let status = withExtendedLifetime(names) {
            unsafe relight_ntfs_streams(
                handle, NTFSFileTree.joined(path), NTFSFileTree.receive, Unmanaged.passUnretained(names).toOpaque())
        }
        try check(status, path)
        return names.found.map { TreeStream(name: SafeText.name($0.name), size: $0.number) }
    }

    /// Files whose data lie elsewhere, by the tags of their reparse points ([MS-FSCC] 2.1.2.1).
    private static let stored: [UInt32: String] = [
        0x8000_0017: "compressed by Windows outside of NTFS (WOF, CompactOS)",
        0x8000_0013: "in pieces by Windows' data deduplication",
    ]

    private func look(_ path: [String]) throws(Fault) -> TreeEntry? {
        guard path.count <= TreeLimits.parts else { return nil }
        var entry = relight_ntfs_entry()
        let status = unsafe relight_ntfs_look(handle, NTFSFileTree.joined(path), &entry)
        if status == ENOENT || status == ENOTDIR || status == ENAMETOOLONG || status == EILSEQ { return nil }
        try check(status, path)
        return TreeEntry(
            name: path.last ?? "", kind: entry.is_directory != 0 ? .folder : .file, size: entry.size,
            attributes: entry.attributes, reparseTag: entry.reparse_tag == 0 ? nil : entry.reparse_tag)
    }

    private func check(_ status: Int32, _ path: [String]) throws(Fault) {
        if let fault = channel.interrupted { throw fault }
        guard status != 0 else { return }
        throw .damagedTree(
            "What lies there cannot be read: \(NTFSFileTree.text(status)).",
            place: "\(name): /\(path.joined(separator: "/"))")
    }

    private static func joined(_ path: [String]) -> String { "/" + path.joined(separator: "/") }

    private static func text(_ status: Int32) -> String {
        unsafe strerror(status).map { unsafe String(cString: $0) } ?? "error \(status)"
    }

    private static let receive: relight_ntfs_name = { context, name, number, isFolder in
        guard let context = unsafe context, let name = unsafe name else { return 1 }
        return unsafe Unmanaged<Names>.fromOpaque(context).takeUnretainedValue()
            .add(String(cString: name), number, isFolder != 0)
    }

    private final class Names {
        let most: Int
        var found: [(name: String, number: UInt64, isFolder: Bool)] = []
        init(_ most: Int) { self.most = most }
        func add(_ name: String, _ number: UInt64, _ isFolder: Bool) -> Int32 {
            guard found.count < most else { return 1 }
            found.append((name, number, isFolder))
            return 0
        }
    }

    /// What the library is given instead of a device.
    private final class Channel {
        let volume: any BlockSource
        var interrupted: Fault?

        init(_ volume: any BlockSource) { self.volume = volume }

        func read(_ offset: UInt64, _ buffer: UnsafeMutableRawPointer, _ length: UInt64) -> Int32 {
            guard let count = Int(exactly: length), volume.holds(count, at: ByteCount(offset)) else { return EIO }
            do throws(Fault) {
                try Interruption.check()
                var span = unsafe MutableRawSpan(_unsafeStart: buffer, byteCount: count)
                try volume.read(at: ByteCount(offset), into: &span)
                return 0
            } catch {
                if error.code == .interrupted || error.code == .probeFailed { interrupted = error }
                return EIO
            }
        }
    }
}
