// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import FoundationEssentials
import Geometry

/// The header of a LUKS volume, as far as it says where the ciphertext lies and how it was made (LUKS1 on-disk format
/// specification 1.2.3; LUKS2 on-disk format specification 1.1.2).
struct LUKSHeader: Sendable {
    /// 1 or 2.
    let version: Int
    let uuid: String
    /// Where the ciphertext lies on the member.
    let payload: Extent
    /// What the payload is encrypted in at a time: 512 ... 4096 bytes.
    let sectorSize: SectorSize
    /// Number of the payload's first sector of 512 bytes for the initialisation vector.
    let firstTweak: UInt64
    /// `aes-xts-plain64`.
    let cipher: String
    /// Why it is whole even with its passphrase (a sentence).
    let wholeBecause: String?
    /// Bytes from the start that hold header and key slots.
    let headerSize: ByteCount
    /// Stands for the header: its bytes but for key slots.
    let digest: [UInt8]
    /// What is damaged although a sound copy was found.
    let damage: String?

    static let cipherRead = "aes-xts-plain64"
    private static let magic: [UInt8] = [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE]
    private static let secondMagic: [UInt8] = [0x53, 0x4B, 0x55, 0x4C, 0xBA, 0xBE]
    /// Most bytes of header and key slots; the format's own limit for key slots is 128 MiB.
    private static let mostHeader = ByteCount.mebibytes(160)

    init(_ source: any BlockSource) throws(LayerProblem) {
        let head: [UInt8]
        do throws(Fault) {
            head = try source.bytes(at: .zero, count: min(source.length.int ?? 4096, 4096))
        } catch { throw .fault(error) }
        let span = unsafe head.span.bytes
        do {
            let version = span.matches(LUKSHeader.magic, at: 0) ? try span.bigEndian(UInt16.self, "version", at: 6) : 2
            switch version {
            case 1: self = try LUKSHeader(one: head, source.length)
            case 2: self = try LUKSHeader.two(source)
            default: throw LayerProblem.whole("It is a LUKS volume of version \(version), which is not known here.")
            }
        } catch let problem as LayerProblem {
            throw problem
        } catch {
            throw .whole("Its LUKS header is damaged: \(error).")
        }
    }

