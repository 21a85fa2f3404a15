// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Threads

/// Walks through a pack's records without its footer, finding the next record after damage. What the medium refuses to
/// read is passed over like damage, in steps of 4 KiB: one bad sector costs the record it lies in.
struct PackScanner {
    enum Item {
        /// A record with a sound head whose payload lies inside the pack. The bytes are valid until the next step.
        case record(offset: Int, RecordHeader)
        /// Bytes that are no record, or cannot be read.
        case gap(Range<Int>)
    }

    private enum Look {
        case record(RecordHeader)
        case nothing
        /// What is here cannot be read; the place to go on at.
        case unreadable(next: Int)
    }

    private let handle: any ObjectHandle
    private let unitSize: Int
    private let end: Int
    private var position: Int
    private let window = ByteBuffer(4 << 20)
    private var windowStart = 0
    private var windowCount = 0
    /// Up to here no more is read at once than is needed: something there cannot be read.
    private var carefulUntil = 0
    /// Steps in a row that failed.
    private var failures = 0

    /// What a disk with sectors of any size reads as one.
    private static let step = 4096
    /// After a mebibyte of failures in a row the steps get longer: each may take seconds.
    private static let mostFailures = 256
    private static let longStep = 65_536

    /// Scans bytes `start ..< end`.
    init(_ handle: any ObjectHandle, unitSize: Int, from start: Int, to end: Int) {
        self.handle = handle
        self.unitSize = unitSize
        self.position = start
        self.end = end
    }

    /// The next item; `nil` at the end.
    mutating func next() throws(Fault) -> Item? {
        guard position < end else { return nil }
        let start = position
        while position < end {
            switch try look(at: position) {
            case .record(let record):
                if position > start { return .gap(start..<position) }
                position += record.totalSize
                return .record(offset: start, record)
            case .nothing:
                if isFooter(at: position) {
                    // Its copies of the records' heads are no records.
                    position = end
                } else {
                    position += RecordHeader.alignment
                }
            case .unreadable(let next):
                try Interruption.check()
                position = next
            }
        }
        position = end
        return .gap(start..<end)
    }

    /// The payload of the record last returned.
    func payload(_ record: RecordHeader, at offset: Int) -> UnsafeRawBufferPointer {
        let start = offset + record.headSize - windowStart
        return unsafe window.bytes(start..<start + record.storedLength)
    }

    /// The padding after the payload of the record last returned.
    func padding(_ record: RecordHeader, at offset: Int) -> UnsafeRawBufferPointer {
        let start = offset - windowStart
        return unsafe window.bytes(start + record.headSize + record.storedLength..<start + record.totalSize)
    }

    private mutating func look(at offset: Int) throws(Fault) -> Look {
        guard end - offset >= RecordHeader.fixedSize + UnitID.size else { return .nothing }
        let head = min(RecordHeader.fixedSize + RecordHeader.maximumIDs * UnitID.size, end - offset)
        var isThere = try load(offset, head)
        if !isThere {
            // The head may end before the sector that cannot be read.
            let rest = (offset / PackScanner.step + 1) * PackScanner.step - offset
            isThere = rest < head && rest >= RecordHeader.fixedSize + UnitID.size ? try load(offset, rest) : false
        }
        guard isThere else {
            failures += 1
            let step = failures > PackScanner.mostFailures ? PackScanner.longStep : PackScanner.step
            return .unreadable(next: (offset / step + 1) * step)
        }
        failures = 0
        let span = unsafe RawSpan(_unsafeBytes: window.bytes(0..<windowCount))
        guard span.matches(RecordHeader.magic, at: offset - windowStart),
            let record = try? RecordHeader(span, at: offset - windowStart, unitSize: unitSize),
            record.totalSize <= end - offset
        else { return .nothing }
        // A sound head tells where the next record is.
        guard try load(offset, record.totalSize) else { return .unreadable(next: offset + record.totalSize) }
        return .record(record)
    }

    /// Whether what was loaded at `offset` is the beginning of the footer of the pack that is scanned.
    private func isFooter(at offset: Int) -> Bool {
        let span = unsafe RawSpan(_unsafeBytes: window.bytes(0..<windowCount))
        guard offset >= windowStart, span.matches(PackFooter.magic, at: offset - windowStart),
            let recordsEnd = try? span.littleEndian(UInt64.self, "end of the records", at: offset - windowStart + 24)
        else { return false }
        return recordsEnd == UInt64(offset)
    }

    /// Sees to it that `count` bytes at `offset` lie in the window. False when they cannot be read.
    private mutating func load(_ offset: Int, _ count: Int) throws(Fault) -> Bool {
        if offset >= windowStart, offset + count <= windowStart + windowCount { return true }
        if offset >= carefulUntil {
            let size = min(window.count, end - offset)
            if try read(offset, size) { return true }
            carefulUntil = offset + size
            if size == count { return false }
        }
        return try read(offset, count)
    }

    private mutating func read(_ offset: Int, _ size: Int) throws(Fault) -> Bool {
        windowCount = 0
        do throws(Fault) {
            try handle.read(at: UInt64(offset), size, into: window)
        } catch {
            guard error.code == .storeFailed || error.code == .setDamaged else { throw error }
            return false
        }
        windowStart = offset
        windowCount = size
        return true
    }
}
