// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import TestSupport
import Testing

@testable import ImageStore

/// One point as one file.
@Suite struct PointArchiveTests {
    static let content = Sample.content(5_000_000, seed: 61)

    static func sample(encrypted: Bool = false, parity: Int = 0) throws -> (SetReader, MemoryStore) {
        let store = MemoryStore()
        var options = SetWriter.Options(packSize: .mebibytes(1), parity: parity)
        if encrypted { options.encryption = NewEncryption(cost: 10) }
        try Sample.backup([(content, nil)], to: store, name: "one", options: options, keys: CopyTests.secret)
        try Sample.backup(
            [(CopyTests.second, CopyTests.used), (content, nil)], to: store, name: "two", keys: CopyTests.secret)
        return (try SetReader(store, keys: CopyTests.secret), store)
    }

    func withFolder(_ body: (String) throws -> Void) throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        try body(folder)
    }

    static func small(_ size: ByteCount?) -> (PointArchive.Options, SetWriter.Options) {
        var options = PointArchive.Options(time: 1_700_000_000)
        options.partSize = size
        options.folder = "one"
        return (options, SetWriter.Options(packSize: .mebibytes(1)))
    }

    @Test(arguments: [nil, ByteCount(20_000), ByteCount.mebibytes(1)], [false, true])
    func anArchiveIsASetWithOnePoint(partSize: ByteCount?, encrypted: Bool) throws {
        let (source, store) = try Self.sample(encrypted: encrypted, parity: encrypted ? 5 : 0)
        let objects = store.objects
        for name in try source.points().points.map(\.id) {
            try withFolder { (folder) throws in
                let point = try source.point(name)
                let (options, writing) = Self.small(partSize)
                let writer = try ArchiveWriter(
                    folder + "/a.tar", partSize: options.partSize, folder: "one", time: options.time)
                let report = try PointArchive.write(point, to: writer, options, writing) { _ in }
                #expect(report.source.id == name && report.point.facts.origin?.point == name)
                #expect(report.point.number == point.summary.number)
                #expect(
                    try FolderStore(path: folder).topLevelNames(limit: 10_000).map { "\(folder)/\($0)" }
                        == report.files)
                let archive = try ArchiveStore(folder + "/a.tar")
                let reader = try SetReader(archive, keys: CopyTests.secret)
                #expect(reader.set == source.set)
                #expect(try reader.points().points.map(\.id) == [report.point.id])
                #expect(try reader.verify(.full).isSound)
                let copy = try reader.point(report.point.id)
                #expect(copy.streams.count == point.streams.count)
                for (one, other) in zip(point.streams, copy.streams) {
                    #expect(try Sample.restore(one) == Sample.restore(other))
                }
                // Only what this point needs, and second copies of what is small.
                #expect(report.size.bytes < UInt64(objects.values.reduce(0) { $0 + $1.count }) + 200_000)
                #expect(try archive.list("copies/points").count == 1 && archive.list("copies/packs").count >= 1)
                if encrypted { #expect(try archive.list("keys").count == 1 && archive.list("copies/keys").count == 1) }
                // It goes back into a set as any set does: its point is known there.
                let home = try SetCopy.run(from: reader, to: MemoryStore(objects: objects), options: SetCopy.Options())
                #expect(home.copied.isEmpty && home.present.count == 1)
            }
        }
        #expect(store.objects == objects)
    }

    @Test func manyThreadsGiveAWholeArchive() throws {
        let (source, _) = try Self.sample()
        try withFolder { (folder) throws in
            var (options, writing) = Self.small(ByteCount(300_000))
            options.threads = 8
            writing.packSize = .mebibytes(1)
            let writer = try ArchiveWriter(folder + "/a.tar", partSize: options.partSize, time: 0)
            let report = try PointArchive.write(source.point(), to: writer, options, writing) { _ in }
            let reader = try SetReader(ArchiveStore(folder + "/a.tar"))
            #expect(try Sample.restore(reader.point(report.point.id).streams[1]) == Self.content)
        }
    }

    @Test func aMissingPartIsNamed() throws {
        let (source, _) = try Self.sample()
        try withFolder { (folder) throws in
            var options = PointArchive.Options(time: 0)
            options.partSize = ByteCount(300_000)
            let report = try PointArchive.write(source.point(), to: folder + "/a.tar", options: options)
            #expect(report.files.count > 2)
            _ = unsafe unlink(report.files[1])
            let fault = #expect(throws: Fault.self) { try ArchiveStore(folder + "/a.tar") }
            #expect(fault?.place == report.files[1])
            #expect(fault?.what.contains("Part 2") == true)
        }
    }

    @Test func aFailureAtAnyMomentLeavesNothing() throws {
        let (source, store) = try Self.sample()
        let objects = store.objects
        let point = try source.point()
        try withFolder { (folder) throws in
            touch(folder + "/other")
            var (options, writing) = Self.small(.mebibytes(1))
            options.threads = 1
            writing.packSize = .mebibytes(1)
            var changes = 0
            for moment in 0..<10_000 {
                let writer = try ArchiveWriter(folder + "/a.tar", partSize: options.partSize, time: 0)
                writer.hook = { (number) throws(Fault) in
                    changes = max(changes, number + 1)
                    guard number < moment else {
                        throw Fault(.storeFailed, what: "The medium is gone.", place: "test", remedy: "")
                    }
                }
                if (try? PointArchive.write(point, to: writer, options, writing, { _ in })) != nil { break }
                #expect(try FolderStore(path: folder).topLevelNames(limit: 100) == ["other"], "failure \(moment)")
            }
            #expect(changes > 40)
            let reader = try SetReader(ArchiveStore(folder + "/a.tar"))
            #expect(try Sample.restore(reader.point().streams[1]) == Self.content)
        }
        #expect(store.objects == objects)
    }

    @Test func whatIsWrittenWrongGetsNoName() throws {
        let (source, _) = try Self.sample()
        try withFolder { (folder) throws in
            let (options, writing) = Self.small(nil)
            let writer = try ArchiveWriter(folder + "/a.tar", time: 0)
            // Between the last write and the reading back, one bit turns on the medium.
            var isTurned = false
            writer.hook = { (_) throws(Fault) in
                guard !isTurned, let name = try? FolderStore(path: folder).topLevelNames(limit: 1).first else { return }
                let file = unsafe open("\(folder)/\(name)", O_RDWR)
                defer { close(file) }
                var status = stat()
                guard unsafe fstat(file, &status) == 0, status.st_size > 1_000_000 else { return }
                var byte: UInt8 = 0
                _ = unsafe pread(file, &byte, 1, 500_000)
                byte ^= 16
                isTurned = true
                _ = unsafe pwrite(file, &byte, 1, 500_000)
            }
            let fault = #expect(throws: Fault.self) {
                try PointArchive.write(source.point(), to: writer, options, writing) { _ in }
            }
            #expect(fault?.code == .storeFailed && fault?.what.contains("reads back differently") == true)
            #expect(try FolderStore(path: folder).topLevelNames(limit: 10).isEmpty)
        }
    }

    @Test func aDamagedPointIsNotArchived() throws {
        let (_, store) = try Self.sample()
        let name = try #require(
            store.objects.filter { $0.key.hasPrefix("packs/") }.max { $0.value.count < $1.value.count }?.key)
        store.objects[name]?[5000] ^= 1
        let reader = try SetReader(store)
        try withFolder { (folder) throws in
            let point = try reader.point()
            let fault = #expect(throws: Fault.self) {
                try PointArchive.write(point, to: folder + "/a.tar", options: .init(time: 0))
            }
            #expect(fault?.code == .setDamaged)
            #expect(try FolderStore(path: folder).topLevelNames(limit: 10).isEmpty)
        }
    }
}

