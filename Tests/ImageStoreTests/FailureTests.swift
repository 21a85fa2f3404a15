// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import ImageStore

/// Media that fail, fill up or lie, and programs that are interrupted.
@Suite struct FailureTests {
    static let content = Sample.content(600_000, seed: 21)
    static let other = Sample.content(500_000, seed: 22)

    @Test(arguments: [false, true]) func aFailureAtAnyMomentHarmsNoFinishedPoint(afterwards: Bool) throws {
        let before = MemoryStore()
        let (first, _) = try Sample.backup([(Self.content, nil)], to: before, name: "first")
        let whole = FailingStore(MemoryStore(objects: before.objects))
        try Sample.backup([(Self.other, nil)], to: whole, name: "second")
        // The last call ends the announcement of the writer, which need not succeed.
        let changes = whole.changes.load(ordering: .relaxed) - 1
        #expect(changes >= 10)
        for moment in 0..<changes {
            let base = MemoryStore(objects: before.objects)
            let failing = FailingStore(base, failing: moment, afterwards: afterwards)
            if moment >= changes - 2 {
                // The point's second copy is the last that is written: without it the point exists all the same, and the
                // next writer puts the copy there.
                let writer = try SetWriter(failing)
                try Sample.fill(writer, [(Self.other, nil)])
                _ = try writer.commit(Sample.facts("second"))
                // A copy that is there although its making was reported as failed is none that is lost.
                let codes = writer.findings.map(\.code)
                #expect(codes == ["set.lost-copy"] || afterwards && codes.isEmpty, "failure \(moment)")
            } else {
                #expect(throws: Fault.self, "failure \(moment)") {
                    try Sample.backup([(Self.other, nil)], to: failing, name: "second")
                }
            }
            let reader = try SetReader(base)
            #expect(try Sample.restore(reader.point(first.id).streams[0]) == Self.content)
            // The interrupted point is absent or complete.
            let points = try reader.points().points
            #expect(points.count <= 2)
            for point in points where point.id != first.id {
                #expect(try Sample.restore(reader.point(point.id).streams[0]) == Self.other)
            }
            // A rerun finishes.
            let (again, _) = try Sample.backup([(Self.other, nil)], to: base, name: "again")
            #expect(try Sample.restore(SetReader(base).point(again.id).streams[0]) == Self.other)
            #expect(try SetReader(base).verify(.full).isComplete)
        }
    }

    @Test func aSetThatCouldNotBeBegunIsBegunByTheNextRun() throws {
        for moment in 0..<6 {
            let base = MemoryStore()
            #expect(throws: Fault.self) {
                try Sample.backup([(Self.content, nil)], to: FailingStore(base, failing: moment))
            }
            let (point, _) = try Sample.backup([(Self.content, nil)], to: base)
            #expect(try Sample.restore(SetReader(base).point(point.id).streams[0]) == Self.content)
        }
    }

    /// Two machines make their first backups into one new place.
    @Test(arguments: ["set.a", "set.b", "RELIGHT.txt"], [false, true])
    func whoMakesASetThatAnotherMakesToAddsToIt(moment: String, encrypted: Bool) throws {
        let store = MemoryStore()
        let keys = encrypted ? EncryptionTests.ring("pass") : KeyRing.none
        let options = SetWriter.Options(encryption: encrypted ? NewEncryption(cost: 10) : nil)
        let isDue = Atomic<Bool>(true)
        let other = Mutex<String>("not run")
        store.interceptor = { operation in
            guard operation == .seal(moment), isDue.exchange(false, ordering: .relaxed) else { return }
            do {
                try Sample.backup([(Self.other, nil)], to: store, name: "B", options: options, keys: keys)
                other.withLock { $0 = "done" }
            } catch { other.withLock { $0 = "\(error)" } }
        }
        try Sample.backup([(Self.content, nil)], to: store, name: "A", options: options, keys: keys)
        store.interceptor = nil
        #expect(other.withLock { $0 } == "done")
        let reader = try SetReader(store, keys: keys)
        #expect(Set(try reader.points().points.map(\.facts.name)) == ["A", "B"])
        #expect(try reader.verify(.full).isSound)
        #expect(store.objects["set.a"] == store.objects["set.b"])
        #expect(store.objects.keys.count { $0.hasPrefix("keys/") } == (encrypted ? 1 : 0))
    }

    @Test(arguments: ["packs/", "copies/packs/", "points/"])
    func whatIsWrittenWrongIsNoticedBeforeSuccessIsReported(lying: String) throws {
        let base = MemoryStore()
        let fault = #expect(throws: Fault.self) {
            try Sample.backup([(Self.content, nil)], to: FailingStore(base, lying: lying))
        }
        #expect(fault?.code == .storeFailed)
        #expect(fault?.what.contains("reads back differently") == true)
        if lying.hasSuffix("packs/") { #expect(try SetReader(base).points().points.isEmpty) }
        // The next run builds upon nothing that is wrong, and what is wrong goes away when space is reclaimed.
        let (point, _) = try Sample.backup([(Self.content, nil)], to: base)
        let reader = try SetReader(base)
        #expect(try Sample.restore(reader.point(point.id).streams[0]) == Self.content)
        #expect(try reader.verify(.full, points: [point.id]).isSound)
        _ = try SetKeeper(base).prune()
        #expect(try SetReader(base).verify(.full).isSound)
        #expect(base.objects.keys.allSatisfy { !$0.hasPrefix("gone/") })
    }

    /// A finds one of its packs damaged when it reads back; meanwhile B made a point that refers to all of them.
    @Test func whatOthersBuiltUponMeanwhileIsNotRemovedForOneWrongPack() throws {
        let store = MemoryStore()
        var random = Seeded(27)
        let content = (0..<(3 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        let options = SetWriter.Options(packSize: .mebibytes(1))
        let first = try SetWriter(store, options: options)
        try Sample.fill(first, [(content, nil)])
        let isDue = Atomic<Bool>(true)
        let other = Mutex<(id: String, packs: [String], wrong: String)?>(nil)
        store.interceptor = { operation in
            guard case .open(let name) = operation, name.hasPrefix("packs/"),
                isDue.exchange(false, ordering: .relaxed)
            else { return }
            let packs = store.objects.keys.filter { $0.hasPrefix("packs/") }.sorted()
            let second = try? Sample.backup([(content, nil)], to: store, name: "B", options: options)
            // Any pack but the small one of the lists.
            let wrong = packs.first { store.objects[$0, default: []].count > 500_000 } ?? ""
            store.objects[wrong]?[5000] ^= 1
            other.withLock { $0 = second.map { ($0.0.id, packs, wrong) } }
        }
        let fault = #expect(throws: Fault.self) { try first.commit(Sample.facts("A")) }
        store.interceptor = nil
        #expect(fault?.what.contains("reads back differently") == true)
        let (id, packs, wrong) = try #require(other.withLock { $0 })
        #expect(packs.count > 4 && Set(packs).isSubset(of: store.objects.keys))
        let damages = try SetReader(store).verify(.full, points: [id]).damages
        #expect(damages.map(\.file) == [wrong])
        // The pack that is wrong is not built upon.
        #expect(
            try store.list("gone").map { ObjectName.id($0.name, suffix: ".gone") }
                == [wrong].map { ObjectName.id($0, suffix: ".pack") })
        let (third, statistics) = try Sample.backup([(content, nil)], to: store, options: options)
        #expect(statistics.new > .zero && statistics.shared > .mebibytes(1))
        #expect(try SetReader(store).verify(.full, points: [third.id]).isSound)
    }

    /// Another writer opens the set between the two copies of a pack of lists, and mends what is not missing.
    @Test(arguments: [false, true]) func twoWritersOfOneSecondCopyDoNotDisturbEachOther(mender: Bool) throws {
        let store = MemoryStore()
        let isDue = Atomic<Bool>(true)
        let inner = Mutex<String>("not run")
        store.interceptor = { operation in
            // The first writer is about to seal the copy; or the second is, when it mends.
            guard case .seal(let name) = operation, name.hasPrefix("copies/packs/"),
                isDue.exchange(false, ordering: .relaxed)
            else { return }
            do {
                if mender {
                    store.objects[name] = store.objects[String(name.dropFirst("copies/".utf8.count))]
                } else {
                    let writer = try SetWriter(store)
                    defer { writer.abandon() }
                    try Sample.fill(writer, [(Self.content, nil)])
                    _ = try writer.commit(Sample.facts("inner"))
                }
                inner.withLock { $0 = "done" }
            } catch { inner.withLock { $0 = "\(error)" } }
        }
        if mender {
            try Sample.backup([(Self.content, nil)], to: store)
            for name in store.objects.keys where name.hasPrefix("copies/packs/") { try store.delete(name) }
            isDue.store(true, ordering: .relaxed)
            let findings = Mutex<[Finding]>([])
            let writer = try SetWriter(store) { event in
                if case .finding(let finding) = event { findings.withLock { $0.append(finding) } }
            }
            writer.abandon()
            #expect(findings.withLock { $0 }.isEmpty)
        } else {
            try Sample.backup([(Self.content, nil)], to: store)
        }
        store.interceptor = nil
        #expect(inner.withLock { $0 } == "done")
        #expect(try SetReader(store).verify(.full).isSound)
        let lists = store.objects.filter { $0.key.hasPrefix("packs/") && $0.value[10] == 2 }
        #expect(lists.keys.allSatisfy { store.objects["copies/" + $0] != nil })
    }

    @Test func aPointThatCannotBeReadBackDoesNotExist() throws {
        for canRemove in [true, false] {
            let store = MemoryStore()
            store.interceptor = { operation throws(Fault) in
                let fault = Fault(.storeFailed, what: "Input/output error.", place: "points", remedy: "")
                switch operation {
                case .read(let name, _, _): if name.hasPrefix("points/") { throw fault }
                case .delete(let name): if name.hasPrefix("points/"), !canRemove { throw fault }
                default: break
                }
            }
            let fault = #expect(throws: Fault.self) { try Sample.backup([(Self.content, nil)], to: store) }
            store.interceptor = nil
            #expect(fault?.what.contains("may be there") == !canRemove)
            #expect(try SetReader(store).points().points.count == (canRemove ? 0 : 1))
        }
    }

    @Test func withoutReadBackAWrongPackGoesUnnoticed() throws {
        // Shows that it is the read-back that notices, not something else.
        let base = MemoryStore()
        try Sample.backup([(Self.content, nil)], to: FailingStore(base, lying: "packs/"), readBack: false)
        #expect(try !SetReader(base).verify(.full).isSound)
    }

    @Test func aFullStoreSaysSoAndKeepsWhatWasFinished() throws {
        let before = MemoryStore()
        let (first, _) = try Sample.backup([(Self.content, nil)], to: before)
        let used = before.objects.values.reduce(0) { $0 + $1.count }
        let roomy = MemoryStore(objects: before.objects)
        try Sample.backup([(Self.other, nil)], to: roomy)
        let needed = roomy.objects.values.reduce(0) { $0 + $1.count } - used
        for room in stride(from: 0, to: needed - 1024, by: 16_384) {
            let store = MemoryStore(objects: before.objects, capacity: used + room)
            let fault = #expect(throws: Fault.self) { try Sample.backup([(Self.other, nil)], to: store) }
            #expect(fault?.code == .storeFull)
            let reader = try SetReader(store)
            #expect(try Sample.restore(reader.point(first.id).streams[0]) == Self.content)
            #expect(try reader.verify(.full).isComplete)
        }
    }

    /// Whether a small filesystem can be mounted here.
    static let canMount: Bool = {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        guard unsafe mount("relight-test", folder, "tmpfs", 0, "size=1m") == 0 else { return false }
        return unsafe umount(folder) == 0
    }()

    @Test(.enabled(if: canMount, "needs the right to mount a small filesystem"))
    func aFullFilesystemIsStoreFullAndReadingGoesOn() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        try #require(unsafe mount("relight-test", folder, "tmpfs", 0, "size=3m") == 0)
        // Detached, because the readers below still have files open here when the test ends.
        defer { _ = unsafe umount2(folder, Int32(MNT_DETACH)) }
        let store = FolderStore(path: folder + "/set")
        let (first, _) = try Sample.backup([(Self.content, nil)], to: store)
        var random = Seeded(5)
        let large = (0..<8_000_000).map { _ in UInt8.random(in: 0...255, using: &random) }
        let fault = #expect(throws: Fault.self) { try Sample.backup([(large, nil)], to: store) }
        #expect(fault?.code == .storeFull)
        #expect(fault?.place.hasPrefix(folder) == true)
        // Fill what the unfinished pack gave back.
        let filler = unsafe open(folder + "/filler", O_WRONLY | O_CREAT, 0o600)
        while unsafe write(filler, large, 4096) == 4096 {}
        close(filler)
        let reader = try SetReader(store)
        #expect(try reader.points().points.map(\.id) == [first.id])
        #expect(try Sample.restore(reader.point().streams[0]) == Self.content)
        #expect(try reader.verify(.full).isSound)
    }

    @Test func anInterruptedBackupGoesOnFromItsUnfinishedPack() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let store = FolderStore(path: folder)
        var random = Seeded(9)
        let content = (0..<(12 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        let writer = try SetWriter(store)
        let stream = try writer.beginStream(Sample.stream(content.count))
        let worker = try UnitWorker(writer)
        while let piece = stream.nextPiece(), piece.extent.start < .mebibytes(10) {
            var bytes = Array(content[Sample.range(piece.extent)])
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try worker.add(piece, of: stream, &raw)
        }
        // What a kill would leave: the unfinished file, without the lock of its writer.
        let names = try FolderStore(path: folder + "/tmp").topLevelNames(limit: 10)
        #expect(names.count == 1)
        let left = try #require(names.first)
        #expect(unsafe link("\(folder)/tmp/\(left)", "\(folder)/kept") == 0)
        writer.abandon()
        for object in try store.list("packs") { try store.delete(object.name) }
        // abandon() sealed the file; its records are cut where the last write of 4 MiB ended.
        #expect(unsafe truncate("\(folder)/kept", 8 << 20) == 0)
        #expect(unsafe rename("\(folder)/kept", "\(folder)/tmp/left.part") == 0)

        let (point, statistics) = try Sample.backup([(content, nil)], to: store)
        #expect(statistics.shared > .mebibytes(7))
        #expect(statistics.new < .mebibytes(5))
        #expect(try Sample.restore(SetReader(store).point(point.id).streams[0]) == content)
        #expect(try SetReader(store).verify(.full).isSound)
        #expect(try FolderStore(path: folder + "/tmp").topLevelNames(limit: 10).isEmpty)
    }

    /// A leftover that takes room until it is removed.
    private final class LargeLeftover: ObjectLeftover {
        let store: MemoryStore
        let content: [UInt8]
        init(_ store: MemoryStore, _ content: [UInt8]) {
            self.store = store
            self.content = content
        }
        var name: String { "tmp/large.part" }
        var size: ByteCount { ByteCount(UInt64(content.count)) }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            for index in 0..<buffer.byteCount {
                buffer.storeBytes(of: content[Int(offset.bytes) + index], toByteOffset: index, as: UInt8.self)
            }
        }
        func dropCaches() {}
        func remove() throws(Fault) { store.capacity += content.count }
    }

    @Test func goingOnNeedsNoRoomForWhatWasStoredTwice() throws {
        var random = Seeded(28)
        let content = (0..<(14 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        let before = MemoryStore()
        try Sample.backup([(Array(content[..<65_536]), nil)], to: before)
        let used = before.objects.values.reduce(0) { $0 + $1.count }
        let whole = MemoryStore(objects: before.objects)
        try Sample.backup([(content, nil)], to: whole)
        let pack = try #require(
            whole.objects.filter { $0.key.hasPrefix("packs/") }.max { $0.value.count < $1.value.count })
        for count in [6 << 20, 10 << 20] {
            // Room for all, but for what the leftover takes.
            let base = MemoryStore(objects: before.objects, capacity: used + (15 << 20) - count)
            let store = FailingStore(base)
            let left = [LargeLeftover(base, Array(pack.value[..<count]))]
            store.left.withLock { $0 = left }
            let (point, statistics) = try Sample.backup([(content, nil)], to: store)
            #expect(statistics.shared >= .mebibytes(4), "\(statistics)")
            #expect(try Sample.restore(SetReader(base).point(point.id).streams[0]) == content)
            #expect(try SetReader(base).verify(.full).isSound)
            #expect(base.capacity == used + (15 << 20))
        }
    }

    @Test func abandoningKeepsWhatWasStoredForTheNextRun() throws {
        let store = MemoryStore()
        let writer = try SetWriter(store)
        let stream = try writer.beginStream(Sample.stream(Self.content.count))
        let worker = try UnitWorker(writer)
        while let piece = stream.nextPiece() {
            var bytes = Array(Self.content[Sample.range(piece.extent)])
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try worker.add(piece, of: stream, &raw)
        }
        writer.abandon()
        #expect(try SetReader(store).points().points.isEmpty)
        let (_, statistics) = try Sample.backup([(Self.content, nil)], to: store)
        #expect(statistics.new == .zero)
        #expect(statistics.shared > .zero)
    }

    @Test func aStreamThatWasNotReadToItsEndIsNotSealed() throws {
        let store = MemoryStore()
        let writer = try SetWriter(store)
        let stream = try writer.beginStream(Sample.stream(Self.content.count))
        _ = stream.nextPiece()
        #expect(throws: Fault.self) { try writer.commit(Sample.facts("x")) }
        #expect(try SetReader(store).points().points.isEmpty)
    }

    @Test func afterAFailureTheWriterTakesNothingMore() throws {
        let store = MemoryStore(capacity: 100_000)
        let writer = try SetWriter(store, options: .init(packSize: .mebibytes(1)))
        let stream = try writer.beginStream(Sample.stream(8 << 20))
        let worker = try UnitWorker(writer)
        var random = Seeded(1)
        var failures = 0
        while let piece = stream.nextPiece() {
            var bytes = (0..<Int(piece.extent.length.bytes)).map { _ in UInt8.random(in: 0...255, using: &random) }
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            do { try worker.add(piece, of: stream, &raw) } catch { failures += 1 }
        }
        #expect(failures > 20)
        #expect(throws: Fault.self) { try writer.commit(Sample.facts("x")) }
        writer.abandon()
        #expect(try SetReader(store).points().points.isEmpty)
    }
}
