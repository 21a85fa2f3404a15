// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import MachineModel
import PartitionTables
import Testing

@testable import RestorePlanning

/// Tables of the other kind, sectors of another size, and what could not be started any more.
@Suite struct ConversionTests {
    /// Boot, extended with two logicals, and a primary behind.
    static func mbr(code: String = "", active: ContentKind = .ext4) -> DiskModel {
        Made.disk(
            .mbr, 10_000,
            [
                Made.Part(number: 1, start: 1, size: 500, kind: active, type: .mbr(0x83), attributes: 0x80),
                Made.Part(number: 2, start: 501, size: 5000, kind: .unknown, type: .mbr(0x05)),
                Made.Part(number: 3, start: 5501, size: 4000, kind: .ext4, type: .mbr(0x83), minimum: 100),
                Made.Part(number: 5, start: 502, size: 2000, kind: .ext4, type: .mbr(0x83), minimum: 100, record: 501),
                Made.Part(number: 6, start: 2503, size: 2900, kind: .swap, type: .mbr(0x82), record: 2502),
            ], code: code)
    }

    @Test func anMBRBecomesAGPTWithRoomForTheBootLoader() throws {
        let plan = try Made.plan(Self.mbr(code: "GRUB "), 10_000) { $0.table = .gpt }
        let disk = plan.disks[0]
        let table = try #require(disk.table)
        #expect(table.kind == .gpt && table.partitions.map(\.number) == [1, 3, 5, 6, 7])
        let boot = try #require(table.partition(7))
        #expect(boot.first == LBA(34) && boot.last == LBA(2047))
        #expect(boot.type.description == PartitionTypes.biosBoot)
        #expect(table.partition(6)?.type.description == PartitionTypes.swap)
        #expect(table.partition(1)?.attributes == 4, "the active partition is marked for old firmware")
        #expect(disk.volumes.allSatisfy { !$0.moves } && disk.gap == nil)
        #expect(Set(table.partitions.map(\.guid)).count == 5 && !table.partitions.contains { $0.guid == nil })
        #expect(plan.findings.contains { $0.code == "boot.repair-needed" })
        _ = try TableWriter.image(of: table)
        let data = try Made.plan(Self.mbr(), 10_000) { $0.table = .gpt }
        #expect(data.disks[0].table?.partition(7) == nil, "nothing starts from it")
        let uefi = try Made.plan(Self.mbr(code: "GRUB "), 10_000) { ($0.table, $0.firmware) = (.gpt, .uefi) }
        #expect(uefi.disks[0].table?.partition(7) == nil)
    }

    @Test func anOldFirstPartitionMovesForTheBootLoader() throws {
        var source = Self.mbr(code: "GRUB ")
        source.table?.partitions[0].first = LBA(63)
        source.table?.partitions[0].sectors = 500 * 2048
        source.volumes[0].extent = Extent(from: ByteCount(63 * 512), to: ByteCount((63 + 500 * 2048) * 512))
        let disk = try Made.plan(source, 10_000) { $0.table = .gpt }.disks[0]
        #expect(try disk.volume(1).target.start == .mebibytes(1))
    }

    @Test func aGPTOfUpToFourKeepsItsNumbersInAnMBR() throws {
        var source = Made.windowsDisk
        source.volumes[2].kind = .ext4
        source.volumes[3].kind = .ext4
        let disk = try Made.plan(source, 21_600) { $0.table = .mbr }.disks[0]
        let table = try #require(disk.table)
        #expect(table.kind == .mbr && table.partitions.map(\.number) == [1, 3, 4] && disk.dropped.map(\.number) == [2])
        #expect(table.partitions.map(\.type.description) == ["0xef", "0x83", "0x27"])
        #expect(table.partitions.allSatisfy { $0.guid == nil && $0.name.isEmpty })
        _ = try TableWriter.image(of: table)
    }

