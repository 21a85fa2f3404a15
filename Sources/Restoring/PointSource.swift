// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
public import Findings
import Geometry
public import ImageStore
import Threads

/// A recovery point as the source of a restore.
public struct PointSource: RestoreSource {
    private let point: RecoveryPoint

    /// Restores come from `point`.
    public init(_ point: RecoveryPoint) { self.point = point }

    /// The content of a volume, or of what lies outside them.
    public func stream(disk: Int, volume: Int?) throws(Fault) -> any RestoreStream {
        let kind = volume.map { StreamKind.volume($0) } ?? .remainder
        guard let stream = point.streams.first(where: { $0.description.disk == disk && $0.description.kind == kind })
        else {
            throw Fault(
                .planRefused,
                what:
                    "The recovery point holds no \(volume.map { "volume \($0)" } ?? "partition table") of disk \(disk + 1).",
                remedy: "Make the plan from this point: `relight plan`.")
        }
        return PointVolume(stream: stream)
    }

    /// Throws unless every pack the point needs is there in full length.
    public func requireComplete() throws(Fault) {
        let missing = try point.missingPacks()
        guard let first = missing.first else { return }
        throw Fault(
            .setDamaged,
            what: "\(missing.count) of the packs this point needs are missing or cut short, such as \(first).",
            remedy: "Put them back from a copy of the set; `relight verify` says what is lost. Nothing was written.")
    }
}

/// One stream of a point.
private struct PointVolume: RestoreStream {
    let stream: PointStream

    var length: ByteCount { stream.length }
    var used: ExtentList { stream.description.used }
    var unreadable: ExtentList { stream.unreadable }

    func forEachPiece(
        workers: Int, _ body: @escaping @Sendable (Extent, ExtentList, RawSpan?) throws(Fault) -> Void
    ) throws(Fault) {
        let cursor = try stream.pieces()
        try Workers.run(workers) { [stream] (_, stop) throws(Fault) in
            let decoder = try PieceDecoder(stream.point)
            while !stop.isSet, let piece = cursor.next() {
                if piece.isZero {
                    try body(piece.extent, piece.used, nil)
                } else {
                    try decoder.decode(piece) { (bytes) throws(Fault) in try body(piece.extent, piece.used, bytes) }
                }
            }
        }
    }

    func compare(
        workers: Int, read: @escaping @Sendable (Extent, ExtentList, inout MutableRawSpan) throws(Fault) -> Void,
        result: @escaping @Sendable (Extent, ExtentList, Bool) throws(Fault) -> Void
    ) throws(Fault) {
        let cursor = try stream.pieces()
        try Workers.run(workers) { [stream] (_, stop) throws(Fault) in
            let decoder = try PieceDecoder(stream.point)
            var buffer = [UInt8](repeating: 0, count: 256 << 10)
            while !stop.isSet, let piece = cursor.next() {
                // A piece of zeros may be large; the buffer is not.
                var parts = GrainCursor(
                    used: piece.used, length: piece.extent.end, grain: ByteCount(UInt64(buffer.count)))
                while let part = piece.isZero ? parts.next() : piece.extent, let count = part.length.int {
                    let used = piece.used.intersection(part)
                    for index in 0..<min(count, buffer.count) { buffer[index] = 0 }
                    if count > buffer.count { buffer = [UInt8](repeating: 0, count: count) }
                    var span = buffer.mutableSpan
                    var all = unsafe span.mutableBytes
                    var bytes = all._mutatingExtracting(0..<count)
                    try read(part, used, &bytes)
                    let seen = unsafe buffer.span.bytes.extracting(0..<count)
                    let equal = piece.isZero ? seen.isAllZero : try decoder.matches(piece, seen)
                    try result(part, used, equal)
                    if !piece.isZero { break }
                }
            }
        }
    }
}
