// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # RestorePlanning
///
/// From what a recovery point holds, what the targets are, and what the user wishes, to a ``RestorePlan`` or to the list
/// of everything that stands in the way. ``Planner/plan(_:)`` is a pure function: it reads no disk, no clock and no random
/// numbers (new identifiers come from a seed in the request).
///
/// A plan is a value. It is printed and stored before the first write, says every change in bytes, and is pinned to its
/// targets: the executor takes the plan and nothing else, checks the pins again, and has ``RestorePlan/requireSound()``
/// look at the whole of it.
///
/// ``Arrangement`` decides where partitions go and knows numbers only; `DiskPlanner` decides what each part may become,
/// and gives the reasons; `PartitionKinds` says which parts are never scaled; `SectorRuling` which filesystems live with
/// other sectors; `BootRuling` what could not be started any more; `TableConversion` turns an MBR into a GPT and back.
///
/// The room does not look inside containers (LVM, LUKS, md): such a volume keeps its size. It does not know whether a
/// system boots, only what certainly keeps it from doing so.
public import Findings
public import Geometry
public import MachineModel

/// How the partitions of a target are laid out.
public enum LayoutMode: String, Sendable, Codable, CaseIterable {
    /// Table and offsets as they were.
    case exact
    /// Same starts and sizes; what the larger disk has more stays free.
    case keep
    /// Every volume that can be resized scaled alike, and the free room with them; the others keep their size.
    case proportional
    /// All extra room to the last volume that can grow.
    case fill
}

/// The disk a plan is for, as it was when the plan was made. A restore refuses another one.
public struct TargetPin: Hashable, Sendable, Codable {
    /// Where it was found.
    public var path: String
    /// Serial number, where it has one.
    public var serial: String?
    /// World wide name, where it has one.
    public var wwn: String?
    /// The maker's name, for the reader of the plan.
    public var model: String?
    /// Exact size.
    public var size: ByteCount
    /// Logical sector size.
    public var sectorSize: SectorSize

    /// A pin.
    public init(
        path: String, serial: String? = nil, wwn: String? = nil, model: String? = nil, size: ByteCount,
        sectorSize: SectorSize
    ) {
        self.path = path
        self.serial = serial
        self.wwn = wwn
        self.model = model
        self.size = size
        self.sectorSize = sectorSize
    }
}

/// What happens to one volume.
public struct VolumePlan: Hashable, Sendable {
    /// The partition's number on the target; 0 when the whole disk is the volume.
    public var number: Int
    /// Its number in the recovery point.
    public var sourceNumber: Int
    /// What is in it.
    public var kind: ContentKind
    /// Its label or partition name, for the reader.
    public var label: String?
    /// Where it lay on the source.
    public var source: Extent
    /// Where it goes.
    public var target: Extent
    /// Bytes the image holds of it; what is written, more or less, when it is not copied as it is.
    public var used: ByteCount
    /// How its content comes onto the target.
    public var treatment: VolumeTreatment
    /// Whether the filesystem is grown to its new size after the data are written.
    public var grows: Bool
    /// The program that grows it.
    public var growsBy: String?
    /// The smallest size it would have been given; `nil` when it could not be made smaller.
    public var minimum: ByteCount?
    /// What is mended once the data are written, and what is left to be mended.
    public var fixUps: [FixUp]
    /// Why it is where it is.
    public var reason: String

    /// Whether its first byte lies elsewhere than on the source.
    public var moves: Bool { source.start != target.start }

    /// A volume that is copied as it is.
    init(
        number: Int, sourceNumber: Int, kind: ContentKind, label: String?, source: Extent, target: Extent,
        used: ByteCount, reason: String
    ) {
        self.number = number
        self.sourceNumber = sourceNumber
        self.kind = kind
        self.label = label
        self.source = source
        self.target = target
        self.used = used
        treatment = .copy
        grows = false
        fixUps = []
        self.reason = reason
    }

    /// What the boot sectors of a volume need that begins at another sector than before.
    static func fixUps(
        _ kind: ContentKind, from old: ByteCount, _ oldSize: SectorSize, to new: ByteCount, _ newSize: SectorSize
    ) -> [FixUp] {
        guard let sector = LBA(offset: new, newSize), sector != LBA(offset: old, oldSize) else { return [] }
        if kind == .exfat { return [.partitionOffset(sector.value)] }
        guard kind == .fat || kind == .ntfs, let hidden = UInt32(exactly: sector.value) else { return [] }
        return [.hiddenSectors(hidden)]
    }
}

extension VolumePlan: Codable {
    private enum CodingKeys: String, CodingKey {
        case number, sourceNumber, kind, label, source, target, used, treatment, grows, growsBy, minimum, fixUps, reason
    }

    /// Reads a volume; plans of format 1 lack what was added since.
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        number = try fields.decode(Int.self, forKey: .number)
        sourceNumber = try fields.decodeIfPresent(Int.self, forKey: .sourceNumber) ?? number
        kind = try fields.decode(ContentKind.self, forKey: .kind)
        label = try fields.decodeIfPresent(String.self, forKey: .label)
        source = try fields.decode(Extent.self, forKey: .source)
        target = try fields.decode(Extent.self, forKey: .target)
        used = try fields.decode(ByteCount.self, forKey: .used)
        treatment = try fields.decodeIfPresent(VolumeTreatment.self, forKey: .treatment) ?? .copy
        grows = try fields.decode(Bool.self, forKey: .grows)
        growsBy = try fields.decodeIfPresent(String.self, forKey: .growsBy)
        minimum = try fields.decodeIfPresent(ByteCount.self, forKey: .minimum)
        fixUps = try fields.decodeIfPresent([FixUp].self, forKey: .fixUps) ?? []
        reason = try fields.decode(String.self, forKey: .reason)
    }
}

