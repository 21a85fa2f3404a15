// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry

/// The F2FS superblock. Linux, include/linux/f2fs_fs.h (`struct f2fs_super_block`) and fs/f2fs/super.c
/// (`sanity_check_raw_super`, `sanity_check_area_boundary`). All numbers are little-endian; addresses count blocks.
struct F2FSSuperblock: Hashable {
    /// block_count.
    var blocks: UInt64
    /// cp_blkaddr: the first of two segments with a checkpoint pack each.
    var checkpoints: UInt64
    /// sit_blkaddr, segment_count_sit: the segment information table, twice.
    var table: UInt64
    var tableSegments: UInt64
    /// main_blkaddr, segment_count_main: the area that blocks are allocated in.
    var main: UInt64
    var mainSegments: UInt64
    /// cp_payload: blocks of a checkpoint pack that only hold bitmaps.
    var payload: UInt64
    /// feature.
    var features: Features
    /// Whether it lies on several devices.
    var hasOtherDevices: Bool
    /// uuid.
    var uuid: [UInt8]
    /// volume_name.
    var label: String

    struct Features: OptionSet, Hashable {
        let rawValue: UInt32
        static let zoned = Features(rawValue: 2)
        static let superblockChecksum = Features(rawValue: 0x800)
        static let readOnly = Features(rawValue: 0x4000)
        /// Everything up to compression, and device aliases: none changes where valid blocks are written down.
        static let known = Features(rawValue: 0x3FFF | 0x8000)
    }

    /// Bytes of a block and blocks of a segment: other sizes are refused.
    static let blockSize: UInt64 = 4096
    static let segmentBlocks: UInt64 = 512
    /// Where the two copies lie.
    static let places = [ByteCount(1024), ByteCount(4096 + 1024)]
    static let size = 3072

    /// Reads a superblock of ``size`` bytes.
    init(parsing bytes: [UInt8]) throws(FieldError) {
        let span = unsafe bytes.span.bytes
        func word(_ field: StaticString, at offset: Int) throws(FieldError) -> UInt64 {
            UInt64(try span.littleEndian(UInt32.self, field, at: offset))
        }
        guard try word("magic", at: 0) == 0xF2F5_2010 else {
            throw .invalid(field: "magic", at: 0, seen: "another magic", expected: "F2F52010")
        }
        let sectorLog = try word("log_sectorsize", at: 8)
        let perBlock = try word("log_sectors_per_block", at: 12)
        let blockLog = try word("log_blocksize", at: 16)
        let segmentLog = try word("log_blocks_per_seg", at: 20)
        guard blockLog == 12, segmentLog == 9, sectorLog >= 9, sectorLog <= 12, sectorLog + perBlock == 12 else {
            throw .invalid(
                field: "log_blocksize", at: 16, seen: "\(blockLog) and \(segmentLog)",
                expected: "blocks of 4 KiB and segments of 512 blocks")
        }
        features = Features(rawValue: UInt32(try word("feature", at: 2180)))
        if features.contains(.superblockChecksum) {
            let offset = try word("checksum_offset", at: 32)
            let check = F2FSSuperblock.checksum(span.extracting(0..<3068))
            guard offset == 3068, try word("crc", at: 3068) == UInt64(check) else {
                throw .invalid(field: "crc", at: 3068, seen: "another checksum", expected: "the one of its bytes")
            }
        }
        blocks = try span.littleEndian(UInt64.self, "block_count", at: 36)
        let segments = try word("segment_count", at: 48)
        let first = try word("segment0_blkaddr", at: 72)
        checkpoints = try word("cp_blkaddr", at: 76)
        table = try word("sit_blkaddr", at: 80)
        tableSegments = try word("segment_count_sit", at: 56)
        let nodes = try word("nat_blkaddr", at: 84)
        let summaries = try word("ssa_blkaddr", at: 88)
        main = try word("main_blkaddr", at: 92)
        mainSegments = try word("segment_count_main", at: 68)
        payload = try word("cp_payload", at: 1664)
        let size = F2FSSuperblock.segmentBlocks
        let end = main + mainSegments * size
        guard first == checkpoints, first >= 2, try word("segment_count_ckpt", at: 52) == 2,
            table == checkpoints + 2 * size, tableSegments > 0, tableSegments.isMultiple(of: 2),
            nodes == table + tableSegments * size, summaries == nodes + (try word("segment_count_nat", at: 60)) * size,
            main == summaries + (try word("segment_count_ssa", at: 64)) * size, mainSegments > 0,
            end <= first + segments * size, end <= blocks, payload < size - 12,
            ByteCount(F2FSSuperblock.blockSize).multiplied(by: blocks) != nil
        else {
            throw .invalid(
                field: "main_blkaddr", at: 92, seen: "\(main)",
                expected: "areas that follow each other within \(blocks) blocks")
        }
        // A block of the table tells of 55 segments.
        guard mainSegments <= tableSegments / 2 * size * UInt64(F2FSSegments.perBlock) else {
            throw .invalid(
                field: "segment_count_sit", at: 56, seen: "\(tableSegments)",
                expected: "room for \(mainSegments) segments")
        }
        uuid = try span.bytes("uuid", at: 108, count: 16)
        let name = try span.bytes("volume_name", at: 124, count: 1024)
        var letters: [UInt8] = []
        for index in stride(from: 0, to: name.count - 1, by: 2) {
            if name[index] == 0, name[index + 1] == 0 { break }
            letters += name[index...index + 1]
        }
        label = UTF16Text.decode(letters)
        hasOtherDevices = try span.littleEndian(UInt8.self, "devs[0].path", at: 2201) != 0
    }

    /// The filesystem's size.
    var size: ByteCount { ByteCount(F2FSSuperblock.blockSize * blocks) }

    /// F2FS's checksum: CRC-32 begun with the magic and without the last inversion. `continuing` goes on with one.
    static func checksum(_ bytes: RawSpan, continuing: UInt32 = 0xF2F5_2010) -> UInt32 {
        ~CRC32.ieee.checksum(bytes, continuing: ~continuing)
    }

    /// The UUID as libblkid prints it.
    var uuidText: String {
        let digits = Hex.text(uuid)
        var result = ""
        for (index, digit) in digits.enumerated() {
            if [8, 12, 16, 20].contains(index) { result.append("-") }
            result.append(digit)
        }
        return result
    }
}
