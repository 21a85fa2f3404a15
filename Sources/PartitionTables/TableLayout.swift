// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings
public import Geometry
public import MachineModel

/// Changes to a table as a value. Reads and writes nothing.
public enum TableLayout {
    /// Sectors in 1 MiB: what partitions are aligned to.
    public static func grain(_ size: SectorSize) -> UInt64 { (1 << 20) / UInt64(size.bytes) }

    /// The sectors partitions of `table` may lie in on a disk of `sectors` sectors; `nil` where there are none.
    public static func usable(_ table: PartitionTable, onSectors sectors: UInt64) -> ClosedRange<UInt64>? {
        switch table.kind {
        case .gpt:
            guard let facts = table.gpt, let places = try? GPTWriter.places(facts, table.sectorSize, sectors: sectors)
            else { return nil }
            let first = min(max(facts.firstUsable.value, places.afterPrimary), places.backupEntries - 1)
            return first...(places.backupEntries - 1)
        case .mbr:
            return sectors < 2 ? nil : 1...min(sectors - 1, UInt64(UInt32.max))
        }
    }

    /// The same table on a disk of `sectors` sectors of the same size. Partitions stay where they are; in a GPT the last
    /// usable sector and the protective entry follow the disk's end.
    ///
    /// Throws `target.too-small` naming the first partition that does not fit.
    public static func relocated(_ table: PartitionTable, toSectors sectors: UInt64) throws(Fault) -> PartitionTable {
        var result = table
        result.diskSectors = sectors
        var end = sectors
        if table.kind == .gpt, let facts = table.gpt {
            let places = try GPTWriter.places(facts, table.sectorSize, sectors: sectors)
            end = places.backupEntries
            let last = LBA(places.backupEntries - 1)
            // On a disk of the same size a tool's own choice, such as an aligned end, stays.
            if sectors != table.diskSectors || facts.lastUsable > last { result.gpt?.lastUsable = last }
            if facts.firstUsable.value < places.afterPrimary || facts.firstUsable > last {
                result.gpt?.firstUsable = LBA(places.afterPrimary)
            }
            guard table.sector0.bytes.count == Int(table.sectorSize.bytes) else {
                throw TableWriter.refused("Its sector 0 has \(table.sector0.bytes.count) bytes.")
            }
            result.sector0 = HexBytes(
                ProtectiveMBR.adjusted(table.sector0.bytes, from: table.diskSectors, to: sectors))
        }
        for partition in table.partitions.sorted(by: { $0.first < $1.first }) {
            guard let last = partition.last, last.value < end else {
                throw TableWriter.tooSmall(partition, end: end)
            }
        }
        return result
    }

    /// `table` with `partitions` instead of its own. Entries of a hybrid MBR that named a partition of the old table
    /// name the one with the same number in the new; an entry whose partition is gone is dropped.
    ///
    /// Throws `plan.refused` where a hybrid entry cannot follow its partition because an MBR does not reach that far.
    public static func replacing(
        _ table: PartitionTable, partitions: [Partition]
    ) throws(Fault) -> PartitionTable {
        var result = table
        result.partitions = partitions.sorted { $0.number < $1.number }
        guard table.kind == .gpt, let boot = MBRSector(table.sector0.bytes), boot.isProtective,
            table.sector0.bytes.count >= 512
        else { return result }
        var sector0 = table.sector0.bytes
        for (number, slot) in boot.used where slot.type != MBRSlot.protective {
            guard
                let old = table.partitions.first(where: {
                    $0.first.value == UInt64(slot.first) && $0.sectors == UInt64(slot.sectors)
                })
            else { continue }
            let base = MBRSlot.table + (number - 1) * MBRSlot.size
            var bytes = [UInt8](repeating: 0, count: MBRSlot.size)
            if let new = result.partition(old.number) {
                if new.first == old.first && new.sectors == old.sectors { continue }
                guard let first = UInt32(exactly: new.first.value), let sectors = UInt32(exactly: new.sectors) else {
                    throw TableWriter.refused(
                        "Entry \(number) of its hybrid MBR names partition \(new.number), which now lies past sector "
                            + "\(UInt32.max).")
                }
                bytes = MBRSlot(status: slot.status, type: slot.type, first: first, sectors: sectors).bytes()
            }
            sector0.replaceSubrange(base..<base + MBRSlot.size, with: bytes)
        }
        result.sector0 = HexBytes(sector0)
        return result
    }
}
