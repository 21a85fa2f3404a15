// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import FoundationEssentials
import Geometry
import MachineModel

/// Where a page lies.
struct PageReference: Hashable, Sendable {
    var hash: UnitID
    var place: RecordPlace
}

/// A stream as a recovery point stores it.
struct StoredStream: Hashable, Sendable {
    var description: StreamDescription
    var unreadable: ExtentList
    /// Pages that hold stored units, by number (a page covers 512 units), rising.
    var pages: [(number: UInt64, reference: PageReference)]

    static func == (left: StoredStream, right: StoredStream) -> Bool {
        left.description == right.description && left.unreadable == right.unreadable
            && left.pages.count == right.pages.count
            && zip(left.pages, right.pages).allSatisfy { $0.number == $1.number && $0.reference == $1.reference }
    }
    func hash(into hasher: inout Hasher) { hasher.combine(description) }
}

/// A pack a point refers to.
struct PackReference: Hashable, Sendable {
    var id: ObjectID
    /// Size of the sealed pack.
    var size: UInt64
    /// The pack's footer hash.
    var footer: UnitID
}

/// A sealed recovery point; see `docs/image-format.md`, section 7.
struct PointFile: Hashable, Sendable {
    var set: SetHeader
    var number: UInt64
    var facts: PointFacts
    var packs: [PackReference]
    var streams: [StoredStream]

    static let magic = Array("RLGTPOIN".utf8)
    static let headerSize = 256
    /// Longest body believed, compressed or not.
    static let maximumBody = 128 << 20
    static let maximumStreams = 65_536
    /// Longest facts believed.
    static let maximumFacts = 16 << 20
    /// Most runs of all used maps of a point.
    static let maximumUsedRuns = 1 << 23
    /// Most runs of all unreadable areas of a point.
    static let maximumUnreadableRuns = 1 << 20
    static let maximumLength = ByteCount(1 << 60)
    /// The highest number believed: there is one after it.
    static let maximumNumber: UInt64 = 1 << 63
    static let schema = "relight.point/1"

    fileprivate enum Section: UInt32 {
        case facts = 1
        case packs = 2
        case stream = 3
    }

    /// The JSON of section 1.
    fileprivate struct Facts: Codable {
        var schema: String
        var number: UInt64
        /// Makes the ids of two points different even when all else is equal.
        var salt: String
        var facts: PointFacts
    }

    /// The file's bytes and the point's id.
    func sealed(_ hasher: Hasher256, _ sealer: RecordSealer) throws(Fault) -> (bytes: [UInt8], id: ObjectID) {
        let body = try self.body()
        guard body.count <= PointFile.maximumBody else {
            throw Fault(
                .unsupported,
                what: "The recovery point's description takes \(body.count) bytes, more than can be stored.",
                remedy: "Image fewer disks into one recovery point.")
        }
        let root = try hasher.id(body)
        let compressor = try Compressor(.level(3))
        var packed = [UInt8](repeating: 0, count: body.count)
        let smaller: Int? = unsafe body.withUnsafeBytes { source in
            unsafe packed.withUnsafeMutableBytes { target in
                unsafe compressor.compress(source, into: UnsafeMutableRawBufferPointer(rebasing: target.dropLast(1)))
            }
        }
        var stored = smaller.map { Array(packed[..<$0]) } ?? body
        var header = PointFile.magic
        header.appendLittleEndian(SetHeader.version)
        header += [smaller == nil ? StoredID.raw : StoredID.zstandard, set.cipher]
        header.appendLittleEndian(UInt32(PointFile.headerSize))
        header.appendLittleEndian(UInt64(body.count))
        header.appendLittleEndian(UInt64(stored.count + (set.isEncrypted ? GCM.tagSize : 0)))
        root.append(to: &header)
        var run: (salt: ObjectID, counter: UInt64) = (ObjectID(high: 0, low: 0), 0)
        if set.isEncrypted { (stored, run) = try sealer.sealed(stored, additional: set.id.bytes + header) }
        try hasher.hash(stored).append(to: &header)
        header += run.salt.bytes
        header.appendLittleEndian(run.counter)
        header += [UInt8](repeating: 0, count: 124 - header.count)
        header.appendLittleEndian(CRC32.castagnoli.checksum(header))
        return (header + set.bytes + stored, PointFile.id(root))
    }

