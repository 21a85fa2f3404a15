// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import ImageStore
import TestSupport
import Testing

/// What a set is, how points are found, what is stored and what is not.
@Suite struct SetTests {
    @Test func theSeparatorIsTheLastAtAfterTheLastSlash() throws {
        let cases: [(String, String, String)] = [
            ("/mnt/set", "/mnt/set", "latest"), ("/mnt/set@latest", "/mnt/set", "latest"),
            ("/mnt/a@b/set", "/mnt/a@b/set", "latest"), ("/mnt/a@b/set@12ab", "/mnt/a@b/set", "12ab"),
            ("set@name@0f", "set@name", "0f"), ("user@host/", "user@host/", "latest"), ("./x", "./x", "latest"),
        ]
        for (text, set, point) in cases {
            let location = try SetLocation(text)
            #expect(location.set == set && location.point == point, "\(text)")
        }
        for text in ["", "@latest", "set@", "set@newest", "set@12g", "set@" + String(repeating: "0", count: 33)] {
            let fault = #expect(throws: Fault.self, "\(text)") { try SetLocation(text) }
            #expect(fault?.code == .usage)
        }
    }

    @Test func levelsAreParsed() {
        #expect(Compression(parsing: "fast") == .fast)
        #expect(Compression(parsing: "default") == .standard)
        #expect(Compression(parsing: "best") == .best)
        #expect(Compression(parsing: "off") == .off)
        #expect(Compression(parsing: "7") == .level(7))
        for text in ["0", "20", "-1", "quick", ""] { #expect(Compression(parsing: text) == nil) }
    }

    @Test(arguments: [Compression.off, .fast, .standard, .best, .level(19)])
    func everyLevelRestores(compression: Compression) throws {
        let content = Sample.content(900_000, seed: 31)
        let store = MemoryStore()
        try Sample.backup([(content, nil)], to: store, options: .init(compression: compression))
        #expect(try Sample.restore(SetReader(store).point().streams[0]) == content)
        #expect(try SetReader(store).verify(.full).isSound)
    }

    @Test func whatDoesNotCompressIsStoredAsItIs() throws {
        var random = Seeded(3)
        let content = (0..<1_000_000).map { _ in UInt8.random(in: 0...255, using: &random) }
        let (_, statistics) = try Sample.backup([(content, nil)], to: MemoryStore())
        #expect(statistics.stored.bytes < 1_003_000)
    }

    @Test func aSecondBackupStoresOnlyWhatChanged() throws {
        let store = MemoryStore()
        var content = (0..<64).flatMap { _ in [UInt8](repeating: 0, count: 0) }
        var random = Seeded(4)
        content = (0..<(40 << 16)).map { _ in UInt8.random(in: 0...255, using: &random) }
        let (first, _) = try Sample.backup([(content, nil)], to: store)
        let before = Set(store.objects.keys)
        let (_, same) = try Sample.backup([(content, nil)], to: store)
        #expect(same.new == .zero && same.stored == .zero)
        #expect(Set(store.objects.keys).subtracting(before).allSatisfy { $0.contains("points/") })
        content[20 << 16] ^= 1
        let (third, changed) = try Sample.backup([(content, nil)], to: store)
        #expect(changed.new == .kibibytes(64))
        content[20 << 16] ^= 1
        let reader = try SetReader(store)
        #expect(try Sample.restore(reader.point(first.id).streams[0]) == content)
        content[20 << 16] ^= 1
        #expect(try Sample.restore(reader.point(third.id).streams[0]) == content)
        #expect(try reader.points().points.map(\.number) == [1, 2, 3])
    }

    @Test func unusedAndZeroUnitsAreNotStored() throws {
        let content = [UInt8](repeating: 0xAA, count: 1 << 20)
        let used = ExtentList(Extent(from: .kibibytes(100), to: .kibibytes(101)))
        let (_, statistics) = try Sample.backup([(content, used)], to: MemoryStore())
        #expect(statistics.read == .kibibytes(1))
        #expect(statistics.new == .kibibytes(64))
        let zeros = MemoryStore()
        let (_, nothing) = try Sample.backup([([UInt8](repeating: 0, count: 5 << 20), nil)], to: zeros)
        #expect(nothing.new == .zero && nothing.zero == .mebibytes(5))
        #expect(!zeros.objects.keys.contains { $0.hasPrefix("packs/") })
        let stream = try SetReader(zeros).point().streams[0]
        let cursor = try stream.pieces()
        var seen = ExtentList()
        while let piece = cursor.next() {
            #expect(piece.isZero)
            for extent in piece.used.extents { seen.append(extent) }
        }
        #expect(seen.byteCount == .mebibytes(5))
    }

    @Test func bytesOutsideTheUsedMapNeverChangeWhatIsStored() throws {
        let used = ExtentList([
            Extent(from: ByteCount(3), to: ByteCount(70_000)), Extent(from: ByteCount(200_001), to: ByteCount(200_002)),
        ])
        let store = MemoryStore()
        var content = Sample.content(300_000, seed: 41)
        try Sample.backup([(content, used)], to: store)
        for index in content.indices where !used.contains(ByteCount(UInt64(index))) { content[index] ^= 0x55 }
        let (_, statistics) = try Sample.backup([(content, used)], to: store)
        #expect(statistics.new == .zero)
    }

    @Test func equalUnitsOfOnePieceAreStoredOnce() throws {
        var random = Seeded(6)
        let unit = (0..<65_536).map { _ in UInt8.random(in: 0...255, using: &random) }
        let store = MemoryStore()
        let (_, statistics) = try Sample.backup([(unit + unit + unit + unit + unit, nil)], to: store)
        #expect(statistics.new == .kibibytes(64))
        #expect(try Sample.restore(SetReader(store).point().streams[0]) == unit + unit + unit + unit + unit)
    }

    @Test func packsStayBelowTheirSize() throws {
        var random = Seeded(8)
        let content = (0..<(5 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        let store = MemoryStore(maximumObjectSize: .mebibytes(2))
        try Sample.backup([(content, nil)], to: store, options: .init(packSize: .gibibytes(1)))
        let sizes = store.objects.filter { $0.key.hasPrefix("packs/") }.map(\.value.count)
        #expect(sizes.count >= 4)
        #expect(sizes.allSatisfy { $0 <= 2 << 20 })
        #expect(try Sample.restore(SetReader(store).point().streams[0]) == content)
        #expect(try SetReader(store).verify(.full).isSound)
    }

    @Test func unreadableAreasAreRecorded() throws {
        let store = MemoryStore()
        let bad = Extent(from: ByteCount(65_536), to: ByteCount(69_632))
        try Sample.backup([(Sample.content(200_000, seed: 51), nil)], to: store, unreadable: [bad])
        let point = try SetReader(store).point()
        #expect(point.streams[0].unreadable == ExtentList(bad))
        #expect(point.summary.unreadable == .kibibytes(4))
    }

    @Test func pointsAreFoundByPrefixAndByLatest() throws {
        let store = MemoryStore()
        // The clock of the second run is wrong; it is the latest all the same.
        var ids: [String] = []
        for time in [UInt64(2_000_000_000), 5] {
            let writer = try SetWriter(store)
            ids.append(try writer.commit(Sample.facts("at \(time)", time: time)).id)
        }
        let reader = try SetReader(store)
        #expect(try reader.point().summary.id == ids[1])
        #expect(try reader.point(String(ids[0].prefix(8))).summary.facts.name == "at 2000000000")
        let fault = #expect(throws: Fault.self) { try reader.point("") }
        #expect(fault?.code == .noSuchPoint)
        let unknown = ids.contains { $0.hasPrefix("0000000000") } ? "1111111111" : "0000000000"
        let missing = #expect(throws: Fault.self) { try reader.point(unknown) }
        #expect(missing?.code == .noSuchPoint)
        #expect(missing?.what.contains(String(ids[0].prefix(10))) == true)
    }

    @Test func aSetWithoutPointsSaysSo() throws {
        let store = MemoryStore()
        try SetWriter(store).abandon()
        let fault = #expect(throws: Fault.self) { try SetReader(store).point() }
        #expect(fault?.code == .noSuchPoint)
        #expect(fault?.what == "The set holds no recovery point yet.")
    }

    @Test func whatIsNotASetIsNamed() throws {
        let store = MemoryStore(objects: ["Holiday.jpg": [1], "notes.txt": [2]])
        for attempt in 0..<2 {
            let fault = #expect(throws: Fault.self) {
                if attempt == 0 { _ = try SetReader(store) } else { _ = try SetWriter(store) }
            }
            #expect(fault?.code == .notASet)
            #expect(fault?.what.contains("Holiday.jpg") == true)
        }
        #expect(store.objects.count == 2)
        let empty = #expect(throws: Fault.self) { try SetReader(MemoryStore()) }
        #expect(empty?.code == .notASet)
    }

    @Test func aFileOrAMissingFolderIsNotASet() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        unsafe close(open(folder + "/file", O_WRONLY | O_CREAT, 0o600))
        for path in ["\(folder)/file", "\(folder)/missing", "\(folder)/missing/deeper"] {
            let fault = #expect(throws: Fault.self, "\(path)") { try SetReader(FolderStore(path: path)) }
            #expect(fault?.code == .notASet, "\(path)")
            #expect(fault?.place == path)
        }
        let fault = #expect(throws: Fault.self) { try SetWriter(FolderStore(path: "\(folder)/file")) }
        #expect(fault?.code == .notASet)
    }

    @Test func anotherVersionIsRefusedByNumber() throws {
        let store = MemoryStore()
        try SetWriter(store).abandon()
        for version in [UInt8(0), 2] {
            for name in ["set.a", "set.b"] { store.objects[name]?[8] = version }
            let fault = #expect(throws: Fault.self) { try SetReader(store) }
            #expect(fault?.code == .setVersion)
            #expect(fault?.what.contains("version \(version)") == true)
        }
    }

    @Test func theFolderHoldsATextForPeople() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let store = FolderStore(path: folder)
        try SetWriter(store).abandon()
        let handle = try #require(try store.open("RELIGHT.txt"))
        #expect(handle.size > ByteCount(400))
        for object in try store.list("packs") { #expect(object.name.allSatisfy { $0.isASCII }) }
    }

    @Test func twoWritersAtOnceBothSucceed() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let content = Sample.content(1_000_000, seed: 61)
        let first = try SetWriter(FolderStore(path: folder))
        let stream = try first.beginStream(Sample.stream(content.count))
        let worker = try UnitWorker(first)
        // The second opens the set, and finishes, while the first is under way: it must not take the first's file.
        let piece = try #require(stream.nextPiece())
        var bytes = Array(content[Sample.range(piece.extent)])
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        try worker.add(piece, of: stream, &raw)
        let (second, _) = try Sample.backup([(content, nil)], to: FolderStore(path: folder), name: "second")
        while let piece = stream.nextPiece() {
            var bytes = Array(content[Sample.range(piece.extent)])
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try worker.add(piece, of: stream, &raw)
        }
        let point = try first.commit(Sample.facts("first"))
        let reader = try SetReader(FolderStore(path: folder))
        for id in [point.id, second.id] { #expect(try Sample.restore(reader.point(id).streams[0]) == content) }
        #expect(try reader.verify(.full).isSound)
    }
}
