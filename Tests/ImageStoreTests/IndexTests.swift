// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization
import TestSupport
import Testing
import Threads

@testable import ImageStore

/// Recognising what the set holds already: by the parent's lists, and by prefixes of ids that packs confirm.
@Suite struct IndexTests {
    /// `units` different units of 16 KiB that take little room.
    static func distinct(_ units: Int, seed: UInt64 = 1) -> [UInt8] {
        var content = [UInt8](repeating: 0, count: units << 14)
        for unit in 0..<units {
            for (index, shift) in [0, 8, 16].enumerated() {
                content[unit << 14 + index] = UInt8(truncatingIfNeeded: unit >> shift)
            }
            content[unit << 14 + 3] = UInt8(truncatingIfNeeded: seed)
        }
        return content
    }

    static func small(prefixBits: Int = 64, memory: ByteCount = .mebibytes(16)) -> SetWriter.Options {
        var options = SetWriter.Options(indexMemory: memory, unitSize: .kibibytes(16))
        options.prefixBits = prefixBits
        return options
    }

    struct Outcome {
        var point: PointSummary
        var statistics: SetWriter.Statistics
        var findings: [Finding]
        var footersRead: Int
    }

    /// One volume compared with `parent`; `trusted` is taken over where it can be.
    static func backup(
        _ content: [UInt8], used: ExtentList? = nil, to store: any ObjectStore, parent: PointStream?,
        trusted: ExtentList = ExtentList(), options: SetWriter.Options = small(), threads: Int = 1
    ) throws -> Outcome {
        let findings = Mutex<[Finding]>([])
        let events: EventHandler = { if case .finding(let finding) = $0 { findings.withLock { $0.append(finding) } } }
        let writer = try SetWriter(store, options: options, events: events)
        let stream = try writer.beginStream(Sample.stream(content.count, used: used), parent: parent)
        stream.trust(trusted)
        try Workers.run(threads) { (_, stop) throws(Fault) in
            let worker = try UnitWorker(writer)
            while !stop.isSet, let next = stream.nextPiece() {
                let piece = try worker.takeOver(next, of: stream)
                // What need not be read is not known: it must not matter.
                var bytes = [UInt8](repeating: 0xA5, count: Int(piece.extent.length.bytes))
                let start = Int(piece.extent.start.bytes)
                for extent in piece.toRead.extents {
                    let range = Sample.range(extent)
                    bytes.replaceSubrange(range.lowerBound - start..<range.upperBound - start, with: content[range])
                }
                var span = bytes.mutableSpan
                var raw = unsafe span.mutableBytes
                try worker.add(piece, of: stream, &raw)
            }
        }
        let point = try writer.commit(Sample.facts("compared"), events: events)
        return Outcome(
            point: point, statistics: writer.statistics, findings: findings.withLock { $0 },
            footersRead: writer.contents.loaded)
    }

    static func stream(_ store: any ObjectStore, _ point: String = "latest") throws -> PointStream {
        try SetReader(store).point(point).streams[0]
    }

    static func everything(_ content: [UInt8]) -> ExtentList {
        ExtentList(Extent(from: .zero, to: ByteCount(UInt64(content.count))))
    }

    // MARK: - The table

