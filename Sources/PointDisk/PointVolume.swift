// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
public import Findings
public import Geometry
public import ImageStore
import Synchronization

/// One stream of a recovery point, a volume as a rule, as something sectors can be read from. Keeps what was read last, for
/// whoever reads a filesystem comes back to the same places in small pieces.
public final class PointVolume: BlockSource {
    /// What to call it in messages.
    public let name: String
    /// The logical sector size of the disk the volume lay on.
    public let sectorSize: SectorSize
    /// Bytes in the volume.
    public let length: ByteCount
    /// Used bytes that could not be read when the point was made; they read as zeros.
    public var unreadable: ExtentList { stream.unreadable }
    private let stream: PointStream
    private let kept = Mutex(Kept())

    private struct Kept {
        var pieces: [UInt64: (bytes: [UInt8], turn: UInt64)] = [:]
        var turn: UInt64 = 0
    }
    /// Bytes of a piece that is kept, and the number of pieces: 8 MiB in all.
    private static let piece: UInt64 = 64 << 10
    private static let most = 128

    private let damage: Damage

    /// What a place is that the set has lost.
    public enum Damage: Sendable {
        /// A fault of the set, `set.damaged` or `store.failed`: nobody must take what is left for the whole.
        case isOfTheSet
        /// As a bad sector of a disk, `source.unreadable`: for whoever looks at what is left, such as for file names.
        case isOfTheDisk
    }

    /// The volume that `stream` holds, which lay on a disk with sectors of `sectorSize`.
    public init(_ stream: PointStream, sectorSize: SectorSize, damage: Damage = .isOfTheSet) {
        self.damage = damage
        self.stream = stream
        self.sectorSize = sectorSize
        length = stream.length
        let suffix: String
        switch stream.description.kind {
        case .volume(let number): suffix = number == 0 ? "" : ":\(number)"
        case .remainder: suffix = " outside of its volumes"
        }
        name = "\(stream.point.summary.shortID) disk \(stream.description.disk + 1)\(suffix)"
    }

    /// No file.
    public var file: FileWindow? { nil }

    /// Fills `buffer` from byte `offset`: what was in use and readable as it was, all else zero. Throws `set.damaged`,
    /// `store.failed`; or `source.unreadable`, see ``Damage``.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        guard damage == .isOfTheDisk else { return try fill(&buffer, from: offset) }
        do throws(Fault) {
            try fill(&buffer, from: offset)
        } catch {
            guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
            do throws(Fault) {
                // The damage may lie beside what is asked for.
                try stream.read(at: offset, into: &buffer)
            } catch {
                guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
                throw Fault(
                    .unreadable, what: "The set has lost what lay here: \(error.what)", place: name,
                    remedy: error.remedy,
                    extent: Extent(start: offset, length: ByteCount(UInt64(buffer.byteCount))))
            }
        }
    }

    private func fill(_ buffer: inout MutableRawSpan, from offset: ByteCount) throws(Fault) {
        // What is large is not asked for twice.
        if UInt64(buffer.byteCount) > PointVolume.piece { return try stream.read(at: offset, into: &buffer) }
        var done = 0
        while done < buffer.byteCount {
            let position = offset.bytes + UInt64(done)
            let number = position / PointVolume.piece
            let inside = Int(position % PointVolume.piece)
            let bytes = try piece(number)
            let count = min(bytes.count - inside, buffer.byteCount - done)
            guard count > 0 else { return }
            unsafe buffer.withUnsafeMutableBytes { target in
                unsafe bytes.withUnsafeBytes { source in
                    unsafe UnsafeMutableRawBufferPointer(rebasing: target[done..<done + count])
                        .copyMemory(from: UnsafeRawBufferPointer(rebasing: source[inside..<inside + count]))
                }
            }
            done += count
        }
    }

    private func piece(_ number: UInt64) throws(Fault) -> [UInt8] {
        try kept.withLock { (kept: inout Kept) throws(Fault) -> [UInt8] in
            kept.turn += 1
            if let known = kept.pieces[number] {
                kept.pieces[number]?.turn = kept.turn
                return known.bytes
            }
            let start = number * PointVolume.piece
            let count = Int(min(PointVolume.piece, length.bytes - start))
            var bytes = [UInt8](repeating: 0, count: count)
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try stream.read(at: ByteCount(start), into: &raw)
            if kept.pieces.count >= PointVolume.most,
                let oldest = kept.pieces.min(by: { $0.value.turn < $1.value.turn })?.key
            {
                kept.pieces[oldest] = nil
            }
            kept.pieces[number] = (bytes, kept.turn)
            return bytes
        }
    }
}
