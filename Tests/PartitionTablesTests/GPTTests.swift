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

@Suite(.enabled(if: sgdisk.path != nil && sfdisk.path != nil, "gdisk and fdisk are needed"))
struct GPTTests {
    @Test func everythingSfdiskWroteIsRead() throws {
        let reading = try partitioned(gptScript).reading()
        let table = try #require(reading.table)
        #expect(reading.findings.isEmpty)
        #expect(table.kind == .gpt)
        #expect(table.diskSectors == 131_072)
        #expect(table.gpt?.diskGUID == GUID("11111111-2222-3333-4444-555555555555"))
        #expect(table.gpt?.entryCount == 128)
        #expect(table.partitions.map(\.number) == [1, 3, 4])
        let root = try #require(table.partition(3))
        #expect(root.first == LBA(10240))
        #expect(root.sectors == 20480)
        #expect(root.name == "rööt, Wörter bis sechsunddreißig Zei")
        #expect(root.guid == GUID("aaaaaaaa-0000-4000-8000-000000000003"))
        #expect(root.type == linux.map { .gpt($0) })
        #expect(root.attributes == 0x9000_0000_0000_0005 as UInt64)
        #expect(table.partition(1)?.type == esp.map { .gpt($0) })
        // Sector 0, header and 32 sectors of entries, and the same at the end.
        #expect(reading.regions.byteCount == ByteCount(512 * (34 + 33)))
    }

    @Test func whatWeWriteOnABlankDiskIsTheSameTable() throws {
        let table = try #require(try partitioned(gptScript).reading().table)
        let copy = try ScratchFile(.mebibytes(64))
        try copy.write(table)
        #expect(try sgdiskIsContent(copy.path))
        #expect(try sfdisk.run(["--verify", copy.path]).status == 0)
        #expect(try copy.reading() == TableReading(table: table, regions: copy.reading().regions))
        #expect(try copy.reading().findings.isEmpty)
    }

