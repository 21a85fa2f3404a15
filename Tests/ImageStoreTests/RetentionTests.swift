// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import MachineModel
import Testing

@testable import ImageStore

/// Which points a policy keeps.
@Suite struct RetentionTests {
    /// 2026-03-02 12:00:00 UTC, a Monday.
    static let monday: UInt64 = 1_772_452_800
    static let day: UInt64 = 86_400

    static func point(_ number: UInt64, _ time: UInt64, serial: String? = "A1", name: String = "") -> PointSummary {
        var facts = Sample.facts(name, time: time)
        facts.machine.serial = serial
        let digits = String(number, radix: 16)
        return PointSummary(
            id: String(repeating: "0", count: 32 - digits.count) + digits, number: number, facts: facts,
            used: .zero, unreadable: .zero)
    }

    static func kept(_ points: [PointSummary], _ policy: RetentionPolicy, now: UInt64 = .max) -> [UInt64] {
        RetentionPlan(points, policy: policy, now: now).entries.filter(\.stays).map(\.point.number)
    }

    @Test func theLastPointsAreKept() {
        let points = (1...9).map { Self.point($0, Self.monday + $0) }
        #expect(Self.kept(points, .init(last: 3)) == [7, 8, 9])
        #expect(Self.kept(points, .init(last: 100)).count == 9)
    }

    @Test func theNewestOfEachStretchOfTimeIsKept() {
        // Three a day for forty days, at 00:00, 08:00 and 16:00, from a Monday on.
        let start = Self.monday - 43_200
        let points = (0..<120).map { Self.point(UInt64($0) + 1, start + UInt64($0) * 28_800) }
        #expect(Self.kept(points, .init(daily: 3)) == [114, 117, 120])
        #expect(Self.kept(points, .init(hourly: 2)) == [119, 120])
        // Weeks end with Sunday 16:00; the last week is days 35 to 39.
        #expect(Self.kept(points, .init(weekly: 3)) == [84, 105, 120])
        // 30 days of March.
        #expect(Self.kept(points, .init(monthly: 5)) == [90, 120])
        #expect(Self.kept(points, .init(yearly: 2)) == [120])
        let plan = RetentionPlan(points, policy: .init(last: 1, daily: 1, weekly: 2), now: .max)
        #expect(plan.entries.last?.reasons == ["last", "daily", "weekly"])
        #expect(plan.entries.first { $0.point.number == 105 }?.reasons == ["weekly"])
        #expect(plan.entries.first?.reasons == ["no rule keeps it"])
    }

    @Test(arguments: [
        // The last second of a month or year, and the one after it (UTC).
        (951_868_799, true), (951_782_399, false), (4_107_542_399, true), (1_709_251_199, true),
        (1_735_689_599, true), (68_255_999, true),
    ]) func monthsEndWhereTheCalendarSays(second: UInt64, ends: Bool) {
        let points = [Self.point(1, second), Self.point(2, second + 1)]
        #expect(Self.kept(points, .init(monthly: 9)) == (ends ? [1, 2] : [2]))
    }

    @Test func hoursWithoutAPointDoNotCount() {
        let points = [Self.point(1, Self.monday), Self.point(2, Self.monday + 500 * Self.day)]
        #expect(Self.kept(points, .init(hourly: 2)) == [1, 2])
    }

    @Test func eachMachineHasItsOwn() {
        var points: [PointSummary] = []
        for number in stride(from: UInt64(1), to: 13, by: 3) {
            points.append(Self.point(number, Self.monday + number * Self.day, serial: "A1"))
            points.append(Self.point(number + 1, Self.monday + number * Self.day, serial: "B2", name: "B"))
            points.append(Self.point(number + 2, Self.monday + number * Self.day, serial: "Default string", name: "C"))
        }
        #expect(Set(Self.kept(points, .init(last: 2))) == [7, 8, 9, 10, 11, 12])
    }

    @Test func pointsCountTogetherByMachineAndWhatWasImaged() {
        var facts = Sample.facts("web")
        #expect(RetentionPlan.group(facts) == "/dev/test0; \"web\"")
        facts.disks[0].serial = "S3Z9"
        #expect(RetentionPlan.group(facts) == "disk S3Z9")
        facts.machine.serial = "To Be Filled By O.E.M."
        #expect(RetentionPlan.group(facts) == "disk S3Z9")
        facts.machine.serial = "CZC123"
        facts.machine.product = "HP Z2"
        #expect(RetentionPlan.group(facts) == "HP Z2, serial CZC123; disk S3Z9")
        facts.disks.append(DiskModel(path: "/dev/sdb", wwn: "0x5000c5", size: .gibibytes(1), sectorSize: .s512))
        facts.disks.append(DiskModel(path: "/dev/sdc", size: .gibibytes(1), sectorSize: .s512))
        #expect(RetentionPlan.group(facts) == "HP Z2, serial CZC123; /dev/sdc; disk 0x5000c5; disk S3Z9")
        facts.disks = [DiskModel(path: "/dev/sdc", size: .gibibytes(1), sectorSize: .s512)]
        #expect(RetentionPlan.group(facts) == "HP Z2, serial CZC123; /dev/sdc; \"web\"")
    }

