// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings

/// One way to open an encrypted set: the master key, encrypted under a key made from a passphrase or key file. 384 bytes;
/// see `docs/image-format.md`, section 8.
struct KeySlot: Hashable, Sendable {
    enum Kind: UInt8, Sendable {
        case passphrase = 1
        case keyFile = 2
    }
    var kind: Kind
    var id: ObjectID
    /// Seconds since 1970; informative.
    var created: UInt64
    var cost: Cost
    var salt: [UInt8]
    var nonce: [UInt8]
    /// The master key, encrypted, and its tag.
    var wrapped: [UInt8]
    /// What people call it; at most 64 bytes of UTF-8.
    var label: String
    var set: SetHeader
    /// The bytes as they are stored, without the set header: reserved ones count, too. Empty until a new slot is sealed.
    private var raw: [UInt8] = []

    /// How expensive guessing is: scrypt's numbers.
    struct Cost: Hashable, Sendable {
        /// N = 2^logN.
        var logN: Int
        var r: Int
        var p: Int
        /// 128 MiB, about half a second.
        static let standard = Cost(logN: 17, r: 8, p: 1)
        /// Bytes of memory needed.
        var memory: UInt64 { UInt64(128) << UInt64(logN) * UInt64(r) }
        /// At most 1 GiB and sixteen passes.
        var isAllowed: Bool {
            (10...24).contains(logN) && (1...32).contains(r) && (1...16).contains(p) && memory <= 1 << 30
        }
    }

    static let size = 384
    static let magic = Array("RLGTKEYS".utf8)
    private static let headSize = 112
    private static let setOffset = 256
    static let saltSize = 32
    static let labelSize = 64

    /// Bytes 0 … 111: everything the encryption is bound to, besides the set.
    private var head: [UInt8] {
        if !raw.isEmpty { return Array(raw[..<KeySlot.headSize]) }
        var result = KeySlot.magic
        result.appendLittleEndian(SetHeader.version)
        result += [kind.rawValue, StoredID.scrypt]
        result.appendLittleEndian(UInt32(KeySlot.size))
        result += id.bytes
        result.appendLittleEndian(created)
        result += [UInt8(cost.logN), 0, 0, 0]
        result.appendLittleEndian(UInt32(cost.r))
        result.appendLittleEndian(UInt32(cost.p))
        result += [UInt8](repeating: 0, count: 12)
        result += salt
        result += nonce
        result += [UInt8](repeating: 0, count: 4)
        return result
    }

    var bytes: [UInt8] {
        if !raw.isEmpty { return raw + set.bytes }
        var result = head + wrapped
        let label = Array(self.label.utf8.prefix(KeySlot.labelSize))
        result += label + [UInt8](repeating: 0, count: KeySlot.labelSize - label.count)
        result += [UInt8](repeating: 0, count: 252 - result.count)
        result.appendLittleEndian(CRC32.castagnoli.checksum(result))
        return result + set.bytes
    }

    /// Wraps `master` for `secret`.
    init(_ master: Secret, for secret: SetSecret, label: String, created: UInt64, cost: Cost, set: SetHeader)
        throws(Fault)
    {
        let raw: Secret
        switch secret {
        case .passphrase(let secret): (kind, raw) = (.passphrase, secret)
        case .keyFile(let secret): (kind, raw) = (.keyFile, secret)
        }
        self.id = .random()
        self.created = created
        self.cost = cost
        self.label = label
        self.set = set
        self.salt = ObjectID.random().bytes + ObjectID.random().bytes
        self.nonce = Array(ObjectID.random().bytes.prefix(12))
        self.wrapped = []
        let cipher = try GCM(Crypto.scrypt(raw, salt: salt, logN: cost.logN, r: cost.r, p: cost.p))
        var sealed = [UInt8](repeating: 0, count: SetKeys.masterSize + GCM.tagSize)
        try unsafe master.withBytes { master throws(Fault) in
            try unsafe sealed.withMutableRawBytes { target throws(Fault) in
                try unsafe cipher.seal(master, nonce: nonce, additional: set.id.bytes + head, into: target)
            }
        }
        self.wrapped = sealed
        self.raw = Array(bytes[..<KeySlot.setOffset])
    }

    /// Reads a slot; checks its check and its numbers, so that no key derivation is started that could not end.
    init(_ span: RawSpan) throws(FieldError) {
        guard span.byteCount == KeySlot.size, span.matches(KeySlot.magic, at: 0) else {
            throw .invalid(field: "magic", at: 0, seen: "something else", expected: "RLGTKEYS in \(KeySlot.size) bytes")
        }
        let check = try span.littleEndian(UInt32.self, "check", at: 252)
        guard check == CRC32.castagnoli.checksum(span.extracting(0..<252)) else {
            throw .invalid(field: "check", at: 252, seen: Hex.number(check), expected: "the check of the key slot")
        }
        let version = try span.littleEndian(UInt16.self, "version", at: 8)
        let kind = try span.littleEndian(UInt8.self, "kind", at: 10)
        let function = try span.littleEndian(UInt8.self, "key derivation", at: 11)
        guard version == SetHeader.version, let known = Kind(rawValue: kind), function == StoredID.scrypt else {
            throw .invalid(
                field: "version, kind, key derivation", at: 8, seen: "\(version), \(kind), \(function)",
                expected: "1, 1 or 2, 1")
        }
        let logN = try span.littleEndian(UInt8.self, "N", at: 40)
        let r = try span.littleEndian(UInt32.self, "r", at: 44)
        let p = try span.littleEndian(UInt32.self, "p", at: 48)
        guard logN <= 24, r <= 32, p <= 16 else {
            throw .invalid(
                field: "scrypt's N, r, p", at: 40, seen: "2^\(logN), \(r), \(p)",
                expected: "at most 1 GiB of memory and 16 passes")
        }
        cost = Cost(logN: Int(logN), r: Int(r), p: Int(p))
        guard cost.isAllowed else {
            throw .invalid(
                field: "scrypt's N, r, p", at: 40, seen: "2^\(logN), \(r), \(p)",
                expected: "at most 1 GiB of memory and 16 passes")
        }
        func bytes(_ range: Range<Int>) -> [UInt8] {
            range.map { unsafe span.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
        }
        self.kind = known
        self.id = try ObjectID(span, "slot id", at: 16)
        self.created = try span.littleEndian(UInt64.self, "created", at: 32)
        self.salt = bytes(64..<96)
        self.nonce = bytes(96..<108)
        self.wrapped = bytes(112..<160)
        self.label = String(decoding: bytes(160..<224).prefix { $0 != 0 }, as: UTF8.self)
        self.set = try SetHeader(span.extracting(KeySlot.setOffset..<KeySlot.size))
        self.raw = bytes(0..<KeySlot.setOffset)
    }

    /// The master key; `nil` when `secret` is not the one this slot was made for.
    func open(_ secret: SetSecret) throws(Fault) -> Secret? {
        let raw: Secret
        switch (secret, kind) {
        case (.passphrase(let secret), .passphrase), (.keyFile(let secret), .keyFile): raw = secret
        default: return nil
        }
        let cipher = try GCM(Crypto.scrypt(raw, salt: salt, logN: cost.logN, r: cost.r, p: cost.p))
        var sound = false
        let head = set.id.bytes + self.head
        let master = unsafe Secret(count: SetKeys.masterSize) { target in
            unsafe wrapped.withUnsafeBytes { wrapped in
                unsafe sound = cipher.open(wrapped, nonce: nonce, additional: head, into: target)
            }
        }
        return sound ? master : nil
    }
}
