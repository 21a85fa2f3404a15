// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Glibc
import Synchronization
import TestSupport
import Testing
import Threads

@testable import ImageStore

/// A folder as a store: what it takes for an object, its clock, who it believes to be at work.
@Suite struct FolderStoreTests {
    static let id = "000102030405060708090a0b0c0d0e0f"
    static let other = "00112233445566ff"

    /// Runs `body` with a store in a fresh folder.
    func withStore(_ body: (FolderStore, String) throws -> Void) throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let store = FolderStore(path: folder + "/set")
        try store.prepare()
        try body(store, folder + "/set")
    }

    // MARK: - Objects

    @Test func whatWasWrittenCanBeReadBeforeItIsSealed() throws {
        try withStore { (store, _) throws in
            let upload = try store.upload()
            try upload.write([4, 5, 6], at: 3)
            try upload.write([1, 2, 3])
            #expect(try upload.bytes(at: 1, count: 4) == [2, 3, 4, 5])
            #expect(throws: Fault.self) { try upload.bytes(at: 4, count: 3) }
            try upload.seal(as: "packs/ab/x.pack")
            #expect(throws: Fault.self) { try upload.bytes(at: 0, count: 1) }
            #expect(try store.content("packs/ab/x.pack") == [1, 2, 3, 4, 5, 6])
        }
    }

    @Test func sealingNeverReplacesUnlessItIsSaid() throws {
        try withStore { (store, folder) throws in
            try store.put("points/x.point", [1])
            let second = try store.upload()
            try second.write([2])
            #expect(throws: Fault.self) { try second.seal(as: "points/x.point") }
            second.abandon()
            #expect(try store.content("points/x.point") == [1])
            let reader = try #require(try store.open("points/x.point"))
            let third = try store.upload()
            try third.write([3])
            try third.seal(replacing: "points/x.point")
            #expect(try store.content("points/x.point") == [3])
            // Whoever has the old one open reads it on.
            #expect(try reader.bytes(at: .zero, count: 1) == [1])
            #expect(try FolderStore(path: folder + "/tmp").topLevelNames(limit: 10).isEmpty)
        }
    }

    @Test func aReplacementMayBeTheFirstOfItsName() throws {
        try withStore { (store, _) throws in
            let upload = try store.upload()
            try upload.write([7])
            try upload.seal(replacing: "packs/ab/y.pack")
            #expect(try store.content("packs/ab/y.pack") == [7])
        }
    }

    @Test func whatIsNotAFileIsNoObjectAndNothingIsWaitedFor() throws {
        try withStore { (store, folder) throws in
            try store.makeFolders("points")
            try store.put("points/real.point", [1])
            let secret = Sample.folder()
            defer { Sample.remove(secret) }
            touch(secret + "/outside")
            #expect(unsafe mkfifo("\(folder)/points/fifo.point", 0o644) == 0)
            #expect(unsafe symlink("\(secret)/outside", "\(folder)/points/link.point") == 0)
            #expect(unsafe symlink("real.point", "\(folder)/points/near.point") == 0)
            #expect(unsafe mkdir("\(folder)/points/folder.point", 0o755) == 0)
            #expect(unsafe mknod("\(folder)/points/socket.point", S_IFSOCK | 0o644, 0) == 0)
            for name in ["fifo", "link", "near", "folder", "socket"] {
                #expect(try store.open("points/\(name).point") == nil, "\(name)")
            }
            #expect(try store.list("points").map(\.name) == ["points/real.point"])
            // As an unfinished file or an announcement it is not waited for either.
            #expect(unsafe mkfifo("\(folder)/tmp/a.part", 0o644) == 0)
            #expect(unsafe mkfifo("\(folder)/writers/\(Self.id)-w-\(HostMark.own).writer", 0o644) == 0)
            #expect(try store.leftovers().isEmpty)
            #expect(try store.announcements().isEmpty)
        }
    }

    @Test func removingWhatIsNotThereIsNoFault() throws {
        try withStore { (store, _) throws in
            try store.delete("copies/packs/ab/none.pack")
            try store.put("points/x.point", [1])
            try store.delete("points/x.point")
            try store.delete("points/x.point")
            try store.delete("points/x.point/below")
            #expect(try store.open("points/x.point") == nil)
        }
    }

    @Test func listsTellTheTimeOfTheContent() throws {
        try withStore { (store, folder) throws in
            try store.put("points/x.point", [1])
            let now = try store.clock()
            let fresh = try #require(try store.list("points").first).modified
            #expect(now >= fresh && now - fresh < 60)
            age("\(folder)/points/x.point", by: 5000)
            let old = try #require(try store.list("points").first).modified
            #expect((4990...5060).contains(now - old))
        }
    }

    // MARK: - The clock

    @Test func theClockIsTheFilesystemsAndLeavesNothingBehind() throws {
        try withStore { (store, folder) throws in
            let seen = Int(try store.clock())
            #expect(abs(seen - time(nil)) < 60)
            #expect(try FolderStore(path: folder + "/tmp").topLevelNames(limit: 10).isEmpty)
        }
    }

    @Test func theClockAnswersWhereNothingCanBeMade() throws {
        let seen = Int(try FolderStore(path: "/proc/nowhere").clock())
        #expect(abs(seen - time(nil)) < 60)
    }

    // MARK: - Announcements

    @Test(arguments: [Announced.Kind.writer, .pruner]) func anAnnouncementIsSeenByOthersUntilItEnds(
        kind: Announced.Kind
    ) throws {
        try withStore { (store, folder) throws in
            let mine = try store.announce(kind)
            let seen = try FolderStore(path: folder).announcements()
            #expect(seen.map(\.id) == [mine.id])
            #expect(seen.map(\.kind) == [kind])
            #expect(seen.map(\.isAlive) == [true])
            #expect((seen.first?.age ?? .max) < 60)
            let file = try #require(try store.list("writers").first)
            #expect(file.size == .zero)
            #expect(file.name == "writers/\(mine.id)-\(kind.rawValue)-\(HostMark.own).writer")
            mine.end()
            mine.end()
            #expect(try store.announcements().isEmpty)
            #expect(try store.list("writers").isEmpty)
        }
    }

    @Test func anAnnouncementThatIsLetGoOfEnds() throws {
        try withStore { (store, _) throws in
            _ = try store.announce(.writer)
            #expect(try store.announcements().isEmpty)
        }
    }

    @Test func anotherProcessThatWasKilledIsRecognisedAtOnce() throws {
        try withStore { (store, folder) throws in
            // What a kill leaves: the file, and no lock.
            let file = "\(folder)/writers/\(Self.id)-w-\(HostMark.own).writer"
            touch(file)
            let seen = try FolderStore(path: folder, host: HostMark.own, isLocal: false).announcements()
            #expect(seen.map(\.isAlive) == [false])
            #expect(unsafe access(file, F_OK) != 0)
            #expect(try store.announcements().isEmpty)
        }
    }

    @Test func aLockThatIsHeldMeansAtWorkHoweverOld() throws {
        try withStore { (_, folder) throws in
            let foreign = FolderStore(path: folder, host: Self.other, isLocal: false)
            let announcement = try foreign.announce(.writer)
            let file = "\(folder)/writers/\(announcement.id)-w-\(Self.other).writer"
            age(file, by: 30 * 86_400)
            for local in [true, false] {
                let seen = try FolderStore(path: folder, host: HostMark.own, isLocal: local).announcements()
                #expect(seen.map(\.isAlive) == [true])
                #expect(seen.allSatisfy { $0.age > 29 * 86_400 })
            }
            try announcement.renew()
            #expect(try foreign.announcements().allSatisfy { $0.age < 60 })
        }
    }

    @Test func anotherMachineOfANetworkFilesystemIsBelievedForADay() throws {
        try withStore { (_, folder) throws in
            let file = "\(folder)/writers/\(Self.id)-p-\(Self.other).writer"
            touch(file)
            let store = FolderStore(path: folder, host: HostMark.own, isLocal: false)
            age(file, by: 23 * 3600)
            #expect(try store.announcements().map(\.isAlive) == [true])
            age(file, by: 25 * 3600)
            #expect(try store.announcements().map(\.isAlive) == [false])
            #expect(try store.announcements().isEmpty)
        }
    }

    @Test func onADiskOfThisMachineAnEarlierStartOfItIsKnownToHaveEnded() throws {
        try withStore { (store, folder) throws in
            #expect(store.isLocal)
            touch("\(folder)/writers/\(Self.id)-w-\(Self.other).writer")
            #expect(try store.announcements().map(\.isAlive) == [false])
        }
    }

    @Test func foreignFilesAmongAnnouncementsAreIgnored() throws {
        try withStore { (store, folder) throws in
            for name in [
                "\(Self.id)-x-\(Self.other).writer", "\(Self.id)-w-short.writer", "notes.txt", "-w-.writer",
                "\(Self.id.uppercased())-w-\(Self.other).writer", "\(Self.id)-w-\(Self.other).writer.bak",
            ] { touch("\(folder)/writers/\(name)") }
            #expect(try store.announcements().isEmpty)
            #expect(try store.list("writers").count == 6)
        }
    }

    @Test func manyWhoLookNeverMistakeAnOwnerForDead() throws {
        try withStore { (store, folder) throws in
            let done = Atomic<Bool>(false)
            try Workers.run(3) { (number, _) throws(Fault) in
                guard number == 0 else {
                    let looking = FolderStore(path: folder)
                    while !done.load(ordering: .relaxed) { _ = try looking.announcements() }
                    return
                }
                defer { done.store(true, ordering: .relaxed) }
                for _ in 0..<200 {
                    let mine = try store.announce(.writer)
                    let seen = try store.announcements()
                    #expect(seen.map(\.id) == [mine.id])
                    #expect(seen.map(\.isAlive) == [true])
                }
            }
        }
    }

    // MARK: - Leftovers

    @Test func anUnfinishedFileOfAKilledProcessIsALeftover() throws {
        try withStore { (store, folder) throws in
            let upload = try store.upload()
            try upload.write([1, 2, 3])
            #expect(try store.leftovers().isEmpty)
            let name = try #require(try store.list("tmp").first?.name)
            #expect(name.hasSuffix("-\(HostMark.own).part"))
            // Another file with the same content and name pattern, without a lock.
            touch("\(folder)/tmp/1-1-\(HostMark.own).part")
            touch("\(folder)/tmp/2-2-\(Self.other).part")
            touch("\(folder)/tmp/3-3-\(HostMark.own).clock")
            let left = try store.leftovers()
            #expect(left.map(\.name) == ["tmp/1-1-\(HostMark.own).part", "tmp/2-2-\(Self.other).part"])
            for file in left { try file.remove() }
            #expect(try store.list("tmp").map(\.name) == [name])
        }
    }

    @Test func anotherMachinesFileOnANetworkFilesystemIsLeftAloneForAnHour() throws {
        try withStore { (_, folder) throws in
            let store = FolderStore(path: folder, host: HostMark.own, isLocal: false)
            let file = "\(folder)/tmp/1-1-\(Self.other).part"
            touch(file)
            touch("\(folder)/tmp/old.part")
            touch("\(folder)/tmp/2-2-\(HostMark.own).part")
            #expect(try store.leftovers().map(\.name) == ["tmp/2-2-\(HostMark.own).part"])
            age(file, by: 3000)
            #expect(try store.leftovers().count == 1)
            age(file, by: 4000)
            age("\(folder)/tmp/old.part", by: 4000)
            #expect(try store.leftovers().count == 3)
            // Never while its lock is seen to be held, however old.
            let held = unsafe open(file, O_RDWR)
            defer { close(held) }
            #expect(flock(held, LOCK_EX) == 0)
            #expect(try store.leftovers().count == 2)
        }
    }

    @Test func anIdleFileOfAnotherMachineIsLeftAloneWhileThatIsAnnounced() throws {
        try withStore { (_, folder) throws in
            let store = FolderStore(path: folder, host: HostMark.own, isLocal: false)
            let file = "\(folder)/tmp/1-1-\(Self.other).part"
            let announcement = "\(folder)/writers/\(Self.id)-w-\(Self.other).writer"
            touch(file)
            age(file, by: 5 * 3600)
            touch(announcement)
            age(announcement, by: 6 * 3600)
            #expect(try store.leftovers().isEmpty)
            // For as long as that may be renewed.
            age(announcement, by: 25 * 3600)
            #expect(try store.leftovers().map(\.name) == ["tmp/1-1-\(Self.other).part"])
            touch(announcement)
            #expect(try store.leftovers().isEmpty)
            #expect(unsafe unlink(announcement) == 0)
            #expect(try store.leftovers().count == 1)
        }
    }

    @Test func locksOfAFileServersClientsAreSeen() throws {
        try withStore { (store, folder) throws in
            #expect(store.isLocal)
            let files = ["\(folder)/writers/\(Self.id)-w-\(Self.other).writer", "\(folder)/tmp/1-1-\(Self.other).part"]
            var open: [Int32] = []
            for file in files {
                touch(file)
                // As the server takes them for its clients: of the whole file, by fcntl (F_OFD_SETLK).
                let descriptor = unsafe Glibc.open(file, O_RDWR)
                open.append(descriptor)
                var lock = flock(l_type: Int16(F_WRLCK), l_whence: Int16(SEEK_SET), l_start: 0, l_len: 0, l_pid: 0)
                #expect(unsafe fcntl(descriptor, 37, &lock) == 0)
            }
            for _ in 0..<2 {
                #expect(try store.announcements().map(\.isAlive) == [true])
                #expect(try store.leftovers().isEmpty)
            }
            for descriptor in open { close(descriptor) }
            #expect(try store.announcements().map(\.isAlive) == [false])
            #expect(try store.leftovers().count == 1)
        }
    }

    @Test func anUnreadableLeftoverEndsNoBackup() throws {
        let base = MemoryStore()
        let content = Sample.content(300_000, seed: 4)
        try Sample.backup([(content, nil)], to: base)
        let pack = try #require(try base.list("packs").first { $0.size > .kibibytes(32) })
        let store = FailingStore(MemoryStore(objects: base.objects))
        let left = BadLeftover(head: Array(try #require(base.objects[pack.name])[..<1024]))
        store.left.withLock { $0 = [left] }
        let (point, _) = try Sample.backup([(content, nil)], to: store)
        #expect(try Sample.restore(SetReader(store.base).point(point.id).streams[0]) == content)
        #expect(left.removed)
    }

    // MARK: - Limits

    @Test func anOrdinaryFilesystemHasNoLimitAndNoLateLists() throws {
        try withStore { (store, _) throws in
            #expect(store.maximumObjectSize == nil)
            #expect(store.listingDelay == 0)
        }
    }

    @Test(
        .enabled(
            if: SmallFilesystem.possible.contains(.vfat), "needs root, loop devices, mkfs.vfat and a kernel with FAT"))
    func onFATTheLimitIsKnownBeforeTheFolderIsMade() throws {
        let small = try SmallFilesystem(.vfat)
        defer { small.end() }
        let store = FolderStore(path: small.path + "/sets/one")
        #expect(store.maximumObjectSize == ByteCount(0xFFFF_FFFF))
        #expect(store.isLocal)
        try store.prepare()
        try store.put("points/x.point", [1])
        let upload = try store.upload()
        try upload.write([2])
        try upload.seal(replacing: "points/x.point")
        #expect(try store.content("points/x.point") == [2])
    }

    @Test(
        .enabled(if: !SmallFilesystem.possible.isEmpty, "needs root and loop devices"),
        arguments: SmallFilesystem.possible)
    func withNotAByteFreeOneCanStillLookRemoveAndAnnounce(kind: SmallFilesystem.Kind) throws {
        let small = try SmallFilesystem(kind)
        defer { small.end() }
        let store = FolderStore(path: small.path + "/set")
        try store.prepare()
        for number in 0..<3 { try store.put("points/\(number).point", [UInt8](repeating: 1, count: 70_000)) }
        small.fill()
        let fault = #expect(throws: Fault.self) {
            try store.put("points/more.point", [UInt8](repeating: 1, count: 70_000))
        }
        #expect(fault?.code == .storeFull)
        let now = Int(try store.clock())
        #expect(abs(now - time(nil)) < 60)
        let mine = try store.announce(.pruner)
        #expect(try FolderStore(path: store.path).announcements().map(\.id) == [mine.id])
        // A mark without content, as for a pack that is to go.
        let mark = try store.upload()
        try mark.seal(as: "gone/x.gone")
        #expect(try store.content("gone/x.gone") == [])
        try store.delete("points/0.point")
        try store.delete("gone/x.gone")
        mine.end()
        #expect(try store.list("points").map(\.name).sorted() == ["points/1.point", "points/2.point"])
        // What was freed can be used again.
        try store.put("points/more.point", [UInt8](repeating: 1, count: 30_000))
    }
}

/// A leftover whose medium fails behind its first bytes.
private final class BadLeftover: ObjectLeftover, @unchecked Sendable {
    let head: [UInt8]
    var removed = false
    init(head: [UInt8]) { self.head = head }
    var name: String { "tmp/bad.part" }
    var size: ByteCount { .mebibytes(3) }
    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        let start = Int(offset.bytes)
        guard start + buffer.byteCount <= head.count else {
            throw Fault(.unreadable, what: "Reading at byte \(start) failed: Input/output error.", remedy: "")
        }
        for index in 0..<buffer.byteCount {
            buffer.storeBytes(of: head[start + index], toByteOffset: index, as: UInt8.self)
        }
    }
    func dropCaches() {}
    func remove() throws(Fault) { removed = true }
}
