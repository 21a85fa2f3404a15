// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import TestSupport
import Testing

@testable import ImageStore

/// Sets on a medium with sectors that cannot be read: what is sound around them is found, and nothing else is called lost.
@Suite struct BadSectorTests {
    /// The fault of a medium.
    static let broken = Fault(.storeFailed, what: "Input/output error.", remedy: "Look at the medium.")

    /// A store over `objects` in which the 4 KiB around byte `place` of `name` cannot be read.
    static func store(_ objects: [String: [UInt8]], _ name: String, _ place: Int) -> MemoryStore {
        let store = MemoryStore(objects: objects)
        let bad = place / 4096 * 4096..<place / 4096 * 4096 + 4096
        store.interceptor = { (operation) throws(Fault) in
            guard case .read(name, let offset, let count) = operation,
                (Int(offset)..<Int(offset) + count).overlaps(bad)
            else { return }
            throw broken
        }
        return store
    }

    /// A store in which `operation` fails, every time.
    static func store(_ objects: [String: [UInt8]], failing failure: MemoryStore.Operation) -> MemoryStore {
        let store = MemoryStore(objects: objects)
        store.interceptor = { (operation) throws(Fault) in if operation == failure { throw broken } }
        return store
    }

    /// A set of random content, and the name of its pack of frames.
    static func set(_ length: Int, parity: Int = 0, keys: KeyRing? = nil) throws -> ([String: [UInt8]], String) {
        let objects = try RepairTests.objects(length, parity: parity, unitSize: .kibibytes(64), keys: keys)
        return (objects, try RepairTests.pack(objects, .data))
    }

    static func lost(_ report: VerifyReport) -> UInt64 {
        report.damages.flatMap(\.losses).reduce(0) { $0 + $1.extents.byteCount.bytes }
    }

    /// The records of a pack without parity.
    static func records(_ pack: [UInt8]) throws -> [Range<Int>] {
        let handle = try #require(try MemoryStore(objects: ["pack": pack]).open("pack"))
        var scanner = PackScanner(handle, unitSize: 65_536, from: PackHeader.size, to: pack.count)
        var result: [Range<Int>] = []
        while let item = try scanner.next() {
            if case .record(let offset, let record) = item { result.append(offset..<offset + record.totalSize) }
        }
        return result
    }

    // MARK: - Verifying

    @Test func storedBytesThatCannotBeReadAreFoundWhereverTheRecordBegins() throws {
        let (objects, pack) = try Self.set(6 << 20)
        // A record begins before the end of the first segment and ends in this sector, in which the next begins.
        let store = Self.store(objects, pack, PackFooter.segmentSize)
        let stored = try SetReader(store).verify(.stored)
        #expect(!stored.isComplete)
        #expect(try stored.damages == SetReader(store).verify(.full).damages)
        #expect(Self.lost(stored) == 512 << 10)
    }

    @Test func storedBytesThatCannotBeReadAreFoundWithoutAKey() throws {
        let (objects, pack) = try Self.set(6 << 20, keys: EncryptionTests.ring("right"))
        for place in [100_000, PackFooter.segmentSize, 5 << 20] {
            let report = try SetReader(locked: Self.store(objects, pack, place)).verify(.stored)
            #expect(!report.isSound && report.damages.allSatisfy { $0.file == pack }, "byte \(place)")
        }
    }

    @Test func besideAnUnreadableSectorOtherDamageOfTheSegmentIsFoundWithoutAKey() throws {
        var (objects, pack) = try Self.set(6 << 20, keys: EncryptionTests.ring("right"))
        objects[pack]?[2_000_000] ^= 1
        let before = try SetReader(locked: MemoryStore(objects: objects)).verify(.stored)
        #expect(!before.isSound)
        // The first sector of the second segment: both segments are named.
        let report = try SetReader(locked: Self.store(objects, pack, PackFooter.segmentSize)).verify(.stored)
        let places = Set(report.damages.compactMap { $0.offset.map { Int($0.bytes) / PackFooter.segmentSize } })
        #expect(places.contains(0) && report.damages.count >= 2)
    }

    // MARK: - Packs without header, footer or trailer

    @Test func anUnreadableHeaderCostsTheFirstRecordOnly() throws {
        let (objects, pack) = try Self.set(6 << 20)
        let report = try SetReader(Self.store(objects, pack, 0)).verify(.full)
        #expect(Self.lost(report) == 256 << 10)
        #expect(report.records >= 23)
    }

    @Test func anUnreadableTrailerCostsNothingAndIsRepaired() throws {
        let (objects, pack) = try Self.set(1 << 20)
        let size = try #require(objects[pack]?.count)
        let store = Self.store(objects, pack, size - 1)
        // The last sector holds the ends of the last record too, unless that is moved out of it.
        let bytes = try #require(objects[pack])
        let last = try #require(Self.records(bytes).last)
        let isShared = last.upperBound > (size - 1) / 4096 * 4096
        let report = try SetReader(store).verify(.full)
        #expect(!report.isSound)
        #expect(isShared || report.isComplete)
        #expect(Self.lost(report) <= (isShared ? 256 << 10 : 0))
    }

