// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import FilesystemMaps
import Findings
import Geometry
import ImageStore
import Operations
import Synchronization
import Threads

/// `relight verify`.
struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Reads an image set back and checks every byte of it.",
        discussion: """
            Without a point, the whole set: every recovery point, every list, every stored frame is read, decompressed and \
            compared with its hash; what is damaged is read once more before it is called so. Damage is named by file and \
            place, and by the files of each volume that it costs; exit code 5. Less than everything:

              --quick    that everything named is there, in full length and with
                         sound heads
              --stored   every stored byte against the hashes the packs carry;
                         nothing is decrypted, no key is needed
              --share N  N of a hundred frames of each pack; a seed is printed, and
                         --seed gives it again. Seeds that follow each other read
                         other frames: with --share 5, twenty read every frame

            Without its key, an encrypted set is checked with --quick and --stored as far as that goes. Of a set in several \
            places (--also), every copy in every place is checked. SET@latest also reports points that cannot be read: one \
            of them may be newer.
            """)

    @Argument(help: ArgumentHelp("SET, or SET@POINT for what that point needs.", valueName: "set[@point]")) var point:
        String
    @Flag(help: "Check the structure only.") var quick = false
    @Flag(help: "Compare all stored bytes with the packs' own hashes; needs no key.") var stored = false
    @Option(help: ArgumentHelp("Read this share of the frames, 1 to 100.", valueName: "percent")) var share: Int?
    @Option(
        help: ArgumentHelp(
            "Which share: a number printed by an earlier run, or one that counts up.", valueName: "number"))
    var seed: UInt64?
    @OptionGroup var places: PlaceOptions
    @OptionGroup var key: KeyOptions

    func validate() throws {
        if [quick, stored, share != nil].count(where: { $0 }) > 1 {
            throw ValidationError("Give one of --quick, --stored and --share.")
        }
        if let share, !(1...100).contains(share) { throw ValidationError("--share is a number from 1 to 100.") }
        if seed != nil, share == nil { throw ValidationError("--seed belongs to --share.") }
    }

    private var depth: VerifyDepth { quick ? .quick : stored ? .stored : share != nil ? .share : .full }

    func run() throws {
        let console = Console.current.withLock { $0 }
        let name = try SetLocation(point)
        let whole = name.set == point
        // Nobody is asked for a passphrase where none is needed.
        let secret = try key.given()
        let locked = whole && secret == nil && (quick || stored)
        let opened = try OpenedSet(
            name.set, also: places.also, keys: locked ? .none : secret.map { KeyRing($0) } ?? key.ring(), locked: locked
        )
        defer { opened.close() }
        let chosen = whole ? nil : [name.point]
        let part = share.map { VerifyShare(percent: $0, seed: seed ?? .random(in: 0..<10_000)) }
        let began = Clock.monotonic()
        let report = try opened.reader.verify(
            depth, share: part, points: chosen, threads: Workers.processors, events: console.events)
        let seconds = Clock.monotonic() - began
        let lost = try LostNames(opened.reader).all(report)
        let missing = opened.place.missing(report.missingPacks, ofThoseNeededBy: "the points need")
        if let missing { console.receive(.finding(missing.warning)) }
        if report.isOrphaned { console.receive(.finding(VerifyCommand.orphaned(report, name.set))) }
        console.document("verify", Document(report, lost, console.findings))
        for reading in report.secondReadings {
            console.line("UNSTEADY \(reading.file) at byte \(reading.offset.bytes): \(VerifyReport.SecondReading.what)")
        }
        for damage in report.damages {
            let word = damage.isMissing ? "MISSING" : "DAMAGED"
            let place = damage.place.map { " in \($0)" } ?? ""
            console.line(
                "\(word) \(damage.file)\(place)\(damage.offset.map { " at byte \($0.bytes)" } ?? ""): \(damage.what)")
            if damage.pointLost { console.line("  a recovery point is lost") }
            for loss in damage.losses {
                let volume: Int? = if case .volume(let number) = loss.kind { number } else { nil }
                console.line(
                    "  costs point \(loss.point.prefix(10)): \(loss.extents.byteCount) of "
                        + "\(VerifyCommand.place(loss.disk, volume)), from byte "
                        + "\(loss.extents.extents.first?.start.bytes ?? 0)")
            }
        }
        for item in lost {
            let place = "point \(item.point.prefix(10)), \(VerifyCommand.place(item.disk, item.volume))"
            if let line = item.content?.line {
                console.line("LOST in \(place): \(line) (\(item.extents.byteCount.bytes) bytes)")
            } else {
                console.line("LOST in \(place): \(item.extents.byteCount.bytes) bytes; files cannot be named there")
            }
            for note in item.content?.notes ?? [] { console.line("  \(note)") }
        }
        conclude(report, Clock.words(seconds), console)
        if !report.condemned.isEmpty {
            let count = report.condemned.count
            console.line(
                "\(count) \(count == 1 ? "pack is" : "packs are") damaged, needed by no point and marked for removal: "
                    + "`relight prune \(SetPlace.words(name.set, places.also))` removes \(count == 1 ? "it" : "them").")
        }
        if !report.isSound {
            for line in VerifyCommand.verdict(report) { console.line(line) }
            if report.damages.contains(where: { !report.missingPacks.contains($0.file) }) {
                let set = SetPlace.words(name.set, places.also)
                console.line(
                    "`relight repair \(set)` shows what can be repaired. Then back the sources up again: after `relight repair "
                        + "\(set) --yes` a backup builds upon nothing that is damaged, and stores anew what its source still "
                        + "holds.")
            }
            throw EarlyExit(code: .damaged)
        }
    }

    /// What the damages come to.
    private static func verdict(_ report: VerifyReport) -> [String] {
        let damaged = report.damages.count - report.missingPacks.count
        var found: [String] = []
        if damaged > 0 { found.append("Damage was found in \(damaged) \(damaged == 1 ? "place" : "places")") }
        if !report.missingPacks.isEmpty {
            let count = report.missingPacks.count
            found.append("\(count) \(count == 1 ? "pack is" : "packs are") not in the places that were named")
        }
        let head = found.joined(separator: ", and ")
        guard report.isOpen else { return ["\(head); what it costs can be told with the key only."] }
        guard report.isComplete else {
            return ["\(head): what is listed above cannot be restored from here."]
        }
        var lines = [
            "\(head), but no recovery point lost anything that was looked at"
                + (report.lostKeySlots == 0 ? ": second copies are sound." : ".")
        ]
        if report.lostKeySlots > 0 {
            let slots = report.lostKeySlots == 1 ? "One key slot is" : "\(report.lostKeySlots) key slots are"
            lines.append(
                "\(slots) damaged in both copies: who has only that passphrase or key file cannot open the set any more. "
                    + "`relight key list` shows it, `relight key remove` takes it away.")
        }
        return lines
    }

    /// What to say of packs without any point.
    private static func orphaned(_ report: VerifyReport, _ set: String) -> Finding {
        let packs = "\(report.packs) \(report.packs == 1 ? "pack" : "packs") (\(report.packBytes))"
        return Finding(
            report.listPacks > 0 ? .loss : .warning, "set.no-point",
            what: "No recovery point is here, but \(packs) that none refers to: "
                + (report.listPacks > 0
                    ? "a backup was ended just before its end, all points were removed, or they are gone. Nothing can be "
                        + "restored from this set."
                    : "what an interrupted first backup left. Run that backup again: it goes on from there."),
            place: set)
    }

    /// What was checked and what was not.
    private func conclude(_ report: VerifyReport, _ seconds: String, _ console: Console) {
        let count = report.points.count + report.closedPoints
        var scope =
            "\(count) \(count == 1 ? "point" : "points"), \(report.packs) \(report.packs == 1 ? "pack" : "packs")"
        if report.depth == .full || report.depth == .share {
            scope += ", \(report.records) \(report.records == 1 ? "record" : "records")"
        }
        let isWhole = report.isSound && !report.isOrphaned
        if count == 0, report.packs == 0, report.isSound {
            return console.line("The set holds no recovery point yet.")
        }
        let verdict = isWhole ? "Sound" : "Looked at"
        switch report.depth {
        case .quick:
            console.line(
                "\(isWhole ? "The structure is sound" : verdict): \(scope). Nothing was read beyond it; run without --quick to check the data."
            )
        case .stored:
            console.line(
                "\(verdict): \(scope), \(report.read) of stored bytes compared with the packs' hashes, in \(seconds).")
            console.line(
                "The content was not decompressed\(report.isOpen ? "" : " or decrypted"); run without --stored to check it."
            )
        case .share:
            if let share = report.share {
                console.line(
                    "\(verdict): \(scope), \(report.read) of \(report.total) read, \(report.content) of content compared, in \(seconds)."
                )
                console.line(
                    "The rest was not read. This was the share of \(share.percent) % with seed \(share.seed); --seed \(share.seed &+ 1) reads others."
                )
            }
        case .full:
            console.line(
                "\(verdict): \(scope), \(report.read) read, \(report.content) of content compared, in \(seconds).")
        }
        if !report.isOpen {
            console.line(
                "The set is encrypted and was opened without its key: whether packs are missing, and what the points and lists say, was not checked."
            )
        }
        if !report.secondReadings.isEmpty {
            let count = report.secondReadings.count
            console.line(
                "\(count) \(count == 1 ? "place was" : "places were") \(VerifyReport.SecondReading.what.lowercased())")
        }
    }

    static func place(_ disk: Int, _ volume: Int?) -> String {
        "disk \(disk + 1), \(volume.map { $0 == 0 ? "all of it" : "volume \($0)" } ?? "outside the volumes")"
    }

    private struct Document: Encodable {
        let depth: VerifyDepth
        let sound: Bool
        let complete: Bool
        let points: [String]
        let packs: Int
        let records: Int
        let read: ByteCount
        let content: ByteCount
        let total: ByteCount?
        let share: VerifyShare?
        let opened: Bool
        let closedPoints: Int
        let keySlots: Int
        let lostKeySlots: Int
        let missingPacks: [String]
        let condemned: [String]
        let findings: [Finding]
        let readTwice: [Twice]
        let lost: [LostDocument]
        let damages: [Damage]

        struct Twice: Encodable {
            let file: String
            let offset: ByteCount
        }

        struct Damage: Encodable {
            let file: String
            let place: String?
            let offset: ByteCount?
            let what: String
            let pointLost: Bool
            let losses: [Loss]
        }
        struct Loss: Encodable {
            let point: String
            let disk: Int
            let volume: Int?
            let extents: ExtentList
        }

        init(_ report: VerifyReport, _ lost: [LostVolume], _ findings: [Finding]) {
            self.lost = lost.map(LostDocument.init)
            (share, opened, closedPoints) = (report.share, report.isOpen, report.closedPoints)
            total = report.depth == .quick ? nil : report.total
            keySlots = report.keySlots
            (lostKeySlots, missingPacks, condemned) = (
                report.lostKeySlots, report.missingPacks, report.condemned
            )
            self.findings = findings
            readTwice = report.secondReadings.map { Twice(file: $0.file, offset: $0.offset) }
            (depth, sound, complete) = (report.depth, report.isSound && !report.isOrphaned, report.isComplete)
            (packs, records, read, content) = (report.packs, report.records, report.read, report.content)
            points = report.points.map(\.id)
            damages = report.damages.map { damage in
                Damage(
                    file: damage.file, place: damage.place, offset: damage.offset, what: damage.what,
                    pointLost: damage.pointLost,
                    losses: damage.losses.map { loss in
                        let volume: Int? = if case .volume(let number) = loss.kind { number } else { nil }
                        return Loss(point: loss.point, disk: loss.disk, volume: volume, extents: loss.extents)
                    })
            }
        }
    }
}

/// What is lost of one volume, in JSON.
struct LostDocument: Encodable {
    let point: String
    let disk: Int
    let volume: Int?
    let bytes: ByteCount
    let extents: ExtentList
    let files: [Item]
    let more: Int
    let notes: [String]

    struct Item: Encodable {
        let kind: LostContent.Kind
        let name: String
        let bytes: ByteCount
    }

    init(_ lost: LostVolume) {
        (point, disk, volume) = (lost.point, lost.disk, lost.volume)
        (bytes, extents) = (lost.extents.byteCount, lost.extents)
        files = (lost.content?.items ?? []).map { Item(kind: $0.kind, name: $0.name, bytes: $0.bytes) }
        more = lost.content?.more ?? 0
        notes = lost.content?.notes ?? ["Files cannot be named there."]
    }
}
