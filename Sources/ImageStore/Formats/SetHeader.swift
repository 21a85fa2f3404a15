// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry

/// The set's constants: `set.a` and `set.b`, and a copy in every pack and recovery point. 128 bytes; see
/// `docs/image-format.md`, section 3.
///
/// Two are equal when all fields this version knows are: a later version may set bits in the copy of a set's top that older
/// packs and points do not have.
struct SetHeader: Hashable, Sendable {
    /// Set id: 16 random bytes.
    var id: ObjectID
    /// Seconds since 1970 when the set was made.
    var created: UInt64
    /// Bytes in a unit: 65,536 or 16,384.
    var unitSize: Int
    /// How records and points are encrypted: ``StoredID/noCipher``, ``StoredID/aes256`` or ``StoredID/aes128``.
    var cipher: UInt8 = StoredID.noCipher
    /// Parity that writers add to each pack, percent of its records; 0 for none.
    var parity: UInt8 = 0
    /// Made from the master key and bytes 0 … 63 of this header; zeros in a set that is not encrypted.
    var keyCheck = UnitID(a: 0, b: 0, c: 0, d: 0)
    /// The bytes that were read: masks of features and reserved bytes are written as they were. A new header has none set.
    private var raw = SetHeader.blank

    /// Version of the format this program writes and reads.
    static let version: UInt16 = 1
    static let size = 128
    static let magic = Array("RLGTSET\0".utf8)
    /// Most plain bytes in a frame.
    static let frameSize = 262_144
    /// Units a page covers.
    static let pageUnits = 512

    /// Units in the largest frame: 4 or 16.
    var frameUnits: Int { SetHeader.frameSize / unitSize }
    /// Bytes of a stream a page covers.
    var pageSpan: UInt64 { UInt64(unitSize) * UInt64(SetHeader.pageUnits) }

    /// Most percent of parity.
    static let maximumParity: UInt8 = 50

    /// Whether the set is encrypted.
    var isEncrypted: Bool { cipher != StoredID.noCipher }

    /// A new set's header.
    init(
        id: ObjectID, created: UInt64, unitSize: Int, cipher: UInt8 = StoredID.noCipher, parity: UInt8 = 0
    ) {
        self.id = id
        self.created = created
        self.unitSize = unitSize
        self.cipher = cipher
        self.parity = parity
    }

    /// A header of which only what no field holds is set.
    private static let blank: [UInt8] = {
        var result = magic
        result.appendLittleEndian(version)
        result.appendLittleEndian(UInt16(size))
        return result + [UInt8](repeating: 0, count: size - result.count)
    }()

    /// Where the set id begins: behind magic, version, size and the masks of features.
    private static let masksEnd = 24

    var bytes: [UInt8] {
        var result = Array(raw[..<SetHeader.masksEnd])
        result += id.bytes
        result.appendLittleEndian(created)
        result.appendLittleEndian(UInt32(unitSize))
        result.appendLittleEndian(UInt32(SetHeader.frameSize))
        result.appendLittleEndian(UInt32(SetHeader.pageUnits))
        result += [isEncrypted ? StoredID.hmacSHA256 : StoredID.sha256, cipher, parity, raw[63]]
        keyCheck.append(to: &result)
        result += raw[result.count..<SetHeader.size - 4]
        result.appendLittleEndian(CRC32.castagnoli.checksum(result))
        return result
    }

    static func == (left: SetHeader, right: SetHeader) -> Bool {
        left.id == right.id && left.created == right.created && left.unitSize == right.unitSize
            && left.cipher == right.cipher && left.parity == right.parity && left.keyCheck == right.keyCheck
    }

    func hash(into hasher: inout Hasher) { hasher.combine(id) }

    /// Whether a writer must keep its hands off: it has features that writers must know, and this one does not.
    var forbidsWriting: Bool { raw[16..<20].contains { $0 != 0 } }

    /// What the first bytes of something say it is.
    enum Claim: Equatable {
        /// Not a header at all.
        case foreign
        /// A header whose check fails.
        case damaged
        /// A version or features this program does not read; a word for each.
        case unknown(String)
        /// To be read with ``SetHeader/init(_:)``.
        case known
    }

    /// Looks at a header before it is believed.
    static func claim(_ span: RawSpan) -> Claim {
        guard span.matches(magic, at: 0) else { return .foreign }
        guard let version = try? span.littleEndian(UInt16.self, "version", at: 8) else { return .damaged }
        // A later version may lay out everything after the version differently, so the check cannot be asked first;
        // a version of this program's own must pass it.
        if version != SetHeader.version { return .unknown("version \(version)") }
        guard span.byteCount >= size, let check = try? span.littleEndian(UInt32.self, "check", at: size - 4),
            check == CRC32.castagnoli.checksum(span.extracting(0..<size - 4)),
            let needed = try? span.littleEndian(UInt32.self, "needed features", at: 12)
        else { return .damaged }
        return needed == 0 ? .known : .unknown("features \(Hex.number(needed)) (hexadecimal)")
    }

