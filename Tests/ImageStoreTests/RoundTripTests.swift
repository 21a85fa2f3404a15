// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import ImageStore
import Testing

@Suite struct RoundTripTests {
    static let used = ExtentList([
        Extent(from: ByteCount(0), to: ByteCount(5_000)),
        Extent(from: ByteCount(70_001), to: ByteCount(400_007)),
        Extent(from: ByteCount(900_000), to: ByteCount(1_300_000)),
    ])

    @Test func aVolumeComesBackByteForByteFromMemory() throws {
        let content = Sample.content(3_000_001, seed: 1)
        let store = MemoryStore()
        let (point, _) = try Sample.backup([(content, nil)], to: store)
        let opened = try SetReader(store).point(point.id)
        #expect(try Sample.restore(opened.streams[0]) == content)
        #expect(try Sample.restoreRandomly(opened.streams[0], step: 77_777) == content)
    }

    @Test func unusedBytesReadAsZeros() throws {
        let content = Sample.content(1_500_000, seed: 2)
        let store = MemoryStore()
        try Sample.backup([(content, Self.used)], to: store)
        let stream = try SetReader(store).point().streams[0]
        #expect(try Sample.restore(stream) == Sample.masked(content, Self.used))
        #expect(try Sample.restoreRandomly(stream, step: 100_003) == Sample.masked(content, Self.used))
        #expect(stream.description.used == Self.used)
    }

    @Test func aSetInAFolderComesBack() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let content = Sample.content(2_000_000, seed: 3)
        let store = FolderStore(path: folder + "/new/set")
        try Sample.backup([(content, nil), (Array(content.reversed()), Self.used)], to: store)
        let point = try SetReader(FolderStore(path: folder + "/new/set/")).point()
        #expect(try Sample.restore(point.streams[0]) == content)
        #expect(try Sample.restore(point.streams[1]) == Sample.masked(Array(content.reversed()), Self.used))
    }
}
