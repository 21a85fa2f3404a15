// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization
import TestSupport
import Testing

@testable import ImageStore

/// Encrypted sets: what opens them, what does not, and what they show without their key.
struct EncryptionTests {
    static let content = Sample.content(700_000, seed: 91)

    static func ring(_ text: String) -> KeyRing { KeyRing(.passphrase(Secret(Array(text.utf8)))) }
    static func options(_ cipher: NewEncryption.Cipher = .aes256) -> SetWriter.Options {
        .init(encryption: NewEncryption(cipher, cost: 10))
    }

    static func set(_ passphrase: String = "right", _ content: [UInt8] = content) throws -> MemoryStore {
        let store = MemoryStore()
        try Sample.backup([(content, nil)], to: store, name: "canary-name", options: options(), keys: ring(passphrase))
        return store
    }

    @Test(arguments: [NewEncryption.Cipher.aes256, .aes128])
    func anEncryptedSetGivesBackWhatWasStored(cipher: NewEncryption.Cipher) throws {
        let store = MemoryStore()
        let keys = Self.ring("pass")
        try Sample.backup([(Self.content, nil)], to: store, options: Self.options(cipher), keys: keys)
        let (_, second) = try Sample.backup([(Self.content, nil)], to: store, keys: keys)
        #expect(second.new == .zero)
        let reader = try SetReader(store, keys: keys)
        #expect(try Sample.restore(reader.point().streams[0]) == Self.content)
        #expect(try Sample.restoreRandomly(reader.point().streams[0], step: 12_345) == Self.content)
        let report = try reader.verify(.full)
        #expect(report.isSound && report.content.bytes > 0)
    }

    @Test func aWrongPassphraseIsToldFromADamagedSlot() throws {
        let store = try Self.set()
        let wrong = try #require(throws: Fault.self) { try SetReader(store, keys: Self.ring("wrong")) }
        #expect(wrong.code == .wrongKey)
        let none = try #require(throws: Fault.self) { try SetReader(store) }
        #expect(none.code == .keyNeeded)
        #expect(none.code.exit == .wrongKey)
        let file = try #require(throws: Fault.self) {
            try SetReader(store, keys: KeyRing(.keyFile(Secret(Array("right".utf8)))))
        }
        #expect(file.code == .wrongKey && file.what.contains("passphrase"))

