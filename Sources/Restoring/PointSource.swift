// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Blocks
public import Findings
public import Geometry
public import ImageStore
import MachineModel
import PointDisk
import Synchronization
import Threads

/// A recovery point as the source of a restore.
public final class PointSource: RestoreSource {
    private let point: RecoveryPoint
    private let onDamage: OnDamage
    private let given = Mutex<[PointVolumeStream]>([])

    /// Restores come from `point`.
    public init(_ point: RecoveryPoint, onDamage: OnDamage = .fail) {
        self.point = point
        self.onDamage = onDamage
    }

    /// What of which stream was met that the set has lost.
    public var lost: [(stream: PointStream, extents: ExtentList)] {
        given.withLock { $0 }.map { ($0.stream, $0.lost) }.filter { !$0.extents.isEmpty }
    }

    /// The content of a volume, or of what lies outside them.
    public func stream(disk: Int, volume: Int?) throws(Fault) -> any RestoreStream {
        let stream = try found(
            disk, volume.map { StreamKind.volume($0) } ?? .remainder,
            volume.map { "volume \($0)" } ?? "partition table")
        let volume = PointVolumeStream(stream, onDamage)
        given.withLock { $0.append(volume) }
        return volume
    }

    private func found(_ disk: Int, _ kind: StreamKind, _ what: String) throws(Fault) -> PointStream {
        if let stream = point.streams.first(where: { $0.description.disk == disk && $0.description.kind == kind }) {
            return stream
        }
        throw Fault(
            .planRefused, what: "The recovery point holds no \(what) of disk \(disk + 1).",
            remedy: "Make the plan from this point: `relight plan`.")
    }

    /// A volume to look into, or to lay an overlay over.
    public func volume(disk: Int, volume: Int) throws(Fault) -> any BlockSource {
        let stream = try found(disk, .volume(volume), "volume \(volume)")
        let disks = point.facts.disks
        return PointVolume(stream, sectorSize: disks.indices.contains(disk) ? disks[disk].sectorSize : .s512)
    }

    /// Throws unless every pack the point needs is there in full length, or what is lost is to be skipped.
    public func requireComplete() throws(Fault) {
        guard onDamage == .fail else { return }
        let missing = try point.missingPacks()
        guard let first = missing.first else { return }
        throw Fault(
            .setDamaged,
            what: "\(missing.count) of the packs this point needs are missing or cut short, such as \(first).",
            remedy: "Put them back from a copy of the set; `relight verify` says what is lost. Nothing was written.")
    }
}

/// One stream of a point.
private final class PointVolumeStream: RestoreStream {
    let stream: PointStream
    private let onDamage: OnDamage
    /// In the order they were met; sorted when they are asked for.
    private let losses = Mutex<[Extent]>([])

    init(_ stream: PointStream, _ onDamage: OnDamage) {
        self.stream = stream
        self.onDamage = onDamage
    }

    var lost: ExtentList { ExtentList(losses.withLock { $0 }) }

    /// Notes that `used` cannot be had. Throws `fault` again unless what is lost is to be skipped.
    private func lose(_ used: ExtentList, _ fault: Fault) throws(Fault) {
        guard fault.code == .setDamaged || fault.code == .storeFailed else { throw fault }
        losses.withLock { $0 += used.extents }
        guard onDamage == .skip else { throw fault }
        // A medium that was taken away is not damage: nothing of it can be read any more.
        if fault.code == .storeFailed, !stream.point.setAnswers() { throw fault }
    }

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
                    continue
                }
                // What `body` throws is no damage of the set, whatever its code.
                var came = false
                do throws(Fault) {
                    try decoder.decode(piece) { (bytes) throws(Fault) in
                        came = true
                        try body(piece.extent, piece.used, bytes)
                    }
                } catch {
                    if came { throw error }
                    try self.lose(piece.used, error)
                    try body(piece.extent, piece.used, nil)
                }
            }
        }
    }

    func compare(
        workers: Int, read: @escaping @Sendable (Extent, ExtentList, inout MutableRawSpan) throws(Fault) -> Void,
        result: @escaping @Sendable (Extent, ExtentList, Bool) throws(Fault) -> Void
    ) throws(Fault) {
        let cursor = try stream.pieces()
        let gone = lost
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
                    // Zeros stand where the content was lost.
                    let isFilled = !gone.isEmpty && used.subtracting(gone).isEmpty
                    let equal = piece.isZero || isFilled ? seen.isAllZero : try decoder.matches(piece, seen)
                    try result(part, used, equal)
                    if !piece.isZero { break }
                }
            }
        }
    }
}
