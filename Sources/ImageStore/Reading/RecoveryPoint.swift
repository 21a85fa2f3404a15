// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings
public import Geometry
import Synchronization

/// An open recovery point.
public final class RecoveryPoint: Sendable {
    let reader: SetReader
    let file: PointFile
    /// The point in brief.
    public let summary: PointSummary
    /// What was noticed while opening: a copy that is damaged or missing.
    public let findings: [Finding]

    init(_ reader: SetReader, _ file: PointFile, _ id: ObjectID, findings: [Finding]) {
        self.reader = reader
        self.file = file
        self.summary = file.summary(id)
        self.findings = findings
    }

    /// What it tells about the machine.
    public var facts: PointFacts { file.facts }

    /// Its streams, in the order they were written. Made anew at each call: keep the one you read from.
    public var streams: [PointStream] {
        file.streams.indices.map { PointStream(self, index: $0, file.streams[$0]) }
    }

    /// Whether the place of the set still answers: one of the headers can be read.
    public func setAnswers() -> Bool {
        ObjectName.headers.contains { name in
            guard let handle = try? reader.store.open(name) else { return false }
            handle.dropCaches()
            return (try? handle.bytes(at: .zero, count: SetHeader.size)) != nil
        }
    }

    /// The packs it needs, by name, that are missing or have another size, and whose records were not moved elsewhere.
    /// Quick: looks at names, sizes and moves only. Where a folder cannot be listed, the packs are asked for by name.
    public func missingPacks() throws(Fault) -> [String] {
        try PackListing(reader).missing(of: self)
    }
}

/// The packs of a set as they are listed, to look for those that points need.
struct PackListing {
    private var sizes: [String: UInt64] = [:]
    private var isWhole = true
    private let store: any ObjectStore
    private let moves: MoveMap

    /// Lists the packs of a set, and reads its moves.
    init(_ reader: SetReader) throws(Fault) {
        store = reader.store
        for folder in [ObjectName.packs, ObjectName.copy(of: ObjectName.packs)] {
            let listing = reader.store.listReadable(folder)
            for object in listing.objects { sizes[object.name] = object.size.bytes }
            isWhole = isWhole && listing.faults.isEmpty
        }
        moves = try MoveMap(reader.store, reader.set, forReading: true)
    }

    /// See ``RecoveryPoint/missingPacks()``.
    func missing(of point: RecoveryPoint) -> [String] {
        func isThere(_ name: String, _ size: UInt64?) -> Bool {
            // Packs of lists are there twice; one sound copy will do.
            [name, ObjectName.copy(of: name)].contains { name in
                var found = sizes[name]
                if found == nil, !isWhole { found = ((try? store.open(name)) ?? nil)?.size.bytes }
                return found != nil && (size == nil || found == size)
            }
        }
        return point.file.packs.filter { pack in
            !isThere(ObjectName.pack(pack.id), pack.size)
                && !moves.targets(of: pack.id).contains { isThere(ObjectName.pack($0), nil) }
        }.map { ObjectName.pack($0.id) }
    }
}

/// One stream of a recovery point: what one volume, or the rest of a disk, held.
public final class PointStream: Sendable {
    /// The point it belongs to.
    public let point: RecoveryPoint
    /// Its place in ``RecoveryPoint/streams``.
    public let index: Int
    let stored: StoredStream
    private let random = Mutex<Random?>(nil)

    private struct Random: @unchecked Sendable {
        // Used under the lock only.
        var decoder: PieceDecoder
        var page: UInt64?
        var runs: [PageRun] = []
    }

    init(_ point: RecoveryPoint, index: Int, _ stored: StoredStream) {
        self.point = point
        self.index = index
        self.stored = stored
    }

    /// What it holds.
    public var description: StreamDescription { stored.description }
    /// Used bytes that could not be read when the point was made; they read as zeros.
    public var unreadable: ExtentList { stored.unreadable }
    /// Bytes in the stream.
    public var length: ByteCount { stored.description.length }
    /// Bytes in a unit.
    public var unitSize: ByteCount { ByteCount(UInt64(point.file.set.unitSize)) }

