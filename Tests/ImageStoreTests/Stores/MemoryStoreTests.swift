// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Testing

@testable import ImageStore

/// The store that behaves as one on a network does.
@Suite struct MemoryStoreTests {
    @Test func listsShowAChangeAfterSoManyCalls() throws {
        let store = MemoryStore(lateness: .operations(3))
        let upload = try store.upload()
        try upload.write([1, 2])
        try upload.seal(as: "points/x.point")
        #expect(try store.open("points/x.point") != nil)
        #expect(try store.list("points").isEmpty)
        #expect(try store.list("points").isEmpty)
        #expect(try store.list("points").map(\.size) == [ByteCount(2)])
        try store.delete("points/x.point")
        #expect(try store.open("points/x.point") == nil)
        #expect(try store.list("points").count == 1)
        #expect(try store.list("points").count == 1)
        #expect(try store.list("points").isEmpty)
    }

    @Test func listsShowAChangeAfterSomeTime() throws {
        let store = MemoryStore(lateness: .seconds(10))
        #expect(store.listingDelay == 10)
        try store.put("points/x.point", [1])
        let made = try store.clock()
        store.time += 9
        #expect(try store.list("points").isEmpty)
        #expect(try store.open("points/x.point") != nil)
        store.time += 1
        #expect(try store.list("points").map(\.modified) == [made])
        try store.delete("points/x.point")
        store.time += 9
        #expect(try store.list("points").count == 1)
        store.time += 1
        #expect(try store.list("points").isEmpty)
    }

    @Test func changesShowInTheirOrder() throws {
        let store = MemoryStore(lateness: .operations(1000))
        try store.put("points/x.point", [1])
        try store.delete("points/x.point")
        try store.put("points/x.point", [1, 2, 3])
        store.lateness = .none
        #expect(try store.list("points").map(\.size) == [ByteCount(3)])
    }

    @Test func anAnnouncementIsSeenLateAndDiesOfAge() throws {
        let store = MemoryStore(lateness: .seconds(5))
        let mine = try store.announce(.writer)
        #expect(try store.announcements().isEmpty)
        store.time += 5
        #expect(try store.announcements() == [Announced(kind: .writer, id: mine.id, age: 5, isAlive: true)])
        store.time += 86_000
        try mine.renew()
        store.time += 86_000
        #expect(try store.announcements() == [Announced(kind: .writer, id: mine.id, age: 86_000, isAlive: true)])
        store.time += 400
        #expect(try store.announcements().map(\.isAlive) == [false])
        #expect(try store.announcements().isEmpty)
    }

    @Test func theEndOfAnAnnouncementIsSeenAtOnce() throws {
        let store = MemoryStore()
        let mine = try store.announce(.pruner)
        #expect(try store.announcements().count == 1)
        store.lateness = .seconds(100)
        mine.end()
        #expect(try store.announcements().isEmpty)
    }

    @Test func onlyWholeObjectsAreReplaced() throws {
        let store = MemoryStore()
        try store.put("points/x.point", [1])
        let upload = try store.upload()
        try upload.write([5, 6])
        #expect(try upload.bytes(at: 1, count: 1) == [6])
        #expect(throws: Fault.self) { try upload.bytes(at: 1, count: 2) }
        #expect(throws: Fault.self) { try upload.seal(as: "points/x.point") }
        let reader = try #require(try store.open("points/x.point"))
        try upload.seal(replacing: "points/x.point")
        #expect(try store.content("points/x.point") == [5, 6])
        #expect(try reader.bytes(at: .zero, count: 1) == [1])
    }

    @Test func anyCallCanBeMadeToFail() throws {
        let store = MemoryStore()
        try store.put("packs/ab/x.pack", [1])
        store.interceptor = { operation throws(Fault) in
            if case .delete(let name) = operation {
                throw Fault(.storeFailed, what: "\(name) stays.", remedy: "")
            }
        }
        let fault = #expect(throws: Fault.self) { try store.delete("packs/ab/x.pack") }
        #expect(fault?.what == "packs/ab/x.pack stays.")
        #expect(store.objects.count == 1)
    }
}
