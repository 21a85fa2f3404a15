// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
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
            compared with its hash. With --quick only the structure: that everything named is there, in full length and \
            with sound heads. Damage is named by file, place and what of which volume it costs; exit code 5.
            """)

    @Argument(help: ArgumentHelp("SET, or SET@POINT for what that point needs.", valueName: "set[@point]")) var point:
        String
    @Flag(help: "Check the structure only.") var quick = false
    @OptionGroup var places: PlaceOptions
    @OptionGroup var key: KeyOptions

    func run() throws {
        let console = Console.current.withLock { $0 }
        let name = try SetLocation(point)
        let opened = try OpenedSet(name.set, also: places.also, keys: key.ring())
        defer { opened.close() }
        let whole = name.set == point
        let chosen = whole ? nil : [try opened.reader.point(name.point).summary.id]
        let began = Clock.monotonic()
        let report = try opened.reader.verify(
            quick ? .quick : .full, points: chosen, threads: Workers.processors, events: console.events)
        let seconds = Clock.monotonic() - began
        console.document("verify", Document(report))
        for damage in report.damages {
            console.line("DAMAGED \(damage.file)\(damage.offset.map { " at byte \($0.bytes)" } ?? ""): \(damage.what)")
            if damage.pointLost { console.line("  a recovery point is lost") }
            for loss in damage.losses {
                let disk = "disk \(loss.disk + 1)"
                let place =
                    if case .volume(let number) = loss.kind { "\(disk), volume \(number)" } else {
                        "\(disk), outside the volumes"
                    }
                console.line(
                    "  costs point \(loss.point.prefix(10)): \(loss.extents.byteCount) of \(place), from byte "
                        + "\(loss.extents.extents.first?.start.bytes ?? 0)")
            }
        }
        let scope =
            "\(report.points.count) \(report.points.count == 1 ? "point" : "points"), \(report.packs) packs, \(report.records) records"
        if report.isSound {
            console.line(
                quick
                    ? "The structure is sound: \(scope). Nothing was read beyond it; run without --quick to check the data."
                    : "Sound: \(scope), \(report.read) read, \(report.content) of content compared, in \(Clock.words(seconds))."
            )
        } else {
            console.line(
                report.isComplete
                    ? "Damage was found in \(report.damages.count) places, but no recovery point lost anything: second copies are sound."
                    : "Damage was found in \(report.damages.count) places: what is listed above cannot be restored from this set."
            )
            console.line("`relight repair \(name.set)` shows what can be repaired.")
            throw EarlyExit(code: .damaged)
        }
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
        let damages: [Damage]

        struct Damage: Encodable {
            let file: String
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

        init(_ report: VerifyReport) {
            (depth, sound, complete) = (report.depth, report.isSound, report.isComplete)
            (packs, records, read, content) = (report.packs, report.records, report.read, report.content)
            points = report.points.map(\.id)
            damages = report.damages.map { damage in
                Damage(
                    file: damage.file, offset: damage.offset, what: damage.what, pointLost: damage.pointLost,
                    losses: damage.losses.map { loss in
                        let volume: Int? = if case .volume(let number) = loss.kind { number } else { nil }
                        return Loss(point: loss.point, disk: loss.disk, volume: volume, extents: loss.extents)
                    })
            }
        }
    }
}
