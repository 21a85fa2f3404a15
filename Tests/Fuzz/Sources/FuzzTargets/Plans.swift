// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import FoundationEssentials
import Geometry
import MachineModel
import PartitionTables
import RestorePlanning

extension FuzzTarget {
    /// JSON of a disk as a recovery point tells it, or of a stored plan: whatever it says, planning and printing end.
    static let plan = FuzzTarget(name: "plan", longest: 20_000, isText: true, seeds: Planning.seeds) { input in
        let data = Data(input)
        if let disk = try? JSONDecoder().decode(DiskModel.self, from: data) { Planning.check([disk]) }
        if let plan = try? JSONDecoder().decode(RestorePlan.self, from: data), (try? plan.requireSound()) != nil {
            Planning.check(plan)
        }
    }
}

enum Planning {
    /// Draws and plans disks for targets of several sizes.
    static func check(_ disks: [DiskModel]) {
        for disk in disks.prefix(2) {
            keep(DiskPicture.draw(disk))
            for layout in LayoutMode.allCases {
                for size in [disk.size.bytes, disk.size.bytes &+ (64 << 20), disk.size.bytes / 2, 1 << 30, 0, .max] {
                    // Each size with other wishes, so that all of them meet all layouts.
                    let sectorSize: SectorSize = size == 1 << 30 ? .s4096 : disk.sectorSize
                    let pin = TargetPin(path: "/dev/target", size: ByteCount(size), sectorSize: sectorSize)
                    var wishes = PlanWishes(layout: layout)
                    if size == .max { wishes.table = disk.table?.kind == .mbr ? .gpt : .mbr }
                    if size == 1 << 30 { (wishes.recreatesAll, wishes.ids) = (true, .new) }
                    if layout == .fill, let part = disk.volumes.first.flatMap({ PartName("\($0.number)") }) {
                        wishes.drop = [part]
                    }
                    let request = Planner.Request(
                        set: "set", point: "point",
                        assignments: [
                            Planner.Assignment(sourceIndex: 0, source: disk, target: Planner.Target(pin: pin))
                        ], wishes: wishes, abilities: .all, seed: [1, 2])
                    guard let plan = try? Planner.plan(request) else { continue }
                    for volume in plan.disks.flatMap(\.volumes) {
                        promise(volume.target.end.bytes <= size, "planned volumes lie on the target")
                    }
                    for table in plan.disks.compactMap(\.table) {
                        if let image = try? TableWriter.image(of: table) {
                            promise(image.extents.end.bytes <= size, "the planned table lies on the target")
                        }
                    }
                    check(plan)
                }
            }
        }
    }

    static func check(_ plan: RestorePlan) {
        do { try plan.requireSound() } catch { promise(false, "a plan just made can be carried out: \(error)") }
        keep(plan.lines())
        keep(plan.bytesToWrite)
        for disk in plan.disks { keep((try? disk.table.map { try TableWriter.image(of: $0).batches.count }) ?? 0) }
        guard let again = try? JSONEncoder().encode(plan) else { return }
        promise((try? JSONDecoder().decode(RestorePlan.self, from: again)) == plan, "a plan is stored as it is")
    }

    private static func volume(_ number: Int, _ first: UInt64, _ sectors: UInt64, _ kind: ContentKind) -> VolumeModel {
        VolumeModel(
            number: number, extent: Extent(from: ByteCount(first * 512), to: ByteCount((first + sectors) * 512)),
            kind: kind,
            label: "v\(number)", used: ByteCount(4096), states: [.clean])
    }

    /// A GPT disk with an ESP, an ext4 that can grow, and swap behind it.
    static var gpt: DiskModel {
        var sector0 = [UInt8](repeating: 0, count: 512)
        sector0.replaceSubrange(
            446..<462, with: [0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF])
        (sector0[510], sector0[511]) = (0x55, 0xAA)
        let type = GUID("0fc63daf-8483-4772-8e79-3d69d8477de4") ?? .zero
        let parts: [(UInt64, UInt64, ContentKind)] = [(2048, 2048, .fat), (4096, 8192, .ext4), (12_288, 2048, .swap)]
        let table = PartitionTable(
            kind: .gpt, sectorSize: .s512, diskSectors: 20_000, sector0: HexBytes(sector0),
            gpt: GPTFacts(diskGUID: type, firstUsable: LBA(34), lastUsable: LBA(20_000 - 34)),
            partitions: parts.enumerated().map { index, part in
                Partition(
                    number: index + 1, first: LBA(part.0), sectors: part.1, type: .gpt(type), guid: type, name: "p")
            })
        return DiskModel(
            path: "/dev/source", serial: "S1", size: ByteCount(20_000 * 512), sectorSize: .s512, table: table,
            volumes: parts.enumerated().map { volume($0.offset + 1, $0.element.0, $0.element.1, $0.element.2) })
    }

    /// An MBR disk with an extended partition.
    static var mbr: DiskModel {
        var sector0 = [UInt8](repeating: 0, count: 512)
        (sector0[510], sector0[511]) = (0x55, 0xAA)
        let table = PartitionTable(
            kind: .mbr, sectorSize: .s512, diskSectors: 20_000, sector0: HexBytes(sector0),
            partitions: [
                Partition(number: 1, first: LBA(2048), sectors: 2048, type: .mbr(0x83), attributes: 0x80),
                Partition(number: 2, first: LBA(4096), sectors: 8192, type: .mbr(0x05)),
                Partition(number: 5, first: LBA(6144), sectors: 4096, type: .mbr(0x83), describedAt: LBA(4096)),
            ])
        return DiskModel(
            path: "/dev/source", size: ByteCount(20_000 * 512), sectorSize: .s512, table: table,
            volumes: [volume(1, 2048, 2048, .fat), volume(5, 6144, 4096, .ext4)])
    }

    @Sendable static func seeds() throws -> [(name: String, bytes: [UInt8])] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        var result: [(name: String, bytes: [UInt8])] = []
        for (name, disk) in [("gpt", gpt), ("mbr", mbr)] {
            result.append(("disk-\(name)", Array(try encoder.encode(disk))))
            let pin = TargetPin(path: "/dev/target", size: ByteCount(40_000 * 512), sectorSize: .s512)
            let plan = try Planner.plan(
                Planner.Request(
                    set: "set", point: "point",
                    assignments: [Planner.Assignment(sourceIndex: 0, source: disk, target: Planner.Target(pin: pin))],
                    wishes: PlanWishes(layout: .fill)))
            result.append(("plan-\(name)", Array(try encoder.encode(plan))))
        }
        let whole = DiskModel(
            path: "/dev/whole", size: .mebibytes(8), sectorSize: .s512,
            volumes: [
                VolumeModel(number: 0, extent: Extent(from: .zero, to: .mebibytes(8)), kind: .ext4, used: .mebibytes(1))
            ])
        result.append(("disk-whole", Array(try encoder.encode(whole))))
        return result
    }
}
