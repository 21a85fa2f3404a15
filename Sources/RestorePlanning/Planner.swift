// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
public import MachineModel
import PartitionTables

/// Makes plans. Pure: the same request gives the same plan on any machine at any time.
public enum Planner {
    /// A target as it was found.
    public struct Target: Hashable, Sendable {
        /// Its identity and size.
        public var pin: TargetPin
        /// What lies on it now, for the "will be lost" list; empty for a blank disk.
        public var holds: [String]
        /// Reasons known outside why it may not be written: in use, holds the set, is the source.
        public var objections: [Fault]

        /// A target.
        public init(pin: TargetPin, holds: [String] = [], objections: [Fault] = []) {
            self.pin = pin
            self.holds = holds
            self.objections = objections
        }
    }

    /// One disk of the point and where it shall go.
    public struct Assignment: Hashable, Sendable {
        /// Which of the point's disks, counted from 0.
        public var sourceIndex: Int
        /// The disk as it was imaged.
        public var source: DiskModel
        /// Where it shall go.
        public var target: Target

        /// An assignment.
        public init(sourceIndex: Int, source: DiskModel, target: Target) {
            self.sourceIndex = sourceIndex
            self.source = source
            self.target = target
        }
    }

    /// Everything a plan is made from.
    public struct Request: Hashable, Sendable {
        /// The image set, as the user named it.
        public var set: String
        /// The recovery point's full id.
        public var point: String
        /// Which disk goes where.
        public var assignments: [Assignment]
        /// The layout; `nil` chooses `keep`.
        public var layout: LayoutMode?

        /// A request.
        public init(set: String, point: String, assignments: [Assignment], layout: LayoutMode? = nil) {
            self.set = set
            self.point = point
            self.assignments = assignments
            self.layout = layout
        }
    }

    /// 1 MiB: partition starts are moved by multiples of this only.
    public static let alignment = ByteCount.mebibytes(1)

    /// GPT type of a BIOS boot partition, which GRUB's boot code finds by its sector address.
    static let biosBoot = "21686148-6449-6e6f-744e-656564454649"

    /// The plan for `request`. Throws every reason at once why there is none.
    public static func plan(_ request: Request) throws(PlanRefusal) -> RestorePlan {
        var reasons: [Fault] = []
        var findings: [Finding] = []
        var disks: [DiskPlan] = []
        if request.assignments.isEmpty {
            reasons.append(
                Fault(.planRefused, what: "No target disk is named.", remedy: "Name one with `--to DISK`."))
        }
        for (index, assignment) in request.assignments.enumerated() {
            let path = assignment.target.pin.path
            if request.assignments[..<index].contains(where: { $0.target.pin.path == path }) {
                reasons.append(
                    Fault(
                        .planRefused, what: "It is named as the target of two disks.", place: path,
                        remedy: "Name another disk for one of them."))
            }
            reasons.append(contentsOf: assignment.target.objections)
            do {
                disks.append(try diskPlan(assignment, layout: request.layout ?? .keep, &findings))
            } catch {
                reasons.append(error)
            }
        }
        guard reasons.isEmpty else { throw PlanRefusal(reasons) }
        return RestorePlan(set: request.set, point: request.point, disks: disks, findings: findings)
    }