    /// A point's id: the first half of its root hash.
    static func id(_ root: UnitID) -> ObjectID {
        ObjectID(high: UInt64(bigEndian: root.a), low: UInt64(bigEndian: root.b))
    }

    private func body() throws(Fault) -> [UInt8] {
        var result: [UInt8] = []
        func section(_ kind: Section, _ content: [UInt8]) {
            result.appendLittleEndian(kind.rawValue)
            result.appendLittleEndian(UInt32(1))
            result.appendLittleEndian(UInt64(content.count))
            result += content
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            let json = try encoder.encode(
                Facts(schema: PointFile.schema, number: number, salt: ObjectID.random().text, facts: facts))
            guard json.count <= PointFile.maximumFacts else {
                throw Fault(
                    .unsupported, what: "The machine's description takes \(json.count) bytes, more than can be stored.",
                    remedy: "Image fewer disks into one recovery point.")
            }
            section(.facts, Array(json))
        } catch let fault as Fault {
            throw fault
        } catch {
            throw Fault(
                .system, what: "The machine's description cannot be written: \(error).",
                remedy: "This is an error in the program: please report it.")
        }
        var list: [UInt8] = []
        list.appendLittleEndian(UInt32(truncatingIfNeeded: packs.count))
        var numbers: [ObjectID: Int] = [:]
        for (index, pack) in packs.enumerated() {
            numbers[pack.id] = index
            list += pack.id.bytes
            list.appendLittleEndian(pack.size)
            pack.footer.append(to: &list)
        }
        section(.packs, list)
        for stream in streams {
            var content: [UInt8] = []
            content.appendLittleEndian(UInt32(truncatingIfNeeded: stream.description.disk))
            switch stream.description.kind {
            case .volume(let number):
                content.appendLittleEndian(UInt32(1))
                content.appendLittleEndian(UInt32(truncatingIfNeeded: number))
            case .remainder:
                content.appendLittleEndian(UInt32(2))
                content.appendLittleEndian(UInt32(0))
            }
            content.appendLittleEndian(UInt32(set.unitSize))
            content.appendLittleEndian(stream.description.extent.start.bytes)
            content.appendLittleEndian(stream.description.extent.length.bytes)
            RunList.append(stream.description.used, to: &content)
            RunList.append(stream.unreadable, to: &content)
            content.appendVarint(UInt64(stream.pages.count))
            var next: UInt64 = 0
            for page in stream.pages {
                content.appendVarint(page.number - next)
                next = page.number + 1
                page.reference.hash.append(to: &content)
                content.appendVarint(UInt64(numbers[page.reference.place.pack] ?? 0))
                content.appendVarint(UInt64(page.reference.place.offset / RecordHeader.alignment))
                content.appendVarint(UInt64(page.reference.place.length / RecordHeader.alignment))
            }
            section(.stream, content)
        }
        return result
    }

    /// What a file says about itself before its body is read.
    struct Header: Hashable, Sendable {
        var set: SetHeader
        var compression: UInt8
        var cipher: UInt8
        var plainLength: Int
        var storedLength: Int
        /// The run that encrypted the body, and the number that run gave it.
        var salt: ObjectID
        var counter: UInt64
        /// What the body's encryption is bound to, together with the set's id: bytes 0 … 63.
        var bound: [UInt8]
        var root: UnitID
        /// Hash of the body as stored.
        var stored: UnitID

