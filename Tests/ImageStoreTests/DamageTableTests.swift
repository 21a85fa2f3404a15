// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Testing

@testable import ImageStore

/// The tables of ``DamageTests`` for sets of every make: encrypted and protected ones, and ones whose records were moved.
/// Samples, or with `RELIGHT_TESTS=full` every byte and every length.
@Suite struct DamageTableTests {
    enum Make: String, CaseIterable, CustomTestStringConvertible, Sendable {
        case encrypted, protected, both
        var testDescription: String { rawValue }

        func tiny() throws -> DamageTests.Tiny {
            try DamageTests.tiny(
                encryption: self == .protected ? nil : NewEncryption(self == .both ? .aes128 : .aes256, cost: 10),
                parity: self == .encrypted ? 0 : 5, keys: self == .protected ? .none : EncryptionTests.ring("secret"))
        }
    }

    /// Every object of a set, with its number as where to begin sampling.
    static func each(_ tiny: DamageTests.Tiny, _ body: (Int, String, [UInt8]) throws -> Void) rethrows {
        for (number, object) in tiny.objects.sorted(by: { $0.key < $1.key }).enumerated() {
            try body(number * 5, object.key, object.value)
        }
    }

    @Test(arguments: Make.allCases) func flippedBytesAreFoundAndNeverRestoredWrong(make: Make) throws {
        let tiny = try make.tiny()
        try Self.each(tiny) { start, name, bytes in
            for offset in Thoroughness.places(below: bytes.count, step: 37, start: start) {
                var objects = tiny.objects
                objects[name]?[offset] ^= UInt8(1) << UInt8(offset % 8)
                DamageTests.expectFound(tiny, objects, "turning a bit of byte \(offset) of \(name)")
                if make != .encrypted { try Self.expectRepaired(tiny, objects, name) }
            }
        }
    }

    @Test(arguments: Make.allCases) func truncationsAreFoundAndNeverRestoredWrong(make: Make) throws {
        let tiny = try make.tiny()
        Self.each(tiny) { start, name, bytes in
            for length in Thoroughness.places(below: bytes.count, step: 67, start: start) {
                var objects = tiny.objects
                objects[name] = Array(bytes[..<length])
                DamageTests.expectFound(tiny, objects, "cutting \(name) at \(length)")
            }
        }
    }

    @Test(arguments: Make.allCases) func missingFilesAreFound(make: Make) throws {
        let tiny = try make.tiny()
        Self.each(tiny) { _, name, _ in
            var objects = tiny.objects
            objects[name] = nil
            DamageTests.expectFound(tiny, objects, "removing \(name)")
        }
    }

    @Test(arguments: Make.allCases) func filesThatChangedPlacesAreFound(make: Make) throws {
        let tiny = try make.tiny()
        let names = tiny.objects.keys.sorted()
        for first in names {
            for second in names where first < second && tiny.objects[first] != tiny.objects[second] {
                var objects = tiny.objects
                objects[first] = tiny.objects[second]
                objects[second] = tiny.objects[first]
                DamageTests.expectFound(tiny, objects, "exchanging \(first) and \(second)")
            }
        }
    }

    /// What lies in the same place in a set made from the same data at another time, under the right name.
    @Test(arguments: Make.allCases) func filesOfAnOlderSetAreFound(make: Make) throws {
        let tiny = try make.tiny()
        let older = try make.tiny()
        func kind(_ name: String) -> Substring { name.hasPrefix("set.") ? "set" : name.prefix { $0 != "/" } }
        Self.each(tiny) { _, name, bytes in
            for (other, replacement) in older.objects.sorted(by: { $0.key < $1.key })
            where kind(other) == kind(name) && replacement != bytes {
                var objects = tiny.objects
                objects[name] = replacement
                DamageTests.expectFound(tiny, objects, "putting an older \(other) in the place of \(name)")
            }
        }
    }

    /// A set as it was before its last point, with the newest of one kind of file.
    @Test func aSetHalfPutBackToAnOlderStateIsFound() throws {
        let tiny = try DamageTests.tiny()
        let store = MemoryStore(objects: tiny.objects)
        let (third, _) = try Sample.backup([(Sample.content(200_000, seed: 77), nil)], to: store, name: "three")
        var objects = tiny.objects
        for name in store.objects.keys where name.contains("points/") { objects[name] = store.objects[name] }
        let reader = try SetReader(MemoryStore(objects: objects))
        let report = try reader.verify(.full, threads: 1)
        #expect(!report.isComplete)
        #expect(report.damages.flatMap(\.losses).allSatisfy { $0.point == third.id })
        for (id, content) in zip(tiny.points, [tiny.contents[0], tiny.contents[2]]) {
            #expect(try Sample.restore(reader.point(id).streams[0]) == content)
        }
        #expect(throws: Fault.self) { try Sample.restore(reader.point(third.id).streams[0]) }
    }

