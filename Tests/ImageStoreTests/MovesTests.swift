// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import TestSupport
import Testing

@testable import ImageStore

/// Where records went, and reading points whose packs are gone.
@Suite struct MovesTests {
    static let set = SetHeader(id: ObjectID(high: 1, low: 2), created: 3, unitSize: 65_536)

    /// A table of random moves among `count` packs.
    static func table(_ count: Int, records: Int, seed: UInt64) -> (MovesFile, [MovesFile.Move], [ObjectID]) {
        var random = Seeded(seed)
        let names = (0..<count).map { _ in
            ObjectID(high: random.next(), low: random.next())
        }
        var moves: Set<MovesFile.Move> = []
        var places: Set<UInt64> = []
        while moves.count < records {
            let old = UInt32.random(in: 0..<UInt32(count), using: &random)
            let new = UInt32.random(in: 0..<UInt32(count), using: &random)
            let offset = UInt32.random(in: 12..<1 << 28, using: &random)
            guard old != new, places.insert(UInt64(old) << 32 | UInt64(offset)).inserted else { continue }
            moves.insert(
                MovesFile.Move(
                    oldPack: old, old: offset, newPack: new, new: UInt32.random(in: 12..<1 << 28, using: &random)))
        }
        return (MovesFile(moves, names: names), Array(moves), names)
    }

    /// The body of an object of moves, decompressed.
    static func body(_ bytes: [UInt8]) throws -> [UInt8] {
        let header = try unsafe MovesFile.Header(bytes.span.bytes, fileSize: UInt64(bytes.count))
        let stored = Array(bytes[MovesFile.headerSize...])
        guard header.compression == StoredID.zstandard else { return stored }
        var body = [UInt8](repeating: 0, count: header.plainLength)
        let decompressor = try Decompressor()
        let sound = unsafe stored.withUnsafeBytes { source in
            unsafe body.withUnsafeMutableBytes { unsafe decompressor.decompress(source, into: $0) }
        }
        #expect(sound)
        return body
    }

    @Test func aTableSaysWhereEveryRecordWent() throws {
        let (file, moves, names) = Self.table(7, records: 3000, seed: 1)
        let bytes = try file.bytes(Self.set, id: .random())
        let read = try MovesFile(body: Self.body(bytes))
        #expect(read == file)
        for move in moves {
            let target = read.target(of: RecordStart(pack: names[Int(move.oldPack)], offset: Int(move.old) * 16))
            #expect(target == RecordStart(pack: names[Int(move.newPack)], offset: Int(move.new) * 16))
        }
        #expect(read.target(of: RecordStart(pack: names[0], offset: 8)) == nil)
        #expect(read.target(of: RecordStart(pack: .random(), offset: 192)) == nil)
    }