    @Test func aTrailerAloneInItsSectorIsMadeAgain() throws {
        // Many small records make the footer longer than a sector.
        let store = MemoryStore()
        var random = Seeded(11)
        let content = (0..<(4 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        try Sample.backup([(content, nil)], to: store, options: .init(unitSize: .kibibytes(16)))
        let pack = try RepairTests.pack(store.objects, .data)
        let size = try #require(store.objects[pack]?.count)
        let whole = store.objects
        let damaged = Self.store(whole, pack, size - 1)
        let report = try SetReader(damaged).verify(.full)
        #expect(!report.isSound && report.isComplete, "\(report.damages)")
        let plan = try SetRepair(try SetReader(damaged)).plan()
        #expect(plan.items.map(\.file) == [pack] && plan.items.first?.source == .records && plan.planned == 1)
        #expect(try SetRepair(try SetReader(damaged)).plan().impossible == 0)
    }

    @Test func aScanGoesOnBehindWhatCannotBeRead() throws {
        let (objects, pack) = try Self.set(3 << 20)
        let bytes = try #require(objects[pack])
        let all = try Self.records(bytes)
        for place in stride(from: 0, to: bytes.count, by: 97_003) {
            let handle = try #require(try Self.store(objects, pack, place).open(pack))
            let bad = place / 4096 * 4096..<place / 4096 * 4096 + 4096
            var scanner = PackScanner(
                handle, unitSize: 65_536, from: PackHeader.size, to: Int(handle.size.bytes))
            var found: [Range<Int>] = []
            var position = PackHeader.size
            while let item = try scanner.next() {
                switch item {
                case .record(let offset, let record):
                    #expect(offset == position)
                    position = offset + record.totalSize
                    found.append(offset..<position)
                case .gap(let range):
                    #expect(range.lowerBound == position)
                    position = range.upperBound
                }
            }
            #expect(position == Int(handle.size.bytes))
            #expect(found == all.filter { !$0.overlaps(bad) }, "byte \(place)")
        }
    }
}

/// Files and folders that cannot be opened or listed, but are not needed.
@Suite struct UnopenableTests {
    static let content = Sample.content(400_000, seed: 7)

    static func set(encrypted: Bool = false) throws -> [String: [UInt8]] {
        let store = MemoryStore()
        try Sample.backup(
            [(content, nil)], to: store, options: .init(encryption: encrypted ? NewEncryption(cost: 10) : nil),
            keys: EncryptionTests.ring("right"))
        return store.objects
    }

    /// Reads everything there is, and verifies.
    static func check(_ store: MemoryStore, _ what: String) throws {
        let reader = try SetReader(store, keys: EncryptionTests.ring("right"))
        #expect(try reader.points().points.count == 1, "\(what)")
        let point = try reader.point()
        #expect(try point.missingPacks().isEmpty, "\(what)")
        #expect(try Sample.restore(point.streams[0]) == content, "\(what)")
        let report = try reader.verify(.full)
        #expect(!report.isSound && report.isComplete, "\(what): \(report.damages)")
        #expect(try !SetRepair(reader).plan().items.isEmpty || what.hasPrefix("list"), "\(what)")
    }

    @Test(arguments: [false, true]) func oneOfTwoCopiesThatCannotBeOpenedIsNoReasonToRefuse(encrypted: Bool) throws {
        let objects = try Self.set(encrypted: encrypted)
        let names = objects.keys.filter { name in
            name != "RELIGHT.txt" && (!name.hasPrefix("packs/") || objects[ObjectName.copy(of: name)] != nil)
        }
        #expect(names.count >= (encrypted ? 8 : 6))
        for name in names.sorted() { try Self.check(BadSectorTests.store(objects, failing: .open(name)), name) }
    }

    @Test(arguments: [false, true]) func aFolderThatCannotBeListedIsNoReasonToRefuse(encrypted: Bool) throws {
        let objects = try Self.set(encrypted: encrypted)
        for folder in ["points", "copies/points", "packs", "copies/packs", "moves", "copies/moves", "gone"]
            + (encrypted ? ["keys", "copies/keys"] : [])
        {
            try Self.check(BadSectorTests.store(objects, failing: .list(folder)), "list \(folder)")
        }
    }

    @Test func whoeverRemovesMustListEverything() throws {
        let objects = try Self.set()
        for folder in ["points", "copies/points"] {
            let store = BadSectorTests.store(objects, failing: .list(folder))
            let keeper = try SetKeeper(store)
            #expect(throws: Fault.self) { try keeper.plan(nil, named: ["latest"]) }
            #expect(throws: Fault.self) { try keeper.prune(PruneOptions()) }
        }
        let store = BadSectorTests.store(objects, failing: .list("moves"))
        #expect(throws: Fault.self) { try SetKeeper(store).prune(PruneOptions()) }
    }
}
