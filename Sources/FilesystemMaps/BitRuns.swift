// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry

/// Turns an allocation bitmap, given in pieces, into runs of set bits. The lowest bit of a byte comes first, as in NTFS
/// and ext.
struct BitRuns {
    /// Bits that mean something; those behind are ignored.
    private let count: UInt64
    private var position: UInt64 = 0
    private var open: UInt64?

    /// A bitmap of `count` bits.
    init(count: UInt64) { self.count = count }

    /// Number of set bits so far.
    private(set) var taken: UInt64 = 0

    /// Goes on with `bytes`, a multiple of eight of them unless they are the last. `found` receives each complete run.
    mutating func add(_ bytes: RawSpan, _ found: (Range<UInt64>) -> Void) {
        var offset = 0
        while offset < bytes.byteCount, position < count {
            var word: UInt64 = 0
            if offset + 8 <= bytes.byteCount {
                word = UInt64(
                    littleEndian: unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt64.self))
            } else {
                for index in 0..<bytes.byteCount - offset {
                    word |=
                        UInt64(unsafe bytes.unsafeLoad(fromUncheckedByteOffset: offset + index, as: UInt8.self))
                        << UInt64(8 * index)
                }
            }
            let valid = min(64, min(count - position, UInt64(bytes.byteCount - offset) * 8))
            take(word, valid, found)
            position += valid
            offset += 8
        }
    }

    /// Ends the last run.
    mutating func finish(_ found: (Range<UInt64>) -> Void) {
        if let start = open, start < position { found(start..<position) }
        open = nil
    }

    /// A number with the bits of each of its bytes in the other order, for bitmaps in which the highest bit comes first.
    static func mirrored<T: FixedWidthInteger & UnsignedInteger>(_ bytes: T) -> T {
        let pairs = T.max / 3
        let halves = T.max / 5
        let nibbles = T.max / 17
        var value = (bytes >> 1 & pairs) | (bytes & pairs) << 1
        value = (value >> 2 & halves) | (value & halves) << 2
        return (value >> 4 & nibbles) | (value & nibbles) << 4
    }

    private mutating func take(_ word: UInt64, _ valid: UInt64, _ found: (Range<UInt64>) -> Void) {
        let mask: UInt64 = valid == 64 ? .max : (1 << valid) - 1
        var rest = word & mask
        taken += UInt64(rest.nonzeroBitCount)
        if rest == mask {
            if open == nil { open = position }
            return
        }
        var bit: UInt64 = 0
        if open != nil {
            let ones = UInt64((~rest).trailingZeroBitCount)
            if let start = open, start < position + ones { found(start..<position + ones) }
            open = nil
            bit = ones
            rest = ones >= 64 ? 0 : rest >> ones
        }
        while rest != 0 {
            let zeros = UInt64(rest.trailingZeroBitCount)
            bit += zeros
            rest >>= zeros
            let ones = UInt64((~rest).trailingZeroBitCount)
            if bit + ones >= valid {
                open = position + bit
                return
            }
            found(position + bit..<position + bit + ones)
            bit += ones
            rest >>= ones
        }
    }
}
