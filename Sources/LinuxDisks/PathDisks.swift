// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Glibc

/// Which disks a path lies on.
extension DiskScan {
    /// Kernel names of the whole disks below a block device: a partition's disk, the members of a RAID or LVM volume,
    /// and, unless `throughFiles` is false, the disk of the file behind a loop device. At most 32 layers are followed.
    public func wholeDisks(under name: String, throughFiles: Bool = true) -> Set<String> {
        devices(under: name, throughFiles: throughFiles).filter { device(named: $0)?.slaves.isEmpty ?? false }
    }

    /// Kernel names of the block device itself and of everything below it, the layers between included: what a write to
    /// it changes. Otherwise as ``wholeDisks(under:throughFiles:)``.
    public func devices(under name: String, throughFiles: Bool = true) -> Set<String> {
        var seen: Set<String> = []
        var todo = [(name, 0)]
        while let (name, depth) = todo.popLast() {
            guard seen.insert(name).inserted, depth < 32 else { continue }
            guard let device = device(named: name) else {
                if let parent = devices.first(where: { $0.partitions.contains { $0.name == name } }) {
                    todo.append((parent.name, depth + 1))
                }
                continue
            }
            todo += device.slaves.map { ($0, depth + 1) }
            // The disk that holds the file is touched too when the loop device is.
            if throughFiles, let backing = device.backingFile {
                todo += blockDevices(holding: backing).map { ($0, depth + 1) }
            }
        }
        return seen
    }

    /// Kernel names of the whole disks that `path`, or the nearest folder above it that exists, lies on. Empty for
    /// network filesystems, memory, and where nobody knows.
    public func disks(holding path: String) -> Set<String> {
        blockDevices(holding: path).reduce(into: Set()) { $0.formUnion(wholeDisks(under: $1)) }
    }

    /// Whether `path`, or the nearest folder above it that exists, lies in memory: what is written there is gone with the
    /// power.
    public func isInMemory(_ path: String) -> Bool {
        guard let place = nearestExisting(path) else { return false }
        return isInMemory(mountedOver: place, depth: 0)
    }

    private func isInMemory(mountedOver place: String, depth: Int) -> Bool {
        guard depth < 8, let mount = mount(over: place) else { return false }
        if mount.type == "overlay" || mount.type == "overlayfs" {
            guard let upper = mount.superOptions.first(where: { $0.hasPrefix("upperdir=") }) else { return false }
            let folder = String(upper.dropFirst("upperdir=".count))
            return folder == place ? false : isInMemory(mountedOver: folder, depth: depth + 1)
        }
        return ["tmpfs", "ramfs", "rootfs", "devtmpfs"].contains(mount.type)
    }

    /// The mount that `place` lies in: the longest mount point wins; of equal ones the last, which covers the others.
    private func mount(over place: String) -> MountEntry? {
        var best: MountEntry?
        for mount in mounts where mount.covers(place) && mount.point.count >= best?.point.count ?? 0 { best = mount }
        return best
    }

    /// The nearest folder above `path`, or `path` itself, that exists; full and without links.
    public func existing(above path: String) -> String? { nearestExisting(path) }

    /// Kernel names of the block devices the filesystem at `path` lies on.
    func blockDevices(holding path: String) -> [String] {
        guard let place = nearestExisting(path) else { return [] }
        // A block device itself lies on itself, wherever its node is.
        if let device = named(path: place) { return [device] }
        var status = stat()
        if unsafe stat(files.root + place, &status) == 0 {
            if status.st_mode & S_IFMT == S_IFBLK, let name = named(DeviceNumber(raw: UInt64(status.st_rdev))) {
                return [name]
            }
            if files.root.isEmpty, let name = named(DeviceNumber(raw: UInt64(status.st_dev))) { return [name] }
        }
        return blockDevices(mountedOver: place, depth: 0)
    }

    /// By the mount table, for filesystems whose device number names no block device (Btrfs, overlays) and for tests.
    private func blockDevices(mountedOver place: String, depth: Int) -> [String] {
        guard depth < 8, let best = mount(over: place) else { return [] }
        if let name = named(best.device) { return withFamily(name) }
        if best.type == "overlay" || best.type == "overlayfs" {
            guard let upper = best.superOptions.first(where: { $0.hasPrefix("upperdir=") }) else { return [] }
            let folder = String(upper.dropFirst("upperdir=".count))
            return folder == place ? [] : blockDevices(mountedOver: folder, depth: depth + 1)
        }
        guard best.source.hasPrefix("/dev/") else { return [] }
        return named(path: files.resolved(best.source) ?? best.source).map { withFamily($0) } ?? []
    }

    /// All devices of the Btrfs that `name` belongs to, else `name` alone.
    private func withFamily(_ name: String) -> [String] {
        for filesystem in files.names("/sys/fs/btrfs") {
            let members = files.names("/sys/fs/btrfs/\(filesystem)/devices")
            if members.contains(name) { return members }
        }
        return [name]
    }

    /// The kernel's name of the device whose node `path` is, whatever the node is called.
    func named(node path: String) -> String? {
        var status = stat()
        guard unsafe stat(files.root + path, &status) == 0, status.st_mode & S_IFMT == S_IFBLK else { return nil }
        return named(DeviceNumber(raw: UInt64(status.st_rdev)))
    }

    private func named(_ number: DeviceNumber) -> String? {
        let text = number.description
        for device in devices {
            if device.device == text { return device.name }
            if let part = device.partitions.first(where: { $0.device == text }) { return part.name }
        }
        return nil
    }

    private func named(path: String) -> String? {
        for device in devices {
            if device.path == path { return device.name }
            if let part = device.partitions.first(where: { $0.path == path }) { return part.name }
        }
        return nil
    }

    private func nearestExisting(_ path: String) -> String? {
        var place = path
        if !place.hasPrefix("/") {
            guard let here = KernelFiles.realPath(".") else { return nil }
            place = "\(here)/\(place)"
        }
        while true {
            if let found = files.resolved(place) { return found }
            guard let slash = place.lastIndex(of: "/"), slash != place.startIndex else { return "/" }
            place = String(place[..<slash])
        }
    }
}
