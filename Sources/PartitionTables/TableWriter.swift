// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings
import Geometry
public import MachineModel

/// Turns a table into the bytes of all its sectors. Nothing else in Relight makes table bytes.
public enum TableWriter {
    /// The bytes of `table` on a disk of `table.diskSectors` sectors.
    ///
    /// A GPT gets both copies, entries before their header, the backup at the very end of the disk, and a sector 0 whose
    /// boot code, disk signature and hybrid entries are kept and whose protective entry fits the disk. An MBR keeps
    /// everything of sector 0 but its entries, and its extended chains are built anew.
    ///
    /// Throws `target.too-small` where a partition does not fit, and `plan.refused` for a table that cannot be written.
    public static func image(of table: PartitionTable) throws(Fault) -> TableImage {
        guard table.sector0.bytes.count == Int(table.sectorSize.bytes) else {
            throw refused("Its sector 0 has \(table.sector0.bytes.count) bytes, not \(table.sectorSize.bytes).")
        }
        var numbers: Set<Int> = []
        for partition in table.partitions {
            guard numbers.insert(partition.number).inserted else {
                throw refused("Two partitions have the number \(partition.number).")
            }
            guard let last = partition.last else {
                throw refused("Partition \(partition.number) has no sectors, or ends past any disk.")
            }
            guard last.value < table.diskSectors else { throw tooSmall(partition, end: table.diskSectors) }
        }
        switch table.kind {
        case .gpt: return try GPTWriter.image(of: table)
        case .mbr: return try MBRWriter.image(of: table)
        }
    }

    static func refused(_ what: String) -> Fault {
        Fault(
            .planRefused, what: "This partition table cannot be written. \(what)",
            remedy: "Make another plan: `relight plan` shows what is possible.")
    }

    static func tooSmall(_ partition: Partition, end: UInt64) -> Fault {
        Fault(
            .targetTooSmall,
            what:
                "Partition \(partition.number) ends at sector \(partition.last?.value ?? UInt64.max), but on this disk "
                + "partitions must end before sector \(end).",
            remedy: "Use a larger disk, or a layout that moves or shrinks the partition.")
    }
}
