// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings

/// The list of a pack's records, a hash for each 4 MiB of the pack, and the trailer; see `docs/image-format.md`,
/// section 5.3. Everything in it can be made again from the pack's records.
struct PackFooter: Hashable, Sendable {
    struct Entry: Hashable, Sendable {
        var offset: Int
        var record: RecordHeader
    }
    var entries: [Entry]
    /// Where the records end. What lies between here and the footer is parity.
    var recordsEnd: Int
    /// Where the footer begins.
    var offset: Int
    /// SHA-256 of each 4 MiB of the bytes before the footer; the last piece may be shorter.
    var segments: [UnitID]
    /// SHA-256 of the footer without its trailer.
    var digest: UnitID

    static let magic = Array("RLGTFOOT".utf8)
    static let trailerMagic = Array("RLGTSEAL".utf8)
    static let segmentSize = 4 << 20
    static let fixedSize = 32
    static let trailerSize = 64
    /// Longest footer believed: a pack of 4 GiB of records with one 16 KiB unit each stays below.
    static let maximumSize = 64 << 20
    /// Longest footer written, so that a writer needs little memory to look into one.
    static let largestWritten = 16 << 20

    /// The head of the footer; entries and segment hashes follow.
    static func head(records: Int, segments: Int, recordsEnd: Int) -> [UInt8] {
        var result = magic
        result.appendLittleEndian(UInt32(truncatingIfNeeded: records))
        result.appendLittleEndian(UInt32(truncatingIfNeeded: segments))
        result.appendLittleEndian(UInt32(segmentSize))
        result += [UInt8](repeating: 0, count: 4)
        result.appendLittleEndian(UInt64(recordsEnd))
        return result
    }

    static func entry(offset: Int, head: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(8 + head.count)
        result.appendLittleEndian(UInt64(offset))
        return result + head
    }

    static func trailer(offset: Int, length: Int, digest: UnitID) -> [UInt8] {
        var result = trailerMagic
        result.appendLittleEndian(UInt64(offset))
        result.appendLittleEndian(UInt64(length))
        digest.append(to: &result)
        result += [UInt8](repeating: 0, count: 4)
        result.appendLittleEndian(CRC32.castagnoli.checksum(result))
        return result
    }

    /// Footer and trailer of a pack with `entries` (made by ``entry(offset:head:)``); the footer begins at `offset`.
    static func bytes(
        records: Int, entries: [UInt8], recordsEnd: Int, offset: Int, segments: [UnitID], hasher: Hasher256
    ) throws(Fault) -> (bytes: [UInt8], digest: UnitID) {
        var result = head(records: records, segments: segments.count, recordsEnd: recordsEnd)
        result += entries
        for segment in segments { segment.append(to: &result) }
        let digest = try hasher.hash(result)
        return (result + trailer(offset: offset, length: result.count, digest: digest), digest)
    }

    /// Where the footer lies, from a pack's last 64 bytes.
    struct Trailer: Hashable, Sendable {
        var offset: Int
        var length: Int
        var digest: UnitID

        init(_ span: RawSpan, packSize: UInt64) throws(FieldError) {
            guard span.byteCount == PackFooter.trailerSize, span.matches(PackFooter.trailerMagic, at: 0) else {
                throw .invalid(field: "trailer magic", at: 0, seen: "something else", expected: "RLGTSEAL")
            }
            let check = try span.littleEndian(UInt32.self, "trailer check", at: 60)
            guard check == CRC32.castagnoli.checksum(span.extracting(0..<60)) else {
                throw .invalid(
                    field: "trailer check", at: 60, seen: Hex.number(check), expected: "the check of the trailer")
            }
            let offset = try span.littleEndian(UInt64.self, "footer offset", at: 8)
            let length = try span.littleEndian(UInt64.self, "footer length", at: 16)
            guard packSize >= UInt64(PackHeader.size + PackFooter.fixedSize + PackFooter.trailerSize),
                packSize <= UInt64(Int.max), length >= UInt64(PackFooter.fixedSize),
                length <= UInt64(PackFooter.maximumSize),
                offset >= UInt64(PackHeader.size), offset <= packSize, length <= packSize - offset,
                offset + length + UInt64(PackFooter.trailerSize) == packSize
            else {
                throw .invalid(
                    field: "footer offset and length", at: 8, seen: "\(offset), \(length)",
                    expected: "a footer that ends where the trailer begins, at \(packSize) − 64")
            }
            self.offset = Int(offset)
            self.length = Int(length)
            self.digest = try UnitID(span, "footer hash", at: 24)
        }
    }

    /// Reads a footer whose hash the caller has compared with `trailer.digest`.
    init(_ span: RawSpan, trailer: Trailer, unitSize: Int) throws(FieldError) {
        var entries: [Entry] = []
        self = try PackFooter(scanning: span, trailer: trailer, unitSize: unitSize) { offset, record in
            entries.append(Entry(offset: offset, record: record))
        }
        self.entries = entries
    }

    /// Reads a footer as ``init(_:trailer:unitSize:)`` does, but keeps no list of its records: `each` is given them, one
    /// after the other.
    init(
        scanning span: RawSpan, trailer: Trailer, unitSize: Int, _ each: (Int, RecordHeader) -> Void
    ) throws(FieldError) {
        guard span.byteCount == trailer.length, span.matches(PackFooter.magic, at: 0) else {
            throw .invalid(field: "footer magic", at: 0, seen: "something else", expected: "RLGTFOOT")
        }
        let records = Int(try span.littleEndian(UInt32.self, "number of records", at: 8))
        let segments = Int(try span.littleEndian(UInt32.self, "number of segments", at: 12))
        let size = try span.littleEndian(UInt32.self, "segment size", at: 16)
        let end = try span.littleEndian(UInt64.self, "end of the records", at: 24)
        // Each record takes at least 88 bytes here, so the counts are bounded by the footer's length before anything
        // is allocated.
        guard records <= span.byteCount / 88, end <= UInt64(trailer.offset), segments <= span.byteCount / UnitID.size,
            size == UInt32(PackFooter.segmentSize),
            segments == (trailer.offset + PackFooter.segmentSize - 1) / PackFooter.segmentSize
        else {
            throw .invalid(
                field: "number of records, of segments, segment size", at: 8, seen: "\(records), \(segments), \(size)",
                expected: "numbers that fit the pack")
        }
        var position = PackFooter.fixedSize
        var expected = PackHeader.size
        for _ in 0..<records {
            let offset = try span.littleEndian(UInt64.self, "record offset", at: position)
            let record = try RecordHeader(span, at: position + 8, unitSize: unitSize)
            guard offset == UInt64(expected), record.totalSize <= Int(end), expected <= Int(end) - record.totalSize
            else {
                throw .invalid(
                    field: "record offset", at: position, seen: "\(offset)", expected: "\(expected), inside the records"
                )
            }
            each(expected, record)
            expected += record.totalSize
            position += 8 + record.headSize
        }
        guard expected == Int(end), position + segments * UnitID.size == span.byteCount else {
            throw .invalid(
                field: "footer length", at: 0, seen: "\(span.byteCount)", expected: "the length its contents need")
        }
        var hashes: [UnitID] = []
        hashes.reserveCapacity(segments)
        for index in 0..<segments {
            hashes.append(try UnitID(span, "segment hash", at: position + index * UnitID.size))
        }
        self.entries = []
        self.recordsEnd = expected
        self.offset = trailer.offset
        self.segments = hashes
        self.digest = trailer.digest
    }
}