        init(_ span: RawSpan, fileSize: UInt64) throws(FieldError) {
            guard span.matches(PointFile.magic, at: 0), span.byteCount >= PointFile.headerSize else {
                throw .invalid(field: "magic", at: 0, seen: "something else", expected: "RLGTPOIN")
            }
            let check = try span.littleEndian(UInt32.self, "check", at: 124)
            guard check == CRC32.castagnoli.checksum(span.extracting(0..<124)) else {
                throw .invalid(field: "check", at: 124, seen: Hex.number(check), expected: "the check of the header")
            }
            let version = try span.littleEndian(UInt16.self, "version", at: 8)
            let compression = try span.littleEndian(UInt8.self, "compression", at: 10)
            let cipher = try span.littleEndian(UInt8.self, "cipher", at: 11)
            let plain = try span.littleEndian(UInt64.self, "plain length", at: 16)
            let stored = try span.littleEndian(UInt64.self, "stored length", at: 24)
            let tag = UInt64(cipher == StoredID.noCipher ? 0 : GCM.tagSize)
            guard version == SetHeader.version, compression <= StoredID.zstandard, cipher <= StoredID.aes128,
                plain >= 1, plain <= UInt64(PointFile.maximumBody), stored > tag, stored - tag <= plain,
                compression == StoredID.zstandard || stored - tag == plain,
                fileSize == UInt64(PointFile.headerSize) + stored
            else {
                throw .invalid(
                    field: "version, compression, cipher, lengths", at: 8,
                    seen: "\(version), \(compression), \(cipher), \(plain), \(stored) in a file of \(fileSize) bytes",
                    expected: "version 1 and lengths that fit the file")
            }
            self.compression = compression
            self.cipher = cipher
            self.salt = try ObjectID(span, "session salt", at: 96)
            self.counter = try span.littleEndian(UInt64.self, "counter", at: 112)
            self.bound = (0..<64).map { unsafe span.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
            self.plainLength = Int(plain)
            self.storedLength = Int(stored)
            self.root = try UnitID(span, "root hash", at: 32)
            self.stored = try UnitID(span, "hash of the stored body", at: 64)
            self.set = try SetHeader(span.extracting(128..<PointFile.headerSize))
        }
    }

}

extension PointFile {
    /// Reads a body whose hash the caller has compared with the header's root.
    init(body: [UInt8], set: SetHeader) throws(FieldError) {
        self.set = set
        var facts: Facts?
        var packs: [PackReference]?
        var streams: [StoredStream] = []
        var usedRuns = 0
        var unreadableRuns = 0
        var cursor = FieldCursor(body)
        while cursor.remaining > 0 {
            let place = cursor.position
            let kind = try cursor.integer(UInt32.self, "section")
            let flags = try cursor.integer(UInt32.self, "section flags")
            let length = try cursor.integer(UInt64.self, "section length")
            guard length <= UInt64(cursor.remaining) else {
                throw .invalid(
                    field: "section length", at: place + 8, seen: "\(length)", expected: "at most \(cursor.remaining)")
            }
            var content = FieldCursor(body, cursor.position..<cursor.position + Int(length))
            cursor.position += Int(length)
            switch Section(rawValue: kind) {
            case .facts where facts == nil && length <= UInt64(PointFile.maximumFacts):
                facts = try PointFile.facts(body, content)
                content.position = content.end
            case .packs where facts != nil && packs == nil:
                packs = try PointFile.packs(&content)
            case .stream where packs != nil:
                guard let facts, let packs, streams.count < PointFile.maximumStreams else {
                    throw .invalid(field: "section", at: place, seen: "too many streams", expected: "at most 65536")
                }
                let stream = try PointFile.stream(&content, set: set, disks: facts.facts.disks.count, packs: packs)
                usedRuns += stream.description.used.extents.count
                unreadableRuns += stream.unreadable.extents.count
                guard usedRuns <= PointFile.maximumUsedRuns, unreadableRuns <= PointFile.maximumUnreadableRuns else {
                    throw .invalid(
                        field: "used map", at: place, seen: "too many runs in all", expected: "what is allowed")
                }
                streams.append(stream)
            case nil where flags & 1 == 0:
                content.position = content.end
            default:
                throw .invalid(
                    field: "section", at: place, seen: "\(kind)", expected: "facts, packs, streams, in this order")
            }
            guard content.remaining == 0 else {
                throw .invalid(
                    field: "section", at: content.position, seen: "\(content.remaining) more bytes", expected: "its end"
                )
            }
        }
        guard let facts, let packs else {
            throw .invalid(field: "section", at: 0, seen: "too few", expected: "facts and packs")
        }
        self.number = facts.number
        self.facts = facts.facts
        self.packs = packs
        self.streams = streams
    }

