// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import Testing
import Tools

@testable import PartitionTables

@Suite(.enabled(if: sfdisk.path != nil, "fdisk is needed"))
struct MBRTests {
    @Test func everythingSfdiskWroteIsRead() throws {
        let reading = try partitioned(mbrScript).reading()
        let table = try #require(reading.table)
        #expect(reading.findings.isEmpty)
        #expect(table.kind == .mbr)
        #expect(table.partitions.map(\.number) == [1, 2, 3, 5, 6, 7])
        #expect(table.partition(1)?.attributes == 0x80)
        #expect(table.partition(6)?.type == .mbr(0x8E))
        #expect(table.partition(6)?.first == LBA(20480))
        #expect(table.partition(6)?.sectors == 4096)
        #expect(table.partition(6)?.describedAt.map { $0 > LBA(12288) && $0 < LBA(20480) } == true)
        #expect(table.partition(3)?.isExtendedContainer == true)
        #expect(Array(table.sector0.bytes[440..<444]) == [0x0D, 0xF0, 0xAD, 0x1B])
        #expect(reading.regions.byteCount == ByteCount(4 * 512))
    }

    @Test(arguments: [64, 100] as [UInt64])
    func whatWeWriteOnABlankDiskIsTheSameTable(mebibytes: UInt64) throws {
        let original = try partitioned(mbrScript)
        let table = try TableLayout.relocated(
            try #require(try original.reading().table), toSectors: mebibytes * 2048)
        let copy = try ScratchFile(.mebibytes(mebibytes))
        try copy.write(table)
        #expect(try copy.reading().table == table)
        #expect(try copy.reading().findings.isEmpty)
        let verdict = try sfdisk.run(["--verify", copy.path])
        #expect(verdict.status == 0 && verdict.standardOutput.contains("No errors detected"))
        func dump(_ file: ScratchFile) throws -> [String] {
            try sfdisk.check(["-d", file.path]).standardOutput.split(separator: "\n")
                .filter { !$0.hasPrefix("device:") }.map { String($0).replacing(file.path, with: "") }
        }
        #expect(try dump(copy) == dump(original))
    }

    @Test func sectorZeroOfAnUnchangedTableKeepsEveryByte() throws {
        let file = try partitioned(mbrScript)
        try file.poke(0, (0..<440).map { UInt8(truncatingIfNeeded: $0 &* 3) })
        // CHS fields of an old geometry.
        try file.poke(446 + 1, [7, 7, 7])
        let before = try file.bytes(0, 512)
        let image = try TableWriter.image(of: try #require(try file.reading().table))
        #expect(image.batches.last?.first?.bytes == before)
    }

    @Test func extendedRecordsMatchSfdisks() throws {
        let file = try partitioned(mbrScript)
        for region in try TableWriter.image(of: try #require(try file.reading().table)).batches[0] {
            let theirs = try file.bytes(region.at.value * 512, 512)
            for index in 0..<2 {
                let mine = try MBRSlot(unsafe region.bytes.span.bytes, index: index)
                let other = try MBRSlot(unsafe theirs.span.bytes, index: index)
                // sfdisk's link covers the gap before the next record, ours what the record describes; both are in use.
                #expect(mine.first == other.first && mine.type == other.type)
                if index == 0 { #expect(mine.sectors == other.sectors) }
            }
        }
    }

    @Test func anEmptyExtendedPartitionIsWrittenAndRead() throws {
        let file = try partitioned("label: dos\n1 : start=2048, size=4096, type=5\n")
        let table = try #require(try file.reading().table)
        #expect(table.partitions.map(\.number) == [1])
        let copy = try ScratchFile(.mebibytes(64))
        try copy.write(table)
        #expect(try copy.reading().table == table)
    }

    @Test func aFirstRecordWithoutPartitionKeepsItsChain() throws {
        let file = try partitioned(mbrScript)
        try sfdisk.check(["--no-reread", "--no-tell-kernel", "--delete", file.path, "5"])
        let table = try #require(try file.reading().table)
        #expect(table.partitions.map(\.number) == [1, 2, 3, 5, 6])
        let copy = try ScratchFile(.mebibytes(64))
        try copy.write(table)
        #expect(try copy.reading().table == table)
        #expect(try sfdisk.run(["--verify", copy.path]).status == 0)
    }

    @Test func aChainThatLoopsEndsWithAFinding() throws {
        let file = try partitioned(mbrScript)
        let table = try #require(try file.reading().table)
        let second = try #require(table.partition(6)?.describedAt)
        // The second record links to itself.
        try file.poke(
            second.value * 512 + 462,
            MBRSlot(type: 5, first: UInt32(second.value - 12288), sectors: 100).bytes())
        let reading = try file.reading()
        #expect(reading.findings.map(\.code) == ["extended.loop"])
        #expect(reading.table?.partitions.map(\.number) == [1, 2, 3, 5, 6])
    }

    @Test func aLinkOutOfTheExtendedPartitionEndsWithAFinding() throws {
        let file = try partitioned(mbrScript)
        try file.poke(12288 * 512 + 462, MBRSlot(type: 5, first: 99_999, sectors: 100).bytes())
        #expect(try file.reading().findings.map(\.code) == ["extended.bad-link"])
    }

    @Test func aMissingRecordEndsWithAFinding() throws {
        let file = try partitioned(mbrScript)
        let second = try #require(try file.reading().table?.partition(6)?.describedAt)
        try file.poke(second.value * 512 + 510, [0, 0])
        let reading = try file.reading()
        #expect(reading.findings.map(\.code) == ["extended.no-record"])
        #expect(reading.table?.partitions.map(\.number) == [1, 2, 3, 5])
    }

    @Test func aChainIsBoundedAt128() throws {
        let disk = MemoryDisk([UInt8](repeating: 0, count: 4 << 20))
        func put(_ lba: UInt64, _ slots: [MBRSlot]) throws {
            var bytes = [UInt8](repeating: 0, count: 446)
            for slot in slots { bytes += slot.bytes() }
            bytes += [UInt8](repeating: 0, count: 510 - bytes.count) + [0x55, 0xAA]
            try disk.write(at: ByteCount(lba * 512), unsafe bytes.span.bytes)
        }
        try put(0, [MBRSlot(type: 0x0F, first: 8, sectors: 8000)])
        for index in 0..<200 as Range<UInt32> {
            try put(
                8 + UInt64(index) * 4,
                [MBRSlot(type: 0x83, first: 1, sectors: 2), MBRSlot(type: 5, first: (index + 1) * 4, sectors: 4)])
        }
        let reading = try TableReader.read(disk)
        #expect(reading.table?.partitions.count == 129)
        #expect(reading.findings.map(\.code) == ["extended.too-long"])
    }

    @Test func aLogicalPartitionPastItsContainerIsNoticed() throws {
        let file = try partitioned(mbrScript)
        try file.poke(12288 * 512 + 446, MBRSlot(type: 0x83, first: 2048, sectors: 60_000).bytes())
        let reading = try file.reading()
        #expect(reading.findings.map(\.code).contains("extended.outside"))
        #expect(reading.findings.map(\.code).contains("table.overlap"))
    }

    @Test func whatAnMBRCannotHoldIsRefused() throws {
        let table = try #require(try partitioned(mbrScript).reading().table)
        func code(_ change: (inout PartitionTable) -> Void) -> FaultCode? {
            var changed = table
            change(&changed)
            do throws(Fault) {
                _ = try TableWriter.image(of: changed)
                return nil
            } catch {
                return error.code
            }
        }
        #expect(code { _ in } == nil)
        #expect(code { $0.partitions[3].number = 9 } == .planRefused)
        #expect(code { $0.partitions[3].describedAt = nil } == .planRefused)
        #expect(code { $0.partitions[3].describedAt = LBA(4) } == .planRefused)
        #expect(code { $0.partitions[3].describedAt = LBA(21000) } == .planRefused)
        #expect(code { $0.partitions[3].describedAt = LBA(14400) } == .planRefused)
        #expect(code { $0.partitions[0].attributes = 7 } == .planRefused)
        #expect(code { $0.partitions[0].type = .gpt(.zero) } == .planRefused)
        #expect(code { $0.diskSectors = 30_000 } == .targetTooSmall)
        #expect(
            code {
                $0.diskSectors = 1 << 34
                $0.partitions[0].first = LBA(1 << 33)
            } == .planRefused)
    }

    @Test func chsFieldsAreRealBelowCylinder1024AndFEFFFFAbove() {
        #expect(MBRSlot.chs(0) == [0, 1, 0])
        #expect(MBRSlot.chs(2048) == [32, 33, 0])
        #expect(MBRSlot.chs(1023 * 255 * 63) == [0, 0xC1, 0xFF])
        #expect(MBRSlot.chs(1024 * 255 * 63 - 1) == [254, 0xFF, 0xFF])
        #expect(MBRSlot.chs(1024 * 255 * 63) == [0xFE, 0xFF, 0xFF])
        #expect(MBRSlot.chs(UInt64(UInt32.max)) == [0xFE, 0xFF, 0xFF])
    }
}