    @Test func chosenVolumesCountByThemselves() throws {
        var facts = Sample.facts("web")
        facts.disks[0].serial = "S3Z9"
        facts.disks[0].table = PartitionTable(
            kind: .mbr, sectorSize: .s512, diskSectors: 1 << 20, sector0: HexBytes([]),
            partitions: (1...3).map {
                Partition(number: $0, first: LBA(UInt64($0) * 2048), sectors: 2048, type: .mbr(0x83))
            })
        func with(_ numbers: [Int]) -> String {
            facts.disks[0].volumes = numbers.map {
                VolumeModel(number: $0, extent: Extent(from: .zero, to: .mebibytes(1)), kind: .ext4, used: .zero)
            }
            return RetentionPlan.group(facts)
        }
        #expect(with([1, 2, 3]) == "disk S3Z9")
        #expect(with([3, 1]) == "disk S3Z9 volume 1, 3")
    }

    @Test func oneDiskDoesNotStandInForAnother() {
        // As two disks of one server, or two images of machines without numbers, one after the other each night.
        for serials in [["S1", "S2"], [nil, nil]] as [[String?]] {
            var points: [PointSummary] = []
            for number in 0..<6 {
                var point = Self.point(UInt64(number) + 1, Self.monday + UInt64(number / 2) * Self.day, serial: "CZC1")
                point.facts.disks[0].path = ["/dev/sda", "/dev/sdb"][number % 2]
                point.facts.disks[0].serial = serials[number % 2]
                points.append(point)
            }
            #expect(Set(Self.kept(points, .init(last: 1))) == [5, 6])
            #expect(Set(Self.kept(points, .init(daily: 2))) == [3, 4, 5, 6])
        }
    }

    @Test func aMachinesLastPointStaysUnlessItIsNamed() {
        let points = [Self.point(1, Self.monday), Self.point(2, Self.monday + 1, serial: "B2")]
        // No day has room: yet nothing goes.
        let plan = RetentionPlan(points, policy: .init(daily: 1), named: [points[0].id], now: .max)
        #expect(plan.removed.map(\.number) == [1])
        #expect(plan.findings.map(\.code) == ["point.last"])
        #expect(plan.entries.first { $0.point.number == 1 }?.reasons == ["named"])
    }

    @Test func withoutAPolicyOnlyWhatIsNamedGoes() {
        let points = (1...4).map { Self.point($0, Self.monday + $0 * 9) }
        for policy in [nil, RetentionPolicy()] {
            let plan = RetentionPlan(points, policy: policy, named: [points[1].id], now: .max)
            #expect(plan.removed.map(\.number) == [2])
        }
    }

    @Test func pointsWithWrongClocksAreKeptAndNamed() {
        let points = [
            Self.point(1, Self.monday), Self.point(2, Self.monday + 9000 * Self.day),
            Self.point(3, Self.monday + Self.day), Self.point(4, 86_400), Self.point(5, Self.monday + 2 * Self.day),
            Self.point(6, Self.monday + 2 * Self.day + 60),
        ]
        let plan = RetentionPlan(points, policy: .init(daily: 1), now: Self.monday + 3 * Self.day)
        // 2 lies in the future, 4 before 3: either of these two is wrong.
        #expect(plan.removed.map(\.number) == [1, 5])
        #expect(Set(plan.findings.map(\.place)) == Set([1, 2, 3].map { points[$0].shortID }))
        #expect(plan.findings.allSatisfy { $0.code == "point.clock" })
    }

    @Test func manyWrongClocksInARowAreAllNoticed() {
        // Five good days, five with an empty battery, one good day again.
        let old: UInt64 = 1_546_300_800
        var times = (1...5).map { Self.monday + $0 * Self.day } + (1...5).map { old + $0 * Self.day }
        times.append(Self.monday + 11 * Self.day)
        let points = times.indices.map { Self.point(UInt64($0) + 1, times[$0]) }
        let all = RetentionPlan(points, policy: .init(daily: 7), now: Self.monday + 20 * Self.day)
        #expect(all.removed.isEmpty)
        let older = all.entries.filter { $0.reasons[0].contains("older than that of point 5") }
        #expect(older.map(\.point.number) == [6, 7, 8, 9, 10])
        #expect(all.findings.count == 6)
        // Five of them stand for no day.
        let few = RetentionPlan(points, policy: .init(daily: 3), now: Self.monday + 20 * Self.day)
        #expect(few.removed.map(\.number) == [1, 2])
    }

    @Test func pointsWithOneNumberMayComeInAnyOrder() {
        // Two machines' backups ended at the same moment, or points were copied together.
        let points = [Self.point(1, Self.monday + 9), Self.point(1, Self.monday), Self.point(2, Self.monday + 20)]
        let plan = RetentionPlan(points, policy: .init(last: 1), now: .max)
        #expect(plan.findings.isEmpty && plan.removed.count == 2)
    }

    @Test func aClockThatIsRightLaterIsNoReasonToKeepForever() {
        let points = (1...3).map { Self.point($0, Self.monday + $0 * Self.day) }
        let early = RetentionPlan(points, policy: .init(last: 1), now: Self.monday)
        #expect(early.removed.isEmpty)
        let late = RetentionPlan(points, policy: .init(last: 1), now: Self.monday + 9 * Self.day)
        #expect(late.removed.map(\.number) == [1, 2])
    }
}
