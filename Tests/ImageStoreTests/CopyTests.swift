// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import ImageStore

/// Copying from set to set.
@Suite struct CopyTests {
    static let first = Sample.content(900_000, seed: 51)
    /// Like the first, with all units of one frame changed and one of another.
    static let second: [UInt8] = {
        var content = first
        for index in stride(from: 200_000, to: 524_288, by: 1) { content[index] = UInt8(truncatingIfNeeded: index * 7) }
        return content
    }()
    static let used = ExtentList(Extent(from: ByteCount(4096), to: ByteCount(700_000)))
    static let secret = KeyRing(.passphrase(Secret(Array("one".utf8))))
    static let otherSecret = KeyRing(.passphrase(Secret(Array("two".utf8))))

    /// A set with three points: all of `first`, a part of `second`, `second` with another volume.
    static func source(
        encrypted: Bool = false, unit: ByteCount = .kibibytes(64)
    ) throws -> (store: MemoryStore, points: [PointSummary]) {
        let store = MemoryStore()
        var options = SetWriter.Options(packSize: .mebibytes(1), unitSize: unit)
        if encrypted { options.encryption = NewEncryption(cost: 10) }
        var points: [PointSummary] = []
        for (name, volumes) in [
            ("a", [(first, nil)]), ("b", [(second, used)]), ("c", [(second, nil), (Array(first[..<70_000]), nil)]),
        ] as [(String, [(content: [UInt8], used: ExtentList?)])] {
            points.append(
                try Sample.backup(
                    volumes, to: store, name: name, options: options, keys: encrypted ? secret : .none,
                    unreadable: name == "b" ? [Extent(from: ByteCount(8192), to: ByteCount(16_384))] : []
                ).0)
            options.encryption = nil
        }
        return (store, points)
    }

    static func expectEqual(
        _ source: SetReader, _ target: SetReader, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let (from, to) = (try source.points().points, try target.points().points)
        #expect(from.map(\.number) == to.map(\.number), sourceLocation: sourceLocation)
        for (one, other) in zip(from, to) {
            var facts = one.facts
            facts.origin = facts.origin ?? .init(set: source.setID, point: one.id)
            #expect(other.facts == facts, sourceLocation: sourceLocation)
            #expect(one.used == other.used && one.unreadable == other.unreadable, sourceLocation: sourceLocation)
            let (before, after) = (try source.point(one.id).streams, try target.point(other.id).streams)
            #expect(before.map(\.description) == after.map(\.description), sourceLocation: sourceLocation)
            #expect(before.map(\.unreadable) == after.map(\.unreadable), sourceLocation: sourceLocation)
            for (stream, copy) in zip(before, after) {
                #expect(try Sample.restore(stream) == Sample.restore(copy), sourceLocation: sourceLocation)
            }
        }
        #expect(try target.verify(.full).isSound, sourceLocation: sourceLocation)
    }

    enum Target: CaseIterable {
        case plain, smallUnits, encrypted, replica, withPoints
    }

