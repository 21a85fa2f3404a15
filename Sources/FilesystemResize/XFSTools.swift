// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import MachineModel
import Tools

/// XFS: xfsprogs. Not grown here: it grows only while it is mounted.
struct XFSTools: FilesystemTool {
    let kinds: Set<ContentKind> = [.xfs]
    let canGrow = false
    let checker = Tool("xfs_repair", package: "xfsprogs")

    func require(growing: Bool) throws(Fault) { if growing { throw FilesystemTools.cannotGrow("An XFS") } }

    func check(_ device: String) throws(Fault) -> CheckVerdict {
        let result = try checker.run(["-n", device], seconds: 24 * 3600)
        // With -n the status tells: 0 is sound, 1 damaged, 2 a log that waits to be replayed. Its last lines say only that
        // nothing was written; what it found stands before.
        let found = (result.standardOutput + result.standardError).split(separator: "\n").map(String.init)
            .first { line in ["bad ", "would ", "inconsistent", "mismatch", "error"].contains { line.contains($0) } }
        return CheckVerdict(
            isClean: result.status == 0,
            evidence: "xfs_repair -n: "
                + (result.status == 0 ? "clean" : "status \(result.status)\(found.map { ", \($0)" } ?? "")"))
    }

    func grow(_ device: String) throws(Fault) { throw FilesystemTools.cannotGrow("An XFS", device) }
}
