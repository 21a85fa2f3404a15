// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Geometry
public import MachineModel

/// How the content of one volume comes onto the target.
public enum VolumeTreatment: Hashable, Sendable {
    /// Its used blocks, each at the same place in the volume.
    case copy
    /// The filesystem's own resizer `by` makes it `to` bytes large on an overlay of the image; then its used blocks are
    /// written. `to` is at most the volume's new size and a multiple of 4096.
    case shrink(to: ByteCount, by: String)
    /// A new filesystem made with `by`, of the same identity and features, and its files copied.
    case recreate(by: String)
}

extension VolumeTreatment: Codable {
    private enum CodingKeys: String, CodingKey { case `do`, to, by }
    private enum Name: String, Codable { case copy, shrink, recreate }

    /// Reads `{"do": "copy"}`, `{"do": "shrink", "to": bytes, "by": tool}`, `{"do": "recreate", "by": tool}`.
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        switch try fields.decode(Name.self, forKey: .do) {
        case .copy: self = .copy
        case .shrink:
            self = .shrink(
                to: try fields.decode(ByteCount.self, forKey: .to), by: try fields.decode(String.self, forKey: .by))
        case .recreate: self = .recreate(by: try fields.decode(String.self, forKey: .by))
        }
    }

    /// Writes the same.
    public func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: CodingKeys.self)
        switch self {
        case .copy: try fields.encode(Name.copy, forKey: .do)
        case .shrink(let size, let tool):
            try fields.encode(Name.shrink, forKey: .do)
            try fields.encode(size, forKey: .to)
            try fields.encode(tool, forKey: .by)
        case .recreate(let tool):
            try fields.encode(Name.recreate, forKey: .do)
            try fields.encode(tool, forKey: .by)
        }
    }
}

/// What is mended in or for a volume once its data are written.
public enum FixUp: Hashable, Sendable {
    /// HiddenSectors of a FAT or NTFS boot sector and of its copy: the volume's first sector.
    case hiddenSectors(UInt32)
    /// PartitionOffset of both exFAT boot regions, with their checksums: the volume's first sector.
    case partitionOffset(UInt64)
    /// Not done by the restore: what must be done before the system starts, a sentence.
    case bootRepair(String)
}

extension FixUp: Codable {
    private enum CodingKeys: String, CodingKey { case hiddenSectors, partitionOffset, bootRepair }

    /// Reads an object with one key.
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        if let value = try fields.decodeIfPresent(UInt32.self, forKey: .hiddenSectors) {
            self = .hiddenSectors(value)
        } else if let value = try fields.decodeIfPresent(UInt64.self, forKey: .partitionOffset) {
            self = .partitionOffset(value)
        } else {
            self = .bootRepair(try fields.decode(String.self, forKey: .bootRepair))
        }
    }

    /// Writes the same.
    public func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: CodingKeys.self)
        switch self {
        case .hiddenSectors(let value): try fields.encode(value, forKey: .hiddenSectors)
        case .partitionOffset(let value): try fields.encode(value, forKey: .partitionOffset)
        case .bootRepair(let what): try fields.encode(what, forKey: .bootRepair)
        }
    }
}

/// An identifier that changes, or ought to.
public struct IDChange: Hashable, Sendable, Codable {
    /// What it identifies: `disk GUID`, `partition 2 GUID`, `ext4 of partition 3`.
    public var what: String
    /// As it was.
    public var old: String
    /// As it will be; `nil` when the restore leaves it and it is for the user to change.
    public var new: String?
    /// What changes it: `the new partition table`, or the command to run.
    public var by: String

    /// A change.
    public init(what: String, old: String, new: String?, by: String) {
        self.what = what
        self.old = old
        self.new = new
        self.by = by
    }
}

/// What whoever carries the plan out can do with filesystems: nothing else is planned. Each kind with its program.
public struct PlanAbilities: Hashable, Sendable {
    /// Kinds that can be grown once their data are written.
    public var grow: [ContentKind: String]
    /// Kinds that can be shrunk on an overlay of the image.
    public var shrink: [ContentKind: String]
    /// Kinds that can be made anew and have their files copied.
    public var recreate: [ContentKind: String]

    /// Abilities.
    public init(
        grow: [ContentKind: String], shrink: [ContentKind: String] = [:], recreate: [ContentKind: String] = [:]
    ) {
        self.grow = grow
        self.shrink = shrink
        self.recreate = recreate
    }

    /// ext2, ext3 and ext4 are grown, nothing else.
    public static let growingExt = PlanAbilities(grow: [
        .ext2: "resize2fs", .ext3: "resize2fs", .ext4: "resize2fs",
    ])

    /// Everything a plan can say.
    public static let all = PlanAbilities(
        grow: [
            .ext2: "resize2fs", .ext3: "resize2fs", .ext4: "resize2fs", .ntfs: "ntfsresize", .xfs: "xfs_growfs",
            .btrfs: "btrfs", .f2fs: "resize.f2fs",
        ],
        shrink: [
            .ext2: "resize2fs", .ext3: "resize2fs", .ext4: "resize2fs", .ntfs: "ntfsresize", .btrfs: "btrfs",
        ],
        recreate: [
            .xfs: "mkfs.xfs", .fat: "mkfs.fat", .exfat: "mkfs.exfat", .ext2: "mkfs.ext2", .ext3: "mkfs.ext3",
            .ext4: "mkfs.ext4", .swap: "mkswap",
        ])
}

extension ContentKind {
    /// Btrfs.
    static let btrfs = ContentKind(rawValue: "btrfs")
    /// exFAT.
    static let exfat = ContentKind(rawValue: "exfat")
    /// F2FS.
    static let f2fs = ContentKind(rawValue: "f2fs")
    /// An encrypted volume of cryptsetup.
    static let luks = ContentKind(rawValue: "crypto_LUKS")
    /// An LVM physical volume.
    static let physicalVolume = ContentKind(rawValue: "LVM2_member")

    /// Kinds that other volumes lie in.
    static let containers: Set<ContentKind> = [
        .luks, .physicalVolume, ContentKind(rawValue: "linux_raid_member"), ContentKind(rawValue: "zfs_member"),
        ContentKind(rawValue: "BitLocker"), ContentKind(rawValue: "bcache"), ContentKind(rawValue: "drbd"),
        ContentKind(rawValue: "ddf_raid_member"), ContentKind(rawValue: "isw_raid_member"),
        ContentKind(rawValue: "VMFS_volume_member"), ContentKind(rawValue: "LVM1_member"),
        ContentKind(rawValue: "stratis"), ContentKind(rawValue: "ceph_bluestore"),
    ]

    /// Kinds whose size may not change because something lies at their end, or is counted from it.
    static let endBound: Set<ContentKind> = containers.subtracting([.luks, .physicalVolume])
}
