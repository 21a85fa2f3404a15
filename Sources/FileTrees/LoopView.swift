// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import Tools

/// A part of a disk as a block device that cannot be written: a read-only loop device over the disk.
final class LoopView {
    /// The device.
    let path: String
    private var isAttached = true
    private static let losetup = Tool("losetup", package: "mount")

    /// Throws `unsupported` for a volume that lies in a layer only this program puts together; what losetup throws.
    init(of source: any BlockSource) throws(Fault) {
        guard let window = source.file else {
            throw Fault(
                .unsupported, what: "It lies in a layer that the kernel does not see here.", place: source.name,
                remedy: "Activate the layer read-only and look at the volume itself.")
        }
        // Where the driver is a module that nobody has asked for yet, there is no device to ask for a loop.
        if unsafe access("/dev/loop-control", F_OK) != 0 {
            _ = try? Tool("modprobe", package: "kmod").run(["-q", "loop"], seconds: 20)
        }
        let output = try LoopView.losetup.check(
            [
                "--find", "--show", "--read-only", "--offset", "\(window.offset.bytes)", "--sizelimit",
                "\(source.length.bytes)", "--sector-size", "\(source.sectorSize.bytes)", window.path,
            ], seconds: 20)
        path = output.standardOutput.split(separator: "\n").first.map(String.init) ?? ""
        guard path.hasPrefix("/dev/") else {
            throw Fault(.toolFailed, what: "losetup named no device.", place: source.name, remedy: "Run it by hand.")
        }
    }

    deinit { release() }

    /// Detaches it; the kernel does so once nothing is mounted from it any more.
    func release() {
        guard isAttached else { return }
        isAttached = false
        _ = try? LoopView.losetup.run(["--detach", path], seconds: 20, interruptible: false)
    }
}
