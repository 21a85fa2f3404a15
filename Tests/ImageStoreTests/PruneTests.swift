// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import ImageStore

/// Removing points and reclaiming space.
@Suite struct PruneTests {
    /// Calls that change a store.
    static func changes(_ operation: MemoryStore.Operation) -> Bool {
        switch operation {
        case .upload, .write, .seal, .replace, .delete, .announce: true
        case .open, .read, .list, .clock: false
        }
    }

    @Test(arguments: [false, true]) func whatNoPointNeedsIsFreed(encrypted: Bool) throws {
        let set = try KeptSet.sample(encrypted: encrypted)
        let before = set.packBytes
        try set.forget([set.ids[0]])
        #expect(set.packBytes == before)
        let report = try set.prune()
        #expect(try set.check() == [set.ids[1], set.ids[2]])
        #expect(before - set.packBytes == Int(report.freed.bytes))
        // Two of the first point's six frames hold nothing that is needed, nor does its page.
        #expect(report.freed > .kibibytes(512))
        #expect(!report.rewritten.isEmpty)
        #expect(report.kept.isEmpty)
        #expect(set.store.objects.keys.filter { $0.hasPrefix("gone/") || $0.hasPrefix("writers/") }.isEmpty)
        #expect(set.store.objects.keys.filter { $0.hasPrefix("moves/") }.count == 1)
        #expect(try SetReader(set.store, keys: set.keys).verify(.full).isSound)
        // Nothing is left to do.
        let again = try set.prune()
        #expect(again.freed == .zero && again.garbage == .zero && again.removed.isEmpty && again.rewritten.isEmpty)
    }

    @Test func packsThatNothingNeedsAreRemovedWithoutMovingAnything() throws {
        var set = KeptSet()
        try set.backup(KeptSet.content(Array(0..<8)))
        try set.backup(KeptSet.content(Array(50..<58)))
        try set.forget([set.ids[0]])
        let report = try set.prune()
        #expect(report.removed.count == 2)
        #expect(report.rewritten.isEmpty && report.moved == .zero)
        #expect(try set.check() == [set.ids[1]])
        #expect(!set.store.objects.keys.contains { $0.hasPrefix("moves/") })
    }

    @Test func withAllPointsGoneNothingIsLeft() throws {
        let set = try KeptSet.sample()
        try set.forget(set.ids)
        // The points that need what is here may lie on another medium.
        let before = set.store.objects
        let fault = #expect(throws: Fault.self) { try set.prune() }
        #expect(fault?.code == .setIncomplete && fault?.remedy.contains("--all-points-forgotten") == true)
        #expect(set.store.objects == before)
        var options = KeptSet.thorough
        options.allPointsForgotten = true
        try set.prune(options)
        #expect(set.packBytes == 0)
        #expect(!set.store.objects.keys.contains { $0.contains("moves/") })
    }

    @Test func smallGarbageIsLeftAlone() throws {
        let set = try KeptSet.sample()
        try set.forget([set.ids[0]])
        var options = KeptSet.thorough
        options.leastGarbage = .mebibytes(4)
        let report = try set.prune(options)
        #expect(report.rewritten.isEmpty)
        #expect(report.garbage > .zero)
        options.leastGarbage = .zero
        options.garbagePercent = 100
        #expect(try set.prune(options).rewritten.isEmpty)
    }

    @Test(arguments: [false, true]) func recordsThatWereMovedAreMovedAgain(encrypted: Bool) throws {
        var set = try KeptSet.sample(encrypted: encrypted)
        let last = set.ids[2]
        try set.forget([set.ids[0]])
        #expect(try set.prune().moved > .zero)
        let tables = set.store.objects.keys.filter { $0.contains("moves/") }
        try set.forget([set.ids[1]])
        #expect(try set.prune().moved > .zero)
        #expect(try set.check() == [last])
        // The old table is gone, the new one knows the way from the first place.
        #expect(Set(set.store.objects.keys).isDisjoint(with: tables))
        #expect(set.store.objects.keys.filter { $0.hasPrefix("moves/") }.count == 1)
        // A new point of the same content refers to where things are now; then nothing needs the moves.
        let content = try #require(set.contents[last])
        let newest = try set.backup(content)
        try set.forget([last])
        try set.prune()
        #expect(try set.check() == [newest])
        #expect(!set.store.objects.keys.contains { $0.contains("moves/") })
    }

