// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings

/// A value of a key. Specification, "Key value".
public struct HiveValue: Sendable {
    let image: HiveImage
    let storedName: HiveName
    /// Where its cell lies, bytes from the start of the bins.
    public let offset: UInt32
    /// What its data are.
    public let type: HiveValueType
    /// Bytes of its data.
    public let length: Int
    /// Whether the data lie in ``dataField`` itself.
    let isInline: Bool
    /// The cell of the data, or the data.
    let dataField: UInt32

    /// Its name; empty for a key's default value.
    public var name: String { storedName.text }

    /// More than this lies in several cells, in versions above 1.3. Specification, "Big data".
    private static let segment = 16_344
    private static let head = 20

    init(_ image: HiveImage, at offset: UInt32) throws(Fault) {
        let cell = try image.cell(offset, most: HiveValue.head + 236, "A value")
        guard cell.signature == "vk" else { throw cell.damaged("A value should be there, but it is none.") }
        let nameLength = Int(try cell.number(UInt16.self, "Name length", at: 2))
        let size = try cell.number(UInt32.self, "Data size", at: 4)
        dataField = try cell.number(UInt32.self, "Data offset", at: 8)
        type = HiveValueType(rawValue: try cell.number(UInt32.self, "Data type", at: 12))
        let flags = try cell.number(UInt16.self, "Flags", at: 16)
        let end = HiveValue.head + nameLength
        guard end <= cell.length else {
            throw cell.damaged("The value's name of \(nameLength) bytes passes the end of its cell.")
        }
        let content = end <= cell.bytes.count ? cell : try image.cell(offset, most: end, "A value")
        storedName = HiveName(bytes: Array(content.bytes[HiveValue.head..<end]), isCompressed: flags & 1 != 0)
        isInline = size >> 31 == 1
        length = Int(size & 0x7FFF_FFFF)
        self.image = image
        self.offset = offset
    }

    /// The data, whatever their type. Throws `hive.damaged`, and `hive.value-too-large` for more than `limit` bytes.
    public func data(limit: Int = 64 << 20) throws(Fault) -> [UInt8] {
        if isInline {
            guard length <= 4 else {
                throw image.damaged("The value keeps \(length) bytes where four have room.", cell: offset)
            }
            return (0..<length).map { UInt8(truncatingIfNeeded: dataField >> UInt32(8 * $0)) }
        }
        guard length > 0 else { return [] }
        guard length <= limit else {
            throw Fault(
                .hiveValueTooLarge, what: "The value \(name) has \(length) bytes; at most \(limit) are read.",
                place: image.source.name, remedy: "Nothing that Windows needs to start is that large.")
        }
        guard length <= image.length else {
            throw image.damaged("The value's data are said to have \(length) bytes, more than the hive.", cell: offset)
        }
        let head = try image.cell(dataField, most: 8, "The data of a value")
        if head.length >= length {
            return try image.cell(dataField, most: length, "The data of a value").bytes
        }
        guard image.header.minorVersion > 3, length > HiveValue.segment, head.signature == "db" else {
            throw head.damaged("The value's data need \(length) bytes, but the cell has \(head.length).")
        }
        return try segments(head)
    }

    /// The data in the segments that the record `head` tells of.
    private func segments(_ head: Cell) throws(Fault) -> [UInt8] {
        let count = Int(try head.number(UInt16.self, "Number of segments", at: 2))
        guard count == (length + HiveValue.segment - 1) / HiveValue.segment else {
            throw head.damaged("\(length) bytes of data are said to lie in \(count) segments.")
        }
        let list = try image.cell(
            try head.number(UInt32.self, "Offset of a list of segments", at: 4), most: 4 * count, "A list of segments")
        var result: [UInt8] = []
        result.reserveCapacity(length)
        for index in 0..<count {
            let place = try list.number(UInt32.self, "Data segment offset", at: 4 * index)
            let want = min(HiveValue.segment, length - result.count)
            let segment = try image.cell(place, most: want, "A segment of data")
            guard segment.bytes.count == want else {
                throw segment.damaged("A segment of \(want) bytes should be there, but the cell has \(segment.length).")
            }
            result += segment.bytes
        }
        return result
    }

    /// The text of REG_SZ, REG_EXPAND_SZ (not expanded) and REG_LINK up to the first NUL; `nil` for other types.
    public func string() throws(Fault) -> String? {
        guard [.string, .expandString, .link].contains(type) else { return nil }
        return UTF16Text.decode(try data())
    }

    /// The number of REG_DWORD and REG_DWORD_BIG_ENDIAN; `nil` for other types, and where there are not four bytes.
    public func dword() throws(Fault) -> UInt32? {
        guard type == .dword || type == .dwordBigEndian, length == 4 else { return nil }
        let value = try data().word(at: 0)
        return type == .dword ? value : value.byteSwapped
    }

    /// The number of REG_QWORD; `nil` for other types, and where there are not eight bytes.
    public func qword() throws(Fault) -> UInt64? {
        guard type == .qword, length == 8 else { return nil }
        let bytes = try data()
        return UInt64(bytes.word(at: 4)) << 32 | UInt64(bytes.word(at: 0))
    }

    /// The texts of REG_MULTI_SZ up to the first empty one; `nil` for other types.
    public func multiString() throws(Fault) -> [String]? {
        guard type == .multiString else { return nil }
        var result: [String] = []
        var units: [UInt16] = []
        let bytes = try data()
        for index in stride(from: 0, to: bytes.count - bytes.count % 2, by: 2) {
            let unit = bytes.half(at: index)
            if unit != 0 {
                units.append(unit)
            } else if units.isEmpty {
                return result
            } else {
                result.append(String(decoding: units, as: UTF16.self))
                units = []
            }
        }
        // The last NUL is often forgotten.
        if !units.isEmpty { result.append(String(decoding: units, as: UTF16.self)) }
        return result
    }

    /// The bytes of REG_BINARY; `nil` for other types.
    public func binary() throws(Fault) -> [UInt8]? { type == .binary ? try data() : nil }
}
