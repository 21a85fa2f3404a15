// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import LinuxDisks

/// A folder that looks like `/sys`, `/proc` and `/dev`, made by a test and removed with the value.
final class FakeSystem {
    let root: String
    var files: KernelFiles { KernelFiles(root: root) }
    var scan: DiskScan { DiskScan(files) }

    init() throws {
        root = FileManager.default.temporaryDirectory.path() + "/relight-fake-\(UInt64.random(in: 0 ... .max))"
        for folder in ["sys/block", "sys/devices", "proc/self", "dev"] {
            try FileManager.default.createDirectory(atPath: "\(root)/\(folder)", withIntermediateDirectories: true)
        }
    }

    deinit { try? FileManager.default.removeItem(atPath: root) }

    func write(_ path: String, _ text: String) throws { try write(path, Array(text.utf8)) }

    func write(_ path: String, _ bytes: [UInt8]) throws {
        let full = "\(root)/\(path)"
        let folder = full.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        guard FileManager.default.createFile(atPath: full, contents: Data(bytes)) else {
            throw CocoaError(.fileWriteUnknown)
        }
    }

    /// A disk at `place` below `sys/devices`, with a node, an entry in `sys/block`, and attributes.
    func disk(
        _ name: String, at place: String, sectors: UInt64, number: String, _ attributes: [String: String] = [:]
    ) throws {
        let folder = "sys/devices/\(place)/block/\(name)"
        try write("\(folder)/dev", number + "\n")
        try write("\(folder)/size", "\(sectors)\n")
        try write("\(folder)/ro", "0\n")
        try write("\(folder)/removable", "0\n")
        for (key, value) in attributes {
            // `device` is the folder above `block`, as the kernel's link of that name says.
            let isDevice = key.hasPrefix("device/")
            try write(
                isDevice ? "sys/devices/\(place)/\(key.dropFirst("device/".count))" : "\(folder)/\(key)", value + "\n")
        }
        try FileManager.default.createSymbolicLink(
            atPath: "\(root)/\(folder)/device", withDestinationPath: "../..")
        try FileManager.default.createSymbolicLink(
            atPath: "\(root)/sys/block/\(name)", withDestinationPath: "../../\(folder)")
        try write("dev/\(name)", "")
    }

    func partition(
        _ name: String, of disk: String, number: Int, start: UInt64, sectors: UInt64, device: String
    ) throws {
        let folder = "sys/block/\(disk)/\(name)"
        try write("\(folder)/partition", "\(number)\n")
        try write("\(folder)/start", "\(start)\n")
        try write("\(folder)/size", "\(sectors)\n")
        try write("\(folder)/dev", device + "\n")
        try write("\(folder)/ro", "0\n")
        try write("dev/\(name)", "")
    }

    func mounts(_ lines: [String]) throws {
        try write("proc/self/mountinfo", lines.joined(separator: "\n") + "\n")
    }
}

extension FakeSystem {
    static let ahci = "pci0000:00/0000:00:1f.2"

    /// A machine with a SATA disk (two partitions), an NVMe disk, a virtio disk and a USB stick.
    static func typical() throws -> FakeSystem {
        let system = try FakeSystem()
        try system.write("sys/devices/\(ahci)/class", "0x010601\n")
        try system.disk(
            "sda", at: "\(ahci)/ata1/host0/target0:0:0/0:0:0:0", sectors: 2048 * 1024, number: "8:0",
            [
                "device/model": "SAMSUNG SSD 870 ", "device/vendor": "ATA     ", "device/wwid": "naa.5002538f00000001",
                "queue/logical_block_size": "512", "queue/physical_block_size": "4096",
            ])
        try system.write(
            "sys/devices/\(ahci)/ata1/host0/target0:0:0/0:0:0:0/vpd_pg80",
            [0, 0x80, 0, 8] + Array("  S5ABC1".utf8))
        try system.partition("sda1", of: "sda", number: 1, start: 2048, sectors: 8192, device: "8:1")
        try system.partition("sda2", of: "sda", number: 2, start: 10_240, sectors: 100_000, device: "8:2")
        try system.disk(
            "nvme0n1", at: "pci0000:00/0000:00:04.0/nvme/nvme0", sectors: 4096 * 1024, number: "259:0",
            [
                "device/model": "QEMU NVMe Ctrl", "device/serial": "NV-1", "wwid": "eui.0025385b01400000",
                "queue/logical_block_size": "4096", "queue/physical_block_size": "4096",
            ])
        try system.partition("nvme0n1p1", of: "nvme0n1", number: 1, start: 2048, sectors: 4096, device: "259:1")
        try system.disk(
            "vda", at: "pci0000:00/0000:00:05.0/virtio2", sectors: 2048 * 1024, number: "254:0", ["serial": "VD1"])
        let usb = "pci0000:00/0000:00:14.0/usb2/2-1"
        try system.write("sys/devices/\(usb)/idVendor", "0781\n")
        try system.write("sys/devices/\(usb)/serial", "4C5300\n")
        try system.disk(
            "sdb", at: "\(usb)/2-1:1.0/host6/target6:0:0/6:0:0:0", sectors: 4_000_000, number: "8:16",
            ["device/model": "Ultra Fit", "device/vendor": "SanDisk", "removable": "1"])
        return system
    }
}

extension FakeSystem {
    func link(_ path: String, to target: String) -> Bool {
        (try? FileManager.default.createSymbolicLink(atPath: "\(root)/\(path)", withDestinationPath: target)) != nil
    }
}