    @Test func aRehearsalSaysWhatWouldBeDoneAndWritesNothing() throws {
        let set = try KeptSet.sample()
        try set.forget([set.ids[0]])
        let before = set.store.objects
        let written = Mutex(0)
        set.store.interceptor = { operation in
            if Self.changes(operation) || operation == .clock { written.withLock { $0 += 1 } }
        }
        var options = KeptSet.thorough
        options.isRehearsal = true
        let rehearsed = try set.prune(options)
        let keeper = try SetKeeper(set.store)
        #expect(try keeper.plan(.init(last: 1), isRehearsal: true).retention.removed.count == 1)
        set.store.interceptor = nil
        #expect(written.withLock { $0 } == 0)
        #expect(set.store.objects == before)
        let done = try set.prune()
        #expect(rehearsed.rewritten.map(\.name) == done.rewritten.map(\.name))
        #expect(rehearsed.garbage == done.garbage)
        #expect(rehearsed.moved == done.moved)
    }

    @Test func aSecondPrunerIsRefused() throws {
        let set = try KeptSet.sample()
        let other = try set.store.announce(.pruner)
        let fault = #expect(throws: Fault.self) { try set.prune() }
        #expect(fault?.code == .setBusy)
        other.end()
        try set.prune()
        #expect(try set.store.announcements().isEmpty)
    }

    @Test func whileABackupRunsNothingNewIsRemoved() throws {
        let set = try KeptSet.sample()
        try set.forget([set.ids[0]])
        let before = set.packBytes
        let writer = try set.store.announce(.writer)
        let report = try set.prune()
        #expect(report.writers == 1)
        #expect(report.freed == .zero && !report.kept.isEmpty)
        #expect(set.packBytes == before)
        #expect(!set.store.objects.keys.contains { $0.hasPrefix("gone/") })
        writer.end()
        #expect(try set.prune().freed > .zero)
    }

    @Test func aTombstoneOutlivesBackupsForTheGracePeriod() throws {
        var set = KeptSet()
        try set.backup(KeptSet.content(Array(0..<8)))
        try set.backup(KeptSet.content(Array(50..<58)))
        try set.forget([set.ids[0]])
        // A backup begins right after the tombstones were put.
        let began = Mutex<(any Announcement)?>(nil)
        let store = set.store
        store.interceptor = { operation throws(Fault) in
            guard case .seal(let name) = operation, name.hasPrefix("gone/"), began.withLock({ $0 == nil }) else {
                return
            }
            let writer = try store.announce(.writer)
            began.withLock { $0 = writer }
        }
        let first = try set.prune()
        store.interceptor = nil
        #expect(first.removed.isEmpty && first.kept.count == 2)
        #expect(store.objects.keys.filter { $0.hasPrefix("gone/") }.count == 2)
        store.time += 80_000
        try began.withLock({ $0 })?.renew()
        #expect(try set.prune().removed.isEmpty)
        store.time += 10_000
        // The backup still runs, but it began to look for its packs when their end was announced already.
        #expect(try set.prune().removed.count == 2)
        #expect(try set.check() == [set.ids[1]])
    }

    @Test func aDamagedPointOrListStopsItUntilItIsForgotten() throws {
        for folder in ["points", "packs"] {
            let set = try KeptSet.sample()
            try set.forget([set.ids[0]])
            var broken: [String] = []
            if folder == "points" {
                broken = ["points/\(set.ids[1]).point", "copies/points/\(set.ids[1]).point"]
            } else {
                // The list of the second point.
                let second = try SetReader(set.store).point(set.ids[1])
                let pack = try #require(second.file.streams[0].pages.first).reference.place.pack
                broken = [ObjectName.pack(pack), ObjectName.copy(of: ObjectName.pack(pack))]
            }
            for name in broken { set.store.objects[name]?[300] ^= 0x10 }
            let before = set.packBytes
            let fault = #expect(throws: Fault.self) { try set.prune() }
            #expect(fault?.code == .setDamaged)
            #expect(fault?.what.contains(set.ids[1]) == true)
            #expect(set.packBytes == before)
            if folder == "points" {
                #expect(throws: Fault.self) { try set.forget([String(set.ids[1].prefix(8))]) }
            }
            try set.forget([set.ids[1]])
            #expect(try set.prune().freed > .zero)
            #expect(try set.check() == [set.ids[2]])
        }
    }

