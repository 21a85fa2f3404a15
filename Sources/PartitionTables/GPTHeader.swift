// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry

/// GPT header. UEFI 2.10, section 5.3.2, table 5-5.
struct GPTHeader: Hashable {
    var headerSize: UInt32 = 92
    var myLBA: LBA
    var alternateLBA: LBA
    var firstUsable: LBA
    var lastUsable: LBA
    var diskGUID: GUID
    var entriesLBA: LBA
    var entryCount: UInt32
    var entrySize: UInt32
    var entriesCRC: UInt32

    static let signature = Array("EFI PART".utf8)
    /// Entry arrays above this are refused, as the kernel does; the usual array has 16 KiB.
    static let mostEntryBytes: UInt64 = 4 << 20

    /// Reads and checks the header in `sector`, which was read at `lba`.
    init(parsing sector: [UInt8], at lba: LBA) throws(FieldError) {
        let span = unsafe sector.span.bytes
        guard span.matches(GPTHeader.signature, at: 0) else {
            throw .invalid(field: "Signature", at: 0, seen: Hex.text(sector.prefix(8)), expected: "EFI PART")
        }
        let revision = try span.littleEndian(UInt32.self, "Revision", at: 8)
        guard revision >> 16 == 1 else {
            throw .invalid(field: "Revision", at: 8, seen: Hex.number(revision), expected: "1xxxx")
        }
        headerSize = try span.littleEndian(UInt32.self, "HeaderSize", at: 12)
        guard headerSize >= 92, headerSize <= sector.count else {
            throw .invalid(field: "HeaderSize", at: 12, seen: "\(headerSize)", expected: "92 to \(sector.count)")
        }
        let stored = try span.littleEndian(UInt32.self, "HeaderCRC32", at: 16)
        var covered = try span.bytes("header", at: 0, count: Int(headerSize))
        for index in 16..<20 { covered[index] = 0 }
        let computed = CRC32.ieee.checksum(covered)
        guard stored == computed else {
            throw .invalid(
                field: "HeaderCRC32", at: 16, seen: Hex.number(stored), expected: "\(Hex.number(computed)) (computed)")
        }
        myLBA = LBA(try span.littleEndian(UInt64.self, "MyLBA", at: 24))
        guard myLBA == lba else {
            throw .invalid(field: "MyLBA", at: 24, seen: "\(myLBA.value)", expected: "\(lba.value)")
        }
        alternateLBA = LBA(try span.littleEndian(UInt64.self, "AlternateLBA", at: 32))
        firstUsable = LBA(try span.littleEndian(UInt64.self, "FirstUsableLBA", at: 40))
        lastUsable = LBA(try span.littleEndian(UInt64.self, "LastUsableLBA", at: 48))
        guard firstUsable <= lastUsable else {
            throw .invalid(
                field: "LastUsableLBA", at: 48, seen: "\(lastUsable.value)", expected: "at least \(firstUsable.value)")
        }
        diskGUID = try GUID(span, "DiskGUID", at: 56)
        entriesLBA = LBA(try span.littleEndian(UInt64.self, "PartitionEntryLBA", at: 72))
        entryCount = try span.littleEndian(UInt32.self, "NumberOfPartitionEntries", at: 80)
        entrySize = try span.littleEndian(UInt32.self, "SizeOfPartitionEntry", at: 84)
        guard entrySize >= 128, entrySize <= 4096, entrySize & (entrySize - 1) == 0 else {
            throw .invalid(
                field: "SizeOfPartitionEntry", at: 84, seen: "\(entrySize)", expected: "a power of two, 128 to 4096")
        }
        guard entryCount > 0, UInt64(entryCount) * UInt64(entrySize) <= GPTHeader.mostEntryBytes else {
            throw .invalid(
                field: "NumberOfPartitionEntries", at: 80, seen: "\(entryCount)",
                expected: "1 to \(GPTHeader.mostEntryBytes / UInt64(entrySize))")
        }
        entriesCRC = try span.littleEndian(UInt32.self, "PartitionEntryArrayCRC32", at: 88)
    }

    init(
        myLBA: LBA, alternateLBA: LBA, firstUsable: LBA, lastUsable: LBA, diskGUID: GUID, entriesLBA: LBA,
        entryCount: UInt32, entrySize: UInt32, entriesCRC: UInt32
    ) {
        self.myLBA = myLBA
        self.alternateLBA = alternateLBA
        self.firstUsable = firstUsable
        self.lastUsable = lastUsable
        self.diskGUID = diskGUID
        self.entriesLBA = entriesLBA
        self.entryCount = entryCount
        self.entrySize = entrySize
        self.entriesCRC = entriesCRC
    }

    /// Bytes of the entry array; at most ``mostEntryBytes``.
    var entryBytes: Int { Int(entryCount) * Int(entrySize) }

    /// Sectors the entry array takes.
    func entrySectors(_ size: SectorSize) -> UInt64 {
        GPTHeader.entrySectors(count: entryCount, size: entrySize, size)
    }

    /// Sectors that `count` entries of `entrySize` bytes take.
    static func entrySectors(count: UInt32, size entrySize: UInt32, _ size: SectorSize) -> UInt64 {
        let bytes = UInt64(count) * UInt64(entrySize)
        return (bytes + UInt64(size.bytes) - 1) / UInt64(size.bytes)
    }

    /// The whole sector, revision 1.0, with its own check computed.
    func sector(_ size: SectorSize) -> [UInt8] {
        var bytes = GPTHeader.signature
        bytes.appendLittleEndian(UInt32(0x0001_0000))
        bytes.appendLittleEndian(UInt32(92))
        bytes.appendLittleEndian(UInt32(0))
        bytes.appendLittleEndian(UInt32(0))
        bytes.appendLittleEndian(myLBA.value)
        bytes.appendLittleEndian(alternateLBA.value)
        bytes.appendLittleEndian(firstUsable.value)
        bytes.appendLittleEndian(lastUsable.value)
        bytes += diskGUID.bytes
        bytes.appendLittleEndian(entriesLBA.value)
        bytes.appendLittleEndian(entryCount)
        bytes.appendLittleEndian(entrySize)
        bytes.appendLittleEndian(entriesCRC)
        var check: [UInt8] = []
        check.appendLittleEndian(CRC32.ieee.checksum(bytes))
        bytes.replaceSubrange(16..<20, with: check)
        bytes += [UInt8](repeating: 0, count: Int(size.bytes) - bytes.count)
        return bytes
    }
}
