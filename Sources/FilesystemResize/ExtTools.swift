// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import MachineModel
import Tools

/// ext2, ext3, ext4: e2fsprogs.
struct ExtTools: FilesystemTool {
    let kinds: Set<ContentKind> = [.ext2, .ext3, .ext4]
    let canGrow = true
    let canShrink = true
    let checker = Tool("e2fsck", package: "e2fsprogs")
    private let resize = Tool("resize2fs", package: "e2fsprogs")
    var resizer: Tool? { resize }

    func require(growing: Bool) throws(Fault) {
        guard growing else { return }
        _ = try checker.requirePath()
        _ = try resize.requirePath()
    }

    func check(_ device: String) throws(Fault) -> CheckVerdict {
        let result = try checker.run(["-f", "-n", device], seconds: 24 * 3600)
        // The summary is the last line of standard output; the program's version goes to standard error.
        let words = result.standardOutput.split(separator: "\n").last.map(String.init) ?? result.lastLine
        return CheckVerdict(
            isClean: result.status == 0,
            evidence: "e2fsck -fn: \(result.status == 0 ? "clean" : "status \(result.status)"), \(words)")
    }

    /// resize2fs refuses a filesystem that was not checked since it was last mounted. Status 1 means "mended".
    private func makeFit(_ device: String, interruptible: Bool, _ remedy: String) throws(Fault) {
        let result = try checker.run(["-f", "-p", device], seconds: 24 * 3600, interruptible: interruptible)
        guard result.status == 0 || result.status == 1 else {
            throw Fault(
                .toolFailed, what: "e2fsck cannot make the filesystem fit to be resized: \(result.lastWords)",
                place: device, remedy: remedy)
        }
    }

    func grow(_ device: String) throws(Fault) {
        // Both write: killed halfway they would leave a broken filesystem.
        try makeFit(
            device, interruptible: false,
            "The data are restored; run `e2fsck -f \(device)` by hand, then `resize2fs \(device)`.")
        try resize.check([device], seconds: 24 * 3600, interruptible: false)
    }

    func shrink(_ path: String, to size: ByteCount) throws(Fault) {
        try makeFit(
            path, interruptible: true,
            "Nothing was written. Check the imaged volume with `e2fsck -f`, image it again, or restore to a larger disk."
        )
        // Forced: its own estimate of the smallest size is often far too high. The full check afterwards is what tells.
        let result = try resize.run(["-f", path, "\(size.bytes / 1024)K"], seconds: 24 * 3600)
        guard result.status == 0 else {
            throw FilesystemTools.refused(
                resize.name, result.lastWords, "Give the volume more room, or restore to a larger disk.")
        }
    }
}
