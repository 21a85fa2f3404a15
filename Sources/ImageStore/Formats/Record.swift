// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// The head of a record: 48 bytes and the ids of what it holds; see `docs/image-format.md`, section 5.2.
struct RecordHeader: Hashable, Sendable {
    enum Kind: UInt8, Sendable {
        case frame = 1
        case page = 2
    }
    var kind: Kind
    var compression: UInt8
    var cipher: UInt8 = StoredID.noCipher
    /// The run that encrypted it, and the number that run gave it; zeros when it is not encrypted.
    var salt = ObjectID(high: 0, low: 0)
    var counter: UInt64 = 0
    /// Written as it was read.
    var reserved: UInt32 = 0
    /// Bytes after decompression.
    var plainLength: Int
    /// Bytes of the payload as stored.
    var storedLength: Int
    /// Ids of the units of a frame, or the one id of a page.
    var ids: [UnitID]

    static let fixedSize = 48
    static let magic = Array("RLRC".utf8)
    /// Records begin at multiples of this.
    static let alignment = 16
    /// Most ids in a record.
    static let maximumIDs = 16
    /// Most plain bytes of a page.
    static let maximumPage = 65_536
    /// Size of the longest record.
    static let maximumSize = fixedSize + maximumIDs * UnitID.size + SetHeader.frameSize + GCM.tagSize + alignment

    var headSize: Int { RecordHeader.fixedSize + ids.count * UnitID.size }
    /// Size with payload and padding.
    var totalSize: Int { RecordHeader.padded(headSize + storedLength) }

    static func padded(_ size: Int) -> Int { (size + alignment - 1) / alignment * alignment }

    var bytes: [UInt8] {
        var result = start
        result.reserveCapacity(headSize)
        result += salt.bytes
        result.appendLittleEndian(counter)
        result.appendLittleEndian(reserved)
        let listed = self.listed
        let check = unsafe CRC32.castagnoli.checksum(
            listed.span.bytes, continuing: CRC32.castagnoli.checksum(result))
        result.appendLittleEndian(check)
        return result + listed
    }

    /// Bytes 0 … 15.
    private var start: [UInt8] {
        var result = RecordHeader.magic
        result += [kind.rawValue, compression, cipher, UInt8(truncatingIfNeeded: ids.count)]
        result.appendLittleEndian(UInt32(truncatingIfNeeded: plainLength))
        result.appendLittleEndian(UInt32(truncatingIfNeeded: storedLength))
        return result
    }

    private var listed: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(ids.count * UnitID.size)
        for id in ids { id.append(to: &result) }
        return result
    }

    /// What a record's encryption is bound to: its set and what it is, but not where it lies.
    func additional(_ set: ObjectID) -> [UInt8] { set.bytes + start + listed }

    /// A record that is not encrypted.
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
        let check = try span.littleEndian(UInt32.self, "record check", at: offset + 44)
        let head = CRC32.castagnoli.checksum(span.extracting(offset..<offset + 44))
        let ids = span.extracting(offset + RecordHeader.fixedSize..<offset + size)
        guard check == CRC32.castagnoli.checksum(ids, continuing: head) else {
            throw .invalid(
                field: "record check", at: offset + 44, seen: Hex.number(check),
                expected: "the check of the record's head")
        }
        let kind = try span.littleEndian(UInt8.self, "record kind", at: offset + 4)
        let compression = try span.littleEndian(UInt8.self, "compression", at: offset + 5)
        let cipher = try span.littleEndian(UInt8.self, "cipher", at: offset + 6)
        guard let known = Kind(rawValue: kind), compression <= StoredID.zstandard, cipher <= StoredID.aes128 else {
            throw .invalid(
                field: "kind, compression, cipher", at: offset + 4, seen: "\(kind), \(compression), \(cipher)",
                expected: "1 or 2, 0 or 1, 0 … 2")
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
        let packed = stored - (cipher == StoredID.noCipher ? 0 : GCM.tagSize)
        guard fits, packed >= 1, compression == StoredID.raw ? packed == plain : packed < plain else {
            throw .invalid(
                field: "number of ids, plain length, stored length", at: offset + 7,
                seen: "\(count), \(plain), \(stored)",
                expected: "lengths that belong together")
        }
        self.kind = known
        self.cipher = cipher
        self.salt = try ObjectID(span, "session salt", at: offset + 16)
        self.counter = try span.littleEndian(UInt64.self, "counter", at: offset + 32)
        self.reserved = try span.littleEndian(UInt32.self, "reserved", at: offset + 40)
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
