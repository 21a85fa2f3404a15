// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import MachineModel
import RestorePlanning
import Testing

/// Descriptions and plans whose parts do not agree are refused in words, before anything is computed from them.
@Suite struct PlanCheckTests {
    let disk = Made.gpt(1_000_000, [(2048, 100_000, .fat), (102_400, 500_000, .ext4)])

    private func refusal(_ source: DiskModel, _ layout: LayoutMode = .keep) -> Fault? {
        do throws(PlanRefusal) {
            _ = try Planner.plan(Made.request(source, targetSectors: 2_000_000, layout))
            return nil
        } catch {
            return error.reasons.first
        }
    }

    @Test func aVolumePastTheEndOfAWholeDiskIsRefused() {
        let whole = DiskModel(
            path: "/dev/whole", size: .mebibytes(8), sectorSize: .s512,
            volumes: [
                VolumeModel(
                    number: 0, extent: Extent(from: ByteCount(1 << 40), to: ByteCount(1 << 41)), kind: .ext4,
                    used: .mebibytes(1))
            ])
        #expect(refusal(whole)?.code == .setDamaged)
        #expect(refusal(whole, .fill)?.what.contains("past the disk's end") == true)
    }

    @Test func partitionsWithoutATableAreRefused() {
        var source = disk
        source.table = nil
        #expect(refusal(source, .fill)?.what.contains("no partition table") == true)
    }

    @Test func aDamagedDescriptionIsDrawnAtOnce() {
        let volumes = (1...200).map { number in
            VolumeModel(
                number: number, extent: Extent(from: .zero, to: ByteCount(.max)), kind: .ext4, used: .mebibytes(1))
        }
        for size in [ByteCount.zero, ByteCount(2), .mebibytes(8)] {
            let lines = DiskPicture.draw(
                DiskModel(path: "/dev/x", size: size, sectorSize: .s512, volumes: volumes), columns: 40)
            #expect(lines.count == 3 && Set(lines.map(\.count)) == [200 * 4 + 1])
        }
    }

    @Test func usedBytesThatDoNotFitAreRefused() {
        var source = disk
        source.volumes[0].used = ByteCount(.max)
        #expect(refusal(source)?.code == .setDamaged)
    }

    @Test func aTableOfAnotherSectorSizeIsRefused() {
        var source = disk
        source.table?.sectorSize = .s4096
        #expect(refusal(source)?.code == .setDamaged)
    }

    @Test func aPartitionAtTheEndOfAllNumbersIsTooLarge() {
        var source = disk
        source.table?.partitions[0].first = LBA(.max)
        source.table?.partitions[0].sectors = 1
        source.volumes.removeFirst()
        #expect(refusal(source)?.code == .targetTooSmall)
    }

    @Test func aVolumeOutsideItsPartitionIsRefused() {
        var source = disk
        source.table?.partitions[0].first = LBA(4096)
        #expect(refusal(source)?.what.contains("the partition of its number") == true)
    }

    @Test func aVolumeCutOffByTheDisksEndIsPlanned() throws {
        var source = disk
        source.table?.diskSectors = 500_000
        source.size = ByteCount(500_000 * 512)
        source.volumes[1].extent = Extent(from: source.volumes[1].extent.start, to: source.size)
        let plan = try Planner.plan(Made.request(source, targetSectors: 2_000_000, .keep))
        #expect(plan.disks.first?.volumes.count == 2)
        try plan.requireSound()
    }

    @Test func aPlanJustMadeIsSound() throws {
        for layout in [LayoutMode.exact, .keep, .fill] {
            try Planner.plan(Made.request(disk, targetSectors: 2_000_000, layout)).requireSound()
        }
    }

    @Test func storedPlansWhosePartsDoNotAgreeAreRefused() throws {
        let sound = try Planner.plan(Made.request(disk, targetSectors: 2_000_000, .keep))
        func refused(_ change: (inout DiskPlan) -> Void) -> Bool {
            var plan = sound
            change(&plan.disks[0])
            let fault = #expect(throws: Fault.self) { try plan.requireSound() }
            return fault?.code == .planRefused
        }
        #expect(refused { $0.volumes[0].used = ByteCount(.max) })
        #expect(refused { $0.volumes[0].source = Extent(from: .zero, to: ByteCount(.max)) })
        #expect(refused { $0.volumes[1].target = $0.volumes[0].target })
        #expect(
            refused { $0.volumes[0].target = Extent(from: $0.volumes[0].target.start, to: $0.volumes[0].target.start) })
        #expect(refused { $0.target.size = .mebibytes(1) })
        #expect(refused { $0.gap = Extent(from: .zero, to: ByteCount(1 << 62)) })
        #expect(refused { $0.table?.diskSectors = .max })
        #expect(refused { $0.table?.partitions[0].first = LBA(4096) })
    }
}

/// The planner makes no plan that a restore would refuse.
@Suite struct UnplannableDiskTests {
    @Test func aWholeDiskVolumeThatDoesNotBeginItsDiskIsRefusedWhenPlanning() {
        let disk = DiskModel(
            path: "/dev/whole", size: .mebibytes(8), sectorSize: .s512,
            volumes: [
                VolumeModel(
                    number: 0, extent: Extent(from: .mebibytes(1), to: .mebibytes(8)), kind: .ext4, used: .mebibytes(1))
            ])
        #expect {
            try Planner.plan(Made.request(disk, targetSectors: 2_000_000, .keep))
        } throws: { error in
            (error as? PlanRefusal)?.reasons.first?.what.contains("does not begin the disk") == true
        }
    }
}
