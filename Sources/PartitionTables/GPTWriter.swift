// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import MachineModel

/// Makes both copies of a GPT and the sector 0 before them.
enum GPTWriter {
    /// Where the parts of a GPT lie on one disk.
    struct Places {
        /// Sectors of one entry array.
        var entrySectors: UInt64
        /// First sector behind the primary entries.
        var afterPrimary: UInt64
        /// First sector of the backup entries.
        var backupEntries: UInt64
        /// The last sector: the backup header.
        var backupHeader: UInt64
    }

    /// The places on a disk of `sectors` sectors; throws where the table itself does not fit.
    static func places(_ facts: GPTFacts, _ size: SectorSize, sectors: UInt64) throws(Fault) -> Places {
        guard facts.entrySize >= 128, facts.entrySize <= 4096, facts.entrySize & (facts.entrySize - 1) == 0,
            facts.entryCount > 0,
            UInt64(facts.entryCount) * UInt64(facts.entrySize) <= GPTHeader.mostEntryBytes
        else {
            throw TableWriter.refused("\(facts.entryCount) entries of \(facts.entrySize) bytes are no GPT.")
        }
        let entrySectors = GPTHeader.entrySectors(count: facts.entryCount, size: facts.entrySize, size)
        let (after, overflow) = facts.entriesAt.value.addingReportingOverflow(entrySectors)
        guard facts.entriesAt.value >= 2, !overflow else {
            throw TableWriter.refused("Its entries cannot lie at sector \(facts.entriesAt.value).")
        }
        // One sector at least must be left to use.
        guard after < UInt64.max - entrySectors - 2, after + 1 + entrySectors + 1 <= sectors else {
            throw Fault(
                .targetTooSmall, what: "A disk of \(sectors) sectors has no room for the GPT itself.",
                remedy: "Use a larger disk.")
        }
        return Places(
            entrySectors: entrySectors, afterPrimary: after, backupEntries: sectors - 1 - entrySectors,
            backupHeader: sectors - 1)
    }

    static func image(of table: PartitionTable) throws(Fault) -> TableImage {
        guard let facts = table.gpt else { throw TableWriter.refused("It is a GPT without header facts.") }
        let size = table.sectorSize
        let places = try places(facts, size, sectors: table.diskSectors)
        var firstUsable = max(facts.firstUsable.value, places.afterPrimary)
        var lastUsable = min(facts.lastUsable.value, places.backupEntries - 1)
        for partition in table.partitions {
            guard case .gpt(let type) = partition.type, type != .zero, partition.guid != nil else {
                throw TableWriter.refused("Partition \(partition.number) has no GPT type or no GUID of its own.")
            }
            guard (1...Int(facts.entryCount)).contains(partition.number) else {
                throw TableWriter.refused(
                    "Partition \(partition.number) has no entry: there are \(facts.entryCount).")
            }
            guard partition.name.utf16.count <= 36 else {
                throw TableWriter.refused("The name of partition \(partition.number) has more than 36 UTF-16 units.")
            }
            guard partition.first.value >= places.afterPrimary else {
                throw TableWriter.refused(
                    "Partition \(partition.number) begins at sector \(partition.first.value), inside the table, which ends "
                        + "at sector \(places.afterPrimary - 1).")
            }
            guard let last = partition.last, last.value < places.backupEntries else {
                throw TableWriter.tooSmall(partition, end: places.backupEntries)
            }
            firstUsable = min(firstUsable, partition.first.value)
            lastUsable = max(lastUsable, last.value)
        }
        if firstUsable > lastUsable { (firstUsable, lastUsable) = (places.afterPrimary, places.backupEntries - 1) }

        let array = GPTEntries.bytes(table.partitions, count: facts.entryCount, size: facts.entrySize)
        let check = CRC32.ieee.checksum(array)
        let padded = array + [UInt8](repeating: 0, count: Int(places.entrySectors) * Int(size.bytes) - array.count)
        func header(my: UInt64, other: UInt64, entries: UInt64) -> [UInt8] {
            GPTHeader(
                myLBA: LBA(my), alternateLBA: LBA(other), firstUsable: LBA(firstUsable), lastUsable: LBA(lastUsable),
                diskGUID: facts.diskGUID, entriesLBA: LBA(entries), entryCount: facts.entryCount,
                entrySize: facts.entrySize, entriesCRC: check
            ).sector(size)
        }
        let sector0 = ProtectiveMBR.adjusted(table.sector0.bytes, from: table.diskSectors, to: table.diskSectors)
        return TableImage(
            sectorSize: size,
            batches: [
                [
                    TableRegion(at: LBA(places.backupEntries), bytes: padded, what: "backup GPT entries"),
                    TableRegion(
                        at: LBA(places.backupHeader),
                        bytes: header(my: places.backupHeader, other: 1, entries: places.backupEntries),
                        what: "backup GPT header"),
                ],
                [
                    TableRegion(at: facts.entriesAt, bytes: padded, what: "primary GPT entries"),
                    TableRegion(
                        at: LBA(1), bytes: header(my: 1, other: places.backupHeader, entries: facts.entriesAt.value),
                        what: "primary GPT header"),
                ],
                [TableRegion(at: LBA(0), bytes: sector0, what: "protective MBR")],
            ])
    }
}
