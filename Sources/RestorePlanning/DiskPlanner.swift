// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import MachineModel
import PartitionTables

/// Plans one target: decides what each part may become, has ``Arrangement`` find the places, and says why.
struct DiskPlanner {
    /// What speaks against the plan.
    private(set) var reasons: [Fault] = []
    /// What to know of it.
    private(set) var findings: [Finding] = []

    let request: Planner.Request
    let assignment: Planner.Assignment
    let source: DiskModel
    let target: TargetPin
    let wishes: PartWishes.OfDisk
    private var plan: DiskPlan

    init(_ request: Planner.Request, _ assignment: Planner.Assignment, _ wishes: PartWishes.OfDisk) {
        self.request = request
        self.assignment = assignment
        self.wishes = wishes
        source = assignment.source
        target = assignment.target.pin
        plan = DiskPlan(assignment, layout: request.wishes.layout ?? .keep)
    }

    mutating func refuse(_ code: FaultCode, _ what: String, _ place: String, _ remedy: String) {
        reasons.append(Fault(code, what: what, place: place, remedy: remedy))
    }

    mutating func note(_ severity: Finding.Severity, _ code: String, _ what: String, _ place: String) {
        findings.append(Finding(severity, code, what: what, place: place))
    }

    /// The plan; `nil` when something speaks against it.
    mutating func make(_ ids: inout IDSource) -> DiskPlan? {
        if let contradiction = source.contradiction {
            refuse(
                .setDamaged, "The recovery point's description of this disk contradicts itself. \(contradiction)",
                source.path, "Use another recovery point; `relight verify` checks the set.")
            return nil
        }
        guard source.size.bytes <= Arrangement.limit else {
            refuse(.setDamaged, "No disk is that large.", source.path, "Use another recovery point.")
            return nil
        }
        if let part = assignment.part {
            layOut(part)
        } else if let table = source.table {
            layOut(table, &ids)
        } else {
            layOutWholeDisk()
        }
        guard reasons.isEmpty else { return nil }
        for volume in source.volumes where volume.states.contains(.hibernated) {
            guard plan.volumes.contains(where: { $0.sourceNumber == volume.number }) else { continue }
            note(
                .warning, "volume.hibernated",
                "It holds a hibernated system; the restored machine will try to resume it.", place(volume.number))
        }
        leftIdentifiers()
        return plan
    }

    private func place(_ number: Int) -> String { number == 0 ? source.path : "\(source.path):\(number)" }

    // MARK: - Parts

    /// A partition of the new layout.
    private struct Part {
        /// Its number in the point; `nil` for one that is made new.
        var source: Int?
        var partition: Partition
        var volume: VolumeModel?
        var role: PartitionRole
        /// Where it lay; `nil` for one that is made new.
        var before: Extent?
        var length: UInt64
        var minimum: UInt64
        var maximum: UInt64
        /// Whether the user gave its size.
        var isAsked = false
        /// Whether its filesystem is made anew whatever its size.
        var mustRecreate = false
        /// What it could be with what stands in the way of shrinking removed.
        var possible: UInt64?
        var blocked: Fault?
        /// Number of the extended partition it lies in.
        var container: Int?

        var name: String { source.map { $0 == 0 ? "the volume" : "partition \($0)" } ?? "a new partition" }
        var isContainer: Bool { partition.isExtendedContainer }
    }

    /// A part with its bounds. Adds what speaks against it.
    private mutating func part(_ partition: Partition, _ volume: VolumeModel?, _ before: Extent) -> Part {
        let role = PartitionRole(partition, content: volume?.kind)
        let sector = UInt64(target.sectorSize.bytes)
        // What lay on smaller sectors may not end at a larger one.
        let length = (before.length.bytes + sector - 1) / sector * sector
        var part = Part(
            source: partition.number, partition: partition, volume: volume, role: role, before: before, length: length,
            minimum: length, maximum: length)
        guard let volume else {
            if let asked = wishes.sizes[partition.number] { ask(asked, &part) }
            return part
        }
        rule(volume, &part)
        let asked = wishes.sizes[partition.number]
        if role == .data || asked != nil {
            bound(volume, &part)
            if role != .data { part.maximum = part.length }
        }
        if let asked { ask(asked, &part) }
        return part
    }

    private func recreates(_ number: Int) -> Bool { wishes.recreatesAll || wishes.recreate.contains(number) }

    /// What other sectors do to its content.
    private mutating func rule(_ volume: VolumeModel, _ part: inout Part) {
        let ruling = SectorRuling.ruling(
            volume.kind, blockSize: volume.blockSize, role: part.role, layers: volume.layers, from: source.sectorSize,
            to: target.sectorSize)
        switch ruling {
        case .keeps: return
        case .keepsBut(let what): note(.warning, "volume.sector-size", what, place(volume.number))
        case .refused(let code, let why):
            refuse(
                code, "\(why) The target has sectors of \(target.sectorSize.bytes) bytes.", place(volume.number),
                "Use a target with \(source.sectorSize.bytes)-byte sectors"
                    + (volume.number > 0 ? ", or leave it out: `--drop \(volume.number)`." : "."))
        case .recreate(let why):
            guard let tool = request.abilities.recreate[volume.kind] else {
                refuse(
                    .sectorSizeMismatch,
                    "\(why): it has \(source.sectorSize.bytes)-byte sectors, the target \(target.sectorSize.bytes)-byte "
                        + "sectors. This version does not make \(volume.kind.rawValue) anew.", place(volume.number),
                    "Use a target with \(source.sectorSize.bytes)-byte sectors"
                        + (volume.number > 0 ? ", or leave it out: `--drop \(volume.number)`." : "."))
                return
            }
            guard recreates(volume.number) else {
                refuse(
                    .sectorSizeMismatch,
                    "\(why): it has \(source.sectorSize.bytes)-byte sectors, the target \(target.sectorSize.bytes)-byte "
                        + "sectors.", place(volume.number),
                    "Let \(tool) make it anew and its files be copied: `--recreate \(volume.number)`.")
                return
            }
            part.mustRecreate = true
            if part.role == .esp, volume.kind == .fat, target.sectorSize.bytes > source.sectorSize.bytes {
                // A FAT32 has at least 65525 clusters, of a sector each at least.
                part.length = max(part.length, 300 << 20)
                (part.minimum, part.maximum) = (part.length, part.length)
            }
        }
    }