    @Test func aGPTOfManyGetsAnExtendedPartition() throws {
        let source = Made.disk(
            .gpt, 8000,
            (1...6).map {
                Made.Part(number: $0, start: UInt64($0) * 1000 - 999, size: 990, kind: .ext4, type: Made.data)
            })
        let plan = try Made.plan(source, 8000) { $0.table = .mbr }
        let table = try #require(plan.disks[0].table)
        #expect(table.partitions.map(\.number) == [1, 2, 3, 4, 5, 6, 7])
        let container = try #require(table.partition(4))
        #expect(container.isExtendedContainer)
        for number in 5...7 {
            let logical = try #require(table.partition(number))
            #expect(try #require(logical.describedAt) >= container.first)
            #expect(try #require(logical.last) <= #require(container.last))
        }
        #expect(try plan.disks[0].volume(5).sourceNumber == 4)
        #expect(plan.findings.filter { $0.code == "partition.renumbered" }.count == 3)
        try plan.requireSound()
    }

    @Test func aLogicalLeftOutClosesTheChain() throws {
        let part = try Made.part("5")
        let plan = try Made.plan(Self.mbr(), 10_000) { $0.drop = [part] }
        let table = try #require(plan.disks[0].table)
        #expect(table.partitions.map(\.number) == [1, 2, 3, 5])
        #expect(try plan.disks[0].volume(5).sourceNumber == 6 && !plan.disks[0].volume(5).moves)
        _ = try TableWriter.image(of: table)
        let both = [part, try Made.part("6")]
        let none = try Made.plan(Self.mbr(), 10_000) { $0.drop = both }.disks[0].table
        #expect(none?.partitions.map(\.number) == [1, 2, 3])
    }

