// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import MachineModel
import Synchronization
import TestSupport
import Testing

@testable import RestorePlanning

/// Layouts nobody thought of.
@Suite struct RandomLayoutTests {
    private struct Generator {
        var random: Seeded
        static let kinds: [ContentKind] = [
            .ext4, .ext4, .ext4, .ntfs, .ntfs, .btrfs, .btrfs, .xfs, .fat, .swap, .unknown, .physicalVolume,
        ]
        static let types = [
            PartitionTypes.linuxData, PartitionTypes.linuxData, PartitionTypes.basicData, PartitionTypes.basicData,
            PartitionTypes.linuxData, PartitionTypes.esp, PartitionTypes.recovery,
        ].map { GUID($0) ?? .zero }
        static let gptSector0 = HexBytes(Made.sector0(.s512))
        static let mbrSector0: HexBytes = {
            var bytes = [UInt8](repeating: 0, count: 512)
            (bytes[510], bytes[511]) = (0x55, 0xAA)
            return HexBytes(bytes)
        }()
        static let guid = GUID(Made.linuxData) ?? .zero

        mutating func number(_ range: ClosedRange<UInt64>) -> UInt64 {
            range.lowerBound + random.next() % (range.upperBound - range.lowerBound + 1)
        }

        mutating func disk() -> DiskModel {
            let isMBR = number(0...2) == 0
            let isAligned = number(0...3) > 0
            // Small disks in 1 MiB, large ones in 1 GiB.
            let unit: UInt64 = number(0...1) == 0 ? 2048 : 2048 << 10
            let room = number(100...2000) * unit + number(0...4095)
            var position: UInt64 = isMBR ? 63 : 34
            if number(0...3) > 0 { position = 2048 }
            var partitions: [Partition] = []
            var volumes: [VolumeModel] = []
            let count = Int(number(1...7))
            var container: (index: Int, first: UInt64)?
            var nextLogical = 5
            for index in 0..<count {
                if isMBR, index == 2, count > 3 {
                    container = (partitions.count, position)
                    partitions.append(Partition(number: 3, first: LBA(position), sectors: 1, type: .mbr(0x05)))
                }
                var record: UInt64?
                if container != nil {
                    record = position
                    position += isAligned ? 2048 : 63
                }
                var length = number(1...room / UInt64(count)) + (number(0...2) == 0 ? 0 : unit)
                if isAligned { length = (length + 2047) / 2048 * 2048 }
                guard position + length < room - 40 else { break }
                let kind = Generator.kinds[Int(number(0...UInt64(Generator.kinds.count - 1)))]
                var number = index + 1
                if record != nil {
                    number = nextLogical
                    nextLogical += 1
                }
                let type: PartitionType =
                    isMBR
                    ? .mbr(kind == .ntfs ? 0x07 : 0x83)
                    : .gpt(Generator.types[Int(self.number(0...UInt64(Generator.types.count - 1)))])
                partitions.append(
                    Partition(
                        number: number, first: LBA(position), sectors: length, type: type,
                        guid: isMBR ? nil : Generator.guid, describedAt: record.map { LBA($0) }))
                let bytes = ByteCount(length * 512)
                let used = ByteCount(self.number(1...(length + 2) / 3) * 512)
                let isKnown = self.number(0...7) > 0
                if self.number(0...9) > 0 {
                    volumes.append(
                        VolumeModel(
                            number: number,
                            extent: Extent(from: ByteCount(position * 512), to: ByteCount(position * 512) + bytes),
                            kind: kind, used: used, minimum: isKnown && kind != .xfs ? used : nil,
                            minimumIs: isKnown ? "measured" : nil))
                }
                position += length
                if self.number(0...3) == 0 {
                    position += isAligned ? self.number(0...20) * 2048 : self.number(0...5000)
                }
            }
            if let container {
                // An extended partition that nothing came to lie in.
                let end = partitions.last?.last?.value ?? container.first
                partitions[container.index].sectors = end > container.first ? end - container.first + 1 : 2048
            }
            let sectors = position + 40 + number(0...position / 8)
            let table = PartitionTable(
                kind: isMBR ? .mbr : .gpt, sectorSize: .s512, diskSectors: sectors,
                sector0: isMBR ? Generator.mbrSector0 : Generator.gptSector0,
                gpt: isMBR
                    ? nil : GPTFacts(diskGUID: Generator.guid, firstUsable: LBA(34), lastUsable: LBA(sectors - 34)),
                partitions: partitions.sorted { $0.number < $1.number })
            return DiskModel(
                path: "/dev/source", size: ByteCount(sectors * 512), sectorSize: .s512, table: table, volumes: volumes)
        }
    }