    @Test(arguments: Target.allCases, [false, true])
    func everyPointIsCopiedAsItWas(_ kind: Target, encrypted: Bool) throws {
        let (store, points) = try Self.source(encrypted: encrypted)
        let objects = store.objects
        let source = try SetReader(store, keys: Self.secret)
        let target = MemoryStore()
        var options = SetCopy.Options()
        options.allowPlain = true
        switch kind {
        case .plain: break
        case .smallUnits:
            options.keepUnitSize = false
            options.writing.unitSize = .kibibytes(16)
        case .encrypted: options.writing.encryption = NewEncryption(cost: 10)
        case .replica: options.like = true
        case .withPoints:
            // What the target holds already is not copied; its own point stays.
            try Sample.backup([(Self.first, nil)], to: target, name: "own")
        }
        let report = try SetCopy.run(
            from: source, to: target, options: options, keys: Self.otherSecret, newKeys: Self.otherSecret)
        #expect(report.copied.map(\.source.id) == points.map(\.id))
        #expect(report.present.isEmpty && report.failed.isEmpty && report.findings.isEmpty)
        let isVerbatim = kind == .replica || (!encrypted && (kind == .plain || kind == .withPoints))
        #expect(report.copied.allSatisfy { $0.verbatim == isVerbatim })
        #expect(store.objects == objects, "the source is only read")

        let keys = kind == .replica ? Self.secret : Self.otherSecret
        let copy = try SetReader(target, keys: keys)
        #expect(copy.set.unitSize == (kind == .smallUnits ? 16_384 : 65_536))
        #expect(copy.isEncrypted == (kind == .encrypted || (kind == .replica && encrypted)))
        if kind == .replica { #expect(copy.set == source.set) }
        if kind == .withPoints {
            #expect(report.copied[0].statistics.new == .zero, "what the target holds is referred to")
            #expect(try copy.points().points.contains { $0.facts.name == "own" })
            let last = try #require(try copy.points().points.last)
            #expect(last.facts.name == "c")
        } else {
            try Self.expectEqual(source, copy)
        }

        // Done is done.
        let before = target.objects
        let again = try SetCopy.run(from: source, to: target, options: options, keys: keys)
        #expect(again.copied.isEmpty && again.present.map(\.id) == points.map(\.id))
        #expect(target.objects == before)
        // A new point is the only one that is copied next time.
        let (fourth, _) = try Sample.backup([(Self.first, Self.used)], to: store, name: "d", keys: Self.secret)
        let next = try SetCopy.run(
            from: SetReader(store, keys: Self.secret), to: target, options: options, keys: keys)
        #expect(next.copied.map(\.source.id) == [fourth.id])
        #expect(next.copied.first?.statistics.new == .zero)
    }

    @Test func recordsAreTakenOverAsTheyAre() throws {
        let (store, _) = try Self.source(encrypted: true)
        let target = MemoryStore()
        var options = SetCopy.Options()
        options.like = true
        _ = try SetCopy.run(from: SetReader(store, keys: Self.secret), to: target, options: options)
        func frames(_ store: MemoryStore) throws -> Set<[UInt8]> {
            let set = try #require(try SetAccess.look(at: store).header)
            var result: Set<[UInt8]> = []
            for name in store.objects.keys where name.hasPrefix("packs/") {
                let handle = try #require(try store.open(name))
                let id = try #require(ObjectName.id(name, suffix: ".pack"))
                let pack = try PackStructure.read(handle, name: name, id: id, set: set, hasher: Hasher256())
                for entry in pack.footer.entries where entry.record.kind == .frame {
                    result.insert(
                        try handle.bytes(at: ByteCount(UInt64(entry.offset)), count: entry.record.totalSize))
                }
            }
            return result
        }
        #expect(try frames(store) == frames(target))
        #expect(try !frames(store).isEmpty)
        #expect(
            store.objects.keys.filter { $0.contains("keys/") }.sorted()
                == target.objects.keys.filter { $0.contains("keys/") }.sorted())
        // Backups into both go on, each with nonces of its own.
        for place in [store, target] {
            try Sample.backup([(Self.used.isEmpty ? [] : Self.second, nil)], to: place, keys: Self.secret)
        }
        #expect(try SetReader(target, keys: Self.secret).verify(.full).isSound)
    }

    @Test(arguments: [false, true]) func aReplicaWhoseMakingWasInterruptedIsFinished(afterwards: Bool) throws {
        let (store, points) = try Self.source(encrypted: true)
        let source = try SetReader(store, keys: Self.secret)
        var options = SetCopy.Options()
        options.like = true
        options.threads = 1
        options.point = points[0].id
        // Announcement, two copies of the slot, two headers, a text: each is an upload that is written and sealed.
        for moment in 0..<16 {
            let target = MemoryStore()
            _ = try? SetCopy.run(
                from: source, to: FailingStore(target, failing: moment, afterwards: afterwards), options: options)
            let rerun = try SetCopy.run(from: source, to: target, options: options)
            #expect(rerun.copied.count + rerun.present.count == 1, "failure \(moment)")
            #expect(try SetReader(target, keys: Self.secret).verify(.full).isSound, "failure \(moment)")
        }
    }

