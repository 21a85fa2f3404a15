// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry

/// The boot sector of NTFS with its BIOS parameter block. Microsoft, "NTFS Technical Reference", table 1.6, and the
/// documentation of the Linux-NTFS project (`$Boot`).
struct NTFSBootSector: Hashable {
    /// Bytes per Sector, 512 to 4096.
    var bytesPerSector: ByteCount
    /// Sectors Per Cluster, decoded.
    var sectorsPerCluster: UInt64
    /// Total Sectors: without the backup boot sector, which follows them.
    var totalSectors: UInt64
    /// Logical Cluster Number for the File $MFT.
    var mft: UInt64
    /// Logical Cluster Number for the File $MFTMirr.
    var mirror: UInt64
    /// Bytes of a record of the $MFT.
    var recordSize: Int
    /// Volume Serial Number.
    var serial: UInt64

    /// What stands where others have the OEM's name.
    static let name: StaticString = "NTFS    "
    /// The largest cluster Windows makes.
    static let largestCluster = ByteCount.mebibytes(2)

    /// Reads the first 512 bytes of the first sector or of its backup.
    init(parsing bytes: [UInt8]) throws(FieldError) {
        let span = unsafe bytes.span.bytes
        guard span.matches("NTFS    ".utf8, at: 3) else {
            throw .invalid(field: "OEM ID", at: 3, seen: "another name", expected: "\"NTFS    \"")
        }
        let sector = try span.littleEndian(UInt16.self, "Bytes Per Sector", at: 11)
        guard sector >= 512, sector <= 4096, sector & (sector - 1) == 0 else {
            throw .invalid(field: "Bytes Per Sector", at: 11, seen: "\(sector)", expected: "512, 1024, 2048 or 4096")
        }
        bytesPerSector = ByteCount(UInt64(sector))
        // Above 128 it is the exponent of a power of two, negated.
        let code = try span.littleEndian(UInt8.self, "Sectors Per Cluster", at: 13)
        let power = code > 128 ? 256 - UInt64(code) : 0
        sectorsPerCluster = code > 128 ? (power < 32 ? 1 << power : 0) : UInt64(code)
        guard sectorsPerCluster > 0, sectorsPerCluster & (sectorsPerCluster - 1) == 0,
            let cluster = bytesPerSector.multiplied(by: sectorsPerCluster), cluster <= NTFSBootSector.largestCluster
        else {
            throw .invalid(
                field: "Sectors Per Cluster", at: 13, seen: "\(code)",
                expected: "a power of two and clusters up to \(NTFSBootSector.largestCluster)")
        }
        totalSectors = try span.littleEndian(UInt64.self, "Total Sectors", at: 40)
        let clusters = totalSectors / sectorsPerCluster
        guard clusters > 0, bytesPerSector.multiplied(by: totalSectors)?.adding(.mebibytes(4)) != nil else {
            throw .invalid(field: "Total Sectors", at: 40, seen: "\(totalSectors)", expected: "at least a cluster")
        }
        mft = try span.littleEndian(UInt64.self, "LCN of $MFT", at: 48)
        guard mft < clusters else {
            throw .invalid(field: "LCN of $MFT", at: 48, seen: "\(mft)", expected: "less than \(clusters)")
        }
        mirror = try span.littleEndian(UInt64.self, "LCN of $MFTMirr", at: 56)
        guard mirror < clusters else {
            throw .invalid(field: "LCN of $MFTMirr", at: 56, seen: "\(mirror)", expected: "less than \(clusters)")
        }
        let size = try span.littleEndian(Int8.self, "Clusters Per MFT Record", at: 64)
        let record = size > 0 ? UInt64(size) * cluster.bytes : size > -17 ? 1 << UInt64(-Int(size)) : 0
        guard record >= 512, record <= 65_536, record & (record - 1) == 0 else {
            throw .invalid(
                field: "Clusters Per MFT Record", at: 64, seen: "\(size)", expected: "records of 512 bytes to 64 KiB")
        }
        recordSize = Int(record)
        serial = try span.littleEndian(UInt64.self, "Volume Serial Number", at: 72)
    }

    /// Bytes of a cluster.
    var clusterSize: ByteCount { ByteCount(bytesPerSector.bytes * sectorsPerCluster) }
    /// Number of whole clusters; a rest smaller than a cluster holds nothing.
    var clusters: UInt64 { totalSectors / sectorsPerCluster }
    /// Bytes of all sectors but the backup boot sector.
    var sectorBytes: ByteCount { ByteCount(bytesPerSector.bytes * totalSectors) }
    /// Bytes of all clusters.
    var clusterBytes: ByteCount { ByteCount(clusterSize.bytes * clusters) }
    /// The filesystem's size: all sectors and the backup boot sector.
    var size: ByteCount { sectorBytes + bytesPerSector }
    /// The serial as libblkid prints it.
    var serialText: String {
        let digits = Hex.number(serial)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }
}
