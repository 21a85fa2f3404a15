// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel

/// A checkpoint pack: the state of all metadata at one moment. Linux, include/linux/f2fs_fs.h
/// (`struct f2fs_checkpoint`) and fs/f2fs/checkpoint.c (`f2fs_get_valid_checkpoint`).
struct F2FSCheckpoint {
    /// checkpoint_ver: the larger is the later.
    let version: UInt64
    /// valid_block_count.
    let validBlocks: UInt64
    let flags: Flags
    /// The pack's first block.
    let start: UInt64
    /// cp_pack_total_block_count, cp_pack_start_sum.
    let packBlocks: UInt64
    let summaries: UInt64
    /// cur_node_segno and cur_node_blkoff of warm nodes: where fsync writes next.
    let warmNode: (segment: UInt64, offset: UInt64)
    /// Its first block and those with bitmaps only.
    private let fields: Fields
    private let tableBitmap: Range<Int>

    struct Flags: OptionSet {
        let rawValue: UInt32
        static let unmounted = Flags(rawValue: 1)
        static let compactSummaries = Flags(rawValue: 4)
        static let error = Flags(rawValue: 8)
        static let needsCheck = Flags(rawValue: 0x10)
        static let largeBitmap = Flags(rawValue: 0x400)
        static let quotaNeedsCheck = Flags(rawValue: 0x800)
        static let disabled = Flags(rawValue: 0x1000)
        static let disabledQuickly = Flags(rawValue: 0x2000)
        static let resizing = Flags(rawValue: 0x4000)
        static let known = Flags(rawValue: 0x7FFF)
    }

    /// The newer of the two packs that are sound, and whether one is not.
    static func newest(
        _ volume: any BlockSource, _ superblock: F2FSSuperblock
    ) throws(MapProblem) -> (F2FSCheckpoint, isAlone: Bool) {
        var found: [F2FSCheckpoint] = []
        var problem: MapProblem?
        for pack in 0..<2 as Range<UInt64> {
            do throws(MapProblem) {
                found.append(
                    try F2FSCheckpoint(
                        volume, superblock, start: superblock.checkpoints + pack * F2FSSuperblock.segmentBlocks))
            } catch {
                // A pack that cannot be read may be the newer one.
                if case .fault = error { throw error }
                problem = problem ?? error
            }
        }
        guard let first = found.first else { throw problem ?? .damaged("It has no checkpoint.") }
        guard found.count == 2, let second = found.last else { return (first, true) }
        return (second.version > first.version ? second : first, false)
    }

    /// The pack that begins with block `start`: its first and last block are the same checkpoint, each with a checksum.
    private init(_ volume: any BlockSource, _ superblock: F2FSSuperblock, start: UInt64) throws(MapProblem) {
        let size = Int(F2FSSuperblock.blockSize)
        let name = "the checkpoint at block \(start)"
        let fields = try Fields(
            name, of: volume, at: ByteCount(start * F2FSSuperblock.blockSize),
            count: size * (1 + Int(superblock.payload)))
        try F2FSCheckpoint.requireSound(fields)
        self.start = start
        self.fields = fields
        version = try fields.little(UInt64.self, "checkpoint_ver", at: 0)
        validBlocks = try fields.little(UInt64.self, "valid_block_count", at: 16)
        flags = Flags(rawValue: try fields.little(UInt32.self, "ckpt_flags", at: 132))
        packBlocks = UInt64(try fields.little(UInt32.self, "cp_pack_total_block_count", at: 136))
        summaries = UInt64(try fields.little(UInt32.self, "cp_pack_start_sum", at: 140))
        warmNode = (
            UInt64(try fields.little(UInt32.self, "cur_node_segno", at: 36 + 4)),
            UInt64(try fields.little(UInt16.self, "cur_node_blkoff", at: 68 + 2))
        )
        guard packBlocks >= 2, packBlocks <= F2FSSuperblock.segmentBlocks, summaries > superblock.payload,
            summaries < packBlocks
        else { throw .damaged("\(name.capitalizedFirst) has \(packBlocks) blocks.") }
        let last = try Fields(
            name, of: volume, at: ByteCount((start + packBlocks - 1) * F2FSSuperblock.blockSize), count: size)
        try F2FSCheckpoint.requireSound(last)
        guard try last.little(UInt64.self, "checkpoint_ver", at: 0) == version else {
            throw .damaged("\(name.capitalizedFirst) was not finished.")
        }

        // Where the bitmap lies that says which half of the segment information table counts.
        let tableSize = Int(try fields.little(UInt32.self, "sit_ver_bitmap_bytesize", at: 156))
        let nodeSize = Int(try fields.little(UInt32.self, "nat_ver_bitmap_bytesize", at: 160))
        let head = 192
        let begin = flags.contains(.largeBitmap) ? head + 4 + nodeSize : superblock.payload > 0 ? size : head
        guard UInt64(tableSize) * 8 >= superblock.tableSegments / 2 * F2FSSuperblock.segmentBlocks,
            begin + tableSize <= fields.bytes.count
        else { throw .damaged("\(name.capitalizedFirst) has a bitmap of a wrong size.") }
        tableBitmap = begin..<begin + tableSize
    }

