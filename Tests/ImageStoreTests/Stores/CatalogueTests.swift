// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import TestSupport
import Testing

@testable import ImageStore

/// The list of objects for places that cannot list.
@Suite struct CatalogueTests {
    static let content = Sample.content(400_000, seed: 51)

    /// A set with a catalogue, in a store that refuses to list.
    static func served() throws -> (store: MemoryStore, point: String) {
        let store = MemoryStore()
        let (point, _) = try Sample.backup([(content, nil)], to: store)
        try Catalogue.write(to: store)
        store.interceptor = { operation throws(Fault) in
            if case .list = operation { throw Fault(.storeFailed, what: "405 Method Not Allowed", remedy: "") }
        }
        return (store, point.id)
    }

    @Test func aPlaceThatCannotListIsReadByItsCatalogue() throws {
        let (base, point) = try Self.served()
        let store = try CatalogueStore(base)
        #expect(throws: Fault.self) { try base.list("packs") }
        let reader = try SetReader(store)
        #expect(try reader.points().points.map(\.id) == [point])
        #expect(try Sample.restore(reader.point(point).streams[0]) == Self.content)
        #expect(try reader.verify(.full).isSound)
        #expect(try store.topLevelNames(limit: 3) == ["RELIGHT.txt", "copies", "packs"])
    }

    @Test func anOldCatalogueHidesWhatIsNewAndShowsNothingThatIsGone() throws {
        let (base, _) = try Self.served()
        base.interceptor = nil
        let before = try #require(try base.list("packs").first).name
        try Sample.backup([(Sample.content(200_000, seed: 52), nil)], to: base)
        try base.delete(before)
        let store = try CatalogueStore(base)
        let real = Set(try base.list("packs").map(\.name))
        let listed = Set(try store.list("packs").map(\.name))
        #expect(listed.isSubset(of: real))
        #expect(!listed.contains(before))
        #expect(listed.count < real.count)
        #expect(try store.list("points").count == 1)
        // Made again, it shows everything.
        try Catalogue.write(to: base)
        #expect(Set(try CatalogueStore(base).list("packs").map(\.name)) == real)
    }

    @Test func sizesAreThePlaces() throws {
        let (base, _) = try Self.served()
        base.interceptor = nil
        let name = try #require(try base.list("packs").first).name
        base.objects[name] = [1, 2, 3]
        #expect(try CatalogueStore(base).list("packs").first { $0.name == name }?.size == ByteCount(3))
    }

    @Test func theTextIsAsTheFormatSays() throws {
        let catalogue = Catalogue(
            setID: "000102030405060708090a0b0c0d0e0f",
            objects: [
                StoredObject(name: "set.a", size: ByteCount(128)),
                StoredObject(name: "packs/ab/x.pack", size: ByteCount(0)),
            ])
        let text = String(decoding: try catalogue.bytes(), as: UTF8.self).split(separator: "\n")
        #expect(
            text.dropLast() == [
                "relight catalogue 1 000102030405060708090a0b0c0d0e0f", "0 packs/ab/x.pack", "128 set.a",
            ])
        #expect(text.last?.hasPrefix("sha256 ") == true)
        #expect(try Catalogue(parsing: catalogue.bytes()) == catalogue)
        let empty = Catalogue(setID: catalogue.setID, objects: [])
        #expect(try Catalogue(parsing: empty.bytes()) == empty)
    }

    @Test(.enabled(if: Judge.run("sha256sum --version >/dev/null 2>&1") == 0, "needs sha256sum"))
    func sha256sumAgrees() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let catalogue = Catalogue(
            setID: "000102030405060708090a0b0c0d0e0f", objects: [StoredObject(name: "set.a", size: ByteCount(128))])
        ArchiveTests.put(try catalogue.bytes(), folder + "/catalogue")
        let lines = try #require(Judge.lines("cd \(folder) && head -n -1 catalogue | sha256sum; tail -n 1 catalogue"))
        #expect(lines.count == 2)
        #expect(lines[0].prefix(64) == lines[1].dropFirst(7))
    }

    @Test func linesThatAreNoneAreRefused() throws {
        let id = "000102030405060708090a0b0c0d0e0f"
        func sealed(_ text: String) throws -> [UInt8] {
            let hash = try Hasher256().hash(Array(text.utf8))
            return Array("\(text)sha256 \(hash.text)\n".utf8)
        }
        _ = try Catalogue(parsing: sealed("relight catalogue 1 \(id)\n1 a\n2 b\n"))
        for text in [
            "relight catalogue 1 \(id)\n2 b\n1 a\n", "relight catalogue 1 \(id)\n1 a\n1 a\n",
            "relight catalogue 1 \(id)\n1 ../a\n", "relight catalogue 1 \(id)\n1 /a\n",
            "relight catalogue 1 \(id)\n1 \n",
            "relight catalogue 1 \(id)\n01 a\n", "relight catalogue 1 \(id)\n-1 a\n", "relight catalogue 1 \(id)\n a\n",
            "relight catalogue 1 \(id)\n99999999999999999999 a\n", "relight catalogue 1 \(id)\n1 a\n\n",
            "relight catalogue 1 \(id)\n1 a b\n", "relight catalogue 1 \(id)\n1 ä\n", "relight catalogue 1 \(id)\n1 a",
            "relight catalogue 1 \(id.uppercased())\n", "relight catalogue 1\n", "catalogue\n", "\n", "",
        ] {
            let fault = #expect(throws: Fault.self, "\(text)") { try Catalogue(parsing: sealed(text)) }
            #expect(fault?.code == .setDamaged)
        }
        let version = #expect(throws: Fault.self) { try Catalogue(parsing: sealed("relight catalogue 2 \(id) more\n")) }
        #expect(version?.code == .setVersion)
    }

    @Test func theCatalogueOfAnotherSetIsRefused() throws {
        let (base, _) = try Self.served()
        let (other, _) = try Self.served()
        base.objects["catalogue"] = other.objects["catalogue"]
        let fault = #expect(throws: Fault.self) { try CatalogueStore(base) }
        #expect(fault?.code == .differentSets)
        base.objects["catalogue"] = nil
        let none = #expect(throws: Fault.self) { try CatalogueStore(base) }
        #expect(none?.code == .missing)
    }

    @Test func mutatedCataloguesAreRefused() throws {
        let (base, _) = try Self.served()
        let whole = try #require(base.objects["catalogue"])
        var random = Seeded(88)
        for round in 0..<5000 {
            let bytes = random.mutated(whole)
            guard bytes != whole else { continue }
            #expect(throws: Fault.self, "round \(round)") { try Catalogue(parsing: bytes) }
        }
    }

    @Test func mutatedCataloguesWithARightHashInventNothing() throws {
        let (base, _) = try Self.served()
        let whole = try #require(base.objects["catalogue"])
        let real = Set(base.objects.keys)
        var random = Seeded(89)
        var taken = 0
        for _ in 0..<3000 {
            let body = random.mutated(Array(whole.dropLast(72)))
            let hash = try Hasher256().hash(body)
            base.objects["catalogue"] = body + Array("sha256 \(hash.text)\n".utf8)
            guard let store = try? CatalogueStore(base) else { continue }
            taken += 1
            for folder in ["packs", "points", "copies"] {
                #expect(try real.isSuperset(of: store.list(folder).map(\.name)))
            }
        }
        #expect(taken > 100)
    }
}
