// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import MachineModel
import PartitionTables
import Testing

@testable import RestorePlanning

extension Made {
    /// A partition made up for tests: place and size in MiB.
    struct Part {
        var number: Int
        var start: UInt64
        var size: UInt64
        var kind: ContentKind
        var type: PartitionType
        var minimum: UInt64?
        var used: UInt64 = 1
        var states: [VolumeState] = [.clean]
        var attributes: UInt64 = 0
        var record: UInt64?
        var isImaged = true
    }

    static let data = PartitionType.gpt(GUID(linuxData) ?? .zero)
    static let windows = PartitionType.gpt(GUID(PartitionTypes.basicData) ?? .zero)
    static let esp = PartitionType.gpt(GUID(PartitionTypes.esp) ?? .zero)
    static let recovery = PartitionType.gpt(GUID(PartitionTypes.recovery) ?? .zero)
    static let msr = PartitionType.gpt(GUID(PartitionTypes.msr) ?? .zero)

    /// A disk of `size` MiB.
    static func disk(
        _ kind: TableKind, _ size: UInt64, _ parts: [Part], code: String = "", _ sectorSize: SectorSize = .s512
    ) -> DiskModel {
        let perMiB = (1 << 20) / UInt64(sectorSize.bytes)
        var sector0 = kind == .gpt ? self.sector0(sectorSize) : [UInt8](repeating: 0, count: Int(sectorSize.bytes))
        (sector0[510], sector0[511]) = (0x55, 0xAA)
        sector0.replaceSubrange(440..<444, with: [1, 2, 3, 4])
        if !code.isEmpty {
            sector0[0] = 0xEB
            sector0.replaceSubrange(0x180..<0x180 + code.utf8.count, with: Array(code.utf8))
        }
        let sectors = size * perMiB
        let table = PartitionTable(
            kind: kind, sectorSize: sectorSize, diskSectors: sectors, sector0: HexBytes(sector0),
            gpt: kind == .gpt
                ? GPTFacts(
                    diskGUID: GUID("11111111-2222-3333-4444-555555555555") ?? .zero,
                    firstUsable: LBA(sectorSize == .s512 ? 34 : 6),
                    lastUsable: LBA(sectors - (sectorSize == .s512 ? 34 : 6))) : nil,
            partitions: parts.map { part in
                Partition(
                    number: part.number, first: LBA(part.start * perMiB), sectors: part.size * perMiB, type: part.type,
                    guid: kind == .gpt ? GUID("aaaaaaaa-0000-0000-0000-00000000000\(part.number)") : nil,
                    attributes: part.attributes, describedAt: part.record.map { LBA($0 * perMiB) })
            })
        return DiskModel(
            path: "/dev/source", serial: "SRC", size: .mebibytes(size), sectorSize: sectorSize, table: table,
            volumes: zip(parts, table.partitions).filter { $0.0.isImaged && !$0.1.isExtendedContainer }.map { part, _ in
                VolumeModel(
                    number: part.number,
                    extent: Extent(from: .mebibytes(part.start), to: .mebibytes(part.start + part.size)),
                    kind: part.kind, uuid: "uuid-\(part.number)", blockSize: ByteCount(4096),
                    used: .mebibytes(part.used), minimum: part.minimum.map { .mebibytes($0) },
                    minimumIs: part.minimum == nil ? nil : "measured", states: part.states)
            })
    }

    /// ESP, reserved, C: of 20 GiB that can shrink to 8 GiB, recovery behind it: what Windows makes of a disk.
    static let windowsDisk = disk(
        .gpt, 21_600,
        [
            Part(number: 1, start: 1, size: 100, kind: .fat, type: esp),
            Part(number: 2, start: 101, size: 16, kind: .unknown, type: msr),
            Part(number: 3, start: 117, size: 20_480, kind: .ntfs, type: windows, minimum: 8192),
            Part(number: 4, start: 20_597, size: 1000, kind: .ntfs, type: recovery, minimum: 500, attributes: 1),
        ])

