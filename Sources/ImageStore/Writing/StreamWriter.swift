// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
public import Geometry
import Synchronization

/// A piece of a stream to be read and given to a ``UnitWorker``: at most 256 KiB, beginning at a unit.
public struct StreamPiece: Hashable, Sendable {
    /// Where it lies in the stream.
    public let extent: Extent
    /// The bytes in it that matter, counted from the stream's start; not empty. Whatever else lies in the piece need
    /// not be read.
    public let used: ExtentList
    /// What of `used` has to be read: all of it, unless ``UnitWorker/takeOver(_:of:)`` took units over unread.
    public internal(set) var toRead: ExtentList
    /// Units taken over unread, one bit for each unit of the piece.
    var skipped: UInt32 = 0
    /// Those of them that are not zero.
    var adopted: [StoredUnit] = []

    init(extent: Extent, used: ExtentList) {
        self.extent = extent
        self.used = used
        self.toRead = used
    }
}

/// One stream of a recovery point being made. Several threads may take pieces from it.
public final class StreamWriter: Sendable {
    /// What the stream holds. The used map may be coarser than the one given, where that had more than four million
    /// runs.
    public let description: StreamDescription

    let writer: SetWriter
    /// What it is compared with first.
    let parent: ParentStream?
    private let unitSize: UInt64
    private let frame: ByteCount
    private let state: Mutex<State>

    private struct State {
        var position = ByteCount.zero
        var pages: [UInt64: OpenPage] = [:]
        var finished: [(number: UInt64, reference: PageReference)] = []
        var unreadable = ExtentList()
        var trusted = ExtentList()
        var parents: [UInt64: ParentPage] = [:]
        var pending = 0
    }

    private struct OpenPage {
        /// Pieces still to come.
        var pieces: Int
        var units: [StoredUnit?]
    }

    init(_ description: StreamDescription, writer: SetWriter, parent: ParentStream?) {
        self.parent = parent
        self.description = description
        self.writer = writer
        self.unitSize = UInt64(writer.set.unitSize)
        self.frame = ByteCount(UInt64(SetHeader.frameSize))
        self.state = Mutex(State())
    }

    /// The next piece to be read and stored; `nil` when all have been taken. Every piece taken must be given to
    /// ``UnitWorker/add(_:of:_:)``.
    public func nextPiece() -> StreamPiece? {
        state.withLock { state in
            let index = description.used.firstIndex(endingAfter: state.position)
            guard index < description.used.extents.count else { return nil }
            let first = max(description.used.extents[index].start, state.position)
            let window = window(first)
            let used = description.used.intersection(window)
            state.position = window.end
            state.pending += 1
            guard let head = used.extents.first, let tail = used.extents.last else { return nil }
            let unit = ByteCount(unitSize)
            let extent = Extent(
                from: head.start.roundedDown(to: unit), to: min(tail.end.roundedUp(to: unit) ?? window.end, window.end))
            return StreamPiece(extent: extent, used: used)
        }
    }

    /// Notes that bytes could not be read; they were given as zeros. Counted from the stream's start.
    public func markUnreadable(_ extent: Extent) {
        let inside = extent.intersection(Extent(from: .zero, to: description.length))
        state.withLock { state in
            let used = description.used.intersection(inside)
            state.unreadable = state.unreadable.union(used)
        }
    }

    /// Notes all that could not be read when the stream was read first.
    func markUnreadable(_ list: ExtentList) {
        let used = description.used.subtracting(description.used.subtracting(list))
        state.withLock { $0.unreadable = $0.unreadable.union(used) }
    }

    /// Whether the parent given to ``SetWriter/beginStream(_:parent:)`` can be compared with.
    public var hasParent: Bool { parent != nil }

    /// Says which bytes of the stream are as they were when the parent was made, told by something else than their
    /// content: ``UnitWorker/takeOver(_:of:)`` then takes over what lies in them. To be called before the first piece is
    /// taken; without a parent it has no effect.
    public func trust(_ unchanged: ExtentList) { state.withLock { $0.trusted = unchanged } }

