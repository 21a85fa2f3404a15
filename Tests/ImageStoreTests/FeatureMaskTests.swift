// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Testing

@testable import ImageStore

/// Sets in whose headers a later version set bits this one does not know.
@Suite struct FeatureMaskTests {
    static let content = Sample.content(600_000, seed: 91)
    static let ring = EncryptionTests.ring("right")

    /// Where bits may be set in the header, by what they mean to this version.
    enum Mask: Int, CaseIterable {
        case write = 16
        case ignorable = 20
        case reserved = 63
        case tail = 100
    }

    /// A header with bits set, as a later version would make it, and its master key when it is `encrypted`.
    static func header(_ masks: [Mask], encrypted: Bool) throws -> (SetHeader, Secret?) {
        var header = SetHeader(id: .random(), created: 5, unitSize: 16_384)
        if encrypted { header.cipher = StoredID.aes256 }
        var bytes = header.bytes
        for mask in masks { bytes[mask.rawValue] = 0x24 }
        var master: Secret?
        if encrypted {
            let key = try Secret.random(SetKeys.masterSize)
            let check = try SetKeys.check(master: key, header: bytes, set: header.id)
            bytes.replaceSubrange(64..<96, with: check.bytes)
            master = key
        }
        bytes = HostileTests.sealed(Array(bytes[..<128]), checkAt: 124)
        let read = try unsafe SetHeader(bytes.span.bytes)
        #expect(read.bytes == bytes, "a header is written as it was read")
        return (read, master)
    }

    /// A key slot with bits in its reserved bytes, sealed over them.
    static func slot(_ master: Secret, _ set: SetHeader) throws -> [UInt8] {
        let secret = Secret(Array("right".utf8))
        let cost = KeySlot.Cost(logN: 10, r: 8, p: 1)
        let plain = try KeySlot(master, for: .passphrase(secret), label: "x", created: 1, cost: cost, set: set)
        var bytes = plain.bytes
        for place in [41, 55, 110, 230] { bytes[place] = 0x42 }
        let cipher = try GCM(Crypto.scrypt(secret, salt: plain.salt, logN: 10, r: 8, p: 1))
        var sealed = [UInt8](repeating: 0, count: SetKeys.masterSize + GCM.tagSize)
        try unsafe master.withBytes { master throws(Fault) in
            try unsafe sealed.withMutableRawBytes { target throws(Fault) in
                try unsafe cipher.seal(
                    master, nonce: plain.nonce, additional: set.id.bytes + bytes[..<112], into: target)
            }
        }
        bytes.replaceSubrange(112..<160, with: sealed)
        return HostileTests.sealed(Array(bytes[..<256]), checkAt: 252) + set.bytes
    }

    /// A set that was begun with `header`, without a point.
    static func begun(_ masks: [Mask], encrypted: Bool) throws -> MemoryStore {
        let (header, master) = try header(masks, encrypted: encrypted)
        let store = MemoryStore()
        for name in ObjectName.headers { store.objects[name] = header.bytes }
        if let master {
            let slot = try slot(master, header)
            let id = try unsafe KeySlot(slot.span.bytes).id
            store.objects[ObjectName.key(id)] = slot
            store.objects[ObjectName.copy(of: ObjectName.key(id))] = slot
        }
        return store
    }

    /// With content: every copy of the header has the bits.
    static func set(encrypted: Bool) throws -> MemoryStore {
        let store = try begun([.ignorable, .reserved, .tail], encrypted: encrypted)
        try Sample.backup([(content, nil)], to: store, options: .init(packSize: .mebibytes(1)), keys: ring)
        try Sample.backup([(Array(content.dropFirst(1)), nil)], to: store, keys: ring)
        store.objects["RELIGHT.txt"] = nil
        return store
    }

    @Test(arguments: [false, true]) func bitsThatMayBeIgnoredAreKeptEverywhere(encrypted: Bool) throws {
        let store = try Self.set(encrypted: encrypted)
        let header = try #require(store.objects["set.a"])
        #expect(header[20] == 0x24 && header[63] == 0x24 && header[100] == 0x24)
        for (name, bytes) in store.objects where !name.hasPrefix("writers/") && !name.hasPrefix("set.") {
            let place = name.hasSuffix(".pack") ? 64 : name.hasSuffix(".key") ? 256 : 128
            #expect(Array(bytes[place..<place + 128]) == header, "\(name)")
        }
        let reader = try SetReader(store, keys: Self.ring)
        #expect(try Sample.restore(reader.point().streams[0]) == Array(Self.content.dropFirst(1)))
        #expect(try reader.verify(.full).isSound)
    }

