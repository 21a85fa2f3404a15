// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import TestSupport
import Testing

@testable import ImageStore

/// Structures with right checks and hashes, but hostile content: nothing may trap, hang or take much memory.
@Suite struct HostileTests {
    /// Mutates a few bytes: values at the edges more often than random ones.
    static func mutated(_ bytes: [UInt8], _ random: inout Seeded) -> [UInt8] {
        var result = bytes
        for _ in 0..<Int.random(in: 1...4, using: &random) where !result.isEmpty {
            let place = Int.random(in: 0..<result.count, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0: result[place] ^= UInt8(1) << UInt8.random(in: 0...7, using: &random)
            case 1: result[place] = 0xFF
            case 2: result[place] = 0
            case 3: result[place] = UInt8.random(in: 0...255, using: &random)
            case 4:
                for index in place..<min(place + 8, result.count) {
                    result[index] = [0xFF, 0x7F, 0x80, 0][Int(random.next() % 4)]
                }
            default:
                if Bool.random(using: &random) {
                    result.remove(at: place)
                } else {
                    result.insert(UInt8.random(in: 0...255, using: &random), at: place)
                }
            }
        }
        return result
    }

    static func sealed(_ header: [UInt8], checkAt place: Int) -> [UInt8] {
        var header = header
        guard header.count >= place + 4 else { return header }
        var check: [UInt8] = []
        check.appendLittleEndian(CRC32.castagnoli.checksum(Array(header[..<place])))
        header.replaceSubrange(place..<place + 4, with: check)
        return header
    }

    static func trailer(_ pack: [UInt8]) throws -> PackFooter.Trailer {
        let tail = Array(pack.suffix(PackFooter.trailerSize))
        return try unsafe PackFooter.Trailer(tail.span.bytes, packSize: UInt64(pack.count))
    }

