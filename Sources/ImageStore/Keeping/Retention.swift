// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import MachineModel

/// Which recovery points to keep of a machine and what was imaged of it: the last ones, and the newest of each of the last hours, days, weeks,
/// months and years that have one. Times are counted in UTC, weeks begin on Mondays.
public struct RetentionPolicy: Hashable, Sendable {
    /// The last so many points.
    public var last = 0
    /// The newest point of each of the last so many hours that have one.
    public var hourly = 0
    /// … days that have one.
    public var daily = 0
    /// … weeks that have one.
    public var weekly = 0
    /// … months that have one.
    public var monthly = 0
    /// … years that have one.
    public var yearly = 0

    /// A policy that keeps nothing.
    public init(
        last: Int = 0, hourly: Int = 0, daily: Int = 0, weekly: Int = 0, monthly: Int = 0, yearly: Int = 0
    ) {
        self.last = last
        self.hourly = hourly
        self.daily = daily
        self.weekly = weekly
        self.monthly = monthly
        self.yearly = yearly
    }

    /// Whether it keeps nothing.
    public var isEmpty: Bool { [last, hourly, daily, weekly, monthly, yearly].allSatisfy { $0 <= 0 } }

    /// The rules: their names, their numbers, and what tells apart the stretches of time they count; `nil` tells apart
    /// every point.
    fileprivate var rules: [(name: String, count: Int, stretch: ((UInt64) -> Int64)?)] {
        [
            ("last", last, nil), ("hourly", hourly, { Int64($0 / 3600) }), ("daily", daily, { Int64($0 / 86_400) }),
            // 1970-01-01 was a Thursday.
            ("weekly", weekly, { (Int64($0 / 86_400) + 3) / 7 }),
            ("monthly", monthly, { Calendar.month(Int64($0 / 86_400)) }),
            ("yearly", yearly, { Calendar.month(Int64($0 / 86_400)) / 12 }),
        ]
    }
}

private enum Calendar {
    /// Months since year 0 of the proleptic Gregorian calendar, of the day `days` after 1970-01-01.
    static func month(_ days: Int64) -> Int64 {
        // Counted from 1 March of year 0, in eras of 400 years, so that the leap day is a year's last.
        let day = days + 719_468
        let inEra = day % 146_097
        let year = (inEra - inEra / 1460 + inEra / 36_524 - inEra / 146_096) / 365
        let inYear = inEra - (365 * year + year / 4 - year / 100)
        // March is 0.
        let month = (5 * inYear + 2) / 153
        return (day / 146_097 * 400 + year) * 12 + month + 2
    }
}

/// What a policy means for the points of a set.
public struct RetentionPlan: Hashable, Sendable {
    /// What becomes of a point, and why.
    public struct Entry: Hashable, Sendable {
        /// The point.
        public var point: PointSummary
        /// The machine it counts for and what was imaged of it, in words: points with the same words count together.
        public var machine: String
        /// Whether it stays.
        public var stays: Bool
        /// Why, in words; never empty.
        public var reasons: [String]
    }
    /// All readable points: by machine and what was imaged, oldest first.
    public var entries: [Entry] = []
    /// Points whose clocks cannot have been right, and what else is worth knowing.
    public var findings: [Finding] = []

    /// Points that go.
    public var removed: [PointSummary] { entries.filter { !$0.stays }.map(\.point) }

    /// Seconds a point may lie in the future before its clock counts as wrong.
    private static let tolerance: UInt64 = 600

    /// Applies `policy` to each machine of `points`, and each thing that was imaged of it, by itself. Points in `named` go
    /// whatever it says. Without a policy all others stay. The last point of each stays unless it is named.
    ///
    /// - Parameters:
    ///   - points: all readable points of the set.
    ///   - policy: which to keep; `nil` or an empty one keeps all.
    ///   - named: ids of points to remove.
    ///   - now: the time by the clock of the place the set lies in.
    public init(_ points: [PointSummary], policy: RetentionPolicy?, named: Set<String> = [], now: UInt64) {
        var groups: [String: [PointSummary]] = [:]
        for point in points { groups[RetentionPlan.group(point.facts), default: []].append(point) }
        for (machine, points) in groups.sorted(by: { $0.key < $1.key }) {
            let order = points.sorted { ($0.number, $0.facts.time, $0.id) < ($1.number, $1.facts.time, $1.id) }
            add(machine, order, policy.flatMap { $0.isEmpty ? nil : $0 }, named, now)
        }
    }

