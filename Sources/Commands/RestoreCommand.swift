// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import ArgumentParser
import Blocks
import Findings
import FoundationEssentials
import Geometry
import Glibc
import ImageStore
import MachineModel
import Operations
public import RestorePlanning
public import Restoring
import Synchronization
import Threads

extension LayoutMode: ExpressibleByArgument {
    /// Those this version has.
    public static var allValueStrings: [String] {
        allCases.filter { $0 != .proportional }.map(\.rawValue)
    }
}
extension OnDamage: ExpressibleByArgument {}
extension ReadBack: ExpressibleByArgument {}

/// Where a restore goes and how.
struct TargetOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "A target disk (repeatable); DISK=N sends the point's disk number N there.", valueName: "disk"))
    var to: [String] = []
    @Option(
        help: """
            keep: same starts and sizes, the rest free. exact: table and offsets as they were. fill: the last ext volume \
            takes all extra room.
            """)
    var layout: LayoutMode?
    @OptionGroup var disks: DiskOptions

    func request() throws(Fault) -> PlanRequest {
        guard !to.isEmpty else {
            throw Fault(
                .usage, what: "No target disk is named.",
                remedy: "Name one with `--to DISK`; `relight disks` lists the disks of this machine.")
        }
        return PlanRequest(targets: to, layout: layout, fileSectorSize: try disks.size())
    }
}

/// Makes the plan, turning every reason against it into one refusal.
func makePlan(
    _ point: RecoveryPoint, of set: OpenedSet, _ targets: TargetOptions, onDamage: OnDamage = .fail
) throws -> RestorePlan {
    do {
        return try Restore.plan(point, of: set, try targets.request(), onDamage: onDamage)
    } catch let refusal as PlanRefusal {
        throw Refused(reasons: refusal.reasons)
    }
}

/// `relight plan`.
struct PlanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan", abstract: "Shows what a restore would do. Nothing is written to any disk.",
        discussion: """
            The plan is printed as a picture before and after, to scale, and as a table with the reason of each decision. \
            With -o it is also stored; `relight restore --plan FILE` carries exactly that plan out, and refuses when the \
            target is another disk than the one it was made for.
            """)

    @Argument(help: ArgumentHelp("SET or SET@POINT.", valueName: "set[@point]")) var point: String
    @OptionGroup var targets: TargetOptions
    @OptionGroup var places: PlaceOptions
    @OptionGroup var key: KeyOptions
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("Store the plan.", valueName: "file")) var output:
        String?

    func run() throws {
        let console = Console.current.withLock { $0 }
        let name = try SetLocation(point)
        let opened = try OpenedSet(name.set, also: places.also, keys: key.ring())
        defer { opened.close() }
        let plan = try makePlan(
            try opened.point(name.point, console, warning: name.set == point), of: opened, targets)
        if let output { try PlanFile.write(plan, to: output) }
        console.document("plan", plan)
        for line in plan.lines() { console.line(line) }
        if let output { console.line("Stored in \(output); carry it out with `relight restore --plan \(output)`.") }
    }
}

/// A plan in a file.
enum PlanFile {
    static func write(_ plan: RestorePlan, to path: String) throws(Fault) {
        func failed(_ problem: Int32) -> Fault {
            Fault(
                .system, what: "The plan cannot be stored: \(errorText(problem)).", place: path,
                remedy: "Name a file in a folder that exists and may be written to.")
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(plan) else { throw failed(EINVAL) }
        // A disk named by mistake must not be overwritten with a text.
        var status = stat()
        if unsafe stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            throw Fault(
                .wrongKind, what: "The plan cannot be stored there: it is not a file.", place: path,
                remedy: "Name a file for the plan; targets are named with --to.")
        }
        do {
            try data.write(to: URL(filePath: path), options: .atomic)
        } catch {
            throw failed(errno)
        }
    }

    static func read(_ path: String) throws(Fault) -> RestorePlan {
        var status = stat()
        guard unsafe stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_size < 64 << 20,
            let data = try? Data(contentsOf: URL(filePath: path))
        else {
            throw Fault(
                .missing, what: "There is no stored plan that can be read.", place: path,
                remedy: "Check the name, or make a plan with `relight plan -o FILE`.")
        }
        let plan: RestorePlan
        do {
            plan = try JSONDecoder().decode(RestorePlan.self, from: data)
        } catch {
            throw Fault(
                .usage, what: "This is no restore plan.", place: path, remedy: "Make one with `relight plan -o FILE`.")
        }
        guard plan.plan == 1 else {
            throw Fault(
                .usage, what: "The plan has version \(plan.plan); this program knows version 1.", place: path,
                remedy: "Make the plan again with this program.")
        }
        try plan.requireSound()
        return plan
    }
}

