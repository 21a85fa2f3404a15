// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemResize
import Findings
import Geometry
import Glibc
import LinuxDisks
import MachineModel
import RestorePlanning
import Threads
import Tools

/// What follows once the data are restored and compared. Nothing here takes that away: what does not succeed is a loss
/// that is listed.
extension Restorer {
    /// Grows the volume's filesystem where the plan says so, and has its own checker look. Throws only `interrupted`.
    func growAndCheck(_ volume: VolumePlan, _ plan: DiskPlan, _ report: inout VolumeReport) throws(Fault) {
        let path = plan.target.path
        let place = volume.number == 0 ? path : "\(path):\(volume.number)"
        guard let tool = FilesystemTools.tool(for: volume.kind) else {
            // What is not recognised has nothing to check; swap has no content that matters.
            guard ![.unknown, .empty, .swap].contains(volume.kind) else { return }
            return notChecked(place, "There is no checker for \(volume.kind.rawValue) here.", &report)
        }
        if tool.checker.path == nil, !volume.grows {
            return notChecked(
                place, "Its checker \(tool.checker.name) (package \(tool.checker.package)) is not installed.", &report)
        }
        do throws(Fault) {
            if volume.number == 0, DiskScan().devices.contains(where: { $0.path == path }) {
                try growAndCheck(volume, tool, path, place, &report)
            } else if let node = try Restorer.node(of: volume, on: path) {
                try growAndCheck(volume, tool, node, place, &report)
            } else if LoopDevice.isAvailable {
                let loop = try LoopDevice(file: path, extent: volume.target, sectorSize: plan.target.sectorSize)
                try growAndCheck(volume, tool, loop.path, place, &report)
            } else if volume.grows {
                notGrown(place, "That needs a loop device over its part of \(path), which only root can attach.")
            } else {
                notChecked(
                    place, "That needs a loop device over its part of \(path), which only root can attach.", &report)
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
                notChecked(place, "\(error.what) \(error.remedy)", &report)
            }
        }
    }

    /// Says that nobody looked at the filesystem. Nothing is lost by that: the data are what was imaged.
    private func notChecked(_ place: String, _ why: String, _ report: inout VolumeReport) {
        report.check = "not checked"
        events(
            .finding(
                Finding(
                    .notice, "filesystem.not-checked",
                    what: "The data are restored, but the filesystem was not checked. \(why)", place: place)))
    }

    /// The node of the volume's partition, once the kernel shows it where the plan has it; `nil` for an image file, and
    /// where the kernel does not show it. A node of that number alone is not enough: a disk may still have nodes of the
    /// partitions it had before, and a filesystem's tools would then write in the wrong place.
    private static func node(of volume: VolumePlan, on path: String) throws(Fault) -> String? {
        for attempt in 0..<50 {
            try Interruption.check()
            if attempt > 0 { usleep(200_000) }
            guard let disk = DiskScan().devices.first(where: { $0.path == path }) else { return nil }
            let part = disk.partitions.first { $0.number == volume.number }
            if let part, part.start == volume.target.start, part.size == volume.target.length {
                return try PartitionNodes.wait(disk: disk.name, number: volume.number)
            }
            // A loop device that was attached without its partitions will never show them.
            if disk.bus == "loop", attempt > 4 { return nil }
        }
        return nil
    }

    private func growAndCheck(
        _ volume: VolumePlan, _ tool: any FilesystemTool, _ node: String, _ place: String, _ report: inout VolumeReport
    ) throws(Fault) {
        if volume.grows {
            try Interruption.check()
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
                        report.grown || report.reshaped != nil ? .loss : .warning, "filesystem.not-clean",
                        what: report.grown
                            ? "Restored and compared, but after growing it its own checker is not content: \(verdict.evidence)"
                            : report.reshaped != nil
                                ? "Made to fit, restored and compared, but its own checker is not content: \(verdict.evidence)"
                                : "Restored as it was imaged, but its own checker is not content: \(verdict.evidence)",
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