    @Test func aReplicaIsOpenedByWhatOpensTheSourceNow() throws {
        let (store, _) = try Self.source(encrypted: true)
        let target = MemoryStore()
        var options = SetCopy.Options()
        options.like = true
        _ = try SetCopy.run(from: SetReader(store, keys: Self.secret), to: target, options: options)
        // The passphrase is changed at the source.
        let keyring = try SetKeyring(store, keys: Self.secret)
        let old = try #require(try keyring.slots().first)
        let new = try keyring.add(.passphrase(Secret(Array("two".utf8))), label: "new", time: 0, cost: 10)
        try keyring.remove(old.id)
        let source = try SetReader(store, keys: Self.otherSecret)
        #expect(throws: Fault.self) { try SetReader(target, keys: Self.otherSecret) }
        // Without --like the target's keys are its own.
        options.like = false
        _ = try SetCopy.run(from: source, to: target, options: options)
        #expect(throws: Fault.self) { try SetReader(target, keys: Self.otherSecret) }
        options.like = true
        let found = Mutex<[Finding]>([])
        _ = try SetCopy.run(from: source, to: target, options: options) { event in
            if case .finding(let finding) = event { found.withLock { $0.append(finding) } }
        }
        #expect(try SetReader(target, keys: Self.otherSecret).points().points.count == 3)
        #expect(try SetReader(target, keys: Self.secret).isOpen)
        #expect(target.objects["keys/\(new).key"] == store.objects["keys/\(new).key"])
        #expect(target.objects["copies/keys/\(new).key"] == store.objects["copies/keys/\(new).key"])
        #expect(found.withLock { $0 }.map(\.code) == ["key.replica-only"])
        #expect(found.withLock { $0 }.first?.what.contains(old.id.prefix(8)) == true)
    }

