// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import MachineModel

/// The first block of a JBD2 journal. Linux, Documentation/filesystems/ext4/journal.rst, "Super Block". All numbers are
/// big-endian.
struct JournalSuperblock: Hashable {
    /// s_blocksize: bytes of a block.
    var blockSize: UInt32
    /// s_maxlen: blocks of the journal, this one and those for fast commits included.
    var length: UInt32
    /// s_first: the first block of the ring.
    var first: UInt32
    /// s_sequence: number of the first transaction that is expected.
    var sequence: UInt32
    /// s_start: the block at which that transaction begins; 0 where nothing waits to be replayed.
    var start: UInt32
    /// s_errno: why the journal was given up; 0 where it was not.
    var error: UInt32
    /// s_feature_compat, 0 in version 1.
    var compatible: Compatible
    /// s_feature_incompat, 0 in version 1.
    var incompatible: Incompatible
    /// s_feature_ro_compat, 0 in version 1.
    var readOnlyCompatible: UInt32
    /// s_uuid.
    var uuid: [UInt8]
    /// s_nr_users: filesystems that share the journal.
    var users: UInt32
    /// s_num_fc_blks, or what stands for it where that is 0.
    var fastCommitBlocks: UInt32

    /// s_feature_compat.
    struct Compatible: OptionSet, Hashable {
        let rawValue: UInt32
        /// Commit blocks have a checksum of the whole transaction.
        static let checksum = Compatible(rawValue: 1)
    }

    /// s_feature_incompat.
    struct Incompatible: OptionSet, Hashable {
        let rawValue: UInt32
        static let revoke = Incompatible(rawValue: 0x1)
        static let bits64 = Incompatible(rawValue: 0x2)
        /// A commit block may have reached the disk before the blocks it commits.
        static let asyncCommit = Incompatible(rawValue: 0x4)
        static let checksum2 = Incompatible(rawValue: 0x8)
        static let checksum3 = Incompatible(rawValue: 0x10)
        static let fastCommit = Incompatible(rawValue: 0x20)
        static let known: Incompatible = [.revoke, .bits64, .asyncCommit, .checksum2, .checksum3, .fastCommit]
    }

    static let magic: UInt32 = 0xC03B_3998
    static let size = 1024
    private static let version1: UInt32 = 3
    private static let version2: UInt32 = 4
    private static let crc32c: UInt8 = 4
    /// The kernel and e2fsck use none that is shorter (JBD2_MIN_JOURNAL_BLOCKS).
    private static let leastBlocks: UInt32 = 1024

