// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// A 128-bit identifier in the mixed byte order of UEFI 2.10, Appendix A: the first three fields little-endian,
/// the last two as bytes. Printed in lower case with dashes.
public struct GUID: Hashable, Sendable {
    /// The sixteen bytes as they lie on a disk.
    public let bytes: [UInt8]

    /// `nil` unless there are exactly sixteen bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        self.bytes = bytes
    }

    /// Reads a GUID at `offset`.
    public init(_ span: RawSpan, _ field: StaticString, at offset: Int) throws(FieldError) {
        self.bytes = try span.bytes(field, at: offset, count: 16)
    }

    /// Parses `c12a7328-f81f-11d2-ba4b-00a0c93ec93b`, upper or lower case; `nil` for anything else.
    public init?(_ text: String) {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.map(\.utf8.count) == [8, 4, 4, 4, 12], let raw = Hex.bytes(parts.joined()) else { return nil }
        self.bytes = GUID.order.map { raw[$0] }
    }

    /// All zero: an unused GPT entry.
    public static let zero = GUID(known: [UInt8](repeating: 0, count: 16))

    /// A random GUID, version 4, variant 1 (RFC 9562, section 5.4).
    public static func random() -> GUID {
        var generator = SystemRandomNumberGenerator()
        var bytes = (0..<16).map { _ in UInt8.random(in: 0...255, using: &generator) }
        bytes[7] = bytes[7] & 0x0F | 0x40
        bytes[8] = bytes[8] & 0x3F | 0x80
        return GUID(known: bytes)
    }

    private init(known bytes: [UInt8]) { self.bytes = bytes }

    /// Where each byte on disk stands in the text form.
    private static let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
}

extension GUID: CustomStringConvertible {
    /// The text form, lower case.
    public var description: String {
        let text = Hex.text(GUID.order.map { bytes[$0] })
        var result = ""
        for (index, character) in text.enumerated() {
            if [8, 12, 16, 20].contains(index) { result.append("-") }
            result.append(character)
        }
        return result
    }
}

extension GUID: Codable {
    /// Reads the text form.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let guid = GUID(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a GUID")
        }
        self = guid
    }
    /// Writes the text form.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// Hexadecimal text.
public enum Hex {
    private static let digits = Array("0123456789abcdef".utf8)

    /// Two lower-case digits for each byte.
    public static func text(_ bytes: some Sequence<UInt8>) -> String {
        var result: [UInt8] = []
        for byte in bytes {
            result.append(digits[Int(byte >> 4)])
            result.append(digits[Int(byte & 15)])
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// The bytes of `text`; `nil` for an odd number of digits or anything that is not a digit.
    public static func bytes(_ text: some StringProtocol) -> [UInt8]? {
        var result: [UInt8] = []
        var high: UInt8?
        for character in text.utf8 {
            let value: UInt8
            switch character {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = character - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): value = character - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): value = character - UInt8(ascii: "A") + 10
            default: return nil
            }
            if let first = high {
                result.append(first << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        return high == nil ? result : nil
    }

    /// `value` in upper case without padding, as specifications print magic numbers.
    public static func number(_ value: some BinaryInteger) -> String { String(value, radix: 16, uppercase: true) }
}

/// UTF-16LE text as disks hold it.
public enum UTF16Text {
    /// The text up to the first NUL; unpaired surrogates become U+FFFD. Odd trailing bytes are ignored.
    public static func decode(_ bytes: some Collection<UInt8>) -> String {
        var units: [UInt16] = []
        var low: UInt8?
        for byte in bytes {
            if let first = low {
                let unit = UInt16(first) | UInt16(byte) << 8
                if unit == 0 { break }
                units.append(unit)
                low = nil
            } else {
                low = byte
            }
        }
        return String(decoding: units, as: UTF16.self)
    }

    /// The text little-endian, without a terminating NUL.
    public static func encode(_ text: String) -> [UInt8] {
        var result: [UInt8] = []
        for unit in text.utf16 { result.appendLittleEndian(unit) }
        return result
    }
}
