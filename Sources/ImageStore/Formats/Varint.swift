// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry

/// Whole numbers in as few bytes as they need: seven bits a byte, low bits first, the top bit set on all but the last
/// byte; at most ten bytes, never longer than needed. See `docs/image-format.md`, section 2.
extension Array where Element == UInt8 {
    mutating func appendVarint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        append(UInt8(truncatingIfNeeded: rest))
    }
}

/// Reads a structure from front to back, bounded.
struct FieldCursor {
    let bytes: [UInt8]
    var position: Int
    let end: Int

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        self.position = 0
        self.end = bytes.count
    }

    /// A cursor over `range`, which must lie inside `bytes`.
    init(_ bytes: [UInt8], _ range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count)
        self.bytes = bytes
        self.position = range.lowerBound
        self.end = range.upperBound
    }

    var remaining: Int { end - position }

    mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(
        _ type: T.Type, _ field: StaticString
    ) throws(FieldError) -> T {
        try require(MemoryLayout<T>.size, field)
        let value = try unsafe bytes.span.bytes.littleEndian(type, field, at: position)
        position += MemoryLayout<T>.size
        return value
    }

    mutating func varint(_ field: StaticString) throws(FieldError) -> UInt64 {
        let start = position
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            let byte = try integer(UInt8.self, field)
            // The tenth byte holds the topmost bit only; a last byte of zero would be a longer form of a shorter number.
            if shift == 63, byte > 1 { break }
            value |= UInt64(byte & 0x7F) << shift
            if byte & 0x80 == 0 {
                if byte == 0, shift > 0 { break }
                return value
            }
            shift += 7
            if shift > 63 { break }
        }
        throw .invalid(
            field: "\(field)", at: start, seen: "a malformed number", expected: "a number of at most 64 bits")
    }

    mutating func id(_ field: StaticString) throws(FieldError) -> UnitID {
        try require(UnitID.size, field)
        let id = try unsafe UnitID(bytes.span.bytes, field, at: position)
        position += UnitID.size
        return id
    }

    mutating func objectID(_ field: StaticString) throws(FieldError) -> ObjectID {
        try require(ObjectID.size, field)
        let id = try unsafe ObjectID(bytes.span.bytes, field, at: position)
        position += ObjectID.size
        return id
    }

    private func require(_ need: Int, _ field: StaticString) throws(FieldError) {
        guard need <= remaining else {
            throw .truncated(field: "\(field)", at: position, need: need, have: end)
        }
    }
}

/// Lists of runs: the number of runs, then for each the gap since the end of the one before and its length.
enum RunList {
    /// Most runs believed in one list.
    static let maximum = 1 << 22

    static func append(_ list: ExtentList, to bytes: inout [UInt8]) {
        bytes.appendVarint(UInt64(list.extents.count))
        var end: UInt64 = 0
        for extent in list.extents {
            bytes.appendVarint(extent.start.bytes - end)
            bytes.appendVarint(extent.length.bytes)
            end = extent.end.bytes
        }
    }

    /// Reads a list whose runs all end at or before `limit`.
    static func read(
        _ cursor: inout FieldCursor, limit: ByteCount, _ field: StaticString
    ) throws(FieldError) -> ExtentList {
        let start = cursor.position
        let count = try cursor.varint(field)
        // A run takes two bytes at least.
        guard count <= UInt64(maximum), count <= UInt64(max(0, cursor.remaining)) / 2 else {
            throw .invalid(
                field: "\(field)", at: start, seen: "\(count) runs", expected: "as many as the section holds")
        }
        var list = ExtentList()
        var end = ByteCount.zero
        for index in 0..<count {
            let place = cursor.position
            let gap = ByteCount(try cursor.varint(field))
            let length = ByteCount(try cursor.varint(field))
            guard gap != .zero || index == 0, length != .zero, let start = end.adding(gap),
                let run = Extent(start: start, length: length), run.end <= limit
            else {
                throw .invalid(
                    field: "\(field)", at: place, seen: "gap \(gap.bytes), length \(length.bytes)",
                    expected: "disjoint runs within \(limit.bytes) bytes")
            }
            list.append(run)
            end = run.end
        }
        return list
    }
}