    /// How small and how large its content can be made.
    private mutating func bound(_ volume: VolumeModel, _ part: inout Part) {
        let sector = UInt64(target.sectorSize.bytes)
        func rounded(_ size: ByteCount?) -> UInt64? {
            guard let size, size.bytes < Arrangement.limit else { return nil }
            return max((size.bytes + sector - 1) / sector * sector, Arrangement.grain)
        }
        func plus(_ size: ByteCount, _ share: UInt64, _ room: ByteCount) -> ByteCount? {
            size.adding(ByteCount(size.bytes / share))?.adding(room)
        }
        let isSound = volume.wholeBecause == nil && volume.memberOf == nil
        let isDoubtful = volume.states.contains { [.damaged, .unknownFeatures].contains($0) }
        if request.abilities.grow[volume.kind] != nil, isSound, !isDoubtful, !part.mustRecreate,
            !volume.states.contains(.journalToReplay), !volume.states.contains(.hibernated),
            volume.kind != .ntfs || !volume.states.contains(.dirty)
        {
            // An ext filesystem that is grown much more than fifty times has far too many inodes, for their number grows
            // along.
            let (most, overflow) = part.length.multipliedReportingOverflow(by: volume.kind.isExt ? 50 : 4096)
            part.maximum = overflow ? Arrangement.limit : min(most, Arrangement.limit)
        } else if part.mustRecreate {
            part.maximum = Arrangement.limit
        }
        let canRecreate = request.abilities.recreate[volume.kind] != nil && volume.kind != .swap
        let anew = canRecreate && isSound && !isDoubtful ? rounded(plus(volume.used, 4, .mebibytes(16))) : nil
        if part.mustRecreate
            || (recreates(volume.number) && anew != nil && request.abilities.shrink[volume.kind] == nil)
        {
            // Not smaller than what mkfs makes: 300 MiB for XFS.
            let least = max(anew ?? part.length, volume.kind == .xfs ? 320 << 20 : 0)
            if part.role != .esp { part.minimum = min(part.length, least) }
            return
        }
        var least: UInt64?
        if request.abilities.shrink[volume.kind] != nil {
            if let minimum = volume.minimum {
                least = rounded(volume.minimumIs == "measured" ? minimum : plus(minimum, 20, .zero))
            } else if volume.kind == .ntfs {
                least = rounded(plus(volume.used, 10, .mebibytes(64)))
            }
        }
        guard let blocked = blocked(volume, least) else {
            part.minimum = min(part.length, least ?? part.length)
            return
        }
        part.blocked = blocked
        part.possible = min(part.length, least ?? anew ?? rounded(plus(volume.used, 10, .mebibytes(16))) ?? part.length)
    }

    /// Why a volume cannot be made smaller; `nil` when it can.
    private func blocked(_ volume: VolumeModel, _ least: UInt64?) -> Fault? {
        func fault(_ code: FaultCode, _ what: String, _ remedy: String) -> Fault {
            Fault(code, what: "It cannot be made smaller: \(what)", place: place(volume.number), remedy: remedy)
        }
        let kind = volume.kind
        let larger = "Use a larger target."
        if kind == .luks, volume.layers == nil {
            return fault(
                .needsUnlock, "it is encrypted and was not unlocked when it was imaged.",
                "Image it again with `--unlock`, or use a larger target.")
        }
        if volume.memberOf != nil || ContentKind.containers.contains(kind) {
            return fault(
                .cannotShrink, "other volumes lie in it, and this version does not make these smaller.", larger)
        }
        if kind == .unknown || kind == .empty {
            return fault(.unknownRaw, "nothing is known of its content.", "Use a larger target, or leave it out.")
        }
        if volume.states.contains(.hibernated) {
            return fault(
                .hibernated, "it holds a hibernated system, or Windows' fast start left it open.",
                "Start the source once, shut it down with `shutdown /s /t 0` (or switch fast start off), and image it "
                    + "again; or use a larger target.")
        }
        if volume.states.contains(.unknownFeatures) {
            return fault(.filesystemNewer, "it has features that this version's tools do not know.", larger)
        }
        if volume.states.contains(.damaged) || (kind == .ntfs && !volume.states.filter { $0 != .clean }.isEmpty) {
            return fault(
                .dirtyFilesystem, "it was not cleanly unmounted, or is damaged.",
                kind == .ntfs
                    ? "Run `chkdsk /f` in Windows or start it once, image it again; or use a larger target."
                    : "Check it with its own checker, image it again; or use a larger target.")
        }
        if let why = volume.wholeBecause { return fault(.cannotShrink, "it was imaged whole (\(why))", larger) }
        guard request.abilities.shrink[kind] != nil else {
            if request.abilities.recreate[kind] != nil, kind != .swap {
                return fault(
                    .cannotShrink, "\(kind.rawValue) only grows.",
                    "Let it be made anew and its files be copied: `--recreate \(volume.number)`.")
            }
            return fault(.cannotShrink, "this version cannot shrink \(kind.rawValue).", larger)
        }
        if least == nil { return fault(.cannotShrink, "how small it can be is not known.", larger) }
        return nil
    }

