// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemMaps
import Findings
import Geometry
import MachineModel
import Testing
import VolumeStacks

@testable import DiskSurvey

/// Dynamic disks, storage pools, RAIDs of firmware, and several paths to one disk: named, and imaged whole.
@Suite(.enabled(if: haveTools, "fdisk and e2fsprogs are needed"))
struct WindowsLayerTests {
    /// A private header as Windows writes it, with the fields that are read.
    private static func privateHeader() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 512)
        bytes.replaceSubrange(0..<8, with: "PRIVHEAD".utf8)
        bytes[13] = 2
        bytes[15] = 12
        bytes.replaceSubrange(0x30..<0x54, with: "6c92e5a4-2f5d-11dc-8b3a-0013d3f5e9d1".utf8)
        bytes.replaceSubrange(0xB0..<0xD4, with: "FE4C6A10-2F5D-11DC-8B3A-0013D3F5E9D1".utf8)
        bytes.replaceSubrange(0xF0..<0xF8, with: "Pc01Dg0 ".utf8)
        bytes[0x13A] = 0x80
        return bytes
    }

    @Test func aDynamicDiskIsNamedWithItsGroup() throws {
        let disk = try ScratchDisk(.mebibytes(64))
        try disk.partition("label: dos\nstart=63, size=128000, type=42\n")
        try disk.poke(64 << 20 - 512, Self.privateHeader())
        let seen = try disk.look()
        let volume = try #require(seen.model.volumes.first)
        #expect(volume.memberOf?.format == "Windows dynamic disk" && volume.memberOf?.name == "Pc01Dg0")
        #expect(volume.memberOf?.uuid == "fe4c6a10-2f5d-11dc-8b3a-0013d3f5e9d1")
        #expect(volume.wholeBecause?.contains("dynamic disk") == true && volume.used == .mebibytes(64))
        #expect(seen.model.findings.map(\.code) == ["disk.imaged-whole"])
        // Its table is lost: the header tells.
        try disk.poke(0, [UInt8](repeating: 0, count: 512))
        try disk.poke(1 << 20, [1])
        try disk.poke(6 * 512, [1])
        let lost = try disk.look()
        #expect(lost.model.volumes.first?.memberOf?.format == "Windows dynamic disk")
        #expect(lost.used.byteCount == .mebibytes(64))
        // Neither a table nor a header.
        try disk.poke(64 << 20 - 512, [0])
        #expect(try disk.look().model.volumes.first?.memberOf == nil)
    }

    @Test func anyPrivateHeaderIsBorne() throws {
        var state: UInt64 = 0x1234_5678
        func next(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(limit))
        }
        let blank = [UInt8](repeating: 0, count: 2 << 20 | 4096)
        var known = 0
        for _ in 0..<3000 {
            var bytes = blank
            var header = Self.privateHeader()
            for _ in 0..<next(4) { header[next(512)] = UInt8(next(256)) }
            bytes.replaceSubrange(6 * 512..<7 * 512, with: header)
            if try WindowsLayers.isDynamic(MemoryDisk(bytes)) { known += 1 }
        }
        #expect(known > 0 && known < 3000)
    }

    @Test func aDynamicDiskWithAGPTIsNamed() throws {
        let disk = try ScratchDisk(.mebibytes(64))
        try disk.partition(
            """
            label: gpt
            1 : start=2048, size=2048, type=5808C8AA-7E8F-42E0-85D2-E1E90434CFB3
            2 : start=4096, size=65536, type=AF9B60A0-1431-4F62-BC68-3311714A69AD

            """)
        let volume = try #require(try disk.look().model.volumes.first)
        #expect(volume.memberOf?.format == "Windows dynamic disk" && volume.used == .mebibytes(64))
    }

    @Test func aPoolOfStorageSpacesIsNamed() throws {
        let disk = try ScratchDisk(.mebibytes(64))
        try disk.partition("label: gpt\nstart=2048, size=65536, type=E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D\n")
        let seen = try disk.look()
        let volume = try #require(seen.model.volumes.first)
        #expect(volume.memberOf?.format == "Storage Spaces" && volume.memberOf?.isAssembled == false)
        #expect(volume.used == .mebibytes(32) && volume.wholeBecause?.contains("Storage Spaces") == true)
    }

    /// Intel's firmware puts its metadata at the end of the whole disk, which has a table for the RAID on it.
    @Test func aMemberOfAFirmwareRAIDIsNamedAndWhole() throws {
        let disk = try ScratchDisk(.mebibytes(64))
        try disk.put(mke2fs, ["-q", "-F", "-t", "ext4"], at: .mebibytes(1), .mebibytes(32))
        try disk.partition("label: gpt\nstart=2048, size=65536\n")
        try disk.poke(64 << 20 - 1024, Array("Intel Raid ISM Cfg Sig. 1.3.00".utf8))
        let volume = try #require(try disk.look().model.volumes.first)
        #expect(volume.number == 0 && volume.kind.rawValue == "isw_raid_member")
        #expect(volume.memberOf?.format == "Intel RST RAID" && volume.used == .mebibytes(64))
        #expect(volume.wholeBecause?.contains("firmware") == true, "\(volume.wholeBecause ?? "")")
    }

    @Test func disksThatCallThemselvesTheSameAreTold() throws {
        let disks = [try ScratchDisk(.mebibytes(4)), try ScratchDisk(.mebibytes(4)), try ScratchDisk(.mebibytes(4))]
        func look(_ facts: [(model: String?, serial: String?, wwn: String?)]) throws -> [[String]] {
            var given: [DiskToSurvey] = []
            for (index, fact) in facts.enumerated() {
                given.append(
                    DiskToSurvey(
                        try FileSource(path: disks[index].path), path: "disk\(index)", model: fact.model,
                        serial: fact.serial, wwn: fact.wwn))
            }
            return try DiskSurvey.look(at: given).map { $0.model.findings.map(\.code) }
        }
        #expect(
            try look([("M", "S", "0x5000"), ("M", "S2", "0x5000"), ("M", "S3", "0x5001")]) == [[], ["disk.twice"], []])
        #expect(try look([("M", "S", nil), ("M", "T", nil), ("M", "S", nil)]) == [[], [], ["disk.twice"]])
        #expect(try look([(nil, nil, nil), (nil, nil, nil), ("M", nil, "")]) == [[], [], []])
    }
}
