// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry

/// The fields of an ext2, ext3 or ext4 superblock that decide whether libext2fs may be asked at all.
/// Linux, Documentation/filesystems/ext4/super.rst. It lies at byte 1024 of the volume.
struct ExtSuperblock: Hashable {
    /// s_log_block_size as bytes: 1 KiB ... 64 KiB.
    var blockSize: ByteCount
    /// s_blocks_count, both halves.
    var blocks: UInt64
    /// s_first_data_block: 1 with 1 KiB blocks, else 0.
    var firstDataBlock: UInt32
    /// s_blocks_per_group.
    var blocksPerGroup: UInt32
    /// s_state.
    var state: State
    /// s_feature_incompat.
    var incompatible: Incompatible
    /// s_feature_compat.
    var compatible: Compatible
    /// s_journal_dev: not zero where the journal is on another device.
    var journalDevice: UInt32
    /// s_journal_uuid: that of the journal on another device; zeros where there is none.
    var journalUUID: [UInt8]
    /// s_uuid.
    var uuid: [UInt8]
    /// s_desc_size, or 32.
    var descriptorSize: UInt32

    /// s_state.
    struct State: OptionSet, Hashable {
        let rawValue: UInt16
        /// Cleanly unmounted.
        static let valid = State(rawValue: 1)
        /// Errors were found.
        static let errors = State(rawValue: 2)
    }

    /// s_feature_compat, the bits needed here.
    struct Compatible: OptionSet, Hashable {
        let rawValue: UInt32
        /// HAS_JOURNAL.
        static let journal = Compatible(rawValue: 0x4)
    }

    /// s_feature_incompat, the bits needed here.
    struct Incompatible: OptionSet, Hashable {
        let rawValue: UInt32
        /// RECOVER: the journal must be replayed.
        static let recover = Incompatible(rawValue: 0x4)
        /// JOURNAL_DEV: no filesystem but a journal of one.
        static let journalDevice = Incompatible(rawValue: 0x8)
        /// 64BIT: s_blocks_count_hi and s_desc_size count.
        static let bits64 = Incompatible(rawValue: 0x80)
    }

    static let offset = ByteCount(1024)
    static let size = 1024

    /// Reads the 1024 bytes of a superblock.
    init(parsing bytes: [UInt8]) throws(FieldError) {
        let span = unsafe bytes.span.bytes
        let magic = try span.littleEndian(UInt16.self, "s_magic", at: 0x38)
        guard magic == 0xEF53 else {
            throw .invalid(field: "s_magic", at: 0x38, seen: Hex.number(magic), expected: "EF53")
        }
        let log = try span.littleEndian(UInt32.self, "s_log_block_size", at: 0x18)
        guard log <= 6 else {
            throw .invalid(field: "s_log_block_size", at: 0x18, seen: "\(log)", expected: "0 to 6")
        }
        blockSize = ByteCount(1024 << UInt64(log))
        incompatible = Incompatible(rawValue: try span.littleEndian(UInt32.self, "s_feature_incompat", at: 0x60))
        let low = try span.littleEndian(UInt32.self, "s_blocks_count_lo", at: 4)
        let high = try span.littleEndian(UInt32.self, "s_blocks_count_hi", at: 0x150)
        let wide = incompatible.contains(.bits64)
        blocks = UInt64(low) | (wide ? UInt64(high) << 32 : 0)
        firstDataBlock = try span.littleEndian(UInt32.self, "s_first_data_block", at: 0x14)
        blocksPerGroup = try span.littleEndian(UInt32.self, "s_blocks_per_group", at: 0x20)
        state = State(rawValue: try span.littleEndian(UInt16.self, "s_state", at: 0x3A))
        compatible = Compatible(rawValue: try span.littleEndian(UInt32.self, "s_feature_compat", at: 0x5C))
        uuid = try span.bytes("s_uuid", at: 0x68, count: 16)
        journalUUID = try span.bytes("s_journal_uuid", at: 0xD0, count: 16)
        journalDevice = try span.littleEndian(UInt32.self, "s_journal_dev", at: 0xE4)
        descriptorSize = wide ? UInt32(try span.littleEndian(UInt16.self, "s_desc_size", at: 0xFE)) : 32
        // One bitmap block serves a group; 8 is the least libext2fs accepts.
        guard blocksPerGroup >= 8, blocks > UInt64(firstDataBlock), firstDataBlock <= 1 else {
            throw .invalid(
                field: "s_blocks_per_group", at: 0x20, seen: "\(blocksPerGroup)",
                expected: "a group size for \(blocks) blocks from block \(firstDataBlock)")
        }
        guard descriptorSize >= 32, descriptorSize <= 1024 else {
            throw .invalid(field: "s_desc_size", at: 0xFE, seen: "\(descriptorSize)", expected: "32 to 1024")
        }
    }

    /// Whether the checksum at the end of the superblock's 1024 bytes is right, where it has one: the CRC-32C of those before
    /// it.
    func isSound(_ bytes: [UInt8]) -> Bool {
        let span = unsafe bytes.span.bytes
        let metadataChecksums: UInt32 = 0x400
        guard let features = try? span.littleEndian(UInt32.self, "s_feature_ro_compat", at: 0x64),
            let stored = try? span.littleEndian(UInt32.self, "s_checksum", at: 0x3FC)
        else { return false }
        return features & metadataChecksums == 0 || stored == JournalChecksum.crc32c(.max, bytes.prefix(0x3FC))
    }

    /// Whether its journal is on another device.
    var hasExternalJournal: Bool { journalDevice != 0 || journalUUID.contains { $0 != 0 } }

    /// The filesystem's size; `nil` past 2^64.
    var size: ByteCount? { blockSize.multiplied(by: blocks) }

    /// Bytes of all group descriptors, which libext2fs holds in memory; `nil` past 2^64.
    var descriptorBytes: ByteCount? {
        ByteCount(blocks / UInt64(blocksPerGroup) + 1).multiplied(by: UInt64(descriptorSize))
    }
}
