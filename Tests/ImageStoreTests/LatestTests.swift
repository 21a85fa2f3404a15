// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Testing

@testable import ImageStore

/// What `latest` stands for when a newer point cannot be read.
@Suite struct LatestTests {
    /// Two points, of which no copy of the newer one is sound.
    static func set() throws -> (store: MemoryStore, old: String, new: String) {
        let store = MemoryStore()
        let (old, _) = try Sample.backup([(Sample.content(100_000, seed: 1), nil)], to: store)
        let (new, _) = try Sample.backup([(Sample.content(100_000, seed: 2), nil)], to: store)
        for name in store.objects.keys where name.contains(new.id) {
            store.objects[name]?[300] ^= 1
        }
        return (store, old.id, new.id)
    }

    @Test func verifyReportsTheNewerPointAsLost() throws {
        let (store, old, new) = try Self.set()
        let reader = try SetReader(store)
        let report = try reader.verify(.quick, points: ["latest"])
        #expect(!report.isSound && !report.isComplete)
        #expect(report.points.map(\.id) == [old])
        #expect(report.damages.contains { $0.pointLost && $0.file.contains(new) })
        // Who names the older one asks for that only.
        #expect(try reader.verify(.quick, points: [old]).isSound)
    }

    @Test func forgetRefusesToTakeTheOlderOneForTheLatest() throws {
        let (store, old, _) = try Self.set()
        let keeper = try SetKeeper(store)
        let fault = try #require(throws: Fault.self) { try keeper.plan(nil, named: ["latest"]) }
        #expect(fault.code == .setDamaged && fault.remedy.contains("id"))
        #expect(try keeper.plan(nil, named: [old]).retention.removed.map(\.id) == [old])
    }

    @Test func aSetWhosePointsCanAllBeReadHasALatest() throws {
        let store = MemoryStore()
        try Sample.backup([(Sample.content(100_000, seed: 1), nil)], to: store)
        let (new, _) = try Sample.backup([(Sample.content(100_000, seed: 2), nil)], to: store)
        // One damaged copy is no reason to doubt.
        store.objects["points/\(new.id).point"]?[300] ^= 1
        try SetReader(store).requireKnownLatest()
        #expect(try SetKeeper(store).plan(nil, named: ["latest"]).retention.removed.map(\.id) == [new.id])
    }
}