    @Test func hostileSetHeadersAreRefusedOrSound() throws {
        var random = Seeded(101)
        let header = SetHeader(id: .random(), created: 1, unitSize: 65_536)
        for _ in 0..<20_000 {
            let bytes = Self.sealed(Self.mutated(header.bytes, &random), checkAt: 124)
            if let read = try? unsafe SetHeader(bytes.span.bytes) { #expect([16_384, 65_536].contains(read.unitSize)) }
            let pack = Self.sealed(
                Self.mutated(PackHeader(kind: .data, id: .random(), set: header).bytes, &random), checkAt: 60)
            _ = try? unsafe PackHeader(pack.span.bytes)
        }
    }

    @Test func hostileRecordHeadsAreRefusedOrSound() throws {
        var random = Seeded(102)
        let id = UnitID(a: 1, b: 2, c: 3, d: 4)
        let record = RecordHeader(
            kind: .frame, compression: 1, plainLength: 200_000, storedLength: 9, ids: [id, id, id, id])
        var sound = 0
        for _ in 0..<50_000 {
            var bytes = Self.mutated(record.bytes, &random)
            if bytes.count >= 48 {
                let count = Int(bytes[7])
                let listed = Array(bytes.dropFirst(48).prefix(count * 32))
                var check: [UInt8] = []
                check.appendLittleEndian(CRC32.castagnoli.checksum(Array(bytes[..<44]) + listed))
                bytes.replaceSubrange(44..<48, with: check)
            }
            guard let read = try? unsafe RecordHeader(bytes.span.bytes, at: 0, unitSize: 65_536) else { continue }
            sound += 1
            #expect(read.plainLength <= SetHeader.frameSize && read.storedLength <= read.plainLength + GCM.tagSize)
            #expect(read.totalSize <= RecordHeader.maximumSize)
            for index in read.ids.indices where read.kind == .frame {
                #expect(!read.unitRange(index, unitSize: 65_536).isEmpty)
            }
        }
        #expect(sound > 100)
    }

    @Test func hostilePagesAreRefusedOrSound() throws {
        var random = Seeded(103)
        let id = UnitID(a: 1, b: 2, c: 3, d: 4)
        let place = RecordPlace(pack: .random(), offset: 192, length: 4096)
        let runs = [
            PageRun(first: 2, ids: [id, id], place: place, firstInFrame: 1),
            PageRun(first: 4, ids: [id, id, id, id], place: place, firstInFrame: 0),
            PageRun(first: 500, ids: [id], place: place, firstInFrame: 3),
        ]
        let page = Page.bytes(units: 512, runs: runs)
        #expect(try Page.runs(page, units: 512, frameUnits: 4) == runs)
        var sound = 0
        for _ in 0..<50_000 {
            guard let read = try? Page.runs(Self.mutated(page, &random), units: 512, frameUnits: 4) else { continue }
            sound += 1
            var next = 0
            for run in read {
                #expect(run.first >= next && !run.ids.isEmpty && run.firstInFrame + run.ids.count <= 4)
                next = run.first + run.ids.count
            }
            #expect(next <= 512)
        }
        #expect(sound > 100)
    }

    @Test func hostileRunListsAreRefusedOrSorted() throws {
        var random = Seeded(104)
        let list = ExtentList((0..<20).map { Extent(from: ByteCount($0 * 1000 + 7), to: ByteCount($0 * 1000 + 500)) })
        var bytes: [UInt8] = []
        RunList.append(list, to: &bytes)
        var cursor = FieldCursor(bytes)
        #expect(try RunList.read(&cursor, limit: ByteCount(20_000), "test") == list)
        for _ in 0..<50_000 {
            var cursor = FieldCursor(Self.mutated(bytes, &random))
            guard let read = try? RunList.read(&cursor, limit: ByteCount(20_000), "test") else { continue }
            #expect(read.end <= ByteCount(20_000))
        }
        // A count that the bytes cannot hold is refused before anything is allocated for it.
        var huge: [UInt8] = []
        huge.appendVarint(1 << 40)
        var bomb = FieldCursor(huge)
        #expect(throws: FieldError.self) { try RunList.read(&bomb, limit: ByteCount(20_000), "test") }
    }

    @Test func varintsAreReadAsWrittenAndNeverInTwoWays() throws {
        for value in [0, 1, 127, 128, 16_383, 16_384, UInt64(1) << 63, .max - 1, .max] {
            var bytes: [UInt8] = []
            bytes.appendVarint(value)
            var cursor = FieldCursor(bytes)
            #expect(try cursor.varint("test") == value)
            #expect(cursor.remaining == 0)
        }
        for bytes in [
            [0x80, 0], [0xFF, 0x80, 0], [UInt8](repeating: 0x80, count: 11), [UInt8](repeating: 0xFF, count: 9) + [2],
            [0x80],
        ] {
            var cursor = FieldCursor(bytes.map { UInt8($0) })
            #expect(throws: FieldError.self) { try cursor.varint("test") }
        }
    }

    @Test func hostileFootersAreRefusedOrSound() throws {
        let store = MemoryStore()
        try Sample.backup([(Sample.content(500_000, seed: 1), nil)], to: store)
        let pack = try #require(store.objects.filter { $0.key.hasPrefix("packs/") }.values.max { $0.count < $1.count })
        let hasher = try Hasher256()
        let trailer = try Self.trailer(pack)
        let footer = Array(pack[trailer.offset..<trailer.offset + trailer.length])
        let read = try unsafe PackFooter(footer.span.bytes, trailer: trailer, unitSize: 65_536)
        #expect(try hasher.hash(footer) == trailer.digest && read.entries.count > 1)
        var random = Seeded(105)
        for _ in 0..<5_000 {
            var bytes = Self.mutated(footer, &random)
            // Right checks for the first record's head, wherever it now is.
            if bytes.count > 80 {
                let head = Array(bytes[40..<68]) + Array(bytes.dropFirst(72).prefix(Int(bytes[47]) * 32))
                var check: [UInt8] = []
                check.appendLittleEndian(CRC32.castagnoli.checksum(head))
                bytes.replaceSubrange(68..<72, with: check)
            }
            var changed = trailer
            changed.length = bytes.count
            guard let read = try? unsafe PackFooter(bytes.span.bytes, trailer: changed, unitSize: 65_536) else {
                continue
            }
            var next = PackHeader.size
            for entry in read.entries {
                #expect(entry.offset == next)
                next += entry.record.totalSize
            }
            #expect(next == trailer.offset)
            let seal = Self.sealed(Self.mutated(Array(pack.suffix(64)), &random), checkAt: 60)
            _ = try? unsafe PackFooter.Trailer(seal.span.bytes, packSize: UInt64(pack.count))
        }
    }

    /// A point file with a body of any content, and all checks and hashes right.
    static func pointFile(_ body: [UInt8], like file: [UInt8]) throws -> (name: String, bytes: [UInt8]) {
        let hasher = try Hasher256()
        let root = try hasher.hash(body)
        var header = Array(file[..<256])
        header[10] = 0
        var lengths: [UInt8] = []
        lengths.appendLittleEndian(UInt64(body.count))
        lengths.appendLittleEndian(UInt64(body.count))
        header.replaceSubrange(16..<32, with: lengths)
        header.replaceSubrange(32..<64, with: root.bytes)
        header.replaceSubrange(64..<96, with: root.bytes)
        return (
            ObjectName.point(PointFile.id(root)), sealed(Array(header[..<128]), checkAt: 124) + file[128..<256] + body
        )
    }

    static func body(_ file: [UInt8]) throws -> [UInt8] {
        let header = try unsafe PointFile.Header(file.span.bytes, fileSize: UInt64(file.count))
        let stored = Array(file[256...])
        if header.compression == StoredID.raw { return stored }
        var body = [UInt8](repeating: 0, count: header.plainLength)
        let decompressor = try Decompressor()
        let sound = unsafe stored.withUnsafeBytes { source in
            unsafe body.withUnsafeMutableBytes { unsafe decompressor.decompress(source, into: $0) }
        }
        #expect(sound)
        return body
    }

    @Test func hostilePointsWithRightHashesNeverTrapHangOrReadWrong() throws {
        let store = MemoryStore()
        let used = ExtentList([
            Extent(from: .zero, to: ByteCount(90_000)), Extent(from: ByteCount(150_000), to: ByteCount(290_000)),
        ])
        let content = Sample.content(300_000, seed: 7)
        try Sample.backup([(content, used)], to: store, options: .init(unitSize: .kibibytes(16)))
        let old = try #require(store.objects.first { $0.key.hasPrefix("points/") })
        let body = try Self.body(old.value)
        // The facts are JSON; what follows them is what this test is about, so most mutations go there.
        let facts = 16 + Int(body[8]) + Int(body[9]) << 8
        var objects = store.objects
        for name in objects.keys where name.contains("point") { objects[name] = nil }
        var random = Seeded(106)
        var opened = 0
        for round in 0..<4_000 {
            let hostile =
                round % 8 == 0
                ? Self.mutated(body, &random)
                : Array(body[..<facts]) + Self.mutated(Array(body[facts...]), &random)
            let (name, bytes) = try Self.pointFile(hostile, like: old.value)
            var set = objects
            set[name] = bytes
            let place = MemoryStore(objects: set)
            let reader = try SetReader(place)
            if let point = try? reader.point() {
                opened += 1
                for stream in point.streams { try Self.use(stream) }
            }
            _ = try? reader.verify(.quick, threads: 1)
        }
        #expect(opened > 100)
    }

    /// Reads a little of a stream in every way there is.
    static func use(_ stream: PointStream) throws {
        if stream.length > .zero {
            for start in [0, stream.length.bytes / 2, stream.length.bytes - 1] {
                var bytes = [UInt8](repeating: 0, count: Int(min(70_000, stream.length.bytes - start)))
                var span = bytes.mutableSpan
                var raw = unsafe span.mutableBytes
                try? stream.read(at: ByteCount(start), into: &raw)
            }
        }
        let decoder = try PieceDecoder(stream.point)
        let cursor = try stream.pieces()
        var count = 0
        while count < 50, let piece = cursor.next() {
            count += 1
            #expect(stream.description.used.covers(piece.used.extents[0]))
            try? decoder.decode(piece) { bytes in #expect(UInt64(bytes.byteCount) == piece.extent.length.bytes) }
        }
    }

    @Test func aBombIsRefusedBeforeItGoesOff() throws {
        let store = MemoryStore()
        try Sample.backup([([1, 2, 3], nil)], to: store)
        let old = try #require(store.objects.first { $0.key.hasPrefix("points/") })
        // A body said to be as long as it may be, and one said to be longer.
        for length in [UInt64(PointFile.maximumBody), UInt64(PointFile.maximumBody) + 1, .max] {
            var header = Array(old.value[..<128])
            var bytes: [UInt8] = []
            bytes.appendLittleEndian(length)
            header.replaceSubrange(16..<24, with: bytes)
            let set = MemoryStore(objects: store.objects.filter { !$0.key.contains("point") })
            set.objects[old.key] = Self.sealed(header, checkAt: 124) + old.value[128...]
            let fault = #expect(throws: Fault.self) {
                try SetReader(set).point(String(old.key.dropFirst(7).prefix(32)))
            }
            #expect(fault?.code == .setDamaged)
        }
    }

    @Test func aFooterCanBeMadeAgainFromTheRecords() throws {
        let store = MemoryStore()
        try Sample.backup([(Sample.content(900_000, seed: 1), nil)], to: store)
        for (name, pack) in store.objects where name.hasPrefix("packs/") {
            let trailer = try Self.trailer(pack)
            let records = MemoryStore(objects: ["pack": Array(pack[..<trailer.offset])])
            let handle = try #require(try records.open("pack"))
            var scanner = PackScanner(handle, unitSize: 65_536, from: PackHeader.size, to: trailer.offset)
            var entries: [UInt8] = []
            var count = 0
            while let item = try scanner.next() {
                guard case .record(let offset, let record) = item else {
                    Issue.record("a gap in a sound pack")
                    break
                }
                entries += PackFooter.entry(offset: offset, head: record.bytes)
                count += 1
            }
            let hasher = try Hasher256()
            let segments = try stride(from: 0, to: trailer.offset, by: PackFooter.segmentSize).map {
                let segment = Array(pack[$0..<min($0 + PackFooter.segmentSize, trailer.offset)])
                let pieces = stride(from: 0, to: segment.count, by: 65_536).map {
                    Array(segment[$0..<min($0 + 65_536, segment.count)])
                }
                return try hasher.hash(pieces.flatMap { try hasher.hash($0).bytes })
            }
            let (again, _) = try PackFooter.bytes(
                records: count, entries: entries, recordsEnd: trailer.offset, offset: trailer.offset,
                segments: segments, hasher: hasher)
            #expect(again == Array(pack[trailer.offset...]))
        }
    }

    @Test func afterDamageTheNextRecordIsFound() throws {
        let store = MemoryStore()
        try Sample.backup([((0..<30).flatMap { Sample.content(60_000, seed: 300 + UInt64($0)) }, nil)], to: store)
        let name = try #require(store.objects.first { $0.key.hasPrefix("packs/") && $0.value.count > 100_000 }?.key)
        let pack = try #require(store.objects[name])
        let trailer = try Self.trailer(pack)
        func scan() throws -> [Int] {
            let handle = try #require(try store.open(name))
            var scanner = PackScanner(handle, unitSize: 65_536, from: PackHeader.size, to: trailer.offset)
            var offsets: [Int] = []
            while let item = try scanner.next() { if case .record(let offset, _) = item { offsets.append(offset) } }
            return offsets
        }
        let all = try scan()
        #expect(all.count > 5)
        for place in [all[1], all[1] + 44, all[3] + 49] { store.objects[name]?[place] ^= 0x10 }
        #expect(try scan() == all.enumerated().filter { $0.offset != 1 && $0.offset != 3 }.map(\.element))
    }

    @Test func sha256AndTheCheckAreTheStandardOnes() throws {
        // FIPS 180-4's example "abc"; RFC 3720's examples are tested with BinaryFields.
        #expect(
            try Hasher256().hash(Array("abc".utf8)).text
                == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    }
}

/// Hashes of two texts at once are the standard ones.
struct PairedHashTests {
    @Test(arguments: [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 4095, 16_384, 65_536, 65_537])
    func idsOfPairsAreThoseOfEach(count: Int) throws {
        let left = Sample.content(max(1, count), seed: 7).prefix(count).map { $0 }
        let right = Sample.content(max(1, count), seed: 8).prefix(count).map { $0 }
        let both = left + right
        let header = SetHeader(id: .random(), created: 1, unitSize: 65_536, cipher: StoredID.aes256)
        let keys = try SetKeys(master: .random(32), set: header)
        for hasher in [try Hasher256(), try Hasher256(keys)] {
            let ids = try unsafe both.withRawBytes { bytes throws(Fault) in
                try unsafe hasher.ids([0..<count, count..<2 * count, 0..<count], of: bytes)
            }
            let (first, second) = (try hasher.id(left), try hasher.id(right))
            #expect(ids == [first, second, first])
        }
    }

    @Test func aSegmentsHashIsThatOfItsPiecesHashes() throws {
        let hasher = try Hasher256()
        for count in [0, 1, 65_536, 65_537, 131_072, 200_000, 4 << 20] {
            let bytes = [UInt8](repeating: 3, count: count) + []
            let pieces = stride(from: 0, to: count, by: 65_536).map { Array(bytes[$0..<min($0 + 65_536, count)]) }
            let expected = try hasher.hash(pieces.flatMap { try hasher.hash($0).bytes })
            let seen = try unsafe bytes.withRawBytes { pointer throws(Fault) in try unsafe hasher.segment(pointer) }
            #expect(seen == expected)
        }
    }
}