/// A partition of the source that is left out.
public struct DroppedPart: Hashable, Sendable, Codable {
    /// Its number there.
    public var number: Int
    /// Where it lay.
    public var source: Extent
    /// What the reader knows it by.
    public var name: String
    /// Why.
    public var reason: String
}

/// What happens to one target disk.
public struct DiskPlan: Hashable, Sendable {
    /// Which of the point's disks, counted from 0.
    public var sourceIndex: Int
    /// Where that disk was when it was imaged.
    public var sourcePath: String
    /// Size of that disk.
    public var sourceSize: ByteCount
    /// The target.
    public var target: TargetPin
    /// What lies on the target now and will be lost.
    public var overwrites: [String]
    /// The layout asked for.
    public var layout: LayoutMode
    /// The table to be written; `nil` when the disk has none, or keeps the one it has.
    public var table: PartitionTable?
    /// The table that is on the target and stays as it is, with everything in it but one volume; `nil` when the whole
    /// target is written.
    public var keeps: PartitionTable?
    /// Bytes between sector 0 and the first partition that are copied to the same place (boot loaders live there).
    public var gap: Extent?
    /// The volumes.
    public var volumes: [VolumePlan]
    /// Partitions of the source that are left out.
    public var dropped: [DroppedPart]
    /// Identifiers that change, or ought to.
    public var ids: [IDChange]
    /// Room behind the last partition that stays free.
    public var free: ByteCount

    init(_ assignment: Planner.Assignment, layout: LayoutMode) {
        sourceIndex = assignment.sourceIndex
        sourcePath = assignment.source.path
        sourceSize = assignment.source.size
        target = assignment.target.pin
        overwrites = assignment.target.holds
        self.layout = layout
        volumes = []
        dropped = []
        ids = []
        free = .zero
    }
}

extension DiskPlan: Codable {
    private enum CodingKeys: String, CodingKey {
        case sourceIndex, sourcePath, sourceSize, target, overwrites, layout, table, keeps, gap, volumes, dropped, ids,
            free
    }

    /// Reads a disk; plans of format 1 lack what was added since.
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        sourceIndex = try fields.decode(Int.self, forKey: .sourceIndex)
        sourcePath = try fields.decode(String.self, forKey: .sourcePath)
        sourceSize = try fields.decode(ByteCount.self, forKey: .sourceSize)
        target = try fields.decode(TargetPin.self, forKey: .target)
        overwrites = try fields.decode([String].self, forKey: .overwrites)
        layout = try fields.decode(LayoutMode.self, forKey: .layout)
        table = try fields.decodeIfPresent(PartitionTable.self, forKey: .table)
        keeps = try fields.decodeIfPresent(PartitionTable.self, forKey: .keeps)
        gap = try fields.decodeIfPresent(Extent.self, forKey: .gap)
        volumes = try fields.decode([VolumePlan].self, forKey: .volumes)
        dropped = try fields.decodeIfPresent([DroppedPart].self, forKey: .dropped) ?? []
        ids = try fields.decodeIfPresent([IDChange].self, forKey: .ids) ?? []
        free = try fields.decode(ByteCount.self, forKey: .free)
        // Format 1 meant without saying it that boot sectors of what moves are mended.
        guard !fields.contains(.dropped) else { return }
        for index in volumes.indices where volumes[index].moves {
            volumes[index].fixUps = VolumePlan.fixUps(
                volumes[index].kind, from: volumes[index].source.start, target.sectorSize,
                to: volumes[index].target.start, target.sectorSize)
        }
    }
}

/// Everything a restore will do.
public struct RestorePlan: Hashable, Sendable, Codable {
    /// Format of stored plans that this program writes.
    public static let format = 2
    /// Format of the stored plan; 1 and 2 are read.
    public var plan = RestorePlan.format
    /// The image set.
    public var set: String
    /// Further places the set lies in; `nil` for none.
    public var also: [String]?
    /// The recovery point's full id.
    public var point: String
    /// What tells it from other points; `nil` in plans that do not say.
    public var pointLabel: PointLabel?
    /// The targets.
    public var disks: [DiskPlan]
    /// What to know before saying yes.
    public var findings: [Finding]

    /// A plan.
    public init(set: String, point: String, disks: [DiskPlan], findings: [Finding]) {
        self.set = set
        self.point = point
        self.disks = disks
        self.findings = findings
    }

    /// Bytes that will be written, tables excepted.
    public var bytesToWrite: ByteCount {
        disks.flatMap(\.volumes).reduce(.zero) { $0.adding($1.used) ?? $0 }
    }
}

/// Everything that stands in the way of a plan.
public struct PlanRefusal: Error, Hashable, Sendable {
    /// The reasons; at least one.
    public var reasons: [Fault]
    /// A refusal with its reasons.
    public init(_ reasons: [Fault]) { self.reasons = reasons }
}
