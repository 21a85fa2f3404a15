// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Where partitions go, as numbers only: bytes in, bytes out. Order is the source's disk order, always.
///
/// A larger space never makes a slot smaller: each way of distributing room is a clamped share of a growing whole, rounded
/// down to the grain, and what is left by the rounding stays free.
struct Arrangement {
    /// A partition.
    struct Slot {
        /// Where it lay; `nil` for one that did not exist.
        var start: UInt64?
        /// What it gets unless room must be saved or is to be given away. A multiple of the sector size.
        var length: UInt64
        /// The least it can do with; equal to `length` unless it can be made smaller.
        var minimum: UInt64
        /// The most it can use; equal to `length` unless it can be made larger.
        var maximum: UInt64
        /// For a logical partition, where its boot record lay.
        var record: UInt64?
        /// For a logical partition, the container it lies in.
        var container: Int?
        /// Whether it comes first in the chain of its container, whose own first sector then describes it.
        var isHead = false
    }

    /// An extended partition that holds logical ones.
    struct Container {
        /// Where it lay; `nil` for one that did not exist.
        var start: UInt64?
        var end: UInt64?
    }

    /// A result.
    struct Placement {
        var starts: [UInt64] = []
        var lengths: [UInt64]
        /// Boot records of logical partitions; 0 for others.
        var records: [UInt64] = []
        var containers: [(start: UInt64, end: UInt64)]
        /// The end of the last partition.
        var end: UInt64 = 0
    }

    /// What is to be done with room.
    enum Goal {
        /// Nothing.
        case keep
        /// Everything scaled alike; the space of the source ended there.
        case proportional(sourceEnd: UInt64)
        /// All of it to one slot; `nil` when none can use it.
        case fill(Int?)
    }

    var slots: [Slot]
    var containers: [Container]
    /// First usable byte.
    var first: UInt64
    /// End of the usable bytes.
    var end: UInt64
    /// Bytes in a sector of the target.
    var sector: UInt64

    static let grain: UInt64 = 1 << 20
    /// No place is further out than this: sums below cannot overflow.
    static let limit: UInt64 = 1 << 62

    @inline(__always) static func up(_ value: UInt64) -> UInt64 { (value &+ (grain &- 1)) & ~(grain &- 1) }
    @inline(__always) static func down(_ value: UInt64) -> UInt64 { value & ~(grain &- 1) }

    /// Puts the slots with `lengths` one behind the other. Those before index `stay` stay where they were when they can:
    /// with `isAnchored` wherever that is behind what comes before, else only where that wastes no room. All others begin
    /// at a multiple of the grain. `nil` when that passes ``limit``.
    func place(_ lengths: [UInt64], isAnchored: Bool, stay: Int) -> Placement? {
        var placed = Placement(
            lengths: lengths, containers: [(start: UInt64, end: UInt64)](repeating: (0, 0), count: containers.count))
        placed.starts.reserveCapacity(slots.count)
        placed.records.reserveCapacity(slots.count)
        var cursor = first
        var open: Int?
        var isFresh = false
        for index in slots.indices {
            let slot = slots[index]
            if let container = open, slot.container != container {
                cursor = close(container, at: cursor, isAnchored: isAnchored && index <= stay, &placed)
                open = nil
            }
            guard cursor < Arrangement.limit, lengths[index] < Arrangement.limit else { return nil }
            let mayStay = index < stay
            var start: UInt64
            var record: UInt64 = 0
            if let container = slot.container {
                if open == nil {
                    let aligned = Arrangement.up(cursor)
                    var begin = aligned
                    if mayStay, let old = containers[container].start, old >= cursor, old % sector == 0,
                        isAnchored || old <= aligned
                    {
                        begin = old
                    }
                    placed.containers[container].start = begin
                    (cursor, open, isFresh) = (begin, container, true)
                }
                record = isFresh ? (slot.isHead ? cursor : Arrangement.up(cursor + sector)) : Arrangement.up(cursor)
                start = Arrangement.up(record + sector)
                if mayStay, let oldRecord = slot.record, let old = slot.start, oldRecord >= cursor, oldRecord < old,
                    !isFresh || slot.isHead || oldRecord > cursor, old % sector == 0, oldRecord % sector == 0,
                    isAnchored || old <= start
                {
                    (record, start) = (oldRecord, old)
                }
                isFresh = false
            } else {
                start = Arrangement.up(cursor)
                if mayStay, let old = slot.start, old >= cursor, old % sector == 0, isAnchored || old <= start {
                    start = old
                }
            }
            placed.starts.append(start)
            placed.records.append(record)
            cursor = start &+ lengths[index]
        }
        if let container = open {
            cursor = close(container, at: cursor, isAnchored: isAnchored && stay >= slots.count, &placed)
        }
        placed.end = cursor
        return cursor <= Arrangement.limit ? placed : nil
    }