        // One copy damaged: the other opens the set. Both: that is damage, whatever the passphrase.
        let slots = store.objects.keys.filter { $0.hasSuffix(".key") }.sorted()
        #expect(slots.count == 2)
        for byte in stride(from: 0, to: KeySlot.size, by: 7) {
            let copy = MemoryStore(objects: store.objects)
            copy.objects[slots[0]]?[byte] ^= 0x20
            #expect(try SetReader(copy, keys: Self.ring("right")).points().points.count == 1)
            copy.objects[slots[1]]?[byte] ^= 0x20
            let fault = try #require(throws: Fault.self) { try SetReader(copy, keys: Self.ring("right")) }
            #expect(fault.code == .setDamaged, "byte \(byte): \(fault)")
        }
    }

    @Test func aHeaderThatWasExchangedIsNotBelieved() throws {
        let store = try Self.set()
        // Another unit size with a right check: everything would read wrong without the key's own check.
        var header = try #require(try SetAccess.look(at: store).header)
        header.unitSize = 16_384
        for name in store.objects.keys {
            guard let bytes = store.objects[name] else { continue }
            let at = name.hasPrefix("set.") ? 0 : name.hasSuffix(".key") ? 256 : -1
            guard at >= 0 else { continue }
            store.objects[name]?.replaceSubrange(at..<at + 128, with: header.bytes)
            #expect(bytes.count >= at + 128)
        }
        let fault = try #require(throws: Fault.self) { try SetReader(store, keys: Self.ring("right")) }
        #expect(fault.code == .setDamaged && fault.what.contains("header"))
    }

    @Test func whenTwoRemoveSlotsAtOnceOneIsLeft() throws {
        let store = MemoryStore()
        try Sample.backup([(Self.content, nil)], to: store, options: Self.options(), keys: Self.ring("one"))
        let keyring = try SetKeyring(store, keys: Self.ring("one"))
        let first = try #require(try keyring.slots().first?.id)
        let second = try keyring.add(.passphrase(Secret(Array("two".utf8))), label: "", time: 1, cost: 10)
        let other = try SetKeyring(store, keys: Self.ring("two"))
        let isDue = Atomic<Bool>(true)
        store.interceptor = { operation throws(Fault) in
            guard case .delete = operation, isDue.exchange(false, ordering: .relaxed) else { return }
            _ = try other.remove(first)
        }
        let fault = #expect(throws: Fault.self) { try keyring.remove(second) }
        store.interceptor = nil
        #expect(fault?.code == .setBusy)
        #expect(try keyring.slots().map(\.id) == [second])
        #expect(store.objects.keys.count { $0.contains("keys/") } == 2)
        _ = try SetReader(store, keys: Self.ring("two"))
    }

    @Test func noSlotIsAddedThatNobodyWouldLookAt() throws {
        let store = MemoryStore()
        try Sample.backup([(Self.content, nil)], to: store, options: Self.options(), keys: Self.ring("one"))
        let keyring = try SetKeyring(store, keys: Self.ring("one"))
        for number in 1..<256 { try store.put(ObjectName.key(ObjectID(high: .max, low: UInt64(number))), [1]) }
        let before = store.objects
        let fault = #expect(throws: Fault.self) {
            try keyring.add(.passphrase(Secret(Array("two".utf8))), label: "", time: 1, cost: 10)
        }
        #expect(fault?.what.contains("256") == true)
        #expect((store.objects == before) as Bool)
        try store.delete(ObjectName.key(ObjectID(high: .max, low: 1)))
        _ = try keyring.add(.passphrase(Secret(Array("two".utf8))), label: "", time: 1, cost: 10)
        _ = try SetReader(store, keys: Self.ring("two"))
    }

    @Test func thePassphraseChangesWithoutTouchingTheData() throws {
        let store = try Self.set()
        let before = store.objects.filter { !$0.key.contains("keys/") }
        let keyring = try SetKeyring(store, keys: Self.ring("right"))
        let first = try #require(try keyring.slots().first)
        let only = try #require(throws: Fault.self) { try keyring.remove(first.id) }
        #expect(only.code == .usage)
        let file = SetSecret.keyFile(Secret([UInt8](repeating: 7, count: 100)))
        _ = try keyring.add(.passphrase(Secret(Array("new".utf8))), label: "after the holidays", time: 5, cost: 10)
        _ = try keyring.add(file, label: "", time: 6, cost: 10)
        #expect(try keyring.slots().count == 3)
        #expect(try keyring.slots().contains { $0.kind == .keyFile })
        try keyring.remove(String(first.id.prefix(12)))
        #expect(throws: Fault.self) { try SetReader(store, keys: Self.ring("right")) }
        for keys in [Self.ring("new"), KeyRing(file)] {
            #expect(try Sample.restore(SetReader(store, keys: keys).point().streams[0]) == Self.content)
        }
        #expect(store.objects.filter { !$0.key.contains("keys/") } == before)
    }

    @Test func nothingOfTheContentShowsWithoutTheKey() throws {
        let canary = Array("CANARY-of-the-content-0123456789".utf8)
        var content = [UInt8](repeating: 0, count: 400_000)
        for place in stride(from: 0, to: content.count - 64, by: 1000) {
            content.replaceSubrange(place..<place + canary.count, with: canary)
        }
        let store = try Self.set("right", content)
        let plain = try Hasher256().hash(Array(content[0..<65_536])).bytes
        for (name, bytes) in store.objects {
            for secret in [canary, Array("canary-name".utf8), Array("/dev/test".utf8), plain, Array("right".utf8)] {
                #expect(!Self.contains(bytes, secret), "\(name) holds \(String(decoding: secret, as: UTF8.self))")
            }
        }
        // The same disk gives other ids under another key.
        let other = try Self.set("right", content)
        func ids(_ store: MemoryStore) throws -> Set<UnitID> {
            var result: Set<UnitID> = []
            for (name, bytes) in store.objects where name.hasPrefix("packs/") {
                let place = MemoryStore(objects: ["pack": bytes])
                let handle = try #require(try place.open("pack"))
                var scanner = PackScanner(handle, unitSize: 65_536, from: PackHeader.size, to: bytes.count)
                while let item = try scanner.next() {
                    if case .record(_, let record) = item { result.formUnion(record.ids) }
                }
            }
            return result
        }
        #expect(try !ids(store).isEmpty && ids(store).isDisjoint(with: ids(other)))
    }

    @Test func noNonceIsUsedTwiceInARunAndNoSaltByTwoRuns() throws {
        let store = try Self.set()
        try Sample.backup([(Sample.content(500_000, seed: 92), nil)], to: store, keys: Self.ring("right"))
        var seen: Set<[UInt64]> = []
        var salts: Set<ObjectID> = []
        var records = 0
        for (name, bytes) in store.objects where name.hasPrefix("packs/") {
            let handle = try #require(try store.open(name))
            var scanner = PackScanner(handle, unitSize: 65_536, from: PackHeader.size, to: bytes.count)
            while let item = try scanner.next() {
                guard case .record(_, let record) = item else { continue }
                #expect(record.cipher == StoredID.aes256)
                records += 1
                salts.insert(record.salt)
                seen.insert([record.salt.high, record.salt.low, record.counter])
            }
        }
        for (name, bytes) in store.objects where name.hasPrefix("points/") {
            let header = try unsafe PointFile.Header(bytes.span.bytes, fileSize: UInt64(bytes.count))
            records += 1
            salts.insert(header.salt)
            seen.insert([header.salt.high, header.salt.low, header.counter])
            #expect(name.hasSuffix(".point"))
        }
        #expect(records > 6 && seen.count == records)
        #expect(salts.count == 2)
    }

    @Test func anInterruptedRunsFramesAreTakenOverInAnEncryptedSet() throws {
        let store = MemoryStore()
        let keys = Self.ring("right")
        let writer = try SetWriter(store, options: Self.options(), keys: keys)
        let worker = try UnitWorker(writer)
        let stream = try writer.beginStream(Sample.stream(Self.content.count))
        while let piece = stream.nextPiece() {
            var bytes = Array(Self.content[Sample.range(piece.extent)])
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try worker.add(piece, of: stream, &raw)
        }
        writer.abandon()
        let (_, statistics) = try Sample.backup([(Self.content, nil)], to: store, keys: keys)
        #expect(statistics.new == .zero)
        #expect(try Sample.restore(SetReader(store, keys: keys).point().streams[0]) == Self.content)
    }

    @Test func aSlotThatAsksForTooMuchIsRefusedAtOnce() throws {
        let store = try Self.set()
        let name = try #require(store.objects.keys.first { $0.hasPrefix("keys/") })
        // 64 GiB: N = 2^24, r = 32; then sixteen passes too many.
        for (at, value) in [(40, UInt8(24)), (44, 33), (48, 17), (40, 9), (44, 0), (48, 0), (11, 2)] {
            var bytes = try #require(store.objects[name])
            bytes[at] = value
            if at == 40, value == 24 { bytes[44] = 32 }
            bytes = HostileTests.sealed(bytes, checkAt: 252)
            #expect(throws: Fault.self, "\(at) = \(value)") {
                let place = MemoryStore(objects: store.objects)
                for key in place.objects.keys where key.hasSuffix(".key") { place.objects[key] = bytes }
                _ = try SetReader(place, keys: Self.ring("right"))
            }
        }
    }

    @Test func hostileKeySlotsAreRefusedOrWithinBounds() throws {
        var random = Seeded(93)
        let header = SetHeader(id: .random(), created: 1, unitSize: 65_536, cipher: StoredID.aes256)
        let master = try Secret.random(32)
        let slot = try KeySlot(
            master, for: .passphrase(Secret([1, 2])), label: "x", created: 1, cost: .init(logN: 10, r: 8, p: 1),
            set: header)
        var sound = 0
        for _ in 0..<30_000 {
            let bytes = HostileTests.sealed(HostileTests.mutated(slot.bytes, &random), checkAt: 252)
            guard let read = try? unsafe KeySlot(bytes.span.bytes) else { continue }
            sound += 1
            #expect(read.cost.memory <= 1 << 30 && read.cost.p <= 16)
        }
        #expect(sound > 100)
        #expect(try unsafe KeySlot(slot.bytes.span.bytes) == slot)
    }

    private static func contains(_ bytes: [UInt8], _ wanted: [UInt8]) -> Bool {
        guard bytes.count >= wanted.count else { return false }
        for start in 0...bytes.count - wanted.count where bytes[start] == wanted[0] {
            if bytes[start..<start + wanted.count].elementsEqual(wanted) { return true }
        }
        return false
    }
}
