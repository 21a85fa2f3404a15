// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import CExt2Glue
import Findings
import Geometry

/// Which bytes of files are the same in two states of one ext2, ext3 or ext4 filesystem, told by inodes and extent trees.
struct ExtCompare {
    private let new: ExtVolume
    private let old: ExtVolume
    private let source: any BlockSource
    /// Files changed at this second or later are not trusted.
    private let limit: Int64
    private var unchanged: [Extent] = []
    /// What belongs to anything else, and must not be skipped even where a file claims it too.
    private var others: [Extent] = []
    private var files = 0

    /// Runs remembered; 16 bytes each.
    private static let mostRuns = 8 << 20
    /// Runs of one file that is trusted.
    private static let mostRunsOfFile = 1 << 20
    /// mkswap makes nothing smaller.
    private static let leastSwap: UInt64 = 40960
    /// The size of GRUB's environment block, which GRUB writes without telling the filesystem.
    private static let environmentBlock: UInt64 = 1024

    private struct Refusal: Error { var reason: String }

    /// `trusted` stands in for the time up to which changes are trusted: with it in the future, tests see what the
    /// comparison of inodes alone finds.
    static func compare(
        _ new: any BlockSource, _ old: any BlockSource, imaged: UInt64, trusted: Int64? = nil
    ) throws(Fault) -> MetadataCompare.Outcome {
        let histories: [ExtHistory]
        do {
            histories = try [new, old].map { volume in
                try ExtHistory(parsing: try volume.bytes(at: ExtSuperblock.offset, count: ExtSuperblock.size))
            }
        } catch {
            return .unknown("a superblock cannot be read")
        }
        let (now, before) = (histories[0], histories[1])
        if let reason = now.refusal(new.length) { return .unknown(reason) }
        if let reason = before.refusal(old.length) { return .unknown("when last imaged, \(reason)") }
        if let reason = now.refusal(since: before) { return .unknown(reason) }
        let latest = min(imaged, before.written)
        guard let limit = trusted ?? Int64(exactly: latest - min(latest, MetadataCompare.margin)) else {
            return .unknown("the time of the last image is implausible")
        }
        let opened: (ExtVolume, ExtVolume)
        do {
            opened = (try ExtVolume(new), try ExtVolume(old))
        } catch {
            return .unknown("its metadata cannot be read: \(error.text)")
        }
        var walk = ExtCompare(new: opened.0, old: opened.1, source: new, limit: limit)
        do {
            try walk.walk()
        } catch let refusal as Refusal {
            try opened.0.checkInterruption()
            try opened.1.checkInterruption()
            return .unknown(refusal.reason)
        } catch let fault as Fault {
            throw fault
        } catch {
            return .unknown("its metadata cannot be read")
        }
        let list = ExtentList(walk.unchanged).subtracting(ExtentList(walk.others))
        return .unchanged(list.intersection(Extent(from: .zero, to: new.length)), files: walk.files)
    }

    private init(new: ExtVolume, old: ExtVolume, source: any BlockSource, limit: Int64) {
        self.new = new
        self.old = old
        self.source = source
        self.limit = limit
    }

    private mutating func walk() throws {
        let facts = new.facts
        for number in 0..<facts.groups {
            guard let group = new.group(number), group.is_inside != 0 else {
                throw Refusal(reason: "the descriptor of group \(number) is damaged")
            }
            for (first, count) in [
                (group.superblock, group.superblock_blocks), (group.descriptors, group.descriptor_blocks),
                (group.block_bitmap, 1), (group.inode_bitmap, 1), (group.inode_table, group.inode_table_blocks),
            ] where count > 0 {
                if let extent = new.extent(first, count) { others.append(extent) }
            }
            for index in 0..<group.inodes {
                if index % 256 == 0 { try new.checkInterruption() }
                try look(number * facts.inodes_per_group + index + 1)
            }
            try old.checkInterruption()
        }
    }

