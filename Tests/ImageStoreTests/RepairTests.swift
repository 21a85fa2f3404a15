// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization
import TestSupport
import Testing
import Threads

@testable import ImageStore

/// Damaged files of sets are found, and are made again byte for byte or listed as beyond repair.
@Suite struct RepairTests {
    static func report(_ store: MemoryStore, apply: Bool = true) throws -> RepairReport {
        let repair = SetRepair(try SetReader(locked: store))
        let plan = try repair.plan()
        return apply ? try repair.apply(plan) : plan
    }

    /// The objects of a set but for the text for people.
    static func objects(
        _ length: Int, parity: Int, unitSize: ByteCount = .kibibytes(16), packSize: ByteCount = .gibibytes(1),
        plain: Bool = false, keys: KeyRing? = nil
    ) throws -> [String: [UInt8]] {
        let store = MemoryStore()
        var random = Seeded(UInt64(length + parity))
        let content = (0..<length).map { plain ? UInt8(97 + $0 % 23) : UInt8.random(in: 0...255, using: &random) }
        try Sample.backup(
            [(content, nil)], to: store,
            options: .init(
                packSize: packSize, unitSize: unitSize, encryption: keys == nil ? nil : NewEncryption(cost: 10),
                parity: parity), keys: keys ?? .none)
        var objects = store.objects
        objects["RELIGHT.txt"] = nil
        return objects
    }

    /// What `store` holds but for the marks of packs that nobody builds upon.
    static func unmarked(_ store: MemoryStore) -> [String: [UInt8]] {
        store.objects.filter { !$0.key.hasPrefix("gone/") }
    }

    static func pack(_ objects: [String: [UInt8]], _ kind: PackHeader.Kind) throws -> String {
        let names = objects.filter { $0.key.hasPrefix("packs/") && $0.value[10] == kind.rawValue }.keys.sorted()
        return try #require(names.first)
    }

    @Test func aSoundSetIsLeftAlone() throws {
        for parity in [0, 5] {
            let objects = try Self.objects(300_000, parity: parity)
            let store = MemoryStore(objects: objects)
            let report = try Self.report(store)
            #expect(report.items.isEmpty && report.isSound && report.files == objects.count)
            #expect((store.objects == objects) as Bool)
        }
    }

