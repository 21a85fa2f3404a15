// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemResize
import Findings
import Geometry
import LinuxDisks
import MachineModel
import RestorePlanning

/// What follows once the data are restored and compared. Nothing here takes that away: what does not succeed is a loss
/// that is listed.
extension Restorer {
    /// Grows the volume's filesystem where the plan says so, and has its own checker look. Throws only `interrupted`.
    func growAndCheck(_ volume: VolumePlan, _ plan: DiskPlan, _ report: inout VolumeReport) throws(Fault) {
        guard let tool = FilesystemTools.tool(for: volume.kind) else { return }
        let path = plan.target.path
        let place = volume.number == 0 ? path : "\(path):\(volume.number)"
        do throws(Fault) {
            if let attached = DiskScan().devices.first(where: { $0.path == path }) {
                let node =
                    volume.number == 0 ? path : try PartitionNodes.wait(disk: attached.name, number: volume.number)
                try growAndCheck(volume, tool, node, place, &report)
            } else if LoopDevice.isAvailable {
                let loop = try LoopDevice(file: path, extent: volume.target, sectorSize: plan.target.sectorSize)
                try growAndCheck(volume, tool, loop.path, place, &report)
            } else if volume.grows {
                notGrown(place, "Growing it inside an image file needs a loop device, which only root can attach.")
            }
        } catch {
            if error.code == .interrupted {
                throw Fault(
                    .interrupted, what: "Interrupted while \(volume.kind.rawValue) was grown or checked.", place: place,
                    remedy: "The data are restored and compared. Check the filesystem with its own checker before use.")
            }
            if volume.grows, !report.grown {
                notGrown(place, "\(error.what) \(error.remedy)")
            } else {
                events(
                    .finding(
                        Finding(
                            .loss, "filesystem.not-checked",
                            what:
                                "The data are restored and compared, but the filesystem was not checked: \(error.what) "
                                + error.remedy, place: place)))
            }
        }
    }

    private func growAndCheck(
        _ volume: VolumePlan, _ tool: any FilesystemTool, _ node: String, _ place: String, _ report: inout VolumeReport
    ) throws(Fault) {
        if volume.grows {
            events(.step("\(place): growing \(volume.kind.rawValue) to \(volume.target.length)"))
            do throws(Fault) {
                try tool.grow(node)
                report.grown = true
            } catch {
                if error.code == .interrupted { throw error }
                notGrown(place, "\(error.what) \(error.remedy)")
            }
        }
        events(.step("\(place): checking \(volume.kind.rawValue)"))
        let verdict = try tool.check(node)
        report.check = verdict.evidence
        report.clean = verdict.isClean
        if !verdict.isClean {
            events(
                .finding(
                    Finding(
                        .warning, "filesystem.not-clean",
                        what: "Restored as it was imaged, but its own checker is not content: \(verdict.evidence)",
                        place: place)))
        }
    }

    private func notGrown(_ place: String, _ why: String) {
        events(
            .finding(
                Finding(
                    .loss, "filesystem.not-grown",
                    what: "The data are restored and compared, but the filesystem was not grown. \(why)", place: place))
        )
    }
}
