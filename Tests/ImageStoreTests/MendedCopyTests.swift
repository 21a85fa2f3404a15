// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Testing

@testable import ImageStore

/// Copies, headers and catalogues that are put back, and how they are named.
@Suite struct MendedCopyTests {
    static let content = Sample.content(150_000, seed: 19)

    @Test func aSetInAPlaceWithAnyNameIsDamagedUnderTheRightNames() throws {
        let store = MemoryStore(name: "Бэкапы")
        try Sample.backup([(Self.content, nil)], to: store)
        store.objects["set.b"] = nil
        #expect(try SetReader(store).verify(.quick).damages.map(\.file) == ["set.b"])
        store.objects["set.a"] = nil
        #expect(try SetReader(store).verify(.quick).damages.map(\.file) == ["set.a", "set.b"])
    }

    @Test func aPointThatIsForgottenWhileItIsRepairedDoesNotComeBack() throws {
        let store = MemoryStore()
        let (point, _) = try Sample.backup([(Self.content, nil)], to: store)
        let second = "copies/points/\(point.id).point"
        store.objects[second] = nil
        let repair = SetRepair(try SetReader(store))
        let plan = try repair.plan()
        #expect(plan.items.map(\.file) == [second])
        store.interceptor = { [weak store] (operation) throws(Fault) in
            guard operation == .replace(second), let store else { return }
            store.interceptor = nil
            try store.delete(second)
            try store.delete("points/\(point.id).point")
        }
        let report = try repair.apply(plan)
        #expect(report.impossible == 1)
        #expect(!store.objects.keys.contains { $0.contains(point.id) })
    }

    @Test func aDamagedOrOldCatalogueIsFoundAndMadeAnew() throws {
        let store = MemoryStore()
        try Sample.backup([(Self.content, nil)], to: store)
        try Catalogue.write(to: store)
        let old = try #require(store.objects[Catalogue.name])
        #expect(try SetReader(store).verify(.quick).isSound)
        try Sample.backup([(Self.content + [1], nil)], to: store)
        try Catalogue.refresh(store)
        let right = try #require(store.objects[Catalogue.name])
        #expect(right != old)
        var damaged = right
        damaged[30] ^= 1
        let other = Catalogue(setID: ObjectID.random().text, objects: [])
        for wrong in [old, damaged, try other.bytes()] {
            store.objects[Catalogue.name] = wrong
            let report = try SetReader(store).verify(.quick)
            #expect(report.damages.map(\.file) == [Catalogue.name] && report.isComplete)
            let repair = SetRepair(try SetReader(store))
            let plan = try repair.plan()
            #expect(plan.items.map(\.file) == [Catalogue.name] && plan.planned == 1)
            #expect(try repair.apply(plan).isSound)
            #expect(try #require(store.objects[Catalogue.name]) == right)
        }
    }
}