    /// Reads the superblock and refuses what is damaged or unknown here. `bytes` are its 1024 bytes.
    init(parsing bytes: [UInt8]) throws(MapProblem) {
        let fields = Fields("the superblock of its journal", bytes)
        guard try fields.big(UInt32.self, "h_magic", at: 0) == JournalSuperblock.magic else {
            throw .damaged("Its journal does not begin with a superblock.")
        }
        let version = try fields.big(UInt32.self, "h_blocktype", at: 4)
        guard version == JournalSuperblock.version1 || version == JournalSuperblock.version2 else {
            throw .damaged("The superblock of its journal is of type \(version), which is none.")
        }
        blockSize = try fields.big(UInt32.self, "s_blocksize", at: 12)
        length = try fields.big(UInt32.self, "s_maxlen", at: 16)
        first = try fields.big(UInt32.self, "s_first", at: 20)
        sequence = try fields.big(UInt32.self, "s_sequence", at: 24)
        start = try fields.big(UInt32.self, "s_start", at: 28)
        error = try fields.big(UInt32.self, "s_errno", at: 32)
        compatible = Compatible(rawValue: try fields.big(UInt32.self, "s_feature_compat", at: 36))
        incompatible = Incompatible(rawValue: try fields.big(UInt32.self, "s_feature_incompat", at: 40))
        readOnlyCompatible = try fields.big(UInt32.self, "s_feature_ro_compat", at: 44)
        uuid = try fields.bytes("s_uuid", at: 48, count: 16)
        users = try fields.big(UInt32.self, "s_nr_users", at: 64)
        let reserved = try fields.big(UInt32.self, "s_num_fc_blks", at: 84)
        fastCommitBlocks = reserved == 0 ? 256 : reserved

        if version == JournalSuperblock.version1 {
            guard compatible.isEmpty, incompatible.isEmpty, readOnlyCompatible == 0, users == 0 else {
                throw .damaged("The superblock of its journal is of version 1 but has fields of version 2.")
            }
        }
        guard incompatible.isSubset(of: .known), readOnlyCompatible == 0 else {
            throw .whole(
                "Its journal has features unknown here (\(Hex.number(incompatible.rawValue)), "
                    + "\(Hex.number(readOnlyCompatible))).", .unknownFeatures)
        }
        let checks = [
            incompatible.contains(.checksum2), incompatible.contains(.checksum3), compatible.contains(.checksum),
        ].count(where: { $0 })
        guard checks <= 1 else { throw .damaged("Its journal has several kinds of checksums at once.") }
        if hasBlockChecksums {
            let type = try fields.big(UInt8.self, "s_checksum_type", at: 80)
            let stored = try fields.big(UInt32.self, "s_checksum", at: 252)
            guard type == JournalSuperblock.crc32c,
                stored == JournalChecksum.crc32c(.max, bytes.prefix(JournalSuperblock.size), without: 252)
            else { throw .damaged("The checksum of its journal's superblock is wrong.") }
        }
        guard users <= 1 else { throw .damaged("Its journal says that \(users) filesystems share it.") }
        guard length >= JournalSuperblock.leastBlocks, first >= 1, first < length, start < length,
            start == 0 || start >= first
        else { throw .damaged("The superblock of its journal contradicts itself.") }
        if incompatible.contains(.fastCommit) {
            guard fastCommitBlocks < length, length - fastCommitBlocks >= JournalSuperblock.leastBlocks, start < end
            else { throw .damaged("The superblock of its journal has no room for transactions.") }
        }
    }

    /// Whether each block of the journal has a checksum of its own.
    var hasBlockChecksums: Bool { !incompatible.isDisjoint(with: [.checksum2, .checksum3]) }

    /// Behind the last block of the ring.
    var end: UInt32 { incompatible.contains(.fastCommit) ? length - fastCommitBlocks : length }

    /// Bytes of a tag in a descriptor block.
    var tagSize: Int {
        if incompatible.contains(.checksum3) { return 16 }
        return 8 + (incompatible.contains(.checksum2) ? 2 : 0) + (incompatible.contains(.bits64) ? 4 : 0)
    }
}

/// The checksums of JBD2.
enum JournalChecksum {
    /// CRC-32C as JBD2 counts it: `seed` is the value to begin with, and nothing is inverted. The four bytes at `field`,
    /// where the checksum itself lies, count as zeros.
    static func crc32c(_ seed: UInt32, _ bytes: some Collection<UInt8>, without field: Int? = nil) -> UInt32 {
        var bytes = Array(bytes)
        if let field, field >= 0, field + 4 <= bytes.count {
            for index in field..<field + 4 { bytes[index] = 0 }
        }
        return ~(unsafe CRC32.castagnoli.checksum(bytes.span.bytes, continuing: ~seed))
    }

    /// CRC-32 with its bits in the order of their weight, continuing `value`: what the oldest kind of commit checksums is.
    static func crc32(_ value: UInt32, _ bytes: [UInt8]) -> UInt32 {
        var value = value
        for byte in bytes { value = value << 8 ^ table[Int(value >> 24) ^ Int(byte)] }
        return value
    }

    private static let table: [UInt32] = (0..<256).map { index in
        (0..<8).reduce(UInt32(index) << 24) { value, _ in
            value & 0x8000_0000 == 0 ? value << 1 : value << 1 ^ 0x04C1_1DB7
        }
    }
}