    @Test func sfdiskDumpsOriginalAndCopyAlike() throws {
        let original = try partitioned(gptScript)
        let copy = try ScratchFile(.mebibytes(64))
        try copy.write(try #require(try original.reading().table))
        func dump(_ file: ScratchFile) throws -> [String] {
            try sfdisk.check(["-d", file.path]).standardOutput.split(separator: "\n")
                .filter { !$0.hasPrefix("device:") }
                .map { String($0).replacing(file.path, with: "") }
        }
        let (ours, theirs) = (try dump(copy), try dump(original))
        #expect(ours == theirs)
    }

    @Test(arguments: [65, 100, 4096] as [UInt64])
    func onALargerDiskTheBackupMovesToItsEnd(mebibytes: UInt64) throws {
        let table = try #require(try partitioned(gptScript).reading().table)
        let size = ByteCount.mebibytes(mebibytes)
        let grown = try ScratchFile(size)
        let moved = try TableLayout.relocated(table, toSectors: size.bytes / 512)
        try grown.write(moved)
        #expect(try sgdiskIsContent(grown.path))
        let seen = try #require(try grown.reading().table)
        #expect(seen == moved)
        #expect(seen.partitions == table.partitions)
        #expect(seen.gpt?.lastUsable == LBA(size.bytes / 512 - 34))
        #expect(try grown.reading().findings.isEmpty)
    }

    @Test func aDiskThatGrewUnderItsTableIsNoticedAndWrittenRight() throws {
        let file = try partitioned(gptScript)
        let larger = try ScratchFile(.mebibytes(80))
        try larger.poke(0, try file.bytes(0, 64 << 20))
        let reading = try larger.reading()
        #expect(reading.findings.map(\.code) == ["gpt.disk-grown"])
        try larger.write(try #require(reading.table))
        #expect(try larger.reading().findings.isEmpty)
        #expect(try sgdiskIsContent(larger.path))
    }

    @Test func aSmallerDiskTakesTheTableAsLongAsPartitionsFit() throws {
        let table = try #require(try partitioned(gptScript).reading().table)
        let small = try ScratchFile(.mebibytes(16))
        try small.write(try TableLayout.relocated(table, toSectors: 32768))
        #expect(try sgdiskIsContent(small.path))
        let fault = #expect(throws: Fault.self) { try TableLayout.relocated(table, toSectors: 30740) }
        #expect(fault?.code == .targetTooSmall)
        #expect(fault?.what.contains("Partition 3") == true)
    }

    @Test func otherEntryCountsAndPlacesAreKept() throws {
        let file = try ScratchFile(.mebibytes(64))
        try sgdisk.check(["-S", "256", "-j", "100", "-n", "200:4096:+8M", file.path])
        let table = try #require(try file.reading().table)
        #expect(table.gpt?.entryCount == 256)
        #expect(table.gpt?.entriesAt == LBA(100))
        #expect(table.partitions.map(\.number) == [200])
        let copy = try ScratchFile(.mebibytes(70))
        try copy.write(try TableLayout.relocated(table, toSectors: 70 * 2048))
        #expect(try sgdiskIsContent(copy.path))
        #expect(try copy.reading().table?.gpt?.entriesAt == LBA(100))
        #expect(try copy.reading().table?.partitions == table.partitions)
    }

    @Test(arguments: [
        (528, "HeaderCRC32"), (512, "no GPT header"), (512 + 24, "HeaderCRC32"), (1024, "PartitionEntryArrayCRC32"),
    ])
    func aBrokenPrimaryIsNamedAndTheBackupUsed(offset: UInt64, reason: String) throws {
        let file = try partitioned(gptScript)
        let table = try file.reading().table
        try file.poke(offset, [0xFF, 0xEE])
        let reading = try file.reading()
        #expect(reading.table?.partitions == table?.partitions)
        #expect(reading.table?.gpt == table?.gpt)
        let finding = try #require(reading.findings.first { $0.code == "gpt.primary-damaged" })
        #expect(finding.what.contains(reason))
        #expect(finding.what.contains("LBA 131071"))
        // And written again it is whole.
        try file.write(try #require(reading.table))
        #expect(try sgdiskIsContent(file.path))
    }

    @Test func anUnreadablePrimaryIsNoReasonToGiveUp() throws {
        let file = try partitioned(gptScript)
        let bad = Faulty(
            try FileSource(path: file.path), bad: ExtentList(Extent(from: ByteCount(512), to: ByteCount(1024))))
        let reading = try TableReader.read(bad)
        #expect(reading.table?.partitions.count == 3)
        #expect(reading.findings.contains { $0.code == "gpt.primary-damaged" && $0.what.contains("cannot be read") })
    }

    @Test func aBrokenBackupIsNamed() throws {
        let file = try partitioned(gptScript)
        try file.poke((64 << 20) - 512 + 16, [0xFF])
        let finding = try #require(try file.reading().findings.first)
        #expect(finding.code == "gpt.backup-damaged")
        #expect(finding.what.contains("LBA 131071"))
    }

    @Test func withoutASoundCopyThereIsAFault() throws {
        let file = try partitioned(gptScript)
        try file.poke(1024, [0xFF])
        try file.poke((64 << 20) - 512 + 16, [0xFF])
        let fault = #expect(throws: Fault.self) { try file.reading() }
        #expect(fault?.code == .diskDamaged)
        #expect(fault?.what.contains("PartitionEntryArrayCRC32") == true)
    }

    @Test func aHybridMBRIsKept() throws {
        let file = try partitioned(gptScript)
        try sgdisk.check(["-h", "1:3", file.path])
        let reading = try file.reading()
        let table = try #require(reading.table)
        #expect(table.kind == .gpt)
        #expect(reading.findings.map(\.code) == ["gpt.hybrid"])
        let copy = try ScratchFile(.mebibytes(90))
        try copy.write(try TableLayout.relocated(table, toSectors: 90 * 2048))
        #expect(try copy.bytes(446, 66) == file.bytes(446, 66))
        #expect(try sgdiskIsContent(copy.path))
    }

    @Test func hybridEntriesFollowTheirPartitions() throws {
        let file = try partitioned(gptScript)
        try sgdisk.check(["-h", "1:3", file.path])
        let table = try #require(try file.reading().table)
        var partitions = table.partitions
        partitions[1].first = LBA(20480)
        partitions[1].sectors = 40960
        let moved = try TableLayout.replacing(table, partitions: partitions)
        let slots = try #require(MBRSector(moved.sector0.bytes)).slots
        #expect(slots.contains { $0.first == 20480 && $0.sectors == 40960 })
        #expect(slots.contains { $0.first == 2048 && $0.sectors == 8192 })
        #expect(!slots.contains { $0.first == 10240 })
    }

    @Test func bootCodeAndDiskSignatureAreKept() throws {
        let file = try partitioned(gptScript)
        let code = (0..<446).map { UInt8(truncatingIfNeeded: $0 &* 7 + 1) }
        try file.poke(0, code)
        let table = try #require(try file.reading().table)
        let grown = try ScratchFile(.mebibytes(99))
        try grown.write(try TableLayout.relocated(table, toSectors: 99 * 2048))
        #expect(try grown.bytes(0, 446) == code)
    }

    @Test func theProtectiveEntryCoversTheLargerDisk() throws {
        let file = try partitioned(gptScript)
        let table = try #require(try file.reading().table)
        let moved = try TableLayout.relocated(table, toSectors: 200_000)
        let slot = try #require(MBRSector(moved.sector0.bytes)).slots[0]
        #expect(slot == MBRSlot(type: 0xEE, first: 1, sectors: 199_999))
        let huge = try TableLayout.relocated(table, toSectors: 1 << 40)
        #expect(try #require(MBRSector(huge.sector0.bytes)).slots[0].sectors == UInt32.max)
    }

    @Test func aMissingProtectiveEntryIsNoticedAndWritten() throws {
        let file = try partitioned(gptScript)
        try file.poke(446, [UInt8](repeating: 0, count: 66))
        let reading = try file.reading()
        #expect(reading.findings.map(\.code) == ["gpt.not-protected"])
        try file.write(try #require(reading.table))
        #expect(try file.reading().findings.isEmpty)
        #expect(try sgdiskIsContent(file.path))
    }

    @Test func aStaleGPTBehindAnMBRIsOnlyMentioned() throws {
        let file = try partitioned(gptScript)
        try file.poke(446, MBRSlot(type: 0x83, first: 2048, sectors: 4096).bytes())
        let reading = try file.reading()
        #expect(reading.table?.kind == .mbr)
        #expect(reading.findings.map(\.code) == ["gpt.stale"])
    }

    @Test func copiesThatDifferAreNoticed() throws {
        let file = try partitioned(gptScript)
        var table = try #require(try file.reading().table)
        table.partitions[0].name = "other"
        for region in try TableWriter.image(of: table).batches[1] {
            try file.poke(region.at.value * 512, region.bytes)
        }
        #expect(try file.reading().findings.map(\.code) == ["gpt.copies-differ"])
        #expect(try file.reading().table?.partition(1)?.name == "other")
    }

    @Test func aTableForTheOtherSectorSizeIsNamed() throws {
        var table = try #require(try partitioned(gptScript).reading().table)
        let file = try ScratchFile(.mebibytes(64))
        table.sectorSize = .s4096
        table.diskSectors = 16384
        table.sector0 = HexBytes(table.sector0.bytes + [UInt8](repeating: 0, count: 3584))
        table.gpt?.lastUsable = LBA(16378)
        table.partitions = [
            Partition(number: 1, first: LBA(256), sectors: 1024, type: .gpt(.random()), guid: .random())
        ]
        try file.write(table)
        #expect(try file.reading(.s4096).table?.partitions == table.partitions)
        let fault = #expect(throws: Fault.self) { try file.reading(.s512) }
        #expect(fault?.code == .wrongKind)
        #expect(fault?.remedy.contains("--sector-size 4096") == true)
    }

    @Test(.enabled(if: haveLoop, "loop devices are needed"))
    func on4096ByteSectorsSgdiskIsContent() throws {
        let file = try ScratchFile(.mebibytes(64))
        try withLoop(file, sectorSize: 4096) { device in
            _ = try sgdisk.check(["-n", "1:256:+8M", "-c", "1:first", "-n", "2:0:0", device])
        }
        let reading = try file.reading(.s4096)
        let table = try #require(reading.table)
        #expect(reading.findings.isEmpty)
        let grown = try ScratchFile(.mebibytes(128))
        try grown.write(try TableLayout.relocated(table, toSectors: 32768))
        try withLoop(grown, sectorSize: 4096) { device in
            #expect(try sgdiskIsContent(device))
            try Parted.requireAgreement(path: device, with: try #require(try grown.reading(.s4096).table))
        }
    }

    @Test func overlapsAndPartitionsPastTheEndAreNoticed() throws {
        var table = try #require(try partitioned(gptScript).reading().table)
        table.partitions[1].first = LBA(8000)
        table.partitions[1].sectors = 200_000
        let codes = TableReader.complaints(about: table, name: "x").map(\.code)
        #expect(codes == ["table.past-end", "table.overlap"])
    }

    @Test func aTableThatCannotBeWrittenIsRefused() throws {
        let table = try #require(try partitioned(gptScript).reading().table)
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
        #expect(code { $0.partitions[0].number = 3 } == .planRefused)
        #expect(code { $0.partitions[0].number = 129 } == .planRefused)
        #expect(code { $0.partitions[0].number = 0 } == .planRefused)
        #expect(code { $0.partitions[0].first = LBA(33) } == .planRefused)
        #expect(code { $0.partitions[0].sectors = 0 } == .planRefused)
        #expect(code { $0.partitions[0].sectors = .max } == .planRefused)
        #expect(code { $0.partitions[0].sectors = 131_000 } == .targetTooSmall)
        #expect(code { $0.partitions[0].guid = nil } == .planRefused)
        #expect(code { $0.partitions[0].type = .mbr(0x83) } == .planRefused)
        #expect(code { $0.gpt = nil } == .planRefused)
        #expect(code { $0.gpt?.entrySize = 100 } == .planRefused)
        #expect(code { $0.gpt?.entryCount = .max } == .planRefused)
        #expect(code { $0.gpt?.entriesAt = LBA(.max) } == .planRefused)
        #expect(code { $0.diskSectors = 20 } == .targetTooSmall)
        #expect(code { $0.sector0 = HexBytes([]) } == .planRefused)
        #expect(code { $0.partitions[0].name = String(repeating: "x", count: 37) } == .planRefused)
    }

    @Test func sectorZeroIsCommittedLast() throws {
        let image = try TableWriter.image(of: try #require(try partitioned(gptScript).reading().table))
        #expect(
            image.batches.map { $0.map(\.what) } == [
                ["backup GPT entries", "backup GPT header"], ["primary GPT entries", "primary GPT header"],
                ["protective MBR"],
            ])
        #expect(image.extents == (try partitioned(gptScript).reading().regions))
    }

    @Test func aWriteThatDoesNotStickIsNoticed() throws {
        let file = try partitioned(gptScript)
        let image = try TableWriter.image(of: try #require(try file.reading().table))
        try image.verify(on: try FileSource(path: file.path))
        try file.poke(1030, [1])
        let fault = #expect(throws: Fault.self) { try image.verify(on: try FileSource(path: file.path)) }
        #expect(fault?.code == .readBack)
    }
}
