// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel

/// The internal log: whether its last record says that the filesystem was unmounted. "XFS Algorithms & Data
/// Structures", chapter 16. The log is a ring of 512-byte blocks, each of which begins with the number of the round in
/// which it was written; the head is where the numbers fall.
struct XFSLog {
    let volume: any BlockSource
    /// Where the log lies.
    let place: Extent
    let uuid: [UInt8]

    static let block: UInt64 = 512
    private static let magic: UInt32 = 0xFEED_BABE
    /// Records are in flight for at most this many bytes around the head (eight buffers of 256 KiB): there, blocks may
    /// have reached the disk out of order.
    private static let flight: UInt64 = 2 << 20
    private static let unmounted: UInt8 = 0x20

    /// Number of blocks.
    private var count: UInt64 { place.length.bytes / XFSLog.block }

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

    /// Throws unless the last record is the one that an unmount leaves.
    func requireClean() throws(MapProblem) {
        let newest = try cycle(0)
        let oldest = try cycle(count - 1)
        guard newest > 0, oldest == newest || oldest == newest - 1 || oldest == 0 else {
            throw dirty("its rounds are numbered \(newest) and \(oldest)")
        }
        var head = count
        if oldest != newest {
            // The first block of the round before.
            var low: UInt64 = 0
            var high = count - 1
            while low + 1 < high {
                let middle = (low + high) / 2
                if try cycle(middle) == newest { low = middle } else { high = middle }
            }
            head = try cycle(high - 1) == newest ? high : high - 1
        }
        let window = min(count, XFSLog.flight / XFSLog.block)
        let before = try blocks(from: head > window ? head - window : 0, to: head)
        let after = try blocks(from: head, to: min(count, head + window))
        for index in 0..<before.bytes.count / 512 where try before.cycle(index) != newest {
            throw dirty("its blocks before the head are not of one round")
        }
        for index in 0..<after.bytes.count / 512 {
            let value = try after.cycle(index)
            guard value == oldest || value == 0 else { throw dirty("its blocks behind the head are not of one round") }
        }
        try requireUnmount(before, end: head, cycle: newest)
    }

    /// Throws unless the last record in `before`, blocks that end at block `end`, ends there too and tells of an
    /// unmount and nothing else.
    private func requireUnmount(_ before: Piece, end: UInt64, cycle: UInt32) throws(MapProblem) {
        let first = end - UInt64(before.bytes.count / 512)
        guard
            let index = (0..<before.bytes.count / 512).last(where: {
                (try? before.fields.big(UInt32.self, "h_magicno", at: $0 * 512)) == XFSLog.magic
            })
        else { throw dirty("it has no record before its head") }
        let fields = before.fields
        let at = index * 512
        let place = first + UInt64(index)
        let version = try fields.big(UInt32.self, "h_version", at: at + 8)
        let length = UInt64(try fields.big(UInt32.self, "h_len", at: at + 12))
        let sequence = try fields.big(UInt64.self, "h_lsn", at: at + 16)
        let operations = try fields.big(UInt32.self, "h_num_logops", at: at + 40)
        let identity = try fields.bytes("h_fs_uuid", at: at + 304, count: 16)
        let bufferSize = UInt64(try fields.big(UInt32.self, "h_size", at: at + 320))
        // A header has a block for each 32 KiB of the largest record, in version 2 of the log.
        let headers = version == 2 && bufferSize > 32_768 ? (bufferSize + 32_767) / 32_768 : 1
        guard version == 1 || version == 2, bufferSize <= XFSLog.flight, length > 0, length <= XFSLog.flight,
            sequence >> 32 == UInt64(cycle), sequence & 0xFFFF_FFFF == place, identity == uuid
        else { throw .damaged("The last record of its log is damaged.") }
        guard operations == 1, place + headers + (length + 511) / 512 == end else {
            throw dirty("its last record is no unmount record")
        }
        // The record's one operation: oh_tid, oh_len, oh_clientid, oh_flags.
        let flags = try fields.big(UInt8.self, "oh_flags", at: at + Int(headers) * 512 + 9)
        guard flags & XFSLog.unmounted != 0 else { throw dirty("its last record is no unmount record") }
    }

    private func dirty(_ reason: String) -> MapProblem {
        .whole(
            "It was not unmounted: its log waits to be replayed, and until then its free space does not tell what is in "
                + "use (\(reason)).", .journalToReplay)
    }

    /// Blocks of the log.
    private struct Piece {
        let fields: Fields
        var bytes: [UInt8] { fields.bytes }

        /// The round in which block `index` of the piece was written: the first number of a data block, the second of
        /// a record's header.
        func cycle(_ index: Int) throws(MapProblem) -> UInt32 {
            let first = try fields.big(UInt32.self, "cycle", at: index * 512)
            return first == XFSLog.magic ? try fields.big(UInt32.self, "h_cycle", at: index * 512 + 4) : first
        }
    }

    private func blocks(from first: UInt64, to end: UInt64) throws(MapProblem) -> Piece {
        Piece(
            fields: try Fields(
                "the log", of: volume, at: place.start + ByteCount(first * XFSLog.block),
                count: Int((end - first) * XFSLog.block)))
    }

    private func cycle(_ index: UInt64) throws(MapProblem) -> UInt32 {
        try blocks(from: index, to: index + 1).cycle(0)
    }
}