    /// The plan for a target of `size` MiB.
    static func plan(
        _ source: DiskModel, _ size: UInt64, _ layout: LayoutMode? = nil, _ sectorSize: SectorSize = .s512,
        abilities: PlanAbilities = .all, _ change: (inout PlanWishes) -> Void = { _ in }
    ) throws(PlanRefusal) -> RestorePlan {
        let perMiB = (1 << 20) / UInt64(sectorSize.bytes)
        return try Planner.plan(
            request(
                source, targetSectors: size * perMiB, layout, sectorSize: sectorSize, abilities: abilities, change))
    }

    /// The codes of what stands in the way.
    static func codes(_ body: () throws(PlanRefusal) -> RestorePlan) -> [FaultCode] {
        do throws(PlanRefusal) {
            _ = try body()
            return []
        } catch { return error.reasons.map(\.code) }
    }

    static func part(_ text: String) throws -> PartName { try #require(PartName(text)) }
}

extension DiskPlan {
    /// Places and sizes in MiB, by number.
    var places: [Int: [UInt64]] {
        Dictionary(
            uniqueKeysWithValues: volumes.map {
                ($0.number, [$0.target.start.bytes >> 20, $0.target.length.bytes >> 20])
            })
    }
    func volume(_ number: Int) throws -> VolumePlan { try #require(volumes.first { $0.number == number }) }
}

/// What a user asks for is what is planned.
@Suite struct WishTests {
    @Test func onASmallerDiskTheLargeVolumeShrinksAndTheOthersMoveWithIt() throws {
        let disk = try Made.plan(Made.windowsDisk, 15_000).disks[0]
        #expect(disk.places[1] == [1, 100] && disk.places[2] == [101, 16])
        let windows = try disk.volume(3)
        #expect(windows.target.start == .mebibytes(117))
        #expect(windows.treatment == .shrink(to: windows.target.length, by: "ntfsresize"))
        #expect(windows.minimum == .mebibytes(8192))
        let recovery = try disk.volume(4)
        #expect(recovery.target.start == windows.target.end && recovery.target.length == .mebibytes(1000))
        #expect(recovery.treatment == .copy && recovery.reason.contains("recovery"))
        #expect(recovery.fixUps == [.hiddenSectors(UInt32(recovery.target.start.bytes / 512))])
        #expect(disk.free < .mebibytes(2))
    }

    @Test func theRecoveryPartitionMovesWithTheVolumeThatGrows() throws {
        let disk = try Made.plan(Made.windowsDisk, 40_000, .fill).disks[0]
        let windows = try disk.volume(3)
        #expect(windows.grows && windows.growsBy == "ntfsresize" && windows.target.length > .mebibytes(38_000))
        #expect(try disk.volume(4).target.start == windows.target.end)
        #expect(disk.table?.partitions.map(\.number) == [1, 2, 3, 4])
    }

    @Test func keepOnASmallerDiskSaysThatProportionalHelps() throws {
        do throws(PlanRefusal) {
            _ = try Made.plan(Made.windowsDisk, 15_000, .keep)
            Issue.record("planned")
        } catch {
            #expect(error.reasons.first?.code == .targetTooSmall)
            #expect(error.reasons.first?.remedy.contains("--layout proportional") == true)
        }
    }

    @Test func tooSmallForEverythingListsWhatEachPartNeeds() throws {
        do throws(PlanRefusal) {
            _ = try Made.plan(Made.windowsDisk, 9000)
            Issue.record("planned")
        } catch {
            let fault = try #require(error.reasons.first)
            #expect(fault.code == .targetTooSmall)
            for words in ["3: ntfs, 20 GiB, at least 8 GiB", "recovery tools: never scaled", "`--drop 4`"] {
                #expect(fault.remedy.contains(words), "\(fault.remedy)")
            }
        }
    }

