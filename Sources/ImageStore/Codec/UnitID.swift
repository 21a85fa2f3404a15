// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// The SHA-256 (FIPS 180-4) of something stored: 32 bytes, kept as four words so that tables need no further memory.
struct UnitID: Hashable, Sendable, BitwiseCopyable {
    let a: UInt64
    let b: UInt64
    let c: UInt64
    let d: UInt64

    init(a: UInt64, b: UInt64, c: UInt64, d: UInt64) {
        self.a = a
        self.b = b
        self.c = c
        self.d = d
    }

    /// The 32 bytes at `offset`.
    init(_ span: RawSpan, _ field: StaticString, at offset: Int) throws(FieldError) {
        self.a = try span.littleEndian(UInt64.self, field, at: offset)
        self.b = try span.littleEndian(UInt64.self, field, at: offset + 8)
        self.c = try span.littleEndian(UInt64.self, field, at: offset + 16)
        self.d = try span.littleEndian(UInt64.self, field, at: offset + 24)
    }

    /// Number of bytes.
    static let size = 32

    /// The bytes in the order the hash function gives them.
    var bytes: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(UnitID.size)
        append(to: &result)
        return result
    }

    func append(to bytes: inout [UInt8]) {
        for word in [a, b, c, d] { bytes.appendLittleEndian(word) }
    }

    /// 64 hexadecimal digits.
    var text: String { Hex.text(bytes) }
}
