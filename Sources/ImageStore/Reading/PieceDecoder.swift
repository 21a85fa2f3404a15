// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings
import Geometry

/// Reads, decompresses and checks stored pieces. One per thread; never shared between threads.
@safe public final class PieceDecoder {
    private let point: RecoveryPoint
    private let decoder: RecordDecoder
    private let buffer: ByteBuffer
    /// The frame whose plain bytes lie in the decoder, and which of its units were compared with their ids.
    private var current: (place: RecordPlace, record: RecordHeader, checked: UInt32)?
    /// The plain bytes of `current`: in the decoder, or in `buffer`.
    private var plain = unsafe UnsafeRawBufferPointer(start: nil, count: 0)

    /// A decoder for the streams of `point`.
    public init(_ point: RecoveryPoint) throws(Fault) {
        self.point = point
        decoder = try RecordDecoder(point.reader.set, point.reader.keys)
        buffer = ByteBuffer(RecordHeader.maximumSize)
    }

    /// Calls `body` with the piece's bytes: exactly its extent, checked against the hash of every unit, zero outside of
    /// its used areas. Does nothing for a piece of zeros. Throws `set.damaged` naming pack and offset, `store.failed`,
    /// and what `body` throws.
    public func decode(_ piece: PointPiece, _ body: (RawSpan) throws(Fault) -> Void) throws(Fault) {
        switch piece.content {
        case .zero: return
        case .lost(let fault): throw fault
        case .run(let run):
            let bytes = try unsafe units(run, extent: piece.extent)
            try unsafe body(RawSpan(_unsafeBytes: bytes))
        }
    }

    /// Whether `bytes`, a copy of the piece's extent with everything outside its used areas zeroed, is the piece's content,
    /// told by the hashes of its units: no frame is read. Throws what a damaged list of units throws.
    public func matches(_ piece: PointPiece, _ bytes: RawSpan) throws(Fault) -> Bool {
        switch piece.content {
        case .zero: return bytes.isAllZero
        case .lost(let fault): throw fault
        case .run(let run):
            guard UInt64(bytes.byteCount) == piece.extent.length.bytes else { return false }
            let unit = point.file.set.unitSize
            for (index, id) in run.ids.enumerated() {
                let start = index * unit
                guard start < bytes.byteCount else { return false }
                let part = bytes.extracting(start..<min(start + unit, bytes.byteCount))
                let result: Result<UnitID, Fault> = unsafe part.withUnsafeBytes { pointer in
                    do throws(Fault) { return .success(try unsafe decoder.hasher.id(pointer)) } catch {
                        return .failure(error)
                    }
                }
                if try result.get() != id { return false }
            }
            return true
        }
    }

    /// The plain bytes of a run's units, which cover `extent` of the stream. Valid until the next call. What is damaged is
    /// read once more: a fault of a cable or of memory may be gone then.
    func units(_ run: PageRun, extent: Extent) throws(Fault) -> UnsafeRawBufferPointer {
        do throws(Fault) {
            return try unsafe unitsOnce(run, extent: extent)
        } catch {
            let shelf = point.reader.shelf
            guard error.isWorthAnotherReading, let id = run.ids.first,
                let found = try? shelf.locate(run.place, copy: false, id: id, index: run.firstInFrame)
            else { throw error }
            current = nil
            found.handle.dropCaches()
            let bytes = try unsafe unitsOnce(run, extent: extent)
            shelf.noteSecondReading(found.place.pack, found.place.offset)
            return unsafe bytes
        }
    }

    private func unitsOnce(_ run: PageRun, extent: Extent) throws(Fault) -> UnsafeRawBufferPointer {
        let unitSize = point.file.set.unitSize
        if current?.place != run.place {
            current = nil
            try load(run)
        }
        guard var frame = current else { throw damaged(run.place, "nothing was read") }
        let last = run.firstInFrame + run.ids.count - 1
        guard last < frame.record.ids.count else {
            throw damaged(run.place, "the frame has \(frame.record.ids.count) units, unit \(last) is asked for")
        }
        var start = 0
        var end = 0
        let unchecked = run.ids.indices.map { run.firstInFrame + $0 }.filter { frame.checked & 1 << UInt32($0) == 0 }
        let seen = try unsafe decoder.hasher.ids(
            unchecked.map { frame.record.unitRange($0, unitSize: unitSize) }, of: plain)
        for (offset, id) in run.ids.enumerated() {
            let index = run.firstInFrame + offset
            guard frame.record.ids[index] == id else {
                throw damaged(run.place, "unit \(index) is not the one the recovery point means")
            }
            let range = frame.record.unitRange(index, unitSize: unitSize)
            if frame.checked & 1 << UInt32(index) == 0 {
                guard let place = unchecked.firstIndex(of: index), seen[place] == id else {
                    current = nil
                    throw damaged(run.place, "its content does not match its hash")
                }
                frame.checked |= 1 << UInt32(index)
            }
            if offset == 0 { start = range.lowerBound }
            end = range.upperBound
        }
        current = frame
        guard UInt64(end - start) == extent.length.bytes else {
            throw damaged(run.place, "it holds \(end - start) bytes where \(extent.length.bytes) are expected")
        }
        return unsafe UnsafeRawBufferPointer(rebasing: plain[start..<end])
    }

