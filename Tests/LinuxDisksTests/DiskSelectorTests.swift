// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
@testable import LinuxDisks
import Testing

@Suite struct DiskSelectorTests {
    static let nothing: VolumeIdentity.Identifier = { _ in nil }

    @Test(arguments: [
        ("serial:S5ABC1", "/dev/sda"), ("serial:s5abc1", "/dev/sda"), ("wwn:0x5002538f00000001", "/dev/sda"),
        ("wwn:5002538F00000001", "/dev/sda"), ("wwn:eui.0025385b01400000", "/dev/nvme0n1"),
        ("size:2147483648", "/dev/nvme0n1"), ("size:2G", "/dev/nvme0n1"), ("/dev/vda", "/dev/vda"),
    ])
    func selectorFindsItsDisk(text: String, path: String) throws {
        let system = try FakeSystem.typical()
        let found = try DiskSelector.resolve(text, in: system.scan, identify: Self.nothing)
        #expect(found.path == path)
        #expect(found.isWholeDisk)
        #expect(found.disk?.path == path)
    }

    @Test func partitionPathNamesItsDisk() throws {
        let system = try FakeSystem.typical()
        let found = try DiskSelector.resolve("/dev/sda2", in: system.scan, identify: Self.nothing)
        #expect(found.path == "/dev/sda2")
        #expect(!found.isWholeDisk)
        #expect(found.disk?.name == "sda")
    }

    @Test func linksAreFollowed() throws {
        let system = try FakeSystem.typical()
        try system.write("dev/disk/by-id/.keep", "")
        try #require(system.link("dev/disk/by-id/nvme-x", to: "../../nvme0n1"))
        let found = try DiskSelector.resolve("/dev/disk/by-id/nvme-x", in: system.scan, identify: Self.nothing)
        #expect(found.disk?.name == "nvme0n1")
    }

    @Test func severalMatchesAreListed() throws {
        let fault = try #require(throws: Fault.self) {
            try DiskSelector.resolve("size:1G", in: FakeSystem.typical().scan, identify: Self.nothing)
        }
        #expect(fault.code == .ambiguousDisk)
        #expect(fault.remedy.contains("/dev/sda") && fault.remedy.contains("/dev/vda"))
        #expect(!fault.remedy.contains("nvme"))
    }

    @Test func noMatchListsTheDisks() throws {
        let fault = try #require(throws: Fault.self) {
            try DiskSelector.resolve("serial:NONE", in: FakeSystem.typical().scan, identify: Self.nothing)
        }
        #expect(fault.code == .missing)
        for path in ["/dev/sda", "/dev/nvme0n1", "/dev/vda", "/dev/sdb"] { #expect(fault.remedy.contains(path)) }
    }

    @Test func labelFindsTheDiskOfTheFilesystem() throws {
        let system = try FakeSystem.typical()
        let partition = "\(system.root)/dev/sda2"
        let identify: VolumeIdentity.Identifier = { path in
            path == partition ? VolumeIdentity(kind: "ext4", label: "ROOT", uuid: "AB-12") : nil
        }
        #expect(try DiskSelector.resolve("label:ROOT", in: system.scan, identify: identify).path == "/dev/sda")
        #expect(try DiskSelector.resolve("uuid:ab-12", in: system.scan, identify: identify).path == "/dev/sda")
        #expect(throws: Fault.self) { try DiskSelector.resolve("label:root", in: system.scan, identify: identify) }
    }

    /// The kernel may still show partitions of what a loop device or card reader held before.
    @Test func wholeDiskIsLookedAtWhenNoPartitionHoldsAnything() throws {
        let system = try FakeSystem.typical()
        let whole = system.root + "/dev/sda"
        let found = system.scan.volumes { $0 == whole ? VolumeIdentity(kind: "ext4", label: "NEW") : nil }
        #expect(found.map(\.path) == ["/dev/sda"])
        #expect(found.first?.disks == ["sda"])
    }

    @Test(arguments: ["", "serial:", "size:", "size:12X", "size:-1", "size:99999999999T", "wwn:", "label:", "uuid:"])
    func badSelectorsAreWrongUsage(text: String) throws {
        let fault = try #require(throws: Fault.self) { try DiskSelector(text) }
        #expect(fault.code == .usage)
        #expect(!fault.remedy.isEmpty)
    }

    @Test(arguments: [
        ("/dev/sda:2", "/dev/sda", 2), ("disk.img:1", "disk.img", 1), ("serial:X:3", "serial:X", 3),
    ])
    func partIsSplitOff(text: String, disk: String, number: Int) {
        #expect(DiskSelector.splitPart(text) == (disk, number))
    }

    @Test(arguments: ["/dev/sda", "size:1000", "serial:12", "disk.img:", "disk.img:0", ":1"])
    func wholeDiskHasNoPart(text: String) {
        #expect(DiskSelector.splitPart(text) == (text, nil))
    }

    @Test func onlySerialNameAndSizePinADisk() throws {
        for text in ["serial:A", "wwn:0x1", "size:5"] { #expect(try DiskSelector(text).isPinned) }
        for text in ["/dev/sda", "label:A", "uuid:A"] { #expect(try !DiskSelector(text).isPinned) }
    }
}
