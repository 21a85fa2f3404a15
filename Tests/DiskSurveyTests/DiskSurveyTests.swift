// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemMaps
import Findings
import Geometry
import Glibc
import MachineModel
import PartitionTables
import Testing
import Tools

@testable import DiskSurvey

let sfdisk = Tool("sfdisk", package: "fdisk")
let mke2fs = Tool("mke2fs", package: "e2fsprogs")
let mkfat = Tool("mkfs.fat", package: "dosfstools")
let mkswap = Tool("mkswap", package: "util-linux")
let haveTools = [sfdisk, mke2fs, mkfat, mkswap].allSatisfy { $0.path != nil }

let haveLoop = unsafe access("/dev/loop-control", W_OK) == 0 && geteuid() == 0

/// A disk image that goes away with the value.
final class ScratchDisk {
    let path: String
    let size: ByteCount

    init(_ size: ByteCount) throws {
        var template = Array("/tmp/relight-survey-XXXXXX.img".utf8CString)
        let descriptor = unsafe mkstemps(&template, 4)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        self.size = size
        guard descriptor >= 0, ftruncate(descriptor, off_t(size.bytes)) == 0 else {
            throw Fault(.system, what: "no scratch file", remedy: "")
        }
        close(descriptor)
    }

    deinit { unsafe unlink(path) }

    func partition(_ script: String) throws {
        try sfdisk.check(["--no-reread", "--no-tell-kernel", "-q", path], input: Array(script.utf8))
    }

    /// Puts what `tool` makes of a file of `size` at `offset` of the disk.
    func put(_ tool: Tool, _ options: [String], at offset: ByteCount, _ size: ByteCount) throws {
        let part = try ScratchDisk(size)
        try tool.check(options + [part.path])
        try Tool("dd", package: "coreutils").check([
            "if=\(part.path)", "of=\(path)", "bs=512", "seek=\(offset.bytes / 512)", "conv=notrunc,sparse",
            "status=none",
        ])
    }

    func poke(_ offset: UInt64, _ bytes: [UInt8]) throws {
        let disk = try WritableDisk(claiming: path)
        try disk.blocks.write(at: ByteCount(offset), unsafe bytes.span.bytes)
        try disk.finish()
    }

    func look(_ size: SectorSize = .s512) throws -> SurveyedDisk {
        try DiskSurvey.look(at: try FileSource(path: path, fileSectorSize: size))
    }
}

func mebibytes(_ start: UInt64, _ end: UInt64) -> Extent { Extent(from: .mebibytes(start), to: .mebibytes(end)) }

/// A usual Linux disk: BIOS boot area, ESP, root, swap, and free space behind.
func linuxDisk() throws -> ScratchDisk {
    let disk = try ScratchDisk(.mebibytes(200))
    try disk.partition(
        """
        label: gpt
        1 : start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
        2 : start=4096, size=69632, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
        3 : start=73728, size=131072, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
        5 : start=204800, size=32768, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F

        """)
    try disk.put(mkfat, ["-F", "32", "-n", "ESP"], at: .mebibytes(2), .mebibytes(34))
    try disk.put(mke2fs, ["-q", "-F", "-t", "ext4", "-L", "root"], at: .mebibytes(36), .mebibytes(64))
    try disk.put(mkswap, ["-q", "-L", "swap"], at: .mebibytes(100), .mebibytes(16))
    return disk
}

