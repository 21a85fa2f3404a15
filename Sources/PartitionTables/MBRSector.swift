// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import MachineModel

/// One of the four entries of a master or extended boot record (UEFI 2.10, table 5-3).
struct MBRSlot: Hashable {
    /// BootIndicator: 0x80 active, 0 not; anything else is no boot record.
    var status: UInt8
    /// OSIndicator: the type; 0 marks an empty entry.
    var type: UInt8
    /// StartingLBA. In an extended boot record relative to the record or to the container.
    var first: UInt32
    /// SizeInLBA.
    var sectors: UInt32

    /// Where the four entries begin, and how long each is.
    static let table = 446
    static let size = 16

    /// The protective entry of a GPT disk.
    static let protective: UInt8 = 0xEE

    init(status: UInt8 = 0, type: UInt8, first: UInt32, sectors: UInt32) {
        self.status = status
        self.type = type
        self.first = first
        self.sectors = sectors
    }

    /// Reads entry `index` (0 ... 3) of a boot record.
    init(_ sector: RawSpan, index: Int) throws(FieldError) {
        let base = MBRSlot.table + index * MBRSlot.size
        status = try sector.littleEndian(UInt8.self, "BootIndicator", at: base)
        type = try sector.littleEndian(UInt8.self, "OSIndicator", at: base + 4)
        first = try sector.littleEndian(UInt32.self, "StartingLBA", at: base + 8)
        sectors = try sector.littleEndian(UInt32.self, "SizeInLBA", at: base + 12)
    }

    /// Whether the entry describes anything.
    var isUsed: Bool { type != 0 && sectors != 0 }
    /// Whether it is an extended container or a link to the next extended boot record.
    var isExtended: Bool { [0x05, 0x0F, 0x85].contains(type) }

    /// The sixteen bytes, with CHS fields computed for 255 heads and 63 sectors. CHS always counts from the start of the
    /// disk; `base` is what ``first`` counts from.
    func bytes(chsFrom base: UInt64 = 0) -> [UInt8] {
        let start = base.addingReportingOverflow(UInt64(first)).partialValue
        var result: [UInt8] = [status]
        result += MBRSlot.chs(start)
        result.append(type)
        result += MBRSlot.chs(start.addingReportingOverflow(UInt64(sectors == 0 ? 0 : sectors - 1)).partialValue)
        result.appendLittleEndian(first)
        result.appendLittleEndian(sectors)
        return result
    }

    /// The three CHS bytes of `lba` for 255 heads and 63 sectors; FE FF FF from cylinder 1024 on, where CHS ends.
    static func chs(_ lba: UInt64) -> [UInt8] {
        let cylinder = lba / (255 * 63)
        guard cylinder < 1024 else { return [0xFE, 0xFF, 0xFF] }
        let head = lba / 63 % 255
        let sector = lba % 63 + 1
        return [
            UInt8(head), UInt8(sector | (cylinder >> 8) << 6), UInt8(truncatingIfNeeded: cylinder),
        ]
    }
}

/// The part of sector 0 that a master or extended boot record is.
struct MBRSector: Hashable {
    /// The four entries.
    var slots: [MBRSlot]

    /// `nil` without the signature 55 AA, or where a boot indicator is neither 0 nor 0x80 (which is how the kernel
    /// tells boot records from other boot sectors too).
    init?(_ sector: [UInt8]) {
        let span = unsafe sector.span.bytes
        guard span.matches([0x55, 0xAA], at: 510) else { return nil }
        var slots: [MBRSlot] = []
        for index in 0..<4 {
            guard let slot = try? MBRSlot(span, index: index), slot.status & 0x7F == 0 else { return nil }
            slots.append(slot)
        }
        self.slots = slots
    }

    /// The entries that describe something, with their numbers 1 ... 4.
    var used: [(number: Int, slot: MBRSlot)] {
        slots.enumerated().filter { $0.element.isUsed }.map { ($0.offset + 1, $0.element) }
    }

    /// Whether an entry protects a GPT.
    var isProtective: Bool { slots.contains { $0.type == MBRSlot.protective } }
}

extension [UInt8] {
    /// Whether the sector begins like the boot sector of FAT, NTFS or exFAT: a jump, then a BIOS parameter block whose
    /// fields are possible, or the name of the filesystem. Such a sector ends in 55 AA too but holds no table.
    var looksLikeFilesystemBootSector: Bool {
        let span = unsafe self.span.bytes
        guard count >= 512 else { return false }
        if span.matches("NTFS    ".utf8, at: 3) || span.matches("EXFAT   ".utf8, at: 3) { return true }
        guard self[0] == 0xE9 || (self[0] == 0xEB && self[2] == 0x90) else { return false }
        let bytesPerSector = Int(self[11]) | Int(self[12]) << 8
        let reserved = Int(self[14]) | Int(self[15]) << 8
        let cluster = self[13]
        return [512, 1024, 2048, 4096].contains(bytesPerSector) && cluster != 0 && cluster & (cluster - 1) == 0
            && reserved != 0 && (1...2).contains(self[16]) && (self[21] == 0xF0 || self[21] >= 0xF8)
    }
}
