// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry

/// The block devices of the machine at one moment, and questions about them.
public struct DiskScan: Sendable {
    /// Where it was read from.
    public let files: KernelFiles
    /// Every block device that is not a partition, by name in natural order.
    public let devices: [AttachedDisk]
    /// The mounts at that moment.
    public let mounts: [MountEntry]

    /// Looks at the machine now.
    public init(_ files: KernelFiles = .live) {
        self.files = files
        let mounts = files.mounts()
        self.mounts = mounts
        let inUse = UseTable(files: files, mounts: mounts)
        devices = files.names("/sys/block").sorted(by: DiskScan.naturalOrder)
            .compactMap { DiskScan.device($0, files, inUse) }
    }

    /// Disks that can be imaged or restored to.
    public var disks: [AttachedDisk] { devices.filter { $0.kind == .disk } }
    /// CD, DVD and Blu-ray drives.
    public var opticalDrives: [AttachedDisk] { devices.filter { $0.kind == .optical } }
    /// Device-mapper and RAID devices.
    public var layered: [AttachedDisk] { devices.filter { $0.kind == .layered } }

    /// The device with this kernel name.
    public func device(named name: String) -> AttachedDisk? { devices.first { $0.name == name } }

    /// `sda` before `sdb` before `sdaa`; `nvme2n1` before `nvme10n1`.
    static func naturalOrder(_ left: String, _ right: String) -> Bool {
        func key(_ name: String) -> [(Int, String)] {
            var parts: [(Int, String)] = []
            for character in name {
                if character.isASCII, character.isNumber, let last = parts.last, last.0 == 1 {
                    parts[parts.count - 1].1.append(character)
                } else if character.isASCII, character.isNumber {
                    parts.append((1, String(character)))
                } else if let last = parts.last, last.0 == 0 {
                    parts[parts.count - 1].1.append(character)
                } else {
                    parts.append((0, String(character)))
                }
            }
            return parts
        }
        for (one, two) in zip(key(left), key(right)) where one != two {
            // Numbers count by value, and a driver's letters count on: sdz is followed by sdaa.
            let sameSeries = one.0 == two.0 && (one.0 == 1 || one.1.prefix(2) == two.1.prefix(2))
            if sameSeries, one.1.count != two.1.count { return one.1.count < two.1.count }
            return one < two
        }
        return left.count < right.count
    }

    private static func device(_ name: String, _ files: KernelFiles, _ inUse: UseTable) -> AttachedDisk? {
        let folder = "/sys/block/\(name)"
        guard let number = files.word("\(folder)/dev", limit: 64), DeviceNumber(number) != nil else { return nil }
        let resolved = files.resolved(folder) ?? folder
        let backing = files.word("\(folder)/loop/backing_file")
        let size = files.number("\(folder)/size").flatMap { ByteCount(512).multiplied(by: $0) } ?? .zero
        let kind = kind(name, files, folder, size: size, backing: backing)
        // A slash in a device's name is an exclamation mark in sysfs.
        let path = "/dev/" + String(name.map { $0 == "!" ? "/" : $0 })
        let use = inUse.uses(of: path, number: number)
        let sector = files.number("\(folder)/queue/logical_block_size").flatMap { SectorSize($0) } ?? .s512
        return AttachedDisk(
            name: name, path: path, kind: kind, model: DiskIdentity.model(files, folder),
            serial: DiskIdentity.serial(files, folder, resolved: resolved),
            wwn: DiskIdentity.worldWideName(files, folder), bus: DiskIdentity.bus(name, resolved: resolved, files),
            size: size, sectorSize: sector,
            physicalSectorSize: ByteCount(
                files.number("\(folder)/queue/physical_block_size") ?? UInt64(sector.bytes)),
            device: number, isReadOnly: files.word("\(folder)/ro") == "1",
            isRemovable: files.word("\(folder)/removable") == "1", backingFile: backing,
            slaves: files.names("\(folder)/slaves"), holders: files.names("\(folder)/holders"), mounts: use.mounts,
            isSwap: use.isSwap, partitions: partitions(of: name, files, folder, inUse))
    }

    private static func partitions(
        of name: String, _ files: KernelFiles, _ folder: String, _ inUse: UseTable
    ) -> [AttachedPartition] {
        var result: [AttachedPartition] = []
        for part in files.names(folder) where part.hasPrefix(name) {
            let place = "\(folder)/\(part)"
            guard let index = files.number("\(place)/partition").flatMap({ Int(exactly: $0) }),
                let device = files.word("\(place)/dev", limit: 64), DeviceNumber(device) != nil,
                let start = files.number("\(place)/start").flatMap({ ByteCount(512).multiplied(by: $0) }),
                let size = files.number("\(place)/size").flatMap({ ByteCount(512).multiplied(by: $0) })
            else { continue }
            let path = "/dev/" + String(part.map { $0 == "!" ? "/" : $0 })
            let use = inUse.uses(of: path, number: device)
            result.append(
                AttachedPartition(
                    name: part, path: path, number: index, start: start, size: size, device: device,
                    isReadOnly: files.word("\(place)/ro") == "1", holders: files.names("\(place)/holders"),
                    mounts: use.mounts, isSwap: use.isSwap))
        }
        return result.sorted { $0.number < $1.number }
    }

    private static func kind(
        _ name: String, _ files: KernelFiles, _ folder: String, size: ByteCount, backing: String?
    ) -> BlockDeviceKind {
        if name.hasPrefix("sr") || files.word("\(folder)/device/type") == "5" { return .optical }
        if files.word("\(folder)/hidden") == "1" { return .other }
        if name.hasPrefix("dm-") || name.hasPrefix("md") { return size == .zero ? .other : .layered }
        if name.hasPrefix("ram") || name.hasPrefix("zram") || name.hasPrefix("fd") { return .other }
        // An eMMC chip's boot and replay-protected areas are not disks.
        if name.hasPrefix("mmcblk"), name.contains("boot") || name.contains("rpmb") { return .other }
        if name.hasPrefix("loop"), backing == nil { return .other }
        return size == .zero ? .other : .disk
    }
}

/// What is mounted and swapped to, by device.
private struct UseTable {
    private var mounts: [String: [String]] = [:]
    private var swaps: Set<String> = []

    init(files: KernelFiles, mounts: [MountEntry]) {
        swaps = Set(files.swaps().map { files.resolved($0) ?? $0 })
        // A Btrfs over several devices is mounted by one of them; the kernel lists the others here.
        var families: [[String]] = []
        for filesystem in files.names("/sys/fs/btrfs") {
            let members = files.names("/sys/fs/btrfs/\(filesystem)/devices")
            if !members.isEmpty { families.append(members.map { "/dev/\($0)" }) }
        }
        for mount in mounts {
            if mount.device.major != 0 { add(mount.point, to: mount.device.description) }
            guard mount.source.hasPrefix("/dev/") else { continue }
            let source = files.resolved(mount.source) ?? mount.source
            add(mount.point, to: source)
            for family in families where family.contains(source) {
                for member in family where member != source { add(mount.point, to: member) }
            }
        }
    }

    private mutating func add(_ point: String, to key: String) {
        if mounts[key]?.contains(point) != true { mounts[key, default: []].append(point) }
    }

    func uses(of path: String, number: String) -> (mounts: [String], isSwap: Bool) {
        var points = mounts[number] ?? []
        for point in mounts[path] ?? [] where !points.contains(point) { points.append(point) }
        return (points, swaps.contains(path))
    }
}
