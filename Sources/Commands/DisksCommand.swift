// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import Geometry
import LinuxDisks
import MachineModel
import Operations
import RestorePlanning
import Synchronization

/// `relight disks`.
struct DisksCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "disks", abstract: "Shows what each disk holds.",
        discussion: """
            Without arguments, all disks of this machine. A disk is named by path (/dev/sda, or a raw image file), by \
            serial:X, wwn:X or size:BYTES, or by what it holds: label:X, uuid:X. Nothing is written.
            """)

    @Argument(help: "Disks or image files.") var disks: [String] = []
    @OptionGroup var unlock: UnlockOptions
    @OptionGroup var options: DiskOptions

    func run() throws {
        let console = Console.current.withLock { $0 }
        let listings = try ListDisks.run(
            disks, fileSectorSize: try options.size(), unlocking: try unlock.unlocking())
        console.document(
            "disks",
            Document(
                firmware: MachineProbe.firmware(), disks: listings.map(Document.Disk.init),
                systems: listings.flatMap { $0.model?.systems ?? [] }))
        if listings.isEmpty {
            console.line("This machine shows no disk. Check cables, and the controller's mode in the firmware setup.")
        }
        for (index, listing) in listings.enumerated() {
            if index > 0 { console.line() }
            for line in DisksCommand.lines(listing) { console.line(line) }
        }
        // A disk that was asked for by name and cannot be read is a failure; one among all is only listed.
        if !disks.isEmpty, listings.contains(where: { $0.fault != nil }) { throw EarlyExit(code: .failed) }
    }

    static func lines(_ listing: DiskListing) -> [String] {
        guard let disk = listing.model else {
            return [
                "\(listing.attached?.summary ?? listing.path)",
                "  cannot be read. \(listing.fault.map { "\($0.what) \($0.remedy)" } ?? "")",
            ]
        }
        var head = [
            disk.path, "\(disk.size)", disk.table.map { $0.kind.rawValue.uppercased() } ?? "no partition table",
            "\(disk.sectorSize.bytes)-byte sectors",
        ]
        head += [disk.bus, disk.model, disk.serial.map { "serial \($0)" }].compactMap { $0 }
        var lines = [head.joined(separator: ", ")]
        lines += DiskPicture.draw(disk)
        var table = TextTable(["  part", "content", "label", "size", "in use", "state"])
        for volume in disk.volumes {
            let name = disk.table?.partition(volume.number)?.name ?? ""
            table.add([
                "  \(volume.number == 0 ? "disk" : "\(volume.number)")", volume.kind.rawValue,
                volume.label ?? (name.isEmpty ? "-" : name), "\(volume.extent.length)", "\(volume.used)",
                state(volume.states, volume.wholeBecause, volume.kind, volume.memberOf),
            ])
            for nested in volume.layers ?? [] { add(nested, to: &table, indent: "    ") }
        }
        if !disk.volumes.isEmpty { lines += table.lines }
        for system in disk.systems ?? [] { lines.append("  system: \(system.summary)") }
        lines += efi(disk.efiPrograms ?? [])
        for use in listing.attached?.uses ?? [] { lines.append("  in use: \(use)") }
        for finding in disk.findings { lines.append("  \(finding.severity.rawValue): \(finding)") }
        return lines
    }

    /// One line for each EFI system partition.
    private static func efi(_ programs: [EFIProgram]) -> [String] {
        var volumes: [String] = []
        for program in programs where !volumes.contains(program.volume) { volumes.append(program.volume) }
        return volumes.map { volume in
            let own = programs.filter { $0.volume == volume }
            var words = own.prefix(6).map { program in
                let facts = [program.name, program.version, program.isSigned ? "signed" : nil].compactMap { $0 }
                return program.path + (facts.isEmpty ? "" : " (\(facts.joined(separator: " ")))")
            }
            if own.count > words.count { words.append("and \(own.count - words.count) more") }
            return "  EFI programs on \(volume): \(words.joined(separator: ", "))"
        }
    }

    /// A volume inside another one, and those inside it.
    private static func add(_ volume: NestedVolume, to table: inout TextTable, indent: String) {
        table.add([
            "\(indent)\(volume.name)", volume.kind.rawValue, volume.label ?? "-", "\(volume.size)", "\(volume.used)",
            state(volume.states, volume.wholeBecause, volume.kind, volume.memberOf),
        ])
        for nested in volume.layers ?? [] { add(nested, to: &table, indent: indent + "  ") }
    }

    private static func state(
        _ states: [VolumeState], _ wholeBecause: String?, _ kind: ContentKind, _ member: LayerMember?
    ) -> String {
        var words = states.map(\.rawValue)
        if let member {
            var text = "\(member.format)\(member.name.isEmpty ? "" : " \(member.name)")"
            if member.members.count > 1 { text += " (\(member.members.joined(separator: " + ")))" }
            if member.missing > 0 { text += ", \(member.missing) missing" }
            words.append(text)
        }
        if let wholeBecause, kind != .empty { words.append("imaged whole: \(wholeBecause)") }
        return words.isEmpty ? "-" : words.joined(separator: ", ")
    }

    private struct Document: Encodable {
        var firmware: FirmwareMode
        var disks: [Disk]
        /// Those of all disks, once more.
        var systems: [InstalledSystem]

        struct Disk: Encodable {
            let listing: DiskListing
            init(_ listing: DiskListing) { self.listing = listing }

            private enum Key: String, CodingKey { case path, inUse, error, physicalSectorSize, readOnly, size }
            func encode(to encoder: any Encoder) throws {
                try listing.model?.encode(to: encoder)
                var container = encoder.container(keyedBy: Key.self)
                try container.encode(listing.path, forKey: .path)
                try container.encode(listing.attached?.uses ?? [], forKey: .inUse)
                try container.encodeIfPresent(listing.attached?.physicalSectorSize, forKey: .physicalSectorSize)
                try container.encodeIfPresent(listing.attached?.isReadOnly, forKey: .readOnly)
                if let fault = listing.fault {
                    try container.encode("\(fault)", forKey: .error)
                    try container.encodeIfPresent(listing.attached?.size, forKey: .size)
                }
            }
        }
    }
}
