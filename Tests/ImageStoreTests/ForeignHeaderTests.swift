// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Testing

@testable import ImageStore

/// Sets without headers among whose files one of another set lies.
@Suite struct ForeignHeaderTests {
    static let content = Sample.content(200_000, seed: 15)

    /// A set and another one, one of whose points lies among the first one's, under a name before or after them.
    static func set(first: Bool) throws -> (store: MemoryStore, other: [UInt8], name: String) {
        let (store, other) = (MemoryStore(), MemoryStore())
        try Sample.backup([(content, nil)], to: store)
        try Sample.backup([(Sample.content(90_000, seed: 16), nil)], to: other)
        let point = try #require(other.objects.first { $0.key.hasPrefix("points/") }?.value)
        let name = ObjectName.point(ObjectID(high: first ? 0 : .max, low: 0))
        store.objects[name] = point
        return (store, try #require(other.objects["set.a"]), name)
    }

    @Test(arguments: [false, true]) func aLostHeaderIsNotTakenFromAnotherSet(first: Bool) throws {
        let (store, _, name) = try Self.set(first: first)
        let header = store.objects["set.a"]
        for name in ObjectName.headers { store.objects[name] = nil }
        let before = store.objects
        let fault = try #require(throws: Fault.self) { try SetReader(store) }
        #expect(fault.code == .setDamaged && fault.what.contains("different sets"))
        #expect(throws: Fault.self) { try Sample.backup([(Self.content, nil)], to: store) }
        #expect((store.objects == before) as Bool)
        // Without the foreign file everything says the same.
        store.objects[name] = nil
        let repair = SetRepair(try SetReader(store))
        #expect(try repair.apply(try repair.plan()).isSound)
        #expect(store.objects["set.a"] == header && store.objects["set.b"] == header)
    }

    @Test(arguments: ObjectName.headers) func aForeignHeaderDoesNotReplaceTheRightOne(place: String) throws {
        for first in [false, true] {
            let (store, other, _) = try Self.set(first: first)
            store.objects[place] = other
            let before = store.objects
            #expect(throws: Fault.self) { try Sample.backup([(Self.content, nil)], to: store) }
            #expect((store.objects == before) as Bool)
        }
    }

    @Test func aVersionThatIsDamagedDoesNotEndTheSearch() throws {
        let store = MemoryStore()
        try Sample.backup([(Self.content, nil)], to: store)
        let header = try #require(store.objects["set.a"])
        for name in ObjectName.headers { store.objects[name] = nil }
        let point = try #require(store.objects.first { $0.key.hasPrefix("points/") })
        store.objects[point.key]?[128 + 8] = 7
        #expect(try SetAccess.look(at: store).header?.bytes == header)
    }
}
