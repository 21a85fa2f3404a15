// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # BinaryFields
///
/// Fields in and out of bytes: little- and big-endian integers, GUIDs, UTF-16, CRC-32 and CRC-32C, hexadecimal.
///
/// Every read is bounded and throws ``FieldError`` instead of trapping; the `field` argument is the specification's
/// own name for what is read, so that a damaged structure can be named in a message. The room knows no format.

/// A field could not be read or written.
public enum FieldError: Error, Hashable, Sendable {
    /// The bytes end before the field does.
    case truncated(field: String, at: Int, need: Int, have: Int)
    /// The field's value is not one the format allows.
    case invalid(field: String, at: Int, seen: String, expected: String)
}

extension FieldError: CustomStringConvertible {
    /// The error as a sentence fragment naming field, place, what was seen and what was expected.
    public var description: String {
        switch self {
        case .truncated(let field, let offset, let need, let have):
            return "\(field) at byte \(offset) needs \(need) bytes, but only \(have) are there in all"
        case .invalid(let field, let offset, let seen, let expected):
            return "\(field) at byte \(offset) is \(seen), expected \(expected)"
        }
    }
}

extension RawSpan {
    /// Throws unless `need` bytes lie at `offset`.
    @inlinable func require(_ need: Int, _ field: StaticString, at offset: Int) throws(FieldError) {
        guard offset >= 0, need >= 0, need <= byteCount, offset <= byteCount - need else {
            throw .truncated(field: "\(field)", at: offset, need: need, have: byteCount)
        }
    }

    /// The little-endian integer at `offset`; `field` is the specification's own name for it.
    @inlinable public func littleEndian<T: FixedWidthInteger & BitwiseCopyable>(
        _ type: T.Type, _ field: StaticString, at offset: Int
    ) throws(FieldError) -> T {
        try require(MemoryLayout<T>.size, field, at: offset)
        return T(littleEndian: unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: T.self))
    }

    /// The big-endian integer at `offset`.
    @inlinable public func bigEndian<T: FixedWidthInteger & BitwiseCopyable>(
        _ type: T.Type, _ field: StaticString, at offset: Int
    ) throws(FieldError) -> T {
        try require(MemoryLayout<T>.size, field, at: offset)
        return T(bigEndian: unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: T.self))
    }

    /// A copy of `count` bytes at `offset`.
    @inlinable public func bytes(_ field: StaticString, at offset: Int, count: Int) throws(FieldError) -> [UInt8] {
        try require(count, field, at: offset)
        return unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            for index in 0..<count {
                unsafe buffer[index] = unsafeLoad(fromUncheckedByteOffset: offset + index, as: UInt8.self)
            }
            filled = count
        }
    }

    /// Whether the bytes at `offset` equal `expected`; false where the span ends before.
    @inlinable public func matches(_ expected: some Collection<UInt8>, at offset: Int) -> Bool {
        guard offset >= 0, expected.count <= byteCount, offset <= byteCount - expected.count else { return false }
        var position = offset
        for byte in expected {
            if unsafe unsafeLoad(fromUncheckedByteOffset: position, as: UInt8.self) != byte { return false }
            position += 1
        }
        return true
    }

    /// Whether all bytes are zero.
    @inlinable public var isAllZero: Bool {
        var offset = 0
        while offset + 8 <= byteCount {
            if unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt64.self) != 0 { return false }
            offset += 8
        }
        while offset < byteCount {
            if unsafe unsafeLoad(fromUncheckedByteOffset: offset, as: UInt8.self) != 0 { return false }
            offset += 1
        }
        return true
    }
}

extension MutableRawSpan {
    /// Stores `value` little-endian at `offset`.
    @inlinable public mutating func storeLittleEndian<T: FixedWidthInteger & BitwiseCopyable>(
        _ value: T, _ field: StaticString, at offset: Int
    ) throws(FieldError) {
        let need = MemoryLayout<T>.size
        guard offset >= 0, need <= byteCount, offset <= byteCount - need else {
            throw .truncated(field: "\(field)", at: offset, need: need, have: byteCount)
        }
        unsafe storeBytes(of: value.littleEndian, toUncheckedByteOffset: offset, as: T.self)
    }

    /// Stores `bytes` at `offset`.
    @inlinable public mutating func store(
        _ bytes: some Collection<UInt8>, _ field: StaticString, at offset: Int
    ) throws(FieldError) {
        guard offset >= 0, bytes.count <= byteCount, offset <= byteCount - bytes.count else {
            throw .truncated(field: "\(field)", at: offset, need: bytes.count, have: byteCount)
        }
        var position = offset
        for byte in bytes {
            unsafe storeBytes(of: byte, toUncheckedByteOffset: position, as: UInt8.self)
            position += 1
        }
    }
}

extension Array where Element == UInt8 {
    /// Appends `value` little-endian.
    @inlinable public mutating func appendLittleEndian<T: FixedWidthInteger>(_ value: T) {
        for shift in stride(from: 0, to: T.bitWidth, by: 8) { append(UInt8(truncatingIfNeeded: value >> shift)) }
    }
}
