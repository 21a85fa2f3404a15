// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Geometry

/// What kind of block device the kernel shows.
public enum BlockDeviceKind: String, Sendable, Codable {
    /// A disk, or a loop device with a file behind it.
    case disk
    /// A CD, DVD or Blu-ray drive.
    case optical
    /// A device made of others: device-mapper or RAID.
    case layered
    /// Memory, an empty loop device, a floppy drive, a hidden path: nothing to image or restore to.
    case other
}

/// A partition as the kernel shows it.
public struct AttachedPartition: Hashable, Sendable, Codable {
    /// The kernel's name, `sda1`.
    public var name: String
    /// Its node, `/dev/sda1`.
    public var path: String
    /// Its number in the table.
    public var number: Int
    /// First byte, counted from the disk's start.
    public var start: ByteCount
    /// Size in bytes.
    public var size: ByteCount
    /// Device number, `8:1`.
    public var device: String
    /// Whether the kernel refuses to write to it.
    public var isReadOnly: Bool
    /// Kernel names of devices made of it (`dm-0`, `md0`).
    public var holders: [String]
    /// Where it is mounted.
    public var mounts: [String]
    /// Whether the kernel swaps to it.
    public var isSwap: Bool
}

/// A disk as the kernel shows it.
public struct AttachedDisk: Hashable, Sendable, Codable {
    /// The kernel's name, `sda`.
    public var name: String
    /// Its node, `/dev/sda`.
    public var path: String
    /// What kind of device it is.
    public var kind: BlockDeviceKind
    /// The maker's name of it.
    public var model: String?
    /// Its serial number.
    public var serial: String?
    /// Its world wide name: `0x5000…`, `eui.…`, `nvme.…`, `uuid.…`.
    public var wwn: String?
    /// How it is attached: `nvme`, `sata`, `ide`, `scsi`, `sas`, `iscsi`, `virtio`, `virtio-scsi`, `usb`, `mmc`, `xen`,
    /// `hyperv`, `loop`, `nbd`, `md`, `dm`; `unknown` else.
    public var bus: String
    /// Size in bytes; 0 when no medium is in it.
    public var size: ByteCount
    /// Logical sector size.
    public var sectorSize: SectorSize
    /// Physical sector size in bytes, as the device claims.
    public var physicalSectorSize: ByteCount
    /// Device number, `8:0`.
    public var device: String
    /// Whether the kernel refuses to write to it.
    public var isReadOnly: Bool
    /// Whether its medium can be taken out.
    public var isRemovable: Bool
    /// The file behind a loop device.
    public var backingFile: String?
    /// Kernel names of the devices it is made of; only for layered devices.
    public var slaves: [String]
    /// Kernel names of devices made of the whole disk.
    public var holders: [String]
    /// Where the whole disk is mounted.
    public var mounts: [String]
    /// Whether the kernel swaps to the whole disk.
    public var isSwap: Bool
    /// Its partitions by number.
    public var partitions: [AttachedPartition]

    /// Everything that holds the disk or a part of it, one sentence fragment each; empty when it is free.
    public var uses: [String] {
        var result: [String] = []
        func add(_ path: String, _ mounts: [String], _ isSwap: Bool, _ holders: [String]) {
            result += mounts.map { "\(path) is mounted at \($0)" }
            if isSwap { result.append("\(path) is used as swap") }
            result += holders.map { "\(path) is held by \($0)" }
        }
        add(path, mounts, isSwap, holders)
        for part in partitions { add(part.path, part.mounts, part.isSwap, part.holders) }
        return result
    }

    /// One line for lists: path, size, bus, model, serial.
    public var summary: String {
        [path, size.description, bus, model, serial.map { "serial \($0)" }].compactMap { $0 }.joined(separator: ", ")
    }

    /// The node of partition `number`, whether or not it exists: a `p` stands between where the name ends in a digit.
    public func partitionPath(_ number: Int) -> String { path + (path.last?.isNumber == true ? "p" : "") + "\(number)" }
}
