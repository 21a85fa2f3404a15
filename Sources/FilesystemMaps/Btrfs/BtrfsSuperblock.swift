// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry

/// The Btrfs superblock. Linux, include/uapi/linux/btrfs_tree.h (`struct btrfs_super_block`) and fs/btrfs/disk-io.c
/// (`btrfs_validate_super`). All numbers are little-endian.
struct BtrfsSuperblock: Hashable {
    /// fsid: what the filesystem is known by.
    var filesystem: [UInt8]
    /// What tree blocks carry: metadata_uuid where there is one, else fsid.
    var metadata: [UInt8]
    /// bytenr: where this copy lies.
    var place: UInt64
    /// flags: `1` once it was written; the others tell of conversions that are not finished.
    var flags: UInt64
    /// generation: the number of the last transaction.
    var generation: UInt64
    /// root: logical address of the tree of trees, and root_level.
    var root: UInt64
    var rootLevel: UInt8
    /// chunk_root, chunk_root_level, chunk_root_generation: the tree that maps logical addresses to devices.
    var chunkRoot: UInt64
    var chunkRootLevel: UInt8
    var chunkRootGeneration: UInt64
    /// log_root, log_root_level: the tree of what fsync wrote since the last transaction; 0 when there is nothing.
    var logRoot: UInt64
    var logRootLevel: UInt8
    /// bytes_used: sum of all extents, in logical bytes.
    var bytesUsed: UInt64
    /// num_devices.
    var devices: UInt64
    /// sectorsize, nodesize.
    var sectorSize: UInt64
    var nodeSize: UInt64
    /// compat_ro_flags, incompat_flags.
    var readOnlyCompatible: ReadOnlyCompatible
    var incompatible: Incompatible
    /// csum_type.
    var checksum: BtrfsChecksum
    /// dev_item.devid: the number of the device this copy lies on; 0 on the target of a replacement under way.
    var device: UInt64
    /// dev_item.total_bytes: bytes of the device that the filesystem takes.
    var deviceSize: ByteCount
    /// dev_item.uuid.
    var deviceUUID: [UInt8]
    /// label.
    var label: String
    /// sys_chunk_array: the chunks in which the chunk tree lies.
    var systemChunks: [UInt8]

    struct ReadOnlyCompatible: OptionSet, Hashable {
        let rawValue: UInt64
        static let blockGroupTree = ReadOnlyCompatible(rawValue: 8)
        /// Free space tree, free space tree valid, verity, block group tree.
        static let known = ReadOnlyCompatible(rawValue: 15)
    }

    struct Incompatible: OptionSet, Hashable {
        let rawValue: UInt64
        static let metadataUUID = Incompatible(rawValue: 1 << 10)
        static let zoned = Incompatible(rawValue: 1 << 12)
        /// Bits 0 to 9, metadata UUID, RAID1C3/4, simple quotas: none changes where extents are written down.
        static let known = Incompatible(rawValue: 0x3FF | 1 << 10 | 1 << 11 | 1 << 16)
    }

    /// Bytes of a superblock.
    static let size = 4096
    /// Where the copies lie on each device that is large enough.
    static let places: [ByteCount] = [.kibibytes(64), .mebibytes(64), .gibibytes(256)]
    /// BTRFS_SUPER_FLAG_SEEDING: read-only, to be grown onto other devices.
    static let seeding: UInt64 = 1 << 32
    /// Levels of a tree: 0 to 7.
    static let levels: UInt8 = 8

    /// Reads a superblock of ``size`` bytes whose checksum is right.
    init(parsing bytes: [UInt8]) throws(FieldError) {
        let span = unsafe bytes.span.bytes
        guard span.matches("_BHRfS_M".utf8, at: 64) else {
            throw .invalid(field: "magic", at: 64, seen: "another magic", expected: "\"_BHRfS_M\"")
        }
        let kind = try span.littleEndian(UInt16.self, "csum_type", at: 196)
        guard let checksum = BtrfsChecksum(rawValue: kind) else {
            throw .invalid(field: "csum_type", at: 196, seen: "\(kind)", expected: "0 to 3")
        }
        guard checksum.isRight(bytes) else {
            throw .invalid(field: "csum", at: 0, seen: "another checksum", expected: "the one of its bytes")
        }
        self.checksum = checksum
        filesystem = try span.bytes("fsid", at: 32, count: 16)
        place = try span.littleEndian(UInt64.self, "bytenr", at: 48)
        flags = try span.littleEndian(UInt64.self, "flags", at: 56)
        generation = try span.littleEndian(UInt64.self, "generation", at: 72)
        root = try span.littleEndian(UInt64.self, "root", at: 80)
        chunkRoot = try span.littleEndian(UInt64.self, "chunk_root", at: 88)
        logRoot = try span.littleEndian(UInt64.self, "log_root", at: 96)
        bytesUsed = try span.littleEndian(UInt64.self, "bytes_used", at: 120)
        devices = try span.littleEndian(UInt64.self, "num_devices", at: 136)
        func power(_ field: StaticString, at offset: Int, from least: UInt64) throws(FieldError) -> UInt64 {
            let value = UInt64(try span.littleEndian(UInt32.self, field, at: offset))
            guard value >= least, value <= 65_536, value & (value - 1) == 0 else {
                throw .invalid(
                    field: "\(field)", at: offset, seen: "\(value)", expected: "a power of two from \(least) to 65536")
            }
            return value
        }
        sectorSize = try power("sectorsize", at: 144, from: 512)
        nodeSize = try power("nodesize", at: 148, from: max(sectorSize, 4096))
        let count = try span.littleEndian(UInt32.self, "sys_chunk_array_size", at: 160)
        guard count <= 2048 else {
            throw .invalid(field: "sys_chunk_array_size", at: 160, seen: "\(count)", expected: "at most 2048")
        }
        chunkRootGeneration = try span.littleEndian(UInt64.self, "chunk_root_generation", at: 164)
        readOnlyCompatible = ReadOnlyCompatible(
            rawValue: try span.littleEndian(UInt64.self, "compat_ro_flags", at: 180))
        incompatible = Incompatible(rawValue: try span.littleEndian(UInt64.self, "incompat_flags", at: 188))
        func level(_ field: StaticString, at offset: Int) throws(FieldError) -> UInt8 {
            let value = try span.littleEndian(UInt8.self, field, at: offset)
            guard value < BtrfsSuperblock.levels else {
                throw .invalid(field: "\(field)", at: offset, seen: "\(value)", expected: "0 to 7")
            }
            return value
        }
        rootLevel = try level("root_level", at: 198)
        chunkRootLevel = try level("chunk_root_level", at: 199)
        logRootLevel = try level("log_root_level", at: 200)
        device = try span.littleEndian(UInt64.self, "dev_item.devid", at: 201)
        deviceSize = ByteCount(try span.littleEndian(UInt64.self, "dev_item.total_bytes", at: 209))
        deviceUUID = try span.bytes("dev_item.uuid", at: 267, count: 16)
        label = String(decoding: try span.bytes("label", at: 299, count: 256).prefix { $0 != 0 }, as: UTF8.self)
        metadata =
            incompatible.contains(.metadataUUID) ? try span.bytes("metadata_uuid", at: 571, count: 16) : filesystem
        systemChunks = try span.bytes("sys_chunk_array", at: 811, count: Int(count))
    }

    /// The UUID as libblkid prints it.
    var uuidText: String {
        let digits = Hex.text(filesystem)
        var result = ""
        for (index, digit) in digits.enumerated() {
            if [8, 12, 16, 20].contains(index) { result.append("-") }
            result.append(digit)
        }
        return result
    }
}
