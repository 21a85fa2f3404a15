// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization
import TestSupport
import Testing
import Threads

@testable import ImageStore

/// Many threads, small packs, huge streams, little memory.
@Suite struct ScaleTests {
    @Test func severalThreadsStoreAndRestoreTheSameBytes() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        var random = Seeded(81)
        let pattern = (0..<(1 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
        var content: [UInt8] = []
        // Packs of 1 MiB fill quickly, so threads meet at their ends; some content comes again.
        for index in 0..<24 { content += index % 5 == 4 ? pattern : pattern.map { $0 &+ UInt8(index) } }
        let length = content.count
        let source = content
        let store = FolderStore(path: folder)
        let writer = try SetWriter(store, options: .init(packSize: .mebibytes(1)))
        let stream = try writer.beginStream(Sample.stream(length))
        try Workers.run(4) { (_, stop) throws(Fault) in
            let worker = try UnitWorker(writer)
            while !stop.isSet, let piece = stream.nextPiece() {
                var bytes = Array(source[Sample.range(piece.extent)])
                var span = bytes.mutableSpan
                var raw = unsafe span.mutableBytes
                try worker.add(piece, of: stream, &raw)
            }
        }
        _ = try writer.commit(Sample.facts("threads"), threads: 4)
        #expect(try store.list("packs").count > 20)
        #expect(try store.list("packs").allSatisfy { $0.size <= .mebibytes(1) })
        let reader = try SetReader(store)
        #expect(try reader.verify(.full, threads: 4).isSound)
        let point = try reader.point()
        let cursor = try point.streams[0].pieces()
        let restored = Mutex([UInt8](repeating: 0, count: length))
        try Workers.run(4) { (_, stop) throws(Fault) in
            let decoder = try PieceDecoder(point)
            while !stop.isSet, let piece = cursor.next() {
                try decoder.decode(piece) { (bytes: RawSpan) throws(Fault) in
                    let copy = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
                    restored.withLock { $0.replaceSubrange(Sample.range(piece.extent), with: copy) }
                }
            }
        }
        #expect(restored.withLock { $0 } == content)
    }

    @Test func aHugeAlmostEmptyStreamTakesLittle() throws {
        // 2^50 bytes with three used places, one of them at the very end in a short last unit.
        let length = ByteCount((1 << 50) + 1000)
        let used = ExtentList([
            Extent(from: ByteCount(10), to: ByteCount(20)),
            Extent(from: ByteCount(1 << 45), to: ByteCount((1 << 45) + 5_000_000)),
            Extent(from: ByteCount((1 << 50) + 900), to: length),
        ])
        let store = MemoryStore()
        let writer = try SetWriter(store)
        let worker = try UnitWorker(writer)
        let stream = try writer.beginStream(
            StreamDescription(disk: 0, kind: .volume(1), extent: Extent(from: .zero, to: length), used: used))
        var pieces = 0
        while let piece = stream.nextPiece() {
            pieces += 1
            // Zeros in the middle place, so that it is used but not stored.
            var bytes = [UInt8](
                repeating: piece.extent.start == ByteCount(1 << 45) ? 0 : 9, count: Int(piece.extent.length.bytes))
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try worker.add(piece, of: stream, &raw)
        }
        #expect(pieces == 22)
        _ = try writer.commit(Sample.facts("huge"))
        #expect(store.objects.values.reduce(0) { $0 + $1.count } < 20_000)
        let opened = try SetReader(store).point().streams[0]
        #expect(opened.length == length && opened.description.used == used)
        func bytes(_ start: UInt64, _ count: Int) throws -> [UInt8] {
            var bytes = [UInt8](repeating: 1, count: count)
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try opened.read(at: ByteCount(start), into: &raw)
            return bytes
        }
        #expect(try bytes(5, 20) == [0, 0, 0, 0, 0] + [UInt8](repeating: 9, count: 10) + [0, 0, 0, 0, 0])
        #expect(try bytes((1 << 50) + 890, 110) == [UInt8](repeating: 0, count: 10) + [UInt8](repeating: 9, count: 100))
        #expect(throws: Fault.self) { try bytes((1 << 50) + 990, 11) }
        let cursor = try opened.pieces()
        var seen = ExtentList()
        while let piece = cursor.next() { for extent in piece.used.extents { seen.append(extent) } }
        #expect(seen == used)
    }

    @Test func withoutMemoryForTheIndexEverythingIsStillRight() throws {
        let store = MemoryStore()
        // 4,096 ids are remembered at least; a set with more units than that shares less, and restores the same.
        var content = [UInt8](repeating: 0, count: 5_000 << 14)
        for unit in 0..<5_000 {
            content[unit << 14] = UInt8(unit & 0xFF)
            content[unit << 14 + 1] = UInt8(unit >> 8)
            content[unit << 14 + 2] = 1
        }
        let options = SetWriter.Options(indexMemory: .zero, unitSize: .kibibytes(16))
        try Sample.backup([(content, nil)], to: store, options: options)
        let (_, statistics) = try Sample.backup([(content, nil)], to: store, options: options)
        #expect(statistics.shared > .zero && statistics.new > .zero)
        #expect(try Sample.restore(SetReader(store).point().streams[0]) == content)
    }

    @Test func aMapWithTooManyRunsIsWidenedNeverNarrowed() {
        let list = ExtentList((0..<1000).map { Extent(from: ByteCount($0 * 9000 + 1), to: ByteCount($0 * 9000 + 100)) })
        let length = ByteCount(9_000_000)
        #expect(SetWriter.coarser(list, runs: 1000, length) == list)
        for runs in [1, 7, 400, 999] {
            let coarse = SetWriter.coarser(list, runs: runs, length)
            #expect(coarse.extents.count <= runs)
            #expect(coarse.end <= length)
            #expect(list.extents.allSatisfy { coarse.covers($0) })
        }
    }

    @Test func theIndexFindsWhatItWasGiven() {
        let index = UnitIndex(memory: 64 << 20)
        func id(_ number: UInt64) -> UnitID { UnitID(a: number &* 0x9E37_79B9_7F4A_7C15, b: number, c: 0, d: 0) }
        for number in 0..<UInt64(100_000) {
            index.insert(id(number), pack: UInt32(number % 7), offset: Int(number) * 16, index: Int(number % 16))
        }
        // The same place again is not kept twice; another place for the same prefix is.
        index.insert(id(5), pack: 5, offset: 80, index: 5)
        #expect(index.count == 100_000)
        index.insert(id(5), pack: 99, offset: 0, index: 0)
        #expect(index.candidates(id(5)).map(\.pack).sorted() == [5, 99])
        for number in 0..<UInt64(100_000) {
            let place = index.candidates(id(number)).min { $0.pack < $1.pack }
            if place?.offset != Int(number) * 16 || place?.pack != UInt32(number % 7)
                || place?.index != Int(number % 16)
            {
                Issue.record("id \(number) is not found where it was put")
                break
            }
        }
        #expect(index.candidates(id(100_000)).isEmpty)
        #expect(!index.isFull && index.memory >= 100_001 * 16 && index.memory <= 100_001 * 16 * 2)
    }

    @Test func onePieceCountMatchesForAnyUsedMap() throws {
        // Pages are finished when the pieces that were counted for them have come: for any map the count must be right.
        var random = Seeded(91)
        for _ in 0..<60 {
            let length = Int.random(in: 1...(40 << 20), using: &random)
            var used = ExtentList()
            var position = 0
            while position < length {
                let gap = Int.random(in: 0...3_000_000, using: &random)
                let run = Int.random(in: 1...600_000, using: &random)
                guard position + gap < length else { break }
                used.append(
                    Extent(
                        from: ByteCount(UInt64(position + gap)),
                        to: ByteCount(UInt64(min(length, position + gap + run)))))
                position += gap + run
            }
            let store = MemoryStore()
            let writer = try SetWriter(store)
            let worker = try UnitWorker(writer)
            let stream = try writer.beginStream(Sample.stream(length, used: used))
            var covered = ExtentList()
            while let piece = stream.nextPiece() {
                #expect(piece.extent.start.isMultiple(of: .kibibytes(64)) && piece.extent.length <= .kibibytes(256))
                for extent in piece.used.extents { covered.append(extent) }
                var bytes = [UInt8](repeating: 3, count: Int(piece.extent.length.bytes))
                var span = bytes.mutableSpan
                var raw = unsafe span.mutableBytes
                try worker.add(piece, of: stream, &raw)
            }
            #expect(covered == used)
            _ = try writer.commit(Sample.facts("map"), readBack: false)
            let opened = try SetReader(store).point().streams[0]
            #expect(try Sample.restore(opened) == Sample.masked([UInt8](repeating: 3, count: length), used))
        }
    }
}
