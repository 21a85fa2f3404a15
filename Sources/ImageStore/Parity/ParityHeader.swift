// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// The header of a parity section, 128 bytes, the same at its start and at its end; see `docs/image-format.md`,
/// section 5.4.
struct ParityHeader: Hashable, Sendable {
    var layout: ParityLayout
    /// The pack the section belongs to. A pack may hold the image of a disk that holds packs.
    var pack: ObjectID
    /// SHA-256 of a table of checks.
    var table: UnitID

    static let size = 128
    static let magic = Array("RLGTPARI".utf8)
    static let version: UInt16 = 1

    var bytes: [UInt8] {
        var result = ParityHeader.magic
        result.appendLittleEndian(ParityHeader.version)
        result.appendLittleEndian(UInt16(ParityHeader.size))
        result.appendLittleEndian(UInt32(ParityLayout.blockSize))
        result += pack.bytes
        result.appendLittleEndian(UInt64(layout.bodyLength))
        result.appendLittleEndian(UInt32(layout.dataBlocks))
        result.appendLittleEndian(UInt32(layout.groups))
        result.appendLittleEndian(UInt16(layout.dataPerGroup))
        result.appendLittleEndian(UInt16(layout.parityPerGroup))
        result += [UInt8](repeating: 0, count: 12)
        table.append(to: &result)
        result += [UInt8](repeating: 0, count: 28)
        result.appendLittleEndian(CRC32.castagnoli.checksum(result))
        return result
    }

    init(layout: ParityLayout, pack: ObjectID, table: UnitID) {
        self.layout = layout
        self.pack = pack
        self.table = table
    }

    /// Reads the header at the start of `span`.
    init(_ span: RawSpan) throws(FieldError) {
        guard span.matches(ParityHeader.magic, at: 0) else {
            throw .invalid(field: "parity magic", at: 0, seen: "something else", expected: "RLGTPARI")
        }
        guard span.byteCount >= ParityHeader.size else {
            throw .truncated(field: "parity header", at: 0, need: ParityHeader.size, have: span.byteCount)
        }
        let check = try span.littleEndian(UInt32.self, "check", at: 124)
        guard check == CRC32.castagnoli.checksum(span.extracting(0..<124)) else {
            throw .invalid(field: "check", at: 124, seen: Hex.number(check), expected: "the check of the header")
        }
        let version = try span.littleEndian(UInt16.self, "version", at: 8)
        let size = try span.littleEndian(UInt16.self, "size", at: 10)
        let block = try span.littleEndian(UInt32.self, "block size", at: 12)
        guard version == ParityHeader.version, size == UInt16(ParityHeader.size),
            block == UInt32(ParityLayout.blockSize)
        else {
            throw .invalid(
                field: "version, size, block size", at: 8, seen: "\(version), \(size), \(block)",
                expected: "1, 128, 4096")
        }
        pack = try ObjectID(span, "pack id", at: 16)
        layout = try ParityLayout(
            bodyLength: span.littleEndian(UInt64.self, "body length", at: 32),
            dataBlocks: span.littleEndian(UInt32.self, "data blocks", at: 40),
            groups: span.littleEndian(UInt32.self, "groups", at: 44),
            dataPerGroup: span.littleEndian(UInt16.self, "data blocks of a group", at: 48),
            parityPerGroup: span.littleEndian(UInt16.self, "parity blocks of a group", at: 50))
        table = try UnitID(span, "hash of the table", at: 64)
    }
}
