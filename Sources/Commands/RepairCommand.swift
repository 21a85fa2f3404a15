// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import Geometry
import ImageStore
import Operations
import Synchronization

/// `relight repair`.
struct RepairCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repair", abstract: "Finds damaged files of an image set and puts back what they held.",
        discussion: """
            Reads every file of the set and shows which can be repaired, and from what: the parity inside a pack (sets made \
            with `relight backup --protect`), other copies in this or another of its places, or what other files say. Nothing \
            is changed without --yes. \
            With it, each damaged file is made again beside the old one, compared with the hashes the set has of it, and \
            put in its place; that needs as much free space as the largest of them. A pack that stays damaged is marked: what is \
            sound in it can be restored, but no backup builds upon it, so that the next backup stores anew what its source \
            still holds of it; recovery points made before keep their damage. No key is needed; with the key of an \
            encrypted set, missing files are noticed too. Exit code 0 when the set is sound afterwards, else 5.

              relight repair /mnt/usb/machines
              relight repair /mnt/usb/machines --yes
            """)

    @Argument(help: ArgumentHelp("The image set.", valueName: "set")) var set: String
    @Flag(help: "Repair what can be repaired.") var yes = false
    @OptionGroup var places: PlaceOptions
    @OptionGroup var key: KeyOptions

    func run() throws {
        let console = Console.current.withLock { $0 }
        let began = Clock.monotonic()
        let secret = try key.given()
        let report = try RepairSet.run(
            set, also: places.also, keys: secret.map { KeyRing($0) }, apply: yes, events: console.events)
        console.document("repair", Document(report, applied: yes))
        let missing = Set(RepairSet.missingPacks(report))
        for item in report.items {
            if missing.contains(item.file) {
                console.line("MISSING \(item.file): not in the places that were named")
                continue
            }
            let word = item.size == nil && item.outcome == .planned ? "MISSING" : RepairCommand.word(item.outcome)
            let file = item.file + (item.place.map { " in \($0)" } ?? "")
            console.line("\(word) \(file): \(item.what)")
            switch item.outcome {
            case .planned: console.line("  can be repaired \(RepairCommand.from(item.source))")
            case .repaired:
                console.line("  repaired \(RepairCommand.from(item.source)): the bytes are again what they were")
            case .impossible(let why):
                console.line("  cannot be repaired: \(why)")
                if item.isCondemned { console.line("  marked: no backup builds upon it any more") }
                if item.source != nil, !yes { console.line("  a part of it can, \(RepairCommand.from(item.source))") }
            }
        }
        let scope = "\(report.files) files, \(report.read) read in \(Clock.words(Clock.monotonic() - began))"
        if report.items.isEmpty {
            console.line("Nothing is damaged: \(scope).")
            return
        }
        if report.repaired > 0 { console.line("\(RepairCommand.files(report.repaired)) repaired: \(scope).") }
        if report.planned > 0 {
            console.line(
                "\(RepairCommand.files(report.planned)) can be repaired: \(scope). Nothing was changed; add --yes to repair."
            )
        }
        if !missing.isEmpty {
            console.line(
                "\(missing.count) \(missing.count == 1 ? "pack is" : "packs are") not in the places that were named: name "
                    + "the medium that has \(missing.count == 1 ? "it" : "them") with --also PLACE.")
        }
        if report.impossible > missing.count {
            console.line(
                "\(RepairCommand.files(report.impossible - missing.count)) cannot be repaired: put \(report.impossible - missing.count == 1 ? "it" : "them") "
                    + "back from another copy of the set. `relight verify \(set)` tells what it costs.")
            let packs = report.items.contains { $0.file.hasSuffix(".pack") && $0.outcome != .repaired }
            if report.condemned > 0 {
                console.line(
                    "No backup builds upon what stays damaged any more: back the sources up again now, and what they still "
                        + "hold is stored anew. Recovery points made before keep their damage.")
            } else if packs, !yes {
                console.line(
                    "Backups go on building upon what is damaged there until `relight repair \(set) --yes` marks it; a new "
                        + "backup after that stores anew what the source still holds.")
            }
        }
        if !report.isSound { throw EarlyExit(code: .damaged) }
    }

    private static func files(_ count: Int) -> String { "\(count) \(count == 1 ? "file" : "files")" }

    private static func word(_ outcome: RepairReport.Outcome) -> String {
        switch outcome {
        case .planned: "DAMAGED"
        case .repaired: "REPAIRED"
        case .impossible: "LOST"
        }
    }

    private static func from(_ source: RepairReport.Source?) -> String {
        switch source {
        case .parity(let blocks):
            blocks == 0
                ? "from its own records and parity"
                : "from its own parity (\(blocks) damaged \(blocks == 1 ? "block" : "blocks") of 4 KiB)"
        case .copy(let other): "from \(other)"
        case .records: "from its own records"
        case .listing: "from a list of what is here"
        case .header, nil: "from a copy of the header"
        }
    }

    private struct Document: Encodable {
        let sound: Bool
        let applied: Bool
        let files: Int
        let read: ByteCount
        let items: [Item]

        struct Item: Encodable {
            let file: String
            let size: ByteCount?
            let what: String
            let condemned: Bool
            let source: String?
            let copy: String?
            let blocks: Int?
            let outcome: String
            let why: String?
        }

        init(_ report: RepairReport, applied: Bool) {
            (sound, files, read) = (report.isSound, report.files, report.read)
            self.applied = applied
            items = report.items.map { item in
                var (source, copy, blocks): (String?, String?, Int?) = (nil, nil, nil)
                switch item.source {
                case .parity(let count): (source, blocks) = ("parity", count)
                case .copy(let other): (source, copy) = ("copy", other)
                case .records: source = "records"
                case .listing: source = "listing"
                case .header: source = "header"
                case nil: break
                }
                var why: String?
                if case .impossible(let reason) = item.outcome { why = reason }
                return Item(
                    file: item.file, size: item.size, what: item.what, condemned: item.isCondemned, source: source,
                    copy: copy, blocks: blocks,
                    outcome: item.outcome == .planned ? "planned" : why == nil ? "repaired" : "impossible", why: why)
            }
        }
    }
}
