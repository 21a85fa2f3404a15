// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry
import TestSupport
import Testing

@testable import FilesystemMaps

struct RunCollectorTests {
    @Test func neighboursAreJoined() {
        var collector = RunCollector()
        collector.add(Extent(from: ByteCount(0), to: ByteCount(4096)))
        collector.add(Extent(from: ByteCount(4096), to: ByteCount(8192)))
        collector.add(Extent(from: ByteCount(9000), to: ByteCount(9001)))
        #expect(collector.list.extents.count == 2)
        #expect(collector.list.byteCount == ByteCount(8193))
    }

    @Test func tooManyRunsAreBoundedAndNothingIsLost() {
        var collector = RunCollector(limit: 1000)
        var exact = ExtentList()
        var generator = Seeded(5)
        var position: UInt64 = 0
        for _ in 0..<20_000 {
            position += UInt64.random(in: 1...100_000, using: &generator)
            let end = position + UInt64.random(in: 1...10_000, using: &generator)
            let run = Extent(from: ByteCount(position), to: ByteCount(end))
            collector.add(run)
            exact.append(run)
            position = end
        }
        #expect(collector.list.extents.count <= 1000)
        #expect(exact.subtracting(collector.list).isEmpty)
        #expect(collector.list.end == exact.end)
    }

    @Test func mirroredBytesHaveTheirBitsInTheOtherOrder() {
        #expect(BitRuns.mirrored(0b1101_0000 as UInt8) == 0b0000_1011)
        #expect(BitRuns.mirrored(0x80_01_F0_12 as UInt32) == 0x01_80_0F_48)
        for value in 0...255 as ClosedRange<UInt8> {
            #expect(BitRuns.mirrored(BitRuns.mirrored(value)) == value)
        }
    }
}
