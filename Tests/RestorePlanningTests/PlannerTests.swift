// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import MachineModel
import RestorePlanning
import TestSupport
import Testing

/// Disks made up for tests.
enum Made {
    static let linuxData = "0fc63daf-8483-4772-8e79-3d69d8477de4"

    /// A GPT disk of `sectors` sectors with the partitions given as (first, sectors, content).
    static func gpt(
        _ sectors: UInt64, _ parts: [(UInt64, UInt64, ContentKind)], type: String = linuxData, size: SectorSize = .s512
    ) -> DiskModel {
        let table = PartitionTable(
            kind: .gpt, sectorSize: size, diskSectors: sectors, sector0: HexBytes(sector0(size)),
            gpt: GPTFacts(diskGUID: .random(), firstUsable: LBA(34), lastUsable: LBA(sectors - 34)),
            partitions: parts.enumerated().map { index, part in
                Partition(
                    number: index + 1, first: LBA(part.0), sectors: part.1,
                    type: .gpt(
                        GUID(part.2.rawValue == "bios" ? "21686148-6449-6e6f-744e-656564454649" : type) ?? .zero),
                    guid: .random(), name: "part\(index)")
            })
        return DiskModel(
            path: "/dev/source", size: ByteCount(sectors * UInt64(size.bytes)), sectorSize: size, table: table,
            volumes: parts.enumerated().map { index, part in
                VolumeModel(
                    number: index + 1,
                    extent: Extent(
                        from: ByteCount(part.0 * UInt64(size.bytes)),
                        to: ByteCount((part.0 + part.1) * UInt64(size.bytes))),
                    kind: part.2, used: ByteCount(4096))
            })
    }

    static func sector0(_ size: SectorSize) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(size.bytes))
        bytes.replaceSubrange(
            446..<462, with: [0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF])
        (bytes[510], bytes[511]) = (0x55, 0xAA)
        return bytes
    }

    static func request(
        _ source: DiskModel, targetSectors: UInt64, _ layout: LayoutMode?, sectorSize: SectorSize = .s512,
        objections: [Fault] = [], abilities: PlanAbilities = .growingExt,
        _ change: (inout PlanWishes) -> Void = { _ in }
    ) -> Planner.Request {
        let pin = TargetPin(
            path: "/dev/target", size: ByteCount(targetSectors * UInt64(sectorSize.bytes)), sectorSize: sectorSize)
        var wishes = PlanWishes(layout: layout)
        change(&wishes)
        return Planner.Request(
            set: "set", point: "point",
            assignments: [
                Planner.Assignment(
                    sourceIndex: 0, source: source, target: Planner.Target(pin: pin, objections: objections))
            ], wishes: wishes, abilities: abilities)
    }
}

@Suite struct PlannerTests {
    let disk = Made.gpt(
        1_000_000, [(2048, 100_000, .fat), (102_400, 500_000, .ext4), (602_400, 200_000, .swap)])

    @Test func keepChangesNothingButTheRoomBehind() throws {
        let plan = try Planner.plan(Made.request(disk, targetSectors: 3_000_000, .keep))
        let target = try #require(plan.disks.first)
        #expect(target.table?.partitions == disk.table?.partitions)
        #expect(target.table?.gpt?.lastUsable == LBA(3_000_000 - 34))
        #expect(target.volumes.allSatisfy { !$0.moves && !$0.grows })
        #expect(target.gap == Extent(from: ByteCount(34 * 512), to: ByteCount(2048 * 512)))
    }

    @Test func fillGrowsTheLastExtAndMovesWhatLiesBehind() throws {
        let plan = try Planner.plan(Made.request(disk, targetSectors: 3_000_000, .fill))
        let volumes = try #require(plan.disks.first).volumes
        #expect(volumes.map(\.grows) == [false, true, false])
        #expect(volumes[1].target.start == volumes[1].source.start)
        #expect(volumes[2].moves && volumes[2].target.length == volumes[2].source.length)
        #expect(volumes[2].target.start >= volumes[1].target.end)
        #expect(try #require(plan.disks.first).free < .mebibytes(2))
    }