extension PointArchiveTests {
    @Test func partsThatWereNotAllNamedAreNamedByTheNextRun() throws {
        let (source, _) = try Self.sample()
        try withFolder { (folder) throws in
            var options = PointArchive.Options(time: 0)
            options.partSize = ByteCount(300_000)
            let report = try PointArchive.write(source.point(), to: folder + "/a.tar", options: options)
            #expect(report.files.count > 3)
            // As a kill between two renames leaves it.
            for (index, name) in report.files.prefix(2).enumerated() {
                _ = unsafe rename(name, "\(folder)/a.tar.12ab.unfinished.00\(index + 1)")
            }
            let fault = #expect(throws: Fault.self) {
                try ArchiveWriter(folder + "/a.tar", partSize: ByteCount(512), time: 0)
            }
            #expect(fault?.code == .targetForbidden)
            #expect(try SetReader(ArchiveStore(folder + "/a.tar")).verify(.full).isSound)
            // Parts of something else stay what they are.
            _ = unsafe rename(report.files[0], "\(folder)/a.tar.12ab.unfinished.001")
            _ = unsafe unlink(report.files[2])
            let stale = #expect(throws: Fault.self) {
                try ArchiveWriter(folder + "/a.tar", partSize: ByteCount(512), time: 0)
            }
            #expect(stale?.code == .targetForbidden && stale?.place == report.files.last)
            #expect(unsafe access("\(folder)/a.tar.12ab.unfinished.001", F_OK) == 0)
        }
    }
}