    @Test func leastSizeNamedIsEnough() throws {
        for size in [UInt64(8000), 9000] {
            do throws(PlanRefusal) {
                _ = try Made.plan(Made.windowsDisk, size)
                Issue.record("planned")
            } catch {
                let words = error.reasons.first?.remedy.split(separator: " ") ?? []
                let needed = try #require(words.compactMap { UInt64($0) }.first)
                let request = Made.request(
                    Made.windowsDisk, targetSectors: (needed + 511) / 512, nil, abilities: .all)
                #expect(throws: Never.self) { try Planner.plan(request) }
                let less = Made.request(Made.windowsDisk, targetSectors: needed / 512 - 1, nil, abilities: .all)
                #expect(throws: PlanRefusal.self) { try Planner.plan(less) }
            }
        }
    }

    @Test func aSizeThatIsAskedForIsGiven() throws {
        let part = try Made.part("3")
        let disk = try Made.plan(Made.windowsDisk, 40_000) {
            $0.sizes = [SizeWish(part: part, size: .mebibytes(30_000))]
        }.disks[0]
        #expect(disk.places[3] == [117, 30_000] && disk.places[4] == [30_117, 1000])
        #expect(try disk.volume(3).grows)
        let smaller = try Made.plan(Made.windowsDisk, 40_000) {
            $0.sizes = [SizeWish(part: part, size: .mebibytes(9000))]
        }.disks[0]
        #expect(try smaller.volume(3).treatment == .shrink(to: .mebibytes(9000), by: "ntfsresize"))
        #expect(
            Made.codes { () throws(PlanRefusal) in
                try Made.plan(Made.windowsDisk, 40_000) { $0.sizes = [SizeWish(part: part, size: .mebibytes(8000))] }
            } == [.cannotShrink])
    }