    /// What a plan breaks, in words; empty when it keeps every rule.
    private static func broken(_ plan: DiskPlan, _ source: DiskModel, _ request: Planner.Request) -> [String] {
        var result: [String] = []
        guard let table = plan.table, let old = source.table else { return ["there is no table"] }
        let size = table.sectorSize
        let usableEnd = plan.target.size.bytes - (table.kind == .gpt ? 33 * 512 : 0)
        var cursor: UInt64 = table.kind == .gpt ? 34 * 512 : 512
        let placed = table.volumes.sorted { $0.first < $1.first }
        for partition in placed {
            guard let extent = partition.extent(size) else { return ["no extent"] }
            if extent.start.bytes < cursor { result.append("\(partition.number) overlaps") }
            cursor = extent.end.bytes
        }
        if cursor > usableEnd { result.append("passes the usable range") }
        // Order and numbers.
        if old.kind == table.kind, plan.dropped.isEmpty {
            if placed.map(\.number) != old.volumes.sorted(by: { $0.first < $1.first }).map(\.number) {
                result.append("another order")
            }
            if table.partitions.map(\.number) != old.partitions.map(\.number) { result.append("other numbers") }
        }
        for volume in plan.volumes {
            guard let model = source.volumes.first(where: { $0.number == volume.sourceNumber }) else {
                return ["no source"]
            }
            let least = request.abilities.shrink[model.kind] == nil ? nil : model.minimum
            if volume.target.length < min(least ?? model.extent.length, model.extent.length),
                model.kind != .ntfs
            {
                result.append("\(volume.number) is below its least")
            }
            if volume.moves, !volume.target.start.isMultiple(of: Planner.alignment) {
                result.append("\(volume.number) moves to a place that is not aligned")
            }
            if volume.target.length != model.extent.length, !volume.target.length.isMultiple(of: Planner.alignment),
                !volume.target.end.isMultiple(of: Planner.alignment)
            {
                result.append("\(volume.number) has an odd size")
            }
        }
        for container in table.partitions where container.isExtendedContainer {
            for logical in table.partitions {
                guard let record = logical.describedAt else { continue }
                if record < container.first || (logical.last ?? record) > (container.last ?? record)
                    || record >= logical.first
                {
                    result.append("\(logical.number) lies outside of its container")
                }
            }
        }
        do { try plan.requireSound() } catch { result.append(error.what) }
        return result
    }

    /// Other tables and other sectors: the plans can be carried out, whatever the layout.
    @Test func manyConversionsCanBeWritten() {
        let seed: UInt64 = 77
        var generator = Generator(random: Seeded(seed))
        var planned = 0
        for turn in 0..<3000 {
            let source = generator.disk()
            let sectors = source.size.bytes / 512
            let isLarge = generator.number(0...2) == 0
            let size: SectorSize = isLarge ? .s4096 : .s512
            let target = generator.number(sectors / 2...sectors * 2) * 512 / UInt64(size.bytes)
            let layout = [nil, LayoutMode.keep, .proportional, .fill][Int(generator.number(0...3))]
            let drop = source.volumes.count > 1 && generator.number(0...2) == 0 ? source.volumes.first?.number : nil
            let request = Made.request(
                source, targetSectors: target, layout, sectorSize: size, abilities: .all
            ) { wishes in
                wishes.table = turn % 4 == 0 ? .auto : source.table?.kind == .mbr ? .gpt : .mbr
                wishes.recreatesAll = true
                wishes.ids = turn % 2 == 0 ? .new : nil
                wishes.drop = drop.flatMap { PartName("\($0)") }.map { [$0] } ?? []
            }
            guard let plan = try? Planner.plan(request) else { continue }
            planned += 1
            do {
                try plan.requireSound()
            } catch { Issue.record("seed \(seed), turn \(turn): \(error)") }
            let disk = plan.disks[0]
            let kept = Set(source.volumes.map(\.number)).subtracting(disk.dropped.map(\.number))
            if Set(disk.volumes.map(\.sourceNumber)) != kept { Issue.record("turn \(turn): a volume is lost") }
            let places = disk.volumes.sorted { $0.target.start < $1.target.start }.map(\.source.start)
            if places != places.sorted() { Issue.record("turn \(turn): another order") }
        }
        #expect(planned > 500, "\(planned)")
    }

