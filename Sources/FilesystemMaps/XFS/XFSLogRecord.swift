// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry
import MachineModel

/// A record of an XFS log: one block of header for each 32 KiB that a record may have, then the content. Linux,
/// fs/xfs/libxfs/xfs_log_format.h (`struct xlog_rec_header`).
struct XFSLogRecord: Hashable {
    /// The block of the log at which it begins.
    let place: UInt64
    /// h_lsn: the round and the block, which order all records.
    let sequence: UInt64
    /// h_tail_lsn: the record from which on the log must be replayed.
    let tail: UInt64
    /// h_len: bytes of the content.
    let length: UInt64
    /// h_num_logops: operations that begin in it.
    let operations: UInt32
    /// Blocks of header.
    let headers: UInt64
    private let isLittleEndian: Bool

    /// h_cycle_data of a header: the first numbers of 32 KiB of blocks.
    private static let perHeader = 64

    /// Reads the first block of a record at block `place`, written in round `round`, of the filesystem with `uuid`.
    init(_ header: Fields, at place: UInt64, round: UInt32, uuid: [UInt8]) throws(MapProblem) {
        self.place = place
        let version = try header.big(UInt32.self, "h_version", at: 8)
        length = UInt64(try header.big(UInt32.self, "h_len", at: 12))
        sequence = try header.big(UInt64.self, "h_lsn", at: 16)
        tail = try header.big(UInt64.self, "h_tail_lsn", at: 24)
        operations = try header.big(UInt32.self, "h_num_logops", at: 40)
        isLittleEndian = try header.big(UInt32.self, "h_fmt", at: 300) == 1
        let identity = try header.bytes("h_fs_uuid", at: 304, count: 16)
        let bufferSize = UInt64(try header.big(UInt32.self, "h_size", at: 320))
        // A header has a block for each 32 KiB of the largest record, in version 2 of the log.
        headers = version == 2 && bufferSize > 32_768 ? (bufferSize + 32_767) / 32_768 : 1
        guard try header.big(UInt32.self, "h_magicno", at: 0) == XFSLog.magic,
            try header.big(UInt32.self, "h_cycle", at: 4) == round, version == 1 || version == 2,
            bufferSize <= XFSLog.flight, length > 0, length <= XFSLog.flight, sequence >> 32 == UInt64(round),
            sequence & 0xFFFF_FFFF == place, identity == uuid
        else { throw .damaged("The record at block \(place) of its log is damaged.") }
    }

    /// Blocks of header and content.
    var blocks: UInt64 { headers + (length + 511) / 512 }

    /// The content of the record in `log`, as it was before the rounds were written over the first bytes of its blocks.
    func content(of log: XFSLog, _ head: XFSLog.Head) throws(MapProblem) -> Fields {
        let damaged = MapProblem.damaged("The record at block \(place) of its log is damaged.")
        guard isLittleEndian else {
            throw .whole("Its log was written by a machine of another byte order.", nil)
        }
        let piece = try log.blocks(place, blocks)
        for index in 1..<blocks {
            guard
                try piece.fields.big(UInt32.self, "cycle", at: Int(index) * 512)
                    == head.round(of: (place + index) % log.count)
            else { throw damaged }
        }
        let all = piece.fields.bytes
        let start = Int(headers) * 512
        guard length <= headers * 32_768, isSound(all, start) else { throw damaged }
        var content = Array(all[start..<start + Int(length)])
        for index in 0..<(content.count + 511) / 512 {
            let header = index / XFSLogRecord.perHeader
            let place = header * 512 + (header == 0 ? 44 : 4) + index % XFSLogRecord.perHeader * 4
            for byte in 0..<4 where index * 512 + byte < content.count {
                content[index * 512 + byte] = all[place + byte]
            }
        }
        return Fields("the record at block \(place) of its log", content)
    }

    /// Whether the checksum is right. The header counts with as many bytes as its structure has, which are not the same
    /// on machines of 64 and of 32 bits.
    private func isSound(_ bytes: [UInt8], _ start: Int) -> Bool {
        let span = unsafe bytes.span.bytes
        guard let stored = try? span.littleEndian(UInt32.self, "h_crc", at: 32) else { return false }
        let zeros: [UInt8] = [0, 0, 0, 0]
        return [328, 324].contains { size in
            var check = CRC32.castagnoli.checksum(span.extracting(0..<32))
            check = unsafe CRC32.castagnoli.checksum(zeros.span.bytes, continuing: check)
            check = CRC32.castagnoli.checksum(span.extracting(36..<size), continuing: check)
            for index in 1..<max(1, Int((length + 32_767) / 32_768)) {
                check = CRC32.castagnoli.checksum(
                    span.extracting(index * 512..<index * 512 + 260), continuing: check)
            }
            return CRC32.castagnoli.checksum(span.extracting(start..<start + Int(length)), continuing: check) == stored
        }
    }
}
