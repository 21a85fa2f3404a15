// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Columns of text for people: each as wide as its widest cell, two blanks between.
public struct TextTable: Sendable {
    private var rows: [[String]]

    /// A table with the headings `head`.
    public init(_ head: [String]) { rows = [head] }

    /// Adds a row. A line end in a cell becomes `?`: names come from disks and from other machines.
    public mutating func add(_ row: [String]) {
        rows.append(row.map { $0.contains(where: \.isNewline) ? String($0.map { $0.isNewline ? "?" : $0 }) : $0 })
    }

    /// The lines, the headings first, without blanks at their ends.
    public var lines: [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
        return rows.map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                line += cell
                if column + 1 < row.count { line += String(repeating: " ", count: widths[column] - cell.count + 2) }
            }
            while line.last == " " { line.removeLast() }
            return line
        }
    }
}
