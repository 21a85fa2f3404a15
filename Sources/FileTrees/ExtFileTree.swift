// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
import CExt2Glue
import FilesystemMaps
public import Findings
import Geometry

/// The files of ext2, ext3 or ext4, through libext2fs. Where the journal waits to be replayed, what is read is what will
/// be there afterwards.
public final class ExtFileTree: FileTree {
    private let volume: ExtVolume
    private let name: String
    private static let root: UInt32 = 2
    /// Blocks of a folder that are looked through: one with a million names has about ten thousand.
    private static let mostBlocks = 65_536
    /// Pieces of a file.
    private static let mostPieces: UInt64 = 1 << 18

    /// Upper and lower case differ.
    public var isCaseSensitive: Bool { true }

    /// Opens what lies in `source`. Throws `tree.damaged`, `interrupted`.
    public init(_ source: any BlockSource) throws(Fault) {
        name = source.name
        do {
            volume = try ExtVolume(ExtFiles.afterReplay(of: source))
        } catch {
            throw .damagedTree("Its files cannot be read: \(error.text).", place: source.name)
        }
    }

    /// Goes along `path`.
    public func step(_ path: [String]) throws(Fault) -> TreeStep {
        switch try walk(path) {
        case .missing: return .missing
        case .link(let depth, let target): return .link(depth: depth, target: target)
        case .inode(_, let inode): return .found(entry(path.last ?? "", inode))
        }
    }

    /// The names in a folder. Kinds and sizes are those of the inodes.
    public func list(_ path: [String], most: Int) throws(Fault) -> [TreeEntry] {
        guard case .inode(let number, let inode) = try walk(path), inode.isDirectory else { return [] }
        var found: [(UInt32, String)] = []
        try entries(number, inode) { child, name in
            if !ExtFileTree.isDot(name) { found.append((child, SafeText.name(name))) }
            return found.count < most
        }
        var result: [TreeEntry] = []
        for (child, name) in found {
            // What cannot be read is named all the same.
            guard let inode = try? volume.inode(child), inode.isLive else {
                result.append(TreeEntry(name: name, kind: .other))
                continue
            }
            result.append(entry(name, inode))
        }
        try volume.checkInterruption()
        return result
    }

    /// Bytes of a file.
    public func read(_ path: [String], stream: String?, from offset: UInt64, count: Int) throws(Fault) -> [UInt8] {
        guard stream == nil, case .inode(let number, let inode) = try walk(path), inode.isRegular else { return [] }
        return try content(number, inode, offset, min(count, TreeLimits.read))
    }

    /// There are none.
    public func streams(_ path: [String]) throws(Fault) -> [TreeStream] { [] }

    // MARK: Walking

    private enum Walk {
        case inode(UInt32, relight_ext_inode)
        case link(Int, String)
        case missing
    }

    private func walk(_ path: [String]) throws(Fault) -> Walk {
        var number = ExtFileTree.root
        var inode = try self.inode(number)
        for (depth, part) in path.enumerated() {
            guard inode.isDirectory else { return .missing }
            var next: UInt32?
            let wanted = Array(part.utf8)
            try entries(number, inode) { child, name in
                if name.elementsEqual(wanted) { next = child }
                return next == nil
            }
            guard let next else { return .missing }
            number = next
            inode = try self.inode(number)
            guard inode.isLive else { return .missing }
            if inode.isSymbolicLink { return .link(depth + 1, try target(number, inode)) }
        }
        return .inode(number, inode)
    }

    private func inode(_ number: UInt32) throws(Fault) -> relight_ext_inode {
        do {
            return try volume.inode(number)
        } catch {
            try volume.checkInterruption()
            throw .damagedTree("Inode \(number) cannot be read: \(error.text).", place: name)
        }
    }

    private func entry(_ name: String, _ inode: relight_ext_inode) -> TreeEntry {
        let kind: TreeEntry.Kind =
            inode.isDirectory ? .folder : inode.isRegular ? .file : inode.isSymbolicLink ? .link : .other
        return TreeEntry(name: name, kind: kind, size: kind == .file ? inode.size : 0)
    }

