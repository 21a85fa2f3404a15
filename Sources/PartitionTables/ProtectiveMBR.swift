// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// Sector 0 of a GPT disk: UEFI 2.10, section 5.2.3, and the hybrids people make of it.
enum ProtectiveMBR {
    /// `sector0` for a disk of `sectors` sectors, whose protective entry covered a disk of `oldSectors` before.
    ///
    /// A protective entry that stands alone is made to cover the disk; in a hybrid only the one that reached the old end
    /// grows. Where there is none, the entries are replaced by one.
    static func adjusted(_ sector0: [UInt8], from oldSectors: UInt64, to sectors: UInt64) -> [UInt8] {
        var result = sector0
        guard let boot = MBRSector(sector0), boot.isProtective else {
            var table = bytes(of: MBRSlot(type: MBRSlot.protective, first: 1, sectors: clamped(sectors - 1)))
            table += [UInt8](repeating: 0, count: 3 * MBRSlot.size)
            table += [0x55, 0xAA]
            result.replaceSubrange(MBRSlot.table..<512, with: table)
            return result
        }
        let alone = boot.used.allSatisfy { $0.slot.type == MBRSlot.protective } && boot.used.count <= 1
        for (index, slot) in boot.slots.enumerated() where slot.type == MBRSlot.protective {
            var fitted = slot
            if alone {
                // Windows writes the largest number on every disk; that stays.
                if slot.sectors == UInt32.max && slot.first == 1 { continue }
                fitted.first = 1
                fitted.sectors = clamped(sectors - 1)
            } else {
                let end = UInt64(slot.first) + UInt64(slot.sectors)
                if end != min(oldSectors, UInt64(slot.first) + UInt64(UInt32.max)) || sectors <= UInt64(slot.first) {
                    continue
                }
                fitted.sectors = clamped(sectors - UInt64(slot.first))
            }
            if fitted == slot { continue }
            let base = MBRSlot.table + index * MBRSlot.size
            result.replaceSubrange(base..<base + MBRSlot.size, with: bytes(of: fitted))
        }
        return result
    }

    /// The entry's bytes; an end that CHS cannot name is FF FF FF here (table 5-4), not FE FF FF.
    private static func bytes(of slot: MBRSlot) -> [UInt8] {
        var result = slot.bytes()
        if result[5...7].elementsEqual([0xFE, 0xFF, 0xFF]) { result[5] = 0xFF }
        return result
    }

    private static func clamped(_ sectors: UInt64) -> UInt32 { UInt32(clamping: sectors) }
}
