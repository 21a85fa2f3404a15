// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import Testing
import Tools

@testable import PartitionTables

struct NoTableTests {
    @Test func aBlankDiskHasNone() throws {
        #expect(try TableReader.read(MemoryDisk([UInt8](repeating: 0, count: 1 << 20))) == TableReading(table: nil))
        #expect(try TableReader.read(MemoryDisk([UInt8](repeating: 0xFF, count: 1 << 20))).table == nil)
        #expect(try TableReader.read(MemoryDisk([UInt8](repeating: 0, count: 512))).table == nil)
    }

    @Test(arguments: [
        ("mkfs.fat", "dosfstools", ["-F", "12"], 1), ("mkfs.fat", "dosfstools", ["-F", "16"], 16),
        ("mkfs.fat", "dosfstools", ["-F", "32"], 64), ("mkfs.ntfs", "ntfs-3g", ["-F", "-Q", "-q"], 16),
        ("mkfs.exfat", "exfatprogs", [], 16), ("mke2fs", "e2fsprogs", ["-q", "-F"], 16),
    ])
    func aBareFilesystemHasNone(name: String, package: String, options: [String], mebibytes: UInt64) throws {
        let tool = Tool(name, package: package)
        guard tool.path != nil else { return }
        let file = try ScratchFile(.mebibytes(mebibytes))
        try tool.check(options + [file.path])
        #expect(try file.reading().table == nil)
        #expect(try file.reading().findings.isEmpty)
    }

    @Test func garbageInABootSectorsLastBytesIsNoTable() throws {
        let file = try ScratchFile(.mebibytes(16))
        let tool = Tool("mkfs.fat", package: "dosfstools")
        guard tool.path != nil else { return }
        try tool.check([file.path])
        // Boot code that happens to have possible boot indicators, and entries off the disk.
        try file.poke(446, MBRSlot(status: 0x80, type: 0x20, first: 0x7365_7250, sectors: 0x6b20_6120).bytes())
        #expect(try file.reading().table == nil)
    }

    @Test func anMBROverABootSectorLikeHeadIsStillATable() throws {
        guard sfdisk.path != nil else { return }
        let file = try partitioned("label: dos\n1 : start=2048, size=4096, type=83\n")
        let tool = Tool("mkfs.fat", package: "dosfstools")
        guard tool.path != nil else { return }
        let fat = try ScratchFile(.mebibytes(16))
        try tool.check([fat.path])
        try file.poke(0, try fat.bytes(0, 90))
        #expect(try file.reading().table?.partitions.count == 1)
    }

    @Test func aLoneBackupGPTIsMentionedOnly() throws {
        guard sfdisk.path != nil else { return }
        let file = try partitioned(gptScript)
        try file.poke(0, [UInt8](repeating: 0, count: 34 * 512))
        let reading = try file.reading()
        #expect(reading.table == nil)
        #expect(reading.findings.map(\.code) == ["gpt.only-backup"])
    }

    @Test func anEmptyMBRIsATableOnlyWithASignature() throws {
        guard sfdisk.path != nil else { return }
        let file = try partitioned("label: dos\n")
        #expect(try file.reading().table?.partitions == [])
        try file.poke(440, [0, 0, 0, 0])
        #expect(try file.reading().table == nil)
    }
}