@Suite(.enabled(if: haveTools, "fdisk, e2fsprogs, dosfstools and util-linux are needed"))
struct DiskSurveyTests {
    @Test func aLinuxDiskIsSeenAsItIs() throws {
        let disk = try linuxDisk()
        let seen = try disk.look()
        #expect(seen.model.findings.isEmpty)
        #expect(seen.model.size == .mebibytes(200))
        #expect(seen.model.table?.kind == .gpt)
        #expect(seen.model.volumes.map(\.number) == [1, 2, 3, 5])
        #expect(seen.model.volumes.map(\.kind.rawValue) == ["empty", "vfat", "ext4", "swap"])
        #expect(seen.model.volumes.map(\.label) == [nil, "ESP", "root", "swap"])
        #expect(seen.model.volumes.map(\.states) == [[], [.clean], [.clean], [.clean]])
        #expect(seen.model.volumes.map { $0.wholeBecause == nil } == [false, true, true, true])
        #expect(seen.model.volumes[2].extent == mebibytes(36, 100))
        #expect(seen.volume(5)?.map.used.byteCount == ByteCount(4096))
        // The gap with sector 0 and the primary GPT, and the backup GPT at the end.
        #expect(
            seen.remainder
                == ExtentList([mebibytes(0, 1), Extent(from: ByteCount((200 << 20) - 33 * 512), to: .mebibytes(200))]))
    }

    @Test func theUsedMapOfTheDiskIsThatOfItsParts() throws {
        let seen = try linuxDisk().look()
        #expect(seen.used.covers(mebibytes(0, 2)))
        #expect(seen.used.contains(.mebibytes(36)))
        #expect(!seen.used.overlaps(mebibytes(116, 199)))
        #expect(
            seen.used.byteCount
                == seen.volumes.reduce(seen.remainder.byteCount) { $0 + $1.map.used.byteCount })
    }

    @Test func whatIsGivenOfTheDeviceIsTakenOver() throws {
        let disk = try ScratchDisk(.mebibytes(4))
        let seen = try DiskSurvey.look(
            at: try FileSource(path: disk.path), path: "/dev/sdx", model: "M", serial: "S", wwn: "W", bus: "sata")
        #expect(seen.model.path == "/dev/sdx")
        #expect(seen.model.serial == "S")
        #expect(seen.model.bus == "sata")
    }

    @Test func aDiskWithABrokenChainOfLogicalPartitionsIsImagedWhole() throws {
        let disk = try ScratchDisk(.mebibytes(120))
        try disk.partition(
            """
            label: dos
            1 : start=2048, size=40960, type=83
            2 : start=43008, size=200704, type=5
            5 : start=45056, size=40960, type=83
            6 : start=88064, size=40960, type=83

            """)
        #expect(try disk.look().volumes.map(\.model.number) == [1, 5, 6])
        // The second extended boot record lies somewhere between the two logical partitions: all of that is lost.
        try disk.poke(86_016 * 512, [UInt8](repeating: 0, count: 2048 * 512))
        let seen = try disk.look()
        #expect(seen.volumes.map(\.model.number) == [0])
        #expect(seen.volumes.first?.map.used == ExtentList(mebibytes(0, 120)))
    }

    @Test func anMBRDiskWithLogicalPartitions() throws {
        let disk = try ScratchDisk(.mebibytes(120))
        try disk.partition(
            """
            label: dos
            1 : start=2048, size=65536, type=83
            2 : start=67584, size=131072, type=5
            5 : start=69632, size=65536, type=83
            6 : start=137216, size=32768, type=82

            """)
        try disk.put(mke2fs, ["-q", "-F", "-t", "ext3"], at: .mebibytes(34), .mebibytes(32))
        let seen = try disk.look()
        #expect(seen.model.volumes.map(\.number) == [1, 5, 6])
        #expect(seen.volume(5)?.map.identity.kind == .ext3)
        #expect(seen.remainder.extents.count == 3)
        #expect(seen.remainder.covers(mebibytes(0, 1)))
        #expect(seen.remainder.contains(.mebibytes(33)))
        #expect(seen.remainder.byteCount == .mebibytes(1) + ByteCount(1024))
    }

    @Test func aDiskWithoutATableIsVolumeZero() throws {
        let disk = try ScratchDisk(.mebibytes(40))
        try mke2fs.check(["-q", "-F", "-t", "ext4", disk.path])
        let seen = try disk.look()
        #expect(seen.model.table == nil)
        #expect(seen.model.volumes.map(\.number) == [0])
        #expect(seen.model.volumes[0].kind == .ext4)
        #expect(seen.model.volumes[0].wholeBecause == nil)
        #expect(seen.remainder.isEmpty)
        #expect(seen.model.findings.isEmpty)
    }

    @Test func aBlankDiskIsOneEmptyVolume() throws {
        let seen = try ScratchDisk(.mebibytes(4)).look()
        #expect(seen.model.volumes.map(\.kind) == [.empty])
        #expect(seen.volume(0)?.map.used.byteCount == .mebibytes(4))
    }

    @Test func anEmptyTableOverAFilesystemDoesNotHideIt() throws {
        let disk = try ScratchDisk(.mebibytes(40))
        try mke2fs.check(["-q", "-F", "-t", "ext4", disk.path])
        try disk.poke(440, [1, 2, 3, 4])
        try disk.poke(510, [0x55, 0xAA])
        let seen = try disk.look()
        #expect(seen.model.volumes.map(\.kind) == [.ext4])
        #expect(seen.volume(0)?.map.used.byteCount == .mebibytes(40))
        #expect(seen.model.findings.map(\.code) == ["disk.imaged-whole"])
    }

    @Test func aBrokenTableIsImagedWholeAndSaid() throws {
        let disk = try linuxDisk()
        try disk.poke(1024, [0xFF])
        try disk.poke((200 << 20) - 500, [0xFF])
        let seen = try disk.look()
        #expect(seen.model.table == nil)
        #expect(seen.model.volumes.map(\.number) == [0])
        #expect(seen.model.volumes[0].used == .mebibytes(200))
        #expect(seen.model.findings.contains { $0.code == "disk.damaged" && $0.what.contains("Both copies") })
    }

    @Test func anUnreadableFirstSectorIsImagedWholeAndSaid() throws {
        let disk = try linuxDisk()
        let bad = Faulty(
            try FileSource(path: disk.path), bad: ExtentList(Extent(from: .zero, to: ByteCount(512))))
        let seen = try DiskSurvey.look(at: bad)
        #expect(seen.model.volumes.map(\.used) == [.mebibytes(200)])
        #expect(seen.model.findings.contains { $0.code == "source.unreadable" })
    }

    @Test func theWrongSectorSizeOfAnImageIsForTheUserToMend() throws {
        let file = try ScratchDisk(.mebibytes(64))
        let guid = try #require(try linuxDisk().look().model.table?.partitions.first?.guid)
        let table = PartitionTable(
            kind: .gpt, sectorSize: .s4096, diskSectors: 16384, sector0: HexBytes([UInt8](repeating: 0, count: 4096)),
            gpt: GPTFacts(diskGUID: guid, firstUsable: LBA(6), lastUsable: LBA(16378)),
            partitions: [Partition(number: 1, first: LBA(256), sectors: 4096, type: .gpt(guid), guid: guid)])
        let target = try WritableDisk(claiming: file.path, fileSectorSize: .s4096)
        try TableWriter.image(of: table).write(to: target.blocks)
        try target.finish()
        #expect(try file.look(.s4096).model.volumes.map(\.number) == [1])
        let fault = #expect(throws: Fault.self) { try file.look(.s512) }
        #expect(fault?.code == .wrongKind)
    }

    @Test func partitionsPastTheEndAreCutOrMissing() throws {
        let disk = try linuxDisk()
        let window = try Window(try FileSource(path: disk.path), mebibytes(0, 80), name: disk.path)
        let seen = try DiskSurvey.look(at: window)
        #expect(seen.model.volumes.map(\.number) == [1, 2, 3])
        #expect(seen.volume(3)?.extent == mebibytes(36, 80))
        #expect(seen.volume(3)?.map.used.byteCount == .mebibytes(44))
        #expect(seen.volume(3)?.map.states.contains(.damaged) == true)
        #expect(seen.model.findings.contains { $0.code == "partition.missing" && $0.place.hasSuffix(":5") })
        #expect(seen.model.findings.contains { $0.code == "gpt.disk-shrunk" })
        #expect(seen.used.end == .mebibytes(80))
    }

    @Test func aFarFirstPartitionKeepsOnly64MebibytesOfTheGap() throws {
        let disk = try ScratchDisk(.mebibytes(300))
        try disk.partition("label: gpt\n1 : start=409600, size=2048, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n")
        let seen = try disk.look()
        #expect(seen.remainder.byteCount == .mebibytes(64) + ByteCount(33 * 512))
    }

    @Test func aDynamicDiskIsImagedWhole() throws {
        let disk = try ScratchDisk(.mebibytes(64))
        try disk.partition("label: dos\n1 : start=63, size=100000, type=42\n")
        let seen = try disk.look()
        #expect(seen.volume(0)?.map.wholeBecause?.contains("dynamic disk") == true)
        #expect(seen.volume(0)?.map.used.byteCount == .mebibytes(64))
    }

    @Test func aFilesystemToReplayIsSaidWithItsPlace() throws {
        let disk = try linuxDisk()
        // s_state: errors; ext2 has no checksum over it.
        try disk.put(mke2fs, ["-q", "-F", "-t", "ext2", "-E", "nodiscard"], at: .mebibytes(36), .mebibytes(64))
        try disk.poke((36 << 20) + 1024 + 0x3A, [2])
        let seen = try disk.look()
        let finding = try #require(seen.model.findings.first { $0.code == "volume.imaged-whole" })
        #expect(finding.place == "\(disk.path):3")
        #expect(seen.volume(3)?.map.used.byteCount == .mebibytes(64))
    }

    @Test(.enabled(if: haveLoop, "loop devices are needed"))
    func aDeviceIsSeenLikeAFile() throws {
        let disk = try linuxDisk()
        let losetup = Tool("losetup", package: "mount")
        let device = try #require(
            try losetup.check(["--find", "--show", "--read-only", disk.path]).standardOutput.split(separator: "\n")
                .first
                .map(String.init))
        defer { _ = try? losetup.run(["--detach", device]) }
        let seen = try DiskSurvey.look(at: try FileSource(path: device))
        let expected = try disk.look()
        #expect(seen.volumes == expected.volumes)
        #expect(seen.remainder == expected.remainder)
        #expect(seen.model.table == expected.model.table)
    }

    @Test func lookingWritesNothing() throws {
        let disk = try linuxDisk()
        let hash = Tool("sha256sum", package: "coreutils")
        let before = try hash.check([disk.path]).standardOutput
        _ = try disk.look()
        #expect(try hash.check([disk.path]).standardOutput == before)
    }
}

extension ExtentList {
    fileprivate func overlaps(_ extent: Extent) -> Bool { !intersection(extent).isEmpty }
}