    @Test(arguments: [5, 6, 8]) func collidingPrefixesAreToldApartByTheWholeId(bits: Int) throws {
        // 200 units among 32 to 256 prefixes: nearly every search meets other units first.
        let content = Self.distinct(200)
        let store = MemoryStore()
        let first = try Self.backup(content, to: store, parent: nil, options: Self.small(prefixBits: bits))
        #expect(first.statistics.new == ByteCount(UInt64(content.count)))
        #expect(try Sample.restore(Self.stream(store)) == content)
        let second = try Self.backup(content, to: store, parent: nil, options: Self.small(prefixBits: bits))
        // Five bits have room for 32 · 8 units, unevenly used: some may not be remembered, which costs no more than room.
        #expect(second.statistics.shared >= ByteCount(UInt64(content.count * 3 / 4)))
        if bits == 8 { #expect(second.statistics.new == .zero) }
        #expect(try Sample.restore(Self.stream(store, second.point.id)) == content)
        #expect(try SetReader(store).verify(.full).isSound)
    }

    @Test func aPrefixThatFitsAnotherUnitIsNeverTakenForIt() throws {
        // All ids share one of two prefixes, so each look-up finds candidates and none of them is right.
        let store = MemoryStore()
        try Self.backup(Self.distinct(50, seed: 1), to: store, parent: nil, options: Self.small(prefixBits: 1)).ignore()
        let other = Self.distinct(50, seed: 2)
        let second = try Self.backup(other, to: store, parent: nil, options: Self.small(prefixBits: 1))
        #expect(second.statistics.new == ByteCount(UInt64(other.count)) && second.footersRead > 0)
        #expect(try Sample.restore(Self.stream(store, second.point.id)) == other)
    }

    @Test func theTableStaysBelowItsCapAndSaysWhenItIsFull() {
        let index = UnitIndex(memory: 1 << 20)
        var random = Seeded(5)
        for number in 0..<200_000 {
            let id = UnitID(a: random.next(), b: 0, c: 0, d: 0)
            index.insert(id, pack: 1, offset: 16 * number, index: 0)
            if index.count < 45_000 { #expect(!index.isFull) }
        }
        #expect(index.isFull && index.memory <= 1 << 20)
        // Four fifths of 65,536 slots.
        #expect(index.count > 50_000 && index.count <= 52_429)
    }

    @Test func aFullTableIsReportedOnceAndCostsRoomOnly() throws {
        let content = Self.distinct(5_000)
        let store = MemoryStore()
        let options = Self.small(memory: .zero)
        let first = try Self.backup(content, to: store, parent: nil, options: options)
        #expect(first.findings.filter { $0.code == "set.index-full" }.count == 1)
        let second = try Self.backup(content, to: store, parent: nil, options: options)
        #expect(second.findings.filter { $0.code == "set.index-full" }.count == 1)
        #expect(second.statistics.new > .zero && second.statistics.shared > .zero)
        #expect(try Sample.restore(Self.stream(store, second.point.id)) == content)
        let roomy = try Self.backup(content, to: store, parent: nil)
        #expect(roomy.findings.isEmpty && roomy.statistics.new == .zero)
    }

    @Test func unitsOfPacksOfThisRunAreFoundOpenAndSealed() throws {
        // Packs of 1 MiB: the repetition of the first half finds its units in sealed packs, that of the last in the open one.
        var random = Seeded(17)
        let half = (0..<(3 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        var options = Self.small()
        options.packSize = .mebibytes(1)
        let store = MemoryStore()
        let outcome = try Self.backup(half + half, to: store, parent: nil, options: options)
        #expect(outcome.statistics.new == .mebibytes(3) && outcome.statistics.shared == .mebibytes(3))
        #expect(outcome.footersRead >= 2)
        #expect(try Sample.restore(Self.stream(store)) == half + half)
    }

    @Test func fewContentsAreKeptAndTheOldestGo() throws {
        var options = Self.small()
        options.packSize = .mebibytes(1)
        var random = Seeded(18)
        let content = (0..<(6 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        let store = MemoryStore()
        try Self.backup(content, to: store, parent: nil, options: options).ignore()
        let set = try SetReader(store)
        let packs = try set.point().file.packs.filter { pack in
            store.objects[ObjectName.copy(of: ObjectName.pack(pack.id))] == nil
        }
        #expect(packs.count >= 6)
        // Room for two packs of some 60 units.
        let shelf = ContentsShelf(store: store, set: set.set, limit: 6_000)
        for _ in 0..<3 { _ = try shelf.contents(0, packs[0]) }
        #expect(shelf.loaded == 1)
        for (number, pack) in packs.enumerated() { _ = try shelf.contents(UInt32(number), pack) }
        #expect(shelf.loaded == packs.count)
        _ = try shelf.contents(UInt32(packs.count - 1), packs[packs.count - 1])
        #expect(shelf.loaded == packs.count)
        _ = try shelf.contents(0, packs[0])
        #expect(shelf.loaded == packs.count + 1)
    }

    // MARK: - The parent

    @Test func anUnchangedDiskNeedsNoIndex() throws {
        let content = Self.distinct(5_000)
        let store = MemoryStore()
        let first = try Self.backup(content, to: store, parent: nil)
        // The table has room for some 4,000 of the 5,000 units.
        let second = try Self.backup(
            content, to: store, parent: Self.stream(store), options: Self.small(memory: .zero), threads: 3)
        #expect(second.statistics.new == .zero && second.statistics.stored == .zero && second.footersRead == 0)
        #expect(second.statistics.shared == first.statistics.new)
        #expect(try Sample.restore(Self.stream(store, second.point.id)) == content)
        // Its lists are the parent's: nothing but the point was added.
        #expect(store.objects.keys.filter { $0.hasPrefix("packs/") }.count == 2)
    }

    @Test func onlyWhatChangedIsStored() throws {
        var content = Sample.content(3_000_000, seed: 71)
        let store = MemoryStore()
        try Self.backup(content, to: store, parent: nil).ignore()
        content[1_500_000] ^= 1
        content.replaceSubrange(100_000..<140_000, with: repeatElement(0, count: 40_000))
        let second = try Self.backup(content, to: store, parent: Self.stream(store))
        #expect(second.statistics.new >= .kibibytes(16) && second.statistics.new <= .kibibytes(48))
        #expect(try Sample.restore(Self.stream(store, second.point.id)) == content)
        #expect(try SetReader(store).verify(.full).isSound)
    }

    @Test func aWrongParentHarmsNothing() throws {
        let content = Sample.content(2_000_000, seed: 72)
        let store = MemoryStore()
        try Self.backup(Sample.content(2_000_000, seed: 73), to: store, parent: nil).ignore()
        let wrong = try Self.stream(store)
        let outcome = try Self.backup(content, to: store, parent: wrong)
        #expect(try Sample.restore(Self.stream(store, outcome.point.id)) == content)
        // Another length, and another set: not compared with at all.
        let shorter = Array(content[..<1_900_000])
        let second = try Self.backup(shorter, to: store, parent: wrong, trusted: Self.everything(shorter))
        #expect(second.statistics.skipped == .zero)
        #expect(try Sample.restore(Self.stream(store, second.point.id)) == shorter)
        let elsewhere = MemoryStore()
        let third = try Self.backup(content, to: elsewhere, parent: wrong, trusted: Self.everything(content))
        #expect(third.statistics.skipped == .zero)
        #expect(try Sample.restore(Self.stream(elsewhere)) == content)
    }

    @Test func aParentWhoseListsAreDamagedIsDoneWithout() throws {
        let content = Sample.content(1_000_000, seed: 74)
        let store = MemoryStore()
        let first = try Self.backup(content, to: store, parent: nil)
        for name in store.objects.keys where name.hasPrefix("copies/packs/") {
            for name in [name, String(name.dropFirst("copies/".count))] { store.objects[name]?[400] ^= 1 }
        }
        let parent = try Self.stream(store)
        let second = try Self.backup(content, to: store, parent: parent, trusted: Self.everything(content))
        #expect(second.statistics.new == .zero && second.statistics.skipped == .zero)
        #expect(second.statistics.read == first.statistics.read)
        // Its own lists are stored anew: the damaged ones would be of no use to it either.
        #expect(second.findings.map(\.code) == ["set.damaged-pack"])
        #expect(try Sample.restore(Self.stream(store, second.point.id)) == content)
    }

    // MARK: - Taking over

    @Test(arguments: [1, 3]) func whatIsTrustedIsTakenOverUnread(threads: Int) throws {
        let content = Sample.content(3_000_000, seed: 75)
        let store = MemoryStore()
        let first = try Self.backup(content, to: store, parent: nil)
        var trusted = Self.everything(content)
        trusted = trusted.subtracting(ExtentList(Extent(from: ByteCount(999_999), to: ByteCount(1_000_001))))
        let second = try Self.backup(content, to: store, parent: Self.stream(store), trusted: trusted, threads: threads)
        #expect(second.statistics.read == .kibibytes(16) && second.statistics.new == .zero)
        #expect(second.statistics.skipped == ByteCount(3_000_000 - 16_384))
        #expect(first.statistics.skipped == .zero)
        #expect(try Sample.restore(Self.stream(store, second.point.id)) == content)
        #expect(try SetReader(store).verify(.full).isSound)
    }

    @Test func aUnitWhoseUsedMapChangedIsRead() throws {
        let content = Sample.content(400_000, seed: 76)
        let store = MemoryStore()
        func used(_ end: UInt64) -> ExtentList { ExtentList(Extent(from: .zero, to: ByteCount(end))) }
        try Self.backup(content, used: used(200_000), to: store, parent: nil).ignore()
        // The unit around 200,000, and all after it, hold bytes the parent does not know.
        let second = try Self.backup(
            content, used: used(300_000), to: store, parent: Self.stream(store), trusted: Self.everything(content))
        #expect(second.statistics.skipped == ByteCount(196_608))
        #expect(second.statistics.read == ByteCount(300_000 - 196_608))
        let opened = try Self.stream(store, second.point.id)
        #expect(try Sample.restore(opened) == Sample.masked(content, used(300_000)))
    }

    @Test func whatTheParentCouldNotReadIsReadAgain() throws {
        let content = Sample.content(400_000, seed: 77)
        var zeroed = content
        zeroed.replaceSubrange(100_000..<100_512, with: repeatElement(0, count: 512))
        let store = MemoryStore()
        let bad = Extent(from: ByteCount(100_000), to: ByteCount(100_512))
        try Sample.backup([(zeroed, nil)], to: store, options: Self.small(), unreadable: [bad])
        let second = try Self.backup(
            content, to: store, parent: Self.stream(store), trusted: Self.everything(content))
        #expect(second.statistics.read == .kibibytes(16))
        #expect(try Sample.restore(Self.stream(store, second.point.id)) == content)
    }

    @Test func whatIsGoneFromTheSetIsReadAgain() throws {
        let content = Self.distinct(300)
        let store = MemoryStore()
        try Self.backup(content, to: store, parent: nil).ignore()
        let parent = try Self.stream(store)
        for name in store.objects.keys where name.hasPrefix("packs/") && store.objects["copies/" + name] == nil {
            store.objects[name] = nil
        }
        let second = try Self.backup(content, to: store, parent: parent, trusted: Self.everything(content))
        #expect(second.statistics.skipped == .zero && second.statistics.new == ByteCount(UInt64(content.count)))
        #expect(try Sample.restore(Self.stream(store, second.point.id)) == content)
    }

    @Test func howAPointWasComparedIsKept() throws {
        let store = MemoryStore()
        for compare in [nil, PointFacts.Comparison.full, .metadata] {
            let writer = try SetWriter(store)
            var facts = Sample.facts("compared")
            facts.compare = compare
            let point = try writer.commit(facts)
            #expect(try SetReader(store).point(point.id).facts.compare == compare)
        }
    }

    // MARK: - Faults

    @Test func aFooterThatCannotBeReadDoesNotEndTheBackup() throws {
        var options = Self.small()
        options.packSize = .mebibytes(1)
        var random = Seeded(19)
        let content = (0..<(4 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        let store = MemoryStore()
        try Self.backup(content, to: store, parent: nil, options: options).ignore()
        let data = store.objects.filter { $0.key.hasPrefix("packs/") && store.objects["copies/" + $0.key] == nil }
        // Any but the last, which is short.
        let lost = try #require(data.max { $0.value.count < $1.value.count }?.key)
        let watched = WatchedStore(store, unreadable: [lost])
        let parent = try Self.stream(store)
        let second = try Self.backup(
            content, to: watched, parent: parent, trusted: Self.everything(content), options: options)
        #expect(second.findings.map(\.code) == ["set.damaged-pack"])
        // What that pack held was read and stored again, and nothing else was.
        #expect(second.statistics.new > .kibibytes(500) && second.statistics.new < .mebibytes(1))
        #expect(second.statistics.read == second.statistics.new)
        let file = try SetReader(store).point(second.point.id).file
        #expect(!file.packs.contains { ObjectName.pack($0.id) == lost })
        #expect(try Sample.restore(Self.stream(store, second.point.id)) == content)
    }

    @Test func aPackThatIsLostAfterItWasBuiltUponEndsTheBackup() throws {
        let content = Self.distinct(300)
        let store = MemoryStore()
        try Self.backup(content, to: store, parent: nil).ignore()
        let data = store.objects.keys.filter { $0.hasPrefix("packs/") && store.objects["copies/" + $0] == nil }
        let writer = try SetWriter(store, options: Self.small())
        let stream = try writer.beginStream(Sample.stream(content.count))
        let worker = try UnitWorker(writer)
        while let piece = stream.nextPiece() {
            var bytes = Array(content[Sample.range(piece.extent)])
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try worker.add(piece, of: stream, &raw)
            store.interceptor = { operation throws(Fault) in
                guard case .read(let name, _, _) = operation, data.contains(name) else { return }
                throw Fault(.storeFailed, what: "Input/output error.", place: name, remedy: "")
            }
        }
        #expect(writer.statistics.shared > .zero && writer.statistics.new > .zero)
        let fault = #expect(throws: Fault.self) { try writer.commit(Sample.facts("again")) }
        #expect(fault?.remedy.contains("stored anew") == true)
        store.interceptor = nil
        #expect(try SetReader(store).points().points.count == 1)
    }

    @Test func aPackThatIsLostWhileTheBackupRunsIsDoneWithout() throws {
        let content = Self.distinct(300)
        let store = MemoryStore()
        try Self.backup(content, to: store, parent: nil).ignore()
        let data = store.objects.keys.filter { $0.hasPrefix("packs/") && store.objects["copies/" + $0] == nil }
        let writer = try SetWriter(store, options: Self.small())
        let stream = try writer.beginStream(Sample.stream(content.count))
        let worker = try UnitWorker(writer)
        for name in data { store.objects[name] = nil }
        while let piece = stream.nextPiece() {
            var bytes = Array(content[Sample.range(piece.extent)])
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try worker.add(piece, of: stream, &raw)
        }
        let point = try writer.commit(Sample.facts("again"))
        #expect(writer.findings.map(\.code) == ["set.damaged-pack"])
        #expect(writer.statistics.new == ByteCount(UInt64(content.count)))
        #expect(try Sample.restore(Self.stream(store, point.id)) == content)
    }

    @Test func aHintWithAnotherLengthIsReported() throws {
        let content = Sample.content(100_000, seed: 78)
        let store = MemoryStore()
        try Self.backup(content, to: store, parent: nil).ignore()
        let writer = try SetWriter(store, options: Self.small())
        let stream = try writer.beginStream(Sample.stream(content.count), parent: Self.stream(store))
        stream.trust(Self.everything(content))
        let worker = try UnitWorker(writer)
        while let next = stream.nextPiece() {
            let piece = try worker.takeOver(next, of: stream)
            #expect(piece.toRead.isEmpty)
            let units = piece.adopted.map { unit in
                var unit = unit
                unit.place.length += 1
                return unit
            }
            try stream.finish(piece, units, worker: worker)
        }
        _ = try writer.commit(Sample.facts("wrong"))
        let report = try SetReader(store).verify(.quick)
        #expect(!report.isSound && report.damages.contains { $0.what.contains("a recovery point refers to") })
    }

    // MARK: - Descriptors

    @Test func fewFilesAreOpenAtOnceHoweverManyPacksThereAre() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        var options = Self.small()
        options.packSize = .mebibytes(1)
        // 205 packs: the units do not compress, and none is like another.
        var random = Seeded(20)
        let block = (0..<(1 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        var content: [UInt8] = []
        for _ in 0..<200 { content += block }
        for unit in 0..<content.count >> 14 {
            content[unit << 14] = UInt8(truncatingIfNeeded: unit)
            content[unit << 14 + 1] = UInt8(truncatingIfNeeded: unit >> 8)
        }
        let store = WatchedStore(FolderStore(path: folder))
        let first = try Self.backup(content, to: store, parent: nil, options: options, threads: 2)
        #expect(try store.list("packs").count > 200)
        #expect(try SetReader(store).verify(.full, threads: 3).isSound)
        let second = try Self.backup(
            content, to: store, parent: Self.stream(store), options: options, threads: 2)
        #expect(second.statistics.shared == first.statistics.new)
        let point = try SetReader(store).point()
        let decoder = try PieceDecoder(point)
        let cursor = try point.streams[0].pieces()
        while let piece = cursor.next() { try decoder.decode(piece) { _ in } }
        #expect(store.mostOpen <= 40)
    }
}

extension IndexTests.Outcome {
    /// For points made only to be built upon.
    func ignore() {}
}