    @Test func partsAreNamedByDiskToo() throws {
        for name in ["1:4", "/dev/source:4", "SRC:4", "/dev/target:4"] {
            let part = try Made.part(name)
            #expect(
                try Made.plan(Made.windowsDisk, 21_600) { $0.drop = [part] }.disks[0].dropped.map(\.number) == [4],
                "\(name)")
        }
        for name in ["2:4", "9", "/dev/sda:4"] {
            let part = try Made.part(name)
            #expect(
                Made.codes { () throws(PlanRefusal) in try Made.plan(Made.windowsDisk, 21_600) { $0.drop = [part] } }
                    == [.planRefused], "\(name)")
        }
        #expect(PartName("x") == nil && PartName(":1") == nil && PartName("-1") == nil)
    }

    @Test func whatIsLeftOutLeavesAHoleInTheNumbers() throws {
        let part = try Made.part("2")
        let disk = try Made.plan(Made.windowsDisk, 21_600) { $0.drop = [part] }.disks[0]
        #expect(disk.table?.partitions.map(\.number) == [1, 3, 4] && disk.dropped.map(\.number) == [2])
        #expect(disk.places[3] == [117, 20_480], "the others stay where they are")
    }

    @Test func xfsIsMadeAnewWhenTheUserAgrees() throws {
        let source = Made.disk(
            .gpt, 10_000, [Made.Part(number: 1, start: 1, size: 9998, kind: .xfs, type: Made.data, used: 1000)])
        #expect(
            Made.codes { () throws(PlanRefusal) in try Made.plan(source, 6000) } == [.targetTooSmall, .cannotShrink])
        let disk = try Made.plan(source, 6000) { $0.recreatesAll = true }.disks[0]
        #expect(disk.volumes[0].treatment == .recreate(by: "mkfs.xfs"))
        #expect(try Made.plan(source, 10_000) { $0.recreatesAll = true }.disks[0].volumes[0].treatment == .copy)
        #expect(
            Made.codes { () throws(PlanRefusal) in
                try Made.plan(source, 6000, abilities: .growingExt) { $0.recreatesAll = true }
            } == [.targetTooSmall, .cannotShrink])
    }

    @Test(arguments: [
        (VolumeState.hibernated, FaultCode.hibernated), (.dirty, .dirtyFilesystem),
        (.unknownFeatures, .filesystemNewer),
    ]) func whatStandsInTheWayOfShrinkingIsNamed(_ state: VolumeState, _ code: FaultCode) {
        var source = Made.windowsDisk
        source.volumes[2].states = [state]
        #expect(Made.codes { () throws(PlanRefusal) in try Made.plan(source, 15_000) } == [.targetTooSmall, code])
        #expect(Made.codes { () throws(PlanRefusal) in try Made.plan(source, 2000) } == [.targetTooSmall])
        #expect(throws: Never.self) { try Made.plan(source, 21_600) }
    }

    @Test func containersKeepTheirSize() throws {
        var source = Made.windowsDisk
        source.volumes[2].kind = .physicalVolume
        source.volumes[2].memberOf = LayerMember(
            format: "LVM2", name: "vg0", members: ["/dev/source:3"], isAssembled: true)
        #expect(
            Made.codes { () throws(PlanRefusal) in try Made.plan(source, 15_000) } == [.targetTooSmall, .cannotShrink])
        source.volumes[2].kind = .luks
        source.volumes[2].memberOf = nil
        #expect(
            Made.codes { () throws(PlanRefusal) in try Made.plan(source, 15_000) } == [.targetTooSmall, .needsUnlock])
        let part = try Made.part("3")
        let larger = try Made.plan(source, 40_000) { $0.sizes = [SizeWish(part: part, size: .mebibytes(30_000))] }
        #expect(try !larger.disks[0].volume(3).grows)
        #expect(larger.findings.contains { $0.code == "filesystem.stays-small" })
        source.volumes[2].kind = ContentKind(rawValue: "linux_raid_member")
        #expect(
            Made.codes { () throws(PlanRefusal) in
                try Made.plan(source, 40_000) { $0.sizes = [SizeWish(part: part, size: .mebibytes(30_000))] }
            } == [.planRefused])
    }

    @Test func proportionalScalesVolumesAndFreeRoomAlike() throws {
        let source = Made.disk(
            .gpt, 30_000,
            [
                Made.Part(number: 1, start: 1, size: 100, kind: .fat, type: Made.esp),
                Made.Part(number: 2, start: 101, size: 8000, kind: .ext4, type: Made.data, minimum: 100),
                Made.Part(number: 3, start: 8101, size: 16_000, kind: .btrfs, type: Made.data, minimum: 100),
            ])
        let disk = try Made.plan(source, 60_000, .proportional).disks[0]
        let (one, two) = (try disk.volume(2).target.length.bytes >> 20, try disk.volume(3).target.length.bytes >> 20)
        #expect((15_950...16_100).contains(one) && (31_900...32_200).contains(two), "\(one), \(two)")
        #expect(try Made.plan(source, 30_000, .proportional).disks[0].table == source.table)
    }

    @Test func smallVolumesBesideLargeOnesAreNotScaled() throws {
        let source = Made.disk(
            .gpt, 30_000,
            [
                Made.Part(number: 1, start: 1, size: 500, kind: .ext4, type: Made.data, minimum: 50),
                Made.Part(number: 2, start: 501, size: 29_000, kind: .ext4, type: Made.data, minimum: 50),
            ])
        let disk = try Made.plan(source, 15_000).disks[0]
        #expect(disk.places[1] == [1, 500])
        #expect(try disk.volume(2).treatment != .copy)
    }

    @Test func swapIsMadeAnewInAnotherSize() throws {
        let source = Made.disk(
            .gpt, 9000, [Made.Part(number: 1, start: 1, size: 8000, kind: .swap, type: Made.data)])
        let part = try Made.part("1")
        let disk = try Made.plan(source, 4000) { $0.sizes = [SizeWish(part: part, size: .mebibytes(2000))] }.disks[0]
        #expect(disk.volumes[0].treatment == .recreate(by: "mkswap"))
    }

    @Test func theSeedDecidesTheNewIdentifiers() throws {
        func plan(_ seed: [UInt64]) throws -> RestorePlan {
            var request = Made.request(Made.windowsDisk, targetSectors: 21_600 * 2048, nil) { $0.ids = .new }
            request.seed = seed
            return try Planner.plan(request)
        }
        let one = try plan([1, 2])
        #expect(try plan([1, 2]) == one)
        let other = try plan([1, 3])
        #expect(other != one)
        let (table, old) = (try #require(one.disks[0].table), try #require(Made.windowsDisk.table))
        #expect(table.gpt?.diskGUID != old.gpt?.diskGUID)
        #expect(zip(table.partitions, old.partitions).allSatisfy { $0.guid != $1.guid })
        #expect(Set(table.partitions.map(\.guid)).count == 4)
        #expect(TableLayout.signature(table) != TableLayout.signature(old))
        let ids = one.disks[0].ids
        #expect(ids.contains { $0.what == "disk GUID" && $0.new == table.gpt?.diskGUID.description })
        #expect(ids.contains { $0.old == "uuid-3" && $0.new == nil && $0.by == "ntfslabel --new-serial DEVICE" })
        #expect(one.findings.contains { $0.code == "id.left" })
    }

    @Test func attachedDisksWithTheSameIdentifiersAreInTheWay() throws {
        func codes(_ visible: VisibleID, ids: IDWish?, isVirtual: Bool = false) -> ([FaultCode], [String]) {
            var request = Made.request(Made.windowsDisk, targetSectors: 21_600 * 2048, nil) { $0.ids = ids }
            request.visible = [visible]
            request.assignments[0].target.isVirtual = isVirtual
            do throws(PlanRefusal) {
                return ([], try Planner.plan(request).findings.map { "\($0.severity.rawValue) \($0.code)" })
            } catch { return (error.reasons.map(\.code), []) }
        }
        let disk = "11111111-2222-3333-4444-555555555555"
        let sdb = VisibleID(id: disk.uppercased(), what: "disk GUID", disk: "/dev/sdb")
        #expect(codes(sdb, ids: nil).0 == [.idCollision])
        #expect(codes(sdb, ids: .keep).1.contains("warning id.collision"))
        #expect(codes(sdb, ids: .new).0.isEmpty)
        #expect(codes(sdb, ids: nil, isVirtual: true).1.contains("notice id.collision"))
        let volume = VisibleID(id: "uuid-3", what: "ntfs", disk: "/dev/sdb")
        #expect(codes(volume, ids: nil).0 == [.idCollision])
        #expect(codes(volume, ids: .new).1.contains("warning id.collision"))
        #expect(codes(VisibleID(id: disk, what: "disk GUID", disk: "/dev/target"), ids: nil).0.isEmpty)
        #expect(codes(VisibleID(id: disk, what: "disk GUID", disk: "/dev/loop0", isVirtual: true), ids: nil).0.isEmpty)
    }

    @Test func theSameDiskOntoTwoTargetsWouldCollide() throws {
        var request = Made.request(Made.windowsDisk, targetSectors: 21_600 * 2048, nil)
        var second = request.assignments[0]
        second.target.pin.path = "/dev/other"
        request.assignments.append(second)
        #expect(Made.codes { () throws(PlanRefusal) in try Planner.plan(request) } == [.idCollision])
        request.wishes.ids = .new
        let plan = try Planner.plan(request)
        #expect(plan.disks[0].table?.gpt?.diskGUID != plan.disks[1].table?.gpt?.diskGUID)
    }

    @Test func aPartOfAVolumeGroupIsNotLeftOut() throws {
        var source = Made.windowsDisk
        for index in [2, 3] {
            source.volumes[index].kind = .physicalVolume
            source.volumes[index].memberOf = LayerMember(
                format: "LVM2", name: "vg0", members: ["/dev/source:3", "/dev/source:4"], isAssembled: true)
        }
        let part = try Made.part("4")
        #expect(
            Made.codes { () throws(PlanRefusal) in try Made.plan(source, 21_600) { $0.drop = [part] } }
                == [.containerPartial])
        #expect(throws: Never.self) { try Made.plan(source, 21_600) }
    }

    @Test func exactTakesNoOtherWishes() throws {
        #expect(try Made.plan(Made.windowsDisk, 30_000, .exact).disks[0].places[4] == [20_597, 1000])
        let part = try Made.part("4")
        for change: (inout PlanWishes) -> Void in [
            { $0.drop = [part] }, { $0.table = .mbr }, { $0.sizes = [SizeWish(part: part, size: .mebibytes(900))] },
        ] {
            #expect(
                Made.codes { () throws(PlanRefusal) in
                    try Made.plan(Made.windowsDisk, 30_000, .exact, .s512, abilities: .all, change)
                }.contains(
                    .planRefused))
        }
    }

    @Test func aDiskWithoutATableShrinksAsAWhole() throws {
        var source = DiskModel(
            path: "/dev/whole", size: .mebibytes(1000), sectorSize: .s512,
            volumes: [
                VolumeModel(
                    number: 0, extent: Extent(from: .zero, to: .mebibytes(1000)), kind: .ext4,
                    blockSize: ByteCount(4096),
                    used: .mebibytes(50), minimum: .mebibytes(100), minimumIs: "measured")
            ])
        let smaller = try Made.plan(source, 400).disks[0]
        #expect(smaller.volumes[0].treatment == .shrink(to: .mebibytes(400), by: "resize2fs"))
        #expect(smaller.table == nil && smaller.free == .zero)
        #expect(try Made.plan(source, 2000, .fill).disks[0].volumes[0].grows)
        #expect(try !Made.plan(source, 2000).disks[0].volumes[0].grows)
        #expect(try Made.plan(source, 1000, nil, .s4096).disks[0].volumes[0].treatment == .copy)
        #expect(Made.codes { () throws(PlanRefusal) in try Made.plan(source, 90) } == [.targetTooSmall])
        source.volumes[0].minimum = nil
        #expect(
            Made.codes { () throws(PlanRefusal) in try Made.plan(source, 400) } == [.targetTooSmall, .cannotShrink])
    }

    @Test func oneVolumeIntoAPartitionLeavesTheRestAlone() throws {
        let target = Made.disk(
            .gpt, 50_000,
            [
                Made.Part(number: 1, start: 1, size: 20_000, kind: .ext4, type: Made.data),
                Made.Part(number: 7, start: 20_001, size: 25_000, kind: .ext4, type: Made.data),
            ])
        func plan(_ volume: Int, _ number: Int, _ layout: LayoutMode? = nil) throws(PlanRefusal) -> RestorePlan {
            var request = Made.request(
                Made.windowsDisk, targetSectors: 50_000 * 2048, layout, abilities: .all)
            guard let table = target.table else { throw PlanRefusal([]) }
            request.assignments[0].part = Planner.Part(source: volume, target: number, table: table)
            return try Planner.plan(request)
        }
        let disk = try plan(3, 7).disks[0]
        #expect(disk.table == nil && disk.keeps == target.table && disk.gap == nil)
        #expect(disk.places == [7: [20_001, 25_000]] && disk.volumes[0].sourceNumber == 3)
        #expect(!disk.volumes[0].grows && disk.volumes[0].fixUps == [.hiddenSectors(20_001 * 2048)])
        #expect(try plan(3, 7, .fill).disks[0].volumes[0].grows)
        let small = try plan(3, 1).disks[0].volumes[0]
        #expect(small.treatment == .shrink(to: .mebibytes(20_000), by: "ntfsresize"))
        #expect(Made.codes { () throws(PlanRefusal) in try plan(3, 2) } == [.missing])
        #expect(Made.codes { () throws(PlanRefusal) in try plan(9, 1) } == [.missing])
        try plan(3, 7).requireSound()
        // What it is restored over has the same identifier, as a rule; another partition must not.
        var request = Made.request(Made.windowsDisk, targetSectors: 50_000 * 2048, nil, abilities: .all)
        let table = try #require(target.table)
        request.assignments[0].part = Planner.Part(source: 3, target: 7, table: table)
        request.visible = [VisibleID(id: "uuid-3", what: "ntfs", disk: "/dev/target", partition: 7)]
        #expect(Made.codes { () throws(PlanRefusal) in try Planner.plan(request) }.isEmpty)
        request.visible[0].partition = 1
        #expect(Made.codes { () throws(PlanRefusal) in try Planner.plan(request) } == [.idCollision])
    }
}
