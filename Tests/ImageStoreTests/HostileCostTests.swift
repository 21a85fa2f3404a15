// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Testing

@testable import ImageStore

/// What small hostile objects cost: time that grows with what they hold, not with its square; and no trap.
@Suite struct HostileCostTests {
    static func seconds(_ body: () throws -> Void) rethrows -> Double {
        let time = try ContinuousClock().measure(body)
        return Double(time.components.seconds) + Double(time.components.attoseconds) / 1e18
    }

    /// The body of a moves object of `count` groups with one record each.
    static func moves(_ count: Int) -> [UInt8] {
        var body: [UInt8] = []
        body.appendVarint(UInt64(count))
        for number in 0..<count { body += ObjectID(high: UInt64(number), low: 0).bytes }
        body.appendVarint(UInt64(count))
        for number in 0..<count {
            for value in [number, 1, 12, number == 0 ? 1 : 0, 12] { body.appendVarint(UInt64(value)) }
        }
        return body
    }

    @Test func aMovesObjectIsReadInTimeThatGrowsWithIt() throws {
        let (small, large) = (Self.moves(20_000), Self.moves(160_000))
        var records = 0
        let first = try Self.seconds { records += try MovesFile(body: small).entries.count }
        let second = try Self.seconds { records += try MovesFile(body: large).entries.count }
        #expect(records == 180_000)
        #expect(second < first * 24 + 1, "\(first) s, and for eight times as much \(second) s")
    }

    /// A set whose point has `count` pages, every second one of its stream, in a pack that is not there.
    static func scattered(_ count: Int) throws -> MemoryStore {
        let store = MemoryStore()
        try Sample.backup([(Array("x".utf8), nil)], to: store)
        let set = try #require(try SetAccess.look(at: store).header)
        let pack = ObjectID.random()
        let length = UInt64(count) * 2 * set.pageSpan
        let pages = (0..<count).map { number -> (number: UInt64, reference: PageReference) in
            let hash = UnitID(a: UInt64(number), b: 1, c: 2, d: 3)
            return (
                UInt64(number) * 2,
                PageReference(hash: hash, place: RecordPlace(pack: pack, offset: 192, length: 112))
            )
        }
        let extent = Extent(from: .zero, to: ByteCount(length))
        let stream = StoredStream(
            description: StreamDescription(disk: 0, kind: .volume(1), extent: extent, used: ExtentList(extent)),
            unreadable: ExtentList(), pages: pages)
        let file = PointFile(
            set: set, number: 2, facts: Sample.facts("scattered"),
            packs: [PackReference(id: pack, size: 1000, footer: UnitID(a: 0, b: 0, c: 0, d: 0))], streams: [stream])
        let (bytes, id) = try file.sealed(Hasher256(), RecordSealer(set, nil, WriteSession(), .standard))
        for name in [ObjectName.point(id), ObjectName.copy(of: ObjectName.point(id))] { store.objects[name] = bytes }
        return store
    }

    @Test func losingManyPagesTakesTimeThatGrowsWithTheirNumber() throws {
        func cost(_ count: Int) throws -> Double {
            let reader = try SetReader(Self.scattered(count))
            return try Self.seconds {
                let report = try reader.verify(.quick, threads: 1)
                #expect(report.damages.flatMap(\.losses).flatMap(\.extents.extents).count == count)
            }
        }
        let (small, large) = (try cost(1_000), try cost(8_000))
        #expect(large < small * 24 + 1, "\(small) s, and for eight times as much \(large) s")
    }

    @Test(arguments: [UInt64(0), (1 << 63) + 1, .max]) func aPointWithAnImpossibleNumberIsDamaged(number: UInt64) throws
    {
        let store = MemoryStore()
        let (good, _) = try Sample.backup([(Sample.content(50_000, seed: 1), nil)], to: store)
        let set = try #require(try SetAccess.look(at: store).header)
        let file = PointFile(set: set, number: number, facts: Sample.facts("evil"), packs: [], streams: [])
        let (bytes, id) = try file.sealed(Hasher256(), RecordSealer(set, nil, WriteSession(), .standard))
        for name in [ObjectName.point(id), ObjectName.copy(of: ObjectName.point(id))] { store.objects[name] = bytes }
        let listing = try SetReader(store).points()
        #expect(listing.points.map(\.id) == [good.id] && listing.unreadable == [id.text])
        let (next, _) = try Sample.backup([(Sample.content(50_000, seed: 2), nil)], to: store)
        #expect(next.number == 2)
    }

    @Test func aSlotThatNeedsTooMuchMemoryDoesNotHideTheNext() throws {
        let store = try EncryptionTests.set()
        let header = try #require(try SetAccess.look(at: store).header)
        var slots = try KeySlots(store, header)
        var costly = slots.slots[0]
        costly.cost = KeySlot.Cost(logN: 30, r: 32, p: 1)
        slots.slots.insert(costly, at: 0)
        _ = try slots.unlock(EncryptionTests.ring("right"), header, name: "set")
        // Where none opens, the reason is told.
        slots.slots.removeLast()
        let fault = try #require(throws: Fault.self) {
            try slots.unlock(EncryptionTests.ring("right"), header, name: "set")
        }
        #expect(fault.code != .wrongKey)
    }
}
