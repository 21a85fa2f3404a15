// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Geometry
public import MachineModel

/// What libblkid says of a volume.
public struct Identity: Hashable, Sendable {
    /// What a content is for.
    public enum Usage: String, Hashable, Sendable {
        /// A filesystem.
        case filesystem
        /// A member of a RAID, a volume group or another container.
        case container
        /// Encrypted.
        case encrypted
        /// Swap and the like, or nothing.
        case other
    }
    /// What is in it, by libblkid's name; `empty` or `unknown` where that knows nothing.
    public var kind: ContentKind
    /// What it is for.
    public var usage: Usage
    /// The label.
    public var label: String?
    /// The UUID or serial.
    public var uuid: String?
    /// The format's version, e.g. `1.0` of ext4, `FAT32`.
    public var version: String?
    /// Block size as libblkid tells it: for most filesystems the smallest read they do, not the cluster.
    public var blockSize: ByteCount?
    /// The filesystem's size, where libblkid knows it.
    public var filesystemSize: ByteCount?
    /// Whether the superblock's own checksum is wrong.
    public var badChecksum: Bool
    /// All names, where more than one content claims the volume; then the kind is `unknown`.
    public var ambivalent: [String]

    /// An identity.
    public init(
        kind: ContentKind, usage: Usage = .other, label: String? = nil, uuid: String? = nil, version: String? = nil,
        blockSize: ByteCount? = nil, filesystemSize: ByteCount? = nil, badChecksum: Bool = false,
        ambivalent: [String] = []
    ) {
        self.kind = kind
        self.usage = usage
        self.label = label
        self.uuid = uuid
        self.version = version
        self.blockSize = blockSize
        self.filesystemSize = filesystemSize
        self.badChecksum = badChecksum
        self.ambivalent = ambivalent
    }
}