    /// No overlap, order and numbers kept, nothing below its least, what moves is aligned, everything inside the usable
    /// range, deterministic, the same on an equal disk; a larger target never adds a refusal and never makes a volume
    /// smaller.
    @Test(arguments: 0..<4) func manyLayoutsKeepTheRules(_ part: Int) {
        let seed = UInt64(2026 + part)
        var generator = Generator(random: Seeded(seed))
        var counts: [String: Int] = [:]
        for turn in 0..<25_000 {
            let source = generator.disk()
            let layout = [nil, LayoutMode.keep, .proportional, .fill][Int(generator.number(0...3))]
            let sectors = source.size.bytes / 512
            let first: UInt64
            switch generator.number(0...5) {
            case 0: first = sectors
            case 1: first = generator.number(sectors...sectors * 3)
            default: first = generator.number(sectors * 2 / 3...sectors)
            }
            let second = first + generator.number(0...max(1, sectors / 4))
            func request(_ sectors: UInt64) -> Planner.Request {
                Made.request(source, targetSectors: sectors, layout, abilities: .all)
            }
            func fail(_ what: String) {
                Issue.record(
                    "seed \(seed), turn \(turn), layout \(layout?.rawValue ?? "-"), \(first) of \(sectors): \(what)")
            }
            var one: RestorePlan?
            do throws(PlanRefusal) {
                one = try Planner.plan(request(first))
            } catch {
                counts["refused: \(error.reasons.first?.code.rawValue ?? "")", default: 0] += 1
                if error.reasons.first?.code == .setDamaged { fail("\(error.reasons)") }
            }
            let two = one == nil ? nil : try? Planner.plan(request(second))
            counts[one == nil ? "refused" : "planned", default: 0] += 1
            if let one {
                for what in RandomLayoutTests.broken(one.disks[0], source, request(first)) { fail(what) }
                if turn % 16 == 0 {
                    if (try? Planner.plan(request(first))) != one { fail("not the same again") }
                    // The order things are told in does not matter.
                    var shuffled = request(first)
                    shuffled.assignments[0].source.volumes.reverse()
                    shuffled.assignments[0].source.table?.partitions.shuffle(using: &generator.random)
                    if (try? Planner.plan(shuffled))?.disks != one.disks { fail("another plan in another order") }
                }
                if first == sectors, layout != .fill, one.disks[0].table != source.table { fail("not as it was") }
                guard let two else {
                    fail("refused on a larger target (\(second))")
                    continue
                }
                for (small, large) in zip(one.disks[0].volumes, two.disks[0].volumes)
                where large.target.length < small.target.length {
                    fail("\(small.number) becomes smaller on a larger target (\(second))")
                }
                if one.disks[0].volumes.contains(where: { $0.treatment != .copy }) {
                    counts["shrunk", default: 0] += 1
                }
            }
        }
        print("random layouts, seed \(seed): \(counts.sorted { $0.key < $1.key })")
        #expect(counts["shrunk"] ?? 0 > 1000 && counts["planned"] ?? 0 > 10_000, "\(counts)")
    }
}