    /// Fills `buffer` from byte `offset`: stored bytes as they were, all others zero. Every byte handed out has been
    /// checked against its unit's hash. For reading here and there; a whole stream is read with ``pieces()``.
    /// Throws `set.damaged` naming the pack and offset, `store.failed`.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        let wanted = UInt64(buffer.byteCount)
        guard let end = offset.adding(ByteCount(wanted)), end <= length else {
            throw Fault(
                .system, what: "\(wanted) bytes at \(offset.bytes) lie outside the volume; it ends at \(length.bytes).",
                remedy: "This is an error in the program: please report it.")
        }
        let window = Extent(from: offset, to: end)
        let result: Result<Void, Fault> = unsafe buffer.withUnsafeMutableBytes { target in
            do throws(Fault) {
                try unsafe read(window, into: target)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    private func read(_ window: Extent, into target: UnsafeMutableRawBufferPointer) throws(Fault) {
        guard !window.isEmpty, let base = target.baseAddress else { return }
        unsafe target.initializeMemory(as: UInt8.self, repeating: 0)
        let span = point.file.set.pageSpan
        let unit = UInt64(point.file.set.unitSize)
        let box = unsafe UncheckedPointer(base)
        try random.withLock { (random: inout Random?) throws(Fault) in
            var state: Random
            if let kept = random { state = kept } else { state = Random(decoder: try PieceDecoder(point)) }
            defer { random = state }
            for number in window.start.bytes / span...(window.end.bytes - 1) / span {
                guard let reference = reference(number) else { continue }
                if state.page != number {
                    state.page = nil
                    state.runs = try state.decoder.page(reference, number: number, of: self)
                    state.page = number
                }
                for run in state.runs {
                    let extent = self.extent(run, page: number)
                    let part = extent.intersection(window)
                    guard !part.isEmpty else { continue }
                    // Only the units that are asked for are hashed.
                    let first = Int((part.start - extent.start).bytes / unit)
                    let last = Int((part.end.bytes - 1 - extent.start.bytes) / unit)
                    let narrowed = PageRun(
                        first: run.first + first, ids: Array(run.ids[first...last]), place: run.place,
                        firstInFrame: run.firstInFrame + first)
                    let bytes = try unsafe state.decoder.units(narrowed, extent: self.extent(narrowed, page: number))
                    let start = Int(part.start.bytes - extent.start.bytes) - first * Int(unit)
                    unsafe (box.base + Int(part.start.bytes - window.start.bytes)).copyMemory(
                        from: bytes.baseAddress.unsafelyUnwrapped + start, byteCount: Int(part.length.bytes))
                }
            }
        }
    }

    /// The caller's buffer, handed through a lock that runs its body before it returns.
    @safe private struct UncheckedPointer: @unchecked Sendable {
        let base: UnsafeMutableRawPointer
        init(_ base: UnsafeMutableRawPointer) { unsafe self.base = base }
    }

    /// All its content in rising order, to be taken by any number of threads.
    public func pieces() throws(Fault) -> PieceCursor { try PieceCursor(self) }

    /// The page with `number`, when it holds anything.
    func reference(_ number: UInt64) -> PageReference? {
        var low = 0
        var high = stored.pages.count
        while low < high {
            let middle = (low + high) / 2
            if stored.pages[middle].number < number { low = middle + 1 } else { high = middle }
        }
        guard low < stored.pages.count, stored.pages[low].number == number else { return nil }
        return stored.pages[low].reference
    }

    /// Units of page `number`.
    func units(_ number: UInt64) -> Int {
        let unit = UInt64(point.file.set.unitSize)
        let all = (length.bytes + unit - 1) / unit
        return Int(min(UInt64(SetHeader.pageUnits), all - number * UInt64(SetHeader.pageUnits)))
    }

    /// Where a run lies in the stream.
    func extent(_ run: PageRun, page number: UInt64) -> Extent {
        let unit = UInt64(point.file.set.unitSize)
        let first = number * UInt64(SetHeader.pageUnits) + UInt64(run.first)
        return Extent(
            from: ByteCount(first * unit), to: min(ByteCount((first + UInt64(run.ids.count)) * unit), length))
    }

    /// Where page `number` lies in the stream.
    func extent(ofPage number: UInt64) -> Extent {
        let span = point.file.set.pageSpan
        return Extent(from: ByteCount(number * span), to: min(ByteCount((number + 1) * span), length))
    }
}