    private static func diskPlan(
        _ assignment: Assignment, layout: LayoutMode, _ findings: inout [Finding]
    ) throws(Fault) -> DiskPlan {
        let source = assignment.source
        let target = assignment.target.pin
        if let contradiction = source.contradiction {
            throw Fault(
                .setDamaged, what: "The recovery point's description of this disk contradicts itself. \(contradiction)",
                place: source.path, remedy: "Use another recovery point; `relight verify` checks the set.")
        }
        guard layout != .proportional else {
            throw Fault(
                .planRefused, what: "The layout `proportional` is not in this version.", place: target.path,
                remedy: "Use `keep` (same sizes, the rest free) or `fill` (the last ext4 takes all extra room).")
        }
        guard source.sectorSize == target.sectorSize else {
            throw Fault(
                .planRefused,
                what: "It has \(target.sectorSize.bytes)-byte sectors, the imaged disk had "
                    + "\(source.sectorSize.bytes)-byte sectors; this version cannot change the sector size.",
                place: target.path, remedy: "Use a target with \(source.sectorSize.bytes)-byte sectors.")
        }
        var plan = DiskPlan(
            sourceIndex: assignment.sourceIndex, sourcePath: source.path, sourceSize: source.size, target: target,
            overwrites: assignment.target.holds, layout: layout, table: nil, gap: nil, volumes: [], free: .zero)
        if let table = source.table {
            try layOut(table, source, target, layout, &plan)
        } else {
            try layOutWholeDisk(source, target, layout, &plan)
        }
        for volume in source.volumes where volume.states.contains(.hibernated) {
            findings.append(
                Finding(
                    .warning, "volume.hibernated",
                    what: "It holds a hibernated system; the restored machine will try to resume it.",
                    place: "\(source.path):\(volume.number)"))
        }
        if let table = plan.table {
            for partition in table.volumes where !plan.volumes.contains(where: { $0.number == partition.number }) {
                findings.append(
                    Finding(
                        .warning, "partition.not-in-image",
                        what: "The image does not hold this partition; it is made on the target and stays empty.",
                        place: "\(source.path):\(partition.number)"))
            }
        }
        if plan.volumes.contains(where: \.grows) == false, layout == .fill, target.size > source.size {
            findings.append(
                Finding(
                    .warning, "layout.nothing-grows",
                    what: "No volume on \(source.path) can be grown by this version; the extra room stays free.",
                    place: target.path))
        }
        // What a restore would refuse is no plan: a whole-disk volume, say, that does not begin its disk.
        do {
            try plan.requireSound()
        } catch {
            throw Fault(
                .planRefused, what: "What lies on \(source.path) cannot be laid out: \(error.what)", place: target.path,
                remedy: "Use another recovery point; `relight verify` checks the set.")
        }
        return plan
    }

    /// A disk without a partition table is one volume.
    private static func layOutWholeDisk(
        _ source: DiskModel, _ target: TargetPin, _ layout: LayoutMode, _ plan: inout DiskPlan
    ) throws(Fault) {
        guard target.size >= source.size else { throw tooSmall(source, target, needs: source.size) }
        for volume in source.volumes {
            let grows = layout == .fill && canGrow(volume) && target.size > source.size
            plan.volumes.append(
                VolumePlan(
                    number: volume.number, kind: volume.kind, label: volume.label, source: volume.extent,
                    target: grows ? Extent(from: .zero, to: target.size) : volume.extent, used: volume.used,
                    grows: grows,
                    reason: grows ? "takes the whole disk" : "the whole disk, copied to the same place"))
        }
        plan.free = target.size - (plan.volumes.map(\.target.end).max() ?? .zero)
    }

