// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Geometry

/// Which kind of partition table the target gets.
public enum TableWish: String, Sendable, Codable, CaseIterable {
    /// The kind the source had.
    case auto
    /// A master boot record.
    case mbr
    /// A GUID partition table.
    case gpt
}

/// What becomes of the identifiers of disk and partitions.
public enum IDWish: String, Sendable, Codable, CaseIterable {
    /// They stay, even where an attached disk has the same.
    case keep
    /// Disk and partitions get new ones; what is left to do is listed.
    case new
}

/// The firmware that is to start the restored system.
public enum FirmwareWish: String, Sendable, Codable, CaseIterable {
    /// What the source was started by.
    case auto
    /// Legacy BIOS.
    case bios
    /// UEFI.
    case uefi
}

/// A part of a disk of the recovery point, as a user names it: `N`, or `DISK:N` where several disks are restored. DISK is
/// the disk's number in the point, the path or serial number it had, or the target it goes to.
public struct PartName: Hashable, Sendable {
    /// The disk; `nil` when only a number was given.
    public var disk: String?
    /// The partition's number; 0 for a disk that is a volume as a whole.
    public var number: Int
    /// As it was written.
    public var text: String

    /// Reads `N` or `DISK:N`; `nil` for anything else.
    public init?(_ text: String) {
        self.text = text
        if let number = Int(text), number >= 0 {
            self.number = number
            return
        }
        guard let colon = text.lastIndex(of: ":"), let number = Int(text[text.index(after: colon)...]), number >= 0,
            colon > text.startIndex
        else { return nil }
        disk = String(text[..<colon])
        self.number = number
    }
}

/// A size a user asks for.
public struct SizeWish: Hashable, Sendable {
    /// Of which part.
    public var part: PartName
    /// The size; rounded up to 1 MiB where it differs from the size the part had.
    public var size: ByteCount

    /// A wish.
    public init(part: PartName, size: ByteCount) {
        self.part = part
        self.size = size
    }
}

/// What a user asks of a plan beyond its targets.
public struct PlanWishes: Hashable, Sendable {
    /// The layout; `nil` chooses `keep` where everything fits, else `proportional`.
    public var layout: LayoutMode?
    /// Sizes of single parts.
    public var sizes: [SizeWish] = []
    /// Parts that are left out.
    public var drop: [PartName] = []
    /// Parts whose filesystem may be made anew with its files copied, where nothing else helps.
    public var recreate: [PartName] = []
    /// Whether every part may.
    public var recreatesAll = false
    /// The kind of table.
    public var table = TableWish.auto
    /// Identifiers; `nil` keeps them and refuses where an attached disk has the same.
    public var ids: IDWish?
    /// The firmware.
    public var firmware = FirmwareWish.auto

    /// Wishes.
    public init(layout: LayoutMode? = nil) { self.layout = layout }
}

/// An identifier that an attached disk has.
public struct VisibleID: Hashable, Sendable {
    /// The identifier as printed, lower case.
    public var id: String
    /// What it identifies: `disk GUID`, `ext4 of partition 2`.
    public var what: String
    /// The disk.
    public var disk: String
    /// The partition whose content it identifies; `nil` for the table's.
    public var partition: Int?
    /// Whether it is a loop device or the like, which firmware and Windows never see.
    public var isVirtual: Bool

    /// An identifier.
    public init(id: String, what: String, disk: String, partition: Int? = nil, isVirtual: Bool = false) {
        self.id = id.lowercased()
        self.what = what
        self.disk = disk
        self.partition = partition
        self.isVirtual = isVirtual
    }
}

/// Numbers for new identifiers: the same seed gives the same ones, so that a plan stays a function of its request.
struct IDSource {
    private var state: (UInt64, UInt64)

    init(_ seed: [UInt64]) { state = (seed.first ?? 0, seed.dropFirst().first ?? 0) }

    private static func step(_ state: inout UInt64) -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }

    /// Sixteen bytes; never all zero.
    mutating func bytes() -> [UInt8] {
        let (high, low) = (IDSource.step(&state.0), IDSource.step(&state.1))
        var bytes: [UInt8] = []
        for value in [high, low] {
            for shift in stride(from: UInt64(0), to: 64, by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: value >> shift))
            }
        }
        // Version 4, variant 1 (RFC 9562, section 5.4), in the byte order of UEFI.
        bytes[7] = bytes[7] & 0x0F | 0x40
        bytes[8] = bytes[8] & 0x3F | 0x80
        return bytes
    }
}
