// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import BinaryFields
import Edits
import Findings
import FoundationEssentials
import Geometry
import LinuxDisks
import MachineModel
import Operations
import Synchronization

/// `relight efi …`.
struct EFICommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "efi", abstract: "The firmware's boot entries: shown, added, removed, ordered.",
        discussion: """
            Works on the running machine's variables when it was started by UEFI; with --vars on a folder in the form of \
            efivarfs, or on a variable file of OVMF whose machine is off. Every change is shown, compared with what is there, \
            made, and read back; with --undo-to it is stored so that `relight efi undo` takes it back. An entry that says the \
            same is used again instead of adding another. No entry but the one that is named is ever changed or removed.

            What the firmware does with its entries at the next start nobody can see from here: some drop entries whose loader \
            they do not find, some add their own.
            """,
        subcommands: [List.self, Add.self, Remove.self, Order.self, Next.self, Undo.self], defaultSubcommand: List.self)

    /// Where the variables are.
    struct Place: ParsableArguments {
        @Option(
            help: ArgumentHelp(
                "Variables of another machine: a folder in the form of efivarfs, or an OVMF variable file.",
                valueName: "path"))
        var vars: String?

        func store() throws(Fault) -> any EFIVariableStore { try EFIVariables.open(vars) }
    }

    /// What commands that change something take.
    struct ChangeOptions: ParsableArguments {
        @Flag(help: "Show the changes; make none.") var dryRun = false
        @Option(
            help: ArgumentHelp("Store here, before anything is changed, what `efi undo` needs.", valueName: "file"))
        var undoTo: String?
    }

    /// `relight efi list`.
    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the boot entries in the order they are tried.")
        @OptionGroup var place: Place

        func run() throws {
            let console = Console.current.withLock { $0 }
            let store = try place.store()
            let list = try EFIBootList(store)
            console.document("efi", Document(store.place, list))
            for line in EFICommand.lines(list) { console.line(line) }
        }
    }

    /// `relight efi add`.
    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Adds an entry that starts a loader on a partition, and puts it first.",
            discussion: """
                Example: relight efi add /dev/nvme0n1:1 '\\EFI\\debian\\shimx64.efi' --label debian

                The entry names the partition by its own id, start and length, not by the port the disk hangs on. Whether the \
                loader's file is there is not looked at.
                """)
        @Argument(help: ArgumentHelp("The partition the loader lies on.", valueName: "disk:n")) var partition: String
        @Argument(help: "The loader's path on it, with either kind of slash.") var loader: String
        @Option(help: "What the firmware's menu calls it.") var label: String
        @Flag(help: "Put it last in the order instead of first.") var last = false
        @Option(help: ArgumentHelp("Give the loader this file's content.", valueName: "file")) var dataFile: String?
        @OptionGroup var place: Place
        @OptionGroup var options: DiskOptions
        @OptionGroup var change: ChangeOptions

        func run() throws {
            let console = Console.current.withLock { $0 }
            let target = try EFICommand.partition(partition, options)
            guard !loader.isEmpty, loader.utf8.count <= 1024 else {
                throw Fault(
                    .usage, what: "The loader's path has 1 to 1024 bytes.", remedy: "Name a file on the partition.")
            }
            let data = try dataFile.map { (path) throws(Fault) in try EFICommand.content(path, limit: 16 << 10) } ?? []
            let option = EFILoadOption(label, EFIDevicePath(target, file: loader), optionalData: data)
            let store = try place.store()
            let plan = EFIBootPlan(try EFIBootList(store), place: store.place)
            let (number, edits) = try plan.adding(option, last ? .last : .first)
            console.line("Boot\(BootNumber.text(number)): \(option.path)")
            try EFICommand.carryOut(edits, in: store, change, console)
        }
    }

    /// `relight efi remove`.
    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Removes an entry, and takes it out of the order.")
        @Argument(help: ArgumentHelp("Its number, as `efi list` shows it.", valueName: "number")) var number: String
        @OptionGroup var place: Place
        @OptionGroup var change: ChangeOptions

        func run() throws {
            let number = try EFICommand.number(number)
            try EFICommand.change(place, change) { (plan) throws(Fault) in try plan.removing(number) }
        }
    }

    /// `relight efi order`.
    struct Order: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Sets the order the entries are tried in.",
            discussion:
                "Entries that are not named stay, and are not tried by themselves. Example: relight efi order 0003 0001"
        )
        @Argument(help: ArgumentHelp("Their numbers.", valueName: "number")) var numbers: [String]
        @OptionGroup var place: Place
        @OptionGroup var change: ChangeOptions

        func run() throws {
            var order: [UInt16] = []
            for part in numbers.flatMap({ $0.split(separator: ",") }) {
                order.append(try EFICommand.number(String(part)))
            }
            let wanted = order
            try EFICommand.change(place, change) { (plan) throws(Fault) in try plan.ordered(wanted) }
        }
    }

    /// `relight efi next`.
    struct Next: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Has an entry tried once, at the next start; \"none\" takes that back.")
        @Argument(help: ArgumentHelp("Its number, or none.", valueName: "number")) var number: String
        @OptionGroup var place: Place
        @OptionGroup var change: ChangeOptions

        func run() throws {
            let number = number == "none" ? nil : try EFICommand.number(number)
            try EFICommand.change(place, change) { (plan) throws(Fault) in try plan.next(number) }
        }
    }

    /// `relight efi undo`.
    struct Undo: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Takes back a change that was stored with --undo-to, where nothing changed since.")
        @Argument(help: "The file --undo-to named.") var file: String
        @OptionGroup var place: Place
        @OptionGroup var change: ChangeOptions

        func run() throws {
            let console = Console.current.withLock { $0 }
            let bytes = try EFICommand.content(file, limit: 16 << 20)
            guard let stored = try? JSONDecoder().decode(EFIEditList.self, from: Data(bytes)), stored.efiEdits == 1
            else {
                throw Fault(
                    .usage, what: "This is no stored change of boot entries.", place: file,
                    remedy: "Name a file that was made with --undo-to.")
            }
            try EFICommand.carryOut(stored.inverse, in: try place.store(), change, console)
        }
    }
}

