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
    /// The plan for people: before and after to scale, then a table with the reason of each decision. `comparing` says
    /// whether what is written will be read back.
    public func lines(columns: Int = 76, comparing: Bool = true) -> [String] {
        var lines: [String] = []
        if let pointLabel { lines.append("Recovery point \(pointLabel.text(point))") }
        for disk in disks {
            if disk != disks.first { lines.append("") }
            lines += disk.lines(columns: columns)
        }
        for finding in findings { lines.append("\(finding.severity.rawValue): \(finding)") }
        lines.append(
            "\(bytesToWrite) of data will be written"
                + (comparing ? ", read back and compared." : ". Nothing will be read back (--read-back off)."))
        lines += [
            "Until the end each target is left without a partition table (or its first",
            "MiB), so that a restore that was cut off cannot be taken for a finished one.",
        ]
        return lines
    }
}

extension VolumePlan {
    /// What happens to it, and why it is where it is.
    fileprivate var words: String {
        var result = reason
        switch treatment {
        case .copy: break
        case .shrink(let size, let tool): result += "; shrunk to \(size) by \(tool) before it is written"
        case .recreate(let tool): result += "; made anew by \(tool), files copied"
        }
        if grows { result += ", grown" }
        return result
    }
}

extension DiskPlan {
    fileprivate func lines(columns: Int) -> [String] {
        var lines: [String] = []
        let name = [target.model, target.serial.map { "serial \($0)" }].compactMap { $0 }.joined(separator: ", ")
        lines.append("From \(sourcePath) (\(sourceSize)), as it was imaged:")
        let before =
            volumes.map {
                DiskPicture.Part(
                    $0.source, DiskPicture.words($0.sourceNumber, $0.label ?? $0.kind.rawValue, $0.source.length))
            }
            + dropped.map { DiskPicture.Part($0.source, DiskPicture.words($0.number, $0.name, $0.source.length)) }
        lines += DiskPicture.draw(before, size: sourceSize, columns: columns)
        let how =
            keeps == nil
            ? "layout \(layout.rawValue)" : "into partition \(volumes.first?.number ?? 0), the rest left as it is"
        lines.append("To \(target.path) (\(target.size)\(name.isEmpty ? "" : ", \(name)")), \(how):")
        lines += DiskPicture.draw(picture, size: target.size, columns: columns)
        lines.append("")
        lines += table(columns)
        for volume in volumes {
            for case .bootRepair(let what) in volume.fixUps { lines.append("Partition \(volume.number): \(what)") }
        }
        lines += identifiers
        lines.append("")
        lines.append(
            overwrites.isEmpty
                ? "\(target.path) holds nothing that is recognised; whatever it holds will be lost."
                : "What is on \(target.path) now will be lost: \(overwrites.joined(separator: "; "))")
        return lines
    }

    /// The target's parts: what is written, what is made and stays empty, what stays as it is.
    private var picture: [DiskPicture.Part] {
        var parts = volumes.map {
            DiskPicture.Part($0.target, DiskPicture.words($0.number, $0.label ?? $0.kind.rawValue, $0.target.length))
        }
        let written = Set(volumes.map(\.number))
        for partition in (self.table ?? keeps)?.volumes ?? [] where !written.contains(partition.number) {
            guard let extent = partition.extent(target.sectorSize) else { continue }
            let name = keeps != nil ? "stays" : partition.name.isEmpty ? "empty" : partition.name
            parts.append(DiskPicture.Part(extent, DiskPicture.words(partition.number, name, extent.length)))
        }
        return parts
    }

    private func table(_ columns: Int) -> [String] {
        var table = TextTable([
            "part", "content", "label", "start", "size before", "size after", "data", "what happens",
        ])
        var rows: [(number: Int, cells: [String])] = []
        for volume in volumes {
            let number = volume.number == 0 ? "disk" : "\(volume.number)"
            let from = volume.sourceNumber == volume.number ? "" : " (was \(volume.sourceNumber))"
            rows.append(
                (
                    volume.number,
                    [
                        number + from, volume.kind.rawValue, volume.label ?? "-", "\(volume.target.start)",
                        "\(volume.source.length)", "\(volume.target.length)", "\(volume.used)", volume.words,
                    ]
                ))
        }
        if let made = self.table {
            let filled = Set(volumes.map(\.number))
            for partition in made.volumes where !filled.contains(partition.number) {
                guard let extent = partition.extent(made.sectorSize) else { continue }
                let isNew = partition.type.description == PartitionTypes.biosBoot
                rows.append(
                    (
                        partition.number,
                        [
                            "\(partition.number)", "-", partition.name.isEmpty ? "-" : partition.name,
                            "\(extent.start)", "-", "\(extent.length)", "-",
                            isNew
                                ? "made for boot loader code, empty"
                                : "made, but stays empty: the image does not hold it",
                        ]
                    ))
            }
        }
        for row in rows.sorted(by: { $0.number < $1.number }) { table.add(row.cells) }
        for part in dropped {
            table.add(["(\(part.number))", "-", part.name, "-", "\(part.source.length)", "-", "-", part.reason])
        }
        if free >= .mebibytes(1) { table.add(["-", "free", "-", "-", "-", "\(free)", "-", "not used by this layout"]) }
        return table.lines
    }

    private var identifiers: [String] {
        guard !ids.isEmpty else { return [] }
        return [""]
            + ids.map { change in
                change.new.map { "New \(change.what): \($0) (was \(change.old)), by \(change.by)" }
                    ?? "Left: \(change.what) keeps \(change.old); to change it, with its node as DEVICE: \(change.by)"
            }
    }
}
