// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Geometry
///
/// The units Relight counts in. Bytes, sectors and sector addresses are different types, so that a number read from
/// one disk cannot be used on another without naming a sector size.
///
/// The room promises checked arithmetic for values that come from outside (`adding`, `subtracting`, `multiplied`, all
/// returning `nil` when the result cannot be represented). The operators `+` and `-` trap on overflow and are meant
/// only for values that have been bounded before.
///
/// It does not promise to know any device, file or format.

/// A number of bytes: a length, or an offset counted from the start of the thing it speaks of. 0 ... 2^64 − 1.
public struct ByteCount: Hashable, Comparable, Sendable {
    /// The number of bytes.
    public let bytes: UInt64

    /// A count of `bytes` bytes.
    @inlinable public init(_ bytes: UInt64) { self.bytes = bytes }

    /// A count of `bytes` bytes; `nil` when negative.
    @inlinable public init?(exactly bytes: some BinaryInteger) {
        guard let value = UInt64(exactly: bytes) else { return nil }
        self.bytes = value
    }

    /// Nothing.
    public static let zero = ByteCount(0)
    /// `count` × 1024 bytes.
    @inlinable public static func kibibytes(_ count: UInt64) -> ByteCount { ByteCount(count << 10) }
    /// `count` × 1024² bytes.
    @inlinable public static func mebibytes(_ count: UInt64) -> ByteCount { ByteCount(count << 20) }
    /// `count` × 1024³ bytes.
    @inlinable public static func gibibytes(_ count: UInt64) -> ByteCount { ByteCount(count << 30) }

    /// The value as `Int`, for lengths of buffers; `nil` when it does not fit.
    @inlinable public var int: Int? { Int(exactly: bytes) }

    /// Whether `left` is the smaller count.
    @inlinable public static func < (left: ByteCount, right: ByteCount) -> Bool { left.bytes < right.bytes }
    /// The sum of two bounded counts; traps on overflow.
    @inlinable public static func + (left: ByteCount, right: ByteCount) -> ByteCount {
        ByteCount(left.bytes + right.bytes)
    }
    /// The difference of two bounded counts; traps when `right` is larger.
    @inlinable public static func - (left: ByteCount, right: ByteCount) -> ByteCount {
        ByteCount(left.bytes - right.bytes)
    }
    /// Adds in place; traps on overflow.
    @inlinable public static func += (left: inout ByteCount, right: ByteCount) { left = left + right }

    /// The sum, or `nil` on overflow.
    @inlinable public func adding(_ other: ByteCount) -> ByteCount? {
        let (sum, overflow) = bytes.addingReportingOverflow(other.bytes)
        return overflow ? nil : ByteCount(sum)
    }
    /// The difference, or `nil` when `other` is larger.
    @inlinable public func subtracting(_ other: ByteCount) -> ByteCount? {
        other.bytes > bytes ? nil : ByteCount(bytes - other.bytes)
    }
    /// The product, or `nil` on overflow.
    @inlinable public func multiplied(by factor: UInt64) -> ByteCount? {
        let (product, overflow) = bytes.multipliedReportingOverflow(by: factor)
        return overflow ? nil : ByteCount(product)
    }
    /// The next multiple of `grain` at or below this count. `grain` must not be zero.
    @inlinable public func roundedDown(to grain: ByteCount) -> ByteCount {
        ByteCount(bytes - bytes % grain.bytes)
    }
    /// The next multiple of `grain` at or above this count, or `nil` on overflow. `grain` must not be zero.
    @inlinable public func roundedUp(to grain: ByteCount) -> ByteCount? {
        let rest = bytes % grain.bytes
        return rest == 0 ? self : adding(ByteCount(grain.bytes - rest))
    }
    /// Whether the count is a multiple of `grain`, which must not be zero.
    @inlinable public func isMultiple(of grain: ByteCount) -> Bool { bytes % grain.bytes == 0 }
}

extension ByteCount: Codable {
    /// Reads the count from a plain integer.
    public init(from decoder: any Decoder) throws { self.init(try decoder.singleValueContainer().decode(UInt64.self)) }
    /// Writes the count as a plain integer.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(bytes)
    }
}

extension ByteCount: CustomStringConvertible {
    /// The count for people: `512 B`, `1.5 MiB`, `2 TiB`; one decimal place at most.
    public var description: String {
        let names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        var unit = 0
        var scale: UInt64 = 1
        while unit + 1 < names.count, bytes / scale >= 1024 {
            scale <<= 10
            unit += 1
        }
        // Rounding may carry into the next unit (1023.96 KiB is 1 MiB, not 1024 KiB).
        func tenths(_ scale: UInt64) -> UInt64 {
            let whole = bytes / scale
            let rest = bytes % scale
            let part = UInt64((Double(rest) / Double(scale) * 10).rounded())
            return whole * 10 + part
        }
        var value = tenths(scale)
        if value >= 10240, unit + 1 < names.count {
            scale <<= 10
            unit += 1
            value = tenths(scale)
            if value == 0 { value = 10 }
        }
        return value % 10 == 0 ? "\(value / 10) \(names[unit])" : "\(value / 10).\(value % 10) \(names[unit])"
    }
}
