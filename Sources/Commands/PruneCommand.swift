// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import Geometry
import ImageStore
import Operations
import Synchronization

/// `relight prune`.
struct PruneCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prune", abstract: "Frees the space in an image set that no recovery point needs.",
        discussion: """
            Packs that nothing needs are removed; from packs that hold much that is not needed, what is needed is moved \
            into new packs. That takes the space of one pack at most; on a full medium, packs nothing needs are removed \
            first. May be interrupted and run again at any time. While a backup into the set runs, packs it might build \
            upon stay. What an interrupted backup stored goes too: the next one stores it again.

            Every recovery point must be readable, and all it needs be here: else nobody knows what may go, and nothing is \
            removed. A set that lies in several places needs all of them, each other one named with --also. Where there \
            are packs but no recovery point, --all-points-forgotten must say that there is none anywhere.
            """)

    @Argument(help: ArgumentHelp("The image set.", valueName: "set")) var set: String
    @Flag(help: "Show what would be done; write nothing.") var dryRun = false
    @Option(
        help: ArgumentHelp("Rewrite packs of which at least this percentage is not needed.", valueName: "percent"))
    var garbage = PruneOptions().garbagePercent
    @Option(
        help: ArgumentHelp(
            "Hours after which a pack marked for removal goes even though a backup runs.", valueName: "hours"))
    var grace = 24
    @Flag(
        help: """
            No recovery point of the set is left anywhere (all were removed, or none was ever finished): remove what is \
            stored though no point is here.
            """)
    var allPointsForgotten = false
    @OptionGroup var places: PlaceOptions
    @OptionGroup var key: KeyOptions

    func validate() throws {
        if !(1...100).contains(garbage) { throw ValidationError("--garbage is a percentage, 1 to 100.") }
        if !(0...87_600).contains(grace) { throw ValidationError("--grace is a number of hours, 0 to 87600.") }
    }

    func run() throws {
        let console = Console.current.withLock { $0 }
        var options = PruneOptions()
        options.isRehearsal = dryRun
        options.allPointsForgotten = allPointsForgotten
        options.garbagePercent = garbage
        options.grace = UInt64(grace) * 3600
        let report = try Keeping.prune(set, also: places.also, keys: key.ring(), options, events: console.events)
        console.document("prune", PruneDocument(report))
        PruneCommand.show(report, console)
    }

    /// The report for people.
    static func show(_ report: PruneReport, _ console: Console) {
        func count(_ packs: [PruneReport.Pack]) -> String { "\(packs.count) \(packs.count == 1 ? "pack" : "packs")" }
        console.line(
            "\(report.points) recovery \(report.points == 1 ? "point" : "points"); \(report.packs) packs of "
                + "\(report.stored), of which \(report.garbage) are not needed.")
        let would = report.isRehearsal ? "would be " : ""
        if !report.removed.isEmpty { console.line("  \(count(report.removed)) \(would)removed: nothing needs them") }
        if !report.rewritten.isEmpty {
            console.line("  \(count(report.rewritten)) \(would)rewritten: \(report.moved) \(would)moved to new packs")
        }
        var reasons: [(String, Int)] = []
        for pack in report.kept {
            if let index = reasons.firstIndex(where: { $0.0 == pack.reason }) {
                reasons[index].1 += 1
            } else {
                reasons.append((pack.reason, 1))
            }
        }
        for (reason, number) in reasons {
            console.line("  \(number) \(number == 1 ? "pack" : "packs") kept: \(reason)")
        }
        console.line(
            report.isRehearsal
                ? "About \(report.freed) would be freed. Nothing was changed." : "\(report.freed) freed.")
    }
}

/// What prune did, in JSON.
struct PruneDocument: Encodable {
    let dryRun: Bool
    let points: Int
    let packs: Int
    let stored: ByteCount
    let garbage: ByteCount
    let freed: ByteCount
    let moved: ByteCount
    let writers: Int
    let removed: [Pack]
    let rewritten: [Pack]
    let kept: [Pack]
    let findings: [Finding]

    struct Pack: Encodable {
        let name: String
        let size: ByteCount
        let garbage: ByteCount
        let reason: String?

        init(_ pack: PruneReport.Pack) {
            (name, size, garbage) = (pack.name, pack.size, pack.garbage)
            reason = pack.reason.isEmpty ? nil : pack.reason
        }
    }

    init(_ report: PruneReport) {
        (dryRun, points, packs) = (report.isRehearsal, report.points, report.packs)
        (stored, garbage, freed, moved) = (report.stored, report.garbage, report.freed, report.moved)
        writers = report.writers
        removed = report.removed.map { Pack($0) }
        rewritten = report.rewritten.map { Pack($0) }
        kept = report.kept.map { Pack($0) }
        findings = report.findings
    }
}
