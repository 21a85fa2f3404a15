// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry

/// The stored units of a stream that is copied. One per thread; never shared between threads.
final class SourceUnits {
    let stream: PointStream
    private let decoder: PieceDecoder
    private var page: UInt64?
    private var runs: [PageRun] = []
    /// Where records that this page's units lie in went. The index may be full; this one holds at least one page.
    var copied: [RecordPlace: UnitPlace] = [:]

    /// A unit as the source lists it.
    struct Unit {
        /// Its number in the stream.
        var number: UInt64
        var id: UnitID
        /// The run it is listed in, and its place in the frame.
        var run: PageRun
        var index: Int
    }

    init(_ stream: PointStream) throws(Fault) {
        self.stream = stream
        decoder = try PieceDecoder(stream.point)
    }

    /// The stored units of `extent`, which lies in one page. Throws `set.damaged` when the page is.
    func units(in extent: Extent) throws(Fault) -> [Unit] {
        let set = stream.point.file.set
        let number = extent.start.bytes / set.pageSpan
        if page != number {
            page = nil
            copied = [:]
            runs =
                try stream.reference(number).map { (reference) throws(Fault) in
                    try decoder.page(reference, number: number, of: stream)
                } ?? []
            page = number
        }
        let size = UInt64(set.unitSize)
        let base = number * UInt64(SetHeader.pageUnits)
        let wanted = extent.start.bytes / size..<(extent.end.bytes + size - 1) / size
        var result: [Unit] = []
        for run in runs {
            let first = base + UInt64(run.first)
            guard first < wanted.upperBound, first + UInt64(run.ids.count) > wanted.lowerBound else { continue }
            for (offset, id) in run.ids.enumerated() where wanted.contains(first + UInt64(offset)) {
                result.append(
                    Unit(number: first + UInt64(offset), id: id, run: run, index: run.firstInFrame + offset))
            }
        }
        return result
    }

    /// The record a unit lies in, as it is stored, checked. Valid until the next call.
    func record(of unit: Unit) throws(Fault) -> (record: RecordHeader, payload: UnsafeRawBufferPointer) {
        try unsafe decoder.record(unit.run, unit: unit.index, unit.id)
    }
}

extension UnitWorker {
    /// Copies a piece whose units have the same ids in both sets: those the target holds are referred to, the records of
    /// all others are taken over as they are stored. Throws what reading the source throws; the writer can then still end
    /// in order. After a fault of the target it is of no more use.
    func copy(_ piece: StreamPiece, of stream: StreamWriter, from source: SourceUnits) throws(Fault) {
        try writer.requireHealthy()
        let size = UInt64(writer.set.unitSize)
        var units: [StoredUnit] = []
        var (data, new, stored): (UInt64, UInt64, UInt64) = (0, 0, 0)
        for unit in try source.units(in: piece.extent) {
            let start = ByteCount(unit.number * size)
            let extent = Extent(from: start, to: min(ByteCount((unit.number + 1) * size), piece.extent.end))
            // A list that names units without a used byte is wrong; the copy's must not be.
            guard !piece.used.intersection(extent).isEmpty else { continue }
            data += extent.length.bytes
            let place: UnitPlace
            if let known = source.copied[unit.run.place] {
                place = UnitPlace(pack: known.pack, offset: known.offset, length: known.size, index: unit.index)
                new += extent.length.bytes
            } else if let held = try target({ () throws(Fault) in try writer.place(of: unit.id) }) {
                place = held
            } else {
                let (record, payload) = try unsafe source.record(of: unit)
                let put = try target { () throws(Fault) in
                    try unsafe writer.data.append(record, payload, hasher: hasher)
                }
                for (index, id) in record.ids.enumerated() {
                    writer.index.insert(id, pack: put.number, offset: put.offset, index: index)
                }
                place = UnitPlace(pack: put.number, offset: put.offset, length: record.totalSize, index: unit.index)
                source.copied[unit.run.place] = place
                new += extent.length.bytes
                stored += UInt64(record.totalSize)
            }
            units.append(StoredUnit(number: unit.number, id: unit.id, place: place))
        }
        let stored1 = stored
        writer.count(
            read: piece.used.byteCount.bytes, skipped: 0, zero: piece.extent.length.bytes - data, new: new,
            shared: data - new, stored: stored1)
        let done = units
        try target { () throws(Fault) in try stream.finish(piece, done, worker: self) }
    }

    /// Notes a fault of the set that is written to.
    private func target<R>(_ work: () throws(Fault) -> R) throws(Fault) -> R {
        do throws(Fault) { return try work() } catch {
            writer.markFailed(error)
            throw error
        }
    }
}
