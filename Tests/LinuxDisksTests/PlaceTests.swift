// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
@testable import LinuxDisks
import Geometry
import MachineModel
import Testing
import Tools

@Suite struct PlaceTests {
    @Test func pathLiesOnTheDiskOfItsMount() throws {
        let system = try FakeSystem.typical()
        try system.mounts([
            "22 1 8:2 / / rw - ext4 /dev/sda2 rw", "23 22 259:1 / /srv rw - ext4 /dev/nvme0n1p1 rw",
            "24 22 0:50 / /net rw - nfs server:/x rw",
        ])
        for folder in ["srv/sets", "net", "home"] { try system.write("\(folder)/x", "") }
        #expect(system.scan.disks(holding: "/srv/sets/new/deeper") == ["nvme0n1"])
        #expect(system.scan.disks(holding: "/home") == ["sda"])
        #expect(system.scan.disks(holding: "/net/x") == [])
        #expect(system.scan.disks(holding: "/dev/sda1") == ["sda"])
    }

    @Test func layersAreFollowedToTheDisks() throws {
        let system = try FakeSystem.typical()
        try system.disk("md0", at: "virtual/a", sectors: 800, number: "9:0")
        for slave in ["sda2", "vda"] { try system.write("sys/block/md0/slaves/\(slave)/x", "") }
        try system.disk("dm-0", at: "virtual/b", sectors: 800, number: "253:0")
        try system.write("sys/block/dm-0/slaves/md0/x", "")
        try system.mounts(["22 1 253:0 / /srv rw - xfs /dev/mapper/vg-sets rw"])
        try system.write("srv/x", "")
        #expect(system.scan.disks(holding: "/srv") == ["sda", "vda"])
        // The layers between are touched too.
        #expect(system.scan.devices(under: "dm-0") == ["dm-0", "md0", "sda2", "sda", "vda"])
    }

    @Test(.enabled(if: geteuid() == 0, "making a device node needs root"))
    func aNodeOfAnyNameIsKnownByItsNumber() throws {
        let scan = DiskScan()
        guard let disk = scan.devices.first(where: { $0.size > .zero }) else { return }
        let path = "/tmp/relight-node-\(getpid())"
        let number = disk.device.split(separator: ":").map(String.init)
        _ = try Tool("mknod", package: "coreutils").check([path, "b"] + number)
        defer { _ = unsafe unlink(path) }
        #expect(try DiskSelector.resolve(path, in: scan).disk?.name == disk.name)
    }

    @Test func layersInACircleEnd() throws {
        let system = try FakeSystem()
        try system.disk("dm-0", at: "virtual/a", sectors: 8, number: "253:0")
        try system.disk("dm-1", at: "virtual/b", sectors: 8, number: "253:1")
        try system.write("sys/block/dm-0/slaves/dm-1/x", "")
        try system.write("sys/block/dm-1/slaves/dm-0/x", "")
        #expect(system.scan.wholeDisks(under: "dm-0").isEmpty)
    }

    @Test func overlayLiesWhereItsUpperFolderLies() throws {
        let system = try FakeSystem.typical()
        try system.mounts([
            "22 1 0:30 / / rw - overlay overlay rw,lowerdir=/a,upperdir=/data/up,workdir=/data/w",
            "23 22 8:2 / /data rw - ext4 /dev/sda2 rw",
        ])
        try system.write("home/x", "")
        #expect(system.scan.disks(holding: "/home") == ["sda"])
    }

    @Test func loopDeviceLiesOnItselfAndOnItsFilesDisk() throws {
        let system = try FakeSystem.typical()
        try system.disk("loop0", at: "virtual/l", sectors: 80, number: "7:0", ["loop/backing_file": "/data/d.img"])
        try system.mounts(["23 22 8:2 / /data rw - ext4 /dev/sda2 rw"])
        try system.write("data/d.img", "")
        #expect(system.scan.wholeDisks(under: "loop0") == ["loop0", "sda"])
    }

    @Test func aRealTemporaryFolderIsAnswered() {
        // Which disks is the machine's business; that it ends and names only disks is ours.
        let scan = DiskScan()
        let names = Set(scan.devices.map(\.name))
        #expect(scan.disks(holding: "/tmp").isSubset(of: names))
    }

    @Test(arguments: [
        ("/srv/sets", StoreLocation.Name.path("/srv/sets")), ("sets", .path("sets")),
        ("label:BACKUPS/sets/web01", .label("BACKUPS", path: "sets/web01")),
        ("label:BACKUPS", .label("BACKUPS", path: "")),
        ("label:MY DISK//a/", .label("MY DISK", path: "a")), ("uuid:AB-1/x", .uuid("AB-1", path: "x")),
    ])
    func storeNamesAreTakenApart(text: String, name: StoreLocation.Name) throws {
        #expect(try StoreLocation.Name(text) == name)
    }

    @Test(arguments: ["", "label:", "label:/x", "label:A/../etc", "uuid:"])
    func badStoreNamesAreWrongUsage(text: String) throws {
        #expect(try #require(throws: Fault.self) { try StoreLocation.Name(text) }.code == .usage)
    }

    @Test func aPathIsOpenedAsItIs() throws {
        let system = try FakeSystem()
        let place = try StoreLocation.open("/srv/sets", in: system.scan, identify: { _ in nil })
        #expect(place.path == "/srv/sets")
        #expect(place.mountedDevice == nil)
    }

