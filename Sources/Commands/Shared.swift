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
            throw Fault(.usage, what: "A sector size of \(sectorSize) bytes is not possible.", remedy: "Use 512 or 4096.")
        }
        return size
    }
}

/// Columns of text.
struct TextTable {
    private var rows: [[String]]

    init(_ head: [String]) { rows = [head] }

    mutating func add(_ row: [String]) { rows.append(row) }

    /// The lines; each column as wide as its widest cell, two blanks between.
    var lines: [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
        return rows.map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                line += cell
                if column + 1 < row.count { line += String(repeating: " ", count: widths[column] - cell.count + 2) }
            }
            return line
        }
    }
}