    /// What of `window` need not be read.
    func trusted(_ window: Extent) -> ExtentList { state.withLock { $0.trusted.intersection(window) } }

    /// What the parent lists for the page of `piece`; kept until the page is complete.
    func parentPage(_ piece: StreamPiece) -> ParentPage? {
        guard let parent else { return nil }
        let number = piece.extent.start.bytes / writer.set.pageSpan
        return state.withLock { state in
            if let page = state.parents[number] { return page }
            let page = ParentPage(parent, number: number)
            state.parents[number] = page
            return page
        }
    }

    private func window(_ offset: ByteCount) -> Extent {
        let start = offset.roundedDown(to: frame)
        return Extent(from: start, to: min(start.adding(frame) ?? description.length, description.length))
    }

    /// Takes what became of a piece's units. Units that are zero are not among them.
    func finish(_ piece: StreamPiece, _ units: [StoredUnit], worker: UnitWorker) throws(Fault) {
        let span = writer.set.pageSpan
        let number = piece.extent.start.bytes / span
        let (complete, before): (OpenPage?, PageReference?) = state.withLock { state in
            var page =
                state.pages.removeValue(forKey: number)
                ?? OpenPage(pieces: pieceCount(number), units: Array(repeating: nil, count: unitCount(number)))
            let first = number * UInt64(SetHeader.pageUnits)
            for unit in units { page.units[Int(unit.number - first)] = unit }
            page.pieces -= 1
            state.pending -= 1
            if page.pieces > 0 {
                state.pages[number] = page
                return (nil, nil)
            }
            return (page, state.parents.removeValue(forKey: number)?.reference)
        }
        guard let complete else { return }
        if let reference = try writer.store(page: complete.units, before: before, worker: worker) {
            state.withLock { $0.finished.append((number, reference)) }
        }
    }

    /// Units in page `number`.
    private func unitCount(_ number: UInt64) -> Int {
        let all = (description.length.bytes + unitSize - 1) / unitSize
        return Int(min(UInt64(SetHeader.pageUnits), all - number * UInt64(SetHeader.pageUnits)))
    }

    /// Pieces that page `number` gets.
    private func pieceCount(_ number: UInt64) -> Int {
        let start = ByteCount(number * writer.set.pageSpan)
        let page = Extent(
            from: start, to: min(start.adding(ByteCount(writer.set.pageSpan)) ?? .zero, description.length))
        var count = 0
        var next = page.start.bytes
        for extent in description.used.intersection(page).extents {
            let first = max(extent.start.roundedDown(to: frame).bytes, next)
            let last = extent.end.roundedUp(to: frame)?.bytes ?? page.end.bytes
            guard last > first else { continue }
            count += Int((last - first) / frame.bytes)
            next = last
        }
        return count
    }

    /// What is to be written into the point, with at most `share` runs of unreadable areas; a fault when pieces are
    /// missing.
    func stored(unreadableRuns share: Int) throws(Fault) -> StoredStream {
        try state.withLock { (state: inout State) throws(Fault) -> StoredStream in
            let rest = description.used.firstIndex(endingAfter: state.position)
            guard state.pending == 0, state.pages.isEmpty, rest == description.used.extents.count else {
                throw Fault(
                    .system, what: "A stream was not read to its end.",
                    remedy: "This is an error in the program: please report it.")
            }
            return StoredStream(
                description: description,
                unreadable: SetWriter.coarser(state.unreadable, runs: share, description.length),
                pages: state.finished.sorted { $0.number < $1.number })
        }
    }
}

/// A unit that is in the set.
struct StoredUnit: Hashable, Sendable {
    /// Its number in the stream.
    var number: UInt64
    var id: UnitID
    var place: UnitPlace
}
