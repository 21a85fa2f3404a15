// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import Geometry
import ImageStore
import Operations
import Synchronization

/// `relight archive`.
struct ArchiveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "archive", abstract: "Writes a recovery point into one file that holds everything it needs.",
        discussion: """
            The file is a tar archive of an image set with this one point. It is read in place wherever a SET is: points, \
            show, verify, plan, restore and copy take it; and `tar -xf` makes a folder of it that is a set. An encrypted set \
            gives an encrypted archive that the same passphrase opens. Nothing that exists is overwritten; the file has its \
            name only once it was read back whole.

              relight archive /mnt/usb/machines@latest /mnt/nas/web01.tar
              relight archive machines@3f2a web01.tar --split 4000M
            """)

    @Argument(help: ArgumentHelp("SET or SET@POINT.", valueName: "set[@point]")) var point: String
    @Argument(help: ArgumentHelp("The file to make.", valueName: "file")) var file: String
    @Option(
        help: ArgumentHelp("Write parts of at most this size, FILE.001, FILE.002, …; 4000M for FAT.", valueName: "size")
    )
    var split: String?
    @Flag(help: "Do not read the archive back.") var noVerify = false
    @OptionGroup var places: PlaceOptions
    @OptionGroup var key: KeyOptions

    func run() throws {
        let console = Console.current.withLock { $0 }
        var partSize: ByteCount?
        if let split {
            guard let size = SizeText.parse(split), size >= .kibibytes(64) else {
                throw Fault(
                    .usage, what: "\"\(split)\" is no size of a part.",
                    remedy: "Use 64K or more, such as 650M, or 4000M for FAT.")
            }
            partSize = size
        }
        let name = try SetLocation(point)
        let opened = try OpenedSet(name.set, also: places.also, keys: key.ring())
        defer { opened.close() }
        let began = Clock.monotonic()
        let report = try ArchivePoint.run(
            try opened.point(name.point, console), of: opened, to: file, partSize: partSize, readBack: !noVerify,
            events: console.events)
        let seconds = Clock.monotonic() - began
        console.document("archive", Document(report, !noVerify, console.findings, seconds))
        let last = report.files.count > 1 ? " to \(report.files.last ?? "")" : ""
        console.line(
            "Point \(report.source.shortID)\(report.source.facts.name.isEmpty ? "" : " \"\(report.source.facts.name)\"") is in "
                + "\(report.files.first ?? file)\(last) as \(report.point.shortID): \(report.size) in "
                + "\(Clock.words(seconds))")
        console.line(
            noVerify
                ? "  not read back (--no-verify): run `relight verify \(file)` before relying on it"
                : "  read back and sound; `relight restore \(file) --to DISK` restores it")
    }

    private struct Document: Encodable {
        let source: String
        let point: String
        let files: [String]
        let size: ByteCount
        let read: ByteCount
        let stored: ByteCount
        let verified: Bool
        let findings: [Finding]
        let seconds: Double

        init(_ report: ArchiveReport, _ verified: Bool, _ findings: [Finding], _ seconds: Double) {
            (source, point, files, size) = (report.source.id, report.point.id, report.files, report.size)
            (read, stored) = (report.statistics.read, report.statistics.stored)
            self.verified = verified
            self.findings = findings
            self.seconds = (seconds * 1000).rounded() / 1000
        }
    }
}