    /// Sets the size the user gave.
    private mutating func ask(_ asked: ByteCount, _ part: inout Part) {
        let place = place(part.source ?? 0)
        let old = part.length
        guard asked.bytes <= target.size.bytes, asked.bytes > 0 else {
            refuse(
                .targetTooSmall, "A size of \(asked.bytes) bytes is asked for; the target has \(target.size.bytes).",
                place, "Ask for less.")
            return
        }
        let size = asked.bytes == part.before?.length.bytes ? old : Arrangement.up(asked.bytes)
        part.isAsked = true
        if size < part.minimum {
            if part.role == .swap, request.abilities.recreate[.swap] != nil {
                // Its header is written anew.
            } else if part.volume == nil {
                // Nothing is in it.
            } else if let blocked = part.blocked {
                reasons.append(blocked)
            } else {
                refuse(
                    .cannotShrink,
                    "It is to have \(size) bytes (\(ByteCount(size))), but needs at least \(part.minimum) bytes "
                        + "(\(ByteCount(part.minimum))).", place, "Ask for that or more.")
            }
        } else if size > old, let kind = part.volume?.kind, ContentKind.endBound.contains(kind) {
            refuse(
                .planRefused, "A \(kind.rawValue) keeps things at its end and cannot get a larger partition.", place,
                "Leave out --size for it.")
        }
        (part.length, part.minimum, part.maximum) = (size, size, size)
    }

    // MARK: - Content

    /// What happens to the content of a part that gets `length` bytes.
    private mutating func volume(_ part: Part, number: Int, at target: Extent, reason: String) -> VolumePlan? {
        guard let model = part.volume, let before = part.before else { return nil }
        let label = model.label ?? (part.partition.name.isEmpty ? nil : part.partition.name)
        var result = VolumePlan(
            number: number, sourceNumber: model.number, kind: model.kind, label: label, source: model.extent,
            target: target, used: model.used, reason: reason)
        let sector = self.target.sectorSize
        let isSmaller = target.length < model.extent.length
        let isLarger = target.length.bytes >= before.length.bytes + UInt64(sector.bytes)
        let abilities = request.abilities
        if part.minimum < part.length { result.minimum = ByteCount(part.minimum) }
        if part.mustRecreate {
            result.treatment = .recreate(by: abilities.recreate[model.kind] ?? "")
        } else if model.kind == .swap, isSmaller || isLarger, let tool = abilities.recreate[.swap] {
            result.treatment = .recreate(by: tool)
        } else if isSmaller, let tool = abilities.shrink[model.kind] {
            let grain = max(4096, model.blockSize?.bytes ?? 0, UInt64(sector.bytes))
            result.treatment = .shrink(to: target.length.roundedDown(to: ByteCount(grain)), by: tool)
        } else if isSmaller {
            result.treatment = .recreate(by: abilities.recreate[model.kind] ?? "")
        } else if isLarger {
            if part.maximum > part.length || (part.isAsked && canGrow(model)), let tool = abilities.grow[model.kind] {
                result.grows = true
                result.growsBy = tool
            } else {
                note(
                    .notice, "filesystem.stays-small",
                    "Its partition becomes larger; what is in it (\(model.kind.rawValue)) keeps its size.",
                    place(model.number))
            }
        }
        if case .recreate = result.treatment {
        } else {
            result.fixUps = VolumePlan.fixUps(
                model.kind, from: before.start, source.sectorSize, to: target.start, sector)
        }
        return result
    }

    private func canGrow(_ volume: VolumeModel) -> Bool {
        var part = Part(
            source: nil, partition: Partition(number: 1, first: LBA(0), sectors: 1, type: .mbr(0x83)), role: .data,
            length: volume.extent.length.bytes, minimum: 0, maximum: 0)
        var copy = self
        copy.bound(volume, &part)
        return part.maximum > part.length
    }

    // MARK: - A volume into a partition

    private mutating func layOut(_ wanted: Planner.Part) {
        let path = target.path
        guard wanted.table.sectorSize == target.sectorSize,
            let slot = wanted.table.partition(wanted.target), !slot.isExtendedContainer,
            let extent = slot.extent(target.sectorSize), extent.end <= target.size
        else {
            let all = wanted.table.volumes.map { "\($0.number)" }.joined(separator: ", ")
            return refuse(
                .missing, "It has no partition \(wanted.target) that a volume could be restored into.", path,
                "Its partitions are \(all).")
        }
        guard let volume = source.volumes.first(where: { $0.number == wanted.source }) else {
            return refuse(
                .missing, "The recovery point holds no volume \(wanted.source) of this disk.", source.path,
                "Its volumes are " + source.volumes.map { "\($0.number)" }.joined(separator: ", ") + ".")
        }
        if let layout = request.wishes.layout, layout != .keep, layout != .fill {
            refuse(
                .planRefused, "A single volume has no layout `\(layout.rawValue)`.", path,
                "Use `--layout fill` to have it grown to the partition's size, or leave it out.")
        }
        if request.wishes.table != .auto || request.wishes.ids == .new || !wishes.drop.isEmpty
            || !wishes.sizes.isEmpty
        {
            refuse(
                .planRefused, "The target's table stays as it is when a volume is restored into a partition.", path,
                "Leave out --table, --ids new, --size and --drop.")
        }
        // Its type is that of its new partition: nothing is fixed there.
        let old = source.table?.partition(volume.number)
        var part = part(
            Partition(
                number: volume.number, first: LBA(0), sectors: 1, type: .mbr(0x83), name: old?.name ?? ""), volume,
            volume.extent)
        let remade = volume.kind == .swap && request.abilities.recreate[.swap] != nil
        guard extent.length.bytes >= part.minimum || remade else {
            refuse(
                .targetTooSmall,
                "It has \(extent.length.bytes) bytes (\(extent.length)); the volume needs at least \(part.minimum) bytes "
                    + "(\(ByteCount(part.minimum))).", "\(path):\(wanted.target)",
                "Use a partition of at least \(part.minimum) bytes.")
            if let blocked = part.blocked { reasons.append(blocked) }
            return
        }
        if isMisplaced(part, extent.length.bytes, "\(path):\(wanted.target)") { return }
        if request.wishes.layout != .fill, extent.length.bytes > part.length { part.maximum = part.length }
        let reason =
            extent.length.bytes == part.length
            ? "into a partition of its size"
            : extent.length.bytes > part.length ? "into a larger partition" : "into a smaller partition"
        if let planned = self.volume(part, number: wanted.target, at: extent, reason: reason) {
            plan.volumes = [planned]
        }
        plan.keeps = wanted.table
        if volume.kind == .ntfs || volume.kind == .fat || volume.kind.isExt {
            note(
                .notice, "boot.references",
                "What refers to the old partition (boot loader, fstab, Windows' boot configuration) is not changed.",
                "\(path):\(wanted.target)")
        }
    }

