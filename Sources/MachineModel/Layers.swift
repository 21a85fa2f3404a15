// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Geometry

/// What a volume is a part of: a volume group, an array, an encrypted volume.
public struct LayerMember: Hashable, Sendable, Codable {
    /// The layer: `LVM2`, `md raid1`, `LUKS2` …
    public var format: String
    /// Its name, as its tools show it: a volume group's, an array's. Empty where it has none.
    public var name: String
    /// Its UUID, as its tools print it.
    public var uuid: String?
    /// All the volumes it lies on that were found: `/dev/sda:2`, `vg0/crypt`.
    public var members: [String]
    /// Number of members that were not found.
    public var missing: Int
    /// Whether it was put together, so that the volumes in it could be looked into.
    public var isAssembled: Bool

    /// A membership.
    public init(
        format: String, name: String, uuid: String? = nil, members: [String], missing: Int = 0, isAssembled: Bool
    ) {
        self.format = format
        self.name = name
        self.uuid = uuid
        self.members = members
        self.missing = missing
        self.isAssembled = isAssembled
    }
}

/// A volume inside another one: a logical volume, an array, what an encrypted volume holds, a partition of any of these.
public struct NestedVolume: Hashable, Sendable, Codable {
    /// Its name: `vg0/root`, `md0`, `luks-UUID`; a partition of it `vg0/guest:1`.
    public var name: String
    /// How it is laid out on the volumes below: `linear`, `striped`, `raid1`, `crypt`, `partition` …
    public var layout: String
    /// Its size.
    public var size: ByteCount
    /// What is in it.
    public var kind: ContentKind
    /// The label.
    public var label: String?
    /// The UUID or serial of its content.
    public var uuid: String?
    /// The filesystem's own size. `nil` when unknown.
    public var filesystemSize: ByteCount?
    /// Block, cluster or page size. `nil` when unknown.
    public var blockSize: ByteCount?
    /// Bytes in use.
    public var used: ByteCount
    /// Smallest size it could shrink to; `nil` when it cannot shrink or nobody knows.
    public var minimum: ByteCount?
    /// How the smallest size is known: `estimated` or `measured`.
    public var minimumIs: String?
    /// States by name.
    public var states: [VolumeState]
    /// Why it is imaged whole; `nil` when only used blocks are.
    public var wholeBecause: String?
    /// What it is a part of itself.
    public var memberOf: LayerMember?
    /// The volumes in it.
    public var layers: [NestedVolume]?

    /// A volume.
    public init(
        name: String, layout: String, size: ByteCount, kind: ContentKind, label: String? = nil, uuid: String? = nil,
        filesystemSize: ByteCount? = nil, blockSize: ByteCount? = nil, used: ByteCount, minimum: ByteCount? = nil,
        minimumIs: String? = nil, states: [VolumeState] = [], wholeBecause: String? = nil,
        memberOf: LayerMember? = nil, layers: [NestedVolume]? = nil
    ) {
        self.name = name
        self.layout = layout
        self.size = size
        self.kind = kind
        self.label = label
        self.uuid = uuid
        self.filesystemSize = filesystemSize
        self.blockSize = blockSize
        self.used = used
        self.minimum = minimum
        self.minimumIs = minimumIs
        self.states = states
        self.wholeBecause = wholeBecause
        self.memberOf = memberOf
        self.layers = layers
    }
}
