// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization
import TestSupport
import Testing

@testable import ImageStore

/// What each depth of a verification reads and finds.
@Suite struct DepthTests {
    static let content = Sample.content(3_000_000, seed: 5)

    /// A set of one point, and the name of its data pack.
    static func set() throws -> (store: MemoryStore, pack: String) {
        let store = MemoryStore()
        try Sample.backup([(content, nil)], to: store)
        return (store, try pack(store))
    }

    static func pack(_ store: MemoryStore) throws -> String {
        let packs = store.objects.filter { $0.key.hasPrefix("packs/") && $0.key.hasSuffix(".pack") }
        return try #require(packs.max { $0.value.count < $1.value.count }?.key)
    }

    @Test func storedBytesAreReadWithoutDecompressing() throws {
        let (store, _) = try Self.set()
        let report = try SetReader(store).verify(.stored)
        #expect(report.isSound && report.isOpen)
        #expect(report.content == .zero && report.records == 0)
        #expect(report.read > .zero && report.read == report.total)
    }

    @Test func storedBytesNeedNoKeyAndEveryFlipIsFound() throws {
        let store = try EncryptionTests.set()
        let sound = try SetReader(locked: store).verify(.stored)
        #expect(sound.isSound && !sound.isOpen)
        #expect(sound.points.isEmpty && sound.closedPoints == 1 && sound.keySlots == 1)
        for (name, bytes) in store.objects where name != "RELIGHT.txt" {
            for byte in stride(from: 0, to: bytes.count, by: max(1, bytes.count / 9)) {
                let copy = MemoryStore(objects: store.objects)
                copy.objects[name]?[byte] ^= 0x10
                let report = try SetReader(locked: copy).verify(.stored, threads: 1)
                #expect(!report.isSound && !report.isComplete, "byte \(byte) of \(name)")
            }
        }
    }

    @Test func contentNeedsTheKey() throws {
        let store = try EncryptionTests.set()
        for depth in [VerifyDepth.full, .share] {
            let fault = try #require(throws: Fault.self) { try SetReader(locked: store).verify(depth) }
            #expect(fault.code == .keyNeeded)
        }
        #expect(try SetReader(locked: store).verify(.quick).isSound)
    }

    @Test func damageThatStoredBytesShowIsNamedByItsRecordOnly() throws {
        let (store, pack) = try Self.set()
        store.objects[pack]?[100_000] ^= 1
        let stored = try SetReader(store).verify(.stored)
        let full = try SetReader(store).verify(.full)
        #expect(!stored.isComplete)
        #expect(stored.damages == full.damages)
        let lost = full.damages.flatMap(\.losses).reduce(UInt64(0)) { $0 + $1.extents.byteCount.bytes }
        #expect(lost > 0 && lost <= 256 << 10)
    }