    /// A pack with these records, all its checks and hashes right.
    static func pack(like pack: [UInt8], records: [[UInt8]]) throws -> [UInt8] {
        let hasher = try Hasher256()
        var bytes = Array(pack[..<PackHeader.size])
        var entries: [UInt8] = []
        for record in records {
            let head = RecordHeader.fixedSize + Int(record[7]) * UnitID.size
            entries += PackFooter.entry(offset: bytes.count, head: Array(record[..<head]))
            bytes += record
        }
        let end = bytes.count
        // A segment's hash is that of the hashes of its pieces of 64 KiB.
        let segments = try stride(from: 0, to: end, by: PackFooter.segmentSize).map { start in
            let segment = Array(bytes[start..<min(start + PackFooter.segmentSize, end)])
            return try hasher.hash(
                stride(from: 0, to: segment.count, by: 65_536).flatMap {
                    try hasher.hash(Array(segment[$0..<min($0 + 65_536, segment.count)])).bytes
                })
        }
        let (footer, _) = try PackFooter.bytes(
            records: records.count, entries: entries, recordsEnd: end, offset: end, segments: segments, hasher: hasher)
        return bytes + footer
    }

    /// The records of a sound pack, with their padding.
    static func records(_ pack: [UInt8]) throws -> [[UInt8]] {
        let trailer = try HostileTests.trailer(pack)
        let footer = Array(pack[trailer.offset..<trailer.offset + trailer.length])
        let unit = try unsafe PackHeader(Array(pack[..<PackHeader.size]).span.bytes).set.unitSize
        return try unsafe PackFooter(footer.span.bytes, trailer: trailer, unitSize: unit).entries.map {
            Array(pack[$0.offset..<$0.offset + $0.record.totalSize])
        }
    }

    @Test(arguments: [false, true]) func recordsMovedWithoutAWordAreFoundAndNeverReadAsOthers(encrypted: Bool) throws {
        let keys = encrypted ? EncryptionTests.ring("secret") : .none
        let tiny = try DamageTests.tiny(encryption: encrypted ? NewEncryption(cost: 10) : nil, keys: keys)
        let packs = tiny.objects.keys.filter { $0.hasPrefix("packs/") }.sorted()
        func sound(_ name: String) throws -> [UInt8] { try #require(tiny.objects[name]) }
        var tried = 0
        for name in packs {
            let bytes = try sound(name)
            let all = try Self.records(bytes)
            #expect(try Self.pack(like: bytes, records: all) == bytes)
            var objects = tiny.objects
            // The other way round, one left out, one twice.
            for records in [Array(all.reversed()), Array(all.dropFirst()), all + all.prefix(1), Array(all.dropLast())]
            where records != all {
                objects[name] = try Self.pack(like: bytes, records: records)
                DamageTests.expectFound(tiny, objects, "writing other records into \(name)")
                tried += 1
            }
            // Into another pack of its kind.
            for other in packs where other != name {
                let target = try sound(other)
                guard target[10] == bytes[10], let moved = all.first else { continue }
                objects = tiny.objects
                objects[name] = try Self.pack(like: bytes, records: Array(all.dropFirst()))
                objects[other] = try Self.pack(like: target, records: Self.records(target) + [moved])
                DamageTests.expectFound(tiny, objects, "moving a record of \(name) to \(other)")
                tried += 1
            }
        }
        #expect(tried >= 6)
    }

    /// A protected set is again what it was, byte for byte; a missing pack without a second copy is beyond that.
    static func expectRepaired(_ tiny: DamageTests.Tiny, _ objects: [String: [UInt8]], _ name: String) throws {
        let store = MemoryStore(objects: objects)
        do throws(Fault) {
            let repair = SetRepair(try SetReader(store, keys: tiny.keys))
            let report = try repair.apply(repair.plan())
            if report.repaired != 1 || store.objects != tiny.objects {
                Issue.record("\(name) is not repaired: \(report.items)")
            }
        } catch { Issue.record("repairing \(name) ends with \(error)") }
    }
}
