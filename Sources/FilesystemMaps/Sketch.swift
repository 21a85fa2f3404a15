// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import CLinux
import Findings
import Geometry
import Glibc

/// A file in memory with the places of a volume where superblocks lie, for libblkid, which reads descriptors only.
/// Everything else in it is a hole, so it takes a few MiB however large the volume is.
final class Sketch {
    let descriptor: Int32

    /// Copies what matters of `volume`. Sectors that cannot be read stay zero: libblkid then finds nothing there.
    init(of volume: any BlockSource) throws(Fault) {
        let opened = unsafe relight_memory_file("relight-sketch")
        guard opened >= 0, let length = off_t(exactly: volume.length.bytes) else {
            throw Fault(
                .system, what: "No file in memory can be made: \(errorText(-opened)).", place: volume.name,
                remedy: "Free some memory and try again.")
        }
        descriptor = opened
        guard ftruncate(opened, length) == 0 else {
            let problem = errno
            throw Fault(
                .system, what: "No file of the volume's size can be made in memory: \(errorText(problem)).",
                place: volume.name, remedy: "Free some memory and try again.")
        }
        // Every superblock libblkid knows lies in the first 4 MiB or the last 512 KiB (ZFS labels, RAID, backups of GPT).
        let head = Extent(from: .zero, to: min(volume.length, .mebibytes(4)))
        let tail = Extent(from: volume.length.subtracting(.mebibytes(1)) ?? .zero, to: volume.length)
        var first: [UInt8] = []
        for piece in [head, tail] { copy(volume, piece, keeping: &first) }
        for piece in Sketch.labels(first) {
            var unused = [UInt8](repeating: 0, count: 1)
            copy(volume, piece.intersection(Extent(from: .zero, to: volume.length)), keeping: &unused)
        }
    }

    deinit { close(descriptor) }

    /// `kept` receives the first piece copied while it is empty.
    private func copy(_ volume: any BlockSource, _ piece: Extent, keeping kept: inout [UInt8]) {
        var position = piece.start
        while position < piece.end {
            // Small pieces, so that one bad sector hides little.
            let count = min((piece.end - position).int ?? 0, 65_536)
            if let bytes = try? volume.bytes(at: position, count: count) {
                if kept.isEmpty { kept = Array(bytes.prefix(512)) }
                _ = unsafe bytes.withUnsafeBytes {
                    unsafe pwrite(descriptor, $0.baseAddress, $0.count, off_t(truncatingIfNeeded: position.bytes))
                }
            }
            position += ByteCount(UInt64(count))
        }
    }

    /// Where a boot sector says that what libblkid also reads lies: the root directory of FAT (its label), the master
    /// file table of NTFS (without which it is not recognised).
    static func labels(_ boot: [UInt8]) -> [Extent] {
        let span = unsafe boot.span.bytes
        guard let sector = try? span.littleEndian(UInt16.self, "BytesPerSector", at: 11),
            let cluster = try? span.littleEndian(UInt8.self, "SectorsPerCluster", at: 13), sector >= 256, cluster > 0,
            let reserved = try? span.littleEndian(UInt16.self, "ReservedSectors", at: 14),
            let tables = try? span.littleEndian(UInt8.self, "NumberOfFATs", at: 16),
            let small = try? span.littleEndian(UInt16.self, "FATSz16", at: 22),
            let large = try? span.littleEndian(UInt32.self, "FATSz32", at: 36),
            let root = try? span.littleEndian(UInt32.self, "RootClus", at: 44),
            let mft = try? span.littleEndian(UInt64.self, "MftStartLcn", at: 48)
        else { return [] }
        func place(_ sectors: UInt64) -> Extent? {
            guard let start = ByteCount(UInt64(sector)).multiplied(by: sectors) else { return nil }
            return Extent(start: start, length: .kibibytes(64))
        }
        if span.matches("NTFS    ".utf8, at: 3) {
            // Values above 128 are powers of two, negated.
            let perCluster = cluster > 128 ? UInt64(1) << UInt64(min(255 - cluster + 1, 16)) : UInt64(cluster)
            let (sectors, overflow) = mft.multipliedReportingOverflow(by: perCluster)
            return overflow ? [] : [place(sectors)].compactMap { $0 }
        }
        let tableSectors = UInt64(small == 0 ? large : UInt32(small))
        let data = UInt64(reserved) + UInt64(tables) * tableSectors
        let inData = small == 0 && root >= 2 ? (UInt64(root) - 2) * UInt64(cluster) : 0
        return [place(data + inData)].compactMap { $0 }
    }
}
