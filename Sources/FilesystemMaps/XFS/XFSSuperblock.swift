// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry

/// The XFS superblock. "XFS Algorithms & Data Structures", 3rd edition, part III, section 13.1; newer fields: Linux,
/// fs/xfs/libxfs/xfs_format.h (`struct xfs_dsb`). All numbers are big-endian but `sb_crc`.
struct XFSSuperblock: Hashable {
    /// sb_blocksize: bytes of a block, 512 to 65536.
    var blockSize: ByteCount
    /// sb_dblocks: blocks of the data device.
    var blocks: UInt64
    /// sb_rblocks and sb_rextents: a real-time device has files that lie on another device.
    var hasRealTimeDevice: Bool
    /// sb_logstart: the log's first block; 0 when the log is on another device.
    var logStart: UInt64
    /// sb_logblocks.
    var logBlocks: UInt64
    /// sb_agblocks: blocks of an allocation group; the last may have fewer.
    var groupBlocks: UInt64
    /// sb_agblklog: bits of a block's number within its group.
    var groupBits: UInt64
    /// sb_agcount.
    var groups: UInt64
    /// sb_versionnum.
    var version: Version
    /// sb_sectsize: bytes of a sector, the unit of the headers of a group.
    var sectorSize: ByteCount
    /// sb_fname: the label.
    var label: String
    /// sb_inprogress: mkfs or a copy was not finished.
    var isInProgress: Bool
    /// sb_fdblocks: free blocks, right only after the filesystem was unmounted.
    var freeBlocks: UInt64
    /// sb_features2; empty without `Version.moreBits`.
    var features2: UInt32
    /// sb_features_ro_compat; empty in version 4.
    var readOnlyCompatible: ReadOnlyCompatible
    /// sb_features_incompat; empty in version 4.
    var incompatible: Incompatible
    /// sb_features_log_incompat; 0 in version 4.
    var logIncompatible: UInt32
    /// sb_uuid.
    var uuid: [UInt8]
    /// What metadata carry: sb_meta_uuid where there is one, else sb_uuid.
    var metadataUUID: [UInt8]

    /// Whether metadata blocks have checksums.
    var isVersion5: Bool { version.number == 5 }

    struct Version: OptionSet, Hashable {
        let rawValue: UInt16
        static let shared = Version(rawValue: 0x200)
        static let moreBits = Version(rawValue: 0x8000)
        /// 4 or 5.
        var number: UInt16 { rawValue & 15 }
    }

    struct ReadOnlyCompatible: OptionSet, Hashable {
        let rawValue: UInt32
        static let freeInodeTree = ReadOnlyCompatible(rawValue: 1)
        static let reverseMap = ReadOnlyCompatible(rawValue: 2)
        static let reflink = ReadOnlyCompatible(rawValue: 4)
        static let inodeTreeCounts = ReadOnlyCompatible(rawValue: 8)
        static let known: ReadOnlyCompatible = [.freeInodeTree, .reverseMap, .reflink, .inodeTreeCounts]
    }

    struct Incompatible: OptionSet, Hashable {
        let rawValue: UInt32
        static let fileType = Incompatible(rawValue: 1)
        static let sparseInodes = Incompatible(rawValue: 2)
        static let metadataUUID = Incompatible(rawValue: 4)
        static let bigTime = Incompatible(rawValue: 8)
        static let needsRepair = Incompatible(rawValue: 16)
        static let largeExtentCounts = Incompatible(rawValue: 32)
        static let exchangeRange = Incompatible(rawValue: 64)
        static let parent = Incompatible(rawValue: 128)
        /// None of these changes where free space is written down.
        static let known: Incompatible = [
            .fileType, .sparseInodes, .metadataUUID, .bigTime, .needsRepair, .largeExtentCounts, .exchangeRange,
            .parent,
        ]
    }

    /// XFS_SB_FEAT_INCOMPAT_LOG_XATTRS: the log may hold what only newer kernels can replay.
    static let knownLogIncompatible: UInt32 = 1
    /// Bits of sb_features2 that are known: lazy counters, attributes version 2, project ids, checksums, file types.
    static let knownFeatures2: UInt32 = 0x2 | 0x8 | 0x80 | 0x100 | 0x200
    /// Bytes of the superblock that are looked at.
    static let size = 512

