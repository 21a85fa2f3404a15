// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Walks the pieces of a volume that hold used bytes, in rising order. Pieces lie at multiples of a grain counted from
/// the volume's start; the last one ends with the volume.
public struct GrainCursor: Sendable {
    private let used: ExtentList
    private let length: ByteCount
    private let grain: ByteCount
    private var position = ByteCount.zero
    private var index = 0

    /// The pieces of `grain` bytes (not zero) of a volume of `length` bytes that hold a byte of `used`.
    public init(used: ExtentList, length: ByteCount, grain: ByteCount) {
        self.used = used
        self.length = length
        self.grain = grain
    }

    /// The next piece; `nil` after the last.
    public mutating func next() -> Extent? {
        let extents = used.extents
        while index < extents.count, extents[index].end <= position { index += 1 }
        guard index < extents.count else { return nil }
        let start = max(position, extents[index].start).roundedDown(to: grain)
        guard start < length else { return nil }
        position = min(start.adding(grain) ?? length, length)
        return Extent(from: start, to: position)
    }
}
