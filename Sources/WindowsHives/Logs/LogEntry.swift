// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// One change in a log of the new format: pages that were written together. Specification, "Log entries".
struct LogEntry {
    /// Its number.
    let sequence: UInt32
    /// Bit 0 is the base block's after this change.
    let flags: UInt32
    /// Bytes of the bins after this change.
    let binsLength: UInt32
    /// Where the next entry begins.
    let end: UInt64
    /// What is replaced: place in the bins, bytes, place in the log.
    let pages: [(offset: Int, count: Int, place: UInt64)]

    private static let head = 40

    /// What lies at a place of a log.
    enum Reading {
        /// The entry that was expected.
        case entry(LogEntry)
        /// Nothing of this log: its end, or what an earlier use of the file left.
        case end
        /// The entry that was expected, but damaged or not written to its end.
        case torn(String)
    }

    private init(_ head: [UInt8], end: UInt64, pages: [(offset: Int, count: Int, place: UInt64)]) {
        flags = head.word(at: 8)
        sequence = head.word(at: 12)
        binsLength = head.word(at: 16)
        self.end = end
        self.pages = pages
    }

    /// Reads the entry `sequence` at `place` of `log`. Every hash and every page is checked before any of it counts.
    static func read(_ log: HiveSource, at place: UInt64, sequence: UInt32) throws(Fault) -> Reading {
        guard place <= log.length, log.length - place >= UInt64(head) else { return .end }
        let bytes = try log.read(at: place, count: head)
        guard bytes.starts(with: "HvLE".utf8), bytes.word(at: 12) == sequence else { return .end }
        let size = UInt64(bytes.word(at: 4))
        guard size >= 512, size % 512 == 0, size <= log.length - place else {
            return .torn("it is said to have \(size) bytes, which the log does not hold")
        }
        func hash(_ at: Int) -> UInt64 { UInt64(bytes.word(at: at + 4)) << 32 | UInt64(bytes.word(at: at)) }
        guard Marvin32.hash(bytes[..<32]) == hash(32) else { return .torn("the hash of its head is wrong") }
        var content = Marvin32()
        var position = place + UInt64(head)
        while position < place + size {
            let count = Int(min(65_536, place + size - position))
            content.update(try log.read(at: position, count: count))
            position += UInt64(count)
        }
        guard content.value() == hash(24) else { return .torn("the hash of its pages is wrong") }
        let binsLength = bytes.word(at: 16)
        guard HiveHeader.isPlausible(binsLength: binsLength) else {
            return .torn("it gives the hive \(binsLength) bytes of bins")
        }
        // A page has 512 bytes at least, so that their number is bounded by the entry's size.
        let count = UInt64(bytes.word(at: 20))
        guard count > 0, count <= (size - UInt64(head)) / 520 else { return .torn("it cannot hold \(count) pages") }
        let references = try log.read(at: place + UInt64(head), count: Int(count) * 8)
        var pages: [(offset: Int, count: Int, place: UInt64)] = []
        var start = place + UInt64(head) + count * 8
        for index in 0..<Int(count) {
            let offset = references.word(at: 8 * index)
            let length = references.word(at: 8 * index + 4)
            guard offset % 512 == 0, length % 512 == 0, length > 0, offset <= binsLength,
                length <= binsLength - offset, UInt64(length) <= place + size - start
            else { return .torn("it replaces \(length) bytes at byte \(offset), which cannot be") }
            pages.append((Int(offset), Int(length), start))
            start += UInt64(length)
        }
        return .entry(LogEntry(bytes, end: place + size, pages: pages))
    }
}