    @Test func unknownLabelListsWhatIsThere() throws {
        let system = try FakeSystem.typical()
        let partition = "\(system.root)/dev/sda1"
        let identify: VolumeIdentity.Identifier = { $0 == partition ? VolumeIdentity(kind: "vfat", label: "ESP") : nil }
        let fault = try #require(throws: Fault.self) {
            try StoreLocation.open("label:BACKUPS/x", in: system.scan, identify: identify)
        }
        #expect(fault.code == .storeMissing)
        #expect(fault.code.exit == .store)
        #expect(fault.remedy.contains("ESP"))
    }

    @Test(arguments: ["LABEL:A/x", "lable:A", "Uuid:1/x", "c:"])
    func aWordAndAColonAreNoPath(text: String) throws {
        let system = try FakeSystem()
        let fault = try #require(throws: Fault.self) {
            try StoreLocation.open(text, in: system.scan, identify: { _ in nil })
        }
        #expect(fault.code == .usage && fault.remedy.contains("./\(text)"))
    }

    @Test(arguments: ["./a:b", "/a:b", "a/b:c", "a b:c", ":a", "ä:b"])
    func otherColonsAreParts(path: String) throws {
        let system = try FakeSystem()
        #expect(try StoreLocation.open(path, in: system.scan, identify: { _ in nil }).path == path)
    }

    @Test func whatLiesInMemoryIsKnown() throws {
        let system = try FakeSystem.typical()
        try system.mounts([
            "1 1 0:1 / / rw - rootfs rootfs rw", "22 1 8:2 / /mnt/usb rw - ext4 /dev/sda2 rw",
            "23 22 0:40 / /mnt/usb/ram rw - tmpfs none rw",
            "24 1 0:41 / /over rw - overlay overlay rw,lowerdir=/a,upperdir=/mnt/usb/up,workdir=/w",
        ])
        for folder in ["mnt/usb/ram", "mnt/usb/up", "over", "home"] { try system.write("\(folder)/x", "") }
        for path in ["/home/sets", "/mnt", "/mnt/usb/ram/set"] { #expect(system.scan.isInMemory(path), "\(path)") }
        for path in ["/mnt/usb/set", "/over/set"] { #expect(!system.scan.isInMemory(path), "\(path)") }
    }

    @Test func aLabelSeenTwiceIsRefused() throws {
        let system = try FakeSystem.typical()
        let identify: VolumeIdentity.Identifier = { _ in VolumeIdentity(kind: "ext4", label: "BACKUPS") }
        let fault = try #require(throws: Fault.self) {
            try StoreLocation.open("label:BACKUPS", in: system.scan, identify: identify)
        }
        #expect(fault.code == .ambiguousDisk)
        #expect(fault.code.exit == .refused)
    }

    @Test func blkidExportIsRead() throws {
        let text = "DEVNAME=/dev/sda1\nLABEL=MY\\ DISK\nUUID=A\nVERSION=1.0\nTYPE=ext4\nUSAGE=filesystem\n"
        let identity = try #require(VolumeIdentity(export: text))
        #expect(identity == VolumeIdentity(kind: "ext4", label: "MY DISK", uuid: "A"))
        #expect(VolumeIdentity(export: "LABEL=X\n") == nil)
        #expect(VolumeIdentity(export: "") == nil)
    }

    @Test func factsComeFromFirmwareAndDMI() throws {
        let system = try FakeSystem()
        #expect(MachineProbe.firmware(system.files) == .bios)
        try system.write("sys/firmware/efi/x", "")
        try system.write("sys/class/dmi/id/sys_vendor", "Dell Inc.\n")
        try system.write("sys/class/dmi/id/product_name", "PowerEdge\n")
        try system.write("sys/class/dmi/id/product_serial", "ABC\n")
        let facts = MachineProbe.facts(version: "9", system.files)
        #expect(facts == MachineFacts(firmware: .uefi, product: "Dell Inc. PowerEdge", serial: "ABC", relight: "9"))
    }

    @Test func mediumIsKnownByItsVolumeDescriptor() throws {
        var sector = [UInt8](repeating: 0x20, count: 2048)
        sector.replaceSubrange(0..<6, with: [1] + Array("CD001".utf8))
        sector.replaceSubrange(40..<47, with: Array("RELIGHT".utf8))
        #expect(DiskScan.isMedium(sector))
        let system = try FakeSystem.typical()
        try system.write("dev/sdb", [UInt8](repeating: 0, count: 32_768) + sector)
        #expect(system.scan.bootMedia() == ["sdb"])
        sector[47] = UInt8(ascii: "2")
        #expect(!DiskScan.isMedium(sector))
        #expect(!DiskScan.isMedium(Array(sector[..<60])))
        #expect(!DiskScan.isMedium([]))
    }

    @Test func waitingForAPartitionEndsWithAFault() throws {
        let system = try FakeSystem.typical()
        #expect(try PartitionNodes.wait(disk: "sda", number: 2, seconds: 0.1, files: system.files) == "/dev/sda2")
        #expect(
            try PartitionNodes.wait(disk: "nvme0n1", number: 1, seconds: 0.1, files: system.files) == "/dev/nvme0n1p1")
        #expect(throws: Fault.self) {
            try PartitionNodes.wait(disk: "sda", number: 9, seconds: 0.1, files: system.files)
        }
    }

    @Test func noAccentHidesTheWayOut() throws {
        // The slash behind the dots and the accent behind it are one character.
        #expect(throws: Fault.self) { try StoreLocation.Name("label:BACKUPS/../\u{301}etc") }
        #expect(throws: Fault.self) { try StoreLocation.Name("uuid:12-34/a/../\u{301}") }
        #expect(try StoreLocation.Name("label:BACKUPS/\u{301}a//b") == .label("BACKUPS", path: "\u{301}a/b"))
    }
}