    /// A container that stayed keeps the free room at its end.
    private func close(_ index: Int, at cursor: UInt64, isAnchored: Bool, _ placed: inout Placement) -> UInt64 {
        var end = cursor
        if isAnchored, let old = containers[index].end, old > cursor, old <= self.end,
            containers[index].start == placed.containers[index].start
        {
            end = old
        }
        placed.containers[index].end = end
        return end
    }

    /// The layout with every slot at its length; `nil` when that does not fit. Says whether gaps were kept.
    func kept() -> (placement: Placement, isAnchored: Bool)? {
        let lengths = slots.map(\.length)
        for isAnchored in [true, false] {
            if let placed = place(lengths, isAnchored: isAnchored, stay: slots.count), placed.end <= end {
                return (placed, isAnchored)
            }
        }
        return nil
    }

    /// The layout for `goal`; `nil` when not even the least fits, or what fits would need shrinking and `canShrink` is
    /// not set.
    func solve(_ goal: Goal, canShrink: Bool) -> Placement? {
        guard let (kept, isAnchored) = kept() else { return canShrink ? shrunk() : nil }
        switch goal {
        case .keep: return kept
        case .fill(let index): return isAnchored ? index.flatMap { filled($0, kept) } ?? kept : kept
        case .proportional(let sourceEnd): return grown(sourceEnd, kept) ?? kept
        }
    }

    /// The end of the layout with every slot as small as it can be; `nil` when that passes ``limit``.
    func leastEnd() -> UInt64? {
        let stay = (slots.firstIndex { $0.minimum < $0.length } ?? slots.count) + 1
        let least = place(
            slots.map { $0.minimum < $0.length ? Arrangement.up($0.minimum) : $0.length }, isAnchored: false,
            stay: stay)?.end
        let kept = place(slots.map(\.length), isAnchored: true, stay: slots.count)?.end
        switch (least, kept) {
        case (let least?, let kept?): return min(least, kept)
        default: return least ?? kept
        }
    }

    private func shrunk() -> Placement? {
        guard let first = slots.firstIndex(where: { $0.minimum < $0.length }) else { return nil }
        var lengths = slots.map { $0.minimum < $0.length ? Arrangement.up($0.minimum) : $0.length }
        guard let least = place(lengths, isAnchored: false, stay: first + 1), least.end <= end else { return nil }
        var shares: [Share] = []
        var total = Arrangement.down(end - least.end)
        for index in slots.indices where slots[index].minimum < slots[index].length {
            shares.append(
                Share(
                    slot: index, weight: slots[index].length, least: lengths[index],
                    most: max(lengths[index], Arrangement.up(slots[index].length))))
            total += lengths[index]
        }
        Share.distribute(total, &shares)
        for share in shares {
            lengths[share.slot] = min(slots[share.slot].length, max(share.least, Arrangement.down(share.size)))
        }
        return place(lengths, isAnchored: false, stay: first + 1)
    }