    private mutating func look(_ number: UInt32) throws {
        let inode: relight_ext_inode
        do {
            inode = try new.inode(number)
        } catch {
            throw Refusal(reason: "inode \(number) is damaged: \(error.text)")
        }
        guard inode.isLive else { return }
        if inode.xattr_block != 0, let extent = new.extent(inode.xattr_block, 1) { others.append(extent) }
        guard inode.has_blocks != 0 else { return }
        // The inode read last is the one whose blocks are handed out.
        let pieces = try runs(new, number)
        var isSame = false
        if isTrustworthy(inode, number), pieces.count <= ExtCompare.mostRunsOfFile, let before = try? old.inode(number),
            before.isLive, ExtCompare.isSame(inode, before)
        {
            // A tree that lies in the inode itself was compared with it.
            let isInInode = pieces.allSatisfy { $0.kind != .tree }
            isSame = isInInode ? true : (try runs(old, number)) == pieces
        }
        if isSame { isSame = !mayBeSwap(inode, pieces) }
        if isSame { files += 1 }
        for piece in pieces {
            // Nobody writes to an extent that is not written to, but swap would.
            if isSame, piece.kind == .data { unchanged.append(piece.extent) } else { others.append(piece.extent) }
        }
        guard unchanged.count + others.count < ExtCompare.mostRuns else {
            throw Refusal(reason: "its files lie in too many pieces")
        }
    }

    /// The runs of the inode that `volume` read last.
    private func runs(_ volume: ExtVolume, _ number: UInt32) throws -> [ExtVolume.Piece] {
        var pieces: [ExtVolume.Piece] = []
        let problem = volume.pieces(most: UInt64(ExtCompare.mostRuns)) { piece in
            pieces.append(piece)
            return true
        }
        if let problem { throw Refusal(reason: "the blocks of inode \(number) are damaged: \(problem.text)") }
        return pieces
    }

    /// Whether an unchanged inode would mean an unchanged file.
    private func isTrustworthy(_ inode: relight_ext_inode, _ number: UInt32) -> Bool {
        let facts = new.facts
        let (user, group, project) = facts.quota_inodes
        // IMMUTABLE: what is written past the filesystem, such as the file of a boot loader or of quota, often is.
        let untrusted: UInt32 = 0x10 | 0x0020_0000
        return inode.isRegular && number >= facts.first_inode
            && ![facts.journal_inode, facts.orphan_inode, user, group, project].contains(number)
            && inode.flags & untrusted == 0 && !inode.isInline && inode.has_nanoseconds != 0
            && inode.changed > 0 && inode.changed < limit && inode.size != ExtCompare.environmentBlock
    }

    private static func isSame(_ one: relight_ext_inode, _ other: relight_ext_inode) -> Bool {
        one.mode == other.mode && one.generation == other.generation && one.changed == other.changed
            && one.changed_nanoseconds == other.changed_nanoseconds && one.modified == other.modified
            && one.modified_nanoseconds == other.modified_nanoseconds && one.has_nanoseconds == other.has_nanoseconds
            && one.version == other.version && one.size == other.size && one.flags == other.flags
            && one.blocks == other.blocks && one.xattr_block == other.xattr_block && one.links == other.links
            && ExtCompare.bytes(one) == ExtCompare.bytes(other)
    }

    /// i_block, as stored.
    private static func bytes(_ inode: relight_ext_inode) -> [UInt8] {
        var map = inode.map
        return unsafe withUnsafeBytes(of: &map) { unsafe Array($0) }
    }

    /// Whether a file may be swap space, which the kernel writes without touching the inode. Also when it cannot be read.
    private func mayBeSwap(_ inode: relight_ext_inode, _ pieces: [ExtVolume.Piece]) -> Bool {
        guard inode.size >= ExtCompare.leastSwap else { return false }
        var head = [UInt8](repeating: 0, count: 65536)
        for piece in pieces where piece.kind == .data {
            guard let start = new.blockSize.multiplied(by: piece.logical)?.int, start < head.count else { continue }
            let count = min(piece.extent.length.int ?? head.count, head.count - start)
            guard let bytes = try? source.bytes(at: piece.extent.start, count: count) else { return true }
            head.replaceSubrange(start..<start + count, with: bytes)
        }
        let span = unsafe head.span.bytes
        let magics = ["SWAP-SPACE", "SWAPSPACE2"] + SwapReader.hibernation
        return (12...16).contains { shift in
            magics.contains { magic in
                span.matches(
                    magic.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) }, at: (1 << shift) - 10)
            }
        }
    }
}
