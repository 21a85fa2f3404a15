// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import RestorePlanning
import Synchronization
import Threads

/// The first MiB of a disk without a partition table, or of the one partition that is written. It is kept in memory while
/// the rest is written and compared, and written last: until then nothing can be found there, as on a disk whose table is
/// missing.
final class HeldBack: Sendable {
    /// The bytes of the disk it stands for.
    let extent: Extent
    private let bytes: Mutex<[UInt8]>

    /// Holds back what `whole` begins with.
    init(of whole: Extent) {
        extent = Extent(from: whole.start, to: min(whole.start + VolumeWriter.edge, whole.end))
        bytes = Mutex([UInt8](repeating: 0, count: extent.length.int ?? 0))
    }

    /// Its content.
    var content: [UInt8] { bytes.withLock { $0 } }

    /// Keeps `part`, which lies at byte `offset` of the disk and within ``extent``.
    func keep(_ part: RawSpan, at offset: ByteCount) {
        guard let start = offset.subtracting(extent.start)?.int else { return }
        bytes.withLock { bytes in
            for index in 0..<part.byteCount where start + index < bytes.count {
                bytes[start + index] = unsafe part.unsafeLoad(fromByteOffset: index, as: UInt8.self)
            }
        }
    }

    /// Fills `part` with what is kept for byte `offset` of the disk on.
    func fill(_ part: inout MutableRawSpan, from offset: ByteCount) {
        guard let start = offset.subtracting(extent.start)?.int else { return }
        bytes.withLock { bytes in
            for index in 0..<part.byteCount where start + index < bytes.count {
                part.storeBytes(of: bytes[start + index], toByteOffset: index, as: UInt8.self)
            }
        }
    }
}

/// Writes the content of volumes to one target and compares what was written.
struct VolumeWriter: Sendable {
    let target: any BlockTarget
    /// What is written last of all; `nil` for a disk with a partition table, which is written last itself.
    let heldBack: HeldBack?

    /// How much is zeroed at the ends of disks and volumes: partition tables, RAID and filesystems keep signatures there.
    static let edge = ByteCount.mebibytes(1)

    /// The table goes first: from here until the new one is written, the disk shows that it is unfinished. Old tables
    /// and RAID signatures at the end go with it.
    func wipeEnds() throws(Fault) {
        try wipeEdges(of: Extent(from: .zero, to: target.length), except: ExtentList())
        try target.flush()
    }

    /// Zeroes what is not `kept` (counted from the start of `extent`) of the first and last MiB of `extent`: signatures
    /// of what lay here before could be found again.
    func wipeEdges(of extent: Extent, except kept: ExtentList) throws(Fault) {
        let whole = Extent(from: .zero, to: extent.length)
        let tail = Extent(from: whole.length.subtracting(VolumeWriter.edge) ?? .zero, to: whole.end)
        for window in [Extent(from: .zero, to: VolumeWriter.edge).intersection(whole), tail] {
            for hole in kept.complement(in: window).extents {
                try target.zero(Extent(from: extent.start + hole.start, to: extent.start + hole.end))
            }
        }
    }

    /// Writes `stream` to the volume's place.
    func write(_ stream: any RestoreStream, _ volume: VolumePlan, _ meter: Meter) throws(Fault) {
        try wipeEdges(of: volume.target, except: stream.used)
        let base = volume.target.start
        try stream.forEachPiece(workers: Workers.processors) { (place, used, bytes) throws(Fault) in
            try Interruption.check()
            meter.add(used.byteCount)
            let later = held(base, of: used)
            let now = later.isEmpty ? used : used.subtracting(later)
            if let bytes {
                for extent in later.extents {
                    guard let range = extent.range(in: place) else { continue }
                    heldBack?.keep(bytes.extracting(range), at: base + extent.start)
                }
                // Bytes between used extents of a piece are zero: one write is quicker than many.
                guard let first = now.extents.first else { return }
                let span = Extent(from: first.start, to: now.end)
                guard let range = span.range(in: place) else { return }
                try target.write(at: base + span.start, bytes.extracting(range))
            } else {
                for extent in now.extents { try target.zero(Extent(from: base + extent.start, to: base + extent.end)) }
            }
        }
    }