    private static func layOut(
        _ table: PartitionTable, _ source: DiskModel, _ target: TargetPin, _ layout: LayoutMode, _ plan: inout DiskPlan
    ) throws(Fault) {
        let sectorBytes = UInt64(table.sectorSize.bytes)
        let targetSectors = target.size.bytes / sectorBytes
        let lastUsed = table.partitions.compactMap { $0.last }.max() ?? LBA(0)
        // What must fit: everything up to the last partition's end, and the backup table of a GPT behind it.
        guard let usable = TableLayout.usable(table, onSectors: targetSectors), lastUsed.value <= usable.upperBound
        else {
            let behind = table.gpt.map {
                1 + (UInt64($0.entryCount) * UInt64($0.entrySize) + sectorBytes - 1) / sectorBytes
            }
            let needed = lastUsed.advanced(by: 1 + (behind ?? 0)).flatMap { $0.offset(table.sectorSize) }
            throw tooSmall(source, target, needs: needed ?? source.size)
        }
        let usableEnd = LBA(usable.upperBound)
        let resized = try TableLayout.relocated(table, toSectors: targetSectors)
        var partitions = resized.partitions
        let grown = layout == .fill ? growable(table, source) : nil
        var delta: UInt64 = 0
        if let grown {
            let grain = alignment.bytes / sectorBytes
            delta = (usableEnd.value - lastUsed.value) / grain * grain
            let behind = table.partitions.filter { $0.first > grown.first && !$0.isExtendedContainer }
            if delta > 0, let boot = behind.first(where: { $0.type.description == biosBoot }) {
                throw Fault(
                    .planRefused,
                    what: "Partition \(boot.number) holds the boot loader's code and lies behind partition "
                        + "\(grown.number), which would grow; moved, it would no longer be found at start-up.",
                    place: source.path, remedy: "Use `--layout keep`.")
            }
            if table.kind == .mbr, let end = lastUsed.advanced(by: delta), end.value >= 1 << 32 {
                // An MBR counts sectors in 32 bits; what lies beyond stays free.
                delta = ((1 << 32) - 1 - lastUsed.value) / grain * grain
            }
        }
        for index in partitions.indices {
            let old = partitions[index]
            guard let grown, delta > 0 else { break }
            if old.number == grown.number {
                partitions[index].sectors += delta
            } else if old.isExtendedContainer, let last = old.last, old.first < grown.first, last > grown.first {
                partitions[index].sectors += delta
            } else if old.first > grown.first, let first = old.first.advanced(by: delta) {
                partitions[index].first = first
            }
            if let described = old.describedAt, described > grown.first, let moved = described.advanced(by: delta) {
                partitions[index].describedAt = moved
            }
        }
        let result = try TableLayout.replacing(resized, partitions: partitions)
        plan.table = result
        plan.gap = gap(table, result)
        for volume in source.volumes {
            guard let before = table.partition(volume.number), let after = result.partition(volume.number),
                let from = before.extent(table.sectorSize), let to = after.extent(table.sectorSize)
            else { continue }
            let grows = volume.number == grown?.number && delta > 0
            let moves = from.start != to.start
            plan.volumes.append(
                VolumePlan(
                    number: volume.number, kind: volume.kind,
                    label: volume.label ?? (before.name.isEmpty ? nil : before.name), source: from, target: to,
                    used: volume.used, grows: grows,
                    reason: grows
                        ? "takes all extra room"
                        : moves ? "moved behind the growing volume, same size" : "same place, same size"))
        }
        let end = (result.partitions.compactMap { $0.last }.max() ?? LBA(0)).value
        plan.free = ByteCount((usableEnd.value - min(end, usableEnd.value)) * sectorBytes)
    }

    /// What lies between the table and the first partition: boot loaders embed themselves there. The table's own sectors
    /// are written with the table.
    private static func gap(_ table: PartitionTable, _ result: PartitionTable) -> Extent? {
        let afterTable =
            result.gpt.map { facts in
                let bytes = UInt64(facts.entryCount) * UInt64(facts.entrySize)
                let sectors = (bytes + UInt64(table.sectorSize.bytes) - 1) / UInt64(table.sectorSize.bytes)
                return LBA(facts.entriesAt.value + sectors)
            } ?? LBA(1)
        guard let first = table.partitions.map({ $0.first }).min(), let end = first.offset(table.sectorSize),
            let start = afterTable.offset(table.sectorSize), start < end
        else { return nil }
        return Extent(from: start, to: end)
    }

    /// The last partition in disk order whose filesystem can be grown.
    private static func growable(_ table: PartitionTable, _ source: DiskModel) -> Partition? {
        let numbers = Set(source.volumes.filter(canGrow).map(\.number))
        return table.volumes.filter { numbers.contains($0.number) }.max { $0.first < $1.first }
    }

    private static func canGrow(_ volume: VolumeModel) -> Bool {
        volume.kind.isExt && volume.wholeBecause == nil
            && !volume.states.contains(where: { [.damaged, .unknownFeatures, .journalToReplay].contains($0) })
    }

    private static func tooSmall(_ source: DiskModel, _ target: TargetPin, needs: ByteCount) -> Fault {
        Fault(
            .targetTooSmall,
            what: "It has \(target.size.bytes) bytes (\(target.size)), but what lies on \(source.path) needs "
                + "\(needs.bytes) bytes (\(needs)); this version cannot shrink volumes.",
            place: target.path, remedy: "Use a target of at least \(needs.bytes) bytes.")
    }
}
