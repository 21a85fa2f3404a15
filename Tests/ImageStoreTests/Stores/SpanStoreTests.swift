// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import TestSupport
import Testing
import Threads

@testable import ImageStore

/// One set in several places.
@Suite struct SpanStoreTests {
    static let content = Sample.content(3_000_000, seed: 31)

    /// A backup in packs of 1 MiB.
    @discardableResult
    static func backup(_ content: [UInt8], to store: any ObjectStore) throws -> PointSummary {
        try Sample.backup([(content, nil)], to: store, options: .init(packSize: .mebibytes(1))).0
    }

    static func random(_ count: Int, seed: UInt64) -> [UInt8] {
        var random = Seeded(seed)
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    static func packs(_ store: MemoryStore) -> Set<String> {
        Set(store.objects.keys.filter { $0.hasPrefix("packs/") })
    }

    static func others(_ store: MemoryStore) -> [String: [UInt8]] {
        store.objects.filter { !$0.key.hasPrefix("packs/") }
    }

    @Test func aBackupGoesOnInTheNextPlace() throws {
        let content = Self.random(5_000_000, seed: 1)
        let first = MemoryStore(name: "one", capacity: 2_500_000)
        let second = MemoryStore(name: "two", capacity: 2_500_000)
        let third = MemoryStore(name: "three")
        let span = try SpanStore([first, second, third])
        let point = try Self.backup(content, to: span)
        #expect(Self.packs(first).count >= 1)
        #expect(Self.packs(second).count >= 1)
        #expect(Self.packs(third).count >= 1)
        #expect(Self.packs(first).isDisjoint(with: Self.packs(second)))
        let reader = try SetReader(SpanStore([third, first, second]))
        #expect(try Sample.restore(reader.point(point.id).streams[0]) == content)
        #expect(try reader.verify(.full).isSound)
        #expect(span.findings.contains { $0.code == "store.full" && $0.place == "one" })
        // Any one medium says what the set holds, and what is missing.
        for place in [first, second, third] {
            let alone = try SetReader(place)
            #expect(try alone.points().points.map(\.id) == [point.id])
            #expect(try !alone.point(point.id).missingPacks().isEmpty)
        }
        #expect(Self.others(first) == Self.others(second))
        #expect(Self.others(first) == Self.others(third))
    }

    @Test func aPackThatMeetsTheEndMovesWhole() throws {
        let first = MemoryStore(capacity: 1000)
        let second = MemoryStore()
        let span = try SpanStore([first, second])
        let upload = try span.upload()
        let bytes = Self.random(3000, seed: 2)
        try upload.write(Array(bytes[600..<900]), at: 600)
        try upload.write(Array(bytes[0..<600]), at: 0)
        try upload.write(Array(bytes[900..<3000]), at: 900)
        #expect(try upload.bytes(at: 0, count: 3000) == bytes)
        try upload.seal(as: "packs/ab/x.pack")
        #expect(first.objects.isEmpty)
        #expect(second.objects == ["packs/ab/x.pack": bytes])
        // The full place is not tried again for a pack, but for what is small.
        let next = try span.upload()
        try next.write([1])
        try next.seal(as: "packs/ab/y.pack")
        #expect(second.objects["packs/ab/y.pack"] == [1])
        try span.put("points/x.point", [1, 2, 3])
        #expect(first.objects["points/x.point"] == [1, 2, 3])
        #expect(second.objects["points/x.point"] == [1, 2, 3])
    }

    @Test func manyThreadsMoveTogether() throws {
        let first = MemoryStore(capacity: 700_000)
        let second = MemoryStore(capacity: 1_200_000)
        let third = MemoryStore()
        let span = try SpanStore([first, second, third])
        let upload = try span.upload()
        let bytes = Self.random(2_000_000, seed: 3)
        try Workers.run(4) { (number, _) throws(Fault) in
            for start in stride(from: number * 10_000, to: bytes.count, by: 40_000) {
                try upload.write(Array(bytes[start..<start + 10_000]), at: start)
            }
        }
        try upload.seal(as: "packs/ab/x.pack")
        #expect(third.objects["packs/ab/x.pack"] == bytes)
        #expect(first.objects.isEmpty && second.objects.isEmpty)
    }

    @Test func whatDoesNotFitAnywhereIsStoreFull() throws {
        let span = try SpanStore([MemoryStore(capacity: 1000), MemoryStore(capacity: 2000)])
        let upload = try span.upload()
        let fault = #expect(throws: Fault.self) { try upload.write([UInt8](repeating: 1, count: 5000)) }
        #expect(fault?.code == .storeFull)
        let small = #expect(throws: Fault.self) {
            try span.put("points/x.point", [UInt8](repeating: 1, count: 5000))
        }
        #expect(small?.code == .storeFull)
    }