    /// Reads the volume's place back and compares it with `stream`. Throws `target.read-back`.
    func compare(_ stream: any RestoreStream, _ volume: VolumePlan, _ meter: Meter) throws(Fault) {
        let different = Mutex<[ByteCount]>([])
        let base = volume.target.start
        try stream.compare(workers: Workers.processors) { (place, used, buffer) throws(Fault) in
            try Interruption.check()
            let later = held(base, of: used)
            for extent in later.extents {
                guard let range = extent.range(in: place) else { continue }
                var part = buffer._mutatingExtracting(range)
                heldBack?.fill(&part, from: base + extent.start)
            }
            for extent in (later.isEmpty ? used : used.subtracting(later)).extents {
                guard let range = extent.range(in: place) else { continue }
                var part = buffer._mutatingExtracting(range)
                try target.read(at: base + extent.start, into: &part)
            }
        } result: { (place, used, equal) throws(Fault) in
            if !equal { different.withLock { $0.append(place.start) } }
            meter.add(used.byteCount)
        }
        let wrong = different.withLock { $0.sorted() }
        guard let first = wrong.first else { return }
        throw differs(
            "\(wrong.count) of the pieces written \(wrong.count == 1 ? "reads" : "read") back differently, the first at byte "
                + "\((base + first).bytes).")
    }

    /// Writes what was held back, and compares it.
    func writeHeldBack(comparing: Bool) throws(Fault) {
        guard let heldBack else { return }
        let content = heldBack.content
        let start = heldBack.extent.start
        try unsafe target.write(at: start, content.span.bytes)
        try target.flush()
        guard comparing else { return }
        try target.dropCaches()
        guard try target.bytes(at: start, count: content.count) == content else {
            // Left in place it could be taken for a disk that is whole.
            try target.zero(heldBack.extent)
            try target.flush()
            throw differs("The first MiB reads back differently.")
        }
    }

    /// The gap before the first partition holds boot loaders' code; it is small and copied at once.
    func copyGap(_ outside: any RestoreStream, _ gap: Extent) throws(Fault) {
        try outside.forEachPiece(workers: 1) { (place, used, bytes) throws(Fault) in
            for extent in used.intersection(gap).extents {
                if let bytes, let range = extent.range(in: place) {
                    try target.write(at: extent.start, bytes.extracting(range))
                } else {
                    try target.zero(extent)
                }
            }
        }
    }

    /// Compares the gap. Throws `target.read-back`.
    func compareGap(_ outside: any RestoreStream, _ gap: Extent) throws(Fault) {
        try outside.forEachPiece(workers: 1) { (place, used, bytes) throws(Fault) in
            for extent in used.intersection(gap).extents {
                guard let count = extent.length.int, let range = extent.range(in: place) else { continue }
                let seen = try target.bytes(at: extent.start, count: count)
                let equal =
                    if let bytes { bytes.matches(seen, at: range.lowerBound) } else { unsafe seen.span.bytes.isAllZero }
                guard equal else {
                    throw differs("The boot loader's code before the first partition reads back differently.")
                }
            }
        }
    }

    /// What of `used`, in a volume that begins at `base`, is held back.
    private func held(_ base: ByteCount, of used: ExtentList) -> ExtentList {
        guard let heldBack, base >= heldBack.extent.start, base < heldBack.extent.end else { return ExtentList() }
        return used.intersection(Extent(from: .zero, to: heldBack.extent.end - base))
    }

    private func differs(_ what: String) -> Fault {
        Fault(
            .readBack, what: what, place: target.name,
            remedy:
                "Do not use this disk as it is attached: cable, controller, memory or the disk itself corrupts data. Try "
                + "another port or disk, and test the memory.")
    }
}

extension Extent {
    /// Where the run lies in a buffer that holds `place`; `nil` when it does not lie within.
    fileprivate func range(in place: Extent) -> Range<Int>? {
        guard place.contains(self), let from = (start - place.start).int, let to = (end - place.start).int else {
            return nil
        }
        return from..<to
    }
}