    /// Damage beyond repair is not handed on to new points, and what is sound beside it stays.
    @Test(arguments: [false, true]) func aBackupAfterRepairIsSoundAgain(encrypted: Bool) throws {
        let store = MemoryStore()
        let keys = encrypted ? EncryptionTests.ring("pass") : KeyRing.none
        let options = SetWriter.Options(
            packSize: .mebibytes(1), encryption: encrypted ? NewEncryption(cost: 10) : nil)
        var random = Seeded(61)
        let content = (0..<(3 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        // Its frames lie in the pack that is damaged, too.
        let part = Array(content[..<262_144])
        let (first, _) = try Sample.backup([(content, nil)], to: store, name: "first", options: options, keys: keys)
        let (sound, _) = try Sample.backup([(part, nil)], to: store, name: "sound", options: options, keys: keys)
        let used = Set(try SetReader(store, keys: keys).point(sound.id).file.packs.map(\.id))
        let candidates = store.objects.filter { name, bytes in
            name.hasPrefix("packs/") && bytes[10] == 1
                && ObjectName.id(name, suffix: ".pack").map { used.contains($0) } == true
        }
        let name = try #require(candidates.keys.first)
        for place in 700_000..<700_004 { store.objects[name]?[place] ^= 0x55 }
        #expect(try !SetReader(store, keys: keys).verify(.full, points: [first.id]).isComplete)

        // Until then a backup builds upon it.
        let plan = try Self.report(store, apply: false)
        #expect(plan.impossible == 1 && plan.condemned == 0)
        #expect(try store.list("gone").isEmpty)
        let report = try Self.report(store)
        #expect(report.items.map(\.file) == [name] && report.condemned == 1)
        #expect(try store.list("gone").count == 1)
        let (again, statistics) = try Sample.backup(
            [(content, nil)], to: store, name: "again", options: options, keys: keys)
        #expect(statistics.new > .kibibytes(500) && statistics.shared > .mebibytes(1))
        #expect(try SetReader(store, keys: keys).verify(.full, points: [again.id]).isSound)

        // Reclaiming space neither takes the mark away nor the sound records.
        let keeper = try SetKeeper(store, keys: keys)
        let pruned = try keeper.prune(KeptSet.thorough)
        #expect(pruned.kept.contains { $0.name == name && $0.reason.contains("damaged") })
        #expect(store.objects[name] != nil)
        #expect(try store.list("gone").count == 1)
        #expect(try SetReader(store, keys: keys).verify(.full, points: [sound.id]).isComplete)
        let (third, more) = try Sample.backup(
            [(content, nil)], to: store, name: "third", options: options, keys: keys)
        #expect(more.new == .zero)
        #expect(try SetReader(store, keys: keys).verify(.full, points: [third.id]).isSound)
        // When no point needs it any more it goes.
        let last = try SetKeeper(store, keys: keys)
        try last.forget(last.plan(nil, named: [first.id, sound.id]))
        try _ = SetKeeper(store, keys: keys).prune(KeptSet.thorough)
        #expect(store.objects[name] == nil)
        #expect(try store.list("gone").isEmpty)
        #expect(try SetReader(store, keys: keys).verify(.full).isSound)
    }

    /// A mark on a pack that was put back whole is taken away.
    @Test func aPackThatWasPutBackIsBuiltUponAgain() throws {
        let store = MemoryStore()
        let content = Sample.content(600_000, seed: 62)
        try Sample.backup([(content, nil)], to: store)
        let name = try Self.pack(store.objects, .data)
        let whole = store.objects[name]
        store.objects[name]?[5_000] ^= 1
        #expect(try Self.report(store).condemned == 1)
        store.objects[name] = whole
        try _ = SetKeeper(store).prune(KeptSet.thorough)
        #expect(try store.list("gone").isEmpty)
        #expect(try Sample.backup([(content, nil)], to: store).1.new == .zero)
    }

    /// Every byte of every file, one at a time: found by verification and by the plan, repaired to the same bytes.
    @Test func everyFlippedByteOfAProtectedSetIsFoundAndRepaired() throws {
        let objects = try Self.objects(20_000, parity: 5, plain: true)
        var places: [(name: String, place: Int)] = []
        for (start, name) in objects.keys.sorted().enumerated() {
            for place in Thoroughness.places(below: objects[name]?.count ?? 0, step: 5, start: start) {
                places.append((name, place))
            }
        }
        #expect(places.count > 2_000 && places.count < 40_000)
        let work = places
        let next = Atomic<Int>(0)
        let problems = Mutex<[String]>([])
        try Workers.run(Workers.processors) { (_, _) throws(Fault) in
            let store = MemoryStore(objects: objects)
            while true {
                let number = next.add(1, ordering: .relaxed).oldValue
                guard number < work.count else { return }
                let (name, place) = work[number]
                var damaged = objects
                damaged[name]?[place] ^= UInt8(1 + number % 255)
                store.objects = damaged
                let reader = try SetReader(store)
                let found = try !reader.verify(.full, threads: 1).isSound
                let repair = SetRepair(reader)
                let report = try repair.apply(repair.plan())
                if !found || report.repaired != 1 || report.items.first?.file != name || store.objects != objects {
                    problems.withLock { $0.append("\(name) at \(place): found \(found), \(report.items)") }
                }
            }
        }
        let list = problems.withLock { $0 }
        #expect(list.isEmpty, "\(list.count) of \(work.count): \(list.prefix(5))")
    }

    @Test func aBurstInALargePackIsRepaired() throws {
        let objects = try Self.objects(9_000_000, parity: 5, unitSize: .kibibytes(64))
        let name = try Self.pack(objects, .data)
        var damaged = objects
        let count = objects[name]?.count ?? 0
        #expect(count > 9_400_000 && count < 9_700_000)
        // Across the border of two segments; the end with footer and trailer.
        for place in (4 << 20) - 150_000..<(4 << 20) + 150_000 { damaged[name]?[place] = 0x5A }
        damaged[name]?.removeLast(100_000)
        let store = MemoryStore(objects: damaged)
        #expect(try !SetReader(store).verify(.full).isComplete)
        let plan = try Self.report(store, apply: false)
        #expect(plan.planned == 1 && plan.items.first?.file == name)
        #expect((store.objects == damaged) as Bool, "a plan changes nothing")
        let report = try Self.report(store)
        #expect(report.isSound && report.repaired == 1)
        #expect((store.objects == objects) as Bool)
        #expect(try SetReader(store).verify(.full).isSound)
    }

    @Test func severalPacksOfLimitedSizeAreProtected() throws {
        let objects = try Self.objects(5_000_000, parity: 20, packSize: .mebibytes(1))
        let packs = objects.filter { $0.key.hasPrefix("packs/") }
        #expect(packs.count >= 6 && packs.values.allSatisfy { $0.count <= 1 << 20 })
        #expect(packs.values.contains { $0.count > 900_000 })
        var damaged = objects
        for name in packs.keys {
            for place in stride(from: 5, to: damaged[name]?.count ?? 0, by: 70_001) { damaged[name]?[place] ^= 4 }
        }
        let store = MemoryStore(objects: damaged)
        let report = try Self.report(store)
        #expect(report.isSound && report.repaired == packs.count)
        #expect((store.objects == objects) as Bool)
    }

    @Test func whatIsBeyondRepairIsListedAndLeftAsItIs() throws {
        let objects = try Self.objects(2_000_000, parity: 5)
        let name = try Self.pack(objects, .data)
        var damaged = objects
        for place in 300_000..<600_000 { damaged[name]?[place] = 0 }
        let key = try #require(objects.keys.first { $0.hasPrefix("points/") })
        damaged[key]?[300] ^= 1
        let store = MemoryStore(objects: damaged)
        let report = try Self.report(store)
        #expect(report.impossible == 1 && report.repaired == 1 && !report.isSound)
        damaged[key] = objects[key]
        #expect((Self.unmarked(store) == damaged) as Bool)
        guard case .impossible(let why)? = report.items.first(where: { $0.file == name })?.outcome else {
            Issue.record("not listed")
            return
        }
        #expect(why.contains("parity"))
    }

    @Test func whatParityCanIsMadeGoodInAPackBeyondRepair() throws {
        let objects = try Self.objects(530_000, parity: 50)
        let name = try Self.pack(objects, .data)
        let bytes = try #require(objects[name])
        let id = try #require(ObjectName.id(name, suffix: ".pack"))
        let layout = try #require(
            try ParityCheck.run(ParitySample.damaged(bytes), id: id, hasher: Hasher256())
        ).layout
        #expect(layout.groups == 3)
        let group = (0..<layout.blocks).filter { layout.group($0) == 1 }.prefix(layout.parityPerGroup + 1)
        let others = [0, 2, 3, 5, 30, layout.dataBlocks + 3]
        let store = MemoryStore(objects: objects)
        let lost = ParityJudgeTests.losing(group, in: bytes, layout)
        store.objects[name] = ParityJudgeTests.losing(others, in: lost, layout)
        let report = try Self.report(store)
        #expect(report.impossible == 1 && report.items.first?.source == .parity(blocks: others.count))
        #expect((store.objects[name] == lost) as Bool)
        // There is nothing more to be done.
        let again = try Self.report(store)
        #expect(again.impossible == 1 && again.items.first?.source == nil)
        #expect((store.objects[name] == lost) as Bool)
    }

    @Test func withoutParityWhatFollowsFromTheRecordsIsRepaired() throws {
        let objects = try Self.objects(200_000, parity: 0)
        let name = try Self.pack(objects, .data)
        let bytes = try #require(objects[name])
        let trailer = try HostileTests.trailer(bytes)
        for place in [3, 70, 150, trailer.offset + 3, trailer.offset + 60, bytes.count - 70, bytes.count - 3] {
            var damaged = objects
            damaged[name]?[place] ^= 0x10
            let store = MemoryStore(objects: damaged)
            let report = try Self.report(store)
            #expect(report.repaired == 1 && report.items.first?.source == .records, "byte \(place)")
            #expect((store.objects == objects) as Bool, "byte \(place)")
        }
        // Its end lost, and a record damaged.
        var damaged = objects
        damaged[name] = Array(bytes[..<(trailer.offset + 10)])
        var store = MemoryStore(objects: damaged)
        #expect(try Self.report(store).repaired == 1)
        #expect((store.objects == objects) as Bool)
        for place in [200, 5000, trailer.offset - 40] {
            damaged = objects
            damaged[name]?[place] ^= 1
            store = MemoryStore(objects: damaged)
            let report = try Self.report(store)
            #expect(report.impossible == 1 && report.repaired == 0, "byte \(place)")
            #expect((Self.unmarked(store) == damaged) as Bool)
        }
    }

    @Test func copiesStandInForEachOther() throws {
        let objects = try Self.objects(200_000, parity: 0)
        let lists = try Self.pack(objects, .lists)
        let point = try #require(objects.keys.first { $0.hasPrefix("points/") })
        for first in [lists, point, "set.a"] {
            let second = first == "set.a" ? "set.b" : "copies/" + first
            for name in [first, second] {
                var damaged = objects
                damaged[name] = nil
                let store = MemoryStore(objects: damaged)
                #expect(try Self.report(store).repaired == 1, "\(name)")
                #expect((store.objects == objects) as Bool, "\(name)")
                damaged = objects
                damaged[name]?[90] ^= 1
                store.objects = damaged
                #expect(try Self.report(store).repaired == 1, "\(name)")
                #expect((store.objects == objects) as Bool, "\(name)")
            }
        }
        for first in [lists, point] {
            var damaged = objects
            damaged[first]?[270] ^= 1
            damaged["copies/" + first]?[300] ^= 1
            let store = MemoryStore(objects: damaged)
            let report = try Self.report(store)
            #expect(report.impossible == 2 && report.repaired == 0)
            #expect(report.condemned == (first == lists ? 2 : 0))
            #expect((Self.unmarked(store) == damaged) as Bool)
        }
    }

    @Test func bothDamagedCopiesAreRepairedFromParityAndFromEachOther() throws {
        let objects = try Self.objects(200_000, parity: 5)
        let lists = try Self.pack(objects, .lists)
        var damaged = objects
        damaged[lists]?[300] ^= 1
        damaged["copies/" + lists]?[300] ^= 1
        let store = MemoryStore(objects: damaged)
        #expect(try Self.report(store).repaired == 2)
        #expect((store.objects == objects) as Bool)
        for lost in [lists, "copies/" + lists] {
            damaged = objects
            damaged[lists]?[300] ^= 1
            damaged["copies/" + lists]?[300] ^= 1
            damaged[lost] = [1, 2, 3]
            store.objects = damaged
            #expect(try Self.report(store).repaired == 2)
            #expect((store.objects == objects) as Bool)
        }
    }

    @Test func anEncryptedSetIsRepairedWithoutItsKey() throws {
        let ring = EncryptionTests.ring("secret")
        let objects = try Self.objects(300_000, parity: 5, keys: ring)
        var damaged = objects
        for name in objects.keys where !name.hasPrefix("copies/") && name != "set.b" {
            damaged[name]?[(objects[name]?.count ?? 0) / 2] ^= 0x40
        }
        let store = MemoryStore(objects: damaged)
        let report = try Self.report(store)
        #expect(report.isSound && report.repaired >= 5)
        #expect((store.objects == objects) as Bool)
        // With the key, a missing pack is noticed.
        let name = try Self.pack(objects, .data)
        damaged = objects
        damaged[name] = nil
        store.objects = damaged
        #expect(try Self.report(store).items.isEmpty)
        let plan = try SetRepair(SetReader(store, keys: ring)).plan()
        #expect(plan.impossible == 1 && plan.items.first?.file == name)
    }

    @Test func unreadableSectorsAreRepaired() throws {
        let objects = try Self.objects(1_000_000, parity: 5)
        let name = try Self.pack(objects, .data)
        let store = MemoryStore(objects: objects)
        let broken = BrokenFlag()
        let bad: Range<UInt64> = 409_600..<417_792
        store.interceptor = { (operation) throws(Fault) in
            if case .replace(let object) = operation, object == name { broken.state.withLock { $0 = false } }
            guard case .read(let object, let offset, let count) = operation, object == name,
                bad.overlaps(offset..<offset + UInt64(count)), broken.state.withLock({ $0 })
            else { return }
            throw Fault(.storeFailed, what: "Input/output error", place: name, remedy: "")
        }
        #expect(try !SetReader(store).verify(.full).isSound)
        let report = try Self.report(store)
        #expect(report.repaired == 1 && report.items.first?.source == .parity(blocks: 2))
        #expect((store.objects == objects) as Bool)
    }

    @Test func afterAFullMediumEverythingIsAsItWas() throws {
        let objects = try Self.objects(1_000_000, parity: 5)
        let name = try Self.pack(objects, .data)
        var damaged = objects
        damaged[name]?[5000] ^= 1
        let used = damaged.values.reduce(0) { $0 + $1.count }
        let store = MemoryStore(objects: damaged, capacity: used + 500_000)
        let fault = #expect(throws: Fault.self) { try Self.report(store) }
        #expect(fault?.code == .storeFull)
        #expect((store.objects == damaged) as Bool)
    }

    @Test func parityThatIsDamagedItselfIsFoundByVerification() throws {
        let objects = try Self.objects(1_000_000, parity: 5)
        let name = try Self.pack(objects, .data)
        let bytes = try #require(objects[name])
        var damaged = objects
        damaged[name]?[try HostileTests.trailer(bytes).offset - 5000] ^= 1
        let store = MemoryStore(objects: damaged)
        let verified = try SetReader(store).verify(.full)
        #expect(!verified.isSound && verified.isComplete)
        #expect(verified.damages.first?.what.contains("parity") == true)
    }
}

/// Whether a medium is still broken.
private final class BrokenFlag: Sendable {
    let state = Mutex(true)
}
