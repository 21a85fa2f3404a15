// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Geometry
import Glibc

/// Takes whole pieces through every step: mask, zero test, hash, look-up, compress, append. One per thread; never
/// shared between threads.
public final class UnitWorker {
    let hasher: Hasher256
    let writer: SetWriter
    let sealer: RecordSealer
    private let gathered: ByteBuffer

    /// A worker for `writer`.
    public init(_ writer: SetWriter) throws(Fault) {
        self.writer = writer
        hasher = try Hasher256(writer.keys)
        sealer = try RecordSealer(writer.set, writer.keys, writer.session, writer.options.compression)
        gathered = ByteBuffer(SetHeader.frameSize)
    }

    /// Stores a piece. `bytes` holds exactly the piece's extent; whatever lies outside of its used areas is zeroed here,
    /// so it may hold anything. Throws `store.full`, `store.failed`; the writer is then of no more use.
    public func add(_ piece: StreamPiece, of stream: StreamWriter, _ bytes: inout MutableRawSpan) throws(Fault) {
        guard ByteCount(UInt64(bytes.byteCount)) == piece.extent.length, stream.writer === writer else {
            throw Fault(
                .system, what: "A piece of \(piece.extent.length.bytes) bytes was given as \(bytes.byteCount).",
                remedy: "This is an error in the program: please report it.")
        }
        try writer.requireHealthy()
        do {
            let units = try store(piece, stream, &bytes)
            try stream.finish(piece, units, worker: self)
        } catch {
            writer.markFailed(error)
            throw error
        }
    }

    private func store(
        _ piece: StreamPiece, _ stream: StreamWriter, _ bytes: inout MutableRawSpan
    ) throws(Fault) -> [StoredUnit] {
        let result: Result<[StoredUnit], Fault> = unsafe bytes.withUnsafeMutableBytes { buffer in
            do throws(Fault) { return .success(try unsafe store(piece, stream, buffer)) } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func store(
        _ piece: StreamPiece, _ stream: StreamWriter, _ bytes: UnsafeMutableRawBufferPointer
    ) throws(Fault) -> [StoredUnit] {
        if SafetyRules.keep(.masking) { unsafe mask(piece, bytes) }
        let unitSize = writer.set.unitSize
        let first = piece.extent.start.bytes / UInt64(unitSize)

        // Hash what is not zero.
        var ranges: [Range<Int>] = []
        var start = 0
        var untouched = 0
        while start < bytes.count {
            let range = start..<min(start + unitSize, bytes.count)
            if piece.skipped & 1 << UInt32(start / unitSize) != 0 {
                untouched += range.count
                start = range.upperBound
                continue
            }
            let unit = unsafe UnsafeRawBufferPointer(rebasing: bytes[range])
            if unsafe !isZero(unit) {
                ranges.append(range)
            }
            start = range.upperBound
        }
        let ids = try unsafe hasher.ids(ranges, of: UnsafeRawBufferPointer(bytes))

        // What is known, what is new, what is new but twice in this very piece. Most of a disk is as it was: what the
        // parent lists at the same place is compared first, and needs no look-up.
        var places = [UnitPlace?](repeating: nil, count: ids.count)
        let parent = try stream.parentPage(piece)?.units()
        for (index, id) in ids.enumerated() {
            let unit = Int(first % UInt64(SetHeader.pageUnits)) + ranges[index].lowerBound / unitSize
            if let parent, unit < parent.ids.count, parent.ids[unit] == id, let hint = parent.places[unit] {
                places[index] = hint
            } else {
                places[index] = try writer.place(of: id)
            }
        }
        var fresh: [Int] = []
        var twins: [(Int, Int)] = []
        for index in ids.indices where places[index] == nil {
            if let twin = fresh.first(where: { ids[$0] == ids[index] }) {
                twins.append((index, twin))
            } else {
                fresh.append(index)
            }
        }
        let shared = ids.indices.filter { places[$0] != nil }.reduce(0) { $0 + ranges[$1].count }
        var stored = 0
        if !fresh.isEmpty {
            stored = try unsafe storeFrame(fresh.map { ids[$0] }, fresh.map { ranges[$0] }, bytes) { index, place in
                places[fresh[index]] = place
            }
            for (index, twin) in twins { places[index] = places[twin] }
        }
        let new = fresh.reduce(0) { $0 + ranges[$1].count }
        let twice = twins.reduce(0) { $0 + ranges[$1.0].count }
        let data = ranges.reduce(0) { $0 + $1.count }
        writer.count(
            read: piece.toRead.byteCount.bytes, skipped: piece.used.byteCount.bytes - piece.toRead.byteCount.bytes,
            zero: UInt64(bytes.count - untouched - data), new: UInt64(new), shared: UInt64(shared + twice),
            stored: UInt64(stored))

        var result = piece.adopted
        result.reserveCapacity(result.count + ids.count)
        for index in ids.indices {
            guard let place = places[index] else { continue }
            result.append(
                StoredUnit(number: first + UInt64(ranges[index].lowerBound / unitSize), id: ids[index], place: place))
        }
        return result
    }

    /// Zeroes what lies outside of the used areas.
    private func mask(_ piece: StreamPiece, _ bytes: UnsafeMutableRawBufferPointer) {
        guard let base = bytes.baseAddress else { return }
        let origin = piece.extent.start
        for gap in piece.used.complement(in: piece.extent).extents {
            unsafe memset(base + Int((gap.start - origin).bytes), 0, Int(gap.length.bytes))
        }
    }

    private func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress, bytes.count > 8 else { return unsafe bytes.allSatisfy { $0 == 0 } }
        // The first eight bytes are zero, and each byte equals the one eight before it.
        return unsafe base.loadUnaligned(as: UInt64.self) == 0 && memcmp(base, base + 8, bytes.count - 8) == 0
    }

    /// Stores new units as one frame; returns the number of bytes the record takes.
    private func storeFrame(
        _ ids: [UnitID], _ ranges: [Range<Int>], _ bytes: UnsafeMutableRawBufferPointer,
        _ placed: (Int, UnitPlace) -> Void
    ) throws(Fault) -> Int {
        let length = ranges.reduce(0) { $0 + $1.count }
        let start = ranges[0].lowerBound
        let plain: UnsafeRawBufferPointer
        if ranges[ranges.count - 1].upperBound - start == length {
            unsafe plain = UnsafeRawBufferPointer(rebasing: bytes[start..<start + length])
        } else {
            var fill = 0
            for range in ranges {
                unsafe gathered.mutable(fill..<fill + range.count).copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: bytes[range]))
                fill += range.count
            }
            unsafe plain = gathered.bytes(0..<length)
        }
        let (record, place) = try unsafe sealer.record(.frame, ids: ids, plain) { (record, payload) throws(Fault) in
            (record, try unsafe writer.data.append(record, payload, hasher: hasher))
        }
        for index in ids.indices {
            placed(
                index, UnitPlace(pack: place.number, offset: place.offset, length: record.totalSize, index: index))
        }
        for index in ids.indices {
            writer.index.insert(ids[index], pack: place.number, offset: place.offset, index: index)
        }
        return record.totalSize
    }
}
