// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Testing

@testable import ImageStore

/// A set in several places: what is damaged in one of them is found, read around and repaired, whichever is named first.
@Suite struct ManyPlacesTests {
    static let content = Sample.content(400_000, seed: 81)

    static func places(encrypted: Bool = false) throws -> [MemoryStore] {
        let places = [MemoryStore(name: "one"), MemoryStore(name: "two")]
        try Sample.backup(
            [(content, nil)], to: SpanStore(places),
            options: .init(encryption: encrypted ? NewEncryption(cost: 10) : nil), keys: EncryptionTests.ring("right"))
        for place in places { place.objects["RELIGHT.txt"] = nil }
        return places
    }

    /// Damages all objects of a place that lie in every place.
    static func damage(_ place: MemoryStore, where chosen: (String) -> Bool = { _ in true }) {
        for (name, bytes) in place.objects where !name.hasPrefix("packs/") && !bytes.isEmpty && chosen(name) {
            place.objects[name]?[bytes.count / 2] ^= 0x40
        }
    }

    @Test(arguments: [false, true]) func damageInAnyPlaceIsFoundAndRepaired(encrypted: Bool) throws {
        for index in 0..<2 {
            let places = try Self.places(encrypted: encrypted)
            let before = places.map(\.objects)
            Self.damage(places[index])
            let damaged = before[index].keys.filter { !$0.hasPrefix("packs/") }.sorted()
            let span = try SpanStore(places)
            let reader = try SetReader(span, keys: EncryptionTests.ring("right"))
            // Everything is there once more.
            #expect(try Sample.restore(reader.point().streams[0]) == Self.content)
            for depth in [VerifyDepth.full, .stored] {
                let report = try reader.verify(depth)
                #expect(Set(report.damages.map(\.file)) == Set(damaged), "\(depth) \(index)")
                #expect(report.damages.allSatisfy { $0.place == places[index].name })
                #expect(report.isComplete)
            }
            let repair = SetRepair(reader)
            let plan = try repair.plan()
            #expect(plan.items.map(\.file) == damaged && plan.planned == damaged.count)
            #expect(plan.items.allSatisfy { $0.place == places[index].name })
            #expect(try repair.apply(plan).isSound)
            for (place, objects) in zip(places, before) {
                #expect((place.objects.filter { !$0.key.hasPrefix("writers/") } == objects) as Bool)
            }
            #expect(try SetReader(span, keys: EncryptionTests.ring("right")).verify(.full).isSound)
        }
    }

    @Test func theListsOfUnitsAreReadFromAnotherPlaceWhenBothCopiesAreDamaged() throws {
        let places = try Self.places()
        let lists = try #require(places[0].objects.keys.first { $0.hasPrefix("copies/packs/") })
        let first = String(lists.dropFirst("copies/".count))
        for name in [lists, first] { for byte in 220..<260 { places[0].objects[name]?[byte] ^= 1 } }
        let reader = try SetReader(SpanStore(places))
        #expect(try Sample.restore(reader.point().streams[0]) == Self.content)
        let report = try reader.verify(.full)
        #expect(!report.isSound && report.isComplete)
    }

    @Test func aSoundKeySlotInAnotherPlaceOpensTheSet() throws {
        let places = try Self.places(encrypted: true)
        Self.damage(places[0]) { $0.hasSuffix(".key") }
        let reader = try SetReader(SpanStore(places), keys: EncryptionTests.ring("right"))
        #expect(try reader.points().points.count == 1)
    }

    @Test func movesAreReadFromEveryPlace() throws {
        let set = SetHeader(id: .random(), created: 1, unitSize: 65_536)
        let places = [MemoryStore(name: "one"), MemoryStore(name: "two")]
        let (file, _, _) = MovesTests.table(3, records: 10, seed: 4)
        let id = ObjectID.random()
        let bytes = try file.bytes(set, id: id)
        for place in places {
            for name in [ObjectName.moves(id), ObjectName.copy(of: ObjectName.moves(id))] {
                place.objects[name] = bytes
            }
        }
        for name in places[0].objects.keys { places[0].objects[name]?[300] ^= 1 }
        let map = try MoveMap(SpanStore(unchecked: places), set)
        #expect(map.tables.count == 1)
        #expect(map.damaged.map(\.place) == ["one", "one"])
    }
}
