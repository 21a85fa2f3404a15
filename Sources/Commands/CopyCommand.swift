// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import Geometry
import ImageStore
import Operations
import Synchronization

/// `relight copy`.
struct CopyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "copy", abstract: "Copies recovery points from one image set into another, only what is missing.",
        discussion: """
            Without a point all are copied, oldest first, each with its time and name, and with its number unless points of \
            other sets are there: then with one that keeps the newest the latest. A point that was copied \
            before is recognised and left alone, so an interrupted copy is finished by running it again; one whose packs are \
            missing in the target is copied anew. The source is only \
            read. Sets that are encrypted differ in all they store; the copy is then encrypted anew with the target's key. \
            With --like, the target becomes the same set as the source, which the same passphrases open: each run also copies \
            key slots that were added since. Those that were removed from the source are named, and open the target until \
            `relight key remove` removes them there too.

              relight copy /mnt/usb/machines /mnt/nas/machines
              relight copy label:BACKUPS/web01@latest /mnt/vault/web01 --like
              relight copy web01.tar /mnt/usb/machines
            """)

    @Argument(help: ArgumentHelp("SET, or SET@POINT for one point.", valueName: "set[@point]")) var point: String
    @Argument(help: ArgumentHelp("The set to copy into. Made if missing.", valueName: "set2")) var target: String
    @OptionGroup var places: PlaceOptions
    @Option(help: ArgumentHelp("Another place the target lies in, or goes on in (repeatable).", valueName: "place"))
    var toAlso: [String] = []
    @OptionGroup var key: KeyOptions
    @Flag(help: "Make the target the same set as the source: id, keys, passphrases. It must be empty, or such a copy.")
    var like = false
    @Flag(help: "Encrypt a target that is made now; asks for a passphrase unless one of the next two is given.")
    var encrypt = false
    @Option(help: ArgumentHelp("The target's passphrase: the first line of this file.", valueName: "file"))
    var toPassphraseFile: String?
    @Option(help: ArgumentHelp("The target's key file.", valueName: "file")) var toKeyFile: String?
    @Flag(help: "Copy an encrypted set into one that anybody can read.") var plain = false
    @Option(help: ArgumentHelp("How a new target is encrypted: aes256 (default) or aes128.", valueName: "cipher"))
    var cipher: NewEncryption.Cipher?
    @Option(
        help: ArgumentHelp(
            "Compression of what is encoded anew: fast, default, best, off, or 1 … 19.", valueName: "level"))
    var level = "default"
    @Option(help: ArgumentHelp("Parity in each pack of a new target: 1 … 50 percent.", valueName: "percent"))
    var protect: Int?
    @Option(
        help: ArgumentHelp("Unit size of a new target, 64K or 16K; as the source's when left out.", valueName: "size"))
    var unitSize: String?
    @Option(help: ArgumentHelp("Size no pack exceeds, e.g. 256M.", valueName: "size")) var packSize: String?
    @Flag(help: "Also write a catalogue, for places that cannot list, such as a plain HTTP server.") var catalogue =
        false
    @Flag(help: "Do not read back what was written.") var noVerify = false

    func validate() throws {
        if toPassphraseFile != nil, toKeyFile != nil {
            throw ValidationError("Give a passphrase file or a key file, not both.")
        }
        if like, encrypt || plain || protect != nil || unitSize != nil {
            throw ValidationError("--like takes everything from the source: leave the other options of a new set out.")
        }
        if cipher != nil, !encrypt, toPassphraseFile == nil, toKeyFile == nil {
            throw ValidationError("--cipher belongs to --encrypt.")
        }
        if plain, encrypt { throw ValidationError("Give --plain or --encrypt, not both.") }
    }

    func run() throws {
        let console = Console.current.withLock { $0 }
        let name = try SetLocation(point)
        var request = CopyRequest(from: name.set, to: target)
        request.sourceAlso = places.also
        request.targetAlso = toAlso
        request.options.point = name.set == point ? nil : name.point
        request.options.like = like
        request.options.allowPlain = plain
        request.options.readBack = !noVerify
        request.catalogue = catalogue
        request.sourceKeys = try key.ring()
        let secret = try KeyOptions.read(passphraseFile: toPassphraseFile, keyFile: toKeyFile)
        request.targetKeys = key.ring(secret)
        request.newKeys = key.newRing(secret)
        if encrypt || toPassphraseFile != nil || toKeyFile != nil, !like {
            request.options.writing.encryption = NewEncryption(cipher ?? .aes256)
        }
        request.options.writing.compression = try SetWords.compression(level)
        request.options.writing.parity =
            try protect.map { (percent) throws(Fault) in try SetWords.parity(percent) } ?? 0
        request.cipher = cipher
        request.parity = protect
        if let unitSize {
            request.options.writing.unitSize = try SetWords.unitSize(unitSize)
            request.unitSize = request.options.writing.unitSize
            request.options.keepUnitSize = false
        }
        if let packSize { request.options.writing.packSize = try SetWords.packSize(packSize) }
        let began = Clock.monotonic()
        let report = try CopySet.run(request, events: console.events)
        let seconds = Clock.monotonic() - began
        console.document("copy", Document(report, target, console.findings, seconds))
        for copied in report.copied {
            let sums = copied.statistics
            console.line(
                "Point \(copied.source.shortID)\(CopyCommand.named(copied.source)) is \(copied.copy.shortID) in \(target): "
                    + "\(sums.new) new, \(sums.shared) shared with what it held; \(sums.stored) written")
        }
        if !report.present.isEmpty {
            console.line(
                "\(report.present.count) \(report.present.count == 1 ? "point was" : "points were") there already.")
        }
        if report.copied.isEmpty, report.present.isEmpty, report.failed.isEmpty, report.findings.isEmpty {
            console.line("The source holds no recovery point yet.")
        }
        for finding in report.findings { console.receive(.finding(finding)) }
        for failed in report.failed {
            console.errorLine(
                "Point \(failed.point.shortID)\(CopyCommand.named(failed.point)) was not copied: \(failed.fault)")
        }
        if !report.copied.isEmpty {
            console.line("Copied in \(Clock.words(seconds)).")
            if noVerify {
                console.line("Not read back (--no-verify): run `relight verify \(target)` before relying on it.")
            }
        }
        if !report.failed.isEmpty || !report.findings.isEmpty { throw EarlyExit(code: .damaged) }
    }

    private static func named(_ point: PointSummary) -> String {
        point.facts.name.isEmpty ? "" : " \"\(String(point.facts.name.map { $0.isNewline ? "?" : $0 }))\""
    }

    private struct Document: Encodable {
        let target: String
        let copied: [Copied]
        let present: [String]
        let failed: [Failed]
        let findings: [Finding]
        let seconds: Double

        struct Copied: Encodable {
            let source: String
            let point: String
            let number: UInt64
            let name: String
            let read: ByteCount
            let new: ByteCount
            let shared: ByteCount
            let zero: ByteCount
            let stored: ByteCount
            let verbatim: Bool
        }
        struct Failed: Encodable {
            let point: String
            let code: String
            let what: String
        }

        init(_ report: CopyReport, _ target: String, _ findings: [Finding], _ seconds: Double) {
            self.target = target
            copied = report.copied.map { point in
                let sums = point.statistics
                return Copied(
                    source: point.source.id, point: point.copy.id, number: point.copy.number,
                    name: point.copy.facts.name, read: sums.read, new: sums.new, shared: sums.shared, zero: sums.zero,
                    stored: sums.stored, verbatim: point.verbatim)
            }
            present = report.present.map(\.id)
            failed = report.failed.map { Failed(point: $0.point.id, code: $0.fault.code.rawValue, what: $0.fault.what) }
            self.findings = report.findings + findings
            self.seconds = (seconds * 1000).rounded() / 1000
        }
    }
}
