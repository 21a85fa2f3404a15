// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import MachineModel
import Tools

/// F2FS: f2fs-tools. Its resizer shrinks too, but only says that it is safe; it is not used for that.
struct F2FSTools: FilesystemTool {
    let kinds: Set<ContentKind> = [ContentKind(rawValue: "f2fs")]
    let canGrow = true
    let checker = Tool("fsck.f2fs", package: "f2fs-tools")
    private let resize = Tool("resize.f2fs", package: "f2fs-tools")
    var resizer: Tool? { resize }

    func check(_ device: String) throws(Fault) -> CheckVerdict {
        // It ends with 0 whatever it found; the words tell.
        let result = try checker.run(["--dry-run", "-f", device], seconds: 24 * 3600)
        let lines = (result.standardOutput + "\n" + result.standardError).split(separator: "\n").map(String.init)
        let found = lines.first { $0.contains("[Fail]") || $0.contains("[ASSERT]") || $0.contains("Error") }
        let isClean = result.status == 0 && found == nil
        return CheckVerdict(
            isClean: isClean,
            evidence: "fsck.f2fs --dry-run: "
                + (isClean ? "clean" : "status \(result.status)\(found.map { ", \($0)" } ?? "")"))
    }

    func grow(_ device: String) throws(Fault) {
        try resize.check([device], seconds: 24 * 3600, interruptible: false)
    }
}
