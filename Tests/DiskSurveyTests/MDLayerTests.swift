// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import FilesystemMaps
import Findings
import Geometry
import MachineModel
import Testing
import Tools
import VolumeStacks

@testable import DiskSurvey

/// Members of arrays, made from the layout of md's superblocks: making one with mdadm needs the kernel's driver. mdadm
/// examines what is made here.
struct MDMember {
    var version = "1.2"
    var level = 1
    var devices = 2
    var role = 0
    /// Sectors of 512 bytes.
    var size: UInt64 = 40 << 11
    var chunk: UInt32 = 0
    var events: UInt64 = 18
    var isClean = true
    var features: UInt32 = 1
    var spare = false
    var set: UInt8 = 0x5E

    /// Where the data lie.
    var dataOffset: UInt64 { version == "1.2" ? 2048 : version == "1.1" ? 1024 : 0 }

    /// Puts the superblock on `disk`.
    func write(to disk: ScratchDisk) throws {
        let sectors = disk.size.bytes / 512
        if version == "0.90" { return try writeZero(disk, sectors) }
        let place: UInt64 = version == "1.2" ? 8 : version == "1.1" ? 0 : (sectors - 16) & ~7
        let max = 128
        var bytes = [UInt8](repeating: 0, count: 256 + 2 * max)
        func put<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
            for index in 0..<T.bitWidth / 8 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> T(8 * index)) }
        }
        put(0xA92B_4EFC as UInt32, 0)
        put(1 as UInt32, 4)
        put(features, 8)
        for index in 0..<16 {
            bytes[16 + index] = set
            bytes[168 + index] = UInt8(0x10 + role) &+ set
        }
        bytes.replaceSubrange(32..<40, with: "host:arr".utf8)
        put(UInt64(1_700_000_000), 64)
        put(Int32(level), 72)
        put(size, 80)
        put(chunk / 512, 88)
        put(UInt32(devices), 92)
        // The bitmap, 8 sectors from the superblock.
        put(version == "1.0" ? UInt32(bitPattern: -16) : 8 as UInt32, 96)
        put(dataOffset, 128)
        put(version == "1.0" ? place - 128 : sectors - dataOffset, 136)
        put(place, 144)
        put(UInt32(role), 160)
        put(UInt64(1_700_000_000), 192)
        put(events, 200)
        put(isClean ? UInt64.max : 0, 208)
        put(UInt32(max), 220)
        for index in 0..<max { put(index < devices ? UInt16(index) : 0xFFFF, 256 + 2 * index) }
        if spare { put(0xFFFF as UInt16, 256 + 2 * role) }
        var sum: UInt64 = 0
        for offset in stride(from: 0, to: bytes.count, by: 4) {
            sum += (0..<4).reduce(UInt64(0)) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
        }
        put(UInt32(truncatingIfNeeded: (sum & 0xFFFF_FFFF) + (sum >> 32)), 216)
        try disk.poke(place * 512, bytes)
        // A bitmap that is all clean, with its own superblock (md(4)).
        if features & 1 != 0 {
            var bitmap = [UInt8](repeating: 0, count: 512)
            bitmap.replaceSubrange(0..<4, with: [0x62, 0x69, 0x74, 0x6D])
            bitmap[4] = 4
            for index in 8..<24 { bitmap[index] = set }
            // Chunks of 64 MiB.
            bitmap[55] = 4
            try disk.poke((version == "1.0" ? place - 16 : place + 8) * 512, bitmap)
        }
    }

    private func writeZero(_ disk: ScratchDisk, _ sectors: UInt64) throws {
        let place = (sectors & ~127) - 128
        var words = [UInt32](repeating: 0, count: 1024)
        words[0] = 0xA92B_4EFC
        words[2] = 90
        for index in [5, 13, 14, 15] { words[index] = UInt32(set) * 0x0101_0101 }
        words[6] = 1_700_000_000
        words[7] = UInt32(bitPattern: Int32(level))
        words[8] = UInt32(size / 2)
        words[9] = UInt32(devices)
        words[10] = UInt32(devices)
        words[11] = 3
        words[33] = isClean ? 1 : 0
        for index in 34...36 { words[index] = UInt32(devices) }
        words[36] = 0
        words[39] = UInt32(truncatingIfNeeded: events)
        words[65] = chunk
        for device in 0..<devices {
            words[128 + 32 * device] = UInt32(device)
            words[128 + 32 * device + 3] = UInt32(device)
            words[128 + 32 * device + 4] = 6
        }
        words.replaceSubrange(992..<992 + 32, with: words[128 + 32 * role..<128 + 32 * role + 32])
        let sum = words.reduce(UInt64(0)) { $0 + UInt64($1) }
        words[38] = UInt32(truncatingIfNeeded: (sum & 0xFFFF_FFFF) + (sum >> 32))
        try disk.poke(
            place * 512, words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } })
    }
}