    /// Reads the first bytes of a superblock, at least ``size``. Checksums are checked over whole sectors, elsewhere.
    init(parsing bytes: [UInt8]) throws(FieldError) {
        let span = unsafe bytes.span.bytes
        func power(_ field: StaticString, at offset: Int, size: UInt64, from least: UInt64, to most: UInt64)
            throws(FieldError)
        {
            let log = UInt64(try span.bigEndian(UInt8.self, field, at: offset))
            guard size >= least, size <= most, log < 32, size == 1 << log else {
                throw .invalid(field: "\(field)", at: offset, seen: "\(log)", expected: "the logarithm of \(size)")
            }
        }
        guard span.matches("XFSB".utf8, at: 0) else {
            throw .invalid(field: "sb_magicnum", at: 0, seen: "another magic", expected: "\"XFSB\"")
        }
        let block = UInt64(try span.bigEndian(UInt32.self, "sb_blocksize", at: 4))
        try power("sb_blocklog", at: 120, size: block, from: 512, to: 65_536)
        blockSize = ByteCount(block)
        let sector = UInt64(try span.bigEndian(UInt16.self, "sb_sectsize", at: 102))
        try power("sb_sectlog", at: 121, size: sector, from: 512, to: min(32_768, block))
        sectorSize = ByteCount(sector)
        blocks = try span.bigEndian(UInt64.self, "sb_dblocks", at: 8)
        let realTimeBlocks = try span.bigEndian(UInt64.self, "sb_rblocks", at: 16)
        let realTimeExtents = try span.bigEndian(UInt64.self, "sb_rextents", at: 24)
        hasRealTimeDevice = realTimeBlocks != 0 || realTimeExtents != 0
        uuid = try span.bytes("sb_uuid", at: 32, count: 16)
        logStart = try span.bigEndian(UInt64.self, "sb_logstart", at: 48)
        logBlocks = UInt64(try span.bigEndian(UInt32.self, "sb_logblocks", at: 96))
        groupBlocks = UInt64(try span.bigEndian(UInt32.self, "sb_agblocks", at: 84))
        groups = UInt64(try span.bigEndian(UInt32.self, "sb_agcount", at: 88))
        // The headers of a group take four sectors, the roots of its trees three blocks.
        guard groupBlocks >= 4 * sector / block + 4, groups > 0, blocks > 0,
            (groups - 1) * groupBlocks < blocks, blocks <= groups * groupBlocks,
            blocks - (groups - 1) * groupBlocks >= 4 * sector / block + 4, blockSize.multiplied(by: blocks) != nil
        else {
            throw .invalid(
                field: "sb_agblocks", at: 84, seen: "\(groups) groups of \(groupBlocks) blocks",
                expected: "room for \(blocks) blocks")
        }
        groupBits = UInt64(try span.bigEndian(UInt8.self, "sb_agblklog", at: 124))
        guard groupBits <= 31, groupBlocks <= 1 << groupBits, groupBlocks > (1 << groupBits) / 2 else {
            throw .invalid(
                field: "sb_agblklog", at: 124, seen: "\(groupBits)", expected: "the bits of \(groupBlocks) blocks")
        }
        version = Version(rawValue: try span.bigEndian(UInt16.self, "sb_versionnum", at: 100))
        label = String(decoding: try span.bytes("sb_fname", at: 108, count: 12).prefix { $0 != 0 }, as: UTF8.self)
        isInProgress = try span.bigEndian(UInt8.self, "sb_inprogress", at: 126) != 0
        freeBlocks = try span.bigEndian(UInt64.self, "sb_fdblocks", at: 144)
        features2 = version.contains(.moreBits) ? try span.bigEndian(UInt32.self, "sb_features2", at: 200) : 0
        metadataUUID = uuid
        guard version.number == 5 else {
            readOnlyCompatible = []
            incompatible = []
            logIncompatible = 0
            return
        }
        readOnlyCompatible = ReadOnlyCompatible(
            rawValue: try span.bigEndian(UInt32.self, "sb_features_ro_compat", at: 212))
        incompatible = Incompatible(rawValue: try span.bigEndian(UInt32.self, "sb_features_incompat", at: 216))
        logIncompatible = try span.bigEndian(UInt32.self, "sb_features_log_incompat", at: 220)
        if incompatible.contains(.metadataUUID) { metadataUUID = try span.bytes("sb_meta_uuid", at: 248, count: 16) }
    }

    /// The filesystem's size.
    var size: ByteCount { ByteCount(blockSize.bytes * blocks) }
    /// Bytes of a whole group.
    var groupSize: ByteCount { ByteCount(blockSize.bytes * groupBlocks) }
    /// Blocks of group `number`.
    func blocks(of number: UInt64) -> UInt64 {
        number + 1 == groups ? blocks - number * groupBlocks : groupBlocks
    }
    /// Where group `number` begins.
    func start(of number: UInt64) -> ByteCount { ByteCount(groupSize.bytes * number) }

    /// The UUID as text.
    var uuidText: String { PlainUUID.text(uuid) }
}

/// The checksum of version 5: CRC-32C over a whole sector or block with the field itself as zeros; the field is
/// little-endian, unlike all others.
enum XFSChecksum {
    /// Whether the checksum at `offset` is the right one.
    static func isRight(_ bytes: [UInt8], at offset: Int) -> Bool {
        guard offset >= 0, offset <= bytes.count - 4 else { return false }
        let span = unsafe bytes.span.bytes
        guard let stored = try? span.littleEndian(UInt32.self, "crc", at: offset) else { return false }
        return stored == value(bytes, at: offset)
    }

    /// What it must be.
    static func value(_ bytes: [UInt8], at offset: Int) -> UInt32 {
        let span = unsafe bytes.span.bytes
        let zeros: [UInt8] = [0, 0, 0, 0]
        var check = CRC32.castagnoli.checksum(span.extracting(0..<offset))
        check = unsafe CRC32.castagnoli.checksum(zeros.span.bytes, continuing: check)
        return CRC32.castagnoli.checksum(span.extracting(offset + 4..<bytes.count), continuing: check)
    }
}