    @Test func aFullPlaceKeepsNothingSmallFromTheOthers() throws {
        let first = MemoryStore(name: "one", capacity: 100)
        let second = MemoryStore()
        let span = try SpanStore([first, second])
        try span.put("copies/points/x.point", [UInt8](repeating: 1, count: 500))
        #expect(first.objects.isEmpty)
        #expect(second.objects["copies/points/x.point"]?.count == 500)
        #expect(!span.findings.isEmpty)
    }

    @Test(arguments: ["set.a", "keys/x.key", "points/x.point", "moves/x.moves"])
    func whatEveryPlaceMustHaveIsNeverLeftOut(name: String) throws {
        for full in [0, 1] {
            let places = [MemoryStore(name: "one"), MemoryStore(name: "two")]
            let span = try SpanStore(places)
            // A second copy that is in both places, and one that is only here.
            try span.put("copies/packs/ab/x.pack", [UInt8](repeating: 2, count: 100))
            places[full].objects["copies/packs/cd/y.pack"] = [UInt8](repeating: 3, count: 200)
            places[full].capacity = 350
            try span.put(name, [UInt8](repeating: 1, count: 140))
            for place in places { #expect(place.objects[name]?.count == 140) }
            #expect(places[full].objects["copies/packs/ab/x.pack"] == nil)
            #expect(places[full].objects["copies/packs/cd/y.pack"] != nil)
            #expect(places[1 - full].objects["copies/packs/ab/x.pack"] != nil)
            // Nothing more can go.
            let fault = #expect(throws: Fault.self) { try span.put("points/z.point", [UInt8](repeating: 1, count: 90)) }
            #expect(fault?.code == .storeFull && fault?.place == places[full].name)
            #expect(places.allSatisfy { $0.objects["points/z.point"] == nil })
        }
    }

    @Test func aPlaceThatWasAwayIsGivenPointsKeysAndMoves() throws {
        let first = MemoryStore()
        let second = MemoryStore()
        let span = try SpanStore([first, second])
        let one = try Self.backup(Self.content, to: span)
        let two = try Self.backup(Self.random(100_000, seed: 4), to: first)
        for folder in ["keys", "moves"] { try first.put("\(folder)/x", [1, 2, 3]) }
        // Made by the other alone.
        let three = try Self.backup(Self.random(100_000, seed: 5), to: second)
        try span.prepare()
        for place in [first, second] {
            #expect(try Set(SetReader(place).points().points.map(\.id)) == [one.id, two.id, three.id])
            for folder in ["keys", "moves"] { #expect(place.objects["\(folder)/x"] == [1, 2, 3]) }
        }
        // What is removed meanwhile does not come back.
        let name = "points/\(three.id).point"
        first.objects[name] = nil
        first.interceptor = { operation throws(Fault) in
            if case .seal(name) = operation { second.objects[name] = nil }
        }
        try span.prepare()
        #expect(first.objects[name] == nil && second.objects[name] == nil)
    }

    @Test func aPlaceThatIsCompletedMeanwhileKeepsNothingThatIsRemoved() throws {
        let first = MemoryStore()
        let second = MemoryStore()
        let span = try SpanStore([first, second])
        try span.put("points/x.point", [1])
        second.interceptor = { operation throws(Fault) in
            if case .delete = operation, first.objects.isEmpty { first.objects["points/x.point"] = [1] }
        }
        try span.delete("points/x.point")
        #expect(first.objects.isEmpty && second.objects.isEmpty)
    }

    @Test func aNewPlaceIsGivenEverythingButPacks() throws {
        let first = MemoryStore()
        let one = try Self.backup(Self.content, to: SpanStore([first]))
        let second = MemoryStore()
        let two = try Self.backup(Self.random(100_000, seed: 4), to: SpanStore([first, second]))
        let alone = try SetReader(second)
        #expect(try Set(alone.points().points.map(\.id)) == [one.id, two.id])
        #expect(second.objects["set.a"] == first.objects["set.a"])
        #expect(second.objects["set.b"] == first.objects["set.b"])
        #expect(second.objects["RELIGHT.txt"] != nil)
        #expect(Self.packs(second).isEmpty)
    }

    @Test func aFolderThatJoinsIsGivenTheSecondCopiesToo() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let first = FolderStore(path: folder + "/one")
        let second = FolderStore(path: folder + "/two")
        try Self.backup(Self.content, to: first)
        try SpanStore([first, second]).prepare()
        let copies = try first.list("copies")
        #expect(copies.contains { $0.name.hasPrefix("copies/packs/") })
        #expect(Set(try second.list("copies").map(\.name)) == Set(copies.map(\.name)))
        for object in copies { #expect(try first.content(object.name) == second.content(object.name)) }
        #expect(try Catalogue(of: first).objects.contains { $0.name.hasPrefix("copies/packs/") })
    }

    @Test func aCopyThatIsKeptWrongInOnePlaceIsNoticed() throws {
        let first = MemoryStore()
        let second = MemoryStore(name: "two")
        let span = SpanStore(unchecked: [first, FailingStore(second, lying: "points/")])
        let fault = #expect(throws: Fault.self) { try span.put("points/x.point", [1, 2, 3]) }
        #expect(fault?.what.contains("reads back differently") == true)
        #expect(fault?.place == "two")
        #expect(first.objects.isEmpty && second.objects.isEmpty)
    }

    @Test func aPlaceWhoseJoiningWasInterruptedIsCompleted() throws {
        let first = MemoryStore()
        try Self.backup(Self.content, to: first)
        // Everything but the headers and one second copy had arrived.
        let second = MemoryStore()
        for (name, bytes) in Self.others(first) where !name.hasPrefix("set.") && !name.hasPrefix("copies/points") {
            second.objects[name] = bytes
        }
        try SpanStore([first, second]).prepare()
        #expect(Self.others(second) == Self.others(first))
    }

    @Test func placesOfDifferentSetsAreRefusedByName() throws {
        let first = MemoryStore(name: "one")
        let second = MemoryStore(name: "two")
        try Self.backup(Self.content, to: first)
        try Self.backup(Self.content, to: second)
        let fault = #expect(throws: Fault.self) { try SpanStore([first, second]) }
        #expect(fault?.code == .differentSets)
        #expect(fault?.place == "two")
        #expect(fault?.what.contains("one") == true)
    }

    @Test func thePlaceNamedTwiceIsRefused() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let again = FolderStore(path: folder + "/../" + (folder.split(separator: "/").last ?? ""))
        let fault = #expect(throws: Fault.self) { try SpanStore([FolderStore(path: folder), again]) }
        #expect(fault?.code == .usage)
        #expect(throws: Fault.self) { try SpanStore([]) }
    }

    @Test func removingRemovesEverywhere() throws {
        let first = MemoryStore()
        let second = MemoryStore()
        let span = try SpanStore([first, second])
        try span.put("points/x.point", [1])
        try span.delete("points/x.point")
        #expect(first.objects.isEmpty && second.objects.isEmpty)
        // One place that fails keeps no other from it.
        try span.put("points/x.point", [1])
        first.interceptor = { operation throws(Fault) in
            if case .delete = operation { throw Fault(.storeFailed, what: "Gone.", remedy: "") }
        }
        #expect(throws: Fault.self) { try span.delete("points/x.point") }
        #expect(second.objects.isEmpty)
    }

    @Test func whatOnePlaceCannotReadIsReadFromAnother() throws {
        let first = MemoryStore()
        let second = MemoryStore()
        let span = try SpanStore([first, second])
        try span.put("points/x.point", [1, 2, 3])
        first.interceptor = { operation throws(Fault) in
            if case .read = operation { throw Fault(.storeFailed, what: "Input/output error.", remedy: "") }
        }
        #expect(try span.content("points/x.point") == [1, 2, 3])
        second.objects = [:]
        let fault = #expect(throws: Fault.self) { try span.content("points/x.point") }
        #expect(fault?.what == "Input/output error.")
    }

    @Test func aFailingPlaceFailsASmallObjectEverywhere() throws {
        let first = MemoryStore()
        let second = MemoryStore()
        second.interceptor = { operation throws(Fault) in
            if case .seal = operation { throw Fault(.storeFailed, what: "Gone.", remedy: "") }
        }
        let span = try SpanStore([first, second])
        #expect(throws: Fault.self) { try span.put("points/x.point", [1]) }
        #expect(first.objects.isEmpty && second.objects.isEmpty)
    }

    @Test func aRepairedObjectGoesWhereTheDamagedOneLies() throws {
        let first = MemoryStore(objects: ["points/x.point": [9]])
        let second = MemoryStore(objects: ["packs/ab/x.pack": [9, 9], "points/x.point": [9]])
        // Not sets: only the store's own behaviour is looked at.
        let span = SpanStore(unchecked: [first, second])
        let pack = try span.upload()
        try pack.write([1, 2])
        try pack.seal(replacing: "packs/ab/x.pack")
        #expect(second.objects["packs/ab/x.pack"] == [1, 2])
        #expect(first.objects["packs/ab/x.pack"] == nil)
        let point = try span.upload()
        try point.write([3])
        try point.seal(replacing: "points/x.point")
        #expect(first.objects["points/x.point"] == [3])
        #expect(second.objects["points/x.point"] == [3])
    }

    @Test func whereThereIsNoRoomBesideTheDamagedPackTheGoodOneGoesElsewhere() throws {
        let first = MemoryStore(objects: ["packs/ab/x.pack": [UInt8](repeating: 9, count: 80)], capacity: 100)
        let second = MemoryStore()
        let span = SpanStore(unchecked: [first, second])
        let good = Self.random(80, seed: 5)
        let pack = try span.upload()
        try pack.write(good)
        try pack.seal(replacing: "packs/ab/x.pack")
        #expect(first.objects.isEmpty)
        #expect(try span.content("packs/ab/x.pack") == good)
    }

    @Test func announcementsAreOneInAllPlaces() throws {
        let first = MemoryStore()
        let second = MemoryStore()
        let span = try SpanStore([first, second])
        let mine = try span.announce(.writer)
        #expect(try span.announcements().map(\.id) == [mine.id])
        #expect(try second.announcements().map(\.id) == [mine.id])
        mine.end()
        #expect(try first.announcements().isEmpty && second.announcements().isEmpty)
    }

    @Test func timesAreToldByOneClock() throws {
        let first = MemoryStore()
        let second = MemoryStore()
        second.time = first.time - 100_000
        let span = try SpanStore([first, second])
        try span.prepare()
        second.objects["packs/ab/x.pack"] = [1]
        #expect(try span.list("packs").map(\.modified) == [first.time])
        #expect(try span.clock() == first.time)
    }

    @Test func theSmallestLimitHolds() throws {
        let span = try SpanStore([
            MemoryStore(maximumObjectSize: .gibibytes(4)), MemoryStore(), MemoryStore(maximumObjectSize: .gibibytes(2)),
        ])
        #expect(span.maximumObjectSize == .gibibytes(2))
    }

    @Test(.enabled(if: SmallFilesystem.possible.contains(.tmpfs), "needs root"))
    func foldersOnSmallFilesystemsHoldOneSet() throws {
        let one = try SmallFilesystem(.tmpfs)
        defer { one.end() }
        let two = try SmallFilesystem(.tmpfs)
        defer { two.end() }
        let content = Self.random(11_000_000, seed: 6)
        let stores = [FolderStore(path: one.path + "/set"), FolderStore(path: two.path + "/set")]
        let point = try Self.backup(content, to: SpanStore(stores))
        #expect(try !stores[0].list("packs").isEmpty)
        #expect(try !stores[1].list("packs").isEmpty)
        #expect(try stores[0].list("tmp").isEmpty)
        let reader = try SetReader(SpanStore(stores))
        #expect(try Sample.restore(reader.point(point.id).streams[0]) == content)
        #expect(try reader.verify(.full).isSound)
    }
}
