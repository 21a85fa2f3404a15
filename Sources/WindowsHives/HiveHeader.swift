// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// The base block of a hive or of a log: the first 512 bytes of either. Specification, "Base block".
public struct HiveHeader: Hashable, Sendable {
    /// What a file with a base block is.
    public enum FileType: UInt32, Sendable {
        /// A hive.
        case primary = 0
        /// A log with a dirty vector.
        case log = 1
        /// The same, as early versions number it.
        case earlyLog = 2
        /// A log with entries (Windows 8.1 and later).
        case entryLog = 6
    }

    /// Incremented before a write of the hive.
    public internal(set) var primarySequence: UInt32
    /// Incremented after it: unequal to the first while the hive is dirty.
    public internal(set) var secondarySequence: UInt32
    /// When the hive was written to last.
    public internal(set) var lastWritten: FileTime
    /// Always 1.
    public internal(set) var majorVersion: UInt32
    /// 3 to 6 in hives that are read here.
    public internal(set) var minorVersion: UInt32
    /// What the file is; `nil` for a number without a meaning.
    public internal(set) var fileType: FileType?
    /// 1: as in memory.
    public internal(set) var fileFormat: UInt32
    /// The root key's cell, bytes from the start of the bins.
    public internal(set) var rootCell: UInt32
    /// Bytes of all bins.
    public internal(set) var binsLength: UInt32
    /// Sector size divided by 512, as the writer saw it; 1 in practice.
    public internal(set) var clusteringFactor: UInt32
    /// The end of the path the hive was written under; says nothing reliable.
    public internal(set) var fileName: String
    /// Bit 0: transactions were pending.
    public internal(set) var flags: UInt32
    /// The checksum stored.
    public internal(set) var checksum: UInt32
    /// The checksum of the 508 bytes before it.
    public internal(set) var computedChecksum: UInt32

    /// Whether the checksum is the right one.
    public var isSound: Bool { checksum == computedChecksum }
    /// Whether the hive was not written completely, or its base block is damaged.
    public var isDirty: Bool { !isSound || primarySequence != secondarySequence }
    /// `1.5`.
    public var version: String { "\(majorVersion).\(minorVersion)" }

    /// Bytes of a base block that are meaningful, and all that a log has of it.
    static let length = 512

    /// Reads the base block at the start of `bytes`; `nil` without 512 bytes that begin with `regf`.
    init?(_ bytes: [UInt8]) {
        guard bytes.count >= HiveHeader.length, bytes.starts(with: "regf".utf8) else { return nil }
        func word(_ offset: Int) -> UInt32 { bytes.word(at: offset) }
        primarySequence = word(4)
        secondarySequence = word(8)
        lastWritten = FileTime(ticks: UInt64(word(16)) << 32 | UInt64(word(12)))
        majorVersion = word(20)
        minorVersion = word(24)
        fileType = FileType(rawValue: word(28))
        fileFormat = word(32)
        rootCell = word(36)
        binsLength = word(40)
        clusteringFactor = word(44)
        fileName = UTF16Text.decode(bytes[48..<112])
        flags = word(144)
        checksum = word(508)
        computedChecksum = HiveHeader.checksum(bytes)
    }

    /// XOR of the first 127 words; 0 becomes 1 and all ones become 0xFFFFFFFE, so that neither an empty nor an erased
    /// block has a right one.
    static func checksum(_ bytes: [UInt8]) -> UInt32 {
        var sum: UInt32 = 0
        for offset in 0..<min(508, bytes.count) { sum ^= UInt32(bytes[offset]) << UInt32(offset % 4 * 8) }
        return sum == 0 ? 1 : sum == .max ? .max - 1 : sum
    }

    /// Why no hive with this base block is read; `nil` when it is.
    var problem: String? {
        if majorVersion != 1 || !(3...6).contains(minorVersion) { return "it has version \(version)" }
        if fileType != .primary { return "it is not a hive but a transaction log of one" }
        if fileFormat != 1 { return "it has format \(fileFormat)" }
        return nil
    }

    /// Whether the size of the bins is one a hive may have.
    static func isPlausible(binsLength: UInt32) -> Bool {
        // Windows keeps a hive's stable part below 2 GiB.
        binsLength >= 4096 && binsLength % 4096 == 0 && binsLength <= 0x7FFF_F000
    }
}

extension [UInt8] {
    /// The little-endian word at `offset`; bytes past the end count as zero.
    func word(at offset: Int) -> UInt32 {
        var result: UInt32 = 0
        for index in 0..<4 where offset + index < count { result |= UInt32(self[offset + index]) << UInt32(8 * index) }
        return result
    }

    /// The little-endian half word at `offset`; bytes past the end count as zero.
    func half(at offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: word(at: offset)) }

    /// Stores `value` little-endian at `offset`, where there is room.
    mutating func store(_ value: UInt32, at offset: Int) {
        guard offset <= count - 4 else { return }
        for index in 0..<4 { self[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
    }
}
