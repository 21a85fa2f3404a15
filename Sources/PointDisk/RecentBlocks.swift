// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Synchronization

/// Which blocks were read of late, to be found by their content: whoever moves data writes what it has just read. A table
/// of fixed size that forgets the oldest. What it names is a guess; it is compared before it is believed.
final class RecentBlocks: Sendable {
    /// Four entries of a bucket, newest first: 24 bits of the hash, and the block's number plus one; 0 for none.
    private let entries: Mutex<[UInt64]>
    private let buckets: UInt64
    private static let ways = 4
    private static let numberBits: UInt64 = 40

    /// A table that remembers about `count` blocks.
    init(_ count: UInt64) {
        var size: UInt64 = 1024
        while size < count, size < 1 << 21 { size <<= 1 }
        buckets = size / UInt64(RecentBlocks.ways)
        entries = Mutex([UInt64](repeating: 0, count: Int(size)))
    }

    /// Bytes of memory taken.
    var memory: UInt64 { buckets * UInt64(RecentBlocks.ways) * 8 }

    /// Notes that block `number` was read, whose content has `hash`.
    func note(_ hash: UInt64, _ number: UInt64) {
        guard number < (1 << RecentBlocks.numberBits) - 1 else { return }
        let tag = hash & ~((1 << RecentBlocks.numberBits) - 1)
        let first = Int(hash % buckets) * RecentBlocks.ways
        entries.withLock { entries in
            var last = first
            // A block of the same content makes room for the newer one.
            while last < first + RecentBlocks.ways - 1, entries[last] != 0,
                entries[last] >> RecentBlocks.numberBits != tag >> RecentBlocks.numberBits
            {
                last += 1
            }
            while last > first {
                entries[last] = entries[last - 1]
                last -= 1
            }
            entries[first] = tag | (number + 1)
        }
    }

    /// A block that was read of late and may have the content with `hash`.
    func block(_ hash: UInt64) -> UInt64? {
        let first = Int(hash % buckets) * RecentBlocks.ways
        let mask = (UInt64(1) << RecentBlocks.numberBits) - 1
        return entries.withLock { entries in
            for index in first..<first + RecentBlocks.ways
            where entries[index] != 0 && entries[index] & ~mask == hash & ~mask {
                return (entries[index] & mask) - 1
            }
            return nil
        }
    }
}