    @Test func anMBREndsWhereItsNumbersEnd() throws {
        let tera: UInt64 = 1 << 20
        let source = Made.disk(
            .mbr, tera, [Made.Part(number: 1, start: 1, size: tera - 2, kind: .ext4, type: .mbr(0x83), minimum: 100)])
        let disk = try Made.plan(source, 4 * tera, .fill).disks[0]
        #expect(try disk.volume(1).target.end <= .mebibytes(2 * tera))
        #expect(disk.table?.kind == .mbr)
        let gpt = try Made.plan(source, 4 * tera, .fill) { $0.table = .gpt }.disks[0]
        #expect(try gpt.volume(1).target.end > .mebibytes(4 * tera - 3))
        let part = try Made.part("1")
        #expect(
            Made.codes { () throws(PlanRefusal) in
                try Made.plan(source, 4 * tera) { $0.sizes = [SizeWish(part: part, size: .mebibytes(3 * tera))] }
            } == [.tableTooLarge])
    }

    @Test(arguments: [
        (TableWish.gpt, FirmwareWish.auto, ContentKind.ntfs, true), (.auto, .uefi, .ntfs, true),
        (.auto, .auto, .ntfs, false), (.gpt, .auto, .ext4, false), (.auto, .bios, .ext4, false),
    ])
    func whatABIOSWindowsCannotBeStartedFromIsRefused(
        _ table: TableWish, _ firmware: FirmwareWish, _ kind: ContentKind, _ isRefused: Bool
    ) {
        let codes = Made.codes { () throws(PlanRefusal) in
            try Made.plan(Self.mbr(code: "x", active: kind), 10_000) { ($0.table, $0.firmware) = (table, firmware) }
        }
        #expect(codes == (isRefused ? [.notBootable] : []))
    }

    @Test func whatAUEFIWindowsCannotBeStartedFromIsRefused() {
        let disk = Made.windowsDisk
        #expect(
            Made.codes { () throws(PlanRefusal) in try Made.plan(disk, 21_600) { $0.table = .mbr } } == [.notBootable])
        #expect(
            Made.codes { () throws(PlanRefusal) in try Made.plan(disk, 21_600) { $0.firmware = .bios } } == [
                .notBootable
            ]
        )
        #expect(Made.codes { () throws(PlanRefusal) in try Made.plan(disk, 21_600) { $0.firmware = .uefi } }.isEmpty)
    }

    @Test func aBIOSDoesNotStartFromLargeSectors() {
        var source = Self.mbr(code: "GRUB ")
        for index in source.volumes.indices where source.volumes[index].kind == .unknown {
            source.volumes[index].kind = .ext4
        }
        #expect(Made.codes { () throws(PlanRefusal) in try Made.plan(source, 10_000, nil, .s4096) } == [.notBootable])
        #expect(
            Made.codes { () throws(PlanRefusal) in
                try Made.plan(source, 10_000, nil, .s4096) { $0.firmware = .uefi }
            }.isEmpty)
        #expect(Made.codes { () throws(PlanRefusal) in try Made.plan(Self.mbr(code: "GRUB "), 10_000) }.isEmpty)
    }

    @Test func anotherMachinesFirmwareIsAWarning() throws {
        var request = Made.request(Self.mbr(code: "GRUB "), targetSectors: 10_000 * 2048, nil)
        request.firmware = .uefi
        #expect(try Planner.plan(request).findings.contains { $0.code == "boot.other-firmware" })
        request.firmware = .bios
        #expect(try !Planner.plan(request).findings.contains { $0.code == "boot.other-firmware" })
    }

    static let plain = Made.disk(
        .gpt, 10_000,
        [
            Made.Part(number: 1, start: 1, size: 100, kind: .fat, type: Made.esp),
            Made.Part(number: 2, start: 101, size: 4000, kind: .ext4, type: Made.data, minimum: 100),
            Made.Part(number: 3, start: 4101, size: 5000, kind: .btrfs, type: Made.data, minimum: 300),
        ])

    @Test func largeSectorsGetATableOfTheirOwn() throws {
        #expect(
            Made.codes { () throws(PlanRefusal) in try Made.plan(Self.plain, 10_000, nil, .s4096) }
                == [.sectorSizeMismatch])
        let part = try Made.part("1")
        let disk = try Made.plan(Self.plain, 10_000, nil, .s4096) { $0.recreate = [part] }.disks[0]
        let table = try #require(disk.table)
        #expect(table.sectorSize == .s4096 && table.gpt?.firstUsable == LBA(6) && table.sector0.bytes.count == 4096)
        #expect(try disk.volume(1).treatment == .recreate(by: "mkfs.fat"))
        #expect(try disk.volume(1).target.length == .mebibytes(300), "a FAT32 of 4096-byte sectors needs that much")
        #expect(disk.places[2] == [301, 4000] && disk.places[3] == [4301, 5000])
        #expect(table.partition(2)?.first == LBA(301 * 256) && table.gpt?.diskGUID == Self.plain.table?.gpt?.diskGUID)
        #expect(table.partition(2)?.guid == Self.plain.table?.partition(2)?.guid)
        _ = try TableWriter.image(of: table)
    }

    @Test func smallSectorsComeBackToo() throws {
        let source = Made.disk(
            .gpt, 10_000, [Made.Part(number: 2, start: 3, size: 4000, kind: .ext4, type: Made.data)], .s4096)
        let disk = try Made.plan(source, 10_000).disks[0]
        #expect(disk.table?.partition(2)?.first == LBA(3 * 2048) && disk.places[2] == [3, 4000])
        #expect(disk.table?.gpt?.firstUsable == LBA(34))
    }

    private static let rulings: [(ContentKind, UInt64, UInt64?, FaultCode?)] = [
        (.ext4, 1024, nil, .sectorSizeMismatch), (.xfs, 4096, nil, .sectorSizeMismatch),
        (.ntfs, 4096, nil, .sectorSizeMismatch), (.unknown, 0, nil, .unknownRaw), (.luks, 0, nil, .needsUnlock),
        (.ext4, 4096, nil, nil), (.btrfs, 4096, nil, nil), (.swap, 4096, nil, nil), (.luks, 0, 4096, nil),
        (.luks, 0, 1024, .sectorSizeMismatch),
        (ContentKind(rawValue: "hfsplus"), 4096, nil, .sectorSizeMismatch),
    ]

    @Test(arguments: rulings)
    func everyFilesystemIsRuledOn(_ kind: ContentKind, _ block: UInt64, _ inner: UInt64?, _ code: FaultCode?) {
        var source = Made.disk(
            .gpt, 10_000, [Made.Part(number: 1, start: 1, size: 4000, kind: kind, type: Made.data)])
        source.volumes[0].blockSize = ByteCount(block)
        if let inner {
            source.volumes[0].layers = [
                NestedVolume(
                    name: "luks", layout: "crypt", size: .mebibytes(3984), kind: .ext4, blockSize: ByteCount(inner),
                    used: .mebibytes(1))
            ]
        }
        let codes = Made.codes { () throws(PlanRefusal) in
            try Made.plan(source, 10_000, nil, .s4096, abilities: .growingExt)
        }
        #expect(codes == (code.map { [$0] } ?? []))
    }
}
