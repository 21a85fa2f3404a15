// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Synchronization

/// Where a unit lies: the pack by its number in the index, the record, and the unit in it. 12 bytes.
struct UnitPlace: Hashable, Sendable, BitwiseCopyable {
    /// Index into ``UnitIndex/packs``.
    var pack: UInt32
    /// Offset of the record / 16 in the upper 28 bits, number of the unit in the frame in the lower 4.
    var packed: UInt32
    /// Size of the record / 16.
    var length: UInt32

    init(pack: UInt32, offset: Int, length: Int, index: Int) {
        self.pack = pack
        self.packed =
            UInt32(truncatingIfNeeded: offset / RecordHeader.alignment) << 4 | UInt32(truncatingIfNeeded: index & 15)
        self.length = UInt32(truncatingIfNeeded: length / RecordHeader.alignment)
    }

    var offset: Int { Int(packed >> 4) * RecordHeader.alignment }
    var index: Int { Int(packed & 15) }
    var size: Int { Int(length) * RecordHeader.alignment }
}

/// Ids of everything stored in the set, so that nothing is stored twice.
///
/// Whole ids are kept, so a hit is certain. Memory is bounded: past the cap new ids are no longer remembered, and
/// deduplication degrades, correctness never.
final class UnitIndex: Sendable {
    private struct Entry: BitwiseCopyable {
        var id: UnitID
        var place: UnitPlace
    }
    private struct Table {
        /// Entries in pieces of 65,536, so that growing never copies them.
        var pieces: [[Entry]] = []
        var count = 0
        /// Entry number + 1, 0 = free; a power of two of them, at most three quarters in use.
        var slots = [UInt32](repeating: 0, count: 1 << 12)

        func entry(_ number: Int) -> Entry { pieces[number >> 16][number & 0xFFFF] }

        func find(_ id: UnitID) -> UnitPlace? {
            let mask = slots.count - 1
            var slot = Int(truncatingIfNeeded: id.a) & mask
            while slots[slot] != 0 {
                let entry = entry(Int(slots[slot]) - 1)
                if entry.id == id { return entry.place }
                slot = (slot + 1) & mask
            }
            return nil
        }

        mutating func insert(_ id: UnitID, _ place: UnitPlace) {
            if (count + 1) * 4 > slots.count * 3 { grow() }
            if count & 0xFFFF == 0 {
                pieces.append([])
                pieces[count >> 16].reserveCapacity(1 << 16)
            }
            pieces[count >> 16].append(Entry(id: id, place: place))
            count += 1
            put(id, UInt32(truncatingIfNeeded: count))
        }

        private mutating func put(_ id: UnitID, _ number: UInt32) {
            let mask = slots.count - 1
            var slot = Int(truncatingIfNeeded: id.a) & mask
            while slots[slot] != 0 { slot = (slot + 1) & mask }
            slots[slot] = number
        }

        private mutating func grow() {
            slots = [UInt32](repeating: 0, count: slots.count * 2)
            for number in 0..<count { put(entry(number).id, UInt32(truncatingIfNeeded: number + 1)) }
        }
    }
    private let table = Mutex(Table())
    private let maximumEntries: Int

    /// An index that takes at most about `memory` bytes.
    init(memory: Int) { maximumEntries = min(max(memory / 56, 1 << 12), Int(UInt32.max) - 1) }

    /// Places of `ids` that are known.
    func find(_ ids: [UnitID], _ body: (Int, UnitPlace) -> Void) {
        table.withLock { table in
            for (index, id) in ids.enumerated() {
                if let place = table.find(id) { body(index, place) }
            }
        }
    }

    /// Where `id` lies.
    func find(_ id: UnitID) -> UnitPlace? { table.withLock { $0.find(id) } }

    /// Remembers places; ids that are known already keep theirs.
    func insert(_ entries: some Sequence<(UnitID, UnitPlace)>) {
        table.withLock { table in
            for (id, place) in entries where table.count < maximumEntries && table.find(id) == nil {
                table.insert(id, place)
            }
        }
    }

    /// Number of ids remembered.
    var count: Int { table.withLock { $0.count } }
}
