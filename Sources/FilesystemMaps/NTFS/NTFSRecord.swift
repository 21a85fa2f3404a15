// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// A structure of several 512-byte pieces of which each ends in the same two bytes while it lies on the disk, so that a
/// torn write is noticed: FILE and INDX records, restart pages of the log. Linux-NTFS documentation, "Fixup".
enum NTFSFixup {
    static let piece = 512

    /// The structure with the bytes put back that the update sequence replaced.
    static func applied(to raw: Fields) throws(MapProblem) -> Fields {
        let offset = Int(try raw.little(UInt16.self, "usa_ofs", at: 4))
        let count = Int(try raw.little(UInt16.self, "usa_count", at: 6))
        guard raw.bytes.count % piece == 0, count == raw.bytes.count / piece + 1, offset % 2 == 0,
            offset + 2 * count <= piece - 2
        else { throw .damaged("\(raw.name.capitalizedFirst) has an update sequence that does not fit it.") }
        let number = try raw.bytes("usa", at: offset, count: 2)
        var result = raw
        for index in 1..<count {
            let end = index * piece - 2
            guard raw.bytes[end] == number[0], raw.bytes[end + 1] == number[1] else {
                throw .damaged("\(raw.name.capitalizedFirst) was written only in part.")
            }
            result.bytes[end] = raw.bytes[offset + 2 * index]
            result.bytes[end + 1] = raw.bytes[offset + 2 * index + 1]
        }
        return result
    }
}

/// A file record of the master file table. Linux-NTFS documentation, "FILE Record".
struct NTFSRecord {
    /// Its number.
    let number: UInt64
    /// How often the record was used anew.
    let sequence: UInt16
    /// The record it extends; `nil` for a base record.
    let base: UInt64?
    /// Its attributes, in order.
    let attributes: [NTFSAttribute]
    /// Its bytes as they lie on the disk.
    let raw: Fields
    /// Bytes of it that mean something.
    let inUse: Int

    /// Reads record `number` from its bytes.
    init(_ raw: Fields, number: UInt64) throws(MapProblem) {
        guard raw.matches("FILE", at: 0) else { throw .damaged("\(raw.name.capitalizedFirst) is no FILE record.") }
        let fields = try NTFSFixup.applied(to: raw)
        self.number = number
        self.raw = raw
        sequence = try fields.little(UInt16.self, "sequence_number", at: 16)
        let flags = try fields.little(UInt16.self, "flags", at: 22)
        guard flags & 1 != 0 else { throw .damaged("\(raw.name.capitalizedFirst) is not in use.") }
        inUse = Int(try fields.little(UInt32.self, "bytes_in_use", at: 24))
        guard inUse <= fields.bytes.count else {
            throw .damaged("\(raw.name.capitalizedFirst) claims more bytes than it has.")
        }
        let reference = try fields.little(UInt64.self, "base_mft_record", at: 32)
        base = reference == 0 ? nil : NTFSReference(reference).record
        var found: [NTFSAttribute] = []
        var at = Int(try fields.little(UInt16.self, "attrs_offset", at: 20))
        while true {
            let type = try fields.little(UInt32.self, "attribute type", at: at)
            if type == .max { break }
            let length = Int(try fields.little(UInt32.self, "attribute length", at: at + 4))
            guard length >= 24, length % 8 == 0, at % 8 == 0, at <= inUse, length <= inUse - at else {
                throw .damaged("\(raw.name.capitalizedFirst) has an attribute that does not fit into it.")
            }
            let body = Fields(
                "an attribute of \(raw.name)", try fields.bytes("attribute", at: at, count: length))
            found.append(try NTFSAttribute(body, type: type))
            at += length
        }
        attributes = found
    }
}

/// A reference to a file record: its number, and the sequence number it must have.
struct NTFSReference: Hashable {
    let record: UInt64
    let sequence: UInt16

    /// The reference stored as `value`.
    init(_ value: UInt64) {
        record = value & 0xFFFF_FFFF_FFFF
        sequence = UInt16(truncatingIfNeeded: value >> 48)
    }
}

/// An attribute of a file record. Linux-NTFS documentation, "Attribute header".
struct NTFSAttribute {
    static let list: UInt32 = 0x20
    static let volumeName: UInt32 = 0x60
    static let volumeInformation: UInt32 = 0x70
    static let data: UInt32 = 0x80
    static let indexRoot: UInt32 = 0x90
    static let indexAllocation: UInt32 = 0xA0
    static let bitmap: UInt32 = 0xB0

    /// What it holds.
    enum Content {
        case resident([UInt8])
        case clusters(Mapping)
    }

    /// Where its value lies outside the record.
    struct Mapping {
        var firstVCN: UInt64
        /// First cluster behind those mapped here.
        var endVCN: UInt64
        var pairs: ArraySlice<UInt8>
        /// The sizes of the whole stream, kept by the attribute that begins it.
        var allocatedSize: UInt64
        var dataSize: UInt64
        var initializedSize: UInt64
    }

    let type: UInt32
    let name: String
    /// Its number within its record.
    let instance: UInt16
    /// Compressed or encrypted: what lies in its clusters is not its value.
    let isEncoded: Bool
    let content: Content

    /// Reads an attribute from its bytes.
    init(_ fields: Fields, type: UInt32) throws(MapProblem) {
        self.type = type
        let nameLength = Int(try fields.little(UInt8.self, "name_length", at: 9))
        let nameOffset = Int(try fields.little(UInt16.self, "name_offset", at: 10))
        name =
            nameLength == 0
            ? "" : UTF16Text.decode(try fields.bytes("name", at: nameOffset, count: 2 * nameLength))
        isEncoded = try fields.little(UInt16.self, "flags", at: 12) & 0x40FF != 0
        instance = try fields.little(UInt16.self, "instance", at: 14)
        if try fields.little(UInt8.self, "non_resident", at: 8) == 0 {
            let length = Int(try fields.little(UInt32.self, "value_length", at: 16))
            let offset = Int(try fields.little(UInt16.self, "value_offset", at: 20))
            content = .resident(try fields.bytes("value", at: offset, count: length))
            return
        }
        let first = try fields.little(Int64.self, "lowest_vcn", at: 16)
        let last = try fields.little(Int64.self, "highest_vcn", at: 24)
        let pairs = Int(try fields.little(UInt16.self, "mapping_pairs_offset", at: 32))
        guard let firstVCN = UInt64(exactly: first), last < .max, let endVCN = UInt64(exactly: last + 1),
            endVCN >= firstVCN, pairs >= 64, pairs < fields.bytes.count
        else { throw .damaged("\(fields.name.capitalizedFirst) maps no clusters.") }
        content = .clusters(
            Mapping(
                firstVCN: firstVCN, endVCN: endVCN, pairs: fields.bytes[pairs...],
                allocatedSize: try fields.little(UInt64.self, "allocated_size", at: 40),
                dataSize: try fields.little(UInt64.self, "data_size", at: 48),
                initializedSize: try fields.little(UInt64.self, "initialized_size", at: 56)))
    }
}
