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
import PointDisk
public import RestorePlanning
public import Restoring
import Synchronization
import Threads

extension LayoutMode: ExpressibleByArgument {}
extension TableWish: ExpressibleByArgument {}
extension FirmwareWish: ExpressibleByArgument {}
extension IDWish: ExpressibleByArgument {}
extension OnDamage: ExpressibleByArgument {}
extension ReadBack: ExpressibleByArgument {}

/// Where a restore goes and how.
struct TargetOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            A target disk (repeatable). DISK=N sends the point's disk number N there. DISK:P=V puts volume V of the point \
            into partition P and leaves the rest of the disk alone.
            """, valueName: "disk"))
    var to: [String] = []
    @Option(
        help: """
            keep: same starts and sizes, the rest free. fill: the last volume that can grow takes all extra room. \
            proportional: what can be resized is scaled. exact: table and offsets as they were. (default: keep, and \
            proportional where that does not fit)
            """)
    var layout: LayoutMode?
    @Option(
        help: ArgumentHelp(
            "Size of a partition, such as 2=40G (repeatable); it is then not scaled.", valueName: "part=size"))
    var size: [String] = []
    @Option(help: ArgumentHelp("Leave a partition out (repeatable).", valueName: "part")) var drop: [String] = []
    @Option(
        help: ArgumentHelp(
            """
            A partition whose filesystem may be made anew and its files be copied, where it can be neither shrunk nor kept \
            (repeatable); or all.
            """, valueName: "part"))
    var recreate: [String] = []
    @Option(help: "Partition table: auto (the kind it was), mbr or gpt.") var table = TableWish.auto
    @Option(
        help: """
            Firmware that is to start it: auto (as before), bios or uefi; what could not be started is refused.
            """)
    var firmware = FirmwareWish.auto
    @Option(
        help: """
            keep: identifiers of disk and partitions stay, even where an attached disk has the same. new: they get new ones, \
            and what is left to change is listed. (default: keep, refused where an attached disk has the same)
            """)
    var ids: IDWish?
    @Option(
        help: ArgumentHelp(
            "A folder for a temporary file, where shrinking a volume takes more than a quarter of the free memory.",
            valueName: "folder"))
    var scratch: String?
    @OptionGroup var disks: DiskOptions

    /// The room for shrinking.
    var room: ScratchRoom { .usual(folder: scratch) }

    /// Whether anything but the target is asked for.
    var isPlain: Bool {
        to.isEmpty && layout == nil && size.isEmpty && drop.isEmpty && recreate.isEmpty && table == .auto
            && firmware == .auto && ids == nil
    }

    func request() throws(Fault) -> PlanRequest {
        guard !to.isEmpty else {
            throw Fault(
                .usage, what: "No target disk is named.",
                remedy: "Name one with `--to DISK`; `relight disks` lists the disks of this machine.")
        }
        return PlanRequest(targets: to, wishes: try wishes(), fileSectorSize: try disks.size())
    }

    private func wishes() throws(Fault) -> PlanWishes {
        func part(_ text: String, _ option: String) throws(Fault) -> PartName {
            guard let name = PartName(text) else {
                throw Fault(
                    .usage, what: "\"\(text)\" names no part.", place: option,
                    remedy: "Write the partition's number, or DISK:NUMBER; `relight show` lists them.")
            }
            return name
        }
        var wishes = PlanWishes(layout: layout)
        for text in size {
            guard let sign = text.lastIndex(of: "="),
                let bytes = SizeText.parse(String(text[text.index(after: sign)...])),
                bytes > .zero
            else {
                throw Fault(
                    .usage, what: "\"\(text)\" is no part and size.", place: "--size",
                    remedy: "Write PART=SIZE, such as 2=40G or 1:2=512M.")
            }
            wishes.sizes.append(SizeWish(part: try part(String(text[..<sign]), "--size"), size: bytes))
        }
        for text in drop { wishes.drop.append(try part(text, "--drop")) }
        for text in recreate {
            if text == "all" {
                wishes.recreatesAll = true
            } else {
                wishes.recreate.append(try part(text, "--recreate"))
            }
        }
        wishes.table = table
        wishes.firmware = firmware
        wishes.ids = ids
        return wishes
    }
}

/// Makes the plan, turning every reason against it into one refusal.
func makePlan(
    _ point: RecoveryPoint, of set: OpenedSet, _ targets: TargetOptions, onDamage: OnDamage = .fail
) throws -> RestorePlan {
    do {
        return try Restore.plan(
            point, of: set, try targets.request(), onDamage: onDamage, measuringWith: targets.room,
            events: Console.current.withLock { $0 }.events)
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
            target is another disk than the one it was made for. When something stands in the way, every reason is listed \
            with what helps, and the exit code is 4.

              relight plan machines --to /dev/sdb                    the same sizes, the rest free
              relight plan machines --to /dev/sdb --layout fill      the last volume that can grow takes all extra room
              relight plan machines --to /dev/sdb --size 2=40G --drop 4
              relight plan machines --to /dev/sdb --table gpt --firmware uefi
              relight plan machines@3f2a --to /dev/sda=1 --to /dev/sdb=2
              relight plan machines --to /dev/sda:3=2                volume 2 into partition 3, the rest left alone

            A part of a disk is named by its number in the recovery point, or DISK:NUMBER where several disks are restored. \
            Never scaled: EFI system, BIOS boot, reserved, recovery and makers' partitions, swap, volumes of less than 1 GiB \
            beside larger ones, what nothing is known of, and what other volumes lie in (LVM, LUKS, RAID). Order and numbers \
            stay; what lies behind a volume that grows moves with it.
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
        guard (1...RestorePlan.format).contains(plan.plan) else {
            throw Fault(
                .usage,
                what: "The plan has version \(plan.plan); this program knows versions 1 to \(RestorePlan.format).",
                place: path, remedy: "Make the plan again with this program.")
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
            Shows the plan, asks for the target's serial number or size (or takes --yes), and then: shrinks what the plan \
            shrinks, in memory; takes the old table away, writes the data, reads everything back and compares it, writes the new table last, grows what the plan \
            grows, and has the checkers of ext, FAT, XFS and NTFS look where they are installed. A restore that was cut off \
            leaves a disk without a table.

              relight restore /mnt/usb/machines --to /dev/sdb
              relight restore --plan plan.json --yes
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
        guard stored == nil || targets.isPlain else {
            throw Fault(
                .usage, what: "A stored plan has its targets and its layout in it.",
                remedy: "Leave out --to, --layout and the like, or make another plan with `relight plan`.")
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
            plan, from: point, readBack: readBack, onDamage: onDamage, scratch: targets.room, events: console.events)
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
                if let reshaped = volume.reshaped { said.append(reshaped.words) }
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
            let lost =
                disk.keeps == nil
                ? "Everything on \(pin.path)"
                : "Everything in partition \(disk.volumes.first?.number ?? 0) of \(pin.path)"
            let wanted = pin.serial ?? "\(pin.size.bytes)"
            let what = pin.serial == nil ? "size in bytes (\(wanted))" : "serial number (\(wanted))"
            let answer: String?
            do throws(Fault) {
                answer = try Terminal.line(
                    "\(lost) will be lost, and recovery point \(point.title) be written to it.\n"
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
