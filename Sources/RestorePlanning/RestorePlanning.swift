// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # RestorePlanning
///
/// From what a recovery point holds, what the targets are, and what the user wishes, to a ``RestorePlan`` or to the list
/// of everything that stands in the way. ``Planner/plan(_:)`` is a pure function: it reads no disk and no clock.
///
/// A plan is a value. It is printed and stored before the first write, says every change in bytes, and is pinned to its
/// targets: the executor takes the plan and nothing else and checks the pins again.
///
/// What this version plans: targets of the same sector size that are at least as large as what lies on the source;
/// layouts `exact` and `keep` (same starts and sizes, the rest free) and `fill` (the last ext2, ext3 or ext4 volume takes
/// all extra room; what lies behind it moves). It does not shrink, does not convert tables, and says so when asked.
public import Findings
public import Geometry
public import MachineModel

/// How the partitions of a larger target are laid out.
public enum LayoutMode: String, Sendable, Codable, CaseIterable {
    /// Table and offsets as they were.
    case exact
    /// Same starts and sizes; what the larger disk has more stays free.
    case keep
    /// Every flexible volume scaled. Not in this version.
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
public struct VolumePlan: Hashable, Sendable, Codable {
    /// The partition's number; 0 when the whole disk is the volume.
    public var number: Int
    /// What is in it.
    public var kind: ContentKind
    /// Its label or partition name, for the reader.
    public var label: String?
    /// Where it lay on the source.
    public var source: Extent
    /// Where it goes.
    public var target: Extent
    /// Bytes that will be written.
    public var used: ByteCount
    /// Whether the filesystem is grown to its new size after the data are written.
    public var grows: Bool
    /// Why it is where it is.
    public var reason: String

    /// Whether its first byte lies elsewhere than on the source.
    public var moves: Bool { source.start != target.start }
}

/// What happens to one target disk.
public struct DiskPlan: Hashable, Sendable, Codable {
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
    /// The table to be written; `nil` when the disk has none.
    public var table: PartitionTable?
    /// Bytes between sector 0 and the first partition that are copied to the same place (boot loaders live there).
    public var gap: Extent?
    /// The volumes.
    public var volumes: [VolumePlan]
    /// Room behind the last partition that stays free.
    public var free: ByteCount
}

/// Everything a restore will do.
public struct RestorePlan: Hashable, Sendable, Codable {
    /// Format of the stored plan.
    public var plan = 1
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