    @Test func hostileTablesAreRefusedOrSound() throws {
        var random = Seeded(3)
        let id = ObjectID.random()
        let bytes = try Self.table(5, records: 40, seed: 2).0.bytes(Self.set, id: id)
        let body = try Self.body(bytes)
        var refused = 0
        for _ in 0..<20_000 {
            let mutated = HostileTests.mutated(body, &random)
            if let read = try? MovesFile(body: mutated) {
                #expect(read.groups.reduce(0) { $0 + $1.range.count } == read.entries.count)
                for entry in read.entries { #expect(Int(entry.pack) < read.packs.count) }
            } else {
                refused += 1
            }
            let header = HostileTests.sealed(
                HostileTests.mutated(Array(bytes.prefix(MovesFile.headerSize)), &random), checkAt: 124)
            if let read = try? unsafe MovesFile.Header(header.span.bytes, fileSize: UInt64(bytes.count)) {
                #expect(read.plainLength <= MovesFile.maximumBody)
            }
        }
        #expect(refused > 1000)
    }

    @Test func circlesInMovesComeToAnEnd() throws {
        let names = (0..<3).map { _ in ObjectID.random() }
        let circle = MovesFile(
            (0..<3).map { MovesFile.Move(oldPack: $0, old: 12, newPack: ($0 + 1) % 3, new: 12) }, names: names)
        let store = MemoryStore()
        let id = ObjectID.random()
        try store.put(ObjectName.moves(id), circle.bytes(Self.set, id: id))
        let map = try MoveMap(store, Self.set)
        var asked = 0
        let found = try map.follow(RecordStart(pack: names[0], offset: 192)) { (_) throws(Fault) -> Bool? in
            asked += 1
            return nil
        }
        #expect(found == nil && asked == 2)
        #expect(map.targets(of: names[0]) == Set(names))
    }

    /// A set whose packs were all rewritten: every record lies elsewhere, in another order.
    static func moved(_ store: MemoryStore, keys: SetKeys? = nil, saying: Bool = true) throws {
        let set = try #require(try SetAccess.look(at: store).header)
        let hasher = try Hasher256()
        var names: [ObjectID] = []
        var moves: [MovesFile.Move] = []
        func number(_ id: ObjectID) -> UInt32 {
            if let known = names.firstIndex(of: id) { return UInt32(known) }
            names.append(id)
            return UInt32(names.count - 1)
        }
        for object in try store.list("packs") {
            let id = try #require(ObjectName.id(object.name, suffix: ".pack"))
            let handle = try #require(try store.open(object.name))
            let pack = try PackStructure.read(handle, name: object.name, id: id, set: set, hasher: hasher)
            let writer = PackWriter(
                store: store, set: set, kind: pack.header.kind, limit: 1 << 30, twice: pack.header.kind == .lists,
                packs: PackTable())
            for entry in pack.footer.entries.reversed() {
                let bytes = try handle.bytes(
                    at: ByteCount(UInt64(entry.offset + entry.record.headSize)), count: entry.record.storedLength)
                let place = try unsafe bytes.withRawBytes { payload throws(Fault) in
                    try unsafe writer.append(entry.record, payload, hasher: hasher)
                }
                moves.append(
                    MovesFile.Move(
                        oldPack: number(id), old: UInt32(entry.offset / 16), newPack: number(place.pack),
                        new: UInt32(place.offset / 16)))
            }
            _ = try writer.finish(hasher)
            try store.delete(object.name)
            try store.delete(ObjectName.copy(of: object.name))
        }
        guard saying else { return }
        let id = ObjectID.random()
        let bytes = try MovesFile(moves, names: names).bytes(set, id: id)
        for name in [ObjectName.moves(id), ObjectName.copy(of: ObjectName.moves(id))] { try store.put(name, bytes) }
    }

    static let content = Sample.content(1_500_000, seed: 31)
    static let secret = Array("a secret".utf8)

    @Test(arguments: [false, true]) func aPointIsReadWhereItsRecordsWent(isEncrypted: Bool) throws {
        let store = MemoryStore()
        let keys = isEncrypted ? KeyRing(.passphrase(Secret(Self.secret))) : .none
        let options = SetWriter.Options(encryption: isEncrypted ? NewEncryption(cost: 10) : nil)
        let (point, _) = try Sample.backup([(Self.content, nil)], to: store, options: options, keys: keys)
        for _ in 0..<2 {
            try Self.moved(store)
            let reader = try SetReader(store, keys: keys)
            let stream = try reader.point(point.id).streams[0]
            #expect(try Sample.restore(stream) == Self.content)
            #expect(try Sample.restoreRandomly(stream, step: 100_000) == Self.content)
            #expect(try reader.point(point.id).missingPacks().isEmpty)
            for depth in [VerifyDepth.quick, .full] {
                #expect(try reader.verify(depth).damages == [])
                #expect(try reader.verify(depth, points: [point.id]).damages == [])
            }
            #expect(reader.laterFindings.isEmpty)
        }
        // The next backup shares everything, and its point needs no moves.
        let (_, statistics) = try Sample.backup([(Self.content, nil)], to: store, options: options, keys: keys)
        #expect(statistics.new == .zero)
        for name in store.objects.keys where name.contains("moves/") { store.objects[name] = nil }
        let latest = try SetReader(store, keys: keys).point()
        #expect(latest.summary.id != point.id)
        #expect(try Sample.restore(latest.streams[0]) == Self.content)
    }

    @Test func recordsThatMovedWhileAPointIsReadAreFound() throws {
        let store = MemoryStore()
        try Sample.backup([(Self.content, nil)], to: store)
        let stream = try SetReader(store).point().streams[0]
        let decoder = try PieceDecoder(stream.point)
        let cursor = try stream.pieces()
        var result = [UInt8](repeating: 0, count: Self.content.count)
        var pieces = 0
        while let piece = cursor.next() {
            // Everything is rewritten once more; the table before it is gone.
            if pieces < 3 {
                try Self.moved(store)
                let tables = try MoveMap(store, #require(SetAccess.look(at: store).header)).tables
                #expect(tables.count == pieces + 1)
            }
            pieces += 1
            try decoder.decode(piece) { bytes in
                let copy = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
                result.replaceSubrange(Sample.range(piece.extent), with: copy)
            }
        }
        #expect(pieces > 4)
        #expect(result == Self.content)
    }

    @Test func whereNothingSaysWhereRecordsWentTheyAreSearchedFor() throws {
        let store = MemoryStore()
        let (point, _) = try Sample.backup([(Self.content, nil)], to: store)
        try Self.moved(store, saying: false)
        let reader = try SetReader(store)
        #expect(try Sample.restore(reader.point(point.id).streams[0]) == Self.content)
        #expect(reader.laterFindings.map(\.code) == ["set.moves-lost", "set.moves-lost"])
        #expect(try reader.point(point.id).missingPacks().count == 2)
        let report = try SetReader(store).verify(.full)
        #expect(!report.isSound)
        #expect(report.isComplete)
    }

    @Test func onlyWhatIsReallyGoneIsLost() throws {
        let store = MemoryStore()
        let (point, _) = try Sample.backup([(Self.content, nil)], to: store)
        try Self.moved(store)
        let data = try #require(
            try store.list("packs").max { $0.size < $1.size }?.name)
        try store.delete(data)
        let reader = try SetReader(store)
        let fault = #expect(throws: Fault.self) { try Sample.restore(reader.point(point.id).streams[0]) }
        #expect(fault?.code == .setDamaged)
        #expect(try reader.point(point.id).missingPacks().count == 1)
        #expect(try !reader.verify(.quick).isComplete)
    }

    @Test func aDamagedCopyOfMovesIsNamedAndMended() throws {
        let store = MemoryStore()
        let (point, _) = try Sample.backup([(Self.content, nil)], to: store)
        try Self.moved(store)
        let names = store.objects.keys.filter { $0.contains("moves/") }
        #expect(names.count == 2)
        for name in names {
            store.objects[name]?[300] ^= 1
            let reader = try SetReader(store)
            #expect(try Sample.restore(reader.point(point.id).streams[0]) == Self.content)
            let report = try reader.verify(.quick)
            #expect(report.damages.map(\.file) == [name])
            #expect(report.isComplete)
            try Sample.backup([(Self.content, nil)], to: store)
            #expect(try SetReader(store).verify(.quick).isSound)
        }
    }

    @Test(.enabled(if: Judge.canRun, "needs python3 and a way to decompress"))
    func anIndependentReaderFollowsMoves() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let memory = MemoryStore()
        let (point, _) = try Sample.backup([(Self.content, nil)], to: memory)
        try Self.moved(memory)
        try Self.moved(memory)
        let store = FolderStore(path: folder + "/set")
        try store.prepare()
        for (name, bytes) in memory.objects { try store.put(name, bytes) }
        let script = Judge.script
        #expect(
            Judge.run("/usr/bin/python3 '\(script)' restore '\(folder)/set' \(point.id.prefix(12)) '\(folder)'") == 0)
        let disk = try JudgeTests.file(folder + "/disk0.img")
        #expect(Array(disk[(1 << 20)..<(1 << 20) + Self.content.count]) == Self.content)
        // Without its moves the records are found by their ids.
        for name in memory.objects.keys where name.contains("moves/") { try store.delete(name) }
        #expect(Judge.run("rm '\(folder)/disk0.img'") == 0)
        #expect(Judge.run("/usr/bin/python3 '\(script)' restore '\(folder)/set' latest '\(folder)'") == 0)
        let again = try JudgeTests.file(folder + "/disk0.img")
        #expect(Array(again[(1 << 20)..<(1 << 20) + Self.content.count]) == Self.content)
    }
}
