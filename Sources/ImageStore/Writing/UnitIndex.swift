// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Glibc
import Synchronization

/// Where a unit lies: the pack by its number in the writer's table, the record, and the unit in it. 12 bytes.
struct UnitPlace: Hashable, Sendable, BitwiseCopyable {
    /// Index into the writer's table of packs.
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

    /// What the index found, with the size the pack's footer gives.
    init(_ candidate: UnitCandidate, length: Int) {
        self.pack = candidate.pack
        self.packed = candidate.packed
        self.length = UInt32(truncatingIfNeeded: length / RecordHeader.alignment)
    }

    var offset: Int { Int(packed >> 4) * RecordHeader.alignment }
    var index: Int { Int(packed & 15) }
    var size: Int { Int(length) * RecordHeader.alignment }
}

/// Where a unit may lie: the index remembers 8 bytes of its id, so the pack has to confirm it.
struct UnitCandidate: Hashable, Sendable, BitwiseCopyable {
    var pack: UInt32
    /// As in ``UnitPlace/packed``.
    var packed: UInt32

    var offset: Int { Int(packed >> 4) * RecordHeader.alignment }
    var index: Int { Int(packed & 15) }
}

/// The first 8 bytes of the id of everything stored in the set, so that nothing is stored twice: 16 bytes for each unit.
///
/// What it finds is a candidate, to be compared with the whole id before use. Memory is bounded: past the cap new ids are
/// no longer remembered, and deduplication degrades, correctness never. Parted into shards with a lock each, so that
/// threads rarely wait for each other, and so that growing copies a small part at a time.
final class UnitIndex: Sendable {
    /// A prefix of which more units than this are known remembers no further ones. By chance that happens to none of
    /// 2^40 units; a set made to be slow gains nothing.
    static let maximumCandidates = 8
    private static let shardBits = 6

    private final class Shard: Sendable {
        let table: Mutex<PrefixTable>
        init(_ maximum: Int) { table = Mutex(PrefixTable(maximum: maximum)) }
    }
    private let shards: [Shard]
    private let prefixMask: UInt64
    /// Chosen anew by every run, so that nobody can prepare ids that fill one corner of the table.
    private let seed: UInt64
    private let full = Atomic<Bool>(false)

    /// An index that takes at most about `memory` bytes.
    ///
    /// - Parameter prefixBits: how many bits of an id are kept. Tests keep few, so that prefixes collide.
    init(memory: Int, prefixBits: Int = 64) {
        let count = 1 << UnitIndex.shardBits
        let slots = max(memory / MemoryLayout<PrefixTable.Slot>.stride / count, 80)
        shards = (0..<count).map { _ in Shard(slots) }
        prefixMask = prefixBits >= 64 ? .max : (1 << UInt64(max(1, prefixBits))) - 1
        var generator = SystemRandomNumberGenerator()
        seed = generator.next()
    }

    /// Whether an id could not be remembered for want of memory.
    var isFull: Bool { full.load(ordering: .relaxed) }

    /// Number of units remembered.
    var count: Int { shards.reduce(0) { $0 + $1.table.withLock { $0.count } } }

    /// Bytes of memory the tables take.
    var memory: Int { shards.reduce(0) { $0 + $1.table.withLock { $0.memory } } }

    /// Places where `id` may lie; nearly always none or one.
    func candidates(_ id: UnitID) -> [UnitCandidate] {
        let prefix = id.a & prefixMask
        let mixed = mix(prefix)
        return shards[Int(mixed >> UInt64(64 - UnitIndex.shardBits))].table.withLock {
            $0.find(prefix, mixed << UInt64(UnitIndex.shardBits))
        }
    }

    /// Remembers where a unit lies.
    func insert(_ id: UnitID, pack: UInt32, offset: Int, index: Int) {
        let prefix = id.a & prefixMask
        let mixed = mix(prefix)
        let place = UnitPlace(pack: pack, offset: offset, length: 0, index: index)
        let kept = shards[Int(mixed >> UInt64(64 - UnitIndex.shardBits))].table.withLock { table in
            table.insert(prefix, mixed << UInt64(UnitIndex.shardBits), place) {
                self.mix($0) << UInt64(UnitIndex.shardBits)
            }
        }
        if !kept { full.store(true, ordering: .relaxed) }
    }