    private static func facts(_ body: [UInt8], _ content: FieldCursor) throws(FieldError) -> Facts {
        let facts: Facts
        do {
            facts = try JSONDecoder().decode(Facts.self, from: Data(body[content.position..<content.end]))
        } catch {
            throw .invalid(field: "facts", at: content.position, seen: "\(error)", expected: PointFile.schema)
        }
        guard facts.schema == PointFile.schema, (1...PointFile.maximumNumber).contains(facts.number) else {
            throw .invalid(
                field: "schema, number", at: content.position, seen: "\(facts.schema.prefix(40)), \(facts.number)",
                expected: "\(PointFile.schema), 1 … 2^63")
        }
        return facts
    }

    private static func packs(_ content: inout FieldCursor) throws(FieldError) -> [PackReference] {
        let count = try content.integer(UInt32.self, "number of packs")
        guard Int(count) <= content.remaining / 56 else {
            throw .invalid(field: "number of packs", at: content.position, seen: "\(count)", expected: "what fits")
        }
        var result: [PackReference] = []
        result.reserveCapacity(Int(count))
        for _ in 0..<count {
            result.append(
                PackReference(
                    id: try content.objectID("pack"), size: try content.integer(UInt64.self, "pack size"),
                    footer: try content.id("footer hash")))
        }
        return result
    }

    private static func stream(
        _ content: inout FieldCursor, set: SetHeader, disks: Int, packs: [PackReference]
    ) throws(FieldError) -> StoredStream {
        let place = content.position
        let disk = try content.integer(UInt32.self, "disk")
        let kind = try content.integer(UInt32.self, "stream kind")
        let volume = try content.integer(UInt32.self, "volume number")
        let unit = try content.integer(UInt32.self, "unit size")
        let start = ByteCount(try content.integer(UInt64.self, "start"))
        let length = ByteCount(try content.integer(UInt64.self, "length"))
        guard Int(disk) < disks, kind == 1 || kind == 2 && volume == 0, Int(unit) == set.unitSize,
            start <= maximumLength, length <= maximumLength, let extent = Extent(start: start, length: length)
        else {
            throw .invalid(
                field: "disk, kind, volume, unit size, extent", at: place,
                seen: "\(disk), \(kind), \(volume), \(unit), \(start.bytes)+\(length.bytes)",
                expected: "a stream of one of \(disks) disks")
        }
        let used = try RunList.read(&content, limit: length, "used map")
        let unreadable = try RunList.read(&content, limit: length, "unreadable areas")
        let pageCount = (length.bytes + set.pageSpan - 1) / set.pageSpan
        let count = try content.varint("number of pages")
        guard count <= pageCount, count <= UInt64(max(0, content.remaining)) / 36 else {
            throw .invalid(field: "number of pages", at: content.position, seen: "\(count)", expected: "what fits")
        }
        var pages: [(number: UInt64, reference: PageReference)] = []
        pages.reserveCapacity(Int(count))
        var next: UInt64 = 0
        for _ in 0..<count {
            let place = content.position
            let gap = try content.varint("page gap")
            let hash = try content.id("page hash")
            let pack = try content.varint("pack index")
            let offset = try content.varint("record offset")
            let size = try content.varint("record length")
            guard gap < pageCount, next < pageCount, gap < pageCount - next, pack < UInt64(packs.count),
                offset < 1 << 28,
                size >= 1, size <= UInt64(RecordHeader.maximumSize / RecordHeader.alignment)
            else {
                throw .invalid(
                    field: "page", at: place, seen: "gap \(gap), pack \(pack), offset \(offset), length \(size)",
                    expected: "one of \(pageCount) pages in one of \(packs.count) packs")
            }
            pages.append(
                (
                    next + gap,
                    PageReference(
                        hash: hash,
                        place: RecordPlace(
                            pack: packs[Int(pack)].id, offset: Int(offset) * RecordHeader.alignment,
                            length: Int(size) * RecordHeader.alignment))
                ))
            next += gap + 1
        }
        return StoredStream(
            description: StreamDescription(
                disk: Int(disk), kind: kind == 1 ? .volume(Int(volume)) : .remainder, extent: extent, used: used),
            unreadable: unreadable, pages: pages)
    }
}
