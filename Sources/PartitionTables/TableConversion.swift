// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import BinaryFields
public import Geometry
public import MachineModel

/// Empty tables of one kind made from tables of another, or for sectors of another size.
extension TableLayout {
    /// A table of `kind` without partitions for a disk of `sectors` sectors of `size`, with the boot code and the disk
    /// signature of `table`. What of it is a GPT is made new: both copies where the specification has them, `diskGUID`
    /// where there was none, and at least `entries` entries.
    public static func converted(
        _ table: PartitionTable, to kind: TableKind, sectors: UInt64, size: SectorSize, diskGUID: GUID, entries: Int
    ) -> PartitionTable {
        var sector0 = [UInt8](repeating: 0, count: Int(size.bytes))
        // Boot code, signature and the two bytes behind it; entries are the writer's.
        for (index, byte) in table.sector0.bytes.prefix(446).enumerated() { sector0[index] = byte }
        (sector0[510], sector0[511]) = (0x55, 0xAA)
        var result = PartitionTable(
            kind: kind, sectorSize: size, diskSectors: sectors, sector0: HexBytes(sector0), partitions: [])
        guard kind == .gpt else { return result }
        let old = table.gpt
        let entrySize = old?.entrySize ?? 128
        let wanted = UInt32(clamping: max(entries, 128))
        var count = max(old?.entryCount ?? 128, (wanted + 127) / 128 * 128)
        if UInt64(count) * UInt64(entrySize) > GPTHeader.mostEntryBytes { count = 128 }
        let entrySectors = GPTHeader.entrySectors(count: count, size: entrySize, size)
        let first = 2 + entrySectors
        result.gpt = GPTFacts(
            diskGUID: old?.diskGUID ?? diskGUID, firstUsable: LBA(first),
            lastUsable: LBA(max(first, sectors >= 2 + entrySectors ? sectors - 2 - entrySectors : first)),
            entryCount: count, entrySize: entrySize)
        return result
    }

    /// The disk signature of an MBR (bytes 440 to 443) as tools print it; `nil` where it is zero.
    public static func signature(_ table: PartitionTable) -> String? {
        let bytes = table.sector0.bytes
        guard bytes.count >= 444, bytes[440..<444].contains(where: { $0 != 0 }) else { return nil }
        return Hex.text(bytes[440..<444].reversed())
    }
}