    private func grown(_ sourceEnd: UInt64, _ kept: Placement) -> Placement? {
        guard end > sourceEnd else { return nil }
        var lengths = slots.map(\.length)
        guard let first = slots.firstIndex(where: { $0.maximum > $0.length }) else { return nil }
        for index in slots.indices where slots[index].maximum > slots[index].length {
            lengths[index] = Arrangement.up(lengths[index])
        }
        guard let base = place(lengths, isAnchored: false, stay: first + 1), base.end < end else { return nil }
        let extra = min(end - sourceEnd, end - base.end)
        // Free room counts as a part that is scaled as well.
        let free = sourceEnd > kept.end ? sourceEnd - kept.end : 0
        var shares = [Share(slot: -1, weight: free, least: 0, most: Arrangement.limit)]
        var total = extra + free
        for index in slots.indices where slots[index].maximum > slots[index].length {
            let length = slots[index].length
            shares.append(Share(slot: index, weight: length, least: length, most: max(length, slots[index].maximum)))
            total += length
        }
        guard total < Arrangement.limit else { return nil }
        Share.distribute(total, &shares)
        var result = slots.map(\.length)
        for share in shares where share.slot >= 0 {
            result[share.slot] = max(slots[share.slot].length, Arrangement.down(share.size))
        }
        if let placed = place(result, isAnchored: true, stay: slots.count), placed.end <= end { return placed }
        guard let placed = place(result, isAnchored: false, stay: first + 1), placed.end <= end else { return nil }
        return placed
    }

    private func filled(_ index: Int, _ kept: Placement) -> Placement? {
        var lengths = slots.map(\.length)
        let start = kept.starts[index]
        let aligned = Arrangement.up(start + lengths[index]) - start
        guard aligned <= slots[index].maximum else { return nil }
        lengths[index] = aligned
        guard let base = place(lengths, isAnchored: true, stay: index + 1), base.end <= end else { return nil }
        let most = Arrangement.down(start + min(slots[index].maximum, Arrangement.limit)) - start
        lengths[index] = min(max(most, aligned), aligned + Arrangement.down(end - base.end))
        guard lengths[index] > slots[index].length else { return nil }
        guard let placed = place(lengths, isAnchored: true, stay: index + 1), placed.end <= end else { return nil }
        return placed
    }
}

/// One part of a whole that is shared out by weight between a least and a most.
struct Share {
    var slot: Int
    var weight: UInt64
    var least: UInt64
    var most: UInt64
    var size: UInt64 = 0

    init(slot: Int, weight: UInt64, least: UInt64, most: UInt64) {
        (self.slot, self.weight, self.least, self.most) = (slot, weight, least, most)
    }

    /// Shares `total` out: every share is its weight times one factor, or its least or most where that lies outside. What
    /// is below all leasts together, and what nobody can use, is left.
    static func distribute(_ total: UInt64, _ shares: inout [Share]) {
        var rest = total
        var open = Array(shares.indices)
        while !open.isEmpty {
            var weight: UInt64 = 0
            for index in open { weight = weight &+ shares[index].weight }
            guard weight > 0 else {
                for index in open { shares[index].size = shares[index].least }
                return
            }
            // Too much asked for by leasts is weighed against too little used by mosts: the heavier side is fixed first.
            var below: UInt64 = 0
            var above: UInt64 = 0
            for index in open {
                let share = shares[index]
                let (high, low) = rest.multipliedFullWidth(by: share.weight)
                let size = high < weight ? weight.dividingFullWidth((high, low)).quotient : UInt64.max
                shares[index].size = size
                if size < share.least { below = below &+ (share.least &- size) }
                if size > share.most { above = above &+ (size &- share.most) }
            }
            if below == 0 && above == 0 { return }
            var still: [Int] = []
            for index in open {
                let share = shares[index]
                if below >= above, share.size < share.least {
                    shares[index].size = share.least
                    rest = rest >= share.least ? rest - share.least : 0
                } else if below < above, share.size > share.most {
                    shares[index].size = share.most
                    rest = rest >= share.most ? rest - share.most : 0
                } else {
                    still.append(index)
                }
            }
            open = still
        }
    }
}
