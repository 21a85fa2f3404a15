// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// The first 192 bytes of a pack; see `docs/image-format.md`, section 5.1.
struct PackHeader: Hashable, Sendable {
    /// What a pack holds.
    enum Kind: UInt8, Sendable {
        /// Frames.
        case data = 1
        /// Pages.
        case lists = 2
    }
    var kind: Kind
    var id: ObjectID
    var set: SetHeader

    static let size = 192
    static let magic = Array("RLGTPACK".utf8)

    init(kind: Kind, id: ObjectID, set: SetHeader) {
        self.kind = kind
        self.id = id
        self.set = set
    }

    var bytes: [UInt8] {
        var result = PackHeader.magic
        result.appendLittleEndian(SetHeader.version)
        result += [kind.rawValue, 0]
        result.appendLittleEndian(UInt32(PackHeader.size))
        result += id.bytes
        result += [UInt8](repeating: 0, count: 28)
        result.appendLittleEndian(CRC32.castagnoli.checksum(result))
        return result + set.bytes
    }

    init(_ span: RawSpan) throws(FieldError) {
        guard span.matches(PackHeader.magic, at: 0) else {
            throw .invalid(field: "magic", at: 0, seen: "something else", expected: "RLGTPACK")
        }
        guard span.byteCount >= PackHeader.size else {
            throw .truncated(field: "pack header", at: 0, need: PackHeader.size, have: span.byteCount)
        }
        let check = try span.littleEndian(UInt32.self, "check", at: 60)
        guard check == CRC32.castagnoli.checksum(span.extracting(0..<60)) else {
            throw .invalid(field: "check", at: 60, seen: Hex.number(check), expected: "the check of the header")
        }
        let version = try span.littleEndian(UInt16.self, "version", at: 8)
        let kind = try span.littleEndian(UInt8.self, "kind", at: 10)
        guard version == SetHeader.version, let known = Kind(rawValue: kind) else {
            throw .invalid(field: "version, kind", at: 8, seen: "\(version), \(kind)", expected: "0, 1 or 2")
        }
        self.kind = known
        self.id = try ObjectID(span, "pack id", at: 16)
        self.set = try SetHeader(span.extracting(64..<PackHeader.size))
    }
}
