// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import MachineModel
import Tools

/// ext2, ext3, ext4: e2fsprogs.
struct ExtTools: FilesystemTool {
    let kinds: Set<ContentKind> = [.ext2, .ext3, .ext4]
    let canGrow = true
    let checker = Tool("e2fsck", package: "e2fsprogs")
    private let resizer = Tool("resize2fs", package: "e2fsprogs")

    func require(growing: Bool) throws(Fault) {
        guard growing else { return }
        _ = try checker.requirePath()
        _ = try resizer.requirePath()
    }

    func check(_ device: String) throws(Fault) -> CheckVerdict {
        let result = try checker.run(["-f", "-n", device], seconds: 24 * 3600)
        // The summary is the last line of standard output; the program's version goes to standard error.
        let words = result.standardOutput.split(separator: "\n").last.map(String.init) ?? result.lastLine
        return CheckVerdict(
            isClean: result.status == 0,
            evidence: "e2fsck -fn: \(result.status == 0 ? "clean" : "status \(result.status)"), \(words)")
    }

    func grow(_ device: String) throws(Fault) {
        // resize2fs refuses a filesystem that was not checked since it was last mounted. Status 1 means "mended".
        // Both write: killed halfway they would leave a broken filesystem.
        let result = try checker.run(["-f", "-p", device], seconds: 24 * 3600, interruptible: false)
        guard result.status == 0 || result.status == 1 else {
            throw Fault(
                .toolFailed, what: "e2fsck cannot make the filesystem fit to be grown: \(result.lastWords)",
                place: device,
                remedy: "The data are restored; run `e2fsck -f \(device)` by hand, then `resize2fs \(device)`.")
        }
        try resizer.check([device], seconds: 24 * 3600, interruptible: false)
    }
}
