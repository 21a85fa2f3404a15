// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

package import BinaryFields
package import Geometry

/// The boot sector of FAT12, FAT16 or FAT32 with its BIOS parameter block. Microsoft, FAT32 File System Specification
/// 1.03, pages 7 to 14.
package struct FATBootSector: Hashable {
    /// BPB_BytsPerSec.
    package var bytesPerSector: ByteCount
    /// BPB_SecPerClus.
    var sectorsPerCluster: UInt64
    /// BPB_RsvdSecCnt: boot sector, FSInfo, backup boot sector.
    package var reservedSectors: UInt64
    /// BPB_NumFATs.
    package var tables: UInt64
    /// BPB_RootEntCnt; 0 in FAT32.
    package var rootEntries: UInt64
    /// BPB_Media.
    var media: UInt8
    /// BPB_RootClus; 0 outside FAT32.
    package var rootCluster: UInt32
    /// BPB_FATSz16 or 32.
    package var tableSectors: UInt64
    /// BPB_TotSec16 or 32.
    var totalSectors: UInt64
    /// Whether it is FAT32: BPB_FATSz16 is 0. Microsoft counts clusters instead, but small FAT32 volumes with fewer are
    /// common, and Linux decides like this.
    package var is32: Bool
    /// BPB_ExtFlags; 0 outside FAT32.
    var flags: UInt16
    /// BS_VolID; 0 outside FAT32.
    var serial: UInt32
    /// Whether the byte Linux keeps its "not cleanly unmounted" in says so.
    var isMarkedDirty: Bool

    /// What FAT32 has in BS_FilSysType.
    static let name32: StaticString = "FAT32   "

    /// Reads the first 512 bytes of a volume.
    package init(parsing bytes: [UInt8]) throws(FieldError) {
        let span = unsafe bytes.span.bytes
        let sector = try span.littleEndian(UInt16.self, "BPB_BytsPerSec", at: 11)
        guard sector >= 512, sector <= 4096, sector & (sector - 1) == 0 else {
            throw .invalid(field: "BPB_BytsPerSec", at: 11, seen: "\(sector)", expected: "512, 1024, 2048 or 4096")
        }
        bytesPerSector = ByteCount(UInt64(sector))
        let cluster = try span.littleEndian(UInt8.self, "BPB_SecPerClus", at: 13)
        guard cluster > 0, cluster & (cluster - 1) == 0 else {
            throw .invalid(field: "BPB_SecPerClus", at: 13, seen: "\(cluster)", expected: "a power of two")
        }
        sectorsPerCluster = UInt64(cluster)
        reservedSectors = UInt64(try span.littleEndian(UInt16.self, "BPB_RsvdSecCnt", at: 14))
        guard reservedSectors > 0 else {
            throw .invalid(field: "BPB_RsvdSecCnt", at: 14, seen: "0", expected: "at least 1")
        }
        tables = UInt64(try span.littleEndian(UInt8.self, "BPB_NumFATs", at: 16))
        guard (1...2).contains(tables) else {
            throw .invalid(field: "BPB_NumFATs", at: 16, seen: "\(tables)", expected: "1 or 2")
        }
        rootEntries = UInt64(try span.littleEndian(UInt16.self, "BPB_RootEntCnt", at: 17))
        let total = try span.littleEndian(UInt16.self, "BPB_TotSec16", at: 19)
        totalSectors =
            total != 0 ? UInt64(total) : UInt64(try span.littleEndian(UInt32.self, "BPB_TotSec32", at: 32))
        let table = try span.littleEndian(UInt16.self, "BPB_FATSz16", at: 22)
        tableSectors =
            table != 0 ? UInt64(table) : UInt64(try span.littleEndian(UInt32.self, "BPB_FATSz32", at: 36))
        is32 = table == 0
        media = try span.littleEndian(UInt8.self, "BPB_Media", at: 21)
        rootCluster = is32 ? try span.littleEndian(UInt32.self, "BPB_RootClus", at: 44) & 0x0FFF_FFFF : 0
        flags = is32 ? try span.littleEndian(UInt16.self, "BPB_ExtFlags", at: 40) : 0
        serial = is32 ? try span.littleEndian(UInt32.self, "BS_VolID", at: 67) : 0
        isMarkedDirty = try span.littleEndian(UInt8.self, "BS_Reserved1", at: is32 ? 65 : 37) & 1 != 0
        // Without this check the fuzzer must find an overflow (Tests/Fuzz/README.md).
        #if !RELIGHT_PLANTED_BUG
            guard tableSectors > 0, firstDataSector < totalSectors else {
                throw .invalid(
                    field: "BPB_TotSec32", at: 32, seen: "\(totalSectors)", expected: "more than \(firstDataSector)")
            }
        #endif
        guard clusters > 0, tableBytesNeeded <= tableSectors * UInt64(sector) else {
            throw .invalid(
                field: "BPB_FATSz32", at: 36, seen: "\(tableSectors) sectors",
                expected: "room for \(clusters) clusters")
        }
    }

    /// Sectors of the root directory of FAT12 and FAT16.
    var rootSectors: UInt64 { (rootEntries * 32 + bytesPerSector.bytes - 1) / bytesPerSector.bytes }
    /// First sector of cluster 2.
    package var firstDataSector: UInt64 { reservedSectors + tables * tableSectors + rootSectors }
    /// Number of clusters.
    package var clusters: UInt64 { (totalSectors - firstDataSector) / sectorsPerCluster }
    /// The width of an entry of the table.
    var width: FATWidth {
        if is32 { return .fat32 }
        return clusters < 4085 ? .fat12 : .fat16
    }
    /// Bytes of the table that describe clusters.
    var tableBytesNeeded: UInt64 { ((clusters + 2) * width.bits + 7) / 8 }
    /// Bytes of a cluster.
    package var clusterBytes: ByteCount { ByteCount(bytesPerSector.bytes * sectorsPerCluster) }
    /// The filesystem's size.
    var size: ByteCount { ByteCount(bytesPerSector.bytes * totalSectors) }
}

/// The width of an entry of a file allocation table.
enum FATWidth: Hashable {
    case fat12
    case fat16
    case fat32

    /// Bits of an entry.
    var bits: UInt64 {
        switch self {
        case .fat12: 12
        case .fat16: 16
        case .fat32: 32
        }
    }

    /// An entry with all bits set.
    var ones: UInt32 {
        switch self {
        case .fat12: 0xFFF
        case .fat16: 0xFFFF
        case .fat32: 0x0FFF_FFFF
        }
    }

    /// The entry that marks a cluster with bad sectors.
    var bad: UInt32 {
        switch self {
        case .fat12: 0xFF7
        case .fat16: 0xFFF7
        case .fat32: 0x0FFF_FFF7
        }
    }
}
