// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
import Glibc

/// Waiting for the kernel, without udev.
public enum PartitionNodes {
    /// Waits until partition `number` of the disk with kernel name `disk` is known and its node can be opened.
    /// Returns the node's path. Throws `system` after `seconds`.
    public static func wait(
        disk: String, number: Int, seconds: Double = 10, files: KernelFiles = .live
    ) throws(Fault) -> String {
        let name = disk + (disk.last?.isNumber == true ? "p" : "") + "\(number)"
        let path = "/dev/" + String(name.map { $0 == "!" ? "/" : $0 })
        let attempts = max(1, Int(seconds * 20))
        for attempt in 0..<attempts {
            if files.exists("/sys/block/\(disk)/\(name)/dev"), isReady(files.root + path) { return path }
            if attempt + 1 < attempts { usleep(50_000) }
        }
        throw Fault(
            .system, what: "The kernel shows no partition \(number) after \(Int(seconds)) seconds.",
            place: "/dev/\(disk)",
            remedy: "The table on the disk is written; restart the machine so that the kernel reads it again.")
    }

    /// Has the kernel read the table of the device at `path` again; waits while something holds it for a moment.
    /// Throws `missing`, `target.in-use`.
    public static func reread(_ path: String) throws(Fault) {
        let descriptor = unsafe relight_open(path, O_RDONLY | O_NONBLOCK, 0)
        guard descriptor >= 0 else {
            throw Fault(
                .missing, what: "The disk cannot be opened: \(unsafe String(cString: strerror(-descriptor))).",
                place: path,
                remedy: "`relight disks` lists the disks this machine has.")
        }
        defer { close(descriptor) }
        var status: Int32 = 0
        for attempt in 0..<40 {
            status = relight_reread_partitions(descriptor)
            if status != -EBUSY { break }
            if attempt < 39 { usleep(100_000) }
        }
        guard status == 0 || status == -EINVAL else {
            throw Fault(
                .targetInUse, what: "The kernel keeps the old partition table: a partition is in use.", place: path,
                remedy: "Unmount what is on the disk, or restart the machine.")
        }
    }

    private static func isReady(_ path: String) -> Bool {
        let descriptor = unsafe relight_open(path, O_RDONLY | O_NONBLOCK, 0)
        guard descriptor >= 0 else { return false }
        close(descriptor)
        return true
    }
}
