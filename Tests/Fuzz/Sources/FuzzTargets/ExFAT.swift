// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel

@testable import FilesystemMaps

extension FuzzTarget {
    /// exFAT: boot regions, allocation table, root directory, bitmap.
    static let exfat = FuzzTarget(
        name: "exfat", longest: 40_000, seeds: ExFATSeeds.make, mend: ExFATSeeds.mend
    ) { input in
        let disk = SparseDisk(input, limit: .mebibytes(64))
        guard let map = try? ExFATReader.map(disk, Identity(kind: .exFAT, usage: .filesystem)) else { return }
        check(map, on: disk)
        guard map.wholeBecause == nil else { return }
        promise(map.used.covers(Extent(from: .zero, to: ByteCount(24 * 512))), "both boot regions are used")
        promise(map.states == [.clean] || map.states == [.damaged], "no other state has a map")
    }
}

/// Tiny volumes, made here byte by byte, so that they are always the same.
enum ExFATSeeds {
    /// Checksums of both boot regions.
    static func mend(_ input: inout [UInt8]) {
        var disk = SparseEditor(input)
        for backup in [false, true] {
            for size in [512, 1024, 2048, 4096] as [UInt64] {
                let place = backup ? 12 * size : 0
                let region = disk.bytes(place, Int(12 * size))
                guard region[3..<8].elementsEqual("EXFAT".utf8), 1 << UInt64(region[108] & 15) == size else { continue }
                disk.store(place + 11 * size, sums(region, Int(size)))
            }
        }
        input = disk.input
    }

    private static func sums(_ region: [UInt8], _ size: Int) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: size)
        let sum = ExFATBootSector.checksum(region[..<(11 * size)])
        for at in stride(from: 0, to: size, by: 4) { result.put(sum, at: at) }
        return result
    }

    /// A volume of 1 MiB with a bitmap in two pieces and some files' clusters.
    static func volume(sectorShift: UInt8, clusterShift: UInt8, flags: UInt16 = 0, backupOnly: Bool = false) -> [UInt8]
    {
        let sector = 1 << Int(sectorShift)
        let cluster = sector << Int(clusterShift)
        let length = 1 << 20
        let sectors = length / sector
        let tableStart = 24
        let clusters = (sectors - 64) >> Int(clusterShift)
        let tableSectors = ((clusters + 2) * 4 + sector - 1) / sector
        var disk = [UInt8](repeating: 0, count: length)
        var region = [UInt8](repeating: 0, count: 12 * sector)
        region.replaceSubrange(0..<11, with: [0xEB, 0x76, 0x90] + Array("EXFAT   ".utf8))
        region.put(UInt64(sectors), at: 72)
        for (offset, value) in [
            (80, tableStart), (84, tableSectors), (88, 64), (92, clusters), (96, 6), (100, 0x1234_5678),
        ] { region.put(UInt32(value), at: offset) }
        region.put(UInt16(0x100), at: 104)
        region.put(flags, at: 106)
        region[108] = sectorShift
        region[109] = clusterShift
        region[110] = 1
        for index in 0..<9 { region.put(UInt16(0xAA55), at: index * sector + sector - 2) }
        region.put(UInt16(0xAA55), at: 510)
        region.replaceSubrange((11 * sector)..., with: sums(region, sector))
        disk.replaceSubrange(12 * sector..<24 * sector, with: region)
        if backupOnly { region[3 * sector] ^= 1 }
        disk.replaceSubrange(0..<12 * sector, with: region)

        let need = (clusters + 7) / 8
        let bitmapClusters = (need + cluster - 1) / cluster
        // The bitmap begins with cluster 2 and goes on with 8 where it needs more; upper case in 4, the root in 6.
        let bitmap = [2] + (0..<bitmapClusters - 1).map { 8 + $0 }
        func entry(_ number: Int, _ value: UInt32) { disk.put(value, at: tableStart * sector + number * 4) }
        entry(0, 0xFFFF_FFF8)
        entry(1, 0xFFFF_FFFF)
        for (index, number) in bitmap.enumerated() {
            entry(number, index + 1 < bitmap.count ? UInt32(bitmap[index + 1]) : 0xFFFF_FFFF)
        }
        entry(4, 0xFFFF_FFFF)
        entry(6, 0xFFFF_FFFF)
        func place(_ number: Int) -> Int { 64 * sector + (number - 2) * cluster }
        var directory: [UInt8] = [0x83, 4] + Array("t\0i\0n\0y\0".utf8)
        directory += [UInt8](repeating: 0, count: 32 - directory.count)
        for (kind, first, count) in [(0x81, 2, need), (0x82, 4, 60)] as [(UInt8, UInt32, Int)] {
            var entry = [UInt8](repeating: 0, count: 32)
            entry[0] = kind
            entry.put(first, at: 20)
            entry.put(UInt64(count), at: 24)
            directory += entry
        }
        disk.replaceSubrange(place(6)..<place(6) + directory.count, with: directory)
        for number in bitmap + [4, 6, 20, 21, 22, 30] where number - 2 < clusters {
            let bit = number - 2
            disk[place(bitmap[bit / 8 / cluster]) + bit / 8 % cluster] |= 1 << UInt8(bit % 8)
        }
        return disk
    }

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        [
            ("plain", volume(sectorShift: 9, clusterShift: 3)), ("pieces", volume(sectorShift: 9, clusterShift: 0)),
            ("sectors-4096", volume(sectorShift: 12, clusterShift: 0)),
            ("dirty", volume(sectorShift: 9, clusterShift: 1, flags: 2)),
            ("backup", volume(sectorShift: 9, clusterShift: 1, backupOnly: true)),
        ].map { ($0, SparseDisk.input($1, length: UInt64($1.count), block: 64)) }
    }
}
