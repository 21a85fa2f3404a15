// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import ImageStore
import Testing

/// One damage after the other is done to a tiny set; each time the set must either give back exactly what was stored,
/// or say what is wrong, and verification must have found it.
@Suite struct DamageTests {
    struct Tiny {
        var objects: [String: [UInt8]]
        var contents: [[UInt8]]
        var points: [String]
        var keys = KeyRing.none
    }

    /// Two points of two small volumes each, with units of 16 KiB; the second point shares most of the first.
    static func tiny(
        encryption: NewEncryption? = nil, parity: Int = 0, keys: KeyRing = .none
    ) throws -> Tiny {
        let store = MemoryStore()
        let options = SetWriter.Options(unitSize: .kibibytes(16), encryption: encryption, parity: parity)
        // Mostly text that compresses well, so that all of the set's bytes can be tried; and some that does not.
        var volume = (0..<40_000).map { UInt8(97 + $0 % 23) } + Sample.content(100, seed: 11)
        let other = [UInt8](repeating: 0, count: 3_000) + Array("a small volume".utf8)
        let (first, _) = try Sample.backup(
            [(volume, nil), (other, nil)], to: store, name: "one", options: options, keys: keys)
        let before = volume
        volume[100] ^= 1
        let (second, _) = try Sample.backup(
            [(volume, nil), (other, nil)], to: store, name: "two", options: options, keys: keys)
        var objects = store.objects
        // Nothing reads the text for people.
        objects["RELIGHT.txt"] = nil
        return Tiny(
            objects: objects, contents: [before, other, volume, other], points: [first.id, second.id], keys: keys)
    }

    /// What became of a damaged set: nil when everything came back, else the first error. Wrong data is an issue.
    static func outcome(_ tiny: Tiny, _ objects: [String: [UInt8]], _ what: @autoclosure () -> String) -> Fault? {
        var problem: Fault?
        var results: [[UInt8]?] = [nil, nil, nil, nil]
        do throws(Fault) {
            let reader = try SetReader(MemoryStore(objects: objects), keys: tiny.keys)
            for (number, id) in tiny.points.enumerated() {
                do throws(Fault) {
                    let point = try reader.point(id)
                    for (index, stream) in point.streams.enumerated() {
                        do throws(Fault) {
                            results[number * 2 + index] = try Sample.restore(stream)
                        } catch { problem = problem ?? error }
                    }
                } catch { problem = problem ?? error }
            }
        } catch { problem = error }
        for (result, content) in zip(results, tiny.contents) {
            if let result, result != content { Issue.record("wrong data came back after \(what())") }
            if result == nil, problem == nil { Issue.record("nothing came back, and no error, after \(what())") }
        }
        return problem
    }

    static func expectFound(_ tiny: Tiny, _ objects: [String: [UInt8]], _ what: @autoclosure () -> String) {
        let problem = outcome(tiny, objects, what())
        do throws(Fault) {
            let report = try SetReader(MemoryStore(objects: objects), keys: tiny.keys).verify(.full, threads: 1)
            if report.isSound {
                Issue.record("verification finds nothing after \(what()); restoring: \(String(describing: problem))")
            }
            if problem != nil, report.isComplete, report.points.count == 2 {
                Issue.record(
                    "verification says nothing is lost after \(what()); restoring: \(String(describing: problem))")
            }
            if problem == nil, !report.isComplete {
                Issue.record("verification says data is lost after \(what()), but all came back: \(report.damages)")
            }
        } catch {
            // A set whose header cannot be read at all is refused as a whole.
            if problem == nil { Issue.record("verification fails after \(what()), but restoring works: \(error)") }
        }
    }

    @Test func everyFlippedByteIsFoundAndNeverRestoredWrong() throws {
        let tiny = try Self.tiny()
        for (start, (name, bytes)) in tiny.objects.sorted(by: { $0.key < $1.key }).enumerated() {
            for offset in Thoroughness.places(below: bytes.count, step: 7, start: start) {
                var objects = tiny.objects
                objects[name]?[offset] ^= UInt8(1) << UInt8(offset % 8)
                Self.expectFound(tiny, objects, "turning a bit of byte \(offset) of \(name)")
            }
        }
    }

    @Test func everyTruncationIsFoundAndNeverRestoredWrong() throws {
        let tiny = try Self.tiny()
        for (start, (name, bytes)) in tiny.objects.sorted(by: { $0.key < $1.key }).enumerated() {
            for length in Thoroughness.places(below: bytes.count, step: 7, start: start) {
                var objects = tiny.objects
                objects[name] = Array(bytes[..<length])
                Self.expectFound(tiny, objects, "cutting \(name) at \(length)")
            }
        }
    }

    @Test func everyMissingFileIsFound() throws {
        let tiny = try Self.tiny()
        for name in tiny.objects.keys.sorted() {
            var objects = tiny.objects
            objects[name] = nil
            Self.expectFound(tiny, objects, "removing \(name)")
        }
    }

