// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import TestSupport
import Synchronization
import Threads
import Testing

@testable import ImageStore

/// Sets in tar files.
@Suite struct ArchiveTests {
    static let content = Sample.content(900_000, seed: 41)

    /// A set in memory, the same for all tests.
    static let sample: Result<(store: MemoryStore, point: String), any Error> = Result {
        let store = MemoryStore()
        let (point, _) = try Sample.backup([(content, nil)], to: store, options: .init(packSize: .mebibytes(1)))
        return (store, point.id)
    }

    static func write(
        _ objects: [String: [UInt8]], to path: String, partSize: ByteCount? = nil, folder: String = "set"
    ) throws {
        let archive = try ArchiveWriter(path, partSize: partSize, folder: folder, time: 1_700_000_000)
        for name in objects.keys.sorted() { try archive.add(name, objects[name] ?? []) }
        try archive.finish()
    }

    static func file(_ path: String) throws -> [UInt8] { try JudgeTests.file(path) }

    static func put(_ bytes: [UInt8], _ path: String) {
        // A new file each time: ext4 flushes one that is cut and written again.
        _ = unsafe unlink(path)
        let file = unsafe open(path, O_WRONLY | O_CREAT | O_EXCL, 0o644)
        #expect(unsafe Glibc.write(file, bytes, bytes.count) == bytes.count)
        close(file)
    }

