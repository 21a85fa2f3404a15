// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry

/// The fields of an ext superblock that tell whether two volumes are one filesystem at two times, and what happened to it
/// in between. Linux, Documentation/filesystems/ext4/super.rst.
struct ExtHistory: Hashable {
    /// What never changes while a filesystem is used: geometry, features, identity.
    struct Shape: Hashable {
        var uuid: [UInt8]
        var made: UInt64
        var checksumSeed: UInt32
        var blockSize: ByteCount
        var blocks: UInt64
        var blocksPerGroup: UInt32
        var inodes: UInt32
        var inodesPerGroup: UInt32
        var inodeSize: UInt16
        var compatible: UInt32
        var incompatible: UInt32
        var readOnlyCompatible: UInt32
    }

    var superblock: ExtSuperblock
    var shape: Shape
    /// s_mtime: last mount, seconds since 1970.
    var mounted: UInt64
    /// s_wtime: last write of the superblock.
    var written: UInt64
    /// s_lastcheck: last full check by e2fsck.
    var checked: UInt64

    /// Features under which a file's bytes lie where its inode says and change only with its inode's times.
    private static let compatible: UInt32 = 0x1E3F
    private static let incompatible: UInt32 = 0x3E7D2
    private static let readOnlyCompatible: UInt32 = 0xA77B

    /// Reads the 1024 bytes of a superblock.
    init(parsing bytes: [UInt8]) throws(FieldError) {
        superblock = try ExtSuperblock(parsing: bytes)
        let span = unsafe bytes.span.bytes
        func time(_ field: StaticString, _ low: Int, _ high: Int) throws(FieldError) -> UInt64 {
            UInt64(try span.littleEndian(UInt32.self, field, at: low))
                | UInt64(try span.littleEndian(UInt8.self, field, at: high)) << 32
        }
        mounted = try time("s_mtime", 0x2C, 0x275)
        written = try time("s_wtime", 0x30, 0x274)
        checked = try time("s_lastcheck", 0x40, 0x277)
        shape = Shape(
            uuid: try span.bytes("s_uuid", at: 0x68, count: 16), made: try time("s_mkfs_time", 0x108, 0x276),
            checksumSeed: try span.littleEndian(UInt32.self, "s_checksum_seed", at: 0x270),
            blockSize: superblock.blockSize, blocks: superblock.blocks, blocksPerGroup: superblock.blocksPerGroup,
            inodes: try span.littleEndian(UInt32.self, "s_inodes_count", at: 0),
            inodesPerGroup: try span.littleEndian(UInt32.self, "s_inodes_per_group", at: 0x28),
            inodeSize: try span.littleEndian(UInt16.self, "s_inode_size", at: 0x58),
            compatible: try span.littleEndian(UInt32.self, "s_feature_compat", at: 0x5C),
            incompatible: superblock.incompatible.rawValue,
            readOnlyCompatible: try span.littleEndian(UInt32.self, "s_feature_ro_compat", at: 0x64))
    }

    /// Why nothing can be concluded from this filesystem alone; `nil` when it can.
    func refusal(_ length: ByteCount) -> String? {
        if superblock.incompatible.contains(.recover) { return "its journal waits to be replayed" }
        if superblock.incompatible.contains(.journalDevice) || superblock.journalDevice != 0 {
            return "its journal is on another device"
        }
        if !superblock.state.contains(.valid) || superblock.state.contains(.errors) {
            return "it was not cleanly unmounted or has errors"
        }
        if shape.compatible & ~ExtHistory.compatible != 0 || shape.incompatible & ~ExtHistory.incompatible != 0
            || shape.readOnlyCompatible & ~ExtHistory.readOnlyCompatible != 0
        {
            return "it has features under which its metadata do not tell enough"
        }
        guard let size = superblock.size, size <= length else { return "its end is missing" }
        if shape.inodeSize < 256 { return "its inodes have no room for times finer than a second" }
        if shape.uuid.allSatisfy({ $0 == 0 }) { return "it has no UUID" }
        return nil
    }

    /// Why `self` does not show what became of `old`; `nil` when it does.
    func refusal(since old: ExtHistory) -> String? {
        if shape.uuid != old.shape.uuid || shape.made != old.shape.made {
            return "it is another filesystem than before"
        }
        if shape != old.shape { return "its size or features have changed" }
        if checked != old.checked {
            return "it was checked by e2fsck in between, which may change files without a trace"
        }
        if written < old.written || mounted < old.mounted { return "the clock of the machine went back" }
        // Mounted since, by a clock that was before the last write then.
        if mounted != old.mounted, mounted < old.written { return "the clock of the machine went back" }
        return nil
    }
}