    /// Reads a header.
    init(_ span: RawSpan) throws(FieldError) {
        guard SetHeader.claim(span) == .known else {
            throw .invalid(field: "set header", at: 0, seen: "damage", expected: "a sound header")
        }
        id = try ObjectID(span, "set id", at: 24)
        created = try span.littleEndian(UInt64.self, "created", at: 40)
        let unit = try span.littleEndian(UInt32.self, "unit size", at: 48)
        guard unit == 65_536 || unit == 16_384 else {
            throw .invalid(field: "unit size", at: 48, seen: "\(unit)", expected: "65536 or 16384")
        }
        unitSize = Int(unit)
        let frame = try span.littleEndian(UInt32.self, "frame size", at: 52)
        let page = try span.littleEndian(UInt32.self, "units in a page", at: 56)
        let hash = try span.littleEndian(UInt8.self, "hash", at: 60)
        cipher = try span.littleEndian(UInt8.self, "cipher", at: 61)
        parity = try span.littleEndian(UInt8.self, "parity", at: 62)
        guard frame == UInt32(SetHeader.frameSize), page == UInt32(SetHeader.pageUnits), cipher <= StoredID.aes128,
            hash == (cipher == StoredID.noCipher ? StoredID.sha256 : StoredID.hmacSHA256),
            parity <= SetHeader.maximumParity
        else {
            throw .invalid(
                field: "frame size, units in a page, hash, cipher, parity", at: 52,
                seen: "\(frame), \(page), \(hash), \(cipher), \(parity)",
                expected: "\(SetHeader.frameSize), \(SetHeader.pageUnits), known numbers, at most 50")
        }
        keyCheck = try UnitID(span, "key check", at: 64)
        raw = (0..<SetHeader.size).map { unsafe span.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
    }
}

/// Numbers of methods.
enum StoredID {
    /// Hash: SHA-256.
    static let sha256: UInt8 = 1
    /// Hash: HMAC-SHA-256 with the set's key for ids.
    static let hmacSHA256: UInt8 = 2
    /// Cipher: none.
    static let noCipher: UInt8 = 0
    /// Cipher: AES-256-GCM.
    static let aes256: UInt8 = 1
    /// Cipher: AES-128-GCM.
    static let aes128: UInt8 = 2
    /// Key derivation: scrypt (RFC 7914).
    static let scrypt: UInt8 = 1
    /// Compression: none.
    static let raw: UInt8 = 0
    /// Compression: one Zstandard frame (RFC 8878) with its content size, no dictionary.
    static let zstandard: UInt8 = 1
}

/// Sixteen bytes that name a set, a pack, a recovery point, a key slot or a run; 32 hexadecimal digits in names.
struct ObjectID: Hashable, Sendable, Comparable, BitwiseCopyable {
    let high: UInt64
    let low: UInt64

    static let size = 16

    /// A random id.
    static func random() -> ObjectID {
        var generator = SystemRandomNumberGenerator()
        return ObjectID(high: generator.next(), low: generator.next())
    }

    init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    init(_ span: RawSpan, _ field: StaticString, at offset: Int) throws(FieldError) {
        high = try span.bigEndian(UInt64.self, field, at: offset)
        low = try span.bigEndian(UInt64.self, field, at: offset + 8)
    }

    /// Parses 32 lower-case hexadecimal digits.
    init?(_ text: some StringProtocol) {
        guard text.utf8.count == 32, let bytes = Hex.bytes(text), Hex.text(bytes) == text else { return nil }
        high = bytes[0..<8].reduce(0) { $0 << 8 | UInt64($1) }
        low = bytes[8..<16].reduce(0) { $0 << 8 | UInt64($1) }
    }

    var bytes: [UInt8] {
        [high, low].flatMap { word in stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: word >> $0) }
        }
    }

    /// 32 hexadecimal digits.
    var text: String { Hex.text(bytes) }

    static func < (left: ObjectID, right: ObjectID) -> Bool { (left.high, left.low) < (right.high, right.low) }
}

/// Names of the objects of a set.
enum ObjectName {
    static let headers = ["set.a", "set.b"]
    static let text = "RELIGHT.txt"
    static let packs = "packs"
    static let points = "points"
    static let keys = "keys"
    static let moves = "moves"
    static let tombstones = "gone"
    /// Holds second copies, under the name of the first.
    static let copies = "copies"

    /// `packs/ab/abcdef….pack`
    static func pack(_ id: ObjectID) -> String { "packs/\(id.text.prefix(2))/\(id.text).pack" }
    static func point(_ id: ObjectID) -> String { "points/\(id.text).point" }
    static func key(_ id: ObjectID) -> String { "keys/\(id.text).key" }
    static func moves(_ id: ObjectID) -> String { "moves/\(id.text).moves" }
    /// The mark on a pack that is about to be removed.
    static func tombstone(_ pack: ObjectID) -> String { "gone/\(pack.text).gone" }
    /// The name of the second copy of the object `name`.
    static func copy(of name: String) -> String { "\(copies)/\(name)" }

    /// The id in the name of an object of a kind, told by its ending (`.pack`, `.point`, `.key`, `.moves`, `.gone`), or of its
    /// second copy; `nil` for other names, such as those of files somebody keeps in a folder below.
    static func id(_ name: String, suffix: String) -> ObjectID? {
        guard let file = name.split(separator: "/").last, file.hasSuffix(suffix),
            let id = ObjectID(file.dropLast(suffix.utf8.count))
        else { return nil }
        let first: String
        switch suffix {
        case ".pack": first = pack(id)
        case ".point": first = point(id)
        case ".key": first = key(id)
        case ".moves": first = moves(id)
        case ".gone": return name == tombstone(id) ? id : nil
        default: return nil
        }
        return name == first || name == copy(of: first) ? id : nil
    }
}
