// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import Geometry
import ImageStore
import Operations
import Synchronization

/// `relight forget`.
struct ForgetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "forget", abstract: "Removes recovery points from an image set.",
        discussion: """
            Points are named, or rules say which to keep: the newest of each of the last N hours, days, weeks, months and \
            years that have one (UTC). Points count together when machine and what was imaged are the same: the machine's \
            serial number; each disk's serial number or WWN, else its path; the volumes, where not all were chosen; and the \
            name, where no disk has a number. --dry-run shows it. A point stays when any rule keeps it. The last point of \
            each, and points whose date cannot be right, are removed only by name. A removed point cannot be \
            brought back. Its space is freed by `relight prune`, or with --prune at once, but not when no point is left: see \
            there. Works on a full medium. A set that lies in several places needs all of them named (--also): a point that \
            is removed while a place is away comes back with that place.

              relight forget /mnt/usb/machines --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run
              relight forget /mnt/usb/machines@3f2a91 --prune
              relight forget /mnt/a/set --also /mnt/b/set --keep-last 10 --prune
            """)

    @Argument(help: ArgumentHelp("SET, or SET@POINT to remove that point.", valueName: "set[@point]")) var set: String
    @Option(help: ArgumentHelp("Remove this point too: an id or its beginning (repeatable).", valueName: "id"))
    var point: [String] = []
    @Option(help: ArgumentHelp("Keep the last N points of each machine and what was imaged of it.", valueName: "n"))
    var keepLast: Int?
    @Option(help: ArgumentHelp("Keep the newest of each of the last N hours that have one.", valueName: "n"))
    var keepHourly: Int?
    @Option(help: ArgumentHelp("… of the last N days.", valueName: "n")) var keepDaily: Int?
    @Option(help: ArgumentHelp("… of the last N weeks.", valueName: "n")) var keepWeekly: Int?
    @Option(help: ArgumentHelp("… of the last N months.", valueName: "n")) var keepMonthly: Int?
    @Option(help: ArgumentHelp("… of the last N years.", valueName: "n")) var keepYearly: Int?
    @Flag(help: "Show what would be removed and why; write nothing.") var dryRun = false
    @Flag(help: "Reclaim the space afterwards.") var prune = false
    @OptionGroup var places: PlaceOptions
    @OptionGroup var key: KeyOptions

    func validate() throws {
        let counts = [keepLast, keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly].compactMap { $0 }
        if counts.contains(where: { $0 < 0 }) { throw ValidationError("A number of points to keep is below 0.") }
        if !counts.isEmpty, counts.allSatisfy({ $0 == 0 }) {
            throw ValidationError("These rules keep nothing. To remove points, name them.")
        }
    }

    func run() throws {
        let console = Console.current.withLock { $0 }
        let name = try SetLocation(set)
        var request = ForgetRequest(set: name.set)
        request.points = (name.set == set ? [] : [name.point]) + point
        request.policy = RetentionPolicy(
            last: keepLast ?? 0, hourly: keepHourly ?? 0, daily: keepDaily ?? 0, weekly: keepWeekly ?? 0,
            monthly: keepMonthly ?? 0, yearly: keepYearly ?? 0)
        request.isRehearsal = dryRun
        request.prune = prune ? PruneOptions() : nil
        request.also = places.also
        let result = try Keeping.forget(request, keys: key.ring(), events: console.events)
        console.document("forget", Document(result, dryRun))
        var table = TextTable(["", "point", "made (UTC)", "machine and disks", "name", "why"])
        for entry in result.plan.retention.entries {
            table.add([
                entry.stays ? "keep" : "remove", entry.point.shortID, Clock.text(entry.point.facts.time),
                entry.machine, entry.point.facts.name, entry.reasons.joined(separator: ", "),
            ])
        }
        for id in result.plan.unreadable { table.add(["remove", String(id.prefix(10)), "", "", "", "named; damaged"]) }
        table.lines.forEach { console.line($0) }
        let removed = result.plan.retention.removed.count + result.plan.unreadable.count
        let points = "\(removed) recovery \(removed == 1 ? "point" : "points")"
        if dryRun {
            console.line("\(points) would be removed. Nothing was changed.")
        } else {
            console.line(
                "\(points) removed."
                    + (prune || removed == 0
                        ? ""
                        : " The space is freed by `relight prune \(SetPlace.words(name.set, places.also))"
                            + "\(result.plan.leavesNothing ? " --all-points-forgotten" : "")`."))
        }
        if let report = result.prune { PruneCommand.show(report, console) }
    }

    private struct Document: Encodable {
        let dryRun: Bool
        let points: [Point]
        let findings: [Finding]
        let prune: PruneDocument?

        struct Point: Encodable {
            let id: String
            let number: UInt64?
            let name: String?
            let machine: String?
            let time: UInt64?
            let keep: Bool
            let reasons: [String]
        }

        init(_ result: ForgetResult, _ dryRun: Bool) {
            self.dryRun = dryRun
            points =
                result.plan.retention.entries.map { entry in
                    Point(
                        id: entry.point.id, number: entry.point.number, name: entry.point.facts.name,
                        machine: entry.machine, time: entry.point.facts.time, keep: entry.stays,
                        reasons: entry.reasons)
                }
                + result.plan.unreadable.map {
                    Point(
                        id: $0, number: nil, name: nil, machine: nil, time: nil, keep: false,
                        reasons: ["named", "damaged"])
                }
            findings = result.plan.findings
            prune = result.prune.map { PruneDocument($0) }
        }
    }
}
