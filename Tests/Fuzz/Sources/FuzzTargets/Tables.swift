// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import Tools

@testable import PartitionTables

extension FuzzTarget {
    /// Partition tables of disks up to 32 TiB: read, laid out for other sizes, written again, read back.
    static let tables = FuzzTarget(
        name: "tables", longest: 40_000, seeds: TableSeeds.make, mend: TableSeeds.mend
    ) { input in
        let disk = SparseDisk(input, limit: ByteCount(1 << 45))
        guard let reading = try? TableReader.read(disk) else { return }
        keep(reading.findings.count)
        promise(reading.regions.end <= disk.length, "the table's own sectors lie on the disk")
        guard let table = reading.table else { return }
        for sectors in [table.diskSectors, table.diskSectors &* 2, 4000, 200] {
            guard let moved = try? TableLayout.relocated(table, toSectors: sectors) else { continue }
            check(moved)
            guard let next = moved.partitions.first else { continue }
            var partitions = moved.partitions
            partitions[0].first = LBA(next.first.value &+ 1)
            if let other = try? TableLayout.replacing(moved, partitions: partitions) { check(other) }
        }
        if let usable = TableLayout.usable(table, onSectors: 5000) {
            promise(usable.upperBound < 5000, "usable sectors")
        }
    }

    /// A table that can be written lies on its disk, and reads back as the same partitions.
    private static func check(_ table: PartitionTable) {
        guard let image = try? TableWriter.image(of: table) else { return }
        let size = UInt64(table.sectorSize.bytes)
        promise(image.extents.end.bytes <= table.diskSectors * size, "the written table lies on the disk")
        // Only small disks are worth a copy in memory.
        guard table.diskSectors * size <= 4 << 20 else { return }
        let disk = MemoryDisk(
            [UInt8](repeating: 0, count: Int(table.diskSectors * size)), sectorSize: table.sectorSize)
        promise((try? image.write(to: disk)) != nil, "the table can be written")
        let read = (try? TableReader.read(disk))?.table
        // A sector 0 without entries and without a disk signature is no table.
        if table.partitions.isEmpty { return }
        promise(
            read?.partitions.map(\.number) == table.partitions.map(\.number).sorted()
                && read.map { Set($0.partitions.map(\.first)) } == Set(table.partitions.map(\.first)),
            "a written table reads back: \(table.partitions) as \(read?.partitions ?? [])")
    }
}

enum TableSeeds {
    /// The checks of both copies of a GPT.
    static func mend(_ input: inout [UInt8]) {
        var disk = SparseEditor(input)
        let size = disk.sector
        guard disk.length >= size * 6 else { return }
        for lba in [1, disk.length / size - 1] {
            let place = lba &* size
            var header = disk.bytes(place, Int(size))
            guard header.starts(with: "EFI PART".utf8) else { continue }
            let entries = header.number(UInt64.self, at: 72).multipliedReportingOverflow(by: size)
            let count = UInt64(header.number(UInt32.self, at: 80)) * UInt64(header.number(UInt32.self, at: 84))
            if !entries.overflow, count <= 4 << 20 {
                header.put(CRC32.ieee.checksum(disk.bytes(entries.partialValue, Int(count))), at: 88)
            }
            header.put(UInt32(0), at: 16)
            let covered = min(Int(size), Int(header.number(UInt32.self, at: 12)))
            header.put(CRC32.ieee.checksum(Array(header[..<covered])), at: 16)
            disk.store(place, header)
        }
        input = disk.input
    }

    private static let scripts: [(name: String, script: String)] = [
        (
            "gpt",
            """
            label: gpt
            label-id: 11111111-2222-3333-4444-555555555555
            table-length: 8
            first-lba: 34
            1 : start=40, size=1000, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=AAAAAAAA-0000-4000-8000-000000000001, name="EFI"
            3 : start=2048, size=1000, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=AAAAAAAA-0000-4000-8000-000000000003, name="rööt", attrs="RequiredPartition GUID:60,63"

            """
        ),
        (
            "mbr",
            """
            label: dos
            label-id: 0x1badf00d
            1 : start=64, size=100, type=83, bootable
            2 : start=200, size=1800, type=5
            5 : start=300, size=100, type=83
            6 : start=500, size=100, type=8e
            7 : start=700, size=100, type=c

            """
        ),
    ]

    @Sendable static func make() throws -> [(name: String, bytes: [UInt8])] {
        var result: [(name: String, bytes: [UInt8])] = []
        for (name, script) in scripts {
            let image = try Scratch(bytes: 2 << 20)
            try image.run("sfdisk", "fdisk", ["--no-reread", "--no-tell-kernel", "-q", image.path], script)
            let bytes = try image.bytes()
            result.append((name, SparseDisk.input(bytes, length: UInt64(bytes.count))))
            // A hybrid: an entry beside the protective one.
            if name == "gpt" {
                var hybrid = bytes
                hybrid.replaceSubrange(
                    462..<478, with: [0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0xE8, 3, 0, 0])
                result.append(("gpt-hybrid", SparseDisk.input(hybrid, length: UInt64(bytes.count))))
                var broken = bytes
                broken.replaceSubrange(512..<520, with: [0, 0, 0, 0, 0, 0, 0, 0])
                result.append(("gpt-backup-only", SparseDisk.input(broken, length: UInt64(bytes.count))))
            }
        }
        // 4096-byte sectors: our own writer, since sfdisk asks the device.
        guard let type = GUID("0fc63daf-8483-4772-8e79-3d69d8477de4"), let own = GUID(bytes: Array(1...16)) else {
            return result
        }
        let table = PartitionTable(
            kind: .gpt, sectorSize: .s4096, diskSectors: 512,
            sector0: HexBytes([UInt8](repeating: 0, count: 4096)),
            gpt: GPTFacts(
                diskGUID: own, firstUsable: LBA(6), lastUsable: LBA(505), entryCount: 8, entrySize: 128,
                entriesAt: LBA(2)),
            partitions: [Partition(number: 1, first: LBA(8), sectors: 100, type: .gpt(type), guid: own, name: "4Kn")])
        let disk = MemoryDisk([UInt8](repeating: 0, count: 2 << 20), sectorSize: .s4096)
        try TableWriter.image(of: table).write(to: disk)
        result.append(("gpt-4kn", SparseDisk.input(disk.bytes, length: 2 << 20, sectorShift: 12)))
        return result
    }
}
