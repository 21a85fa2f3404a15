// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry
import TestSupport
import Testing

@Suite struct ByteCountTests {
    @Test(
        arguments: [
            (0, "0 B"), (512, "512 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (1_048_576, "1 MiB"),
            (1_048_575, "1 MiB"), (1_047_552, "1023 KiB"), (1_258_291_200, "1.2 GiB"), (3 << 40, "3 TiB"),
            (.max, "16 EiB"),
        ] as [(UInt64, String)])
    func printsWithOneDecimalPlaceAtMost(bytes: UInt64, text: String) {
        #expect(ByteCount(bytes).description == text)
    }

    @Test func checkedArithmeticReturnsNilInsteadOfWrapping() {
        #expect(ByteCount(.max).adding(ByteCount(1)) == nil)
        #expect(ByteCount(1).subtracting(ByteCount(2)) == nil)
        #expect(ByteCount(1 << 40).multiplied(by: 1 << 40) == nil)
        #expect(ByteCount(.max).roundedUp(to: ByteCount(4096)) == nil)
        #expect(ByteCount(exactly: -1) == nil)
    }

    @Test func roundsToAGrain() {
        #expect(ByteCount(4097).roundedUp(to: ByteCount(4096)) == ByteCount(8192))
        #expect(ByteCount(4097).roundedDown(to: ByteCount(4096)) == ByteCount(4096))
        #expect(ByteCount(8192).roundedUp(to: ByteCount(4096)) == ByteCount(8192))
    }
}

@Suite struct SectorTests {
    @Test(arguments: [0, 1, 256, 511, 513, 1000, 131_072, -512])
    func refusesSizesThatAreNoSectorSize(bytes: Int) { #expect(SectorSize(bytes) == nil) }

    @Test(arguments: [512, 1024, 2048, 4096, 65_536])
    func takesPowersOfTwo(bytes: Int) { #expect(SectorSize(bytes)?.bytes == UInt32(bytes)) }

    @Test func anAddressMeansBytesOnlyWithASectorSize() {
        #expect(LBA(8).offset(.s512) == ByteCount(4096))
        #expect(LBA(8).offset(.s4096) == ByteCount(32_768))
        #expect(LBA(.max).offset(.s512) == nil)
        #expect(LBA(offset: ByteCount(4096), .s4096) == LBA(1))
        #expect(LBA(offset: ByteCount(512), .s4096) == nil)
    }
}

@Suite struct ExtentListTests {
    static func run(_ start: UInt64, _ end: UInt64) -> Extent { Extent(from: ByteCount(start), to: ByteCount(end)) }

    @Test func joinsTouchingAndOverlappingRuns() {
        let list = ExtentList([Self.run(10, 20), Self.run(0, 5), Self.run(20, 30), Self.run(25, 28)])
        #expect(list.extents == [Self.run(0, 5), Self.run(10, 30)])
        #expect(list.byteCount == ByteCount(25))
    }

    @Test func refusesARunThatPassesTheEndOfNumbers() {
        #expect(Extent(start: ByteCount(.max), length: ByteCount(1)) == nil)
    }

    /// Every operation against the obvious one on a set of numbers.
    @Test func agreesWithSetsOfNumbers() {
        var generator = Seeded(42)
        for _ in 0..<2_000 {
            func random() -> (ExtentList, Set<UInt64>) {
                var list: [Extent] = []
                var set: Set<UInt64> = []
                for _ in 0..<Int.random(in: 0...5, using: &generator) {
                    let start = UInt64.random(in: 0..<60, using: &generator)
                    let end = start + UInt64.random(in: 0...8, using: &generator)
                    list.append(Self.run(start, end))
                    set.formUnion(start..<end)
                }
                return (ExtentList(list), set)
            }
            func numbers(_ list: ExtentList) -> Set<UInt64> {
                Set(list.extents.flatMap { $0.start.bytes..<$0.end.bytes })
            }
            let (a, setA) = random()
            let (b, setB) = random()
            let window = Self.run(10, 50)
            #expect(numbers(a) == setA)
            #expect(numbers(a.union(b)) == setA.union(setB))
            #expect(numbers(a.subtracting(b)) == setA.subtracting(setB))
            #expect(numbers(a.intersection(window)) == setA.intersection(Set(10..<50)))
            #expect(numbers(a.complement(in: window)) == Set(10..<50).subtracting(setA))
            for offset in 0..<UInt64(70) { #expect(a.contains(ByteCount(offset)) == setA.contains(offset)) }
            for list in [a, b, a.union(b), a.subtracting(b)] {
                for (left, right) in zip(list.extents, list.extents.dropFirst()) { #expect(left.end < right.start) }
            }
        }
    }

    @Test func widensToAGrainButNotPastTheLimit() {
        let list = ExtentList([Self.run(100, 200), Self.run(5000, 9000)])
        let wide = list.widened(to: ByteCount(4096), limit: ByteCount(9500))
        #expect(wide.extents == [Self.run(0, 9500)])
    }
}

@Suite struct PieceTests {
    @Test func walksEveryPieceThatHoldsAUsedByteOnce() {
        var generator = Seeded(7)
        for _ in 0..<500 {
            let length = UInt64.random(in: 1...200, using: &generator)
            let used = ExtentList(
                (0..<Int.random(in: 0...6, using: &generator)).map { _ in
                    let start = UInt64.random(in: 0..<length, using: &generator)
                    return ExtentListTests.run(start, min(length, start + UInt64.random(in: 0...20, using: &generator)))
                })
            var cursor = GrainCursor(used: used, length: ByteCount(length), grain: ByteCount(16))
            var seen: [UInt64] = []
            while let piece = cursor.next() {
                #expect(piece.length == ByteCount(16) || piece.end == ByteCount(length))
                #expect(!used.intersection(piece).isEmpty)
                seen.append(piece.start.bytes)
            }
            let expected = Set(used.extents.flatMap { $0.start.bytes..<$0.end.bytes }.map { $0 / 16 * 16 })
            #expect(seen == expected.sorted())
        }
    }
}