    /// Spreads prefixes evenly (the finalizer of SplitMix64).
    private func mix(_ prefix: UInt64) -> UInt64 {
        var value = prefix ^ seed
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}

/// An open-addressing table of prefixes and places, in memory asked from the kernel directly, so that what growing gives
/// back is really given back. Not safe for two threads at once: each table lies in the lock of its shard, and its memory has
/// no other owner, so that it may go from thread to thread.
@safe private struct PrefixTable: ~Copyable, @unchecked Sendable {
    struct Slot: BitwiseCopyable {
        var prefix: UInt64
        /// Pack number + 1 in the upper half, ``UnitPlace/packed`` in the lower; 0 = free.
        var place: UInt64
    }

    private var slots: UnsafeMutablePointer<Slot>?
    private var capacity = 0
    private var maximum: Int
    private(set) var count = 0

    init(maximum: Int) {
        self.maximum = maximum
        unsafe slots = nil
    }

    deinit { unsafe PrefixTable.release(slots, capacity) }

    var memory: Int { capacity * MemoryLayout<Slot>.stride }

    /// The slot where the search for `mixed` begins.
    private static func home(_ mixed: UInt64, _ capacity: Int) -> Int {
        Int(mixed.multipliedFullWidth(by: UInt64(capacity)).high)
    }

    func find(_ prefix: UInt64, _ mixed: UInt64) -> [UnitCandidate] {
        guard let slots = unsafe slots else { return [] }
        var result: [UnitCandidate] = []
        var number = PrefixTable.home(mixed, capacity)
        while true {
            let slot = unsafe slots[number]
            if slot.place == 0 { return result }
            if slot.prefix == prefix {
                result.append(
                    UnitCandidate(
                        pack: UInt32(truncatingIfNeeded: (slot.place >> 32) - 1),
                        packed: UInt32(truncatingIfNeeded: slot.place)))
            }
            number = number + 1 == capacity ? 0 : number + 1
        }
    }

    /// Whether the table still takes what is given to it.
    mutating func insert(
        _ prefix: UInt64, _ mixed: UInt64, _ place: UnitPlace, _ mix: (UInt64) -> UInt64
    ) -> Bool {
        let slot = Slot(prefix: prefix, place: (UInt64(place.pack) + 1) << 32 | UInt64(place.packed))
        var known = 0
        if let slots = unsafe slots {
            var number = PrefixTable.home(mixed, capacity)
            while unsafe slots[number].place != 0 {
                if unsafe slots[number].prefix == prefix {
                    if unsafe slots[number].place == slot.place { return true }
                    known += 1
                    if known == UnitIndex.maximumCandidates { return true }
                }
                number = number + 1 == capacity ? 0 : number + 1
            }
        }
        // Four fifths in use: a search still ends after a few slots, and an empty slot is always there to end it.
        if (count + 1) * 5 > capacity * 4, !grow(mix) { return false }
        guard let slots = unsafe slots else { return false }
        unsafe PrefixTable.put(slot, mixed, slots, capacity)
        count += 1
        return true
    }

    private static func put(_ slot: Slot, _ mixed: UInt64, _ slots: UnsafeMutablePointer<Slot>, _ capacity: Int) {
        var number = home(mixed, capacity)
        while unsafe slots[number].place != 0 { number = number + 1 == capacity ? 0 : number + 1 }
        unsafe slots[number] = slot
    }

    /// Half as large again, up to the maximum.
    private mutating func grow(_ mix: (UInt64) -> UInt64) -> Bool {
        let wanted = min(maximum, max(256, capacity + capacity / 2))
        guard wanted > capacity else { return false }
        let size = wanted * MemoryLayout<Slot>.stride
        guard let fresh = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            unsafe fresh != MAP_FAILED
        else {
            // No memory: what is known stays known.
            maximum = capacity
            return false
        }
        let target = unsafe fresh.bindMemory(to: Slot.self, capacity: wanted)
        if let old = unsafe slots {
            for number in 0..<capacity where unsafe old[number].place != 0 {
                unsafe PrefixTable.put(old[number], mix(old[number].prefix), target, wanted)
            }
        }
        unsafe PrefixTable.release(slots, capacity)
        unsafe slots = target
        capacity = wanted
        return true
    }

    private static func release(_ slots: UnsafeMutablePointer<Slot>?, _ capacity: Int) {
        if let slots = unsafe slots { unsafe munmap(slots, capacity * MemoryLayout<Slot>.stride) }
    }
}