    func withFolder(_ body: (String) throws -> Void) throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        try body(folder)
    }

    // MARK: - Writing and reading

    @Test(arguments: [nil, ByteCount(512), ByteCount(10_240), ByteCount(20_000)])
    func aSetIsReadInPlace(partSize: ByteCount?) throws {
        let (sample, point) = try Self.sample.get()
        try withFolder { (folder) throws in
            try Self.write(sample.objects, to: folder + "/a.tar", partSize: partSize)
            let names = partSize == nil ? ["/a.tar"] : ["/a.tar", "/a.tar.001"]
            for name in names {
                let store = try ArchiveStore(folder + name)
                #expect(store.name == folder + "/a.tar")
                let reader = try SetReader(store)
                #expect(try Sample.restore(reader.point(point).streams[0]) == Self.content)
                #expect(try reader.verify(.full).isSound)
            }
            let parts = try FolderStore(path: folder).topLevelNames(limit: 10_000)
            #expect(parts.allSatisfy { !$0.contains("unfinished") })
            if let partSize {
                for part in parts {
                    let size = try #require(try FolderStore(path: folder).open(part)).size
                    #expect(size.bytes <= partSize.bytes / 512 * 512)
                }
                #expect(parts.count > 3)
            } else {
                #expect(parts == ["a.tar"])
            }
        }
    }

    @Test func theSameMembersGiveTheSameBytes() throws {
        let (sample, _) = try Self.sample.get()
        try withFolder { (folder) throws in
            try Self.write(sample.objects, to: folder + "/a.tar")
            try Self.write(sample.objects, to: folder + "/b.tar")
            let first = try Self.file(folder + "/a.tar")
            #expect(try first == Self.file(folder + "/b.tar"))
            // Parts are the same bytes cut.
            try Self.write(sample.objects, to: folder + "/c.tar", partSize: ByteCount(30_208))
            var joined: [UInt8] = []
            for name in try FolderStore(path: folder).topLevelNames(limit: 1000) where name.hasPrefix("c.tar.") {
                joined += try Self.file("\(folder)/\(name)")
            }
            #expect(joined == first)
        }
    }

    @Test func aMemberOfUnknownSizeGetsItWhenItEnds() throws {
        try withFolder { (folder) throws in
            let archive = try ArchiveWriter(folder + "/a.tar", partSize: ByteCount(1024), time: 0)
            try archive.begin("packs/ab/x.pack")
            for number in 0..<10 { try unsafe archive.append([UInt8](repeating: UInt8(number), count: 333).span.bytes) }
            try archive.endMember()
            try archive.add("packs/ab/y.pack", [])
            try archive.finish()
            let store = try ArchiveStore(folder + "/a.tar")
            #expect(try store.content("packs/ab/x.pack")?.count == 3330)
            #expect(try store.content("packs/ab/x.pack")?.last == 9)
            #expect(try store.content("packs/ab/y.pack") == [])
            let handle = try #require(try store.open("packs/ab/x.pack"))
            let fault = #expect(throws: Fault.self) { try handle.bytes(at: ByteCount(3000), count: 331) }
            #expect(fault?.code == .setDamaged)
        }
    }

    @Test func membersOutOfOrderAreRefused() throws {
        try withFolder { (folder) throws in
            let archive = try ArchiveWriter(folder + "/a.tar", time: 0)
            #expect(throws: Fault.self) { try unsafe archive.append([1].span.bytes) }
            try archive.begin("x")
            #expect(throws: Fault.self) { try archive.begin("y") }
            #expect(throws: Fault.self) { try archive.finish() }
        }
    }

    @Test func namesUpTo255BytesFit() throws {
        try withFolder { (folder) throws in
            let long = String(repeating: "a", count: 150)
            try Self.write(["packs/ab/x.pack": [1, 2]], to: folder + "/a.tar", folder: long)
            let members = try #require(Judge.lines("tar -tf \(folder)/a.tar"))
            #expect(members == ["\(long)/packs/ab/x.pack"])
            let archive = try ArchiveWriter(folder + "/b.tar", folder: String(repeating: "b", count: 156), time: 0)
            #expect(throws: Fault.self) { try archive.add("packs/ab/x.pack", [1]) }
        }
    }

    @Test func whatExistsIsNeverReplaced() throws {
        try withFolder { (folder) throws in
            for name in ["/a.tar", "/b.tar.001"] {
                touch(folder + name)
                let fault = #expect(throws: Fault.self) {
                    try ArchiveWriter(folder + name.prefix(6), partSize: ByteCount(512), time: 0)
                }
                #expect(fault?.code == .targetForbidden)
            }
            // A file that appears meanwhile: no part gets its name.
            let archive = try ArchiveWriter(folder + "/c.tar", partSize: ByteCount(512), time: 0)
            try archive.add("x", [1])
            touch(folder + "/c.tar.002")
            #expect(throws: Fault.self) { try archive.finish() }
            #expect(
                try FolderStore(path: folder).topLevelNames(limit: 10) == ["a.tar", "b.tar.001", "c.tar.002"])
        }
    }

    @Test func anUnfinishedArchiveLeavesNothing() throws {
        try withFolder { (folder) throws in
            do {
                let archive = try ArchiveWriter(folder + "/a.tar", partSize: ByteCount(512), time: 0)
                try archive.add("x", [UInt8](repeating: 1, count: 5000))
                #expect(try FolderStore(path: folder).topLevelNames(limit: 100).count == 11)
                archive.abandon()
            }
            #expect(try FolderStore(path: folder).topLevelNames(limit: 100).isEmpty)
            // What a kill left is removed by the next run; what another run holds its lock on is not.
            touch(folder + "/a.tar.12ab.unfinished.001")
            let other = try ArchiveWriter(folder + "/a.tar", time: 0)
            try other.add("x", [2])
            try Self.write(["x": [1]], to: folder + "/a.tar")
            let names = try FolderStore(path: folder).topLevelNames(limit: 100)
            #expect(names.count == 2 && names.contains("a.tar"))
            #expect(!names.contains("a.tar.12ab.unfinished.001"))
            other.abandon()
        }
    }

    @Test(.enabled(if: SmallFilesystem.possible.contains(.tmpfs), "needs root"))
    func aFullFilesystemKeepsNothing() throws {
        let small = try SmallFilesystem(.tmpfs)
        defer { small.end() }
        let archive = try ArchiveWriter(small.path + "/a.tar", partSize: .mebibytes(1), time: 0)
        let fault = #expect(throws: Fault.self) { try archive.add("x", [UInt8](repeating: 1, count: 10 << 20)) }
        #expect(fault?.code == .storeFull)
        #expect(throws: Fault.self) { try archive.finish() }
        archive.abandon()
        #expect(try FolderStore(path: small.path).topLevelNames(limit: 10).isEmpty)
    }

    @Test func anArchiveIsNeverChanged() throws {
        try withFolder { (folder) throws in
            try Self.write(["set.a": [1]], to: folder + "/a.tar")
            let store = try ArchiveStore(folder + "/a.tar")
            #expect(throws: Fault.self) { try store.upload() }
            #expect(throws: Fault.self) { try store.delete("set.a") }
            #expect(throws: Fault.self) { try store.prepare() }
            #expect(throws: Fault.self) { try store.announce(.writer) }
            #expect(try store.leftovers().isEmpty)
            #expect(try store.announcements().isEmpty)
        }
    }

    // MARK: - The judge: GNU tar

    @Test(.timeLimit(.minutes(1))) func whoWaitsForAPackThatFailedFailsWithIt() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let writer = try ArchiveWriter(folder + "/a.tar", time: 0)
        // The head of the pack fits, what follows does not.
        writer.hook = { (number) throws(Fault) in
            if number >= 2 { throw Fault(.storeFull, what: "There is no room.", remedy: "") }
        }
        let store = ArchivingStore(writer)
        let set = SetHeader(id: .random(), created: 0, unitSize: 65_536, parity: 0)
        let heads = (0..<2).map { _ in PackHeader(kind: .data, id: .random(), set: set).bytes }
        let first = try store.upload()
        try first.write(heads[0])
        let second = Mutex<Fault?>(nil)
        try Workers.run(2) { (number, _) throws(Fault) in
            do throws(Fault) {
                if number == 0 {
                    let upload = try store.upload()
                    try upload.write(heads[1])
                } else {
                    usleep(100_000)
                    try first.write([1], at: heads[0].count)
                }
            } catch {
                if number == 0 { second.withLock { $0 = error } }
            }
        }
        // The upload that failed still stands, as in a pack that others write to.
        #expect(second.withLock { $0 }?.code == .storeFull)
        withExtendedLifetime(first) {}
        store.abandon()
    }

    @Test(.enabled(if: Judge.hasTar, "needs GNU tar")) func tarReadsWhatIsWritten() throws {
        let (sample, point) = try Self.sample.get()
        try withFolder { (folder) throws in
            try Self.write(sample.objects, to: folder + "/a.tar", folder: "web01")
            let listing = try #require(Judge.lines("TZ=UTC tar -tvf \(folder)/a.tar --numeric-owner 2>&1"))
            let expected = sample.objects.keys.sorted().map { "web01/" + $0 }
            #expect(listing.map { String($0.split(separator: " ").last ?? "") } == expected)
            #expect(listing.allSatisfy { $0.hasPrefix("-rw-r--r-- 0/0 ") && $0.contains("2023-11-14 22:13") })
            #expect(Judge.run("cd \(folder) && tar -xf a.tar") == 0)
            let reader = try SetReader(FolderStore(path: folder + "/web01"))
            #expect(try Sample.restore(reader.point(point).streams[0]) == Self.content)
            for (name, bytes) in sample.objects { #expect(try Self.file("\(folder)/web01/\(name)") == bytes) }
        }
    }

    @Test(
        .enabled(if: Judge.hasTar, "needs GNU tar"),
        arguments: ["-cf a.tar web01", "-C web01 -cf a.tar .", "--exclude=set.a --exclude=set.b -cf a.tar web01"])
    func whatTarPacksIsRead(arguments: String) throws {
        let (sample, point) = try Self.sample.get()
        try withFolder { (folder) throws in
            let set = FolderStore(path: folder + "/web01")
            try set.prepare()
            for (name, bytes) in sample.objects { try set.put(name, bytes) }
            #expect(unsafe symlink("set.a", "\(folder)/web01/points/link.point") == 0)
            #expect(unsafe link("\(folder)/web01/set.a", "\(folder)/web01/points/zhard.point") == 0)
            for format in ["ustar", "gnu", "pax"] {
                #expect(Judge.run("cd \(folder) && tar --format=\(format) \(arguments)") == 0)
                let store = try ArchiveStore(folder + "/a.tar")
                let reader = try SetReader(store)
                #expect(try Sample.restore(reader.point(point).streams[0]) == Self.content)
                #expect(try store.open("points/link.point") == nil)
            }
        }
    }

    // MARK: - Damage

    @Test func eachMissingOrShortPartIsNamed() throws {
        let (sample, _) = try Self.sample.get()
        try withFolder { (folder) throws in
            try Self.write(sample.objects, to: folder + "/a.tar", partSize: .kibibytes(8))
            let parts = try FolderStore(path: folder).topLevelNames(limit: 100)
            #expect(parts.count > 5)
            for (index, part) in parts.enumerated() {
                let path = "\(folder)/\(part)"
                let isLast = index == parts.count - 1
                #expect(unsafe rename(path, path + ".away") == 0)
                let missing = #expect(throws: Fault.self, "\(part)") { try ArchiveStore(folder + "/a.tar") }
                #expect(missing?.code == .setDamaged)
                #expect(isLast ? missing?.what.contains("cut off") == true : missing?.place == path)
                #expect(unsafe rename(path + ".away", path) == 0)
                let bytes = try Self.file(path)
                #expect(unsafe truncate(path, off_t(bytes.count - 512)) == 0)
                let short = #expect(throws: Fault.self, "\(part)") { try ArchiveStore(folder + "/a.tar") }
                #expect(short?.code == .setDamaged)
                // Of a first part that is short the second one is too large.
                if !isLast, index > 0 { #expect(short?.place == path) }
                Self.put(bytes, path)
            }
            _ = try ArchiveStore(folder + "/a.tar")
        }
    }

    @Test func aCutFileIsNamedAndItsRestCanBeHad() throws {
        let (sample, _) = try Self.sample.get()
        try withFolder { (folder) throws in
            let path = folder + "/a.tar"
            try Self.write(sample.objects, to: path)
            let bytes = try Self.file(path)
            for size in [bytes.count - 512, bytes.count - 1024, bytes.count - 1025, bytes.count / 2, 1000, 512] {
                Self.put(Array(bytes[..<size]), path)
                let fault = #expect(throws: Fault.self, "\(size)") { try ArchiveStore(path) }
                #expect(fault?.code == .setDamaged)
                let rest = try ArchiveStore(path, allowDamage: true)
                #expect(rest.findings.count == 1)
                for object in try rest.list("packs") {
                    #expect(try rest.content(object.name) == sample.objects[object.name])
                }
            }
        }
    }

    @Test func aDamagedHeaderCostsItsMemberOnly() throws {
        let (sample, point) = try Self.sample.get()
        try withFolder { (folder) throws in
            let path = folder + "/a.tar"
            try Self.write(sample.objects, to: path)
            var bytes = try Self.file(path)
            let second = try #require(
                stride(from: 512, to: bytes.count, by: 512).first {
                    Array(bytes[$0..<$0 + 11]) == Array("set/copies/".utf8)
                        || Array(bytes[$0..<$0 + 10]) == Array("set/copies".utf8)
                })
            bytes[second + 3] ^= 1
            Self.put(bytes, path)
            let fault = #expect(throws: Fault.self) { try ArchiveStore(path) }
            #expect(fault?.what.contains("\(second)") == true)
            let rest = try ArchiveStore(path, allowDamage: true)
            #expect(rest.findings.map(\.code) == ["set.archive-damaged"])
            #expect(try Sample.restore(SetReader(rest).point(point).streams[0]) == Self.content)
        }
    }

    @Test func hostileMembersAreNotBelieved() throws {
        try withFolder { (folder) throws in
            let path = folder + "/a.tar"
            func member(_ name: String, _ size: UInt64, _ content: [UInt8], type: UInt8 = 48) -> [UInt8] {
                var block = TarHeader(name: name, size: min(size, TarHeader.maximumSize)).bytes(time: 0) ?? []
                if size > TarHeader.maximumSize {
                    block.replaceSubrange(
                        124..<136, with: Array((String(size, radix: 8) + "            ").utf8.prefix(12)))
                }
                block[156] = type
                block.replaceSubrange(148..<156, with: [UInt8](repeating: 32, count: 8))
                let digits = String(block.reduce(0) { $0 + Int($1) }, radix: 8)
                let text = String(repeating: "0", count: 6 - digits.count) + digits + "\0 "
                block.replaceSubrange(148..<156, with: Array(text.utf8))
                return block + content + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
            }
            let end = [UInt8](repeating: 0, count: 1024)
            // Names that lead elsewhere are left out, links have no content, the first of a name counts.
            Self.put(
                member("set.a", 1, [1]) + member("../set.b", 1, [2]) + member("/points/abs.point", 1, [3])
                    + member("points//x.point", 1, [4]) + member("points/l.point", 5, [], type: 50)
                    + member("points/h.point", 5, [], type: 49) + member("set.a", 1, [6]) + member("points/", 0, [])
                    + member("points/d.point", 0, [], type: 53) + member("points/ok.point", 1, [7]) + end, path)
            let store = try ArchiveStore(path)
            #expect(try store.content("set.a") == [1])
            #expect(try store.list("points").map(\.name) == ["points/ok.point"])
            #expect(try store.topLevelNames(limit: 10) == ["points", "set.a"])
            // Sizes past the end, near 2^63 and not octal.
            for size: UInt64 in [1024, 0xFFFF_FFFF, 0o77_777_777_777, 0o777_777_777_777] {
                Self.put(member("set.a", size, [1]) + end, path)
                let fault = #expect(throws: Fault.self, "\(size)") { try ArchiveStore(path) }
                #expect(fault?.code == .setDamaged)
            }
            // A damaged first header, and the rest.
            Self.put([0] + (member("set.a", 1, [1]) + member("set.b", 1, [2]) + end).dropFirst(), path)
            #expect(throws: Fault.self) { try ArchiveStore(path) }
            #expect(try ArchiveStore(path, allowDamage: true).topLevelNames(limit: 3) == ["set.b"])
            // What is no tar file at all.
            Self.put([UInt8](repeating: 0x41, count: 4096), path)
            let fault = #expect(throws: Fault.self) { try ArchiveStore(path) }
            #expect(fault?.code == .wrongKind)
            let none = #expect(throws: Fault.self) { try ArchiveStore(folder + "/none.tar") }
            #expect(none?.code == .missing)
            let notFile = #expect(throws: Fault.self) { try ArchiveStore(folder) }
            #expect(notFile?.code == .wrongKind)
            #expect(unsafe mkfifo(folder + "/fifo", 0o644) == 0)
            #expect(throws: Fault.self) { try ArchiveStore(folder + "/fifo") }
        }
    }

    @Test func theNumberOfMembersIsBounded() throws {
        try withFolder { (folder) throws in
            let path = folder + "/a.tar"
            let objects = (0..<20).map { ("packs/ab/\($0).pack", [UInt8]()) }
            try Self.write(Dictionary(uniqueKeysWithValues: objects), to: path)
            #expect(try ArchiveStore(path, maximumMembers: 20).list("packs").count == 20)
            let fault = #expect(throws: Fault.self) { try ArchiveStore(path, maximumMembers: 19) }
            #expect(fault?.code == .unsupported)
            #expect(ArchiveStore.maximumMembers == 1_000_000)
        }
    }

    @Test func mutatedArchivesNeverCrashAndNeverInventMembers() throws {
        var objects: [String: [UInt8]] = ["set.a": [1, 2, 3], "set.b": [1, 2, 3]]
        for number in 0..<6 { objects["packs/ab/\(number).pack"] = Sample.content(700 + number * 100, seed: 5) }
        try withFolder { (folder) throws in
            let path = folder + "/a.tar"
            try Self.write(objects, to: path)
            let whole = try Self.file(path)
            var random = Seeded(77)
            var refused = 0
            for round in 0..<3000 {
                Self.put(random.mutated(whole), path)
                for allowDamage in [false, true] {
                    do throws(Fault) {
                        let store = try ArchiveStore(path, allowDamage: allowDamage)
                        for object in try store.list("packs") {
                            guard let handle = try store.open(object.name), let size = handle.size.int,
                                size <= whole.count + 64
                            else {
                                Issue.record("round \(round): \(object)")
                                continue
                            }
                            _ = try handle.bytes(at: .zero, count: size)
                        }
                    } catch { refused += 1 }
                }
            }
            #expect(refused > 500)
        }
    }

    @Test func headersSurviveARoundTrip() throws {
        var random = Seeded(3)
        for _ in 0..<2000 {
            let name = (0..<Int.random(in: 1...4, using: &random)).map { _ in
                String(repeating: "n", count: Int.random(in: 1...60, using: &random))
            }.joined(separator: "/")
            let header = TarHeader(name: name, size: UInt64.random(in: 0...TarHeader.maximumSize, using: &random))
            guard let bytes = header.bytes(time: UInt64.random(in: 0...(.max), using: &random)) else {
                #expect(name.utf8.count > 100)
                continue
            }
            #expect(try unsafe TarHeader(bytes.span.bytes) == header)
        }
        #expect(TarHeader(name: "x", size: TarHeader.maximumSize + 1).bytes(time: 0) == nil)
    }
}

extension Judge {
    static let hasTar = run("tar --version 2>/dev/null | grep -q 'GNU tar'") == 0

    /// What a command prints, by lines; `nil` when it fails.
    static func lines(_ command: String) -> [String]? {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        guard run("{ \(command); } > \(folder)/out") == 0, let bytes = try? JudgeTests.file(folder + "/out") else {
            return nil
        }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
    }
}
