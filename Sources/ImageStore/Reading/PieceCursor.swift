// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
public import Geometry
import Synchronization

/// A piece of a stream's content: something stored, or used bytes that are zero.
public struct PointPiece: Sendable {
    /// Where it lies in the stream.
    public let extent: Extent
    /// The bytes in it that matter, counted from the stream's start; not empty.
    public let used: ExtentList
    /// Whether all its bytes are zero. Then there is nothing to decode.
    public var isZero: Bool { if case .zero = content { true } else { false } }

    enum Content: Sendable {
        case zero
        case run(PageRun)
        /// The list that says what lies here is damaged.
        case lost(Fault)
    }
    let content: Content
}

/// Hands out a stream's pieces in rising order, to any number of threads.
public final class PieceCursor: Sendable {
    private let stream: PointStream
    private let state: Mutex<State>

    private struct State: @unchecked Sendable {
        // The decoder is used under the lock only.
        var decoder: PieceDecoder
        var position = ByteCount.zero
        var page = 0
        var queue: ArraySlice<PointPiece> = []
    }

    /// Largest piece of zeros.
    private static let zeros = ByteCount.gibibytes(1)

    init(_ stream: PointStream) throws(Fault) {
        self.stream = stream
        self.state = Mutex(State(decoder: try PieceDecoder(stream.point)))
    }

    /// The next piece; `nil` at the end. Where a list of units is damaged the piece comes all the same, and decoding it
    /// throws.
    public func next() -> PointPiece? {
        state.withLock { state in
            while true {
                if let piece = state.queue.popFirst() { return piece }
                guard state.position < stream.length else { return nil }
                advance(&state)
            }
        }
    }

    private func advance(_ state: inout State) {
        let used = stream.description.used
        let index = used.firstIndex(endingAfter: state.position)
        guard index < used.extents.count else {
            state.position = stream.length
            return
        }
        let span = stream.point.file.set.pageSpan
        let pages = stream.stored.pages
        while state.page < pages.count, pages[state.page].number < state.position.bytes / span { state.page += 1 }
        let nextPage = state.page < pages.count ? pages[state.page].number : nil
        let start = max(state.position, used.extents[index].start)
        if let nextPage, nextPage <= start.bytes / span {
            let window = stream.extent(ofPage: nextPage)
            state.position = window.end
            state.page += 1
            fill(&state, nextPage, pages[state.page - 1].reference, window)
            return
        }
        var end = min(stream.length, start.adding(PieceCursor.zeros) ?? stream.length)
        if let nextPage { end = min(end, ByteCount(nextPage * span)) }
        state.position = end
        zero(&state.queue, Extent(from: start, to: end))
    }

    private func zero(_ queue: inout ArraySlice<PointPiece>, _ window: Extent) {
        let used = stream.description.used.intersection(window)
        guard let first = used.extents.first else { return }
        queue.append(PointPiece(extent: Extent(from: first.start, to: used.end), used: used, content: .zero))
    }

    private func fill(_ state: inout State, _ number: UInt64, _ reference: PageReference, _ window: Extent) {
        let runs: [PageRun]
        do throws(Fault) {
            runs = try state.decoder.page(reference, number: number, of: stream)
        } catch {
            let used = stream.description.used.intersection(window)
            if !used.isEmpty {
                state.queue.append(PointPiece(extent: window, used: used, content: .lost(error)))
            }
            return
        }
        var position = window.start
        for run in runs {
            let extent = stream.extent(run, page: number)
            zero(&state.queue, Extent(from: position, to: extent.start))
            let used = stream.description.used.intersection(extent)
            if !used.isEmpty { state.queue.append(PointPiece(extent: extent, used: used, content: .run(run))) }
            position = extent.end
        }
        zero(&state.queue, Extent(from: position, to: window.end))
    }
}
