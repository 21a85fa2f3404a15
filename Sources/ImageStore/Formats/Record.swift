// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// The head of a record: 32 bytes and the ids of what it holds; see `docs/image-format.md`, section 5.2.
struct RecordHeader: Hashable, Sendable {
    enum Kind: UInt8, Sendable {
        case frame = 1
        case page = 2
    }
    var kind: Kind
    var compression: UInt8
    /// Bytes after decompression.
    var plainLength: Int
    /// Bytes of the payload as stored.
    var storedLength: Int
    /// Ids of the units of a frame, or the one id of a page.
    var ids: [UnitID]

    static let fixedSize = 32
    static let magic = Array("RLRC".utf8)
    /// Records begin at multiples of this.
    static let alignment = 16
    /// Most ids in a record.
    static let maximumIDs = 16
    /// Most plain bytes of a page.
    static let maximumPage = 65_536
    /// Size of the longest record.
    static let maximumSize = fixedSize + maximumIDs * UnitID.size + SetHeader.frameSize + alignment

    var headSize: Int { RecordHeader.fixedSize + ids.count * UnitID.size }
    /// Size with payload and padding.
    var totalSize: Int { RecordHeader.padded(headSize + storedLength) }

    static func padded(_ size: Int) -> Int { (size + alignment - 1) / alignment * alignment }

    var bytes: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(headSize)
        result += RecordHeader.magic
        result += [kind.rawValue, compression, StoredID.noCipher, UInt8(truncatingIfNeeded: ids.count)]
        result.appendLittleEndian(UInt32(truncatingIfNeeded: plainLength))
        result.appendLittleEndian(UInt32(truncatingIfNeeded: storedLength))
        result += [UInt8](repeating: 0, count: 12)
        var listed: [UInt8] = []
        for id in ids { id.append(to: &listed) }
        let check = unsafe CRC32.castagnoli.checksum(
            listed.span.bytes, continuing: CRC32.castagnoli.checksum(result))
        result.appendLittleEndian(check)
        return result + listed
    }

    init(kind: Kind, compression: UInt8, plainLength: Int, storedLength: Int, ids: [UnitID]) {
        self.kind = kind
        self.compression = compression
        self.plainLength = plainLength
        self.storedLength = storedLength
        self.ids = ids
    }

    /// Reads the head at `offset`; checks it, its lengths, and that nothing in it is unknown. The payload may lie
    /// outside of `span`.
    init(_ span: RawSpan, at offset: Int, unitSize: Int) throws(FieldError) {
        guard span.matches(RecordHeader.magic, at: offset) else {
            throw .invalid(field: "record magic", at: offset, seen: "something else", expected: "RLRC")
        }
        let count = Int(try span.littleEndian(UInt8.self, "number of ids", at: offset + 7))
        let size = RecordHeader.fixedSize + count * UnitID.size
        guard size <= span.byteCount, offset <= span.byteCount - size else {
            throw .truncated(field: "record head", at: offset, need: size, have: span.byteCount)
        }
        let check = try span.littleEndian(UInt32.self, "record check", at: offset + 28)
        let head = CRC32.castagnoli.checksum(span.extracting(offset..<offset + 28))
        let ids = span.extracting(offset + RecordHeader.fixedSize..<offset + size)
        guard check == CRC32.castagnoli.checksum(ids, continuing: head) else {
            throw .invalid(
                field: "record check", at: offset + 28, seen: Hex.number(check),
                expected: "the check of the record's head")
        }
        let kind = try span.littleEndian(UInt8.self, "record kind", at: offset + 4)
        let compression = try span.littleEndian(UInt8.self, "compression", at: offset + 5)
        let cipher = try span.littleEndian(UInt8.self, "cipher", at: offset + 6)
        guard let known = Kind(rawValue: kind), compression <= StoredID.zstandard, cipher == StoredID.noCipher else {
            throw .invalid(
                field: "kind, compression, cipher", at: offset + 4, seen: "\(kind), \(compression), \(cipher)",
                expected: "1 or 2, 0 or 1, 0")
        }
        let plain = Int(try span.littleEndian(UInt32.self, "plain length", at: offset + 8))
        let stored = Int(try span.littleEndian(UInt32.self, "stored length", at: offset + 12))
        let fits: Bool =
            switch known {
            case .frame:
                count >= 1 && count <= SetHeader.frameSize / unitSize && plain > (count - 1) * unitSize
                    && plain <= count * unitSize
            case .page: count == 1 && plain >= 1 && plain <= RecordHeader.maximumPage
            }
        guard fits, stored >= 1, compression == StoredID.raw ? stored == plain : stored < plain else {
            throw .invalid(
                field: "number of ids, plain length, stored length", at: offset + 7,
                seen: "\(count), \(plain), \(stored)",
                expected: "lengths that belong together")
        }
        self.kind = known
        self.compression = compression
        self.plainLength = plain
        self.storedLength = stored
        var list: [UnitID] = []
        list.reserveCapacity(count)
        for index in 0..<count {
            list.append(try UnitID(span, "unit id", at: offset + RecordHeader.fixedSize + index * UnitID.size))
        }
        self.ids = list
    }

    /// Where unit `index` of a frame lies in its plain bytes.
    func unitRange(_ index: Int, unitSize: Int) -> Range<Int> {
        index * unitSize..<min((index + 1) * unitSize, plainLength)
    }
}
