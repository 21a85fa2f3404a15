// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import Threads

/// The free space of one allocation group: its header (AGF) and the B+tree of free extents sorted by block. "XFS
/// Algorithms & Data Structures", sections 13.2 and 14.
struct XFSFreeSpace {
    let volume: any BlockSource
    let superblock: XFSSuperblock
    let group: UInt64
    /// agf_length.
    let length: UInt64
    private let root: UInt32
    private let levels: UInt32
    /// agf_freeblks.
    let freeBlocks: UInt64
    /// agf_flcount: blocks kept ready for the trees, which no tree calls free.
    let reserved: UInt64
    /// agf_btreeblks: blocks of the free space trees (and of the reverse map) besides their roots.
    let treeBlocks: UInt64
    /// agf_longest.
    let longest: UInt64

    /// More levels than the kernel makes (XFS_BTREE_MAXLEVELS) are a lie.
    static let mostLevels: UInt32 = 9
    private static let none: UInt32 = .max

    /// Reads the header of group `group`.
    init(_ volume: any BlockSource, _ superblock: XFSSuperblock, group: UInt64) throws(MapProblem) {
        self.volume = volume
        self.superblock = superblock
        self.group = group
        let name = "the free space header of allocation group \(group)"
        let sector = superblock.sectorSize
        let fields = try Fields(name, of: volume, at: superblock.start(of: group) + sector, count: Int(sector.bytes))
        guard fields.matches("XAGF", at: 0) else { throw .damaged("\(name.capitalizedFirst) is not one.") }
        if superblock.isVersion5 {
            guard XFSChecksum.isRight(fields.bytes, at: 216) else {
                throw .damaged("The checksum of \(name) is wrong.")
            }
            guard fields.bytes[64..<80].elementsEqual(superblock.metadataUUID) else {
                throw .damaged("\(name.capitalizedFirst) belongs to another filesystem.")
            }
        }
        let version = try fields.big(UInt32.self, "agf_versionnum", at: 4)
        let sequence = try fields.big(UInt32.self, "agf_seqno", at: 8)
        length = UInt64(try fields.big(UInt32.self, "agf_length", at: 12))
        root = try fields.big(UInt32.self, "agf_roots[bno]", at: 16)
        levels = try fields.big(UInt32.self, "agf_levels[bno]", at: 28)
        reserved = UInt64(try fields.big(UInt32.self, "agf_flcount", at: 48))
        freeBlocks = UInt64(try fields.big(UInt32.self, "agf_freeblks", at: 52))
        longest = UInt64(try fields.big(UInt32.self, "agf_longest", at: 56))
        treeBlocks = UInt64(try fields.big(UInt32.self, "agf_btreeblks", at: 60))
        guard version == 1, UInt64(sequence) == group, length == superblock.blocks(of: group), levels >= 1,
            levels <= XFSFreeSpace.mostLevels, freeBlocks <= length
        else { throw .damaged("\(name.capitalizedFirst) contradicts the superblock.") }
    }

    /// What has been seen of the tree.
    private struct Walk {
        /// Blocks below which everything has been told.
        var told: UInt64 = 0
        var free: UInt64 = 0
        var longest: UInt64 = 0
        /// The last block of each level, and what it said comes after it.
        var last: [(block: UInt32, right: UInt32)]
    }

    /// Tells every run of blocks of the group that is not free, in rising order, and checks the tree on the way.
    func used(_ found: (Range<UInt64>) -> Void) throws(MapProblem) {
        var walk = Walk(last: Array(repeating: (XFSFreeSpace.none, XFSFreeSpace.none), count: Int(levels)))
        try visit(root, level: Int(levels) - 1, isRoot: true, &walk, found)
        for last in walk.last where last.right != XFSFreeSpace.none {
            throw .damaged("A level of \(tree) does not end where it should.")
        }
        found(walk.told..<length)
        guard walk.free == freeBlocks, walk.longest == longest else {
            throw .damaged(
                "\(tree.capitalizedFirst) has \(walk.free) free blocks, the longest run of \(walk.longest); its header says "
                    + "\(freeBlocks) and \(longest).")
        }
    }

    private var tree: String { "the free space tree of allocation group \(group)" }

    /// One block of the tree. Levels fall by one from the root to the leaves, so the depth is bounded; each leaf has a
    /// record behind all before it, so a block met twice is found at once.
    private func visit(
        _ block: UInt32, level: Int, isRoot: Bool, _ walk: inout Walk, _ found: (Range<UInt64>) -> Void
    ) throws(MapProblem) {
        do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
        let name = "block \(block) of \(tree)"
        guard UInt64(block) < length else { throw .damaged("\(tree.capitalizedFirst) points outside the group.") }
        let size = Int(superblock.blockSize.bytes)
        let place = superblock.start(of: group) + ByteCount(UInt64(block) * superblock.blockSize.bytes)
        let fields = try Fields(name, of: volume, at: place, count: size)
        let header = superblock.isVersion5 ? 56 : 16
        guard fields.matches(superblock.isVersion5 ? "AB3B" : "ABTB", at: 0) else {
            throw .damaged("\(name.capitalizedFirst) is none.")
        }
        if superblock.isVersion5 {
            guard XFSChecksum.isRight(fields.bytes, at: 52) else { throw .damaged("The checksum of \(name) is wrong.") }
            let address = try fields.big(UInt64.self, "bb_blkno", at: 16)
            let owner = try fields.big(UInt32.self, "bb_owner", at: 48)
            guard address == place.bytes / 512, UInt64(owner) == group,
                fields.bytes[32..<48].elementsEqual(superblock.metadataUUID)
            else { throw .damaged("\(name.capitalizedFirst) belongs elsewhere.") }
        }
        let stored = try fields.big(UInt16.self, "bb_level", at: 4)
        let count = Int(try fields.big(UInt16.self, "bb_numrecs", at: 6))
        let left = try fields.big(UInt32.self, "bb_leftsib", at: 8)
        let right = try fields.big(UInt32.self, "bb_rightsib", at: 12)
        let most = (size - header) / (level == 0 ? 8 : 12)
        guard Int(stored) == level, count <= most, count > 0 || isRoot && level == 0 else {
            throw .damaged("\(name.capitalizedFirst) has \(count) records on level \(stored).")
        }
        // The neighbours on each level are chained; the first one is reached from nowhere.
        let last = walk.last[level]
        guard left == last.block, isRoot || last.block == XFSFreeSpace.none || last.right == block else {
            throw .damaged("\(name.capitalizedFirst) is not where its neighbours say.")
        }
        walk.last[level] = (block, right)

        if level > 0 {
            for index in 0..<count {
                let child = try fields.big(UInt32.self, "bb_ptrs", at: header + most * 8 + index * 4)
                try visit(child, level: level - 1, isRoot: false, &walk, found)
            }
            return
        }
        for index in 0..<count {
            let start = UInt64(try fields.big(UInt32.self, "ar_startblock", at: header + index * 8))
            let blocks = UInt64(try fields.big(UInt32.self, "ar_blockcount", at: header + index * 8 + 4))
            // Neighbours would be one record.
            guard blocks > 0, start > walk.told, start < length, blocks <= length - start else {
                throw .damaged("\(name.capitalizedFirst) calls blocks free that cannot be: \(blocks) from \(start).")
            }
            found(walk.told..<start)
            walk.told = start + blocks
            walk.free += blocks
            walk.longest = max(walk.longest, blocks)
        }
    }
}
