// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import ImageStore
import MachineModel
import PointDisk
import TestSupport
import Testing

/// A disk of 3 MiB with two volumes, in a set in memory.
private struct Sample {
    let bytes: [UInt8]
    let point: RecoveryPoint
    static let volumes = [
        Extent(from: .mebibytes(1), to: .kibibytes(1024 + 700)), Extent(from: .mebibytes(2), to: .mebibytes(3)),
    ]
    /// In use: the first and last sectors of the disk, parts of the volumes.
    static let used = [
        ExtentList([Extent(from: .zero, to: .kibibytes(64)), Extent(from: ByteCount(3 << 20 - 512), to: .mebibytes(3))])
            .subtracting(ExtentList(volumes)),
        ExtentList([Extent(from: .zero, to: .kibibytes(300)), Extent(from: .kibibytes(512), to: .kibibytes(700))]),
        ExtentList(Extent(from: ByteCount(4096), to: .kibibytes(1000))),
    ]

    init() throws {
        var seed = Seeded(5)
        var bytes = [UInt8](repeating: 0, count: 3 << 20)
        for index in stride(from: 0, to: bytes.count, by: 61) { bytes[index] = UInt8.random(in: 1...255, using: &seed) }
        let store = MemoryStore()
        let writer = try SetWriter(store)
        let whole = Extent(from: .zero, to: .mebibytes(3))
        let streams = [
            StreamDescription(disk: 0, kind: .remainder, extent: whole, used: Sample.used[0]),
            StreamDescription(disk: 0, kind: .volume(1), extent: Sample.volumes[0], used: Sample.used[1]),
            StreamDescription(disk: 0, kind: .volume(2), extent: Sample.volumes[1], used: Sample.used[2]),
        ]
        let worker = try UnitWorker(writer)
        for description in streams {
            let stream = try writer.beginStream(description)
            while let piece = stream.nextPiece() {
                let start = Int((description.extent.start + piece.extent.start).bytes)
                var part = Array(bytes[start..<start + Int(piece.extent.length.bytes)])
                var span = part.mutableSpan
                var raw = unsafe span.mutableBytes
                try worker.add(piece, of: stream, &raw)
            }
        }
        let model = DiskModel(path: "/dev/old", size: .mebibytes(3), sectorSize: .s4096)
        let summary = try writer.commit(
            PointFacts(
                name: "", time: 0, tool: "test", machine: MachineFacts(relight: "test"), disks: [model]))
        point = try SetReader(store).point(summary.id)
        // What is expected of the whole disk: everything not in use is zero.
        var expected = [UInt8](repeating: 0, count: bytes.count)
        for (used, start) in zip(Sample.used, [ByteCount.zero, Sample.volumes[0].start, Sample.volumes[1].start]) {
            for extent in used.extents {
                let range = Int((extent.start + start).bytes)..<Int((extent.end + start).bytes)
                expected.replaceSubrange(range, with: bytes[range])
            }
        }
        self.bytes = expected
    }
}

struct PointDiskTests {
    @Test func aDiskReadsAsItWas() throws {
        let sample = try Sample()
        let disk = try PointDisk(sample.point)
        #expect(disk.length == .mebibytes(3) && disk.sectorSize == .s4096)
        #expect(try disk.bytes(at: .zero, count: 3 << 20) == sample.bytes)
        var seed = Seeded(6)
        for _ in 0..<200 {
            let start = Int.random(in: 0..<sample.bytes.count, using: &seed)
            let count = min(Int.random(in: 0...200_000, using: &seed), sample.bytes.count - start)
            let read = try disk.bytes(at: ByteCount(UInt64(start)), count: count)
            #expect(read == Array(sample.bytes[start..<start + count]))
        }
    }

    @Test func aVolumeReadsAsItWas() throws {
        let sample = try Sample()
        let stream = try #require(sample.point.streams.first { $0.description.kind == .volume(1) })
        let volume = PointVolume(stream, sectorSize: .s512)
        #expect(volume.length == .kibibytes(700))
        let expected = Array(sample.bytes[1 << 20..<1 << 20 + 700 << 10])
        for (start, count) in [(0, 700 << 10), (0, 512), (65530, 20), (131_072, 65536), (700 << 10 - 7, 7), (5, 0)] {
            #expect(
                try volume.bytes(at: ByteCount(UInt64(start)), count: count) == Array(expected[start..<start + count]))
        }
        #expect(throws: Fault.self) { try volume.bytes(at: .kibibytes(699), count: 1025) }
    }

    @Test func aDiskThatIsNotThereIsSaid() throws {
        let sample = try Sample()
        #expect {
            try PointDisk(sample.point, disk: 1)
        } throws: { error in
            (error as? Fault)?.code == .missing
        }
    }
}
