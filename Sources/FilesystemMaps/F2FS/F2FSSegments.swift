// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import Threads

/// The segment information table: a bit for each block of the main area that is valid. Linux,
/// include/linux/f2fs_fs.h (`struct f2fs_sit_entry`, `f2fs_journal`) and fs/f2fs/segment.c (`build_sit_entries`).
struct F2FSSegments {
    let volume: any BlockSource
    let superblock: F2FSSuperblock
    let checkpoint: F2FSCheckpoint
    /// Maps that are newer than the table's, by segment.
    private var journal: [UInt64: [UInt64]] = [:]

    static let perBlock = 55
    private static let entrySize = 74
    private static let mapWords = 8
    /// Bytes of the journal in a block of summaries, behind its 512 entries of 7 bytes.
    private static let journalSize = 507
    private static let journalOffset = 512 * 7
    /// Table blocks read at a time.
    private static let batch: UInt64 = 64

    /// Reads the journal of the checkpoint.
    init(
        _ volume: any BlockSource, _ superblock: F2FSSuperblock, _ checkpoint: F2FSCheckpoint
    ) throws(MapProblem) {
        self.volume = volume
        self.superblock = superblock
        self.checkpoint = checkpoint
        // Compact summaries begin with the journals of nodes and segments; else the latter lies in the summary block of
        // cold data, the third of six before the pack's last block.
        let isCompact = checkpoint.flags.contains(.compactSummaries)
        let block: UInt64
        if isCompact {
            block = checkpoint.summaries
        } else {
            guard checkpoint.packBlocks >= 8 + superblock.payload else {
                throw .damaged("Its checkpoint has too few summaries.")
            }
            block = checkpoint.packBlocks - 7 + 2
        }
        let name = "the journal of its checkpoint"
        let fields = try Fields(
            name, of: volume, at: ByteCount((checkpoint.start + block) * F2FSSuperblock.blockSize), count: 4096)
        let start = isCompact ? F2FSSegments.journalSize : F2FSSegments.journalOffset
        let count = Int(try fields.little(UInt16.self, "n_sits", at: start))
        let most = (F2FSSegments.journalSize - 2) / (4 + F2FSSegments.entrySize)
        guard count <= most else { throw .damaged("\(name.capitalizedFirst) has \(count) entries.") }
        for index in 0..<count {
            let at = start + 2 + index * (4 + F2FSSegments.entrySize)
            let segment = UInt64(try fields.little(UInt32.self, "segno", at: at))
            guard segment < superblock.mainSegments else {
                throw .damaged("\(name.capitalizedFirst) tells of segment \(segment), which does not exist.")
            }
            // As in the kernel, of two entries for one segment the last counts.
            var map: [UInt64] = []
            try F2FSSegments.take(fields, at: at + 4, segment, into: &map)
            journal[segment] = map
        }
    }

    /// Appends the map of the entry at `offset` of `fields`, its bits in the order of `BitRuns`. The number of valid
    /// blocks in the entry's lower ten bits must be theirs.
    private static func take(
        _ fields: Fields, at offset: Int, _ segment: UInt64, into maps: inout [UInt64]
    ) throws(MapProblem) {
        var sum = 0
        for word in 0..<mapWords {
            // The highest bit of a byte comes first.
            let bits = BitRuns.mirrored(try fields.little(UInt64.self, "valid_map", at: offset + 2 + 8 * word))
            sum += bits.nonzeroBitCount
            maps.append(bits.littleEndian)
        }
        guard try fields.little(UInt16.self, "vblocks", at: offset) & 0x3FF == sum else {
            throw .damaged("The entry of segment \(segment) contradicts itself.")
        }
    }

    /// Tells the runs of valid blocks, counted from the start of the main area, in rising order. Throws where they are
    /// not as many as the checkpoint says.
    func used(_ found: (Range<UInt64>) -> Void) throws(MapProblem) {
        var bits = BitRuns(count: superblock.mainSegments * F2FSSuperblock.segmentBlocks)
        let perBlock = UInt64(F2FSSegments.perBlock)
        let blocks = (superblock.mainSegments + perBlock - 1) / perBlock
        let half = superblock.tableSegments / 2 * F2FSSuperblock.segmentBlocks
        var first: UInt64 = 0
        while first < blocks {
            do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
            let second = checkpoint.isInSecondHalf(first)
            // Blocks that follow each other in one half are read together.
            var count: UInt64 = 1
            while count < F2FSSegments.batch, first + count < blocks,
                checkpoint.isInSecondHalf(first + count) == second
            {
                count += 1
            }
            let place = superblock.table + first + (second ? half : 0)
            let fields = try Fields(
                "the segment information table", of: volume, at: ByteCount(place * F2FSSuperblock.blockSize),
                count: Int(count) * 4096)
            var maps: [UInt64] = []
            let segments = first * perBlock..<min((first + count) * perBlock, superblock.mainSegments)
            maps.reserveCapacity(segments.count * F2FSSegments.mapWords)
            for segment in segments {
                if let newer = journal[segment] {
                    maps += newer
                    continue
                }
                let index = Int(segment - segments.lowerBound)
                let at = index / F2FSSegments.perBlock * 4096 + index % F2FSSegments.perBlock * F2FSSegments.entrySize
                try F2FSSegments.take(fields, at: at, segment, into: &maps)
            }
            bits.add(unsafe maps.span.bytes, found)
            first += count
        }
        bits.finish(found)
        guard bits.taken == checkpoint.validBlocks else {
            throw .damaged(
                "Its segments have \(bits.taken) valid blocks, its checkpoint says \(checkpoint.validBlocks).")
        }
    }
}