    // MARK: - A disk without a table

    private mutating func layOutWholeDisk() {
        let layout = request.wishes.layout ?? .keep
        if request.wishes.table != .auto || !wishes.drop.isEmpty || !wishes.sizes.isEmpty {
            refuse(
                .planRefused, "The disk that was imaged has no partition table: it is one volume.", source.path,
                "Leave out --table, --drop and --size.")
        }
        let sector = target.sectorSize.count
        let room = target.size.roundedDown(to: sector)
        for volume in source.volumes {
            var part = part(
                Partition(number: volume.number, first: LBA(0), sectors: 1, type: .mbr(0x83)), volume, volume.extent)
            if layout == .exact { part.minimum = part.length }
            if isMisplaced(part, room.bytes, target.path) { continue }
            let grows = (layout == .fill || layout == .proportional) && part.maximum > part.length
            guard room.bytes >= part.minimum else {
                refuseTooSmall([part], needs: part.minimum, tail: 0)
                continue
            }
            let length = grows ? min(room.bytes, part.maximum) : min(room.bytes, part.length)
            if !grows { part.maximum = part.length }
            let extent = Extent(from: volume.extent.start, to: volume.extent.start + ByteCount(length))
            let reason =
                length > part.length
                ? "takes the whole disk"
                : length < part.length
                    ? "shrunk to the target's size" : "the whole disk, copied to the same place"
            if let planned = self.volume(part, number: volume.number, at: extent, reason: reason) {
                plan.volumes.append(planned)
            }
        }
        plan.free = target.size.subtracting(plan.volumes.map(\.target.end).max() ?? .zero) ?? .zero
        nothingGrows()
    }

    /// Whether a part is refused in a place of `length` bytes because what describes it lies at its end: firmware and
    /// drivers would not find it there. md may have it at the start; that is not known, so it is a warning.
    private mutating func isMisplaced(_ part: Part, _ length: UInt64, _ place: String) -> Bool {
        guard let kind = part.volume?.kind, ContentKind.endBound.contains(kind), length != part.length else {
            return false
        }
        if kind.rawValue == "linux_raid_member" {
            note(
                .warning, "volume.end-bound",
                "A member of an md array of version 0.90 or 1.0 is found by what lies at its end: in a place of another size "
                    + "the array would not find it. Versions 1.1 and 1.2 are not harmed.", place)
            return false
        }
        refuse(
            .planRefused,
            "A \(kind.rawValue) is found by what lies at its end; it needs a place of exactly \(part.length) bytes.",
            place,
            "Restore it to a disk or partition of that size.")
        return true
    }

    private mutating func nothingGrows() {
        guard request.wishes.layout == .fill, plan.free >= Planner.alignment, target.size > source.size,
            !plan.volumes.contains(where: \.grows)
        else { return }
        note(
            .warning, "layout.nothing-grows",
            "No volume on \(source.path) can be grown by this version; the extra room stays free.", target.path)
    }

    // MARK: - A disk with a table

