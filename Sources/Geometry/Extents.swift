// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// A run of bytes: `start ..< end`. Its end never passes 2^64 − 1.
public struct Extent: Hashable, Sendable {
    /// First byte.
    public let start: ByteCount
    /// Number of bytes; may be zero.
    public let length: ByteCount

    /// `nil` when `start + length` cannot be represented.
    @inlinable public init?(start: ByteCount, length: ByteCount) {
        guard start.adding(length) != nil else { return nil }
        self.start = start
        self.length = length
    }

    /// The run from `start` up to, not including, `end`; empty when `end` is not after `start`.
    @inlinable public init(from start: ByteCount, to end: ByteCount) {
        self.start = start
        self.length = end > start ? end - start : .zero
    }

    /// First byte after the run.
    @inlinable public var end: ByteCount { start + length }
    /// Whether the run holds no byte.
    @inlinable public var isEmpty: Bool { length == .zero }

    /// The bytes in both runs; empty when they do not meet.
    @inlinable public func intersection(_ other: Extent) -> Extent {
        Extent(from: max(start, other.start), to: min(end, other.end))
    }
    /// Whether every byte of `other` lies in this run.
    @inlinable public func contains(_ other: Extent) -> Bool { other.start >= start && other.end <= end }
    /// Whether the runs share a byte.
    @inlinable public func overlaps(_ other: Extent) -> Bool { !intersection(other).isEmpty }
}

extension Extent: Codable {
    /// Reads `[start, length]`; refuses a run whose end passes 2^64 − 1.
    public init(from decoder: any Decoder) throws {
        var container = try decoder.unkeyedContainer()
        let start = try container.decode(ByteCount.self)
        let length = try container.decode(ByteCount.self)
        guard let extent = Extent(start: start, length: length) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "extent passes 2^64")
        }
        self = extent
    }
    /// Writes `[start, length]`.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.unkeyedContainer()
        try container.encode(start)
        try container.encode(length)
    }
}

/// Sorted, disjoint, non-touching runs of bytes: the form of every used map.
public struct ExtentList: Hashable, Sendable {
    /// The runs, in rising order; none is empty and none touches the next.
    public private(set) var extents: [Extent]

    /// An empty list.
    public init() { extents = [] }

    /// One run, or none when it is empty.
    public init(_ extent: Extent) { extents = extent.isEmpty ? [] : [extent] }

    /// The union of `extents`, given in any order, overlapping or not.
    public init(_ extents: some Sequence<Extent>) {
        self.extents = []
        for extent in extents.sorted(by: { $0.start < $1.start }) { append(extent) }
    }

    /// Adds a run that begins at or after the start of the last one; others are merged the slow way.
    public mutating func append(_ extent: Extent) {
        guard !extent.isEmpty else { return }
        guard let last = extents.last else {
            extents.append(extent)
            return
        }
        if extent.start > last.end {
            extents.append(extent)
        } else if extent.start >= last.start {
            extents[extents.count - 1] = Extent(from: last.start, to: max(last.end, extent.end))
        } else {
            self = ExtentList(extents + [extent])
        }
    }

    /// Whether there is no byte in the list.
    public var isEmpty: Bool { extents.isEmpty }

    /// Number of bytes in all runs.
    public var byteCount: ByteCount { extents.reduce(.zero) { $0 + $1.length } }

    /// End of the last run; zero for an empty list.
    public var end: ByteCount { extents.last?.end ?? .zero }

    /// The bytes in either list.
    public func union(_ other: ExtentList) -> ExtentList {
        var result = ExtentList()
        var left = extents[...]
        var right = other.extents[...]
        while let a = left.first, let b = right.first {
            if a.start <= b.start {
                result.append(a)
                left = left.dropFirst()
            } else {
                result.append(b)
                right = right.dropFirst()
            }
        }
        for extent in left { result.append(extent) }
        for extent in right { result.append(extent) }
        return result
    }

    /// The bytes of the list that lie in `window`. Takes a binary search plus the runs returned.
    public func intersection(_ window: Extent) -> ExtentList {
        var result = ExtentList()
        var index = firstIndex(endingAfter: window.start)
        while index < extents.count, extents[index].start < window.end {
            result.append(extents[index].intersection(window))
            index += 1
        }
        return result
    }

    /// The bytes of `window` that are not in the list.
    public func complement(in window: Extent) -> ExtentList {
        var result = ExtentList()
        var position = window.start
        for extent in intersection(window).extents {
            result.append(Extent(from: position, to: extent.start))
            position = extent.end
        }
        result.append(Extent(from: position, to: window.end))
        return result
    }

    /// The bytes of this list that are not in `other`.
    public func subtracting(_ other: ExtentList) -> ExtentList {
        var result = ExtentList()
        for extent in extents {
            for left in other.complement(in: extent).extents { result.append(left) }
        }
        return result
    }

    /// The list moved `offset` bytes towards the end; `nil` when a run would pass 2^64 − 1.
    public func shifted(by offset: ByteCount) -> ExtentList? {
        var result = ExtentList()
        for extent in extents {
            guard let start = extent.start.adding(offset),
                let moved = Extent(start: start, length: extent.length)
            else { return nil }
            result.append(moved)
        }
        return result
    }

    /// Every run widened to whole multiples of `grain` (not zero), no run past `limit`.
    public func widened(to grain: ByteCount, limit: ByteCount) -> ExtentList {
        var result = ExtentList()
        for extent in extents {
            let end = extent.end.roundedUp(to: grain) ?? limit
            result.append(Extent(from: extent.start.roundedDown(to: grain), to: min(end, limit)))
        }
        return result
    }

    /// Whether `offset` lies in the list.
    public func contains(_ offset: ByteCount) -> Bool {
        let index = firstIndex(endingAfter: offset)
        return index < extents.count && extents[index].start <= offset
    }

    /// Whether every byte of `window` lies in the list.
    public func covers(_ window: Extent) -> Bool {
        if window.isEmpty { return true }
        let index = firstIndex(endingAfter: window.start)
        return index < extents.count && extents[index].contains(window)
    }

    /// Index of the first run whose end lies after `offset`; the number of runs when there is none.
    public func firstIndex(endingAfter offset: ByteCount) -> Int {
        var low = 0
        var high = extents.count
        while low < high {
            let middle = (low + high) / 2
            if extents[middle].end > offset { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

extension ExtentList: Codable {
    /// Reads an array of runs in any order.
    public init(from decoder: any Decoder) throws {
        self.init(try decoder.singleValueContainer().decode([Extent].self))
    }
    /// Writes an array of runs.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(extents)
    }
}