extension EFICommand {
    static func number(_ text: String) throws(Fault) -> UInt16 {
        guard let number = BootNumber.parse(text) else {
            throw Fault(
                .usage, what: "\"\(text)\" is no number of a boot entry.",
                remedy: "Use the four digits that `relight efi list` shows, such as 0003.")
        }
        return number
    }

    private static func change(
        _ place: Place, _ options: ChangeOptions, _ edits: (EFIBootPlan) throws(Fault) -> EFIEditList
    ) throws {
        let store = try place.store()
        let plan = EFIBootPlan(try EFIBootList(store), place: store.place)
        try carryOut(try edits(plan), in: store, options, Console.current.withLock { $0 })
    }

    /// Shows the changes, stores what undoes them, makes them, and shows what is there then.
    private static func carryOut(
        _ list: EFIEditList, in store: any EFIVariableStore, _ options: ChangeOptions, _ console: Console
    ) throws(Fault) {
        for edit in list.edits {
            let verb = edit.new == nil ? "remove" : edit.old == nil ? "make" : "change"
            console.line("\(options.dryRun ? "would \(verb)" : verb) \(edit.variable.name): \(edit.reason)")
        }
        if list.edits.isEmpty { console.line("Nothing to change: it is so already.") }
        if !options.dryRun, !list.edits.isEmpty {
            if let path = options.undoTo { try StoredValue.write(list, to: path, "What undoes the change") }
            try list.apply(to: store)
        }
        let now = try EFIBootList(store)
        console.document("efi", Document(store.place, now, edits: list.edits, applied: !options.dryRun))
        if !options.dryRun, !list.edits.isEmpty {
            console.line()
            for line in lines(now) { console.line(line) }
        }
    }

    static func lines(_ list: EFIBootList) -> [String] {
        var head = ["Secure Boot \(list.secureBoot.map { $0 ? "on" : "off" } ?? "unknown")"]
        if list.setupMode == true { head.append("the firmware is in setup mode: it has no owner's key") }
        if let timeout = list.timeout { head.append("waits \(timeout) s") }
        if let current = list.current { head.append("started by Boot\(BootNumber.text(current))") }
        if let next = list.next { head.append("tried once at the next start: Boot\(BootNumber.text(next))") }
        var table = TextTable(["order", "entry", "state", "label", "starts"])
        let place = Dictionary(zip(list.order, 1...).map { ($0, $1) }) { first, _ in first }
        let sorted = list.entries.sorted {
            (place[$0.number] ?? .max, $0.number) < (place[$1.number] ?? .max, $1.number)
        }
        for entry in sorted {
            table.add([
                place[entry.number].map { "\($0)" } ?? "-", "Boot\(BootNumber.text(entry.number))",
                entry.option.map { $0.isActive ? "active" : "off" } ?? "DAMAGED", entry.option?.label ?? "-",
                entry.option.map { "\($0.path)" } ?? entry.problem ?? "-",
            ])
        }
        var lines = [head.joined(separator: ", ")] + (list.entries.isEmpty ? ["No boot entries."] : table.lines)
        for number in list.order where !list.entries.contains(where: { $0.number == number }) {
            lines.append("warning: the order names Boot\(BootNumber.text(number)), which is not there.")
        }
        return lines
    }

