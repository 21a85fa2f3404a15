// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import Geometry
import ImageStore
import MachineModel
import Operations
import RestorePlanning
import Synchronization

/// `relight points`.
struct PointsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "points", abstract: "Lists the recovery points of an image set.")

    @Argument(help: "The image set: a folder, or label:NAME/folder.") var set: String
    @OptionGroup var places: PlaceOptions
    @OptionGroup var key: KeyOptions

    func run() throws {
        let console = Console.current.withLock { $0 }
        let opened = try OpenedSet(set, also: places.also, keys: key.ring())
        defer { opened.close() }
        let listing = try opened.reader.points()
        console.document(
            "points", Document(set: set, points: listing.points.map(PointDocument.init), findings: listing.findings))
        var table = TextTable(["point", "made (UTC)", "machine", "in use", "unreadable", "disks", "name"])
        for point in listing.points {
            table.add([
                point.shortID, Clock.text(point.facts.time), point.facts.machine.words ?? "-", "\(point.used)",
                point.unreadable > .zero ? "\(point.unreadable)" : "-",
                point.facts.disks.map { disk in disk.path + (disk.serial.map { " (\($0))" } ?? "") }
                    .joined(separator: " "),
                point.facts.compare == .metadata ? "\(point.facts.name) (unchanged files not read)" : point.facts.name,
            ])
        }
        let isDamaged = listing.findings.contains { $0.severity == .loss }
        if !listing.points.isEmpty {
            table.lines.forEach { console.line($0) }
        } else if !isDamaged {
            let packs = try opened.reader.packs()
            console.line(
                packs.count == 0
                    ? "The set holds no recovery point yet."
                    : "The set holds no recovery point, but \(packs.count) \(packs.count == 1 ? "pack" : "packs") "
                        + "(\(packs.size)) that none refers to: an interrupted first backup, or the points are gone. "
                        + "`relight verify \(set)` tells which.")
        }
        for finding in listing.findings { console.receive(.finding(finding)) }
        if isDamaged {
            console.errorLine(
                "A recovery point cannot be read. Run `relight verify \(set)`, and put the files named above back "
                    + "from a copy of the set.")
            throw EarlyExit(code: .damaged)
        }
    }

    private struct Document: Encodable {
        let set: String
        let points: [PointDocument]
        let findings: [Finding]
    }
}

/// A point in JSON.
struct PointDocument: Encodable {
    let id: String
    let number: UInt64
    let name: String
    let time: UInt64
    let made: String
    let used: ByteCount
    let unreadable: ByteCount
    let tool: String
    let machine: MachineFacts
    /// The machine in words; `nil` when its firmware tells nothing.
    let machineName: String?
    let disks: [DiskModel]
    let findings: [Finding]
    /// `full`, or `metadata` where what metadata said is unchanged was not read.
    let compare: PointFacts.Comparison
    /// The point it is a copy of.
    let origin: PointFacts.Origin?
    /// The places that could not be read; only `show` lists them.
    let unreadableExtents: [Unreadable]?

    init(_ point: PointSummary) { self.init(point, unreadable: nil) }

    init(_ point: PointSummary, unreadable extents: [Unreadable]?) {
        unreadableExtents = extents
        compare = point.facts.compare ?? .full
        origin = point.facts.origin
        machineName = point.facts.machine.words
        (id, number, name) = (point.id, point.number, point.facts.name)
        (time, made) = (point.facts.time, Clock.text(point.facts.time))
        (used, unreadable, tool, machine) = (point.used, point.unreadable, point.facts.tool, point.facts.machine)
        (disks, findings) = (point.facts.disks, point.facts.findings)
    }
}

/// Bytes of a volume that could not be read when its point was made.
struct Unreadable: Encodable {
    /// Which of the point's disks, counted from 1.
    let disk: Int
    /// The partition's number, 0 for a whole disk; `nil` for what lies outside the volumes.
    let volume: Int?
    /// Counted from the start of the volume, or of the disk.
    let extents: ExtentList

    static func all(_ point: RecoveryPoint) -> [Unreadable] {
        point.streams.filter { !$0.unreadable.isEmpty }.map { stream in
            let volume: Int? = if case .volume(let number) = stream.description.kind { number } else { nil }
            return Unreadable(disk: stream.description.disk + 1, volume: volume, extents: stream.unreadable)
        }
    }
}

extension Clock {
    /// `2026-11-21 03:04:05`, UTC.
    static func text(_ seconds: UInt64) -> String { UTC.text(seconds) }
}

/// `relight show`.
struct ShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Describes a recovery point: its machine, disks and volumes, and what was skipped.")

    @Argument(
        help: ArgumentHelp("SET or SET@POINT; POINT is the beginning of an id, or latest.", valueName: "set[@point]"))
    var point: String
    @OptionGroup var places: PlaceOptions
    @OptionGroup var key: KeyOptions

    func run() throws {
        let console = Console.current.withLock { $0 }
        let name = try SetLocation(point)
        let opened = try OpenedSet(name.set, also: places.also, keys: key.ring())
        defer { opened.close() }
        let point = try opened.point(name.point, console)
        let facts = point.facts
        console.document("point", PointDocument(point.summary, unreadable: Unreadable.all(point)))
        console.line("Recovery point \(point.summary.id)\(facts.name.isEmpty ? "" : " \"\(facts.name)\"")")
        console.line("  made \(Clock.text(facts.time)) UTC by Relight \(facts.tool)")
        let machine = [
            facts.machine.product, facts.machine.serial.map { "serial \($0)" },
            facts.machine.firmware.map { "\($0.rawValue.uppercased()) firmware" },
        ].compactMap { $0 }
        if !machine.isEmpty { console.line("  on \(machine.joined(separator: ", "))") }
        console.line("  \(point.summary.used) in use")
        if let origin = facts.origin {
            console.line("  a copy of point \(origin.point) of the set \(origin.set)")
        }
        if facts.compare == .metadata {
            console.line(
                "  made with --compare metadata: what the filesystems said was unchanged was not read but taken over from "
                    + "the point before")
        }
        for disk in facts.disks {
            console.line()
            for line in DisksCommand.lines(DiskListing(path: disk.path, model: disk)) { console.line(line) }
        }
        if let missing = try opened.missingPacks(of: point) { console.receive(.finding(missing.warning)) }
        for finding in facts.findings where finding.severity != .notice || finding.code != "volume.imaged-whole" {
            console.line("  \(finding.severity.rawValue): \(finding)")
        }
        if point.summary.unreadable > .zero {
            console.line(
                "  \(point.summary.unreadable.bytes) bytes could not be read when the point was made; zeros stand there."
            )
        }
    }
}
