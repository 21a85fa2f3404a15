// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Synchronization

/// A disk whose places fail in the ways worn media do, for tests.
public final class Flaky: BlockSource {
    /// How a place fails.
    public enum Behaviour: Sendable {
        /// Every read that touches it fails.
        case always
        /// The first `count` reads that touch it fail.
        case first(_ count: Int)
        /// Reads fail unless the last read on the disk began behind them.
        case forwards
        /// Reads of more than so many bytes fail.
        case longerThan(ByteCount)
    }

    /// A read as the disk saw it.
    public struct Read: Hashable, Sendable {
        /// The bytes asked for.
        public var extent: Extent
        /// Whether they were given.
        public var succeeded: Bool
    }

    private let base: any BlockSource
    private let places: [(extent: Extent, behaviour: Behaviour)]
    private let onRead: @Sendable (Extent, Bool) -> Void
    private let state = Mutex(State())

    private struct State {
        var reads: [Read] = []
        var touched: [Int: Int] = [:]
    }

    /// `base`, failing at `places`. `onRead` is told of each read and whether it succeeded, before it returns.
    public init(
        _ base: any BlockSource, _ places: [(Extent, Behaviour)],
        onRead: @escaping @Sendable (Extent, Bool) -> Void = { _, _ in }
    ) {
        self.base = base
        self.places = places.map { (extent: $0.0, behaviour: $0.1) }
        self.onRead = onRead
    }

    /// The name of the disk below.
    public var name: String { base.name }
    /// The sector size of the disk below.
    public var sectorSize: SectorSize { base.sectorSize }
    /// The size of the disk below.
    public var length: ByteCount { base.length }
    /// No file: nobody may read around the faults.
    public var file: FileWindow? { nil }
    /// All reads so far, in order.
    public var reads: [Read] { state.withLock { $0.reads } }

    /// Fills `buffer`, or throws as the places it touches behave.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        let wanted = Extent(from: offset, to: offset + ByteCount(UInt64(buffer.byteCount)))
        let hit: Extent? = state.withLock { state in
            var hit: Extent?
            for (index, place) in places.enumerated() where place.extent.overlaps(wanted) {
                let fails: Bool
                switch place.behaviour {
                case .always: fails = true
                case .first(let count):
                    state.touched[index, default: 0] += 1
                    fails = state.touched[index, default: 0] <= count
                case .forwards: fails = (state.reads.last?.extent.start ?? .zero) <= wanted.start
                case .longerThan(let most): fails = wanted.length > most
                }
                if fails, hit == nil { hit = place.extent.intersection(wanted) }
            }
            state.reads.append(Read(extent: wanted, succeeded: hit == nil))
            return hit
        }
        onRead(wanted, hit == nil)
        if let hit {
            throw Fault(
                .unreadable, what: "Reading at byte \(hit.start.bytes) failed: Input/output error.", place: name,
                remedy: "The disk may be failing: image it now with `--on-read-error skip`, then replace it.",
                extent: Extent(from: hit.start, to: wanted.end))
        }
        try base.read(at: offset, into: &buffer)
    }
}
