// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry

/// The boot sector of exFAT. Microsoft, "exFAT file system specification", section 3.1.
struct ExFATBootSector: Hashable {
    /// VolumeLength, in sectors.
    var sectors: UInt64
    /// FatOffset and FatLength, in sectors.
    var tableStart: UInt64
    var tableSectors: UInt64
    /// ClusterHeapOffset, in sectors.
    var heapStart: UInt64
    /// ClusterCount.
    var clusters: UInt64
    /// FirstClusterOfRootDirectory; the first cluster is 2.
    var root: UInt32
    /// VolumeSerialNumber.
    var serial: UInt32
    /// VolumeFlags; right in the first boot sector only.
    var flags: Flags
    /// Bytes of a sector, 512 to 4096.
    var sectorSize: UInt64
    /// Bytes of a cluster, at most 32 MiB.
    var clusterSize: UInt64
    /// NumberOfFats: 2 with TexFAT, which has a second bitmap too.
    var tables: UInt8

    struct Flags: OptionSet, Hashable {
        let rawValue: UInt16
        static let secondIsActive = Flags(rawValue: 1)
        static let dirty = Flags(rawValue: 2)
        static let mediaFailure = Flags(rawValue: 4)
        static let known = Flags(rawValue: 15)
    }

    /// What stands where others have the OEM's name.
    static let name: StaticString = "EXFAT   "
    /// Sectors of a boot region: the boot sector, eight more, OEM parameters, a reserved one, the checksum.
    static let regionSectors: UInt64 = 12

    /// Reads the first 512 bytes of a boot region.
    init(parsing bytes: [UInt8]) throws(FieldError) {
        let span = unsafe bytes.span.bytes
        guard span.matches("EXFAT   ".utf8, at: 3), span.matches([0x55, 0xAA], at: 510) else {
            throw .invalid(field: "FileSystemName", at: 3, seen: "another name", expected: "\"EXFAT   \"")
        }
        let sectorShift = try span.littleEndian(UInt8.self, "BytesPerSectorShift", at: 108)
        let clusterShift = try span.littleEndian(UInt8.self, "SectorsPerClusterShift", at: 109)
        guard sectorShift >= 9, sectorShift <= 12, clusterShift <= 25 - sectorShift else {
            throw .invalid(
                field: "BytesPerSectorShift", at: 108, seen: "\(sectorShift) and \(clusterShift)",
                expected: "9 to 12, clusters of at most 32 MiB")
        }
        sectorSize = 1 << UInt64(sectorShift)
        clusterSize = sectorSize << UInt64(clusterShift)
        sectors = try span.littleEndian(UInt64.self, "VolumeLength", at: 72)
        tableStart = UInt64(try span.littleEndian(UInt32.self, "FatOffset", at: 80))
        tableSectors = UInt64(try span.littleEndian(UInt32.self, "FatLength", at: 84))
        heapStart = UInt64(try span.littleEndian(UInt32.self, "ClusterHeapOffset", at: 88))
        clusters = UInt64(try span.littleEndian(UInt32.self, "ClusterCount", at: 92))
        root = try span.littleEndian(UInt32.self, "FirstClusterOfRootDirectory", at: 96)
        serial = try span.littleEndian(UInt32.self, "VolumeSerialNumber", at: 100)
        flags = Flags(rawValue: try span.littleEndian(UInt16.self, "VolumeFlags", at: 106))
        tables = try span.littleEndian(UInt8.self, "NumberOfFats", at: 110)
        let revision = try span.littleEndian(UInt16.self, "FileSystemRevision", at: 104)
        guard revision >> 8 == 1 else {
            throw .invalid(field: "FileSystemRevision", at: 104, seen: Hex.number(revision), expected: "1.x")
        }
        let heapSectors = clusters << UInt64(clusterShift)
        guard tables == 1 || tables == 2, clusters > 0, clusters <= 0xFFFF_FFF5,
            tableStart >= 2 * ExFATBootSector.regionSectors, heapStart >= tableStart + tableSectors * UInt64(tables),
            sectors >= heapStart, heapSectors <= sectors - heapStart,
            tableSectors * sectorSize / 4 >= clusters + 2, ByteCount(sectorSize).multiplied(by: sectors) != nil
        else {
            throw .invalid(
                field: "ClusterCount", at: 92, seen: "\(clusters) clusters from sector \(heapStart)",
                expected: "tables and clusters within \(sectors) sectors")
        }
        guard UInt64(root) >= 2, UInt64(root) - 2 < clusters else {
            throw .invalid(
                field: "FirstClusterOfRootDirectory", at: 96, seen: "\(root)", expected: "2 to \(clusters + 1)")
        }
    }

    /// The filesystem's size.
    var size: ByteCount { ByteCount(sectors * sectorSize) }
    /// Where the first cluster begins.
    var heap: ByteCount { ByteCount(heapStart * sectorSize) }
    /// Where cluster `number`, at least 2, begins.
    func place(_ number: UInt64) -> ByteCount { ByteCount(heap.bytes + (number - 2) * clusterSize) }
    /// The serial as libblkid prints it.
    var serialText: String {
        let digits = Hex.number(serial)
        let text = String(repeating: "0", count: 8 - digits.utf8.count) + digits
        return text.prefix(4) + "-" + text.suffix(4)
    }

    /// The checksum of a boot region: over its first eleven sectors, without flags and percentage in use.
    static func checksum(_ region: ArraySlice<UInt8>) -> UInt32 {
        var sum: UInt32 = 0
        for (index, byte) in region.enumerated() where index != 106 && index != 107 && index != 112 {
            sum = (sum << 31 | sum >> 1) &+ UInt32(byte)
        }
        return sum
    }
}