    @Test func aDamagedRecordKeepsItsPack() throws {
        var set = KeptSet()
        set.options.compression = .off
        try set.backup(KeptSet.content(Array(0..<12)))
        try set.backup(KeptSet.content([0, 4]))
        try set.forget([set.ids[0]])
        let pack = try #require(
            set.store.objects.max { $0.value.count < $1.value.count }?.key)
        set.store.objects[pack]?[5000] ^= 1
        let report = try set.prune()
        #expect(report.kept.map(\.name) == [pack])
        #expect(set.store.objects[pack] != nil)
        #expect(!set.store.objects.keys.contains { $0.hasPrefix("gone/") })
        // What was copied before the damage was found does not stay.
        #expect(set.store.objects.keys.filter { $0.hasPrefix("packs/") }.count <= 3)
        set.store.objects[pack]?[5000] ^= 1
        #expect(try set.check() == [set.ids[1]])
        #expect(try set.prune().rewritten.map(\.name) == [pack])
        #expect(try set.check() == [set.ids[1]])
    }

    @Test func whatAPointNeedsAndIsNowhereKeepsEverything() throws {
        var set = KeptSet()
        try set.backup(KeptSet.content(Array(0..<8)))
        try set.backup(KeptSet.content(Array(50..<58)))
        try set.backup(KeptSet.content(Array(70..<78)))
        try set.forget([set.ids[0]])
        // The frames of the second, or its lists.
        let second = try SetReader(set.store).point(set.ids[1])
        let list = try #require(second.file.streams[0].pages.first).reference.place.pack
        let frames = try #require(second.file.packs.first { $0.id != list }).id
        for id in [frames, list] {
            let copy = set.copy()
            for name in [ObjectName.pack(id), ObjectName.copy(of: ObjectName.pack(id))] {
                copy.store.objects[name] = nil
            }
            let before = copy.store.objects
            for isRehearsal in [true, false] {
                var options = KeptSet.thorough
                options.isRehearsal = isRehearsal
                let fault = #expect(throws: Fault.self) { try copy.prune(options) }
                #expect(fault?.code == .setIncomplete && fault?.what.contains(id.text) == true)
                #expect(fault?.what.contains(set.ids[1]) == true && fault?.remedy.contains("--also") == true)
                #expect(copy.store.objects == before)
            }
            try copy.forget([set.ids[1]])
            #expect(try copy.prune().freed > .zero)
            #expect(try copy.check() == [set.ids[2]])
        }
    }

    @Test func onePlaceOfASetIsNotPrunedWithoutTheOthers() throws {
        let first = MemoryStore(name: "one", capacity: 1_200_000)
        let second = MemoryStore(name: "two")
        var set = KeptSet(first)
        // Most of it goes into the second place, where the first is full.
        try set.backup(KeptSet.content(Array(0..<8)), through: SpanStore([first, second]))
        try set.backup(KeptSet.content(Array(0..<24)), through: SpanStore([first, second]))
        let packs = [SpanStoreTests.packs(first), SpanStoreTests.packs(second)]
        #expect(packs.allSatisfy { !$0.isEmpty })
        try set.forget([set.ids[0]], through: SpanStore([first, second]))
        for place in [first, second] {
            let before = place.objects
            let fault = #expect(throws: Fault.self) { try set.prune(through: place) }
            #expect(fault?.code == .setIncomplete && fault?.remedy.contains("--also") == true)
            #expect(place.objects == before)
        }
        try set.prune(through: SpanStore([first, second]))
        #expect(try SetReader(SpanStore([first, second])).verify(.full).isSound)
    }

    @Test func aPlaceThatWasAwayLearnsOfThePointsWhoseRecordsMoveThere() throws {
        let first = MemoryStore(name: "one")
        let second = MemoryStore(name: "two")
        var set = KeptSet(first)
        let one = try set.backup(KeptSet.content(Array(0..<12)), through: SpanStore([first, second]))
        // Made while the second was away; shares a little with what goes.
        let two = try set.backup(KeptSet.content([0, 4, 60]))
        #expect(second.objects["points/\(two).point"] == nil)
        let both = try SpanStore([first, second])
        try set.forget([one], through: both)
        // There is no room on the first, so what is needed moves to the second.
        first.capacity = first.objects.reduce(0) { $0 + $1.value.count } + 20_000
        #expect(try !set.prune(through: both).rewritten.isEmpty)
        #expect(!SpanStoreTests.packs(second).isEmpty)
        for name in first.objects.keys where name.hasPrefix("points/") || name.hasPrefix("moves/") {
            #expect(second.objects[name] == first.objects[name])
        }
        // Alone it does not take them for dead.
        let packs = SpanStoreTests.packs(second)
        _ = try? set.prune(through: second)
        #expect(SpanStoreTests.packs(second) == packs)
        #expect(try SetReader(SpanStore([first, second])).verify(.full).isSound)
    }

    @Test func aPlaceThatCannotTakeAPointsFileKeepsFromMovingNotFromRemoving() throws {
        let first = MemoryStore(name: "one")
        let second = MemoryStore(name: "two")
        var set = KeptSet(first)
        let one = try set.backup(KeptSet.content(Array(0..<12)), through: SpanStore([first, second]))
        let dead = try set.backup(KeptSet.content(Array(300..<312)))
        let two = try set.backup(KeptSet.content([0, 4, 60]))
        for name in second.objects.keys where name.hasPrefix("copies/packs/") { second.objects[name] = nil }
        second.capacity = second.objects.reduce(0) { $0 + $1.value.count } + 40
        try set.forget([one, dead], through: SpanStore([first, second]))
        second.capacity = second.objects.reduce(0) { $0 + $1.value.count } + 40
        let fault = #expect(throws: Fault.self) { try set.prune(through: SpanStore([first, second])) }
        #expect(fault?.code == .storeFull && fault?.place == "two" && fault?.what.contains(two) == true)
        #expect(!SpanStoreTests.packs(first).isEmpty && !first.objects.keys.contains { $0.hasPrefix("moves/") })
        #expect(try set.check() == [two])
        second.capacity = .max
        try set.prune(through: SpanStore([first, second]))
        #expect(second.objects["points/\(two).point"] != nil)
        #expect(try set.check() == [two])
    }

    @Test func lostMovesAreFoundAgainAndNoted() throws {
        let set = try KeptSet.sample()
        try set.forget([set.ids[0]])
        try set.prune()
        for name in set.store.objects.keys where name.contains("moves/") { set.store.objects[name] = nil }
        let packs = set.store.objects.filter { $0.key.contains("packs/") }
        try set.prune()
        #expect(set.store.objects.filter { $0.key.contains("packs/") } == packs)
        #expect(try set.check() == [set.ids[1], set.ids[2]])
    }

    @Test func packsWithParityStayWithParity() throws {
        var set = KeptSet()
        set.options.parity = 10
        try set.backup(KeptSet.content(Array(0..<12)))
        try set.backup(KeptSet.content([0, 4, 60]))
        try set.forget([set.ids[0]])
        #expect(!(try set.prune().rewritten.isEmpty))
        #expect(try set.check() == [set.ids[1]])
        let pack = try #require(
            set.store.objects.filter { $0.key.hasPrefix("packs/") }.max { $0.value.count < $1.value.count })
        let trailer = try HostileTests.trailer(pack.value)
        let footer = try unsafe PackFooter(
            Array(pack.value[trailer.offset..<trailer.offset + trailer.length]).span.bytes, trailer: trailer,
            unitSize: 65_536)
        #expect(footer.offset > footer.recordsEnd)
        #expect(try SetReader(set.store).verify(.full).isSound)
    }

    @Test func aPackNoPointEverReferredToIsRemoved() throws {
        let set = try KeptSet.sample()
        let before = set.packBytes
        // A backup that is interrupted after its packs were sealed.
        let failing = FailingStore(set.store, failing: 12)
        var other = set
        #expect(throws: Fault.self) { try other.backup(KeptSet.content(Array(300..<340)), through: failing) }
        #expect(set.packBytes > before)
        set.store.time += 100_000
        try set.prune()
        #expect(set.packBytes <= before)
        #expect(try set.check().count == 3)
    }

    // MARK: - Full media

    @Test func withNoRoomAtAllPacksThatNothingNeedsAreRemoved() throws {
        var set = KeptSet()
        try set.backup(KeptSet.content(Array(0..<8)))
        try set.backup(KeptSet.content(Array(50..<58)))
        let used = set.store.objects.reduce(0) { $0 + $1.value.count }
        // Not even an empty object can be put.
        set.store.capacity = used - 1
        #expect(throws: Fault.self) { try set.store.put("gone/x", []) }
        try set.forget([set.ids[0]])
        set.store.capacity = set.store.objects.reduce(0) { $0 + $1.value.count } - 1
        let report = try set.prune()
        #expect(report.removed.count == 2)
        #expect(try set.check() == [set.ids[1]])
    }

    @Test func whereThereIsNoRoomToMoveNothingIsLost() throws {
        let set = try KeptSet.sample()
        try set.forget([set.ids[0]])
        let used = set.store.objects.reduce(0) { $0 + $1.value.count }
        for room in stride(from: 0, through: 700_000, by: 70_000) {
            let copy = set.copy()
            copy.store.capacity = used + room
            let report = try copy.prune()
            #expect(try copy.check("\(room)") == [set.ids[1], set.ids[2]])
            copy.store.capacity = .max
            let after = try copy.prune()
            #expect(report.freed.bytes + after.freed.bytes > 512 << 10)
            try copy.check("\(room)")
        }
    }

    /// A set of `packs` packs of frames of about 1 MiB, each of which is half needed; nothing else is to be removed.
    static func halfNeeded(_ packs: Int) throws -> (set: KeptSet, last: String) {
        var set = KeptSet()
        set.options.compression = .off
        try set.backup(KeptSet.content(Array(0..<UInt64(packs * 14))))
        let last = try set.backup(KeptSet.content((0..<UInt64(packs * 14)).filter { $0 % 16 < 8 }))
        try set.forget([set.ids[0]])
        return (set, last)
    }

    @Test func whereNotAllFitsPacksAreRewrittenOneByOne() throws {
        let (set, last) = try Self.halfNeeded(4)
        let used = set.store.objects.reduce(0) { $0 + $1.value.count }
        // One half of a pack, with its footer and the moves; not two.
        set.store.capacity = used + 800_000
        var options = KeptSet.thorough
        options.packSize = .mebibytes(8)
        let report = try set.prune(options)
        #expect(report.rewritten.count >= 3 && report.kept.isEmpty, "\(report.kept)")
        #expect(report.freed > .mebibytes(1))
        #expect(try set.check() == [last])
    }

    private final class Leftover: ObjectLeftover {
        let store: MemoryStore
        let name = "tmp/x.part"
        let size = ByteCount(800_000)
        init(_ store: MemoryStore) { self.store = store }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {}
        func dropCaches() {}
        func remove() throws(Fault) { store.capacity += 800_000 }
    }

    @Test func whatAKilledRunLeftUnfinishedIsNotInTheWay() throws {
        for isBackupRunning in [false, true] {
            let (set, last) = try Self.halfNeeded(2)
            set.store.capacity = set.store.objects.reduce(0) { $0 + $1.value.count } + 100_000
            let failing = FailingStore(set.store)
            failing.left.withLock { $0 = [Leftover(set.store)] }
            let other = isBackupRunning ? try set.store.announce(.writer) : nil
            let report = try set.prune(through: failing)
            #expect(report.rewritten.isEmpty == isBackupRunning)
            #expect(report.kept.isEmpty != isBackupRunning)
            other?.end()
            #expect(try set.check() == [last])
        }
    }

    @Test func withoutAnAnnouncementNothingIsMoved() throws {
        let (set, last) = try Self.halfNeeded(2)
        set.store.interceptor = { operation throws(Fault) in
            if operation == .announce(.pruner) { throw Fault(.storeFull, what: "Full.", remedy: "") }
        }
        let report = try set.prune()
        #expect(report.rewritten.isEmpty && report.moved == .zero && !report.kept.isEmpty)
        #expect(try set.check() == [last])
    }

    // MARK: - Who is taken for dead

    @Test func aBackupThatWritesNothingForDaysIsAlive() throws {
        let store = MemoryStore()
        let content = KeptSet.content(Array(0..<40))
        try Sample.backup([(content, nil)], to: store)
        let hours = Atomic<Int>(0)
        var options = SetWriter.Options()
        options.seconds = { hours.load(ordering: .relaxed) * 3600 }
        let writer = try SetWriter(store, options: options)
        let worker = try UnitWorker(writer)
        let stream = try writer.beginStream(Sample.stream(content.count))
        while let piece = stream.nextPiece() {
            for _ in 0..<30 {
                hours.add(1, ordering: .relaxed)
                store.time += 3600
                try writer.requireHealthy()
            }
            var bytes = Array(content[Sample.range(piece.extent)])
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try worker.add(piece, of: stream, &raw)
            #expect(try store.announcements().map(\.isAlive) == [true])
        }
        _ = try writer.commit(Sample.facts("slow"))
        #expect(try SetReader(store).points().points.count == 2)
    }

    @Test(arguments: [false, true]) func aBackupThatWasTakenForDeadStops(inFolder: Bool) throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let memory = MemoryStore()
        let store: any ObjectStore = inFolder ? FolderStore(path: folder + "/set") : memory
        let hours = Atomic<Int>(0)
        var options = SetWriter.Options()
        options.seconds = { hours.load(ordering: .relaxed) * 3600 }
        let writer = try SetWriter(store, options: options)
        let worker = try UnitWorker(writer)
        let stream = try writer.beginStream(Sample.stream(65_536))
        // It was asleep, and somebody else looked who is at work.
        for object in try store.list("writers") { try store.delete(object.name) }
        hours.add(30, ordering: .relaxed)
        let piece = try #require(stream.nextPiece())
        var bytes = KeptSet.content([7])
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        let fault: Fault?
        do throws(Fault) {
            try worker.add(piece, of: stream, &raw)
            fault = nil
        } catch { fault = error }
        #expect(fault?.code == .leftForDead)
        #expect(throws: Fault.self) { try writer.commit(Sample.facts("dead")) }
        #expect(try SetReader(store).points().points.isEmpty)
    }

    @Test func aPruneThatWasTakenForDeadRemovesNothing() throws {
        for isNoticedByItsAnnouncement in [false, true] {
            let (set, last) = try Self.halfNeeded(2)
            let store = set.store
            let before = SpanStoreTests.packs(store)
            let hours = Atomic<Int>(0)
            var options = KeptSet.thorough
            options.seconds = { hours.load(ordering: .relaxed) * 3600 }
            store.interceptor = { operation throws(Fault) in
                switch operation {
                case .seal(let name) where name.hasPrefix("copies/moves/"):
                    // Another prune takes the new packs for dead.
                    for name in store.objects.keys where name.hasPrefix("packs/") && !before.contains(name) {
                        store.objects[name] = nil
                    }
                case .upload where isNoticedByItsAnnouncement:
                    for name in store.objects.keys where name.hasPrefix("writers/") { store.objects[name] = nil }
                    hours.add(30, ordering: .relaxed)
                default: break
                }
            }
            let fault = #expect(throws: Fault.self) { try set.prune(options) }
            #expect(fault?.code == .leftForDead)
            store.interceptor = nil
            #expect(try set.check() == [last])
            try set.prune()
            #expect(try set.check() == [last])
        }
    }

    // MARK: - Interruptions

    /// Runs `work` again and again, with the store failing at each call that changes it, then once more to its end.
    static func interrupted(
        _ set: KeptSet, afterwards: Bool, _ work: (KeptSet, any ObjectStore) throws -> Void,
        _ finished: (KeptSet, KeptSet) throws -> Void
    ) throws -> Int {
        let whole = set.copy()
        let counting = FailingStore(whole.store)
        try work(whole, counting)
        let changes = counting.changes.load(ordering: .relaxed)
        for moment in 0..<changes {
            let copy = set.copy()
            try? work(copy, FailingStore(copy.store, failing: moment, afterwards: afterwards))
            try copy.check("failure \(moment)", .quick)
            // Who was interrupted cannot say that it ended.
            copy.store.time += 100_000
            try work(copy, copy.store)
            try copy.check("after failure \(moment)")
            try finished(copy, whole)
        }
        return changes
    }

    @Test(arguments: [false, true], [false, true])
    func pruneCanBeInterruptedAtAnyMoment(afterwards: Bool, encrypted: Bool) throws {
        let set = try KeptSet.sample(encrypted: encrypted)
        try set.forget([set.ids[0]])
        try set.prune()
        // Records that were moved once are moved again.
        try set.forget([set.ids[1]])
        let changes = try Self.interrupted(set, afterwards: afterwards) { set, store in
            try set.prune(through: store)
        } _: { copy, whole in
            var options = KeptSet.thorough
            options.isRehearsal = true
            let left = try copy.prune(options)
            #expect(left.garbage == .zero)
            #expect(copy.packBytes == whole.packBytes)
            #expect(copy.store.objects.keys.filter { $0.hasPrefix("moves/") }.count == 1)
            #expect(!copy.store.objects.keys.contains { $0.hasPrefix("gone/") || $0.hasPrefix("writers/") })
        }
        #expect(changes > 20)
    }

    @Test(arguments: [false, true]) func forgetCanBeInterruptedAtAnyMoment(afterwards: Bool) throws {
        let set = try KeptSet.sample()
        let changes = try Self.interrupted(set, afterwards: afterwards) { set, store in
            let keeper = try SetKeeper(store)
            try keeper.forget(keeper.plan(.init(last: 1)))
        } _: { copy, whole in
            #expect(Set(copy.store.objects.keys) == Set(whole.store.objects.keys))
        }
        #expect(changes == 4)
    }

    // MARK: - Many at once

    /// Runs `first`, and `second` from its beginning to its end at the `moment`th call of `first`. Returns whether that
    /// moment came.
    static func interleave(
        _ store: MemoryStore, at moment: Int, _ first: () throws -> Void, _ second: @escaping @Sendable () -> Void
    ) rethrows -> Bool {
        let calls = Atomic<Int>(0)
        let began = Atomic<Bool>(false)
        store.interceptor = { _ in
            guard !began.load(ordering: .relaxed) else { return }
            if calls.add(1, ordering: .relaxed).oldValue == moment {
                began.store(true, ordering: .relaxed)
                second()
            }
        }
        defer { store.interceptor = nil }
        try first()
        return began.load(ordering: .relaxed)
    }

    /// Between the moments tried; with `RELIGHT_EVERY_MOMENT` in the environment every one is.
    static let step = unsafe getenv("RELIGHT_EVERY_MOMENT") == nil ? 3 : 1

    enum Others: String, CaseIterable, Sendable {
        /// A prune.
        case prune
        /// A prune that takes the running backup for dead.
        case pruneMuchLater
        /// Forgets a point, and prunes.
        case forgetAndPrune
        /// Another backup of the same content.
        case backup
    }

    static let returning = KeptSet.content([1, 300, 100, 102])

    @Test(arguments: Others.allCases, [MemoryStore.Lateness.none, .operations(25), .seconds(3600)])
    func aBackupAndOthersAtAnyMoment(other: Others, lateness: MemoryStore.Lateness) throws {
        let before = try KeptSet.small()
        // What the backup stores is partly in packs nothing needs any more.
        try before.forget([before.ids[0]])
        var moment = 0
        var failures = 0
        var happened = true
        // At late lists fewer moments are tried: each takes longer.
        while happened {
            let set = before.copy()
            set.store.time = 1_700_000_000
            let store = set.store
            store.lateness = lateness
            let added = Mutex<[String: [UInt8]]>([:])
            var mine: String?
            let frozen = set
            happened = try Self.interleave(store, at: moment) {
                do {
                    let (point, _) = try Sample.backup(
                        [(Self.returning, nil)], to: store, name: "mine", options: frozen.options)
                    mine = point.id
                } catch let fault as Fault {
                    // Taken for dead, it finds a pack gone while it works, or when it looks again at the end.
                    #expect(
                        fault.code == .storeFailed || other == .pruneMuchLater && fault.code == .setDamaged, "\(fault)")
                    failures += 1
                }
            } _: {
                switch other {
                case .prune: _ = try? frozen.prune()
                case .pruneMuchLater:
                    store.time += 100_000
                    _ = try? frozen.prune()
                case .forgetAndPrune:
                    _ = try? frozen.forget([frozen.ids[1]])
                    _ = try? frozen.prune()
                case .backup:
                    if let (point, _) = try? Sample.backup(
                        [(Self.returning, nil)], to: store, name: "other", options: frozen.options)
                    {
                        added.withLock { $0[point.id] = Self.returning }
                    }
                }
            }
            store.lateness = .none
            try store.awaitListings()
            var result = set
            result.contents.merge(added.withLock { $0 }) { old, _ in old }
            if let mine { result.contents[mine] = Self.returning }
            let note = "\(other.rawValue) at \(moment), \(lateness)"
            let listed = try result.check(note, .quick)
            if let mine { #expect(listed.contains(mine), "\(note)") }
            // Who failed runs again.
            store.time += 100_000
            if mine == nil { try result.backup(Self.returning) }
            // Everything nothing needs goes in the end, and nothing else.
            try result.prune()
            try result.check(note)
            moment += lateness == .none ? Self.step : 11
        }
        #expect(moment > 30)
        // A prune that sees the backup leaves it alone.
        if other == .prune, lateness == .none { #expect(failures == 0) }
    }

    @Test(arguments: [MemoryStore.Lateness.none, .operations(25)])
    func aPruneAndABackupAtAnyMoment(lateness: MemoryStore.Lateness) throws {
        let before = try KeptSet.small()
        try before.forget([before.ids[0]])
        var moment = 0
        var happened = true
        while happened {
            let set = before.copy()
            let store = set.store
            store.lateness = lateness
            let made = Mutex<[String]>([])
            happened = try Self.interleave(store, at: moment) {
                _ = try set.prune()
            } _: {
                if let (point, _) = try? Sample.backup(
                    [(Self.returning, nil)], to: store, name: "mine", options: set.options)
                {
                    made.withLock { $0.append(point.id) }
                }
            }
            store.lateness = .none
            try store.awaitListings()
            var result = set
            for id in made.withLock({ $0 }) { result.contents[id] = Self.returning }
            let note = "backup at \(moment), \(lateness)"
            let listed = try result.check(note, .quick)
            // Nobody is seen at work for longer than it is, so the backup never has to fail.
            for id in made.withLock({ $0 }) { #expect(listed.contains(id), "\(note)") }
            store.time += 100_000
            try result.prune()
            try result.check(note)
            moment += lateness == .none ? Self.step : 5
        }
        #expect(moment > 50)
    }

    @Test func aForgottenPointDoesNotComeBackByMending() throws {
        let before = try KeptSet.small()
        for lost in ["", "copies/"] {
            var moment = 0
            var happened = true
            while happened {
                let set = before.copy()
                let store = set.store
                // A copy is missing, which the next writer puts back.
                store.objects["\(lost)points/\(set.ids[0]).point"] = nil
                happened = try Self.interleave(store, at: moment) {
                    _ = try Sample.backup([(Self.returning, nil)], to: store, options: set.options)
                } _: {
                    try? set.forget([set.ids[0]])
                }
                guard happened else { break }
                let ids = try SetReader(store).points().points.map(\.id)
                #expect(!ids.contains(set.ids[0]), "\(lost) at \(moment)")
                moment += Self.step
            }
            #expect(moment > 30)
        }
    }

    // MARK: - Folders

    @Test func inAFolderTheSpaceIsReallyFreed() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let store = FolderStore(path: folder + "/set")
        let options = SetWriter.Options(packSize: .mebibytes(1))
        let contents = [KeptSet.content(Array(0..<24)), KeptSet.content([0, 100, 101, 6, 102])]
        let points = try contents.map { try Sample.backup([($0, nil)], to: store, options: options).0 }
        let reader = try SetReader(store)
        // A point that is being read while its records move.
        let stream = try reader.point(points[1].id).streams[0]
        let keeper = try SetKeeper(store)
        try keeper.forget(keeper.plan(.init(last: 1)))
        func size() throws -> UInt64 {
            try (store.list("packs") + store.list("copies/packs")).reduce(0) { $0 + $1.size.bytes }
        }
        let before = try size()
        let report = try keeper.prune(KeptSet.thorough)
        #expect(try before - size() == report.freed.bytes)
        #expect(try Sample.restore(stream) == contents[1])
        #expect(try SetReader(store).verify(.full).isSound)
        for folder in ["gone", "writers", "tmp"] { #expect(try store.entries(folder, limit: 10).isEmpty) }
        if Judge.canRun {
            #expect(
                Judge.run("/usr/bin/python3 '\(Judge.script)' restore '\(folder)/set' latest '\(folder)'") == 0)
            let disk = try JudgeTests.file(folder + "/disk0.img")
            #expect(Array(disk[(1 << 20)..<(1 << 20) + contents[1].count]) == contents[1])
            #expect(Judge.run("/usr/bin/python3 '\(Judge.script)' check '\(folder)/set'") == 0)
        }
    }

    @Test func aRunningBackupInAFolderIsSeenByItsLock() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let store = FolderStore(path: folder + "/set")
        try Sample.backup([(KeptSet.content([1]), nil)], to: store)
        let (point, _) = try Sample.backup([(KeptSet.content([2]), nil)], to: store)
        let keeper = try SetKeeper(FolderStore(path: folder + "/set"))
        try keeper.forget(keeper.plan(nil, named: [point.id]))
        do {
            let writer = try SetWriter(store)
            #expect(try keeper.prune(KeptSet.thorough).writers == 1)
            writer.abandon()
        }
        let report = try keeper.prune(KeptSet.thorough)
        #expect(report.writers == 0 && report.freed > .zero)
    }
}
