// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import LinuxDisks

/// What speaks against imaging a disk: that something writes to it, or that the image set lies on it.
struct SourceGuard {
    let scan: DiskScan

    /// Kernel names the source is known by: a disk's own, or those of the loop devices over an image file.
    func names(_ selected: SelectedDisk) -> Set<String> {
        if let disk = selected.disk { return [disk.name] }
        return Set(scan.devices.filter { $0.backingFile == selected.path }.map(\.name))
    }

    /// A disk that something writes to cannot be imaged: its image would mix states of different moments. Layers count:
    /// a mounted logical volume writes to the disks below it. So does what is held without a mount that is seen here:
    /// another mount namespace has mounts of its own. Throws `source.in-use`.
    func refuseIfInUse(_ selected: SelectedDisk) throws(Fault) {
        let names = names(selected)
        // A mount that is read-only here may be of a filesystem that is written to elsewhere.
        let writable = scan.mounts.filter(\.isFilesystemWritable)
        var uses: [String] = []
        if selected.isFile {
            // Drivers in user space (ntfs-3g, fuse2fs) mount an image file without a loop device.
            let file = scan.files.resolved(selected.path) ?? selected.path
            for mount in writable where mount.source.hasPrefix("/") && scan.files.resolved(mount.source) == file {
                uses.append("\(selected.path) is mounted for writing at \(mount.point)")
            }
        }
        let points = Set(writable.map(\.point))
        for device in names.isEmpty ? [] : scan.devices {
            // The layers between count too: the source may be one of them.
            let below = scan.devices(under: device.name, throughFiles: false).union([device.name])
            guard !below.isDisjoint(with: names) else { continue }
            var isHeld = isExplained(device.mounts, device.isSwap, device.holders)
            let isWholeHeld = isHeld
            for part in device.partitions {
                uses += writes(to: part.path, part.mounts, part.isSwap, points)
                if isExplained(part.mounts, part.isSwap, part.holders) {
                    isHeld = true
                } else if !isWholeHeld, ExclusiveHold.exists(on: part.path) {
                    // The kernel refuses the parts of a disk that is held as a whole, and a disk of which a part is.
                    isHeld = true
                    uses.append(held(part.path))
                }
            }
            uses += writes(to: device.path, device.mounts, device.isSwap, points)
            if !isHeld, ExclusiveHold.exists(on: device.path) { uses.append(held(device.path)) }
        }
        guard !uses.isEmpty else { return }
        throw Fault(
            .sourceInUse,
            what:
                "The disk is in use: \(uses.joined(separator: "; ")). Its image would mix states of different moments.",
            place: selected.path,
            remedy:
                "Unmount it (or end the swapping: `swapoff`), or boot the Relight environment and image it from there.")
    }

    private func writes(to path: String, _ mounts: [String], _ isSwap: Bool, _ writable: Set<String>) -> [String] {
        mounts.filter { writable.contains($0) }.map { "\(path) is mounted for writing at \($0)" }
            + (isSwap ? ["\(path) is used as swap"] : [])
    }

    /// Whether it is known what holds a device.
    private func isExplained(_ mounts: [String], _ isSwap: Bool, _ holders: [String]) -> Bool {
        !mounts.isEmpty || isSwap || !holders.isEmpty
    }

    private func held(_ path: String) -> String {
        "\(path) is held by a program, or mounted where it is not seen from here (`lsns -t mnt`)"
    }

    /// Throws `set.on-source` when `set`, a folder, lies on the source.
    func refuseIfHolding(_ set: String, at folder: String, _ selected: SelectedDisk) throws(Fault) {
        try refuseIfHolding(set, on: scan.disks(holding: folder), selected)
    }

    /// Throws `set.on-source` when one of `disks`, which the set named `set` lies on, is the source.
    func refuseIfHolding(_ set: String, on disks: Set<String>, _ selected: SelectedDisk) throws(Fault) {
        var names = names(selected)
        // A layered device is taken as all the disks below it.
        if let disk = selected.disk, !disk.slaves.isEmpty {
            names.formUnion(scan.wholeDisks(under: disk.name, throughFiles: false))
        }
        guard !names.isDisjoint(with: disks) else { return }
        throw Fault(
            .setOnSource, what: "The image set \(set) lies on the disk that is to be imaged.", place: selected.path,
            remedy: "Put the set on another disk: an image that lies on its own source is lost with it.")
    }
}

extension FaultCode {
    /// A disk that is to be imaged is mounted for writing or used as swap.
    public static let sourceInUse = FaultCode("source.in-use", exit: .refused)
}
