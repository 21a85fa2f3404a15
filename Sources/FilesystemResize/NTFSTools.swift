// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import Tools

/// NTFS: ntfs-3g's tools. `ntfsfix -n` reads the boot sectors, the MFT and its mirror, and the journal's state; only
/// Windows' own chkdsk looks at everything.
///
/// ntfsresize goes through all file records and compares them with the bitmap before it changes anything, and refuses a
/// volume that is not clean. It marks what it resized for chkdsk, and refuses such a volume: one resize only.
struct NTFSTools: FilesystemTool {
    let kinds: Set<ContentKind> = [.ntfs]
    let canGrow = true
    let canShrink = true
    let checker = Tool("ntfsfix", package: "ntfs-3g")
    private let resize = Tool("ntfsresize", package: "ntfs-3g")
    var resizer: Tool? { resize }
    let noticeAfterShrinking: String? =
        "ntfsresize marked it to be checked: Windows runs chkdsk when it starts the next time."

    func check(_ device: String) throws(Fault) -> CheckVerdict {
        let result = try checker.run(["-n", device], seconds: 24 * 3600)
        let found = (result.standardOutput + result.standardError).split(separator: "\n").map(String.init)
            .first { line in
                ["FAILED", "ERROR", "Failed", "error", "corrupt", "Unclean", "BAD"].contains { line.contains($0) }
            }
        return CheckVerdict(
            isClean: result.status == 0,
            evidence: "ntfsfix -n: "
                + (result.status == 0 ? "clean" : "status \(result.status)\(found.map { ", \($0)" } ?? "")"))
    }

    private func run(_ arguments: [String], interruptible: Bool) throws(Fault) -> ToolOutput {
        // It asks whether the user is sure.
        let result = try resize.run(
            ["--no-progress-bar"] + arguments, input: Array("y\n".utf8), seconds: 24 * 3600,
            interruptible: interruptible)
        guard result.status == 0 else {
            let errors = (result.standardError + "\n" + result.standardOutput).split(separator: "\n").map(String.init)
            let said = errors.first { $0.hasPrefix("ERROR") } ?? result.lastWords
            throw FilesystemTools.refused(
                resize.name, said,
                "Give the volume more room. If it is said to be dirty or hibernated: start Windows, run `chkdsk /f`, shut it "
                    + "down with `shutdown /s /t 0`, and image it again.")
        }
        return result
    }

    func grow(_ device: String) throws(Fault) { _ = try run([device], interruptible: false) }

    func shrink(_ path: String, to size: ByteCount) throws(Fault) {
        _ = try run(["-n", "-s", "\(size.bytes)", path], interruptible: true)
        _ = try run(["-s", "\(size.bytes)", path], interruptible: true)
    }

    func leastSize(_ path: String) throws(Fault) -> ByteCount? {
        let result = try run(["--info", path], interruptible: true)
        for line in result.standardOutput.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard line.hasPrefix("You might resize at "), words.count > 4, let bytes = UInt64(words[4]) else {
                continue
            }
            return ByteCount(bytes)
        }
        return nil
    }

    /// Windows looks for the copy of the boot sector in the last sector of the partition; ntfsresize puts it right behind
    /// the last cluster, which is before that where the size is no multiple of the cluster's.
    func finishShrinking(_ volume: any BlockTarget, to size: ByteCount) throws(Fault) {
        let sector = volume.sectorSize.count
        guard let last = size.subtracting(sector), let count = sector.int else { return }
        let boot = try volume.bytes(at: .zero, count: count)
        try volume.write(at: last, unsafe boot.span.bytes)
    }

    /// The mark for chkdsk is that of a volume that was not cleanly unmounted; the bitmap of one just resized can be
    /// believed all the same.
    func readyForMapping(_ path: String) throws(Fault) {
        try checker.check(["--clear-dirty", path], seconds: 24 * 3600)
    }
}
