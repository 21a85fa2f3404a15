// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Tools

/// Part of an image file, or of a disk, as a block device, for programs that insist on one. Needs root; detached when released.
public struct LoopDevice: ~Copyable, Sendable {
    /// The device node.
    public let path: String
    private static let tool = Tool("losetup", package: "mount")

    /// Attaches `extent` of the file or disk at `file`. Throws `tool.missing`, `tool.failed`.
    public init(file: String, extent: Extent, sectorSize: SectorSize) throws(Fault) {
        var arguments = [
            "--find", "--show", "--offset", "\(extent.start.bytes)", "--sizelimit", "\(extent.length.bytes)",
        ]
        if sectorSize != .s512 { arguments += ["--sector-size", "\(sectorSize.bytes)"] }
        let result = try LoopDevice.tool.check(arguments + [file], seconds: 60, interruptible: false)
        let path = result.standardOutput.split(separator: "\n").first.map(String.init) ?? ""
        guard path.hasPrefix("/dev/loop") else {
            throw Fault(
                .toolFailed, what: "losetup named no loop device: \(result.lastLine)", place: file,
                remedy: "Loop devices need root and the kernel's loop module.")
        }
        self.path = path
    }

    /// Whether this process can attach loop devices: needed to grow or check a filesystem inside an image file.
    public static var isAvailable: Bool {
        guard tool.path != nil else { return false }
        return (try? tool.run(["--find"], seconds: 10))?.status == 0
    }

    deinit { _ = try? LoopDevice.tool.run(["--detach", path], seconds: 60, interruptible: false) }
}