    private static func text(_ span: RawSpan, _ field: StaticString, _ offset: Int, _ count: Int) throws -> String {
        let bytes = try span.bytes(field, at: offset, count: count).prefix { $0 != 0 }
        guard bytes.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw LayerProblem.whole("Its LUKS header is damaged: \(field).")
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// LUKS1: one header of 592 bytes, big-endian.
    private init(one head: [UInt8], _ length: ByteCount) throws {
        let span = unsafe head.span.bytes
        version = 1
        cipher =
            try LUKSHeader.text(span, "cipher-name", 8, 32) + "-" + LUKSHeader.text(span, "cipher-mode", 40, 32)
        uuid = try LUKSHeader.text(span, "uuid", 168, 40)
        let start = ByteCount(UInt64(try span.bigEndian(UInt32.self, "payload-offset", at: 104)) * 512)
        sectorSize = .s512
        firstTweak = 0
        digest = try span.bytes("phdr", at: 0, count: 592)
        damage = nil
        headerSize = start
        payload = Extent(from: start, to: length.roundedDown(to: ByteCount(512)))
        if start == .zero {
            wholeBecause = "Its header lies elsewhere (detached)."
        } else if start < ByteCount(4096) || start >= length || start > LUKSHeader.mostHeader {
            wholeBecause = "Its header says that the payload begins at an impossible place."
        } else {
            wholeBecause = LUKSHeader.refusal(cipher)
        }
    }

    private static func refusal(_ cipher: String) -> String? {
        cipher == cipherRead ? nil : "It is encrypted with \(cipher), which is not read here."
    }

    /// LUKS2: two copies, each a binary header of 4096 bytes and text; the newer one that is sound counts.
    private static func two(_ source: any BlockSource) throws -> LUKSHeader {
        var found: [LUKSCopy] = []
        if let first = try LUKSCopy(source, at: .zero, magic) { found.append(first) }
        // The second copy lies behind the first; where that is lost, at one of the sizes the format allows.
        let places: [UInt64] = found.first.map { [$0.size.bytes] } ?? (14...22).map { UInt64(1) << UInt64($0) }
        for place in places {
            guard let second = try LUKSCopy(source, at: ByteCount(place), secondMagic) else { continue }
            found.append(second)
            break
        }
        guard let copy = found.max(by: { $0.sequence < $1.sequence }) else {
            throw LayerProblem.whole("Both copies of its LUKS header are damaged.")
        }
        return try LUKSHeader(
            copy, source.length,
            damage: found.count == 2 ? nil : "One of the two copies of its LUKS header is damaged; the other was used.")
    }

    private struct Metadata: Decodable {
        struct Segment: Decodable {
            var type: String
            var offset: String
            var size: String
            var iv_tweak: String?
            var encryption: String?
            var sector_size: Int?
            var integrity: Integrity?
            var flags: [String]?
        }
        struct Integrity: Decodable {}
        struct Requirements: Decodable { var mandatory: [String]? }
        struct Config: Decodable {
            var json_size: String?
            var keyslots_size: String?
            var requirements: Requirements?
        }
        var segments: [String: Segment]
        var config: Config
    }

    private init(_ copy: LUKSCopy, _ length: ByteCount, damage: String?) throws {
        let metadata: Metadata
        do {
            metadata = try JSONDecoder().decode(Metadata.self, from: Data(copy.text))
        } catch {
            throw LayerProblem.whole("The metadata in its LUKS header are damaged.")
        }
        version = 2
        uuid = copy.uuid
        digest = copy.digest
        self.damage = damage
        let slots = metadata.config.keyslots_size.flatMap { UInt64($0) } ?? 0
        let end = copy.size.multiplied(by: 2)?.adding(ByteCount(slots))
        headerSize = min(end ?? LUKSHeader.mostHeader, LUKSHeader.mostHeader, length)
        var reason: String?
        if let needs = metadata.config.requirements?.mandatory, !needs.isEmpty {
            let names = needs.map { $0.filter { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }.prefix(40) }
            reason =
                names.contains { $0.hasPrefix("online-reencrypt") || $0.hasPrefix("offline-reencrypt") }
                ? "It is being encrypted anew, decrypted or converted."
                : "It needs something that is not known here (\(names.joined(separator: ", ")))."
        }
        let segment = metadata.segments["0"]
        let size = segment?.sector_size ?? 512
        cipher = segment?.encryption ?? ""
        sectorSize = SectorSize(size) ?? .s512
        firstTweak = segment?.iv_tweak.flatMap { UInt64($0) } ?? 0
        let start = segment.flatMap { UInt64($0.offset) }
        var extent = Extent(from: .zero, to: length)
        if reason == nil {
            if metadata.segments.count != 1 || segment?.type != "crypt" || segment?.flags?.isEmpty == false {
                reason =
                    "It does not consist of one encrypted segment: it is being converted, or encrypted by the disk."
            } else if segment?.integrity != nil {
                reason = "It keeps a checksum of every sector (dm-integrity)."
            } else if start == 0 {
                reason = "Its header lies elsewhere (detached)."
            } else if SectorSize(size) == nil || size > 4096 {
                reason = "Its header names an impossible sector size."
            } else if segment?.iv_tweak.map({ UInt64($0) == nil }) ?? false {
                reason = "Its header is damaged: iv_tweak."
            } else {
                reason = LUKSHeader.refusal(cipher)
            }
        }
        if reason == nil, let start, let segment {
            let last: ByteCount?
            if segment.size == "dynamic" {
                last = length
            } else {
                last = UInt64(segment.size).flatMap { ByteCount(start).adding(ByteCount($0)) }
            }
            if let last, last <= length, ByteCount(start) >= headerSize, ByteCount(start) < last, start % 512 == 0 {
                let room = (last - ByteCount(start)).roundedDown(to: sectorSize.count)
                extent = Extent(from: ByteCount(start), to: ByteCount(start) + room)
            } else {
                reason = "Its header says that the payload lies at an impossible place."
            }
        } else if reason == nil {
            reason = "Its header does not say where the payload lies."
        }
        payload = extent
        wholeBecause = reason
    }
}

/// One copy of a LUKS2 header.
private struct LUKSCopy {
    let size: ByteCount
    let sequence: UInt64
    let uuid: String
    let text: [UInt8]
    let digest: [UInt8]

    /// `nil` where there is no sound copy.
    init?(_ source: any BlockSource, at place: ByteCount, _ magic: [UInt8]) throws {
        guard source.holds(4096, at: place), let binary = try? source.bytes(at: place, count: 4096) else { return nil }
        let span = unsafe binary.span.bytes
        guard span.matches(magic, at: 0), try span.bigEndian(UInt16.self, "version", at: 6) == 2,
            try span.bigEndian(UInt64.self, "hdr_offset", at: 256) == place.bytes
        else { return nil }
        let size = try span.bigEndian(UInt64.self, "hdr_size", at: 8)
        // Powers of two from 16 KiB to 4 MiB.
        guard size >= 16 << 10, size <= 4 << 20, size & (size - 1) == 0, let count = Int(exactly: size),
            source.holds(count, at: place), let whole = try? source.bytes(at: place, count: count)
        else { return nil }
        let algorithm = try span.bytes("csum_alg", at: 72, count: 32).prefix { $0 != 0 }
        let expected = try span.bytes("csum", at: 448, count: 64)
        var zeroed = whole
        for index in 448..<512 { zeroed[index] = 0 }
        guard let check = Digest.value(zeroed, String(decoding: algorithm, as: UTF8.self)),
            check.count <= 64, Array(expected.prefix(check.count)) == check
        else { return nil }
        self.size = ByteCount(size)
        sequence = try span.bigEndian(UInt64.self, "seqid", at: 16)
        let id = try span.bytes("uuid", at: 168, count: 40).prefix { $0 != 0 }
        guard id.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
        uuid = String(decoding: id, as: UTF8.self)
        text = Array(whole[4096...].prefix { $0 != 0 })
        digest = check + Array(id)
    }
}