    private mutating func layOut(_ table: PartitionTable, _ ids: inout IDSource) {
        let wish = request.wishes
        let kind: TableKind = wish.table == .auto ? table.kind : wish.table == .gpt ? .gpt : .mbr
        let sameSectors = source.sectorSize == target.sectorSize
        let converts = kind != table.kind
        if converts {
            note(
                .warning, "id.converted",
                "The partitions of a table of another kind have other identifiers: what names them by PARTUUID (kernel line, "
                    + "fstab) or by a boot entry of UEFI does not find them.", target.path)
        }
        let layout = wish.layout
        if layout == .exact, converts || !sameSectors || !wishes.drop.isEmpty || !wishes.sizes.isEmpty {
            return refuse(
                .planRefused,
                "The layout `exact` copies the table as it is; that does not go with another table, other "
                    + "sectors, --size or --drop.", target.path, "Use `--layout keep`.")
        }
        let targetSectors = target.size.bytes / UInt64(target.sectorSize.bytes)

        // The parts, in disk order.
        var parts: [Part] = []
        var roles: [(role: PartitionRole, partition: Partition, content: ContentKind?)] = []
        let volumes = Dictionary(source.volumes.map { ($0.number, $0) }, uniquingKeysWith: { first, _ in first })
        let containers = table.partitions.filter { $0.isExtendedContainer && $0.describedAt == nil }
        for partition in table.partitions.sorted(by: { $0.first < $1.first }) {
            let isLogical = partition.describedAt != nil
            guard let extent = partition.extent(table.sectorSize), extent.end.bytes <= Arrangement.limit else {
                return refuseTooSmall([], needs: UInt64.max, tail: 0)
            }
            if partition.isExtendedContainer {
                guard !isLogical, kind == .mbr, !converts else { continue }
                let isEmpty = !table.partitions.contains { logical in
                    logical.describedAt.map { container(of: $0, containers)?.number == partition.number } ?? false
                        && !wishes.drop.contains(logical.number)
                }
                if isEmpty {
                    parts.append(
                        Part(
                            source: partition.number, partition: partition, role: .vendor, before: extent,
                            length: extent.length.bytes, minimum: extent.length.bytes, maximum: extent.length.bytes))
                }
                continue
            }
            let volume = volumes[partition.number]
            let role = PartitionRole(partition, content: volume?.kind)
            roles.append((role, partition, volume?.kind))
            func leaveOut(_ reason: String) {
                let name = volume?.label ?? (partition.name.isEmpty ? volume?.kind.rawValue ?? "-" : partition.name)
                plan.dropped.append(
                    DroppedPart(number: partition.number, source: extent, name: name, reason: reason))
            }
            if wishes.drop.contains(partition.number) {
                leaveOut("left out as asked for")
                continue
            }
            if converts, kind == .mbr, role == .msr || role == .biosBoot {
                leaveOut("left out: it means nothing in an MBR")
                note(
                    .notice, "partition.not-needed",
                    "Its content (\(role.reason ?? "")) means nothing in an MBR: it is "
                        + "left out.", place(partition.number))
                continue
            }
            // A volume may end with the disk where its partition claims more: the new partition is what the volume was.
            let before = sameSectors && !converts ? extent : volume?.extent ?? extent
            var part = part(partition, volume, before)
            if isLogical, kind == .mbr, !converts {
                part.container = partition.describedAt.flatMap { container(of: $0, containers)?.number }
            }
            parts.append(part)
        }
        // Small volumes beside large ones are somebody's /boot or tools.
        let gib: UInt64 = 1 << 30
        let hasLarge = parts.contains { $0.role == .data && $0.length >= gib && $0.maximum > $0.minimum }
        let boot = BootFacts(source, roles)
        for fault in boot.objections(
            to: kind, from: table.kind, largerSectors: target.sectorSize.bytes > source.sectorSize.bytes,
            sectorSize: target.sectorSize, wish: wish.firmware, place: target.path)
        {
            reasons.append(fault)
        }
        let needsBIOSBoot =
            converts && kind == .gpt && boot.startsByBIOS && !boot.hasESP && wish.firmware != .uefi
            && target.sectorSize == .s512
        if needsBIOSBoot {
            let number = (parts.map(\.partition.number).max() ?? 0) + 1
            parts.insert(
                Part(
                    partition: Partition(
                        number: number, first: LBA(34), sectors: 2014,
                        type: .gpt(GUID(PartitionTypes.biosBoot) ?? .zero)),
                    role: .biosBoot, before: nil, length: 2014 * 512, minimum: 2014 * 512, maximum: 2014 * 512),
                at: 0)
        }
        guard reasons.isEmpty else { return }

        // The empty table, and the room in it.
        let disk = GUID(bytes: ids.bytes()) ?? .zero
        var made: PartitionTable
        let isSame = !converts && sameSectors
        if isSame {
            var empty = table
            empty.partitions = []
            do {
                made = try TableLayout.relocated(empty, toSectors: targetSectors)
            } catch {
                return reasons.append(placed(error))
            }
        } else {
            made = TableLayout.converted(
                table, to: kind, sectors: targetSectors, size: target.sectorSize, diskGUID: disk,
                entries: parts.map(\.partition.number).max() ?? 0)
        }
        let sector = UInt64(target.sectorSize.bytes)
        guard let usable = TableLayout.usable(made, onSectors: targetSectors) else {
            return refuseTooSmall(parts, needs: UInt64.max, tail: 0)
        }
        if converts, kind == .mbr { intoSlots(&parts) }

        // Numbers only, from here to the places.
        var arrangement = Arrangement(
            slots: [], containers: [], first: usable.lowerBound * sector,
            end: min(usable.upperBound + 1, Arrangement.limit / sector) * sector, sector: sector)
        let bracketed = fillIn(&arrangement, parts, containers, smallStay: hasLarge && layout != .fill)
        let sourceUsable = TableLayout.usable(table, onSectors: table.diskSectors)?.upperBound ?? 0
        let sourceEnd = (sourceUsable &+ 1).multipliedReportingOverflow(by: UInt64(source.sectorSize.bytes))
        let goal: Arrangement.Goal
        switch layout {
        case nil, .exact?, .keep?: goal = .keep
        case .proportional?:
            goal = .proportional(sourceEnd: sourceEnd.overflow ? Arrangement.limit : sourceEnd.partialValue)
        case .fill?: goal = .fill(growing(parts))
        }
        let canShrink = layout != .exact && layout != .keep
        let asItWas =
            isSame && wishes.drop.isEmpty
            && zip(parts, arrangement.slots).allSatisfy {
                $0.0.before?.length.bytes == $0.1.length
            }
        let tail = targetSectors * sector - min(arrangement.end, targetSectors * sector)
        // Whatever lies where, a table that fits as it is stays as it is.
        var identity: PartitionTable?
        if asItWas, let same = try? TableLayout.relocated(table, toSectors: targetSectors), fits(same, usable) {
            identity = same
        }
        let result: PartitionTable
        var placement: Arrangement.Placement?
        if case .keep = goal, let identity {
            result = identity
        } else if let identity, bracketed == nil {
            result = identity
        } else if layout == .exact {
            return refuseTooSmall(parts, arrangement, tail: tail, shrinks: false)
        } else {
            guard let bracketed else {
                return refuse(
                    .planRefused, "Its extended partition and its other partitions lie across each other.", source.path,
                    "Use `--layout exact` on a target that is as large.")
            }
            guard let solved = arrangement.solve(goal, canShrink: canShrink) else {
                return refuseTooSmall(parts, arrangement, tail: tail, shrinks: canShrink)
            }
            if let identity, solved.lengths == arrangement.slots.map(\.length) {
                // Nothing becomes larger or smaller: nothing moves.
                result = identity
            } else {
                placement = solved
                if layout == nil, zip(solved.lengths, arrangement.slots).contains(where: { $0.0 < $0.1.length }) {
                    plan.layout = .proportional
                }
                do {
                    result = try assemble(parts, solved, made, table, bracketed, &ids)
                } catch {
                    return reasons.append(placed(error))
                }
            }
        }
        finish(result, table, parts, placement, boot, kind, arrangement.end, &ids)
    }

    private func placed(_ fault: Fault) -> Fault {
        var fault = fault
        if fault.place.isEmpty { fault.place = target.path }
        return fault
    }

    private func fits(_ table: PartitionTable, _ usable: ClosedRange<UInt64>) -> Bool {
        table.partitions.allSatisfy { ($0.last?.value ?? .max) <= usable.upperBound }
    }