    @Test func aRecordThatPassesTheEndOfASegmentIsFoundFromItsEnd() throws {
        let store = MemoryStore()
        var random = Seeded(3)
        let content = (0..<(6 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        try Sample.backup([(content, nil)], to: store)
        let pack = try Self.pack(store)
        // Just behind the first segment: the record there begins before.
        store.objects[pack]?[PackFooter.segmentSize + 100] ^= 1
        let stored = try SetReader(store).verify(.stored)
        #expect(!stored.isComplete && stored.damages.count == 1)
        #expect(try stored.damages == SetReader(store).verify(.full).damages)
    }

    @Test func sharesThatFollowEachOtherReadEverything() throws {
        let (store, _) = try Self.set()
        let reader = try SetReader(store)
        let all = try reader.verify(.full)
        for (percent, seeds, first) in [(5, 20, UInt64(7)), (30, 4, 99), (100, 1, 3)] {
            var records = 0
            for step in 0..<seeds {
                let share = VerifyShare(percent: percent, seed: first + UInt64(step))
                let report = try reader.verify(.share, share: share)
                #expect(report.isSound && report.share == share)
                let again = try reader.verify(.share, share: share)
                #expect(again.records == report.records && again.read == report.read, "a seed is a share")
                #expect(percent == 100 || report.records < all.records)
                records += report.records
            }
            // What four shares of 30 % have twice may be a part of no record.
            #expect(percent == 30 ? records >= all.records : records == all.records, "\(percent) %")
        }
    }

    @Test func aShareFindsDamageInItAndNoOther() throws {
        let (store, pack) = try Self.set()
        store.objects[pack]?[100_000] ^= 1
        let reader = try SetReader(store)
        let found = try (0..<10).filter { seed throws -> Bool in
            !(try reader.verify(.share, share: VerifyShare(percent: 10, seed: UInt64(seed))).isSound)
        }
        #expect(found.count == 1)
    }

    @Test func damagedKeySlotsAndMarksAreFound() throws {
        let store = try EncryptionTests.set()
        let slot = try #require(store.objects.keys.first { $0.hasPrefix("copies/keys/") })
        store.objects[slot] = nil
        store.objects["gone/00112233445566778899aabbccddeeff.gone"] = []
        #expect(try SetReader(locked: store).verify(.quick).damages.map(\.file) == [slot])
        store.objects["gone/00112233445566778899aabbccddeeff.gone"] = [1]
        #expect(try SetReader(locked: store).verify(.quick).damages.count == 2)
    }

    /// A store that gives a wrong byte until caches are dropped, as a bad cable may.
    final class Unsteady: ObjectStore {
        let base: MemoryStore
        let object: String
        let byte: Int
        let isSteady = Mutex(false)
        init(_ base: MemoryStore, _ object: String, byte: Int) {
            self.base = base
            self.object = object
            self.byte = byte
        }
        var name: String { base.name }
        var maximumObjectSize: ByteCount? { base.maximumObjectSize }
        var listingDelay: UInt64 { base.listingDelay }
        func prepare() throws(Fault) { try base.prepare() }
        func clock() throws(Fault) -> UInt64 { try base.clock() }
        func announcements() throws(Fault) -> [Announced] { try base.announcements() }
        func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement {
            try base.announce(kind, as: id)
        }
        func upload() throws(Fault) -> any ObjectUpload { try base.upload() }
        func open(_ name: String) throws(Fault) -> (any ObjectHandle)? {
            guard let handle = try base.open(name) else { return nil }
            return name == object ? Handle(self, handle) : handle
        }
        func list(_ folder: String) throws(Fault) -> [StoredObject] { try base.list(folder) }
        func topLevelNames(limit: Int) throws(Fault) -> [String] { try base.topLevelNames(limit: limit) }
        func delete(_ name: String) throws(Fault) { try base.delete(name) }
        func leftovers() throws(Fault) -> [any ObjectLeftover] { try base.leftovers() }

        final class Handle: ObjectHandle {
            let store: Unsteady
            let base: any ObjectHandle
            init(_ store: Unsteady, _ base: any ObjectHandle) {
                self.store = store
                self.base = base
            }
            var size: ByteCount { base.size }
            func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
                try base.read(at: offset, into: &buffer)
                let place = store.byte - Int(offset.bytes)
                guard !store.isSteady.withLock({ $0 }), place >= 0, place < buffer.byteCount else { return }
                let was = unsafe buffer.bytes.unsafeLoad(fromByteOffset: place, as: UInt8.self)
                buffer.storeBytes(of: was ^ 1, toByteOffset: place, as: UInt8.self)
            }
            func dropCaches() { store.isSteady.withLock { $0 = true } }
        }
    }

    @Test func whatASecondReadingHealsIsNoDamageButTold() throws {
        let (store, pack) = try Self.set()
        for depth in [VerifyDepth.full, .stored] {
            let report = try SetReader(Unsteady(store, pack, byte: 100_000)).verify(depth, threads: 1)
            #expect(report.isSound)
            #expect(report.secondReadings.map(\.file) == [pack])
        }
        let share = VerifyShare(percent: 100, seed: 0)
        let report = try SetReader(Unsteady(store, pack, byte: 100_000)).verify(.share, share: share, threads: 1)
        #expect(report.isSound && report.secondReadings.count == 1)
        // A restore reads twice, too.
        for random in [false, true] {
            let reader = try SetReader(Unsteady(store, pack, byte: 100_000))
            let stream = try reader.point().streams[0]
            #expect(
                try (random ? Sample.restoreRandomly(stream, step: 70_000) : Sample.restore(stream)) == Self.content)
            #expect(reader.laterFindings.contains { $0.code == "set.second-reading" && $0.place.hasSuffix(pack) })
        }
    }
}
