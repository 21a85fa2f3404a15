// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import Threads

/// The free space of one allocation group: its header (AGF) and the B+trees of free extents, sorted by block and by size.
/// "XFS Algorithms & Data Structures", sections 13.2 and 14.
struct XFSFreeSpace {
    let volume: any BlockSource
    /// Says which blocks were changed in memory: their checksums are not kept up to date.
    private let overlay: OverlaySource?
    let superblock: XFSSuperblock
    let group: UInt64
    /// agf_length.
    let length: UInt64
    private let byBlock: Tree
    private let bySize: Tree
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

    /// A tree of free extents.
    private struct Tree {
        var magic: StaticString
        var name: String
        var root: UInt32
        var levels: UInt32
        var isBySize: Bool
    }

    /// Reads the header of group `group`.
    init(_ volume: any BlockSource, _ superblock: XFSSuperblock, group: UInt64) throws(MapProblem) {
        self.volume = volume
        overlay = volume as? OverlaySource
        self.superblock = superblock
        self.group = group
        let name = "the free space header of allocation group \(group)"
        let sector = superblock.sectorSize
        let place = superblock.start(of: group) + sector
        let fields = try Fields(name, of: volume, at: place, count: Int(sector.bytes))
        let isChanged = overlay?.hasChanges(in: Extent(from: place, to: place + sector)) == true
        guard fields.matches("XAGF", at: 0) else { throw .damaged("\(name.capitalizedFirst) is not one.") }
        if superblock.isVersion5 {
            guard isChanged || XFSChecksum.isRight(fields.bytes, at: 216) else {
                throw .damaged("The checksum of \(name) is wrong.")
            }
            guard fields.bytes[64..<80].elementsEqual(superblock.metadataUUID) else {
                throw .damaged("\(name.capitalizedFirst) belongs to another filesystem.")
            }
        }
        let version = try fields.big(UInt32.self, "agf_versionnum", at: 4)
        let sequence = try fields.big(UInt32.self, "agf_seqno", at: 8)
        length = UInt64(try fields.big(UInt32.self, "agf_length", at: 12))
        byBlock = Tree(
            magic: superblock.isVersion5 ? "AB3B" : "ABTB", name: "the free space tree of allocation group \(group)",
            root: try fields.big(UInt32.self, "agf_roots[bno]", at: 16),
            levels: try fields.big(UInt32.self, "agf_levels[bno]", at: 28), isBySize: false)
        bySize = Tree(
            magic: superblock.isVersion5 ? "AB3C" : "ABTC",
            name: "the tree of sizes of free space of allocation group \(group)",
            root: try fields.big(UInt32.self, "agf_roots[cnt]", at: 20),
            levels: try fields.big(UInt32.self, "agf_levels[cnt]", at: 32), isBySize: true)
        reserved = UInt64(try fields.big(UInt32.self, "agf_flcount", at: 48))
        freeBlocks = UInt64(try fields.big(UInt32.self, "agf_freeblks", at: 52))
        longest = UInt64(try fields.big(UInt32.self, "agf_longest", at: 56))
        treeBlocks = UInt64(try fields.big(UInt32.self, "agf_btreeblks", at: 60))
        guard version == 1, UInt64(sequence) == group, length == superblock.blocks(of: group),
            byBlock.levels >= 1, byBlock.levels <= XFSFreeSpace.mostLevels, freeBlocks <= length
        else { throw .damaged("\(name.capitalizedFirst) contradicts the superblock.") }
    }

    /// What has been seen of the tree.
    private struct Walk {
        /// Blocks below which everything has been told.
        var told: UInt64 = 0
        var free: UInt64 = 0
        var longest: UInt64 = 0
        /// Sum of a hash of each extent: the same for trees with the same extents, in whatever order.
        var sum: UInt64 = 0
        /// The last extent, by size.
        var size: (blocks: UInt64, start: UInt64) = (0, 0)
        /// The last block of each level, and what it said comes after it.
        var last: [(block: UInt32, right: UInt32)]
    }

