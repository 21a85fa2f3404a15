// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import ArgumentParser
import Findings
import Geometry
public import ImageStore
public import Imaging
import Operations
import Synchronization

extension ReadErrorPolicy: ExpressibleByArgument {}
extension PointFacts.Comparison: ExpressibleByArgument {}
extension NewEncryption.Cipher: ExpressibleByArgument {}

/// `relight backup`.
struct BackupCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup", abstract: "Makes a recovery point of one or more disks in an image set.",
        discussion: """
            Only used blocks are read and stored; what the set holds already is not stored again, so a second backup of \
            the same disk is an incremental one and still complete in itself. The source is opened read-only, and a disk \
            that is mounted for writing is refused. The point exists only once everything was written, read back and \
            sealed; an interrupted backup leaves no point, and the next run takes over what it stored. Of the folder's path only \
            the last one is made: a disk that is not mounted is noticed.

            What only free space holds is not in the image: deleted files, and those that only a Windows volume's shadow \
            copies still show (a warning says so). --whole N images all of partition N.

              relight backup /dev/sda --to /mnt/usb/machines
              relight backup serial:S3Z9 --to label:BACKUPS/web01 --name "before the upgrade"
            """)

    @Argument(help: "Disks: paths, serial:X, wwn:X, size:BYTES, label:X, uuid:X, or image files.") var disks: [String]
    @Option(help: ArgumentHelp("The image set: a folder, or label:NAME/folder. Made if missing.", valueName: "set"))
    var to: String
    @Option(help: "A name for the recovery point.") var name = ""
    @Option(help: ArgumentHelp("Image only this partition (repeatable); DISK:N with several disks.", valueName: "n"))
    var volume: [String] = []
    @Option(
        help: ArgumentHelp(
            "Image all of this partition, free space too (repeatable); DISK:N with several disks.", valueName: "n"))
    var whole: [String] = []
    @OptionGroup var unlock: UnlockOptions
    @Option(help: ArgumentHelp("Compression: fast, default, best, off, or 1 … 19.", valueName: "level"))
    var level = "default"
    @Option(
        help: ArgumentHelp(
            """
            What is compared with the last point: full reads everything in use; metadata leaves out files of ext \
            filesystems whose inodes are as they were (recorded in the point; it trusts the clock and cannot see a \
            change that a crash robbed of its time).
            """, valueName: "full|metadata"))
    var compare = PointFacts.Comparison.full
    @Option(help: "An unreadable sector: fail, or skip (recorded, zeros in the image, exit code 3).")
    var onReadError = ReadErrorPolicy.fail
    @Option(help: ArgumentHelp("How often an unreadable sector is tried again, to and fro.", valueName: "n"))
    var readRetries = 2
    @Option(help: ArgumentHelp("Seconds for one bad place before the rest of it is given up.", valueName: "s"))
    var badPlaceTime = 30
    @Option(help: ArgumentHelp("Seconds for all bad places together.", valueName: "s"))
    var badTime = 600
    @Flag(help: "Do not read the set back before the point is sealed.") var noVerify = false
    @OptionGroup var places: PlaceOptions
    @Flag(help: "Encrypt a set that is made now; asks for a passphrase unless one of the next two is given.")
    var encrypt = false
    @OptionGroup var key: KeyOptions
    @Option(help: ArgumentHelp("How a new set is encrypted: aes256 (default) or aes128.", valueName: "cipher"))
    var cipher: NewEncryption.Cipher?
    @Option(
        help: ArgumentHelp(
            "Parity in each pack of a new set, from which `relight repair` mends damage: 1 … 50 percent.",
            valueName: "percent"))
    var protect: Int?
    @Option(help: ArgumentHelp("Unit size of a new set: 64K or 16K.", valueName: "size")) var unitSize: String?
    @Option(help: ArgumentHelp("Size no pack exceeds, e.g. 256M; 1 MiB … 4 GiB − 1.", valueName: "size"))
    var packSize: String?
    @OptionGroup var options: DiskOptions

    func validate() throws {
        if cipher != nil, !encrypt, key.passphraseFile == nil, key.keyFile == nil {
            throw ValidationError("--cipher belongs to --encrypt.")
        }
        // A line end in a name could forge the lines that scripts look for.
        if name.unicodeScalars.contains(where: { $0.value < 0x20 || (0x7F...0x9F).contains($0.value) }) {
            throw ValidationError("--name has a control character, such as a line end, in it.")
        }
    }

    func run() throws {
        let console = Console.current.withLock { $0 }
        let compression = try SetWords.compression(level)
        guard !disks.isEmpty else {
            throw Fault(.usage, what: "No disk is named.", remedy: "`relight disks` lists the disks of this machine.")
        }
        var request = BackupRequest(disks: disks, set: to)
        request.also = places.also
        request.name = name
        request.volumes = volume
        request.wholes = whole
        request.unlocking = try unlock.unlocking()
        request.compression = compression
        request.compare = compare
        request.onReadError = onReadError
        guard (0...1000).contains(readRetries), (0...1_000_000).contains(badPlaceTime),
            (0...10_000_000).contains(badTime)
        else {
            throw Fault(
                .usage, what: "A number of retries or seconds for bad places is out of range.",
                remedy: "Use 0 … 1000 retries and at most 1000000 seconds for a place, 10000000 for all.")
        }
        request.effort.retries = readRetries
        request.effort.regionTime = .seconds(badPlaceTime)
        request.effort.totalTime = .seconds(badTime)
        request.readBack = !noVerify
        request.fileSectorSize = try options.size()
        try choose(&request)
        let began = Clock.monotonic()
        let result = try Backup.run(request, events: console.events)
        let seconds = Clock.monotonic() - began
        let sums = result.statistics
        console.document("backup", Document(result, console.findings, seconds))
        console.line("Recovery point \(result.point.shortID)\(name.isEmpty ? "" : " \"\(name)\"") in \(to)")
        console.line(
            "  \(sums.read) read, \(sums.skipped > .zero ? "\(sums.skipped) skipped, " : "")\(sums.new) new, \(sums.shared) shared with what the set held, \(sums.zero) all zeros; "
                + "\(sums.stored) written in \(Clock.words(seconds))")
        if noVerify { console.line("  not read back (--no-verify): run `relight verify \(to)` before relying on it") }
        if result.point.unreadable > .zero {
            console.line("  \(result.point.unreadable) of the source could not be read; see the findings above.")
        }
    }

    /// What belongs to a set that is made now.
    private func choose(_ request: inout BackupRequest) throws(Fault) {
        // Read once: a file of the passphrase may be on a filesystem that is mounted for the look.
        let given = try key.given()
        request.keys = key.ring(given)
        request.newKeys = key.newRing(given)
        if encrypt || key.passphraseFile != nil || key.keyFile != nil {
            request.encryption = NewEncryption(cipher ?? .aes256)
        }
        request.cipher = cipher
        if let protect { request.parity = try SetWords.parity(protect) }
        if let unitSize { request.unitSize = try SetWords.unitSize(unitSize) }
        if let packSize { request.packSize = try SetWords.packSize(packSize) }
    }

    private struct Document: Encodable {
        let point: String
        let set: String
        let read: ByteCount
        let skipped: ByteCount
        let new: ByteCount
        let shared: ByteCount
        let zero: ByteCount
        let stored: ByteCount
        let unreadable: ByteCount
        let findings: [Finding]
        let seconds: Double

        init(_ result: BackupResult, _ findings: [Finding], _ seconds: Double) {
            point = result.point.id
            set = result.set
            (read, new, shared) = (result.statistics.read, result.statistics.new, result.statistics.shared)
            skipped = result.statistics.skipped
            (zero, stored, unreadable) = (result.statistics.zero, result.statistics.stored, result.point.unreadable)
            self.findings = findings
            self.seconds = (seconds * 1000).rounded() / 1000
        }
    }
}
