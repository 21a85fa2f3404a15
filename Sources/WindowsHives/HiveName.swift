// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// A name as a hive stores it. Specification, "Key node" and "Key value".
struct HiveName: Hashable, Sendable {
    /// The stored bytes.
    let bytes: [UInt8]
    /// Whether each byte is a character of its own (ISO 8859-1), instead of UTF-16.
    let isCompressed: Bool

    /// The characters as UTF-16.
    var units: [UInt16] {
        if isCompressed { return bytes.map { UInt16($0) } }
        return stride(from: 0, to: bytes.count - bytes.count % 2, by: 2).map { bytes.half(at: $0) }
    }

    /// The name for people; halves of characters become U+FFFD.
    var text: String {
        if isCompressed, bytes.allSatisfy({ $0 < 0x80 }) { return String(decoding: bytes, as: UTF8.self) }
        return String(decoding: units, as: UTF16.self)
    }
}

/// A name that is looked for.
struct SoughtName {
    /// In upper case.
    let units: [UInt16]
    /// What a hash leaf has for it; `nil` where our upper case may differ from that of Windows.
    let hash: UInt32?

    init(_ name: String) {
        units = name.utf16.map(SoughtName.upper)
        // Specification, "Hash leaf", note.
        hash = name.utf8.allSatisfy { $0 < 0x80 } ? units.reduce(0) { $0 &* 37 &+ UInt32($1) } : nil
    }

    /// Whether `name` is this one, but for upper and lower case.
    func matches(_ name: HiveName) -> Bool {
        guard name.bytes.count == (name.isCompressed ? units.count : 2 * units.count) else { return false }
        if name.isCompressed {
            for (byte, unit) in zip(name.bytes, units) where SoughtName.upper(UInt16(byte)) != unit { return false }
            return true
        }
        return name.units.map(SoughtName.upper) == units
    }

    /// The letter's upper case, where it has one that is a single UTF-16 unit.
    static func upper(_ unit: UInt16) -> UInt16 {
        if unit < 0x80 { return (0x61...0x7A).contains(unit) ? unit - 0x20 : unit }
        // Letters that Windows leaves as they are: micro sign, dotless i, long s, Georgian.
        if unit == 0xB5 || unit == 0x131 || unit == 0x17F || (0x10D0...0x10FF).contains(unit) { return unit }
        guard let scalar = Unicode.Scalar(unit) else { return unit }
        let mapped = scalar.properties.uppercaseMapping.utf16
        guard mapped.count == 1, let first = mapped.first else { return unit }
        return first
    }
}
