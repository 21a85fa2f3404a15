// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import MachineModel
import Tools

/// NTFS: ntfs-3g's tools. Not grown here. `ntfsfix -n` reads the boot sectors, the MFT and its mirror, and the journal's
/// state; only Windows' own chkdsk looks at everything.
struct NTFSTools: FilesystemTool {
    let kinds: Set<ContentKind> = [.ntfs]
    let canGrow = false
    let checker = Tool("ntfsfix", package: "ntfs-3g")

    func require(growing: Bool) throws(Fault) { if growing { throw FilesystemTools.cannotGrow("An NTFS") } }

    func check(_ device: String) throws(Fault) -> CheckVerdict {
        let result = try checker.run(["-n", device], seconds: 24 * 3600)
        let found = (result.standardOutput + result.standardError).split(separator: "\n").map(String.init)
            .first { line in
                ["FAILED", "ERROR", "Failed", "error", "corrupt", "Unclean"].contains { line.contains($0) }
            }
        return CheckVerdict(
            isClean: result.status == 0,
            evidence: "ntfsfix -n: "
                + (result.status == 0 ? "clean" : "status \(result.status)\(found.map { ", \($0)" } ?? "")"))
    }

    func grow(_ device: String) throws(Fault) { throw FilesystemTools.cannotGrow("An NTFS", device) }
}