    /// The partition `DISK:N` as the firmware names it.
    static func partition(_ text: String, _ options: DiskOptions) throws(Fault) -> EFIDevicePath.Partition {
        let part = DiskSelector.splitPart(text)
        guard let number = part.number, let entryNumber = UInt32(exactly: number) else {
            throw Fault(
                .usage, what: "\"\(text)\" names no partition.", remedy: "Write DISK:N, such as /dev/nvme0n1:1.")
        }
        let listing = try ListDisks.run([part.disk], fileSectorSize: try options.size())[0]
        guard let disk = listing.model else {
            throw listing.fault
                ?? Fault(.unreadable, what: "The disk cannot be read.", place: listing.path, remedy: "Check the disk.")
        }
        guard let table = disk.table, let found = table.partition(number) else {
            throw Fault(
                .missing, what: "There is no partition \(number).", place: disk.path,
                remedy: "`relight disks \(disk.path)` shows those there are.")
        }
        let signature: EFIDevicePath.Partition.Signature
        switch table.kind {
        case .gpt:
            guard let guid = found.guid else {
                throw Fault(
                    .diskDamaged, what: "Partition \(number) has no id of its own.", place: disk.path,
                    remedy: "The firmware could not find it. Repair the table first.")
            }
            signature = .gpt(guid)
        default:
            // The disk's signature lies before the table (UEFI Specification 2.10, section 5.2.1).
            let bytes = table.sector0.bytes.dropFirst(0x1B8).prefix(4)
            signature = .mbr(bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) })
        }
        return EFIDevicePath.Partition(
            number: entryNumber, start: found.first.value, length: found.sectors, signature: signature)
    }

    /// A small file's content.
    private static func content(_ path: String, limit: Int) throws(Fault) -> [UInt8] {
        guard let bytes = StoredValue.bytes(path, limit: limit) else {
            throw Fault(
                .missing, what: "There is no file there that can be read and has at most \(limit) bytes.", place: path,
                remedy: "Check the path.")
        }
        return bytes
    }

    /// `relight.efi/1`.
    private struct Document: Encodable {
        struct Entry: Encodable {
            var id: String
            var active: Bool?
            var hidden: Bool?
            var label: String?
            var path: String?
            var partition: Partition?
            var loader: String?
            var optionalData: HexBytes?
            var problem: String?
        }
        struct Partition: Encodable {
            var number: UInt32
            var guid: GUID?
            var mbrSignature: String?
            var startSector: UInt64
            var sectors: UInt64
        }
        var place: String
        var secureBoot: Bool?
        var setupMode: Bool?
        var timeout: UInt16?
        var current: String?
        var next: String?
        var order: [String]
        var entries: [Entry]
        var edits: [EFIEdit]?
        var applied: Bool?

        init(_ place: String, _ list: EFIBootList, edits: [EFIEdit]? = nil, applied: Bool? = nil) {
            self.place = place
            self.edits = edits
            self.applied = applied
            secureBoot = list.secureBoot
            setupMode = list.setupMode
            timeout = list.timeout
            current = list.current.map(BootNumber.text)
            next = list.next.map(BootNumber.text)
            order = list.order.map(BootNumber.text)
            entries = list.entries.map { entry in
                Entry(
                    id: BootNumber.text(entry.number), active: entry.option?.isActive,
                    hidden: entry.option.map { $0.attributes & EFILoadOption.hidden != 0 }, label: entry.option?.label,
                    path: entry.option.map { "\($0.path)" },
                    partition: entry.option?.path.partition.map { partition in
                        var result = Partition(
                            number: partition.number, startSector: partition.start, sectors: partition.length)
                        switch partition.signature {
                        case .gpt(let guid): result.guid = guid
                        case .mbr(let signature): result.mbrSignature = Hex.number(signature)
                        case .other: break
                        }
                        return result
                    }, loader: entry.option?.path.file,
                    optionalData: entry.option.map { HexBytes($0.optionalData) }, problem: entry.problem)
            }
        }
    }
}