    /// Hands the entries of folder `number`, whose inode was read last, to `body` until it returns false.
    private func entries(
        _ number: UInt32, _ inode: relight_ext_inode, _ body: (UInt32, ArraySlice<UInt8>) -> Bool
    ) throws(Fault) {
        if inode.isInline {
            guard let bytes = try? volume.inlineData(number) else {
                throw .damagedTree("Folder \(number) cannot be read.", place: name)
            }
            return ExtDirectory.inlineEntries(bytes, body)
        }
        let runs = try pieces(number).runs.filter { $0.kind == .data }
        var blocks = 0
        var goOn = true
        for run in runs {
            var position = run.extent.start
            while position < run.extent.end, goOn {
                blocks += 1
                guard blocks <= ExtFileTree.mostBlocks else {
                    throw .damagedTree("Folder \(number) has too many blocks.", place: name)
                }
                // A block that cannot be read hides its own names only.
                if let bytes = volume.block(at: position) {
                    ExtDirectory.entries(bytes) { child, name in
                        goOn = body(child, name)
                        return goOn
                    }
                }
                guard let next = position.adding(volume.blockSize) else { return }
                position = next
            }
        }
        try volume.checkInterruption()
    }

    /// The pieces of inode `number`, and whether all of them are known.
    private func pieces(_ number: UInt32) throws(Fault) -> (runs: [ExtVolume.Piece], isComplete: Bool) {
        _ = try inode(number)
        var runs: [ExtVolume.Piece] = []
        let problem = volume.pieces(most: ExtFileTree.mostPieces) { piece in
            if piece.kind != .tree { runs.append(piece) }
            return true
        }
        try volume.checkInterruption()
        return (runs, problem == nil)
    }

    private func content(
        _ number: UInt32, _ inode: relight_ext_inode, _ offset: UInt64, _ count: Int
    ) throws(Fault) -> [UInt8] {
        guard offset < inode.size, count > 0 else { return [] }
        guard !inode.isEncrypted else {
            throw Fault(
                .unsupported, what: "It is encrypted by the filesystem.", place: name,
                remedy: "Its key is known to the system that made it only.")
        }
        let end = offset + min(UInt64(count), inode.size - offset)
        if inode.isInline {
            guard let bytes = try? volume.inlineData(number), UInt64(bytes.count) >= end else {
                throw .damagedTree("A file kept in inode \(number) cannot be read.", place: name)
            }
            return Array(bytes[Int(offset)..<Int(end)])
        }
        let (runs, isComplete) = try pieces(number)
        guard isComplete else { throw .damagedTree("Where inode \(number) lies is damaged.", place: name) }
        var result = [UInt8](repeating: 0, count: Int(end - offset))
        for run in runs where run.kind == .data {
            guard let first = volume.blockSize.multiplied(by: run.logical)?.bytes else { continue }
            let (last, overflow) = first.addingReportingOverflow(run.extent.length.bytes)
            let from = max(first, offset)
            let to = min(overflow ? .max : last, end)
            guard from < to, let start = run.extent.start.adding(ByteCount(from - first)) else { continue }
            let bytes = try volume.bytes(at: start, count: Int(to - from))
            result.replaceSubrange(Int(from - offset)..<Int(to - offset), with: bytes)
        }
        return result
    }

    private func target(_ number: UInt32, _ inode: relight_ext_inode) throws(Fault) -> String {
        let length = min(inode.size, 4096)
        if inode.has_blocks == 0, !inode.isInline {
            let map = unsafe withUnsafeBytes(of: inode.map) { unsafe Array($0) }
            return String(decoding: map.prefix(Int(min(length, 60))), as: UTF8.self)
        }
        return String(decoding: try content(number, inode, 0, Int(length)), as: UTF8.self)
    }

    private static func isDot(_ name: ArraySlice<UInt8>) -> Bool {
        name.elementsEqual(".".utf8) || name.elementsEqual("..".utf8)
    }
}
