// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import FoundationEssentials
import Geometry
public import ImageStore
public import MachineModel
public import RestorePlanning

extension MachineFacts {
    /// The machine in words, by what its firmware tells; `nil` when it tells nothing.
    public var words: String? {
        let parts = [product, serial.map { "serial \($0)" }].compactMap { $0 }
        return parts.isEmpty ? nil : parts.joined(separator: ", ")
    }
}

extension PointSummary {
    /// What tells it from other points.
    public var label: PointLabel {
        PointLabel(name: facts.name, made: UTC.text(facts.time), machine: facts.machine.words)
    }
    /// `1a67482d3f "web01", made 2026-11-21 03:04:05 UTC on ACME PC, serial X`.
    public var title: String { label.text(id) }
}

/// Times for people.
public enum UTC {
    /// `2026-11-21 03:04:05`, of seconds since 1970.
    public static func text(_ seconds: UInt64) -> String {
        let text = Date(timeIntervalSince1970: Double(min(seconds, 1 << 40))).formatted(.iso8601)
        return text.replacing("T", with: " ").replacing("Z", with: "")
    }
}

/// What `latest` means in a set that many machines share.
public enum PointChoice {
    /// A warning where `points` holds other disks than `taken`, the latest of all, does: it names the latest of each.
    /// `nil` when all points are of the same disks.
    public static func warning(_ taken: PointSummary, among points: [PointSummary], place: String) -> Finding? {
        let groups = groups(points)
        guard groups.count > 1 else { return nil }
        let others = groups.compactMap(\.last).filter { $0.id != taken.id }
        // Its own group ends with it: it is the latest of all.
        let shown = others.suffix(5).map { "\($0.title) (\(disks($0)))" }
        return Finding(
            .warning, "point.latest-of-several",
            what: "The set holds points of \(groups.count) machines or sets of disks. `latest` took \(taken.title) "
                + "(\(disks(taken))). The latest of "
                + (others.count > shown.count
                    ? "\(shown.count) others: " : others.count == 1 ? "the other: " : "the others: ")
                + "\(shown.joined(separator: "; ")). Name the one you mean with SET@POINT.", place: place)
    }

    private static func disks(_ point: PointSummary) -> String {
        point.facts.disks.map { disk in disk.path + (disk.serial.map { " serial \($0)" } ?? "") }
            .joined(separator: " + ")
    }

    /// The points by the disks they hold, each group in the order of `points`: points that share a disk belong together.
    static func groups(_ points: [PointSummary]) -> [[PointSummary]] {
        var groups: [(marks: Set<String>, points: [PointSummary])] = []
        for point in points {
            var marks = point.facts.disks.reduce(into: Set<String>()) { $0.formUnion(identities($1)) }
            var members: [PointSummary] = []
            // Groups that this point joins become one.
            for group in groups where !group.marks.isDisjoint(with: marks) {
                marks.formUnion(group.marks)
                members += group.points
            }
            groups.removeAll { !$0.marks.isDisjoint(with: marks) }
            groups.append((marks, members + [point]))
        }
        let order = Dictionary(uniqueKeysWithValues: points.enumerated().map { ($0.element.id, $0.offset) })
        return groups.map { $0.points.sorted { (order[$0.id] ?? 0) < (order[$1.id] ?? 0) } }
    }

    /// What tells a disk from others wherever it is attached: its numbers, its table's, its filesystems'; where there is
    /// none of them, its path and size.
    private static func identities(_ disk: DiskModel) -> Set<String> {
        var marks: Set<String> = []
        if let serial = disk.serial { marks.insert("serial:\(serial)") }
        if let wwn = disk.wwn { marks.insert("wwn:\(wwn)") }
        if let gpt = disk.table?.gpt { marks.insert("gpt:\(gpt.diskGUID)") }
        for volume in disk.volumes { if let uuid = volume.uuid { marks.insert("uuid:\(uuid)") } }
        return marks.isEmpty ? ["path:\(disk.path):\(disk.size.bytes)"] : marks
    }
}
