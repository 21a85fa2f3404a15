// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import MachineModel
import Tools

/// Btrfs: btrfs-progs and the kernel, for it is resized only while it is mounted. Filesystems of one device only.
///
/// The kernel knows a Btrfs by its UUID alone: where one with the same is registered, another copy is not touched.
struct BtrfsTools: FilesystemTool {
    let kinds: Set<ContentKind> = [ContentKind(rawValue: "btrfs")]
    let canGrow = true
    let canShrink = true
    let checker = Tool("btrfs", package: "btrfs-progs")
    var resizer: Tool? { checker }

    func check(_ device: String) throws(Fault) -> CheckVerdict {
        let result = try checker.run(["check", "--readonly", device], seconds: 24 * 3600)
        let found = (result.standardError + result.standardOutput).split(separator: "\n").map(String.init)
            .first { line in ["ERROR", "error", "mismatch", "bad "].contains { line.contains($0) } }
        return CheckVerdict(
            isClean: result.status == 0,
            evidence: "btrfs check --readonly: "
                + (result.status == 0 ? "clean" : "status \(result.status)\(found.map { ", \($0)" } ?? "")"))
    }

    func grow(_ device: String) throws(Fault) {
        try requireAlone(device)
        try MountedVolume.use(device, type: "btrfs", options: []) { (folder) throws(Fault) in
            try checker.check(["filesystem", "resize", "max", folder], seconds: 24 * 3600, interruptible: false)
        }
        forget(device)
    }

    /// The kernel makes none smaller.
    private static let smallest = ByteCount.mebibytes(256)

    func shrink(_ path: String, to size: ByteCount) throws(Fault) {
        guard size >= BtrfsTools.smallest else {
            throw FilesystemTools.refused(
                checker.name, "a Btrfs cannot be smaller than \(BtrfsTools.smallest)", "Give the volume more room.")
        }
        try requireAlone(path)
        try MountedVolume.use(path, type: "btrfs", options: ["loop"]) { (folder) throws(Fault) in
            let result = try checker.run(["filesystem", "resize", "\(size.bytes)", folder], seconds: 24 * 3600)
            guard result.status == 0 else {
                throw FilesystemTools.refused(
                    checker.name, result.lastWords, "Give the volume more room, or restore to a larger disk.")
            }
        }
        forget(nil)
    }

    /// Takes what the kernel noted of devices that are not mounted; it would keep a loop device in mind that is gone.
    private func forget(_ device: String?) {
        _ = try? checker.run(["device", "scan", "--forget"] + (device.map { [$0] } ?? []), seconds: 60)
    }

    /// Throws unless no mounted Btrfs has the UUID of the one in `device`, and it has one device only.
    private func requireAlone(_ device: String) throws(Fault) {
        let dump = try checker.run(["inspect-internal", "dump-super", device], seconds: 60)
        func field(_ name: String) -> String? {
            dump.standardOutput.split(separator: "\n").first { $0.hasPrefix("\(name)\t") || $0.hasPrefix("\(name) ") }?
                .split(whereSeparator: { $0 == "\t" || $0 == " " }).dropFirst().first.map(String.init)
        }
        guard dump.status == 0, let id = field("fsid"), let devices = field("num_devices") else {
            throw FilesystemTools.refused(
                checker.name, dump.lastWords, "The superblock cannot be read: restore it to a disk of the same size.")
        }
        guard devices == "1" else {
            throw Fault(
                .unsupported, what: "This Btrfs lies on \(devices) devices; only one on a single device is resized.",
                place: device,
                remedy: "Restore all its devices with their sizes kept, and resize it when it is mounted.")
        }
        if unsafe access("/sys/fs/btrfs/\(id)", F_OK) == 0 {
            throw Fault(
                .unsupported,
                what: "A Btrfs with the same UUID \(id) is mounted on this machine; the kernel would mix the two.",
                place: device, remedy: "Unmount the original or detach its disk, or use the Relight environment.")
        }
    }
}