    /// Tells every run of blocks of the group that is not free, in rising order, and checks the tree on the way. Where
    /// `bothTrees`, the other tree must have the same extents.
    func used(bothTrees: Bool = false, _ found: (Range<UInt64>) -> Void) throws(MapProblem) {
        let walk = try walk(byBlock, found)
        found(walk.told..<length)
        guard bothTrees else { return }
        guard bySize.levels >= 1, bySize.levels <= XFSFreeSpace.mostLevels,
            try self.walk(bySize, { _ in }).sum == walk.sum
        else { throw .damaged("The free space trees of allocation group \(group) differ.") }
    }

    /// Walks through a tree, whose extents must sum up to what the header says.
    private func walk(_ tree: Tree, _ found: (Range<UInt64>) -> Void) throws(MapProblem) -> Walk {
        var walk = Walk(last: Array(repeating: (XFSFreeSpace.none, XFSFreeSpace.none), count: Int(tree.levels)))
        try visit(tree, tree.root, level: Int(tree.levels) - 1, isRoot: true, &walk, found)
        for last in walk.last where last.right != XFSFreeSpace.none {
            throw .damaged("A level of \(tree.name) does not end where it should.")
        }
        guard walk.free == freeBlocks, walk.longest == longest else {
            throw .damaged(
                "\(tree.name.capitalizedFirst) has \(walk.free) free blocks, the longest run of \(walk.longest); its header "
                    + "says \(freeBlocks) and \(longest).")
        }
        return walk
    }

    /// One block of a tree. Levels fall by one from the root to the leaves, so the depth is bounded; each leaf has a
    /// record behind all before it, so a block met twice is found at once.
    private func visit(
        _ tree: Tree, _ block: UInt32, level: Int, isRoot: Bool, _ walk: inout Walk, _ found: (Range<UInt64>) -> Void
    ) throws(MapProblem) {
        do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
        let name = "block \(block) of \(tree.name)"
        guard UInt64(block) < length else { throw .damaged("\(tree.name.capitalizedFirst) points outside the group.") }
        let size = Int(superblock.blockSize.bytes)
        let place = superblock.start(of: group) + ByteCount(UInt64(block) * superblock.blockSize.bytes)
        let fields = try Fields(name, of: volume, at: place, count: size)
        let header = superblock.isVersion5 ? 56 : 16
        guard fields.matches(tree.magic, at: 0) else {
            throw .damaged("\(name.capitalizedFirst) is none.")
        }
        if superblock.isVersion5 {
            let isChanged = overlay?.hasChanges(in: Extent(from: place, to: place + superblock.blockSize)) == true
            guard isChanged || XFSChecksum.isRight(fields.bytes, at: 52) else {
                throw .damaged("The checksum of \(name) is wrong.")
            }
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
                try visit(tree, child, level: level - 1, isRoot: false, &walk, found)
            }
            return
        }
        for index in 0..<count {
            let start = UInt64(try fields.big(UInt32.self, "ar_startblock", at: header + index * 8))
            let blocks = UInt64(try fields.big(UInt32.self, "ar_blockcount", at: header + index * 8 + 4))
            // By block, neighbours would be one record.
            guard blocks > 0, tree.isBySize ? (blocks, start) > walk.size : start > walk.told, start < length,
                blocks <= length - start
            else {
                throw .damaged("\(name.capitalizedFirst) calls blocks free that cannot be: \(blocks) from \(start).")
            }
            if !tree.isBySize { found(walk.told..<start) }
            walk.told = start + blocks
            walk.size = (blocks, start)
            walk.sum &+= XFSFreeSpace.hash(start << 32 | blocks)
            walk.free += blocks
            walk.longest = max(walk.longest, blocks)
        }
    }

    /// A number that no simple change of `value` leaves alone (the finaliser of SplitMix64).
    private static func hash(_ value: UInt64) -> UInt64 {
        var value = value &+ 0x9E37_79B9_7F4A_7C15
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}
