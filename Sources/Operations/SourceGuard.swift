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
    /// a mounted logical volume writes to the disks below it. Throws `source.in-use`.
    func refuseIfInUse(_ selected: SelectedDisk) throws(Fault) {
        let names = names(selected)
        guard !names.isEmpty else { return }
        let writable = Set(scan.mounts.filter(\.isWritable).map(\.point))
        var uses: [String] = []
        for device in scan.devices {
            let parts = device.partitions.map { ($0.name, $0.path, $0.mounts, $0.isSwap) }
            for (name, path, mounts, isSwap) in [(device.name, device.path, device.mounts, device.isSwap)] + parts {
                let places = mounts.filter { writable.contains($0) }
                guard isSwap || !places.isEmpty else { continue }
                // The layers between count too: the source may be one of them.
                let below = scan.devices(under: name, throughFiles: false).union([device.name])
                guard !below.isDisjoint(with: names) else { continue }
                uses += places.map { "\(path) is mounted for writing at \($0)" }
                if isSwap { uses.append("\(path) is used as swap") }
            }
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