/// `relight restore`.
struct RestoreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore", abstract: "Restores a recovery point to bare disks, and reads back what it wrote.",
        discussion: """
            Shows the plan, asks for the target's serial number or size (or takes --yes), and then: takes the old table \
            away, writes the data, reads everything back and compares it, writes the new table last, grows what the plan \
            grows, and has the checkers of ext, FAT, XFS and NTFS look where they are installed. A restore that was cut off \
            leaves a disk without a table.

              relight restore /mnt/usb/machines --to /dev/sdb
              relight restore label:BACKUPS/web01@3f2a --to serial:NEW1 --layout fill --yes

            Boot repair and adaptation to other hardware are not in this version: --no-repair and --no-adapt say nothing \
            new. A system whose initramfs has all drivers starts on other controllers as it is.
            """)

    @Argument(help: ArgumentHelp("SET or SET@POINT; not with --plan.", valueName: "set[@point]")) var point: String?
    @OptionGroup var targets: TargetOptions
    @OptionGroup var places: PlaceOptions
    @OptionGroup var key: KeyOptions
    @Option(help: ArgumentHelp("Carry out this stored plan.", valueName: "file")) var plan: String?
    @Flag(help: "Do not ask: overwrite the target.") var yes = false
    @Option(help: "What is read back and compared: full or off.") var readBack = ReadBack.full
    @Option(
        help: """
            When the set has lost something: fail (refuse, or end there), or skip (write zeros in its place, go on, and list \
            what is lost; exit code 3).
            """)
    var onDamage = OnDamage.fail
    @Flag(help: "Accepted; there is no boot repair in this version.") var noRepair = false
    @Flag(help: "Accepted; there is no adaptation in this version.") var noAdapt = false

    func run() throws {
        let console = Console.current.withLock { $0 }
        let stored = try plan.map { (path) throws(Fault) in try PlanFile.read(path) }
        guard (stored == nil) != (point == nil) else {
            throw Fault(
                .usage, what: "Name either a recovery point or a stored plan.",
                remedy: "`relight restore SET --to DISK`, or `relight restore --plan FILE`.")
        }
        guard stored == nil || (targets.to.isEmpty && targets.layout == nil) else {
            throw Fault(
                .usage, what: "A stored plan has its targets and its layout in it.",
                remedy: "Leave out --to and --layout, or make another plan with `relight plan`.")
        }
        let name = try SetLocation(stored.map { "\($0.set)@\($0.point)" } ?? point ?? "")
        let opened = try OpenedSet(name.set, also: (stored?.also ?? []) + places.also, keys: key.ring())
        defer { opened.close() }
        let isChosen = stored != nil || name.set != self.point
        let point = try opened.point(name.point, console, warning: !isChosen)
        do throws(Fault) {
            try opened.requireComplete(point)
        } catch {
            let fault = error
            guard onDamage == .skip, fault.code == .setDamaged else { throw fault }
            console.receive(
                .finding(
                    Finding(.warning, fault.code.rawValue, what: "\(fault.what) \(fault.remedy)", place: fault.place)))
        }
        let plan: RestorePlan
        if let stored {
            plan = stored
            let objections = try Restore.objections(to: stored, from: opened)
            if !objections.isEmpty { throw Refused(reasons: objections) }
        } else {
            plan = try makePlan(point, of: opened, targets, onDamage: onDamage)
        }
        for line in plan.lines(comparing: readBack == .full) { console.line(line) }
        if !yes { try confirm(plan, point.summary, console) }
        let began = Clock.monotonic()
        let outcome = try Restore.run(
            plan, from: point, readBack: readBack, onDamage: onDamage, events: console.events)
        let reports = outcome.disks
        for finding in opened.reader.laterFindings { console.receive(.finding(finding)) }
        let seconds = Clock.monotonic() - began
        console.document(
            "restore",
            Document(
                point: point.summary.id, name: point.facts.name, made: Clock.text(point.facts.time),
                machine: point.facts.machine.words, set: opened.place.names.first ?? "", disks: reports,
                lost: outcome.lost.map(LostDocument.init),
                findings: console.findings, seconds: seconds))
        console.line("Recovery point \(point.summary.title)")
        if reports.count > 1 { console.line("\(reports.count) disks restored in \(Clock.words(seconds))") }
        for report in reports {
            console.line("\(report.target) restored\(reports.count > 1 ? "" : " in \(Clock.words(seconds))"):")
            for volume in report.volumes {
                var said = ["\(volume.written) written"]
                said.append(readBack == .off ? "not read back" : "\(volume.compared) read back and equal")
                if volume.grown { said.append("grown") }
                if let check = volume.check { said.append(check) }
                if !volume.isWhole { said.append("NOT WHOLE: \(volume.lost.byteCount.bytes) bytes are zeros") }
                console.line("  \(volume.number == 0 ? "disk" : "\(volume.number)"): \(said.joined(separator: ", "))")
            }
        }
        for item in outcome.lost { console.line("LOST: \(item.sentence)") }
        if readBack == .off {
            console.line("Nothing was compared (--read-back off): the data are as good as the disk.")
        }
    }

    private func confirm(_ plan: RestorePlan, _ point: PointSummary, _ console: Console) throws {
        guard isatty(0) == 1, !console.settings.json else {
            throw Refused(reasons: [
                Fault(
                    .notConfirmed, what: "Nobody can be asked whether the target may be overwritten.",
                    place: plan.disks.map(\.target.path).joined(separator: ", "), remedy: "Add --yes when you are sure."
                )
            ])
        }
        for disk in plan.disks {
            let pin = disk.target
            let wanted = pin.serial ?? "\(pin.size.bytes)"
            let what = pin.serial == nil ? "size in bytes (\(wanted))" : "serial number (\(wanted))"
            let answer: String?
            do throws(Fault) {
                answer = try Terminal.line(
                    "Everything on \(pin.path) will be lost, and recovery point \(point.title) be written to it.\n"
                        + "Type its \(what) and press Enter to go on:")
            } catch {
                var fault = error
                fault.remedy = "Nothing was written."
                throw fault
            }
            guard answer?.filter({ !$0.isWhitespace }) == wanted.filter({ !$0.isWhitespace }) else {
                throw Refused(reasons: [
                    Fault(
                        .notConfirmed, what: "That is not what was asked for.", place: pin.path,
                        remedy: "Nothing was written. Start again when you are sure.")
                ])
            }
        }
    }

    private struct Document: Encodable {
        let point: String
        let name: String
        let made: String
        let machine: String?
        let set: String
        let disks: [DiskReport]
        let lost: [LostDocument]
        let findings: [Finding]
        let seconds: Double
    }
}
