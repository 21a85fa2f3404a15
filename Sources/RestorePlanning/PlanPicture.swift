// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
public import Geometry
public import MachineModel

/// Pictures of disks and plans in plain text, to scale, for consoles of any kind.
public enum DiskPicture {
    /// A part of a picture.
    public struct Part: Hashable, Sendable {
        /// Where it lies.
        public var extent: Extent
        /// What is written into it, if there is room; a short mark such as the partition's number otherwise.
        public var words: [String]

        /// A part. `words` are tried in order; the first that fits is drawn.
        public init(_ extent: Extent, _ words: [String]) {
            self.extent = extent
            self.words = words
        }
    }

    /// Three lines that show `parts` of a disk of `size` bytes in `columns` columns. Every part gets at least three
    /// columns, so very small ones are drawn larger than they are; free room is left blank. The order is the disk's.
    public static func draw(_ parts: [Part], size: ByteCount, columns: Int = 76) -> [String] {
        var cells: [(width: Int, words: [String])] = []
        let inside = max(10, columns - 2)
        var position = ByteCount.zero
        // What is drawn may be damaged: nothing is wider than the disk.
        func columnsFor(_ length: ByteCount) -> Double {
            size == .zero ? 0 : Double(min(length, size).bytes) / Double(size.bytes) * Double(inside)
        }
        for part in parts.sorted(by: { $0.extent.start < $1.extent.start }) {
            if part.extent.start > position {
                let gap = Int(columnsFor(part.extent.start - position))
                if gap >= 2 { cells.append((gap, [])) }
            }
            cells.append((max(3, Int(columnsFor(part.extent.length))), part.words))
            position = max(position, part.extent.end)
        }
        if size > position {
            let rest = Int(columnsFor(size - position))
            if rest >= 2 { cells.append((rest, ["free", ""])) }
        }
        // Small parts were drawn larger than they are: take the difference from the widest.
        for limit in stride(from: inside, through: 3, by: -1) {
            var excess = cells.map(\.width).reduce(0, +) + max(0, cells.count - 1) - inside
            if excess <= 0 { break }
            for index in cells.indices where excess > 0 && cells[index].width > limit {
                excess -= cells[index].width - limit
                cells[index].width = limit
            }
        }
        if let widest = cells.indices.max(by: { cells[$0].width < cells[$1].width }) {
            cells[widest].width += max(0, inside - cells.map(\.width).reduce(0, +) - (cells.count - 1))
        }
        let edge = "+" + cells.map { String(repeating: "-", count: $0.width) }.joined(separator: "+") + "+"
        let middle = "|" + cells.map { centred($0.words, $0.width) }.joined(separator: "|") + "|"
        return [edge, middle, edge]
    }

    private static func centred(_ words: [String], _ width: Int) -> String {
        let text = words.first { $0.count <= width } ?? ""
        let left = (width - text.count) / 2
        return String(repeating: " ", count: left) + text + String(repeating: " ", count: width - text.count - left)
    }

    /// The picture of a disk as it was found.
    public static func draw(_ disk: DiskModel, columns: Int = 76) -> [String] {
        draw(
            disk.volumes.map { volume in
                Part(volume.extent, words(volume.number, volume.label ?? volume.kind.rawValue, volume.extent.length))
            }, size: disk.size, columns: columns)
    }

    static func words(_ number: Int, _ name: String, _ size: ByteCount) -> [String] {
        let mark = number == 0 ? "" : "\(number)"
        return ["\(mark) \(name) \(size)", "\(mark) \(name)", "\(mark) \(size)", mark]
    }
}

extension RestorePlan {
    /// The plan for people: before and after to scale, then a table with the reason of each decision.
    public func lines(columns: Int = 76) -> [String] {
        var lines: [String] = []
        for disk in disks {
            let pin = disk.target
            let name = [pin.model, pin.serial.map { "serial \($0)" }].compactMap { $0 }.joined(separator: ", ")
            lines.append("From \(disk.sourcePath) (\(disk.sourceSize)), as it was imaged:")
            let before = disk.volumes.map {
                DiskPicture.Part($0.source, DiskPicture.words($0.number, $0.label ?? $0.kind.rawValue, $0.source.length))
            }
            let after = disk.volumes.map {
                DiskPicture.Part($0.target, DiskPicture.words($0.number, $0.label ?? $0.kind.rawValue, $0.target.length))
            }
            lines.append(contentsOf: DiskPicture.draw(before, size: disk.sourceSize, columns: columns))
            lines.append("To \(pin.path) (\(pin.size)\(name.isEmpty ? "" : ", \(name)")), layout \(disk.layout.rawValue):")
            lines.append(contentsOf: DiskPicture.draw(after, size: pin.size, columns: columns))
            lines.append("")
            lines.append(row("part", "content", "start", "size before", "size after", "what happens"))
            for volume in disk.volumes {
                lines.append(
                    row(
                        volume.number == 0 ? "disk" : "\(volume.number)", volume.kind.rawValue,
                        "\(volume.target.start)", "\(volume.source.length)", "\(volume.target.length)",
                        volume.reason + (volume.grows ? "; the filesystem is grown" : "")))
            }
            if disk.free >= .mebibytes(1) {
                lines.append(row("", "free", "", "", "\(disk.free)", "not used by this layout"))
            }
            lines.append("")
            lines.append(
                disk.overwrites.isEmpty
                    ? "\(pin.path) holds nothing that is recognised."
                    : "LOST on \(pin.path): \(disk.overwrites.joined(separator: "; "))")
        }
        for finding in findings { lines.append("\(finding.severity.rawValue): \(finding)") }
        lines.append(
            "\(bytesToWrite) of data will be written, read back and compared; the partition table is written last.")
        return lines
    }

    private func row(
        _ part: String, _ content: String, _ start: String, _ before: String, _ after: String, _ what: String
    ) -> String {
        func pad(_ text: String, _ width: Int) -> String {
            text + String(repeating: " ", count: max(1, width - text.count))
        }
        return pad(part, 6) + pad(content, 9) + pad(start, 11) + pad(before, 13) + pad(after, 12) + what
    }
}
