// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Synchronization
import Testing

@testable import Imaging

/// A clock that only moves when a read takes time.
private final class ManualClock: Sendable {
    private let time = Mutex(Duration.zero)
    var now: Duration { time.withLock { $0 } }
    func advance(_ by: Duration) { time.withLock { $0 += by } }
}

private func sectors(_ first: UInt64, _ count: UInt64) -> Extent {
    Extent(from: ByteCount(first * 512), to: ByteCount((first + count) * 512))
}

/// A piece of 256 KiB on a disk that fails in some way.
private struct Place {
    static let bytes = (0..<256 << 10).map { UInt8(truncatingIfNeeded: $0 / 512 &* 7 + $0 % 251 + 1) }
    let disk: Flaky
    let clock = ManualClock()
    var effort = ReadEffort()
    var used = ExtentList(sectors(0, 512))
    var policy = ReadErrorPolicy.skip

    /// A disk where each read that fails takes `slow`.
    init(_ places: [(Extent, Flaky.Behaviour)], slow: Duration = .zero, sectorSize: SectorSize = .s512) {
        let clock = clock
        disk = Flaky(MemoryDisk(Place.bytes, sectorSize: sectorSize, name: "/dev/old"), places) { _, succeeded in
            if !succeeded { clock.advance(slow) }
        }
        effort.now = { clock.now }
    }

    /// Reads the piece; everything used that is not lost must be right, all else zero.
    func read(_ time: BadPlaceTime? = nil) throws -> LostBytes {
        let reader = PieceReader(source: disk, policy: policy, time: time ?? BadPlaceTime(effort))
        var buffer = [UInt8](repeating: 0xEE, count: Place.bytes.count)
        var span = buffer.mutableSpan
        var raw = unsafe span.mutableBytes
        let lost = try reader.read(used, from: .zero, into: &raw)
        var expected = [UInt8](repeating: 0, count: Place.bytes.count)
        for extent in used.subtracting(lost.unreadable).extents {
            let range = Int(extent.start.bytes)..<Int(extent.end.bytes)
            expected.replaceSubrange(range, with: Place.bytes[range])
        }
        #expect(buffer == expected)
        #expect(lost.givenUp.subtracting(lost.unreadable).isEmpty)
        return lost
    }
}

struct PieceReaderTests {
    @Test func aSoundPieceIsReadOnce() throws {
        let place = Place([])
        #expect(try place.read().unreadable.isEmpty)
        #expect(place.disk.reads.map(\.extent) == [sectors(0, 512)])
    }

    @Test func aBadSectorIsNarrowedDownInSteps() throws {
        let place = Place([(sectors(200, 1), .always)])
        let lost = try place.read()
        #expect(lost.unreadable == ExtentList(sectors(200, 1)) && lost.givenUp.isEmpty)
        let reads = place.disk.reads.map(\.extent)
        // All of it, four steps of 64 KiB, sixteen of 4 KiB, eight sectors; then backwards and twice more.
        #expect(reads.count == 1 + 4 + 16 + 8 + 1 + 2)
        #expect(Array(reads[1...4]) == (0..<4).map { sectors($0 * 128, 128) })
        #expect(Array(reads[5...20]) == (0..<16).map { sectors(128 + $0 * 8, 8) })
        #expect(Array(reads[21...28]) == (0..<8).map { sectors(200 + $0, 1) })
        #expect(Array(reads[29...]) == Array(repeating: sectors(200, 1), count: 3))
    }