    @Test func aCopyWhosePacksAreMissingIsMadeAnew() throws {
        let (store, points) = try Self.source()
        let source = try SetReader(store)
        let target = MemoryStore()
        var options = SetCopy.Options()
        _ = try SetCopy.run(from: source, to: target, options: options)
        let copies = try SetReader(target).points().points
        // The pack of frames that the first copy brought; all points need something of it.
        let pack = try #require(
            target.objects.filter { $0.key.hasPrefix("packs/") }.max { $0.value.count < $1.value.count }?.key)
        target.objects[pack] = nil
        let found = Mutex<[Finding]>([])
        let report = try SetCopy.run(from: source, to: target, options: options) { event in
            if case .finding(let finding) = event { found.withLock { $0.append(finding) } }
        }
        let broken = found.withLock { $0 }.filter { $0.code == "set.damaged-pack" && $0.severity == .warning }
        #expect(!broken.isEmpty && broken.allSatisfy { $0.what.contains(pack) })
        #expect(report.copied.count == broken.count && report.copied.count + report.present.count == 3)
        let keeper = try SetKeeper(target)
        try keeper.forget(
            keeper.plan(
                nil, named: copies.map(\.id).filter { id in broken.contains { $0.what.contains(id.prefix(10)) } }))
        #expect(try SetReader(target).verify(.full).isSound)
        #expect(Set(try SetReader(target).points().points.compactMap(\.facts.origin?.point)) == Set(points.map(\.id)))
        options.point = points[0].id
        #expect(try SetCopy.run(from: source, to: target, options: options).present.count == 1)
    }

    /// A set of points with these times.
    static func timed(_ times: [UInt64], seed: UInt64) throws -> MemoryStore {
        let store = MemoryStore()
        for (index, time) in times.enumerated() {
            let writer = try SetWriter(store)
            try Sample.fill(writer, [(Sample.content(70_000, seed: seed + UInt64(index)), nil)])
            _ = try writer.commit(Sample.facts("\(seed)", time: time))
        }
        return store
    }

    @Test func theLatestOfCopiesOfTwoSetsIsTheNewest() throws {
        // Points 1 to 4 of one set, and 1 and 2 of a newer one of the same machine, in any order and in steps.
        let old = try Self.timed([100, 200, 300, 450], seed: 500)
        let new = try Self.timed([400, 500], seed: 600)
        let sources = [try SetReader(old), try SetReader(new)]
        for order in [[0, 1], [1, 0]] {
            for single in [false, true] {
                let target = MemoryStore()
                for index in order {
                    var options = SetCopy.Options()
                    for point in try sources[index].points().points {
                        options.point = single ? point.id : nil
                        _ = try SetCopy.run(from: sources[index], to: target, options: options)
                    }
                }
                let points = try SetReader(target).points().points
                #expect(points.map(\.facts.time) == [100, 200, 300, 400, 450, 500], "\(order) \(single)")
                #expect(try SetReader(target).point().summary.facts.time == 500)
                // Nor does retention take their order for wrong clocks.
                #expect(RetentionPlan.implausible(points, now: 1000).isEmpty)
            }
        }
    }

    @Test func aCopysNumberStaysWhereItIsInOrder() {
        func summary(_ number: UInt64, _ time: UInt64, _ set: String) -> PointSummary {
            var facts = Sample.facts("x", time: time)
            facts.origin = .init(set: set, point: "\(number)")
            return PointSummary(
                id: "\(set)\(number)\(time)", number: number, facts: facts, used: .zero, unreadable: .zero)
        }
        func choose(_ number: UInt64, _ time: UInt64, _ present: [PointSummary]) -> UInt64 {
            CopyNumber.choose(
                for: summary(number, time, "a"), of: .init(set: "a", point: "\(number)"), among: present, now: 1000)
        }
        #expect(choose(7, 10, []) == 7)
        // A replica keeps the order of its source, wrong clocks too.
        #expect(choose(7, 10, [summary(5, 300, "a"), summary(6, 400, "a")]) == 7)
        #expect(choose(3, 10, [summary(5, 300, "a")]) == 3)
        let others = [summary(4, 200, "b"), summary(5, 300, "b"), summary(9, 2000, "b")]
        #expect(choose(4, 250, others) == 4)
        #expect(choose(1, 250, others) == 5)
        #expect(choose(8, 250, others) == 5)
        // A point whose date lies in the future has no say but for its number.
        #expect(choose(1, 600, others) == 10)
        #expect(choose(12, 600, others) == 12)
        #expect(choose(1, 600, [summary(.max, 500, "b")]) == .max)
    }

    @Test func onePointIsCopiedAndACopyGoesHomeOnce() throws {
        let (store, points) = try Self.source()
        let target = MemoryStore()
        var options = SetCopy.Options()
        options.point = String(points[1].id.prefix(8))
        let report = try SetCopy.run(from: SetReader(store), to: target, options: options)
        #expect(report.copied.map(\.copy.number) == [2])
        // Into a third set: the copy names the first point, and is known there.
        let third = MemoryStore()
        _ = try SetCopy.run(from: SetReader(target), to: third, options: SetCopy.Options())
        let all = try SetCopy.run(from: SetReader(store), to: third, options: SetCopy.Options())
        #expect(all.present.map(\.id) == [points[1].id] && all.copied.count == 2)
        let home = try SetCopy.run(from: SetReader(third), to: store, options: SetCopy.Options())
        #expect(home.copied.isEmpty && home.present.count == 3)
    }

    @Test func whatWouldBeWrongIsRefused() throws {
        let (plain, _) = try Self.source()
        let (encrypted, _) = try Self.source(encrypted: true)
        let source = try SetReader(encrypted, keys: Self.secret)
        func fault(_ target: MemoryStore, _ change: (inout SetCopy.Options) -> Void = { _ in }) -> FaultCode? {
            var options = SetCopy.Options()
            change(&options)
            let before = target.objects
            let fault = #expect(throws: Fault.self) {
                try SetCopy.run(from: source, to: target, options: options, keys: Self.secret)
            }
            #expect(target.objects == before)
            return fault?.code
        }
        #expect(fault(MemoryStore()) == .unsupported)
        #expect(fault(plain) == .unsupported)
        #expect(fault(plain) { $0.like = true } == .differentSets)
        #expect(
            fault(plain) {
                $0.allowPlain = true; $0.writing.encryption = NewEncryption(cost: 10)
            } == .unsupported)
        #expect(fault(encrypted) == .usage)
        #expect(
            fault(MemoryStore()) {
                $0.point = "ffffffffffff"; $0.like = true
            } == .noSuchPoint)
    }

    @Test func damageCostsOnlyThePointsThatNeedIt() throws {
        let (store, points) = try Self.source()
        // A frame that only the first point needs: one with the bytes that changed.
        let reader = try SetReader(store)
        let unit = try Hasher256().id(Array(Self.first[262_144..<327_680]))
        let set = reader.set
        for name in store.objects.keys where name.hasPrefix("packs/") {
            let handle = try #require(try store.open(name))
            let id = try #require(ObjectName.id(name, suffix: ".pack"))
            let pack = try PackStructure.read(handle, name: name, id: id, set: set, hasher: Hasher256())
            for entry in pack.footer.entries where entry.record.ids.contains(unit) {
                store.objects[name]?[entry.offset + entry.record.headSize + 20] ^= 1
            }
        }
        let target = MemoryStore()
        let report = try SetCopy.run(from: SetReader(store), to: target, options: SetCopy.Options())
        #expect(report.failed.map(\.point.id) == [points[0].id])
        #expect(report.failed.first?.fault.code == .setDamaged)
        #expect(report.copied.map(\.source.id) == [points[1].id, points[2].id])
        #expect(try SetReader(target).verify(.full).isSound)
        var options = SetCopy.Options()
        options.point = points[0].id
        let fault = #expect(throws: Fault.self) {
            try SetCopy.run(from: SetReader(store), to: target, options: options)
        }
        #expect(fault?.code == .setDamaged)
    }

    @Test(arguments: [false, true]) func anUnreadableSectorCostsOnlyThePointsThatNeedIt(encrypted: Bool) throws {
        var kept = KeptSet()
        try kept.backup(Sample.content(700_000, seed: 91))
        let bad = try #require(
            SpanStoreTests.packs(kept.store).max {
                kept.store.objects[$0]?.count ?? 0 < kept.store.objects[$1]?.count ?? 0
            })
        try kept.backup(Sample.content(700_000, seed: 92))
        let source = try SetReader(kept.store)
        kept.store.interceptor = { operation throws(Fault) in
            if case .read(bad, _, _) = operation { throw Fault(.storeFailed, what: "Input/output error.", remedy: "") }
        }
        var options = SetCopy.Options()
        if encrypted { options.writing.encryption = NewEncryption(cost: 10) }
        let target = MemoryStore()
        let report = try SetCopy.run(
            from: source, to: target, options: options, keys: Self.secret, newKeys: Self.secret)
        #expect(report.failed.map(\.point.id) == [kept.ids[0]])
        #expect(report.failed.first?.fault.code == .storeFailed)
        #expect(report.copied.map(\.source.id) == [kept.ids[1]])
        // A target that fails ends it.
        let failing = FailingStore(MemoryStore(), failing: 13)
        let fault = #expect(throws: Fault.self) {
            try SetCopy.run(from: source, to: failing, options: options, keys: Self.secret, newKeys: Self.secret)
        }
        #expect(fault?.what == "The medium is gone.")
    }

    @Test func recordsThatWereMovedAreFound() throws {
        var kept = KeptSet()
        for seed in [81, 82, 83] as [UInt64] {
            try kept.backup(Sample.content(700_000, seed: seed) + Sample.content(700_000, seed: 84))
        }
        try kept.forget([kept.ids[0], kept.ids[1]])
        #expect(try kept.prune().moved > .zero)
        let source = try SetReader(kept.store)
        let target = MemoryStore()
        _ = try SetCopy.run(from: source, to: target, options: SetCopy.Options())
        try Self.expectEqual(source, SetReader(target))
        #expect(!target.objects.keys.contains { $0.hasPrefix("moves/") })
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let report = try PointArchive.write(source.point(), to: folder + "/a.tar", options: .init(time: 0))
        let archive = try SetReader(ArchiveStore(folder + "/a.tar"))
        #expect(
            try Sample.restore(archive.point(report.point.id).streams[0])
                == Sample.restore(source.point().streams[0]))
    }

    @Test func bothSetsMayLieInSeveralPlaces() throws {
        let (store, points) = try Self.source()
        let places = [MemoryStore(), MemoryStore()]
        let span = try SpanStore(places)
        _ = try SetCopy.run(from: SetReader(store), to: span, options: SetCopy.Options())
        try Self.expectEqual(SetReader(store), SetReader(span))
        for place in places { #expect(try SetReader(place).points().points.count == points.count) }
        let back = MemoryStore()
        _ = try SetCopy.run(from: SetReader(span), to: back, options: SetCopy.Options())
        try Self.expectEqual(SetReader(store), SetReader(back))
        let fault = #expect(throws: Fault.self) {
            try SetCopy.run(from: SetReader(span), to: places[1], options: SetCopy.Options())
        }
        #expect(fault?.code == .usage)
    }

    @Test(arguments: [false, true], [false, true])
    func aFailureAtAnyMomentHarmsNothing(encrypted: Bool, afterwards: Bool) throws {
        let (store, points) = try Self.source(encrypted: encrypted)
        let objects = store.objects
        let source = try SetReader(store, keys: Self.secret)
        let start = MemoryStore()
        var options = SetCopy.Options()
        options.like = true
        options.threads = 1
        options.point = points[0].id
        _ = try SetCopy.run(from: source, to: start, options: options)
        options.point = nil
        let whole = FailingStore(MemoryStore(objects: start.objects))
        _ = try SetCopy.run(from: source, to: whole, options: options)
        let changes = whole.changes.load(ordering: .relaxed)
        #expect(changes > 20)
        for moment in 0..<changes {
            let base = MemoryStore(objects: start.objects)
            let failing = FailingStore(base, failing: moment, afterwards: afterwards)
            _ = try? SetCopy.run(from: source, to: failing, options: options)
            // Whatever points there are are whole; the one that was there is.
            let reader = try SetReader(base, keys: Self.secret)
            let found = try reader.points().points
            #expect(found.first?.facts.origin?.point == points[0].id, "failure \(moment)")
            for point in found {
                let origin = try source.point(try #require(point.facts.origin).point)
                for (one, other) in zip(origin.streams, try reader.point(point.id).streams) {
                    #expect(try Sample.restore(one) == Sample.restore(other), "failure \(moment)")
                }
            }
            let rerun = try SetCopy.run(from: source, to: base, options: options)
            #expect(rerun.copied.count + rerun.present.count == 3, "failure \(moment)")
            let end = try SetReader(base, keys: Self.secret)
            #expect(try end.points().points.count == 3, "failure \(moment)")
            #expect(try end.verify(.full).isComplete, "failure \(moment)")
        }
        #expect(store.objects == objects)
    }
}
