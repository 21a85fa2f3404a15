// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # MachineModel
///
/// A machine as plain values: its disks, their partition tables and partitions, what lies in them, its firmware.
/// The values are what `relight disks --json` prints, what a recovery point stores, and what the planner works on.
///
/// The room reads nothing and decides nothing. All sizes are in bytes, all sector addresses name their disk's logical
/// sector size through ``PartitionTable/sectorSize``.
import BinaryFields
public import Findings
public import Geometry

/// How a machine's firmware starts systems.
public enum FirmwareMode: String, Sendable, Codable {
    /// Legacy BIOS: boot code in sector 0.
    case bios
    /// UEFI: loader files on an EFI system partition, boot entries in variables.
    case uefi
}

/// Bytes that print and store as hexadecimal text.
public struct HexBytes: Hashable, Sendable, Codable {
    /// The bytes.
    public var bytes: [UInt8]
    /// Wraps `bytes`.
    public init(_ bytes: [UInt8]) { self.bytes = bytes }
    /// Reads hexadecimal text.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let bytes = Hex.bytes(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not hexadecimal")
        }
        self.bytes = bytes
    }
    /// Writes hexadecimal text.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(Hex.text(bytes))
    }
}

/// One disk and everything found on it.
public struct DiskModel: Hashable, Sendable, Codable {
    /// Where the disk was found: `/dev/sda`, or the path of an image file.
    public var path: String
    /// The maker's name of the device, where the kernel knows it.
    public var model: String?
    /// The device's serial number.
    public var serial: String?
    /// The device's world wide name.
    public var wwn: String?
    /// How it is attached: `nvme`, `sata`, `virtio`, `usb`, `file` …
    public var bus: String?
    /// Size of the whole disk.
    public var size: ByteCount
    /// Logical sector size.
    public var sectorSize: SectorSize
    /// The partition table; `nil` when there is none.
    public var table: PartitionTable?
    /// What lies on the disk: one volume per partition (extended containers excepted), or one volume with number 0
    /// where the whole disk is a volume or empty.
    public var volumes: [VolumeModel]
    /// What was noticed while looking.
    public var findings: [Finding]
    /// The operating systems whose root begins on this disk; `nil` where nobody looked, as in points of older programs.
    public var systems: [InstalledSystem]?
    /// The EFI programs on its EFI system partitions; `nil` where nobody looked.
    public var efiPrograms: [EFIProgram]?

    /// A disk.
    public init(
        path: String, model: String? = nil, serial: String? = nil, wwn: String? = nil, bus: String? = nil,
        size: ByteCount, sectorSize: SectorSize, table: PartitionTable? = nil, volumes: [VolumeModel] = [],
        findings: [Finding] = []
    ) {
        self.path = path
        self.model = model
        self.serial = serial
        self.wwn = wwn
        self.bus = bus
        self.size = size
        self.sectorSize = sectorSize
        self.table = table
        self.volumes = volumes
        self.findings = findings
    }
}

/// What a volume's content is, as identified by its superblock.
public struct ContentKind: Hashable, Sendable, Codable, RawRepresentable {
    /// The name libblkid gives it (`ext4`, `vfat`, `swap`, `ntfs`, `LVM2_member`, `crypto_LUKS` …), `empty` or `unknown`.
    public var rawValue: String
    /// A kind by name.
    public init(rawValue: String) { self.rawValue = rawValue }
    /// Nothing recognised.
    public static let unknown = ContentKind(rawValue: "unknown")
    /// Nothing recognised and the first MiB is zero.
    public static let empty = ContentKind(rawValue: "empty")
    /// Second, third and fourth extended filesystem.
    public static let ext2 = ContentKind(rawValue: "ext2")
    /// Third extended filesystem.
    public static let ext3 = ContentKind(rawValue: "ext3")
    /// Fourth extended filesystem.
    public static let ext4 = ContentKind(rawValue: "ext4")
    /// FAT12, FAT16 or FAT32.
    public static let fat = ContentKind(rawValue: "vfat")
    /// Linux swap.
    public static let swap = ContentKind(rawValue: "swap")
    /// NTFS.
    public static let ntfs = ContentKind(rawValue: "ntfs")
    /// XFS.
    public static let xfs = ContentKind(rawValue: "xfs")
    /// Whether it is one of ext2, ext3, ext4.
    public var isExt: Bool { [.ext2, .ext3, .ext4].contains(self) }
}

/// Odd states a volume can be in, by name.
public enum VolumeState: String, Sendable, Codable {
    /// Cleanly unmounted.
    case clean
    /// Not cleanly unmounted, or marked with errors.
    case dirty
    /// A journal waits to be replayed.
    case journalToReplay = "journal-to-replay"
    /// Holds a hibernation image.
    case hibernated
    /// Features this program does not know.
    case unknownFeatures = "unknown-features"
    /// Its metadata are damaged.
    case damaged
}

/// One volume: a partition or a whole disk, and what lies in it.
public struct VolumeModel: Hashable, Sendable, Codable {
    /// The partition's number; 0 when the whole disk is the volume.
    public var number: Int
    /// Where it lies on the disk.
    public var extent: Extent
    /// What is in it.
    public var kind: ContentKind
    /// The label.
    public var label: String?
    /// The UUID or serial, as libblkid prints it.
    public var uuid: String?
    /// The filesystem's own size; the volume may be larger. `nil` when unknown.
    public var filesystemSize: ByteCount?
    /// Block, cluster or page size. `nil` when unknown.
    public var blockSize: ByteCount?
    /// Bytes in use, everything that an image of it holds; the volume's size when it is imaged whole.
    public var used: ByteCount
    /// Smallest size it could shrink to; `nil` when it cannot shrink or nobody knows.
    public var minimum: ByteCount?
    /// How the smallest size is known: `estimated` or `measured`.
    public var minimumIs: String?
    /// States by name.
    public var states: [VolumeState]
    /// Why it is imaged whole; `nil` when only used blocks are.
    public var wholeBecause: String?
    /// The volume group, array or encrypted volume it is a part of. `nil` where it is none's, and in points of programs
    /// that did not look.
    public var memberOf: LayerMember?
    /// The volumes that lie in it, wholly or in part. They are shown; what is imaged and restored is the volume itself.
    public var layers: [NestedVolume]?

    /// A volume.
    public init(
        number: Int, extent: Extent, kind: ContentKind, label: String? = nil, uuid: String? = nil,
        filesystemSize: ByteCount? = nil, blockSize: ByteCount? = nil, used: ByteCount, minimum: ByteCount? = nil,
        minimumIs: String? = nil, states: [VolumeState] = [], wholeBecause: String? = nil,
        memberOf: LayerMember? = nil, layers: [NestedVolume]? = nil
    ) {
        self.number = number
        self.extent = extent
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

/// The machine a recovery point was made on.
public struct MachineFacts: Hashable, Sendable, Codable {
    /// Firmware mode of the running environment; `nil` when only image files were read.
    public var firmware: FirmwareMode?
    /// DMI system vendor and product, where readable.
    public var product: String?
    /// DMI serial number, where readable.
    public var serial: String?
    /// Version of the program that looked.
    public var relight: String

    /// Facts of one machine.
    public init(firmware: FirmwareMode? = nil, product: String? = nil, serial: String? = nil, relight: String) {
        self.firmware = firmware
        self.product = product
        self.serial = serial
        self.relight = relight
    }
}
