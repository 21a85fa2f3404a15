// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import BinaryFields
import Findings
import Geometry
import Threads

/// What to do about a source sector that cannot be read.
public enum ReadErrorPolicy: String, Sendable, Codable, CaseIterable {
    /// End the backup.
    case fail
    /// Go on: the unreadable sectors are recorded and hold zeros.
    case skip
}

/// Reads the used bytes of one piece of a volume. Bytes that are not in use are never needed: where they cannot be read
/// it does not matter, and in the result they are zero.
struct PieceReader: Sendable {
    let source: any BlockSource
    let policy: ReadErrorPolicy

    /// Fills `buffer` with the bytes of the volume from `start`: what is in `used` as read, the rest zero.
    /// Returns what could not be read; under `fail` that is a fault instead.
    func read(_ used: ExtentList, from start: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) -> ExtentList
    {
        guard let first = used.extents.first else {
            fillZero(&buffer, 0, buffer.byteCount)
            return ExtentList()
        }
        let span = Extent(from: first.start, to: used.end)
        let isRead: Bool
        do throws(Fault) {
            try readRange(span, start, &buffer)
            isRead = true
        } catch {
            guard error.code == .unreadable else { throw error }
            isRead = false
        }
        if isRead {
            let whole = Extent(from: start, to: start + ByteCount(UInt64(buffer.byteCount)))
            for hole in used.complement(in: whole).extents { clear(hole, start, &buffer) }
            return ExtentList()
        }
        // Something in the span failed, perhaps only where nothing is in use: go by used extents, then by sectors.
        fillZero(&buffer, 0, buffer.byteCount)
        var bad = ExtentList()
        for extent in used.extents { try readSlowly(extent, start, &buffer, &bad) }
        return bad
    }

    /// Reads `extent`, halving where that fails until single sectors are left.
    private func readSlowly(
        _ extent: Extent, _ start: ByteCount, _ buffer: inout MutableRawSpan, _ bad: inout ExtentList
    ) throws(Fault) {
        do {
            try readRange(extent, start, &buffer)
        } catch {
            guard policy == .skip, error.code == .unreadable else { throw error }
            try Interruption.check()
            let sector = source.sectorSize.count
            let sectors = Extent(
                from: extent.start.roundedDown(to: sector), to: extent.end.roundedUp(to: sector) ?? extent.end)
            if sectors.length <= sector {
                clear(extent, start, &buffer)
                bad.append(extent)
                return
            }
            let half = (sectors.start + ByteCount(sectors.length.bytes / 2)).roundedDown(to: sector)
            let middle = half > sectors.start ? half : sectors.start + sector
            try readSlowly(Extent(from: extent.start, to: middle), start, &buffer, &bad)
            try readSlowly(Extent(from: middle, to: extent.end), start, &buffer, &bad)
        }
    }

    private func readRange(_ extent: Extent, _ start: ByteCount, _ buffer: inout MutableRawSpan) throws(Fault) {
        guard let from = (extent.start - start).int, let to = (extent.end - start).int else { return }
        var part = buffer._mutatingExtracting(from..<to)
        try source.read(at: extent.start, into: &part)
    }

    private func clear(_ extent: Extent, _ start: ByteCount, _ buffer: inout MutableRawSpan) {
        guard let from = (extent.start - start).int, let to = (extent.end - start).int else { return }
        fillZero(&buffer, from, to)
    }

    private func fillZero(_ buffer: inout MutableRawSpan, _ from: Int, _ to: Int) {
        unsafe buffer.withUnsafeMutableBytes { pointer in
            guard from < to, to <= pointer.count, let base = pointer.baseAddress else { return }
            unsafe (base + from).initializeMemory(as: UInt8.self, repeating: 0, count: to - from)
        }
    }
}
