// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import MachineModel
import Tools

/// FAT12, FAT16, FAT32: dosfstools. They are not resized in place.
struct FATTools: FilesystemTool {
    let kinds: Set<ContentKind> = [.fat]
    let canGrow = false
    let checker = Tool("fsck.fat", package: "dosfstools")

    func check(_ device: String) throws(Fault) -> CheckVerdict {
        let result = try checker.run(["-n", device], seconds: 3600)
        // Its last line begins with the node, which may be a loop device that nobody knows.
        let words = result.lastLine.replacing("\(device): ", with: "")
        return CheckVerdict(
            isClean: result.status == 0,
            evidence: "fsck.fat -n: \(result.status == 0 ? "clean" : "status \(result.status)"), \(words)")
    }

    func grow(_ device: String) throws(Fault) { throw FilesystemTools.cannotGrow("FAT", device) }
}
