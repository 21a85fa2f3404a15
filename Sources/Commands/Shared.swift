// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import Geometry

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
