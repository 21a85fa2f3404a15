// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel

/// The internal log: where it ends, and whether its last record says that the filesystem was unmounted. "XFS Algorithms &
/// Data Structures", chapter 16. The log is a ring of 512-byte blocks, each of which begins with the number of the round
/// in which it was written; the head is where the numbers fall.
struct XFSLog {
    let volume: any BlockSource
    /// Where the log lies.
    let place: Extent
    let uuid: [UInt8]

    static let block: UInt64 = 512
    static let magic: UInt32 = 0xFEED_BABE
    /// Records are in flight for at most this many bytes around the head (eight buffers of 256 KiB): there, blocks may
    /// have reached the disk out of order.
    static let flight: UInt64 = 2 << 20
    private static let unmounted: UInt8 = 0x20

    /// Number of blocks.
    var count: UInt64 { place.length.bytes / XFSLog.block }

    /// The log of a filesystem; throws where it lies outside.
    init(_ volume: any BlockSource, _ superblock: XFSSuperblock) throws(MapProblem) {
        self.volume = volume
        uuid = superblock.uuid
        let group = superblock.logStart >> superblock.groupBits
        let first = superblock.logStart & ((1 << superblock.groupBits) - 1)
        guard group < superblock.groups, superblock.logBlocks > 0, first < superblock.blocks(of: group),
            superblock.logBlocks <= superblock.blocks(of: group) - first,
            let length = superblock.blockSize.multiplied(by: superblock.logBlocks), length <= .gibibytes(4),
            let place = Extent(
                start: superblock.start(of: group) + ByteCount(first * superblock.blockSize.bytes), length: length)
        else { throw .damaged("Its log lies outside of it.") }
        self.place = place
    }

    /// Where the last record ends.
    struct Head: Hashable {
        /// The block behind the last record, at most the number of blocks.
        var block: UInt64
        /// The round in which the blocks before it were written.
        var round: UInt32
        /// The round in which the blocks from it on were written; 0 where they never were.
        var roundBefore: UInt32
        /// The last record.
        var last: XFSLogRecord

        /// The round in which block `number` was written.
        func round(of number: UInt64) -> UInt32 { number < block ? round : roundBefore }
    }

    /// Finds the head. Throws unless the blocks around it and the last record are as a log leaves them whose writes all
    /// reached the disk in turn.
    func head() throws(MapProblem) -> Head {
        let newest = try round(0)
        let oldest = try round(count - 1)
        guard newest > 0, oldest == newest || oldest == newest - 1 || oldest == 0 else {
            throw XFSLog.pending("its rounds are numbered \(newest) and \(oldest)")
        }
        var head = count
        if oldest != newest {
            // The first block of the round before.
            var low: UInt64 = 0
            var high = count - 1
            while low + 1 < high {
                let middle = (low + high) / 2
                if try round(middle) == newest { low = middle } else { high = middle }
            }
            head = try round(high - 1) == newest ? high : high - 1
        }
        // The ring goes on at its end where it was written to there before.
        let window = min(oldest == 0 ? head : count, XFSLog.flight / XFSLog.block)
        let first = (head + count - window) % count
        let before = try blocks(first, window)
        let after = try blocks(head % count, min(count - head, XFSLog.flight / XFSLog.block))
        for index in 0..<window {
            let number = (first + index) % count
            guard try before.round(index) == (number < head ? newest : oldest) else {
                throw XFSLog.pending("its blocks before the head are not of one round")
            }
        }
        for index in 0..<min(count - head, XFSLog.flight / XFSLog.block) {
            let value = try after.round(index)
            guard value == oldest || value == 0 else {
                throw XFSLog.pending("its blocks behind the head are not of one round")
            }
        }
        guard
            let index = (0..<window).last(where: {
                (try? before.fields.big(UInt32.self, "h_magicno", at: Int($0) * 512)) == XFSLog.magic
            })
        else { throw XFSLog.pending("it has no record before its head") }
        let start = (first + index) % count
        let record: XFSLogRecord
        do throws(MapProblem) {
            record = try XFSLogRecord(
                Fields(
                    "the last record of its log",
                    Array(before.fields.bytes[Int(index) * 512..<Int(index) * 512 + 512])),
                at: start, round: start < head ? newest : oldest, uuid: uuid)
        } catch {
            if case .fault = error { throw error }
            throw .damaged("The last record of its log is damaged.")
        }
        guard (start + record.blocks) % count == head % count else {
            throw XFSLog.pending("its last record does not end at its head")
        }
        return Head(block: head, round: newest, roundBefore: oldest, last: record)
    }

    /// Whether the last record is the one that an unmount leaves.
    func isClean(_ head: Head) throws(MapProblem) -> Bool {
        guard head.last.operations == 1 else { return false }
        let content = try blocks((head.last.place + head.last.headers) % count, 1)
        // The record's one operation: oh_tid, oh_len, oh_clientid, oh_flags.
        return try content.fields.big(UInt8.self, "oh_flags", at: 9) & XFSLog.unmounted != 0
    }

    /// Why the volume is imaged whole although its log could be read: `reason` in the middle of a sentence.
    static func pending(_ reason: String) -> MapProblem {
        .whole(
            "It was not unmounted: its log waits to be replayed, and until then its free space does not tell what is in "
                + "use (\(reason)).", .journalToReplay)
    }

    /// Blocks of the log.
    struct Piece {
        let fields: Fields

        /// The round in which block `index` of the piece was written: the first number of a data block, the second of
        /// a record's header.
        func round(_ index: UInt64) throws(MapProblem) -> UInt32 {
            let place = Int(index) * 512
            let first = try fields.big(UInt32.self, "cycle", at: place)
            return first == XFSLog.magic ? try fields.big(UInt32.self, "h_cycle", at: place + 4) : first
        }
    }

    /// `number` blocks from block `first` on, going round at the end; at most the whole ring.
    func blocks(_ first: UInt64, _ number: UInt64) throws(MapProblem) -> Piece {
        let direct = min(number, count - first)
        var fields = try read(first, direct)
        if number > direct { fields.bytes += try read(0, number - direct).bytes }
        return Piece(fields: fields)
    }

    private func read(_ first: UInt64, _ number: UInt64) throws(MapProblem) -> Fields {
        try Fields(
            "the log", of: volume, at: place.start + ByteCount(first * XFSLog.block), count: Int(number * XFSLog.block))
    }

    private func round(_ index: UInt64) throws(MapProblem) -> UInt32 { try blocks(index, 1).round(0) }
}