    private func container(of record: LBA, _ containers: [Partition]) -> Partition? {
        containers.first { $0.first <= record && record.value - $0.first.value < $0.sectors }
    }

    /// Gives the parts of a GPT numbers that an MBR has: up to four as they are, else three and an extended partition.
    private mutating func intoSlots(_ parts: inout [Part]) {
        if parts.count <= 4 {
            var free = Set(1...4).subtracting(parts.map(\.partition.number))
            for index in parts.indices where parts[index].partition.number > 4 {
                guard let number = free.min() else { continue }
                free.remove(number)
                parts[index].partition.number = number
            }
        } else {
            for index in parts.indices {
                parts[index].partition.number = index < 3 ? index + 1 : index + 2
                if index >= 3 { parts[index].container = 4 }
            }
        }
        for part in parts {
            guard let old = part.source, old != part.partition.number else { continue }
            note(
                .warning, "partition.renumbered",
                "It becomes number \(part.partition.number): an MBR has four entries, and 5 is its first logical "
                    + "partition.", place(old))
        }
    }

    /// The parts as slots. Returns the numbers of the containers by their index, or `nil` where containers and other
    /// partitions lie across each other.
    private func fillIn(
        _ arrangement: inout Arrangement, _ parts: [Part], _ containers: [Partition], smallStay: Bool
    ) -> [Int]? {
        var numbers: [Int] = []
        var open: Int?
        let size = source.sectorSize
        for part in parts {
            var slot = Arrangement.Slot(
                start: part.before?.start.bytes ?? part.partition.first.offset(target.sectorSize)?.bytes,
                length: part.length, minimum: part.minimum, maximum: part.maximum)
            if smallStay, part.length < 1 << 30, !part.isAsked {
                (slot.minimum, slot.maximum) = (slot.length, slot.length)
            }
            if let number = part.container {
                if let index = numbers.firstIndex(of: number) {
                    guard open == number else { return nil }
                    slot.container = index
                } else {
                    slot.container = numbers.count
                    numbers.append(number)
                    let old = containers.first { $0.number == number }?.extent(size)
                    arrangement.containers.append(
                        Arrangement.Container(start: old?.start.bytes, end: old?.end.bytes))
                }
                open = number
                slot.record = part.partition.describedAt?.offset(size)?.bytes
                slot.isHead = !parts.contains {
                    $0.container == number && $0.partition.number < part.partition.number
                }
            } else {
                // A logical partition that lies in no extended one.
                guard part.partition.describedAt == nil || request.wishes.table == .gpt else { return nil }
                open = nil
            }
            arrangement.slots.append(slot)
        }
        return numbers
    }

    /// The part that takes all extra room: the last that can grow, with no boot code behind it that would have to move.
    private func growing(_ parts: [Part]) -> Int? {
        let after = parts.lastIndex { $0.role == .biosBoot || $0.role == .prep } ?? -1
        return parts.indices.last { $0 > after && parts[$0].maximum > parts[$0].length }
    }

    /// The new table.
    private mutating func assemble(
        _ parts: [Part], _ placement: Arrangement.Placement, _ made: PartitionTable, _ old: PartitionTable,
        _ containers: [Int], _ ids: inout IDSource
    ) throws(Fault) -> PartitionTable {
        let sector = UInt64(target.sectorSize.bytes)
        var partitions: [Partition] = []
        for (index, part) in parts.enumerated() {
            var partition = part.partition
            partition.first = LBA(placement.starts[index] / sector)
            partition.sectors = placement.lengths[index] / sector
            partition.describedAt = part.container == nil ? nil : LBA(placement.records[index] / sector)
            switch (made.kind, partition.type) {
            case (.gpt, .mbr(let type)):
                partition.type = .gpt(PartitionTypes.gpt(type, part.volume?.kind))
                // Bit 2 says to a BIOS what the status byte said.
                partition.attributes = partition.attributes & 0x80 != 0 ? 4 : 0
            case (.mbr, .gpt(let type)):
                partition.type = .mbr(PartitionTypes.mbr(type, part.volume?.kind))
                partition.attributes = partition.attributes & 4 != 0 ? 0x80 : 0
                partition.guid = nil
                partition.name = ""
            default: break
            }
            if made.kind == .gpt, partition.guid == nil { partition.guid = GUID(bytes: ids.bytes()) }
            partitions.append(partition)
        }
        for (index, number) in containers.enumerated() {
            let place = placement.containers[index]
            let type = old.partition(number).flatMap { $0.isExtendedContainer ? $0.type : nil } ?? .mbr(0x0F)
            partitions.append(
                Partition(
                    number: number, first: LBA(place.start / sector), sectors: (place.end - place.start) / sector,
                    type: type,
                    attributes: old.partition(number).flatMap { $0.isExtendedContainer ? $0.attributes : nil } ?? 0))
        }
        // A chain has no holes.
        if made.kind == .mbr {
            let logicals = partitions.indices.filter { partitions[$0].describedAt != nil }
                .sorted { partitions[$0].number < partitions[$1].number }
            for (offset, index) in logicals.enumerated() where partitions[index].number != 5 + offset {
                let before = partitions[index].number
                partitions[index].number = 5 + offset
                note(
                    .warning, "partition.renumbered",
                    "It becomes number \(5 + offset): logical partitions are counted along their chain.", place(before))
            }
        }
        var base = made
        if made.kind == old.kind, made.sectorSize == old.sectorSize { base.partitions = old.partitions }
        return try TableLayout.replacing(base, partitions: partitions)
    }