    @Test func filesThatChangedPlacesAreFound() throws {
        let tiny = try Self.tiny()
        let names = tiny.objects.keys.sorted()
        for first in names {
            for second in names where first < second && tiny.objects[first] != tiny.objects[second] {
                var objects = tiny.objects
                objects[first] = tiny.objects[second]
                objects[second] = tiny.objects[first]
                Self.expectFound(tiny, objects, "exchanging \(first) and \(second)")
            }
        }
    }

    @Test func appendedBytesAreFound() throws {
        let tiny = try Self.tiny()
        for name in tiny.objects.keys.sorted() {
            var objects = tiny.objects
            objects[name]? += [UInt8](repeating: 0, count: 64)
            Self.expectFound(tiny, objects, "appending to \(name)")
        }
    }

    @Test func aDamagedFrameCostsItsUnitsOnlyAndIsNamed() throws {
        let store = MemoryStore()
        let content = (0..<40).flatMap { Sample.content(65_536, seed: 100 + UInt64($0)) }
        try Sample.backup([(content, nil)], to: store)
        let pack = try #require(
            store.objects.keys.filter { $0.hasPrefix("packs/") }.max {
                store.objects[$0]?.count ?? 0 < store.objects[$1]?.count ?? 0
            })
        let middle = (store.objects[pack]?.count ?? 0) / 2
        store.objects[pack]?[middle] ^= 1
        let reader = try SetReader(store)
        let report = try reader.verify(.full)
        #expect(report.damages.count == 1)
        let damage = try #require(report.damages.first)
        #expect(damage.file == pack)
        let lost = try #require(damage.losses.first?.extents)
        #expect(lost.byteCount <= .kibibytes(256))
        #expect(damage.losses.first?.kind == .volume(1))
        let stream = try reader.point().streams[0]
        let decoder = try PieceDecoder(stream.point)
        let cursor = try stream.pieces()
        var missing = ExtentList()
        var result = content
        while let piece = cursor.next() {
            do throws(Fault) {
                try decoder.decode(piece) { bytes in
                    result.replaceSubrange(
                        Sample.range(piece.extent), with: unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) })
                }
            } catch {
                #expect(error.code == .setDamaged)
                #expect(error.place.hasSuffix(pack))
                #expect(error.extent?.start == damage.offset)
                for extent in piece.used.extents { missing.append(extent) }
            }
        }
        #expect(missing == lost)
        #expect(result == content)
    }

    @Test func aSetWithoutItsHeadersIsStillRead() throws {
        var tiny = try Self.tiny()
        tiny.objects["set.a"] = nil
        tiny.objects["set.b"] = nil
        #expect(Self.outcome(tiny, tiny.objects, "removing both headers") == nil)
        let report = try SetReader(MemoryStore(objects: tiny.objects)).verify(.full)
        #expect(report.damages.map(\.file) == ["set.a", "set.b"])
        #expect(report.isComplete)
    }

    @Test func aWriterMendsLostHeaders() throws {
        var tiny = try Self.tiny()
        let header = tiny.objects["set.a"]
        tiny.objects["set.a"] = [1, 2, 3]
        tiny.objects["set.b"] = nil
        let store = MemoryStore(objects: tiny.objects)
        try Sample.backup([([1, 2, 3], nil)], to: store)
        #expect(store.objects["set.a"] == header)
        #expect(store.objects["set.b"] == header)
    }

    @Test func aWriterPutsMissingCopiesBack() throws {
        let tiny = try Self.tiny()
        let lost =
            tiny.objects.keys.filter { $0.hasPrefix("copies/") } + tiny.objects.keys.filter { $0.hasPrefix("points/") }
        #expect(lost.count == 6)
        for name in lost {
            let store = MemoryStore(objects: tiny.objects)
            store.objects[name] = nil
            #expect(try !SetReader(store).verify(.quick).isSound)
            try SetWriter(store).abandon()
            #expect(store.objects[name] == tiny.objects[name])
            #expect(try SetReader(store).verify(.full).isSound)
        }
    }

    @Test func quickVerificationFindsWhatIsMissing() throws {
        let tiny = try Self.tiny()
        for name in tiny.objects.keys.sorted() {
            var objects = tiny.objects
            objects[name] = nil
            #expect(try !SetReader(MemoryStore(objects: objects)).verify(.quick).isSound, "\(name)")
        }
        #expect(try SetReader(MemoryStore(objects: tiny.objects)).verify(.quick).isSound)
        #expect(try SetReader(MemoryStore(objects: tiny.objects)).verify(.full).isSound)
    }

    @Test func verifyingOnePointLeavesOthersAlone() throws {
        let tiny = try Self.tiny()
        let report = try SetReader(MemoryStore(objects: tiny.objects)).verify(
            .full, points: [String(tiny.points[1].prefix(6))])
        #expect(report.points.map(\.id) == [tiny.points[1]])
        #expect(report.isSound)
    }
}
