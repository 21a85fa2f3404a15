// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry
@testable import LinuxDisks
import TestSupport
import Testing

@Suite struct DiskScanTests {
    @Test func disksComeInNaturalOrder() throws {
        let system = try FakeSystem()
        for (index, name) in ["sdaa", "sdb", "sda", "nvme10n1", "nvme2n1", "sdz"].enumerated() {
            try system.disk(name, at: "virtual/\(index)", sectors: 8, number: "8:\(index * 16)")
        }
        #expect(system.scan.disks.map(\.name) == ["nvme2n1", "nvme10n1", "sda", "sdb", "sdz", "sdaa"])
    }

    @Test func sataDiskTellsModelSerialNameAndSizes() throws {
        let system = try FakeSystem.typical()
        let disk = try #require(system.scan.device(named: "sda"))
        #expect(disk.model == "SAMSUNG SSD 870")
        #expect(disk.serial == "S5ABC1")
        #expect(disk.wwn == "0x5002538f00000001")
        #expect(disk.bus == "sata")
        #expect(disk.size == .gibibytes(1))
        #expect(disk.sectorSize == .s512)
        #expect(disk.physicalSectorSize == ByteCount(4096))
        #expect(disk.partitions.map(\.path) == ["/dev/sda1", "/dev/sda2"])
        #expect(disk.partitions.map(\.start.bytes) == [1 << 20, 5 << 20])
        #expect(disk.partitionPath(3) == "/dev/sda3")
        #expect(disk.uses.isEmpty)
    }

    @Test func nvmeDiskTellsControllerSerialAndPartitionNames() throws {
        let disk = try #require(try FakeSystem.typical().scan.device(named: "nvme0n1"))
        #expect(disk.bus == "nvme")
        #expect(disk.serial == "NV-1")
        #expect(disk.wwn == "eui.0025385b01400000")
        #expect(disk.sectorSize == .s4096)
        #expect(disk.partitionPath(2) == "/dev/nvme0n1p2")
        #expect(disk.partitions.map(\.number) == [1])
    }

    @Test func virtioAndUSBDisksTellTheirSerials() throws {
        let scan = try FakeSystem.typical().scan
        #expect(scan.device(named: "vda")?.serial == "VD1")
        #expect(scan.device(named: "vda")?.bus == "virtio")
        #expect(scan.device(named: "sdb")?.serial == "4C5300")
        #expect(scan.device(named: "sdb")?.bus == "usb")
        #expect(scan.device(named: "sdb")?.model == "SanDisk Ultra Fit")
        #expect(scan.device(named: "sdb")?.isRemovable == true)
    }

    @Test func controllerClassTellsIDEFromAHCI() throws {
        let system = try FakeSystem()
        try system.write("sys/devices/pci0000:00/0000:00:01.1/class", "0x010180\n")
        try system.disk(
            "sda", at: "pci0000:00/0000:00:01.1/ata1/host0/target0:0:0/0:0:0:0", sectors: 8, number: "8:0",
            ["device/wwid": "t10.ATA     QEMU HARDDISK                           OLD1 "])
        let disk = try #require(system.scan.device(named: "sda"))
        #expect(disk.bus == "ide")
        #expect(disk.serial == "OLD1")
    }

    @Test(arguments: [
        ("ram0", BlockDeviceKind.other), ("zram0", .other), ("loop3", .other), ("sr0", .optical), ("fd0", .other),
        ("dm-0", .layered), ("md127", .layered), ("mmcblk0", .disk), ("mmcblk0boot0", .other), ("sdc", .disk),
    ])
    func kindFollowsName(name: String, kind: BlockDeviceKind) throws {
        let system = try FakeSystem()
        try system.disk(name, at: "virtual/x", sectors: 4096, number: "7:0")
        #expect(system.scan.devices.map(\.kind) == [kind])
    }

    @Test func loopDeviceWithAFileIsADisk() throws {
        let system = try FakeSystem()
        try system.disk(
            "loop0", at: "virtual", sectors: 4096, number: "7:0", ["loop/backing_file": "/srv/disk.img"])
        #expect(system.scan.disks.first?.backingFile == "/srv/disk.img")
    }