    /// Everything that follows from the table.
    private mutating func finish(
        _ table: PartitionTable, _ old: PartitionTable, _ parts: [Part], _ placement: Arrangement.Placement?,
        _ boot: BootFacts, _ kind: TableKind, _ usableEnd: UInt64, _ ids: inout IDSource
    ) {
        var table = table
        let sector = target.sectorSize
        // By their place, for a chain may have been renumbered.
        for (index, part) in parts.enumerated() where !part.isContainer {
            let partition: Partition?
            if let placement {
                let first = LBA(placement.starts[index] / UInt64(sector.bytes))
                partition = table.volumes.first { $0.first == first }
            } else {
                partition = table.partition(part.partition.number)
            }
            guard let partition, let extent = partition.extent(sector), let before = part.before else { continue }
            let reason = reason(part, before, extent)
            if var planned = volume(part, number: partition.number, at: extent, reason: reason) {
                if part.role == .biosBoot, planned.moves, boot.isGRUB {
                    planned.fixUps.append(
                        .bootRepair("GRUB's code finds itself by its sector: install the boot loader anew."))
                }
                plan.volumes.append(planned)
            } else {
                note(
                    .warning, "partition.not-in-image",
                    "The image does not hold this partition; it is made on the target and stays empty.",
                    place(part.source ?? 0))
            }
        }
        plan.volumes.sort { $0.number < $1.number }
        table.partitions.sort { $0.number < $1.number }
        bootFindings(boot, kind, old, table)
        if request.wishes.ids == .new { table = renewed(table, wasGPT: old.kind == .gpt, &ids) }
        plan.table = table
        if kind == old.kind, sector == source.sectorSize { plan.gap = gap(old, table) }
        let end = table.partitions.compactMap { $0.extent(sector)?.end.bytes }.max() ?? 0
        plan.free = ByteCount(usableEnd > end ? usableEnd - end : 0)
        plan.dropped.sort { $0.number < $1.number }
        nothingGrows()
        if kind == .mbr, target.size.bytes / UInt64(sector.bytes) > 1 << 32,
            request.wishes.layout == .fill || request.wishes.layout == .proportional
        {
            note(
                .notice, "table.mbr-limit", "An MBR ends after 2^32 sectors; what lies beyond stays free.", target.path)
        }
    }

    private func reason(_ part: Part, _ before: Extent, _ after: Extent) -> String {
        let moved = before.start == after.start ? "" : ", moved"
        let fixed = part.role.reason.map { ", never scaled: \($0)" } ?? ""
        let length = after.length.bytes
        let old = part.isAsked ? before.length.bytes : part.length
        if part.isAsked, length != before.length.bytes { return "the size asked for\(moved)" }
        if length > old {
            return request.wishes.layout == .fill ? "takes all extra room\(moved)" : "larger in proportion\(moved)"
        }
        if length < old { return "smaller in proportion, at least \(ByteCount(part.minimum))\(moved)" }
        if length > before.length.bytes, part.mustRecreate { return "larger, for sectors of this size\(moved)" }
        return moved.isEmpty ? "same place, same size\(fixed)" : "moved, same size\(fixed)"
    }

    /// What boots otherwise than before.
    private mutating func bootFindings(
        _ boot: BootFacts, _ kind: TableKind, _ old: PartitionTable, _ table: PartitionTable
    ) {
        func repair(_ what: String) {
            findings.append(Finding(.warning, "boot.repair-needed", what: what, place: target.path))
        }
        let moved = plan.volumes.contains { $0.moves }
        if kind != old.kind, boot.startsByBIOS {
            repair(
                kind == .gpt
                    ? "GRUB lay where the GPT now is: install it anew into the BIOS boot partition before starting it."
                    : "Its boot loader lay in a partition that an MBR does not have: install it anew before starting it."
            )
        } else if boot.isGRUB,
            plan.volumes.contains(where: { !$0.fixUps.isEmpty && $0.fixUps.contains(where: \.isRepair) })
        {
            repair("The partition with GRUB's code moves: install the boot loader anew before starting it.")
        }
        if boot.isBIOSWindows, moved {
            repair(
                "Windows' boot configuration names its partitions by their offsets, and some move: repair it before "
                    + "starting it.")
        }
        if boot.hasESP, table.kind == old.kind,
            plan.volumes.contains(where: { volume in
                (volume.moves || volume.source.length != volume.target.length)
                    && source.table?.partition(volume.sourceNumber).map {
                        PartitionRole($0, content: volume.kind) == .esp
                    } ?? false
            })
        {
            repair("The EFI system partition moves or changes its size: a boot entry that names it is no longer found.")
        }
        if kind == .mbr, old.kind == .gpt, boot.hasESP {
            repair("Not every UEFI starts from an MBR.")
        }
        switch request.wishes.firmware {
        case .uefi where !boot.hasESP && (boot.startsByBIOS || boot.hasBIOSBoot):
            repair("It has no EFI system partition: UEFI finds nothing to start until one is made.")
        case .auto:
            guard let machine = request.firmware, !assignment.target.isVirtual else { return }
            if machine == .uefi, boot.startsByBIOS, !boot.hasESP {
                note(
                    .warning, "boot.other-firmware",
                    "It was started by a BIOS; this machine runs UEFI, which starts it in its legacy mode only.",
                    target.path)
            } else if machine == .bios, boot.hasESP, !boot.startsByBIOS {
                note(
                    .warning, "boot.other-firmware",
                    "It was started by UEFI; this machine runs a BIOS, which does not start it.", target.path)
            }
        default: break
        }
    }

    /// What lies between the table and the first partition: boot loaders embed themselves there. The table's own sectors
    /// are written with the table.
    private func gap(_ old: PartitionTable, _ result: PartitionTable) -> Extent? {
        let afterTable =
            result.gpt.map { facts in
                let bytes = UInt64(facts.entryCount) * UInt64(facts.entrySize)
                let sectors = (bytes + UInt64(old.sectorSize.bytes) - 1) / UInt64(old.sectorSize.bytes)
                return LBA(facts.entriesAt.value &+ sectors)
            } ?? LBA(1)
        guard let before = old.partitions.map({ $0.first }).min(),
            let after = result.partitions.map({ $0.first }).min(),
            let end = min(before, after).offset(old.sectorSize), let start = afterTable.offset(old.sectorSize),
            start < end
        else { return nil }
        return Extent(from: start, to: end)
    }

    // MARK: - Identifiers

