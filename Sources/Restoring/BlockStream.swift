// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import Synchronization
import Threads

/// Content that no image holds: what a resizer, or a writer of headers, made of a volume on an overlay.
final class BlockStream: RestoreStream {
    let length: ByteCount
    let used: ExtentList
    let unreadable: ExtentList
    /// What was done to the volume.
    let reshaped: ReshapeReport
    private let source: any BlockSource

    /// The bytes `used` of `source`. `unreadable` could not be read when the point was made; counted in the volume as it
    /// was imaged.
    init(_ source: any BlockSource, used: ExtentList, unreadable: ExtentList, _ reshaped: ReshapeReport) {
        self.source = source
        self.used = used
        self.unreadable = unreadable
        self.reshaped = reshaped
        length = source.length
    }

    /// Hands pieces to threads.
    private final class Pieces: Sendable {
        private let cursor: Mutex<GrainCursor>
        init(_ stream: BlockStream) {
            cursor = Mutex(
                GrainCursor(used: stream.used, length: stream.length, grain: ByteCount(UInt64(BlockStream.grain))))
        }
        func next() -> Extent? { cursor.withLock { $0.next() } }
    }

    private static let grain = 256 << 10

    /// Fills `buffer` with the piece `place`: its used bytes, zeros between them.
    private func fill(_ buffer: inout [UInt8], _ place: Extent, _ used: ExtentList) throws(Fault) {
        for index in buffer.indices { buffer[index] = 0 }
        var span = buffer.mutableSpan
        var all = unsafe span.mutableBytes
        for extent in used.extents {
            guard let from = (extent.start - place.start).int, let to = (extent.end - place.start).int else { continue }
            var part = all._mutatingExtracting(from..<to)
            try source.read(at: extent.start, into: &part)
        }
    }

    func forEachPiece(
        workers: Int, _ body: @escaping @Sendable (Extent, ExtentList, RawSpan?) throws(Fault) -> Void
    ) throws(Fault) {
        let pieces = Pieces(self)
        try Workers.run(workers) { [self] (_, stop) throws(Fault) in
            var buffer = [UInt8](repeating: 0, count: BlockStream.grain)
            while !stop.isSet, let place = pieces.next(), let count = place.length.int {
                let used = used.intersection(place)
                try fill(&buffer, place, used)
                let bytes = unsafe buffer.span.bytes.extracting(0..<count)
                if bytes.isAllZero { try body(place, used, nil) } else { try body(place, used, bytes) }
            }
        }
    }

    func compare(
        workers: Int, read: @escaping @Sendable (Extent, ExtentList, inout MutableRawSpan) throws(Fault) -> Void,
        result: @escaping @Sendable (Extent, ExtentList, Bool) throws(Fault) -> Void
    ) throws(Fault) {
        let pieces = Pieces(self)
        try Workers.run(workers) { [self] (_, stop) throws(Fault) in
            var expected = [UInt8](repeating: 0, count: BlockStream.grain)
            var seen = expected
            while !stop.isSet, let place = pieces.next(), let count = place.length.int {
                let used = used.intersection(place)
                try fill(&expected, place, used)
                for index in seen.indices { seen[index] = 0 }
                var span = seen.mutableSpan
                var all = unsafe span.mutableBytes
                var part = all._mutatingExtracting(0..<count)
                try read(place, used, &part)
                try result(place, used, seen == expected)
            }
        }
    }
}