    @Test func cardReaderWithoutCardIsNoDisk() throws {
        let system = try FakeSystem()
        try system.disk("sdc", at: "virtual/x", sectors: 0, number: "8:32")
        #expect(system.scan.disks.isEmpty)
    }

    @Test func mountsSwapsAndHoldersAreUses() throws {
        let system = try FakeSystem.typical()
        try system.mounts([
            "22 1 8:1 / /boot rw,relatime shared:1 - ext4 /dev/sda1 rw",
            "23 1 0:44 /@ /srv/my\\040data rw - btrfs /dev/nvme0n1p1 rw,subvol=/@",
        ])
        try system.write("proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n")
        try system.write("sys/block/vda/holders/md0/x", "")
        let scan = system.scan
        #expect(scan.device(named: "sda")?.uses == ["/dev/sda1 is mounted at /boot", "/dev/sda2 is used as swap"])
        #expect(scan.device(named: "nvme0n1")?.uses == ["/dev/nvme0n1p1 is mounted at /srv/my data"])
        #expect(scan.device(named: "vda")?.uses == ["/dev/vda is held by md0"])
        #expect(scan.device(named: "sdb")?.uses == [])
    }

    @Test func everyMemberOfAMountedBtrfsIsInUse() throws {
        let system = try FakeSystem.typical()
        try system.mounts(["23 1 0:44 / /srv rw - btrfs /dev/nvme0n1p1 rw"])
        for member in ["nvme0n1p1", "sda2"] { try system.write("sys/fs/btrfs/some-uuid/devices/\(member)/size", "1\n") }
        #expect(system.scan.device(named: "sda")?.uses == ["/dev/sda2 is mounted at /srv"])
    }

    @Test func hostileAttributesNeverTrap() throws {
        let hostile = [
            "", "-1", "18446744073709551615", "99999999999999999999999", "\u{1B}[2J\u{7}evil", "8:", ":", "a:b", "0x10",
            "4294967296:0", String(repeating: "9", count: 5000),
        ]
        for text in hostile {
            let system = try FakeSystem()
            try system.disk(
                "sda", at: "x/ata1", sectors: 8, number: "8:0",
                [
                    "device/model": text, "serial": text, "device/wwid": text, "queue/logical_block_size": text,
                    "queue/physical_block_size": text,
                ])
            try system.write("sys/block/sda/size", text)
            try system.write("sys/block/sda/device/vpd_pg80", [0, 0x80, 0xFF, 0xFF] + Array(text.utf8))
            try system.partition("sda1", of: "sda", number: 1, start: 8, sectors: 8, device: "8:1")
            for file in ["partition", "start", "size", "dev"] { try system.write("sys/block/sda/sda1/\(file)", text) }
            let device = system.scan.device(named: "sda")
            #expect(device?.model?.unicodeScalars.contains { $0.value < 0x20 } != true)
            #expect(device?.sectorSize == .s512)
        }
    }

    @Test func truncatedSerialPageIsRefused() {
        #expect(DiskIdentity.unitSerial([]) == nil)
        #expect(DiskIdentity.unitSerial([0, 0x80, 0]) == nil)
        #expect(DiskIdentity.unitSerial([0, 0x80, 0, 5, 65, 66]) == nil)
        #expect(DiskIdentity.unitSerial([0, 0x83, 0, 1, 65]) == nil)
        #expect(DiskIdentity.unitSerial([0, 0x80, 0, 2, 65, 66, 67]) == "AB")
    }

    @Test func mutatedMountTablesNeverTrap() throws {
        let line = Array("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue".utf8)
        #expect(MountEntry(line: String(decoding: line, as: UTF8.self))?.point == "/mnt 2")
        var random = Seeded(7)
        for _ in 0..<20_000 {
            var mutated = line
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                switch Int.random(in: 0..<3, using: &random) {
                case 0 where !mutated.isEmpty:
                    mutated[Int.random(in: 0..<mutated.count, using: &random)] = UInt8.random(
                        in: 0...255, using: &random)
                case 1 where !mutated.isEmpty: mutated.remove(at: Int.random(in: 0..<mutated.count, using: &random))
                default: mutated.append(UInt8.random(in: 0...255, using: &random))
                }
            }
            _ = MountEntry(line: String(decoding: mutated, as: UTF8.self))
        }
    }
}