    /// The table with identifiers of its own.
    private mutating func renewed(
        _ table: PartitionTable, wasGPT: Bool, _ ids: inout IDSource
    ) -> PartitionTable {
        var table = table
        let by = "the new partition table"
        // What was an MBR had no others.
        if wasGPT, let old = table.gpt?.diskGUID, let new = GUID(bytes: ids.bytes()) {
            table.gpt?.diskGUID = new
            plan.ids.append(IDChange(what: "disk GUID", old: old.description, new: new.description, by: by))
        }
        if let old = TableLayout.signature(table) {
            // Four bytes that are not all zero: the first of them never is.
            var sector0 = table.sector0.bytes
            var bytes = Array(ids.bytes().prefix(4))
            bytes[0] |= 1
            sector0.replaceSubrange(440..<444, with: bytes)
            table.sector0 = HexBytes(sector0)
            plan.ids.append(
                IDChange(what: "MBR disk signature", old: old, new: TableLayout.signature(table), by: by))
        }
        for index in table.partitions.indices where wasGPT {
            guard let old = table.partitions[index].guid, let new = GUID(bytes: ids.bytes()) else { continue }
            table.partitions[index].guid = new
            plan.ids.append(
                IDChange(
                    what: "GUID of partition \(table.partitions[index].number)", old: old.description,
                    new: new.description, by: by))
        }
        return table
    }

    /// Names what still has its old identifier where new ones are wished for.
    private mutating func leftIdentifiers() {
        guard request.wishes.ids == .new else { return }
        for volume in plan.volumes {
            guard let model = source.volumes.first(where: { $0.number == volume.sourceNumber }), let uuid = model.uuid,
                !uuid.isEmpty
            else { continue }
            plan.ids.append(
                IDChange(
                    what: "\(model.kind.rawValue) in \(volume.number == 0 ? "the disk" : "partition \(volume.number)")",
                    old: uuid, new: nil,
                    by: model.kind.newIdentifierCommand ?? "no program is known"))
        }
        if plan.ids.contains(where: { $0.new == nil }) {
            note(
                .warning, "id.left",
                "Disk and partitions get new identifiers; its filesystems keep theirs. The plan names "
                    + "the command for each; then change what refers to them (fstab, crypttab, boot loader, Windows' boot "
                    + "configuration).", target.path)
        }
    }

    // MARK: - Too small

    private mutating func refuseTooSmall(
        _ parts: [Part], _ arrangement: Arrangement, tail: UInt64, shrinks: Bool
    ) {
        var smallest = arrangement
        if !shrinks {
            for index in smallest.slots.indices { smallest.slots[index].minimum = smallest.slots[index].length }
        }
        let least = smallest.leastEnd() ?? UInt64.max
        let sector = UInt64(target.sectorSize.bytes)
        if plan.table == nil, arrangement.end == (1 << 32) * sector, target.size.bytes > arrangement.end,
            request.wishes.table != .gpt
        {
            return refuse(
                .tableTooLarge, "What is to be restored needs \(least / sector) sectors, and an MBR ends after 2^32.",
                target.path, "Use `--table gpt`.")
        }
        refuseTooSmall(parts, needs: least, tail: tail, arrangement, shrinks: shrinks)
    }

    private mutating func refuseTooSmall(
        _ parts: [Part], needs: UInt64, tail: UInt64, _ arrangement: Arrangement? = nil, shrinks: Bool = true
    ) {
        let (sum, overflow) = needs.addingReportingOverflow(tail)
        guard !overflow else {
            return refuse(
                .targetTooSmall,
                "It has \(target.size.bytes) bytes (\(target.size)); what lies on \(source.path) reaches further than any "
                    + "disk.", target.path, "Use another recovery point; `relight verify` checks the set.")
        }
        var remedy = "Use a target of at least \(sum) bytes."
        var help: [String] = []
        if let arrangement {
            if !shrinks, request.wishes.layout == .keep, arrangement.solve(.keep, canShrink: true) != nil {
                help.append("`--layout proportional` (what can be shrunk is)")
            }
            for (index, part) in parts.enumerated() where part.source != nil && !part.isContainer && help.count < 3 {
                var other = arrangement
                other.slots.remove(at: index)
                if other.solve(.keep, canShrink: shrinks) != nil, let number = part.source {
                    help.append("`--drop \(number)`")
                }
            }
        }
        if !help.isEmpty { remedy += " Or: \(help.joined(separator: ", or "))." }
        if !parts.isEmpty {
            remedy += "\nWhat each part needs:"
            for part in parts where part.volume != nil || part.isContainer {
                let kind = part.volume?.kind.rawValue ?? "extended"
                let label = part.volume?.label.map { " \"\($0)\"" } ?? ""
                let least = shrinks ? part.minimum : part.length
                remedy +=
                    "\n  \(part.source ?? 0): \(kind)\(label), \(ByteCount(part.length)), at least \(ByteCount(least))"
                if let why = part.role.reason { remedy += " (\(why): never scaled)" }
                if let blocked = part.blocked { remedy += " (\(blocked.code.rawValue))" }
            }
        }
        refuse(
            .targetTooSmall,
            "It has \(target.size.bytes) bytes (\(target.size)), but what lies on \(source.path) needs \(sum) bytes "
                + "(\(ByteCount(sum))).", target.path, remedy)
        guard shrinks else { return }
        // Would it fit if what stands in the way of shrinking were removed?
        let blocked = parts.filter { $0.blocked != nil && $0.role == .data }
        guard !blocked.isEmpty else { return }
        if var other = arrangement {
            for (index, part) in parts.enumerated() {
                if let possible = part.possible, part.role == .data { other.slots[index].minimum = possible }
            }
            guard other.solve(.keep, canShrink: true) != nil else { return }
        }
        reasons += blocked.compactMap(\.blocked)
    }
}

extension FixUp {
    /// Whether it is left to boot repair.
    var isRepair: Bool { if case .bootRepair = self { true } else { false } }
}