@Suite(.enabled(if: haveTools && mdadm.path != nil, "e2fsprogs and mdadm are needed"))
struct MDLayerTests {
    /// Members of an array with `content` on each, as the level wants it.
    private func mirror(
        _ members: [MDMember], _ content: ScratchDisk, size: ByteCount = .mebibytes(48)
    ) throws -> [ScratchDisk] {
        try members.map { member in
            let disk = try ScratchDisk(size)
            try disk.copy(content.path, at: 0, content.size.bytes, to: member.dataOffset * 512)
            try member.write(to: disk)
            return disk
        }
    }

    private func look(_ disks: [ScratchDisk]) throws -> [SurveyedDisk] {
        try DiskSurvey.look(
            at: disks.enumerated().map { DiskToSurvey(try FileSource(path: $1.path), path: "disk\($0)") })
    }

    private func content(_ disk: ScratchDisk, _ member: MDMember) throws -> ScratchDisk {
        let result = try ScratchDisk(ByteCount(member.size * 512))
        try result.copy(disk.path, at: member.dataOffset * 512, member.size * 512, to: 0)
        return result
    }

    @Test(arguments: ["1.2", "1.1", "1.0", "0.90"])
    func bothMembersOfARAID1AreImagedByTheirUsedBlocks(version: String) throws {
        let folder = try ScratchFolder()
        let tree = try Content.tree(folder, mark: "md")
        let members = [0, 1].map { MDMember(version: version, role: $0) }
        let disks = try mirror(members, Content.ext4(.mebibytes(40), tree))
        for disk in disks {
            let judge = try mdadm.check(["--examine", disk.path]).standardOutput
            #expect(
                judge.contains(
                    version == "0.90" ? "Version : 0.90.00" : "Version : \(version == "1.0" ? "1.0" : version)"))
            #expect(judge.contains("Raid Level : raid1") && judge.contains("- correct"), "\(judge)")
        }
        let before = try disks.map { try $0.hash }
        let seen = try look(disks)
        #expect(seen.flatMap(\.model.findings).isEmpty, "\(seen.flatMap(\.model.findings))")
        let volume = try #require(seen[0].nested.values.first)
        #expect(volume.name == (version == "0.90" ? "md/3" : "md/arr"))
        #expect(volume.kind == .ext4 && volume.size == .mebibytes(40) && volume.states == [.clean])
        #expect(seen[0].model.volumes[0].memberOf?.format == "md raid1")
        for (index, disk) in disks.enumerated() {
            #expect(seen[index].volumes[0].map.wholeBecause == nil)
            #expect(seen[index].used.byteCount < .mebibytes(20))
            let copy = try disk.restored(seen[index].used)
            #expect(try Content.isWhole(content(copy, members[index]), tree, folder))
            let judge = try mdadm.check(["--examine", copy.path]).standardOutput.split(separator: "\n").dropFirst()
            #expect(
                judge == (try mdadm.check(["--examine", disk.path]).standardOutput.split(separator: "\n").dropFirst()))
            let outside = seen[index].used
            #expect(outside.covers(Extent(from: .mebibytes(46), to: .mebibytes(48))))
        }
        #expect(try disks.map { try $0.hash } == before)
    }

    @Test func oneMemberAloneIsMappedAndSaidToBeDegraded() throws {
        let content = try Content.ext4(.mebibytes(40))
        let seen = try look([try mirror([MDMember()], content)[0]])
        #expect(seen[0].volumes[0].map.wholeBecause == nil)
        #expect(seen[0].model.volumes[0].memberOf?.missing == 1)
        #expect(seen[0].model.findings.map(\.code) == ["md.degraded"])
    }

    @Test func aMemberThatDroppedOutIsWhole() throws {
        let content = try Content.ext4(.mebibytes(40))
        let disks = try mirror([MDMember(), MDMember(role: 1, events: 10)], content)
        let seen = try look(disks)
        #expect(seen[0].volumes[0].map.wholeBecause == nil)
        #expect(seen[1].volumes[0].map.wholeBecause?.contains("dropped out") == true)
        #expect(seen[1].used.byteCount == .mebibytes(48))
    }

    @Test(arguments: [5, 3, 257, 1 << 20] as [UInt32])
    func reshapesRebuildsAndUnknownFeaturesAreWhole(features: UInt32) throws {
        let content = try Content.ext4(.mebibytes(40))
        let disks = try mirror(
            [MDMember(features: features), MDMember(role: 1, features: features)], content)
        for disk in try look(disks) { #expect(disk.used.byteCount == .mebibytes(48)) }
    }

    @Test func aSpareAndACopiedMemberAreWhole() throws {
        let content = try Content.ext4(.mebibytes(40))
        let spare = try look(try mirror([MDMember(), MDMember(role: 1, spare: true)], content))
        #expect(spare[1].used.byteCount == .mebibytes(48))
        let twice = try look(try mirror([MDMember(), MDMember()], content))
        for disk in twice {
            #expect(disk.volumes[0].map.wholeBecause?.contains("more than once") == true)
        }
    }

    @Test func aRAID1ThatWasNotStoppedIsMappedOnlyWhereItsCopiesSayTheSame() throws {
        let folder = try ScratchFolder()
        let tree = try Content.tree(folder, mark: "md")
        let content = try Content.ext4(.mebibytes(40), tree)
        let members = [0, 1].map { MDMember(role: $0, isClean: false) }
        let disks = try mirror(members, content)
        let same = try look(disks)
        #expect(same[0].model.findings.map(\.code) == ["md.not-clean"])
        #expect(same.allSatisfy { $0.used.byteCount < .mebibytes(20) })
        // A superblock that differs in its time of mounting alone: both maps, united. One that is not clean: whole.
        try debugfs.check(["-w", "-R", "rm /file700001", content.path])
        _ = try e2fsck.run(["-f", "-y", content.path])
        try disks[1].copy(content.path, at: 0, 40 << 20, to: members[1].dataOffset * 512)
        let united = try look(disks)
        #expect(united[0].nested["md/arr"]?.wholeBecause == nil)
        #expect(united[1].used.byteCount > same[1].used.byteCount - .mebibytes(1))
        let copy = try disks[0].restored(united[0].used)
        #expect(try Content.isWhole(self.content(copy, members[0]), tree, folder))
        try debugfs.check(["-w", "-R", "ssv state 0", content.path])
        try disks[1].copy(content.path, at: 0, 40 << 20, to: members[1].dataOffset * 512)
        let whole = try look(disks)
        #expect(whole.allSatisfy { $0.used.byteCount == .mebibytes(48) })
    }

    @Test func aRAID0AndALinearArrayAreMapped() throws {
        let folder = try ScratchFolder()
        let tree = try Content.tree(folder, mark: "raid0")
        let content = try Content.ext4(.mebibytes(80), tree)
        for level in [0, -1] {
            let members = [0, 1].map { MDMember(level: level, role: $0, size: 0, chunk: 64 << 10, features: 0) }
            let disks = [try ScratchDisk(.mebibytes(41)), try ScratchDisk(.mebibytes(41))]
            for (index, member) in members.enumerated() {
                if level == 0 {
                    for chunk in 0..<UInt64(640) {
                        try disks[index].copy(
                            content.path, at: (2 * chunk + UInt64(index)) << 16, 65536, to: 1 << 20 + chunk << 16)
                    }
                } else {
                    try disks[index].copy(content.path, at: UInt64(index) * 40 << 20, 40 << 20, to: 1 << 20)
                }
                try member.write(to: disks[index])
                #expect(
                    try mdadm.check(["--examine", disks[index].path]).standardOutput
                        .contains("Raid Level : \(level == 0 ? "raid0" : "linear")"))
            }
            let seen = try look(disks)
            #expect(seen[0].nested["md/arr"]?.kind == .ext4)
            #expect(seen.allSatisfy { $0.used.byteCount < .mebibytes(14) })
            let copies = [try disks[0].restored(seen[0].used), try disks[1].restored(seen[1].used)]
            let back = try ScratchDisk(.mebibytes(80))
            for index in 0..<2 {
                if level == 0 {
                    for chunk in 0..<UInt64(640) {
                        try back.copy(
                            copies[index].path, at: 1 << 20 + chunk << 16, 65536, to: (2 * chunk + UInt64(index)) << 16)
                    }
                } else {
                    try back.copy(copies[index].path, at: 1 << 20, 40 << 20, to: UInt64(index) * 40 << 20)
                }
            }
            #expect(try Content.isWhole(back, tree, folder))
            // Half of it says nothing.
            #expect(try look([disks[0]])[0].used.byteCount == .mebibytes(41))
        }
    }

    @Test(arguments: [4, 5, 6, 10])
    func arraysWithParityAndRAID10AreWhole(level: Int) throws {
        let disks = [try ScratchDisk(.mebibytes(48)), try ScratchDisk(.mebibytes(48))]
        for index in 0..<2 {
            try MDMember(level: level, role: index, chunk: 64 << 10).write(to: disks[index])
        }
        let seen = try look(disks)
        #expect(seen[0].volumes[0].map.wholeBecause?.contains("raid\(level)") == true)
        #expect(seen.allSatisfy { $0.used.byteCount == .mebibytes(48) })
    }

    @Test func anArrayOfWholeDisksWithATableOfItsOwn() throws {
        let folder = try ScratchFolder()
        let tree = try Content.tree(folder, mark: "table")
        let inner = try ScratchDisk(.mebibytes(60))
        try inner.partition("label: gpt\n1 : start=2048, size=102400, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n")
        let content = try Content.ext4(.mebibytes(50), tree)
        try inner.copy(content.path, at: 0, 50 << 20, to: 1 << 20)
        let members = [0, 1].map { MDMember(version: "1.0", role: $0, size: 60 << 11) }
        let disks = try mirror(members, inner, size: .mebibytes(64))
        let seen = try look(disks)
        #expect(seen[0].model.table == nil)
        #expect(seen[0].nested["md/arr:1"]?.kind == .ext4)
        for (index, disk) in disks.enumerated() {
            #expect(seen[index].used.byteCount < .mebibytes(24))
            let copy = try disk.restored(seen[index].used)
            let part = try ScratchDisk(.mebibytes(50))
            try part.copy(copy.path, at: 1 << 20, 50 << 20, to: 0)
            #expect(try Content.isWhole(part, tree, folder))
        }
    }

    /// An array in an array in an array …, with a filesystem in the innermost.
    private func nested(_ layers: Int) throws -> ScratchDisk {
        var disk = try Content.ext4(.mebibytes(40))
        for layer in 0..<layers {
            let outer = try ScratchDisk(disk.size + .kibibytes(512))
            try outer.copy(disk.path, at: 0, disk.size.bytes, to: 512 << 10)
            try MDMember(
                version: "1.1", devices: 1, size: disk.size.bytes / 512, features: 0, set: UInt8(layer + 1)
            ).write(to: outer)
            disk = outer
        }
        return disk
    }

    @Test func layersAreFollowedEightDeepAndNoFurther() throws {
        let seven = try look([try nested(7)])[0]
        #expect(seven.volumes[0].map.wholeBecause == nil)
        #expect(seven.used.byteCount < .mebibytes(24))
        let disk = try nested(12)
        let twelve = try look([disk])[0]
        #expect(twelve.used.byteCount == disk.size)
        var depth = 0
        var next = twelve.volumes[0].layers.first
        while let volume = next {
            depth += 1
            next = volume.layers?.first
        }
        #expect(depth == 8)
    }
}
