// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Testing

@testable import ImageStore

/// Files with other names than objects have are ignored, wherever they lie.
@Suite struct ObjectNameTests {
    @Test func idsAreReadFromTheNamesOfObjectsOnly() {
        let id = ObjectID(high: 0xAB00_0000_0000_0000, low: 1)
        let names = [
            (".pack", ObjectName.pack(id)), (".point", ObjectName.point(id)), (".key", ObjectName.key(id)),
            (".moves", ObjectName.moves(id)), (".gone", ObjectName.tombstone(id)),
        ]
        for (suffix, name) in names {
            #expect(ObjectName.id(name, suffix: suffix) == id)
            #expect((ObjectName.id(ObjectName.copy(of: name), suffix: suffix) == id) == (suffix != ".gone"))
            let file = "\(id.text)\(suffix)"
            for other in [
                file, "points/old/\(file)", "packs/\(file)", "packs/00/\(file)", "packs/ab/old/\(file)",
                "keys/old/\(file)",
                "copies/\(file)", "copies/copies/\(name)", "x\(name)", "\(name)~",
            ] where other != name {
                #expect(ObjectName.id(other, suffix: suffix) == nil, "\(other)")
            }
        }
    }

    @Test func filesKeptInFoldersBelowAreNoObjects() throws {
        let store = try EncryptionTests.set()
        let before = store.objects
        for (name, bytes) in before where name.split(separator: "/").count > 1 {
            var parts = name.split(separator: "/").map(String.init)
            // Under another id, as an older version that a synchronising program keeps would have.
            let last = parts.removeLast()
            let other = last.first == "f" ? "e" : "f"
            store.objects["\(parts.joined(separator: "/"))/old/\(other)\(last.dropFirst())"] = bytes
        }
        let reader = try SetReader(store, keys: EncryptionTests.ring("right"))
        #expect(try reader.points().findings.isEmpty)
        #expect(try reader.verify(.full).isSound)
        #expect(try SetRepair(reader).plan().items.isEmpty)
    }
}
