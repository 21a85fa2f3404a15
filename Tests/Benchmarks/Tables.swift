// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry

/// The results as tables, for a terminal or as Markdown.
struct Tables {
    let results: [Result]
    let rounds: Int

    /// Lines to be printed or written.
    func lines(markdown: Bool) -> [String] {
        var lines: [String] = []
        for job in Job.all {
            let rows = results.filter { $0.job == job }
            guard !rows.isEmpty else { continue }
            lines += ["", markdown ? "### \(job.title)" : job.title, ""]
            lines += table(rows, markdown: markdown)
            let verdicts = job.goals.map { verdict($0, rows) }
            if !verdicts.isEmpty { lines += [""] + verdicts.map { markdown ? "- \($0)" : "  \($0)" } }
        }
        return lines
    }

    private func table(_ rows: [Result], markdown: Bool) -> [String] {
        let best = Tables.best(rows)
        let partclone = rows.first { $0.contender == Name.partclone && !$0.samples.isEmpty }
        let head = [
            "program", "wall s (min-max)", "CPU s", "peak MiB", "output MiB", "wall / best peer", "CPU / best peer",
            "wall / partclone", "output / partclone",
        ]
        let least = rows.filter { !Tables.isRelight($0) && !$0.samples.isEmpty }.map(\.cpu).min()
        var cells: [[String]] = []
        // Rows without a figure come last.
        for row in rows.sorted(by: { ($0.samples.isEmpty ? 1 : 0, $0.wall) < ($1.samples.isEmpty ? 1 : 0, $1.wall) }) {
            var name = row.contender
            if let remark = row.remark { name += " - \(remark)" }
            guard !row.samples.isEmpty else {
                cells.append([name] + [String](repeating: "-", count: head.count - 1))
                continue
            }
            let walls = row.samples.map(\.wall)
            func ratio(_ value: Double?, _ other: Double?) -> String {
                guard let value, let other, other > 0 else { return "-" }
                return fixed(value / other)
            }
            cells.append([
                name, "\(fixed(row.wall)) (\(fixed(walls.min() ?? 0))-\(fixed(walls.max() ?? 0)))", fixed(row.cpu),
                fixed(row.peak / 1_048_576, 0), row.output.map { fixed($0 / 1_048_576, 1) } ?? "-",
                ratio(row.wall, best?.wall), ratio(row.cpu, least), ratio(row.wall, partclone?.wall),
                ratio(row.output, partclone?.output),
            ])
        }
        guard markdown else {
            var text = TextTable(head)
            for row in cells { text.add(row) }
            return text.lines.map { "  " + $0 }
        }
        func line(_ cells: [String]) -> String {
            "| "
                + cells.map { cell in
                    cell.split(separator: "|", omittingEmptySubsequences: false).joined(separator: "\\|")
                }.joined(separator: " | ") + " |"
        }
        return [line(head), "|---|" + String(repeating: "---:|", count: head.count - 1)] + cells.map(line)
    }

    static func isRelight(_ row: Result) -> Bool { row.contender.hasPrefix(Name.relight) }

    /// The peer with the least wall time.
    static func best(_ rows: [Result]) -> Result? {
        rows.filter { !isRelight($0) && !$0.samples.isEmpty }.min { $0.wall < $1.wall }
    }

    private func verdict(_ goal: Goal, _ rows: [Result]) -> String {
        let peer: Result?
        let name: String
        switch goal.against {
        case .best:
            peer = Tables.best(rows)
            name = "the best peer"
        case .partclone:
            peer = rows.first { $0.contender == Name.partclone && !$0.samples.isEmpty }
            name = Name.partclone
        case .named(let wanted):
            peer = rows.first { $0.contender.hasPrefix(wanted) && !$0.samples.isEmpty }
            name = wanted
        }
        let what = goal.measure == .wall ? "wall time" : "output"
        let aim = "Goal: \(what) at most \(fixed(goal.limit)) of \(name)"
        guard let own = rows.first(where: { Tables.isRelight($0) && !$0.samples.isEmpty }), let peer else {
            return "\(aim): not measured."
        }
        let values = goal.measure == .wall ? (own.wall, peer.wall) : (own.output ?? 0, peer.output ?? 0)
        guard values.1 > 0 else { return "\(aim): not measured." }
        let ratio = values.0 / values.1
        let who = goal.against == .best ? " (\(peer.contender))" : ""
        return "\(aim)\(who): \(fixed(ratio)), \(ratio <= goal.limit ? "met" : "missed")."
    }
}
