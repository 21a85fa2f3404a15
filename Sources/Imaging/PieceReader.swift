// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import BinaryFields
import Findings
import Geometry
import Threads

/// Reads the used bytes of one piece of a volume. Bytes that are not in use are never needed: where they cannot be read
/// it does not matter, and in the result they are zero.
struct PieceReader: Sendable {
    let source: any BlockSource
    let policy: ReadErrorPolicy
    let time: BadPlaceTime

    /// Steps in which a bad place is read again, before single sectors.
    private static let steps: [ByteCount] = [.kibibytes(64), .kibibytes(4)]

    /// Fills `buffer` with the bytes of the volume from `start`: what is in `used` as read, the rest zero.
    /// Returns what could not be read; under `fail` that is a fault instead.
    func read(_ used: ExtentList, from start: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) -> LostBytes {
        guard let first = used.extents.first else {
            fillZero(&buffer, 0, buffer.byteCount)
            return LostBytes()
        }
        let began = time.effort.now()
        let failure: Fault
        do throws(Fault) {
            try readRange(Extent(from: first.start, to: used.end), start, &buffer)
            let whole = Extent(from: start, to: start + ByteCount(UInt64(buffer.byteCount)))
            for hole in used.complement(in: whole).extents { clear(hole, start, &buffer) }
            return LostBytes()
        } catch {
            guard error.code == .unreadable else { throw error }
            failure = error
        }
        let taken = time.effort.now() - began
        time.add(taken)
        // Something in the span failed, perhaps only where nothing is in use: from here on by used extents.
        fillZero(&buffer, 0, buffer.byteCount)
        var place = BadPlace(reader: self, start: start, taken: taken)
        let lost = try place.recover(used, &buffer)
        for extent in lost.unreadable.extents { clear(extent, start, &buffer) }
        if policy == .fail, let first = lost.unreadable.extents.first { throw place.faults[first.start] ?? failure }
        return lost
    }

    /// A piece whose first read failed.
    private struct BadPlace {
        let reader: PieceReader
        let start: ByteCount
        /// Time this place has taken.
        var taken: Duration
        /// The last failure at each place.
        var faults: [ByteCount: Fault] = [:]

        private var effort: ReadEffort { reader.time.effort }
        /// Whether this place has had its time.
        private var isOver: Bool { taken >= effort.regionTime || reader.time.isOver }

        init(reader: PieceReader, start: ByteCount, taken: Duration) {
            self.reader = reader
            self.start = start
            self.taken = taken
        }

        mutating func recover(_ used: ExtentList, _ buffer: inout MutableRawSpan) throws(Fault) -> LostBytes {
            if reader.time.isOver {
                // Perhaps only what is not in use failed, so each extent is tried, but once.
                var lost = used.extents
                if lost.count > 1 {
                    var failed: [Extent] = []
                    for extent in lost where try !attempt(extent, &buffer) { failed.append(extent) }
                    lost = failed
                }
                return LostBytes(unreadable: ExtentList(lost), givenUp: ExtentList(lost))
            }
            let sector = reader.source.sectorSize.count
            var left = used.extents
            var givenUp: [Extent] = []
            // Forwards, in ever smaller steps. However long the first read took, large steps are tried once, unless
            // there is no time at all.
            let steps = PieceReader.steps.filter { $0 > sector } + [sector]
            for (round, step) in steps.enumerated() {
                var failed: [Extent] = []
                for extent in left {
                    var position = extent.start
                    while position < extent.end {
                        if round == 0 ? reader.time.isOver : isOver {
                            givenUp.append(Extent(from: position, to: extent.end))
                            break
                        }
                        let next = min(position.roundedDown(to: step).adding(step) ?? extent.end, extent.end)
                        let part = Extent(from: position, to: next)
                        if try !attempt(part, &buffer) { failed.append(part) }
                        position = next
                    }
                }
                left = failed
            }
            // Backwards, then to and fro: sectors that failed one way may be read the other.
            for round in 0...max(0, effort.retries) {
                var failed: [Extent] = []
                for extent in round % 2 == 0 ? left.reversed() : left {
                    if isOver {
                        failed.append(extent)
                    } else if try !attempt(extent, &buffer) {
                        failed.append(extent)
                    }
                }
                left = failed.sorted { $0.start < $1.start }
                if left.isEmpty { break }
            }
            return LostBytes(unreadable: ExtentList(left + givenUp), givenUp: ExtentList(givenUp))
        }

        /// Whether `extent` was read.
        private mutating func attempt(_ extent: Extent, _ buffer: inout MutableRawSpan) throws(Fault) -> Bool {
            try Interruption.check()
            let began = effort.now()
            defer {
                let time = effort.now() - began
                taken += time
                reader.time.add(time)
            }
            do throws(Fault) {
                try reader.readRange(extent, start, &buffer)
                return true
            } catch {
                guard error.code == .unreadable else { throw error }
                faults[extent.start] = error
                return false
            }
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
