// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import ImageStore

@testable import LinuxDisks

extension FuzzTarget {
    /// What the kernel and `blkid` say of disks and mounts. The first byte says which.
    static let kernel = FuzzTarget(name: "kernel", longest: 4_000, isText: true, seeds: KernelSeeds.make) { input in
        guard let kind = input.first else { return }
        let bytes = Array(input.dropFirst())
        let text = String(decoding: bytes, as: UTF8.self)
        switch kind {
        case UInt8(ascii: "m"):
            for line in bytes.split(separator: UInt8(ascii: "\n")) {
                guard let entry = MountEntry(line: String(decoding: line, as: UTF8.self)) else { continue }
                keep(entry)
                keep(entry.isWritable)
                keep(entry.covers("/mnt/x"))
            }
        case UInt8(ascii: "b"):
            guard let identity = VolumeIdentity(export: text) else { return }
            keep(identity)
            keep(FilesystemDriver.drivers(for: identity.kind).count)
        case UInt8(ascii: "s"):
            if let serial = DiskIdentity.unitSerial(bytes) { promise(!serial.isEmpty, "a serial number is not empty") }
        case UInt8(ascii: "i"): keep(DiskScan.isMedium(bytes))
        default:
            if let clean = KernelFiles.clean(bytes) {
                promise(!clean.isEmpty && !clean.utf8.contains { $0 < 0x20 || $0 == 0x7F }, "clean text can be printed")
            }
            keep(KernelFiles.unescaped(text))
            if let number = DeviceNumber(text) {
                promise(DeviceNumber(number.description) == number, "a device's number")
            }
            let words = text.split(separator: " ").map(String.init)
            for (left, right) in zip(words, words.dropFirst()) {
                promise(
                    !(DiskScan.naturalOrder(left, right) && DiskScan.naturalOrder(right, left)),
                    "an order is one: \(left), \(right)")
            }
        }
    }

    /// How people name disks, places and points.
    static let names = FuzzTarget(name: "names", longest: 500, isText: true, seeds: KernelSeeds.names) { input in
        let text = String(decoding: input, as: UTF8.self)
        if let selector = try? DiskSelector(text) {
            promise(
                (try? DiskSelector(selector.description)) == selector, "a disk's name is printed as it is read: \(text)"
            )
        }
        let part = DiskSelector.splitPart(text)
        promise(part.number.map { $0 > 0 } ?? (part.disk == text), "a part's number counts from 1")
        if let place = try? StoreLocation.Name(text) {
            keep(place)
            if case .label(_, let path) = place { promise(!path.hasPrefix("/"), "a path on a volume: \(path)") }
            if case .uuid(_, let path) = place { promise(!path.hasPrefix("/"), "a path on a volume: \(path)") }
        }
        if let location = try? SetLocation(text) {
            promise(!location.set.isEmpty && !location.point.isEmpty, "set and point are named")
            promise(
                (try? SetLocation("\(location.set)@\(location.point)")) == location,
                "a set's name is written as it is read")
        }
    }
}

enum KernelSeeds {
    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        let texts = [
            (
                "mountinfo", "m",
                "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n"
                    + "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - vfat /dev/disk\\134x ro\n"
                    + "40 22 0:30 / /proc rw - proc proc rw\n"
            ),
            (
                "blkid", "b",
                "DEVNAME=/dev/sda1\nLABEL=my\\ disk\nUUID=12-34\nBLOCK_SIZE=512\nTYPE=vfat\nUSAGE=filesystem\n"
            ),
            ("text", "t", "sda sda10 sdb2 nvme0n1 8:1 98:0 \\040 WD-123 "),
        ]
        var descriptor = [UInt8](repeating: 0x20, count: 80)
        descriptor.replaceSubrange(0..<7, with: [1] + Array("CD001".utf8) + [1])
        descriptor.replaceSubrange(40..<47, with: "RELIGHT".utf8)
        return texts.map { ($0.0, Array($0.1.utf8) + Array($0.2.utf8)) } + [
            ("serial-page", Array("s".utf8) + [0, 0x80, 0, 8] + Array("  WD1234".utf8)),
            ("medium", Array("i".utf8) + descriptor),
        ]
    }

    @Sendable static func names() -> [(name: String, bytes: [UInt8])] {
        [
            ("serial", "serial:WD-1"), ("wwn", "wwn:naa.5000"), ("size", "size:500G"),
            ("size-bytes", "size:500107862016"),
            ("label", "label:BACKUPS/sets/web01@3f2a"), ("uuid", "uuid:12-34/a"), ("part", "/dev/sda:2"),
            ("point", "/mnt/usb/a@b/set@latest"),
        ].map { ($0.0, Array($0.1.utf8)) }
    }
}
