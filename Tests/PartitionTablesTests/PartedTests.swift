// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import MachineModel
import Testing
import Tools

@testable import PartitionTables

@Suite(.enabled(if: sfdisk.path != nil, "fdisk is needed"))
struct PartedTests {
    @Test(arguments: [TableKind.gpt, .mbr])
    func libpartedAgreesWithWhatWeWrote(kind: TableKind) throws {
        let script = kind == .gpt ? gptScript : mbrScript
        let table = try TableLayout.relocated(
            try #require(try partitioned(script).reading().table), toSectors: 200 * 2048)
        let file = try ScratchFile(.mebibytes(200))
        try file.write(table)
        try Parted.requireAgreement(path: file.path, with: table)
        let seen = try Parted.read(path: file.path)
        #expect(seen.complaints.allSatisfy { $0.contains("translate partition name") })
        #expect(seen.kind == (table.kind == .gpt ? "gpt" : "msdos"))
        #expect(seen.entries.count == table.partitions.count)
    }

    @Test func libpartedCatchesAWrongTable() throws {
        let table = try #require(try partitioned(gptScript).reading().table)
        let file = try ScratchFile(.mebibytes(64))
        try file.write(table)
        func disagrees(_ change: (inout PartitionTable) -> Void) -> Bool {
            var other = table
            change(&other)
            do throws(Fault) {
                try Parted.requireAgreement(path: file.path, with: other)
                return false
            } catch {
                return error.code == .readBack
            }
        }
        #expect(disagrees { $0.partitions[0].sectors += 1 })
        #expect(disagrees { $0.partitions[0].name = "x" })
        #expect(disagrees { $0.partitions[0].number = 2 })
        #expect(disagrees { $0.partitions.removeLast() })
        #expect(!disagrees { _ in })
        // libparted's own complaint: the primary is broken.
        try file.poke(528, [0xFF])
        #expect(disagrees { _ in })
    }

    @Test func libpartedCatchesAWrongActiveFlagAndChain() throws {
        let table = try #require(try partitioned(mbrScript).reading().table)
        let file = try ScratchFile(.mebibytes(64))
        try file.write(table)
        var other = table
        other.partitions[0].attributes = 0
        #expect(throws: Fault.self) { try Parted.requireAgreement(path: file.path, with: other) }
        other = table
        other.partitions[3].first = LBA(14337)
        #expect(throws: Fault.self) { try Parted.requireAgreement(path: file.path, with: other) }
        try file.poke(446, MBRSlot(type: 0x83, first: 2048, sectors: 100).bytes())
        #expect(throws: Fault.self) { try Parted.requireAgreement(path: file.path, with: table) }
    }

    @Test func libpartedReads4096ByteSectors() throws {
        let table = PartitionTable(
            kind: .mbr, sectorSize: .s4096, diskSectors: 16384,
            sector0: HexBytes([UInt8](repeating: 0, count: 4096)),
            partitions: [Partition(number: 1, first: LBA(256), sectors: 1024, type: .mbr(0x83))])
        let file = try ScratchFile(.mebibytes(64))
        try file.write(table)
        try Parted.requireAgreement(path: file.path, with: table)
        #expect(try Parted.read(path: file.path, fileSectorSize: .s4096).sectorSize == 4096)
    }

    @Test func aDiskWithoutATableIsAFaultNotAQuestion() throws {
        let file = try ScratchFile(.mebibytes(4))
        let fault = #expect(throws: Fault.self) { try Parted.read(path: file.path) }
        #expect(fault?.what.contains("unrecognised disk label") == true)
        #expect(throws: Fault.self) { try Parted.read(path: "/nonexistent") }
    }

    @Test func aFileIsAlignedToOneMebibyte() throws {
        let file = try ScratchFile(.mebibytes(4))
        let alignment = try Parted.optimalAlignment(path: file.path)
        #expect(alignment.optimum == .mebibytes(1))
        #expect(alignment.offset == .zero)
        try Parted.commitToKernel(path: file.path)
    }

    @Test(.enabled(if: haveLoop, "loop devices are needed"))
    func theKernelIsToldOfPartitions() throws {
        let file = try partitioned(gptScript)
        try withLoop(file, sectorSize: 512) { device in
            try Parted.commitToKernel(path: device)
            let listed = try Tool("lsblk", package: "util-linux").check(["-nrbo", "NAME,SIZE", device]).standardOutput
            #expect(listed.contains("p3 \(20480 * 512)"))
        }
    }

    @Test(.enabled(if: parted.path != nil, "parted is needed"))
    func partedListsTheSamePartitions() throws {
        let table = try #require(try partitioned(gptScript).reading().table)
        let file = try ScratchFile(.mebibytes(300))
        try file.write(try TableLayout.relocated(table, toSectors: 300 * 2048))
        let listed = try parted.check(["-ms", file.path, "unit", "s", "print"])
        #expect(listed.standardOutput.contains("1:2048s:10239s:8192s::EFI System Partition:"))
        #expect(listed.standardOutput.contains("3:10240s:30719s:20480s:"))
        #expect(listed.standardError.split(separator: "\n").allSatisfy { $0.contains("translate partition name") })
    }
}