    /// The record a run lies in as it is stored, every unit of it compared with its id, and `id` being that of unit `index`.
    /// Valid until the next call.
    func record(
        _ run: PageRun, unit index: Int, _ id: UnitID
    ) throws(Fault) -> (record: RecordHeader, payload: UnsafeRawBufferPointer) {
        if current?.place != run.place {
            current = nil
            try load(run)
        }
        guard var frame = current else { throw damaged(run.place, "nothing was read") }
        guard frame.record.ids.indices.contains(index), frame.record.ids[index] == id else {
            throw damaged(run.place, "unit \(index) is not the one the recovery point means")
        }
        for (index, id) in frame.record.ids.enumerated() where frame.checked & 1 << UInt32(index) == 0 {
            let range = frame.record.unitRange(index, unitSize: point.file.set.unitSize)
            guard try unsafe decoder.hasher.id(UnsafeRawBufferPointer(rebasing: plain[range])) == id else {
                current = nil
                throw damaged(run.place, "its content does not match its hash")
            }
            frame.checked |= 1 << UInt32(index)
        }
        current = frame
        let payload = frame.record.headSize..<frame.record.headSize + frame.record.storedLength
        return unsafe (frame.record, buffer.bytes(payload))
    }

    private func load(_ run: PageRun) throws(Fault) {
        let place = run.place
        guard let id = run.ids.first else { throw damaged(place, "no unit of it is asked for") }
        let record = try read(place, copy: false, id: id, index: run.firstInFrame)
        guard record.kind == .frame else { throw damaged(place, "it is not a frame") }
        let payload = record.headSize..<record.headSize + record.storedLength
        guard let bytes = unsafe decoder.plain(record, buffer.bytes(payload)) else {
            throw damaged(
                place, record.cipher == StoredID.noCipher ? "it cannot be decompressed" : "it does not decrypt")
        }
        unsafe plain = bytes
        current = (place, record, 0)
    }

    /// Reads a record into the buffer and checks its head. `id` is what the point knows of it: its id number `index`.
    private func read(
        _ hint: RecordPlace, copy: Bool, id: UnitID, index: Int, in store: Int? = nil
    ) throws(Fault) -> RecordHeader {
        var (handle, place) = try point.reader.shelf.locate(hint, copy: copy, id: id, index: index)
        if let store {
            let name = ObjectName.pack(place.pack)
            guard let other = try point.reader.store.places[store].open(copy ? ObjectName.copy(of: name) : name) else {
                throw damaged(place, "there is no such file in this place", copy: copy)
            }
            handle = other
        }
        let size = handle.size.bytes
        guard UInt64(place.offset) <= size, UInt64(place.length) <= size - UInt64(place.offset) else {
            throw damaged(place, "the file is cut off at \(size) bytes", copy: copy)
        }
        try handle.read(at: UInt64(place.offset), place.length, into: buffer)
        do throws(FieldError) {
            let span = unsafe RawSpan(_unsafeBytes: buffer.bytes(0..<place.length))
            let record = try RecordHeader(span, at: 0, unitSize: point.file.set.unitSize)
            guard record.totalSize == place.length else {
                throw FieldError.invalid(
                    field: "stored length", at: 12, seen: "\(record.storedLength)",
                    expected: "a record of \(place.length) bytes")
            }
            return record
        } catch {
            throw damaged(place, "\(error)", copy: copy)
        }
    }

    /// Reads a page: its first copy, or its second when the first is damaged.
    func page(_ reference: PageReference, number: UInt64, of stream: PointStream) throws(Fault) -> [PageRun] {
        do throws(Fault) {
            return try page(reference, number: number, of: stream, copy: false)
        } catch {
            let first = error
            do throws(Fault) {
                return try page(reference, number: number, of: stream, copy: true)
            } catch {
                for place in point.reader.store.places.indices.dropFirst() {
                    if let runs = try? page(reference, number: number, of: stream, copy: true, in: place) {
                        return runs
                    }
                }
                throw first
            }
        }
    }

    /// Reads one copy of a page; the one in a certain place of the set instead of the first that has it, if that is given.
    func page(
        _ reference: PageReference, number: UInt64, of stream: PointStream, copy: Bool, in store: Int? = nil
    ) throws(Fault) -> [PageRun] {
        current = nil
        let place = reference.place
        let record = try read(place, copy: copy, id: reference.hash, index: 0, in: store)
        guard record.kind == .page, record.ids == [reference.hash] else {
            throw damaged(place, "it is not the list the recovery point means", copy: copy)
        }
        let payload = unsafe buffer.bytes(record.headSize..<record.headSize + record.storedLength)
        guard let plain = unsafe decoder.plain(record, payload), try unsafe decoder.hasher.id(plain) == reference.hash
        else { throw damaged(place, "its content does not match its hash", copy: copy) }
        do throws(FieldError) {
            return try unsafe Page.runs(
                Array(plain), units: stream.units(number), frameUnits: point.file.set.frameUnits)
        } catch {
            throw damaged(place, "\(error)", copy: copy)
        }
    }

    private func damaged(_ place: RecordPlace, _ why: String, copy: Bool = false) -> Fault {
        Fault(
            .setDamaged, what: "The record at byte \(place.offset) is damaged: \(why).",
            place: point.reader.shelf.place(place.pack, copy: copy),
            remedy:
                "Read it once more, best on another machine or port: a fault in memory or cable looks the same. "
                + "`relight verify` lists what is lost; put the file back if you have another copy of the set.",
            extent: Extent(start: ByteCount(UInt64(place.offset)), length: ByteCount(UInt64(place.length))))
    }
}

extension Fault {
    /// Whether a second reading may give what the first did not: not where a file is missing.
    fileprivate var isWorthAnotherReading: Bool { (code == .setDamaged || code == .storeFailed) && extent != nil }
}