    @Test func aSmallerTargetIsRefusedWithTheSizeItNeeds() {
        #expect {
            try Planner.plan(Made.request(disk, targetSectors: 802_432, .keep))
        } throws: { error in
            guard let fault = (error as? PlanRefusal)?.reasons.first else { return false }
            return fault.code == .targetTooSmall && fault.remedy.contains("\(802_433 * 512)")
        }
        #expect(throws: Never.self) { try Planner.plan(Made.request(disk, targetSectors: 802_433, .keep)) }
    }

    @Test func overlappingPartitionsAreRefusedBeforeAnythingIsWritten() {
        let crossed = Made.gpt(1_000_000, [(2048, 100_000, .ext4), (50_000, 100_000, .ext4)])
        #expect {
            try Planner.plan(Made.request(crossed, targetSectors: 1_000_000, .keep))
        } throws: { error in
            (error as? PlanRefusal)?.reasons.contains { $0.what.contains("overlap") } ?? false
        }
    }

    @Test func everyReasonIsNamedAtOnce() {
        let objections = [
            Fault(.targetInUse, what: "It is mounted.", remedy: ""),
            Fault(.targetForbidden, what: "It is the source.", remedy: ""),
        ]
        #expect {
            try Planner.plan(Made.request(disk, targetSectors: 100_000, .keep, objections: objections))
        } throws: { error in
            Set((error as? PlanRefusal)?.reasons.map(\.code) ?? []) == [
                .targetInUse, .targetForbidden, .targetTooSmall,
            ]
        }
    }

    @Test func aBootLoaderPartitionIsNotMovedByGrowing() throws {
        let boot = ContentKind(rawValue: "bios")
        let behind = Made.gpt(1_000_000, [(2048, 500_000, .ext4), (600_064, 2048, boot)])
        let plan = try Planner.plan(Made.request(behind, targetSectors: 3_000_000, .fill))
        #expect(plan.disks[0].volumes.allSatisfy { !$0.moves && !$0.grows })
        #expect(plan.findings.contains { $0.code == "layout.nothing-grows" })
        let before = Made.gpt(1_000_000, [(34, 2014, boot), (2048, 500_000, .ext4)])
        #expect(try Planner.plan(Made.request(before, targetSectors: 3_000_000, .fill)).disks[0].volumes[1].grows)
    }

    @Test func aLogicalPartitionGrowsWithItsContainer() throws {
        var sector0 = [UInt8](repeating: 0, count: 512)
        (sector0[510], sector0[511]) = (0x55, 0xAA)
        let table = PartitionTable(
            kind: .mbr, sectorSize: .s512, diskSectors: 1_000_000, sector0: HexBytes(sector0),
            partitions: [
                Partition(number: 1, first: LBA(2048), sectors: 204_800, type: .mbr(0x83), attributes: 0x80),
                Partition(number: 2, first: LBA(206_848), sectors: 409_600, type: .mbr(0x05)),
                Partition(
                    number: 5, first: LBA(208_896), sectors: 100_352, type: .mbr(0x82), describedAt: LBA(206_848)),
                Partition(
                    number: 6, first: LBA(311_296), sectors: 305_152, type: .mbr(0x83), describedAt: LBA(309_248)),
            ])
        let source = DiskModel(
            path: "/dev/source", size: ByteCount(1_000_000 * 512), sectorSize: .s512, table: table,
            volumes: table.volumes.map {
                VolumeModel(
                    number: $0.number, extent: $0.extent(.s512) ?? Extent(from: .zero, to: .zero),
                    kind: $0.number == 6 ? .ext4 : .swap, used: ByteCount(4096))
            })
        let plan = try Planner.plan(Made.request(source, targetSectors: 3_000_000, .fill))
        let result = try #require(plan.disks.first?.table)
        let container = try #require(result.partition(2))
        let grown = try #require(result.partition(6))
        #expect(grown.first == LBA(311_296) && grown.describedAt == LBA(309_248))
        #expect(grown.sectors > 2_000_000)
        #expect(try #require(container.last) >= #require(grown.last))
        #expect(result.partition(5) == table.partition(5))
    }
}

@Suite struct PictureTests {
    @Test func fitsTheColumnsAndNamesTheParts() throws {
        let disk = Made.gpt(10_000_000, [(34, 2014, .unknown), (2048, 100_000, .fat), (102_400, 9_000_000, .ext4)])
        let plan = try Planner.plan(Made.request(disk, targetSectors: 20_000_000, .fill))
        let lines = plan.lines(columns: 76)
        let pictures = lines.filter { $0.hasPrefix("|") || $0.hasPrefix("+") }
        #expect(pictures.count == 6)
        #expect(pictures.allSatisfy { $0.count == 76 })
        #expect(lines.contains { $0.contains("ext4") && $0.contains("grown") })
    }
}