    /// Throws unless the checksum of the checkpoint in the first block of `fields` is right.
    private static func requireSound(_ fields: Fields) throws(MapProblem) {
        let offset = Int(try fields.little(UInt32.self, "checksum_offset", at: 164))
        guard offset >= 192, offset <= 4092 else {
            throw .damaged("\(fields.name.capitalizedFirst) is damaged.")
        }
        let span = unsafe fields.bytes.span.bytes
        var check = F2FSSuperblock.checksum(span.extracting(0..<offset))
        if offset < 4092 { check = F2FSSuperblock.checksum(span.extracting(offset + 4..<4096), continuing: check) }
        guard try fields.little(UInt32.self, "checksum", at: offset) == check else {
            throw .damaged("The checksum of \(fields.name) is wrong.")
        }
    }

    /// Whether block `index` of the segment information table is the one in the second half. The highest bit of a byte
    /// comes first.
    func isInSecondHalf(_ index: UInt64) -> Bool {
        let place = tableBitmap.lowerBound + Int(index / 8)
        guard place < tableBitmap.upperBound else { return false }
        return fields.bytes[place] >> UInt8(7 - index % 8) & 1 == 1
    }

    /// Throws unless nothing was written since the checkpoint and it was the last one before an unmount.
    func requireClean(_ volume: any BlockSource, _ superblock: F2FSSuperblock) throws(MapProblem) {
        guard flags.isSubset(of: .known) else {
            throw .whole("Its checkpoint has flags unknown here.", .unknownFeatures)
        }
        guard flags.isDisjoint(with: [.error, .needsCheck, .disabled, .disabledQuickly, .resizing]) else {
            throw .whole("It is marked as needing a check: run `fsck.f2fs` on it.", .dirty)
        }
        guard flags.contains(.unmounted) else {
            throw .whole(
                "It was not unmounted: what was written since its last checkpoint waits to be recovered, and until then "
                    + "its tables do not tell what is in use.", .journalToReplay)
        }
        // The flag stays until the next checkpoint, so that files may have been synced since. The first block of their
        // chain would be the next one for warm nodes: its footer has the checkpoint's version.
        guard warmNode.segment < superblock.mainSegments, warmNode.offset < F2FSSuperblock.segmentBlocks else {
            throw .damaged("\(fields.name.capitalizedFirst) says that nodes are written outside of the volume.")
        }
        let next = superblock.main + warmNode.segment * F2FSSuperblock.segmentBlocks + warmNode.offset
        let block = try Fields(
            "the next block for nodes", of: volume, at: ByteCount(next * F2FSSuperblock.blockSize), count: 4096)
        let stored = try block.little(UInt64.self, "footer.cp_ver", at: 4084)
        guard stored & 0xFFFF_FFFF != version & 0xFFFF_FFFF else {
            throw .whole(
                "It was not unmounted: files that were synced since its last checkpoint wait to be recovered.",
                .journalToReplay)
        }
    }
}