    private mutating func add(
        _ machine: String, _ points: [PointSummary], _ policy: RetentionPolicy?, _ named: Set<String>, _ now: UInt64
    ) {
        var reasons: [String: [String]] = [:]
        let wrong = RetentionPlan.implausible(points, now: now)
        if let policy {
            for (id, why) in wrong { reasons[id, default: []].append(why) }
            for (name, count, stretch) in policy.rules where count > 0 {
                var left = count
                var before: Int64?
                // What is named goes anyway, and must not stand for others.
                for point in points.reversed() where left > 0 && !named.contains(point.id) {
                    if let stretch {
                        // A time that cannot be right says nothing about the stretch it falls into.
                        guard wrong[point.id] == nil else { continue }
                        let now = stretch(point.facts.time)
                        if now == before { continue }
                        before = now
                    }
                    reasons[point.id, default: []].append(name)
                    left -= 1
                }
            }
            for point in points {
                guard let why = wrong[point.id], !named.contains(point.id) else { continue }
                findings.append(
                    Finding(
                        .warning, "point.clock",
                        what: "The recovery point's date cannot be right: \(why). It is kept; remove it by its id.",
                        place: point.shortID))
            }
        } else {
            for point in points { reasons[point.id] = ["not named"] }
        }
        if let last = points.last, reasons[last.id] == nil { reasons[last.id] = ["the last of its kind"] }
        for point in points {
            let isNamed = named.contains(point.id)
            let stays = !isNamed && reasons[point.id] != nil
            entries.append(
                Entry(
                    point: point, machine: machine, stays: stays,
                    reasons: isNamed ? ["named"] : reasons[point.id] ?? ["no rule keeps it"]))
        }
        if points.allSatisfy({ named.contains($0.id) }), let last = points.last {
            findings.append(
                Finding(
                    .warning, "point.last", what: "This is the last recovery point of \(machine).",
                    place: last.shortID))
        }
    }

    /// Points whose time cannot be right, with the reason: in the future, or before that of a point with a lower number.
    ///
    /// A clock with an empty battery is wrong for many points in a row, so each is compared with the latest time so far, not
    /// with its neighbour's.
    ///
    /// - Parameter points: by number, then time.
    static func implausible(_ points: [PointSummary], now: UInt64) -> [String: String] {
        var result: [String: String] = [:]
        var latest: PointSummary?
        for point in points {
            let time = point.facts.time
            if time > now, time - now > RetentionPlan.tolerance {
                result[point.id] = "it lies in the future"
                continue
            }
            if let latest, latest.number < point.number, latest.facts.time > time {
                // Either of the two clocks was wrong.
                result[point.id] = "it is older than that of point \(latest.number), made before it"
                result[latest.id] = result[latest.id] ?? "it is later than that of point \(point.number), made after it"
                continue
            }
            latest = point
        }
        return result
    }

    /// What points count together by: the machine's serial number, where it has one, and what was imaged: each disk by
    /// its serial number or world wide name, else by its path, with the numbers of the volumes where not all were chosen.
    /// Where no disk has an identity the name counts too. What is told apart without need only keeps more points.
    static func group(_ facts: PointFacts) -> String {
        func real(_ text: String?) -> String? {
            let text = text?.filter { !$0.isWhitespace } ?? ""
            // What makers leave in the field when they forget to fill it in.
            let empty = [
                "", "none", "default", "defaultstring", "tobefilledbyo.e.m.", "systemserialnumber",
                "notspecified", "notapplicable", "n/a", "oem", "unknown", "123456789", "0123456789",
            ]
            return empty.contains(text.lowercased()) || text.allSatisfy { "0.-_xX".contains($0) } ? nil : text
        }
        var words: [String] = []
        if let serial = real(facts.machine.serial) {
            words.append([facts.machine.product, "serial \(serial)"].compactMap { $0 }.joined(separator: ", "))
        }
        var isKnown = false
        var disks: [String] = []
        for disk in facts.disks {
            let identity = real(disk.serial) ?? real(disk.wwn)
            isKnown = isKnown || identity != nil
            disks.append((identity.map { "disk \($0)" } ?? disk.path) + chosen(disk))
        }
        words += disks.sorted()
        if !isKnown { words.append(facts.name.isEmpty ? "unnamed" : "\"\(facts.name)\"") }
        return words.joined(separator: "; ")
    }

    /// The volumes of a disk of which not all were imaged.
    private static func chosen(_ disk: DiskModel) -> String {
        let numbers = Set(disk.volumes.map(\.number))
        guard let table = disk.table, table.volumes.contains(where: { !numbers.contains($0.number) }) else { return "" }
        return " volume \(numbers.sorted().map(String.init).joined(separator: ", "))"
    }
}
