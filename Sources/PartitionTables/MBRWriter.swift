// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import MachineModel

/// Makes sector 0 of an MBR and its extended boot records.
enum MBRWriter {
    static func image(of table: PartitionTable) throws(Fault) -> TableImage {
        var sector0 = table.sector0.bytes
        let old = MBRSector(sector0)
        for index in 0..<4 {
            let base = MBRSlot.table + index * MBRSlot.size
            var slot = MBRSlot(type: 0, first: 0, sectors: 0)
            var bytes = [UInt8](repeating: 0, count: MBRSlot.size)
            if let partition = table.partition(index + 1) {
                guard partition.describedAt == nil else {
                    throw TableWriter.refused(
                        "Partition \(index + 1) is called a logical one, but its number is a slot's.")
                }
                slot = try self.slot(partition, at: partition.first.value)
                bytes = slot.bytes()
            }
            // An entry that stays keeps its CHS fields as well: old systems made them for other geometries.
            if let old, slot.isUsed, old.slots[index] == slot { continue }
            sector0.replaceSubrange(base..<base + MBRSlot.size, with: bytes)
        }
        sector0.replaceSubrange(510..<512, with: [0x55, 0xAA])

        var records: [TableRegion] = []
        let logicals = table.partitions.filter { !(1...4).contains($0.number) }.sorted { $0.number < $1.number }
        guard logicals.map(\.number) == Array(5..<5 + logicals.count) else {
            throw TableWriter.refused("Logical partitions are numbered from 5 on without a gap.")
        }
        var placed = 0
        for container in table.partitions where container.isExtendedContainer && container.describedAt == nil {
            let inside = logicals.filter { logical in
                logical.describedAt.map {
                    $0 >= container.first && $0.value - container.first.value < container.sectors
                }
                    ?? false
            }
            placed += inside.count
            records += try chain(inside, in: container, table)
        }
        guard placed == logicals.count else {
            throw TableWriter.refused("A logical partition has no boot record of its own inside an extended partition.")
        }
        let first = TableRegion(at: LBA(0), bytes: sector0, what: "MBR")
        return TableImage(sectorSize: table.sectorSize, batches: records.isEmpty ? [[first]] : [records, [first]])
    }

    /// The extended boot records of one container, in the order of the chain.
    private static func chain(
        _ logicals: [Partition], in container: Partition, _ table: PartitionTable
    ) throws(Fault) -> [TableRegion] {
        var places: [LBA] = [container.first]
        for logical in logicals {
            guard let at = logical.describedAt else { continue }
            if places.last != at {
                guard !places.contains(at) else {
                    throw TableWriter.refused("Logical partitions of one boot record must follow each other.")
                }
                places.append(at)
            }
        }
        guard places.count <= ExtendedChain.mostRecords else {
            throw TableWriter.refused("It has more than \(ExtendedChain.mostRecords) logical partitions.")
        }
        var regions: [TableRegion] = []
        for (index, place) in places.enumerated() {
            for partition in table.volumes {
                guard let last = partition.last, partition.first <= place, place <= last else { continue }
                throw TableWriter.refused(
                    "The extended boot record at sector \(place.value) lies inside partition \(partition.number).")
            }
            let own = logicals.filter { $0.describedAt == place }
            let next = index + 1 < places.count ? places[index + 1] : nil
            guard own.count + (next == nil ? 0 : 1) <= 4 else {
                throw TableWriter.refused("A boot record describes more partitions than it has entries.")
            }
            var entries: [UInt8] = []
            for logical in own {
                guard logical.first > place else {
                    throw TableWriter.refused(
                        "Logical partition \(logical.number) begins before the boot record that describes it.")
                }
                entries += try slot(logical, at: logical.first.value - place.value).bytes(chsFrom: place.value)
            }
            if let next {
                let end = logicals.filter { $0.describedAt == next }.compactMap { $0.last?.value }.max() ?? next.value
                let link = Partition(
                    number: 0, first: next, sectors: end >= next.value ? end - next.value + 1 : 1, type: .mbr(0x05))
                entries += try slot(link, at: next.value - container.first.value).bytes(chsFrom: container.first.value)
            }
            var bytes = [UInt8](repeating: 0, count: Int(table.sectorSize.bytes))
            bytes.replaceSubrange(MBRSlot.table..<MBRSlot.table + entries.count, with: entries)
            bytes.replaceSubrange(510..<512, with: [0x55, 0xAA])
            regions.append(TableRegion(at: place, bytes: bytes, what: "extended boot record"))
        }
        return regions
    }

    private static func slot(_ partition: Partition, at first: UInt64) throws(Fault) -> MBRSlot {
        guard case .mbr(let type) = partition.type, type != 0, let status = UInt8(exactly: partition.attributes),
            status & 0x7F == 0
        else {
            throw TableWriter.refused(
                "Partition \(partition.number) has no MBR type, or a status other than 0 and 0x80.")
        }
        guard let first = UInt32(exactly: first), let sectors = UInt32(exactly: partition.sectors),
            let last = partition.last, last.value <= UInt64(UInt32.max)
        else {
            throw TableWriter.refused(
                "Partition \(partition.number) ends past sector \(UInt32.max), where an MBR ends. A GPT has no such limit."
            )
        }
        return MBRSlot(status: status, type: type, first: first, sectors: sectors)
    }
}