    @Test(arguments: [false, true]) func whatIsMadeAgainHasTheBitsToo(encrypted: Bool) throws {
        let store = try Self.set(encrypted: encrypted)
        let before = store.objects.filter { !$0.key.hasPrefix("writers/") }
        for name in before.keys where name.hasPrefix("copies/") || name == "set.b" { store.objects[name] = nil }
        for name in before.keys where name.hasPrefix("packs/") { store.objects[name]?[20] ^= 1 }
        let lists = Set(before.keys.filter { $0.hasPrefix("copies/packs/") }.map { String($0.dropFirst(7)) })
        let repair = SetRepair(try SetReader(store, keys: Self.ring))
        let report = try repair.apply(try repair.plan())
        #expect(report.isSound, "\(report.items.filter { $0.outcome != .repaired }) \(lists.count)")
        let after = store.objects.filter { !$0.key.hasPrefix("writers/") }
        #expect(Set(before.keys).union(after.keys).filter { before[$0] != after[$0] }.sorted() == [])
    }

    @Test func aWriterThatIsForbiddenToWritesNothing() throws {
        for encrypted in [false, true] {
            let store = try Self.begun([.write], encrypted: encrypted)
            store.objects["set.b"] = nil
            let before = store.objects
            let reader = try SetReader(store, keys: Self.ring)
            let attempts: [(String, () throws -> Void)] = [
                ("backup", { try Sample.backup([(Self.content, nil)], to: store, keys: Self.ring) }),
                ("repair", { _ = try SetRepair(reader).apply(try SetRepair(reader).plan()) }),
                ("forget", { _ = try SetKeeper(store, keys: Self.ring) }),
                ("catalogue", { try Catalogue.write(to: store) }),
                ("replica", { _ = try SetReplica(reader) }),
            ]
            for (name, attempt) in attempts {
                let fault = try #require(throws: Fault.self, "\(name)") { try attempt() }
                #expect(fault.code == .setVersion, "\(name)")
            }
            if encrypted {
                let ring = try SetKeyring(store, keys: Self.ring)
                let added = try #require(throws: Fault.self) {
                    try ring.add(.passphrase(Secret(Array("other".utf8))), label: "", time: 1, cost: 10)
                }
                #expect(added.code == .setVersion)
                let removed = try #require(throws: Fault.self) { try ring.remove(try ring.slots()[0].id) }
                #expect(removed.code == .setVersion)
            }
            #expect((store.objects == before) as Bool)
        }
    }

    @Test func copiesWithOtherBitsBelongToTheSetAllTheSame() throws {
        // A later version that sets a bit in the headers at the top does not change packs and points.
        let store = MemoryStore()
        try Sample.backup([(Self.content, nil)], to: store)
        for name in ObjectName.headers {
            var header = try #require(store.objects[name])
            header[20] = 1
            store.objects[name] = HostileTests.sealed(Array(header[..<128]), checkAt: 124)
        }
        #expect(try SetReader(store).verify(.full).isSound)
        try Sample.backup([(Self.content, nil)], to: store)
        #expect(try SetReader(store).verify(.full).isSound)
    }

    @Test(.enabled(if: Judge.canRun && Judge.canDecrypt, "needs python3 with cryptography, and Zstandard"))
    func theIndependentReaderOpensSuchSets() throws {
        for encrypted in [false, true] {
            let folder = Sample.folder()
            defer { Sample.remove(folder) }
            let target = FolderStore(path: folder + "/set")
            for (name, bytes) in try Self.set(encrypted: encrypted).objects where !name.hasPrefix("writers/") {
                try target.put(name, bytes)
            }
            try JudgeTests.write(Array("right".utf8), to: folder + "/pass")
            let key = encrypted ? "--passphrase-file \(folder)/pass" : ""
            #expect(Judge.run("/usr/bin/python3 \(Judge.script) \(key) check \(folder)/set") == 0)
            #expect(Judge.run("/usr/bin/python3 \(Judge.script) \(key) list \(folder)/set >/dev/null") == 0)
        }
    }
}
