// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import TestSupport
import Testing

@testable import ImageStore

/// Finding and repairing damage with nothing but the pack.
@Suite struct ParityRepairTests {
    /// 130 blocks in three groups of 44, 43 and 43 data and 22 parity blocks.
    static let large = Result { try ParitySample(130 * 4096 - 1600, percent: 50, seed: 221) }
    /// Two blocks, the second short, in one group with two parity blocks.
    static let small = Result { try ParitySample(4096 + 160, percent: 5, seed: 222) }

    static func expectRepaired(
        _ damaged: [UInt8], _ sample: ParitySample, unreadable: [Range<Int>] = [],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let result = try #require(
            try ParitySample.repair(damaged, unreadable: unreadable), sourceLocation: sourceLocation)
        #expect(!result.check.isSound, sourceLocation: sourceLocation)
        #expect(result.check.beyondRepair.isEmpty && result.repair.lost.isEmpty, sourceLocation: sourceLocation)
        #expect(result.repair.isProven && result.repair.isTrustworthy, sourceLocation: sourceLocation)
        #expect(result.repair.repaired == result.check.damaged, sourceLocation: sourceLocation)
        let same = result.bytes == sample.bytes
        #expect(same, sourceLocation: sourceLocation)
    }

    @Test func aSoundPackIsSoundAndNothingIsWritten() throws {
        for sample in [try Self.large.get(), try Self.small.get()] {
            let result = try #require(try ParitySample.repair(sample.bytes))
            #expect(result.check.isSound && result.repair.repaired.isEmpty && result.repair.isProven)
            #expect((result.bytes == sample.bytes) as Bool)
        }
    }

    @Test func aFlipOfAnyByteIsFoundAndRepaired() throws {
        let sample = try Self.small.get()
        for place in sample.bytes.indices {
            var damaged = sample.bytes
            damaged[place] ^= UInt8(1 + place % 255)
            try Self.expectRepaired(damaged, sample)
        }
    }

    @Test func anySingleBlockIsRepaired() throws {
        let sample = try Self.large.get()
        for index in stride(from: 0, to: sample.layout.blocks, by: 5) {
            try Self.expectRepaired(sample.losing([index]), sample)
        }
    }

    @Test func burstsUpToTheLimitAreRepaired() throws {
        let sample = try Self.large.get()
        let layout = sample.layout
        #expect(layout.groups == 3 && layout.parityPerGroup == 22)
        // As many blocks in a row as there are parity blocks; one less where the burst is not aligned.
        let most = layout.groups * layout.parityPerGroup
        for first in stride(from: 0, through: layout.dataBlocks - most, by: 16) {
            try Self.expectRepaired(sample.losing(first..<first + most), sample)
        }
        var damaged = sample.bytes
        for place in 4096 * 9 + 77..<4096 * 9 + 77 + (most - 1) * 4096 { damaged[place] ^= 0x55 }
        try Self.expectRepaired(damaged, sample)
        // All parity blocks, and a burst across the end of the body, the first header, the first table and parity.
        try Self.expectRepaired(sample.losing(layout.dataBlocks..<layout.blocks), sample)
        damaged = sample.bytes
        for place in layout.bodyLength - 20 * 4096..<layout.parity + 20 * 4096 { damaged[place] = 0 }
        try Self.expectRepaired(damaged, sample)
    }

    @Test(arguments: 0..<12) func anyLossUpToTheParityOfEachGroupIsRepaired(seed: Int) throws {
        var random = Seeded(UInt64(1000 + seed))
        let sample = try Self.large.get()
        let layout = sample.layout
        var lost: [Int] = []
        for group in 0..<layout.groups {
            let members = (0..<layout.blocks).filter { layout.group($0) == group }
            let count = seed < 4 ? layout.parityPerGroup : Int.random(in: 0...layout.parityPerGroup, using: &random)
            lost += members.shuffled(using: &random).prefix(count)
        }
        try Self.expectRepaired(sample.losing(lost), sample)
    }

    @Test(arguments: 0..<6) func oneMoreThanTheParityOfAGroupIsRefusedAndOthersAreRepaired(seed: Int) throws {
        var random = Seeded(UInt64(2000 + seed))
        let sample = try Self.large.get()
        let layout = sample.layout
        let group = seed % layout.groups
        let members = (0..<layout.blocks).filter { layout.group($0) == group }.shuffled(using: &random)
        let lost = Array(members.prefix(layout.parityPerGroup + 1))
        let others = (0..<layout.blocks).filter { layout.group($0) != group }.shuffled(using: &random).prefix(20)
        let damaged = sample.losing(lost + others)
        let result = try #require(try ParitySample.repair(damaged))
        #expect(result.check.beyondRepair == [group])
        #expect(result.repair.lost == lost.sorted() && result.repair.repaired == others.sorted())
        #expect(!result.repair.isProven && result.repair.isTrustworthy)
        // Blocks of the group are as they were found, all others as they should be.
        #expect((result.bytes == sample.losing(lost)) as Bool)
    }

    @Test func packsOfAllSizesSurviveWhatTheyPromise() throws {
        var random = Seeded(223)
        for blocks in [1, 2, 3, 4, 7, 40, 41, 99] {
            for (percent, seed) in [(1, 1), (5, 2), (50, 3)] {
                let length = blocks * 4096 - Int.random(in: 0..<256, using: &random) * 16
                let sample = try ParitySample(length, percent: percent, seed: UInt64(blocks * 10 + seed))
                let lost = (0..<sample.layout.blocks).shuffled(using: &random).prefix(sample.layout.parityPerGroup)
                try Self.expectRepaired(sample.losing(lost), sample)
            }
        }
    }

    @Test func damagedHeadersAndTablesAreRepaired() throws {
        let sample = try Self.large.get()
        let layout = sample.layout
        let parts = [
            layout.firstHeader..<layout.firstTable, layout.firstTable..<layout.parity,
            layout.secondTable..<layout.secondHeader, layout.secondHeader..<layout.end,
        ]
        for lost in [[0], [1], [2], [3], [0, 1], [2, 3], [0, 2], [1, 3]] {
            var damaged = sample.losing([3, 17, layout.dataBlocks + 5])
            for part in lost { for place in parts[part] { damaged[place] = 0xA5 } }
            try Self.expectRepaired(damaged, sample)
        }
    }

    @Test func bothTablesMayBeDamagedInDifferentPlaces() throws {
        let sample = try Self.large.get()
        let layout = sample.layout
        var damaged = sample.losing([3, 17])
        for place in layout.firstTable..<layout.firstTable + 400 { damaged[place] ^= 1 }
        for place in layout.secondHeader - 400..<layout.secondHeader { damaged[place] ^= 1 }
        try Self.expectRepaired(damaged, sample)
    }

    @Test func aBlockBothTablesHaveForgottenIsProvenByTheHashOfAll() throws {
        let sample = try Self.large.get()
        let layout = sample.layout
        var damaged = sample.losing([3])
        for table in [layout.firstTable, layout.secondTable] { damaged[table + 3 * 8] ^= 1 }
        let result = try #require(try ParitySample.repair(damaged))
        #expect(result.repair.unconfirmed == [3] && result.repair.isProven)
        #expect((result.bytes == sample.bytes) as Bool)
        // With another group beyond repair nothing proves it any more.
        let members = (0..<layout.blocks).filter { layout.group($0) == 1 }.prefix(layout.parityPerGroup + 1)
        let worse = try #require(try ParitySample.repair(sample.losing(members, in: damaged)))
        #expect(worse.repair.unconfirmed == [3] && !worse.repair.isTrustworthy)
    }

    @Test func withoutBothTablesNothingIsClaimed() throws {
        let sample = try Self.large.get()
        var damaged = sample.bytes
        for table in [sample.layout.firstTable, sample.layout.secondTable] {
            for place in table..<table + sample.layout.tableSize { damaged[place] = 0 }
        }
        let result = try #require(try ParitySample.repair(damaged))
        #expect(result.repair.repaired.isEmpty && !result.repair.isProven)
        #expect(result.check.beyondRepair == [0, 1, 2])
    }

    @Test func withoutBothHeadersThereIsNoSection() throws {
        let sample = try Self.small.get()
        var damaged = sample.bytes
        damaged[sample.layout.firstHeader + 40] ^= 1
        damaged[sample.layout.secondHeader + 40] ^= 1
        #expect(try ParitySample.repair(damaged) == nil)
    }

    @Test func unreadableSectorsAreDamage() throws {
        let sample = try Self.large.get()
        let layout = sample.layout
        let unreadable = [
            4096 * 8..<4096 * 8 + 512, 4096 * 60..<4096 * 64, layout.secondHeader + 16..<layout.secondHeader + 17,
            layout.parity + 5000..<layout.parity + 5001, layout.secondTable + 8..<layout.secondTable + 9,
        ]
        let result = try #require(try ParitySample.repair(sample.bytes, unreadable: unreadable))
        #expect(result.check.damaged == [8, 60, 61, 62, 63, layout.dataBlocks + 1])
        #expect(result.repair.repaired == result.check.damaged && result.repair.isProven)
        var zeroed = sample.bytes
        for range in unreadable { for place in range { zeroed[place] = 0 } }
        try Self.expectRepaired(zeroed, sample, unreadable: unreadable)
    }

    @Test func aPackThatEndsEarlyIsRepaired() throws {
        let sample = try Self.large.get()
        for lost in [1, 128, 200, 4096 * 5, sample.layout.end - sample.layout.parity - 4096 * 10] {
            try Self.expectRepaired(Array(sample.bytes.dropLast(lost)), sample)
        }
    }

    @Test func aPackInsideAPackDoesNotMislead() throws {
        let inner = try Self.small.get()
        let other = ObjectID(high: 5, low: 6)
        // The inner pack's section, with its own id and with the outer one's.
        let stranger = try ParitySample(
            Array(inner.bytes[..<inner.layout.bodyLength]), percent: 5, id: other)
        var body = inner.bytes + stranger.bytes
        body += [UInt8](repeating: 0, count: 4096)
        let sample = try ParitySample(body, percent: 5, id: other)
        var damaged = sample.losing([2])
        damaged[sample.layout.secondHeader] ^= 1
        let result = try #require(try ParitySample.repair(damaged, id: other))
        #expect(result.check.layout == sample.layout && result.bytes == sample.bytes)
    }

    /// Random damage of any size and kind: whatever is found, nothing wrong is returned as right.
    @Test func randomDamageIsRepairedOrListed() throws {
        var random = Seeded(224)
        let sample = try ParitySample(40 * 4096 - 512, percent: 10, seed: 225)
        var (repaired, listed, gone) = (0, 0, 0)
        for round in 0..<400 {
            var damaged = sample.bytes
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: 0..<damaged.count, using: &random)
                let most = [1, 16, 4096, 16_384][Int(random.next() % 4)]
                let end = min(damaged.count, place + Int.random(in: 1...most, using: &random))
                for index in place..<end { damaged[index] = UInt8.random(in: 0...255, using: &random) }
            }
            if round % 10 == 0 { damaged.removeLast(Int.random(in: 0..<9000, using: &random)) }
            guard let result = try ParitySample.repair(damaged) else {
                gone += 1
                continue
            }
            if result.repair.isProven {
                repaired += 1
                #expect((result.bytes == sample.bytes) as Bool)
            } else {
                listed += 1
                #expect(!result.repair.lost.isEmpty)
                if result.repair.isTrustworthy {
                    for index in result.repair.repaired {
                        let range = sample.layout.range(index)
                        #expect(result.bytes[range] == sample.bytes[range])
                    }
                }
            }
        }
        #expect(repaired > 100 && listed > 20 && gone < 40)
    }

    /// Sections whose checks are right and whose numbers are not.
    @Test func hostileSectionsAreRefusedOrHarmless() throws {
        var random = Seeded(226)
        let sample = try Self.small.get()
        let layout = sample.layout
        let right = Array(sample.bytes[layout.firstHeader..<layout.firstTable])
        let table = try unsafe ParityHeader(right.span.bytes).table
        for _ in 0..<3000 {
            let header = Array(sample.bytes[layout.firstHeader..<layout.firstTable])
            let mutated = HostileTests.sealed(
                Array((HostileTests.mutated(header, &random) + header).prefix(128)), checkAt: 124)
            var bytes = sample.bytes
            bytes.replaceSubrange(layout.secondHeader..<layout.end, with: mutated)
            if Bool.random(using: &random) {
                bytes.replaceSubrange(layout.firstHeader..<layout.firstTable, with: mutated)
            }
            bytes[Int.random(in: 0..<bytes.count, using: &random)] ^= 1
            guard let result = try ParitySample.repair(bytes) else { continue }
            // Reserved bytes are ignored, so headers may differ in them.
            let blocks = layout.range(0).lowerBound..<layout.bodyLength
            let same = result.bytes[blocks] == sample.bytes[blocks]
            if result.check.header.table == table { #expect(same == result.repair.isProven) }
        }
    }
}