    @Test func sectorsReadBackwardsThatFailForwards() throws {
        let place = Place([(sectors(100, 5), .forwards)])
        #expect(try place.read().unreadable.isEmpty)
        let last = place.disk.reads.suffix(5)
        #expect(
            last.allSatisfy { $0.succeeded } && last.map(\.extent) == (0..<5).reversed().map { sectors(100 + $0, 1) })
    }

    @Test(arguments: [0, 1, 2, 5]) func aSectorThatFailsAFewTimesIsReadWithinTheRetries(_ retries: Int) throws {
        // Whole, 64 KiB, 4 KiB, forwards, backwards: five tries; then the retries.
        for failures in [5 + retries - 1, 5 + retries] {
            var place = Place([(sectors(7, 1), .first(failures))])
            place.effort.retries = retries
            let lost = try place.read()
            #expect(lost.unreadable.isEmpty == (failures < 5 + retries), "\(failures)")
        }
    }

    @Test func whatFailsOnlyInLargeReadsIsReadInSmall() throws {
        for most in [ByteCount(512), .kibibytes(4), .kibibytes(64)] {
            let place = Place([(sectors(0, 512), .longerThan(most))])
            #expect(try place.read().unreadable.isEmpty)
        }
    }

    @Test func sectorsOf4KiBAreTheSmallestStep() throws {
        let place = Place([(sectors(80, 1), .always)], sectorSize: .s4096)
        #expect(try place.read().unreadable == ExtentList(sectors(80, 8)))
        #expect(place.disk.reads.allSatisfy { $0.extent.length >= .kibibytes(4) })
    }

    @Test func onlyUsedExtentsAreTriedAgain() throws {
        var place = Place([(sectors(20, 100), .always)])
        place.used = ExtentList([sectors(10, 10), sectors(120, 30), sectors(300, 1)])
        #expect(try place.read().unreadable.isEmpty)
        #expect(place.disk.reads.dropFirst().allSatisfy { $0.succeeded })
        #expect(place.disk.reads.dropFirst().allSatisfy { place.used.covers($0.extent) })
    }

    @Test func aRegionsTimeEndsAndTheRestIsGivenUpInLargerSteps() throws {
        // A second for each failure: whole, 64 KiB, then 4 KiB steps 0 to 5 at eight seconds.
        var place = Place([(sectors(0, 128), .always)], slow: .seconds(1))
        place.effort.regionTime = .seconds(8)
        let lost = try place.read()
        #expect(lost.unreadable == ExtentList(sectors(0, 128)))
        #expect(lost.givenUp == ExtentList(sectors(0, 128)))
        #expect(place.clock.now == .seconds(8))
        // What came after in the piece was read all the same.
        #expect(place.disk.reads.filter(\.succeeded).map(\.extent) == (1..<4).map { sectors($0 * 128, 128) })
    }

    @Test func timeThatEndsAmongSectorsKeepsWhatWasTried() throws {
        var place = Place([(sectors(0, 8), .always)], slow: .seconds(1))
        place.effort.regionTime = .seconds(6)
        let lost = try place.read()
        // Whole, 64 KiB, 4 KiB, three sectors.
        #expect(lost.unreadable == ExtentList(sectors(0, 8)))
        #expect(lost.givenUp == ExtentList(sectors(3, 5)))
    }

    @Test func aFirstReadThatTakesAllTheTimeIsStillDividedOnce() throws {
        var place = Place([(sectors(500, 1), .always)], slow: .seconds(60))
        place.effort.regionTime = .seconds(30)
        let lost = try place.read()
        #expect(lost.unreadable == ExtentList(sectors(384, 128)) && lost.givenUp == lost.unreadable)
    }

    @Test func withoutAnyTimeLeftAPlaceIsTriedOnce() throws {
        var place = Place([(sectors(100, 1), .always)], slow: .seconds(1))
        place.effort.totalTime = .seconds(10)
        let time = BadPlaceTime(place.effort)
        time.add(.seconds(10))
        let lost = try place.read(time)
        #expect(lost.unreadable == ExtentList(sectors(0, 512)) && lost.givenUp == lost.unreadable)
        #expect(place.disk.reads.count == 1)
        // What is not in use does not count even then.
        place.used = ExtentList([sectors(0, 50), sectors(200, 50)])
        #expect(try place.read(time).unreadable.isEmpty)
    }

    @Test func allPlacesTogetherHaveTheirTime() throws {
        var place = Place([(sectors(0, 512), .always)], slow: .seconds(1))
        place.effort.regionTime = .seconds(30)
        place.effort.totalTime = .seconds(100)
        let time = BadPlaceTime(place.effort)
        for _ in 0..<20 { #expect(try place.read(time).unreadable == ExtentList(sectors(0, 512))) }
        // Thirty seconds for each of three, ten for the fourth, then one read each.
        #expect(place.clock.now == .seconds(100 + 16))
    }

    @Test func failThrowsTheFirstSectorThatStaysBad() throws {
        var place = Place([(sectors(9, 1), .first(3)), (sectors(300, 2), .always)])
        place.policy = .fail
        #expect {
            try place.read()
        } throws: { error in
            (error as? Fault)?.what.contains("byte \(300 * 512) ") == true
        }
        var passing = Place([(sectors(9, 1), .first(5))])
        passing.policy = .fail
        #expect(try passing.read().unreadable.isEmpty)
    }

    /// Only what a medium says of its sectors is a bad place.
    @Test func otherFaultsEndTheReading() throws {
        let gone = Gone()
        let reader = PieceReader(source: gone, policy: .skip, time: BadPlaceTime(ReadEffort()))
        var buffer = [UInt8](repeating: 0, count: 4096)
        var span = buffer.mutableSpan
        #expect(throws: Fault.self) {
            var raw = unsafe span.mutableBytes
            _ = try reader.read(
                ExtentList(Extent(from: .zero, to: .kibibytes(4))), from: .zero, into: &raw)
        }
        #expect(gone.reads.load(ordering: .relaxed) == 1)
    }
}

/// A disk that has gone.
private final class Gone: BlockSource {
    let name = "/dev/gone"
    let sectorSize = SectorSize.s512
    let length = ByteCount.mebibytes(1)
    let reads = Atomic<Int>(0)
    var file: FileWindow? { nil }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        reads.add(1, ordering: .relaxed)
        throw Fault(.system, what: "No such device.", place: name, remedy: "Check the cable.")
    }
}
