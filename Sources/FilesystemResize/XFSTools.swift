// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import MachineModel
import Tools

/// XFS: xfsprogs. It grows only while it is mounted, and never shrinks.
struct XFSTools: FilesystemTool {
    let kinds: Set<ContentKind> = [.xfs]
    let canGrow = true
    let checker = Tool("xfs_repair", package: "xfsprogs")
    private let resize = Tool("xfs_growfs", package: "xfsprogs")
    var resizer: Tool? { resize }

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

    func grow(_ device: String) throws(Fault) {
        // The original with the same UUID may be mounted beside it.
        try MountedVolume.use(device, type: "xfs", options: ["nouuid"]) { (folder) throws(Fault) in
            try resize.check(["-d", folder], seconds: 24 * 3600, interruptible: false)
        }
    }
}
