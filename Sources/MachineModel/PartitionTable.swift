// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import BinaryFields
public import Geometry

/// The kinds of partition table.
public enum TableKind: String, Sendable, Codable {
    /// GUID partition table (UEFI 2.10, chapter 5.3).
    case gpt
    /// Master boot record with its extended chains.
    case mbr
}

/// What a partition is for, as its table says.
public enum PartitionType: Hashable, Sendable {
    /// A GPT type GUID.
    case gpt(GUID)
    /// An MBR system indicator byte.
    case mbr(UInt8)
}

extension PartitionType: Codable, CustomStringConvertible {
    /// The GUID in text, or `0x83`.
    public var description: String {
        switch self {
        case .gpt(let guid): return guid.description
        case .mbr(let byte): return "0x" + Hex.text([byte])
        }
    }
    /// Reads the text form.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        if let guid = GUID(text) {
            self = .gpt(guid)
        } else if text.hasPrefix("0x"), let byte = UInt8(text.dropFirst(2), radix: 16) {
            self = .mbr(byte)
        } else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a partition type")
        }
    }
    /// Writes the text form.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// One partition, in sectors of its disk.
public struct Partition: Hashable, Sendable, Codable {
    /// The number the kernel gives it: the GPT entry's index + 1; in an MBR 1 ... 4 for the slots, 5 and up for logical
    /// partitions in the order of the chain.
    public var number: Int
    /// First sector.
    public var first: LBA
    /// Number of sectors; at least 1.
    public var sectors: UInt64
    /// What it is for.
    public var type: PartitionType
    /// Unique GUID; GPT only.
    public var guid: GUID?
    /// Name; GPT only, at most 36 UTF-16 units.
    public var name: String
    /// GPT attribute bits (UEFI 2.10, table 5-8), all 64; in an MBR the status byte (0x80 = active).
    public var attributes: UInt64
    /// For a logical partition the sector of the extended boot record that describes it.
    public var describedAt: LBA?

    /// A partition.
    public init(
        number: Int, first: LBA, sectors: UInt64, type: PartitionType, guid: GUID? = nil, name: String = "",
        attributes: UInt64 = 0, describedAt: LBA? = nil
    ) {
        self.number = number
        self.first = first
        self.sectors = sectors
        self.type = type
        self.guid = guid
        self.name = name
        self.attributes = attributes
        self.describedAt = describedAt
    }

    /// Last sector. `nil` when first + sectors passes 2^64 (a hostile value).
    public var last: LBA? { sectors == 0 ? nil : first.advanced(by: sectors - 1) }

    /// Where it lies in bytes; `nil` when that cannot be represented.
    public func extent(_ size: SectorSize) -> Extent? {
        guard let start = first.offset(size), let length = size.count.multiplied(by: sectors) else { return nil }
        return Extent(start: start, length: length)
    }

    /// Whether it is an extended container (0x05, 0x0F, 0x85), which holds logical partitions and no volume.
    public var isExtendedContainer: Bool {
        if case .mbr(let byte) = type { return [0x05, 0x0F, 0x85].contains(byte) }
        return false
    }
}

/// A partition table, complete: everything needed to write it again somewhere else.
public struct PartitionTable: Hashable, Sendable, Codable {
    /// Which kind rules. A GPT with a hybrid MBR is a GPT.
    public var kind: TableKind
    /// Logical sector size all addresses are in.
    public var sectorSize: SectorSize
    /// Number of sectors of the disk the table lies on.
    public var diskSectors: UInt64
    /// Sector 0 as it was read, whole sector: boot code, disk signature, entries, signature 55 AA.
    public var sector0: HexBytes
    /// GPT header facts; `nil` in an MBR.
    public var gpt: GPTFacts?
    /// The partitions in the order of their numbers, extended containers included.
    public var partitions: [Partition]

    /// A table.
    public init(
        kind: TableKind, sectorSize: SectorSize, diskSectors: UInt64, sector0: HexBytes, gpt: GPTFacts? = nil,
        partitions: [Partition]
    ) {
        self.kind = kind
        self.sectorSize = sectorSize
        self.diskSectors = diskSectors
        self.sector0 = sector0
        self.gpt = gpt
        self.partitions = partitions
    }

    /// The partition with `number`.
    public func partition(_ number: Int) -> Partition? { partitions.first { $0.number == number } }

    /// Partitions that hold a volume: all but extended containers.
    public var volumes: [Partition] { partitions.filter { !$0.isExtendedContainer } }
}

/// What a GPT header says beyond its partitions (UEFI 2.10, table 5-5).
public struct GPTFacts: Hashable, Sendable, Codable {
    /// DiskGUID.
    public var diskGUID: GUID
    /// FirstUsableLBA.
    public var firstUsable: LBA
    /// LastUsableLBA.
    public var lastUsable: LBA
    /// NumberOfPartitionEntries.
    public var entryCount: UInt32
    /// SizeOfPartitionEntry in bytes.
    public var entrySize: UInt32
    /// PartitionEntryLBA of the primary copy.
    public var entriesAt: LBA

    /// Header facts.
    public init(
        diskGUID: GUID, firstUsable: LBA, lastUsable: LBA, entryCount: UInt32 = 128, entrySize: UInt32 = 128,
        entriesAt: LBA = LBA(2)
    ) {
        self.diskGUID = diskGUID
        self.firstUsable = firstUsable
        self.lastUsable = lastUsable
        self.entryCount = entryCount
        self.entrySize = entrySize
        self.entriesAt = entriesAt
    }
}
