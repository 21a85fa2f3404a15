// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// The size of a disk's logical sector in bytes: a power of two, 512 ... 65,536.
public struct SectorSize: Hashable, Sendable, Codable {
    /// Bytes in one sector.
    public let bytes: UInt32

    /// `nil` unless `bytes` is a power of two between 512 and 65,536.
    public init?(_ bytes: some BinaryInteger) {
        guard let value = UInt32(exactly: bytes), value >= 512, value <= 65_536, value & (value - 1) == 0 else {
            return nil
        }
        self.bytes = value
    }

    private init(known bytes: UInt32) { self.bytes = bytes }

    /// 512 bytes: most disks, and every plain image file unless another size is named.
    public static let s512 = SectorSize(known: 512)
    /// 4096 bytes: "4Kn" disks.
    public static let s4096 = SectorSize(known: 4096)

    /// The size as a count of bytes.
    public var count: ByteCount { ByteCount(UInt64(bytes)) }

    /// Reads the size from a plain integer; refuses sizes that are not a power of two in range.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let size = SectorSize(try container.decode(UInt32.self)) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "a sector size is a power of two from 512 to 65536")
        }
        self = size
    }
    /// Writes the size as a plain integer.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(bytes)
    }
}

/// A sector's address on one disk. It means no byte until a sector size is named.
public struct LBA: Hashable, Comparable, Sendable, Codable {
    /// The address; 0 is the first sector.
    public let value: UInt64

    /// The sector at `value`.
    @inlinable public init(_ value: UInt64) { self.value = value }

    /// Whether `left` lies before `right` on the disk.
    @inlinable public static func < (left: LBA, right: LBA) -> Bool { left.value < right.value }

    /// Byte offset of the sector's first byte; `nil` if past 2^64.
    @inlinable public func offset(_ size: SectorSize) -> ByteCount? {
        ByteCount(value).multiplied(by: UInt64(size.bytes))
    }

    /// The address `sectors` further on; `nil` on overflow.
    @inlinable public func advanced(by sectors: UInt64) -> LBA? {
        let (sum, overflow) = value.addingReportingOverflow(sectors)
        return overflow ? nil : LBA(sum)
    }

    /// The sector that begins at `offset`; `nil` when no sector begins there.
    @inlinable public init?(offset: ByteCount, _ size: SectorSize) {
        guard offset.isMultiple(of: size.count) else { return nil }
        self.value = offset.bytes / UInt64(size.bytes)
    }

    /// Reads the address from a plain integer.
    public init(from decoder: any Decoder) throws { self.init(try decoder.singleValueContainer().decode(UInt64.self)) }
    /// Writes the address as a plain integer.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(value)
    }
}
