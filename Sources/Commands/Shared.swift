// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import Geometry
import ImageStore
import Operations

/// Options of commands that take disks.
struct DiskOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Sector size of disks given as image files: 512 or 4096.", valueName: "bytes"))
    var sectorSize: Int = 512

    func size() throws(Fault) -> SectorSize {
        guard let size = SectorSize(sectorSize), sectorSize <= 4096 else {
            throw Fault(
                .usage, what: "A sector size of \(sectorSize) bytes is not possible.", remedy: "Use 512 or 4096.")
        }
        return size
    }
}

extension OpenedSet {
    /// The point `name` stands for. Says which of its copies are damaged; and with `latest`, when a point that may be newer
    /// cannot be read.
    func point(_ name: String, _ console: Console) throws(Fault) -> RecoveryPoint {
        let point = try reader.point(name)
        for finding in point.findings { console.receive(.finding(finding)) }
        if name == "latest" {
            for finding in try reader.points().findings where finding.severity == .loss {
                var finding = finding
                finding.severity = .warning
                finding.what =
                    "This recovery point cannot be read, and may be newer than the one that is used as latest "
                    + "(\(point.summary.shortID)). \(finding.what)"
                console.receive(.finding(finding))
            }
        }
        return point
    }
}
