// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization

/// What the footer of a sealed pack lists, in little memory: 32 bytes a unit and 12 a record.
struct PackContents: Sendable {
    /// Offsets of the records / 16, rising.
    private var offsets: [UInt32] = []
    /// Number of each record's first unit in `ids`; one more at the end.
    private var firsts: [UInt32] = [0]
    /// Sizes of the records / 16.
    private var lengths: [UInt32] = []
    private var ids: [UnitID] = []

    init() {}

    /// Notes the next record.
    mutating func append(offset: Int, _ record: RecordHeader) {
        offsets.append(UInt32(truncatingIfNeeded: offset / RecordHeader.alignment))
        lengths.append(UInt32(truncatingIfNeeded: record.totalSize / RecordHeader.alignment))
        ids += record.ids
        firsts.append(UInt32(truncatingIfNeeded: ids.count))
    }

    /// The id of unit `index` of the record at `offset`, and the record's size; `nil` when there is none.
    func unit(offset: Int, index: Int) -> (id: UnitID, length: Int)? {
        guard let record = offsets.position(of: UInt32(truncatingIfNeeded: offset / RecordHeader.alignment)) else {
            return nil
        }
        let number = Int(firsts[record]) + index
        guard index >= 0, number < Int(firsts[record + 1]) else { return nil }
        return (ids[number], Int(lengths[record]) * RecordHeader.alignment)
    }

    /// Bytes of memory.
    var memory: Int { offsets.count * 12 + ids.count * UnitID.size }
}

extension [UInt32] {
    /// Where `value` is in a rising list.
    func position(of value: UInt32) -> Int? {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if self[middle] < value { low = middle + 1 } else { high = middle }
        }
        return low < count && self[low] == value ? low : nil
    }
}

/// The contents of the packs that were asked for last.
///
/// A hit of the index costs a read of a record's head, and for packs that are hit again and again one sequential read of
/// a footer. No file stays open.
final class ContentsShelf: Sendable {
    /// What all contents together may take. The newest stays even when it alone is larger (no footer exceeds 64 MiB).
    static let limit = 32 << 20

    private let store: any ObjectStore
    private let set: SetHeader
    private let limit: Int
    /// So many records of a pack are looked at one by one before its footer is read, each time it is not kept.
    static let mostHeads = 32

    private struct Kept {
        var contents: PackContents
        var turn: UInt64
    }
    private struct State {
        var kept: [UInt32: Kept] = [:]
        var memory = 0
        var turn: UInt64 = 0
        /// How many heads of each pack were read since its footer was.
        var heads: [UInt32: Int] = [:]
    }
    private let state = Mutex(State())
    /// One footer is read at a time; who needs another pack that is kept does not wait for it.
    private let loading = Mutex(())
    private let loads = Atomic<Int>(0)

    init(store: any ObjectStore, set: SetHeader, limit: Int = ContentsShelf.limit) {
        self.store = store
        self.set = set
        self.limit = limit
    }

    /// How many footers were read.
    var loaded: Int { loads.load(ordering: .relaxed) }

    /// The contents of pack `number`, which is `reference`. Throws `set.damaged` when the pack is gone or not the one it
    /// was, `store.failed`.
    func contents(_ number: UInt32, _ reference: PackReference) throws(Fault) -> PackContents {
        if let kept = kept(number) { return kept }
        return try loading.withLock { (_: inout Void) throws(Fault) -> PackContents in
            if let kept = kept(number) { return kept }
            let contents = try load(reference)
            keep(number, contents)
            return contents
        }
    }

    /// The id of unit `index` of the record at `offset` of pack `number`, and the record's size; `nil` when there is none, or
    /// its head is damaged. Throws as ``contents(_:_:)``.
    func unit(
        _ number: UInt32, _ reference: PackReference, offset: Int, index: Int
    ) throws(Fault) -> (id: UnitID, length: Int)? {
        if let kept = kept(number) { return kept.unit(offset: offset, index: index) }
        let isHead = state.withLock { state in
            let count = state.heads[number, default: 0]
            state.heads[number] = count < ContentsShelf.mostHeads ? count + 1 : 0
            return count < ContentsShelf.mostHeads
        }
        // Where not even the head can be read, the footer tells whether the pack can be.
        if isHead, let bytes = head(reference, offset) {
            guard let record = try? unsafe RecordHeader(bytes.span.bytes, at: 0, unitSize: set.unitSize), index >= 0,
                index < record.ids.count
            else { return nil }
            return (record.ids[index], record.totalSize)
        }
        return try contents(number, reference).unit(offset: offset, index: index)
    }

    private func head(_ reference: PackReference, _ offset: Int) -> [UInt8]? {
        guard let handle = try? store.open(ObjectName.pack(reference.id)), handle.size.bytes == reference.size,
            offset >= 0, offset < Int(clamping: reference.size)
        else { return nil }
        let most = RecordHeader.fixedSize + RecordHeader.maximumIDs * UnitID.size
        return try? handle.bytes(
            at: ByteCount(UInt64(offset)), count: min(most, Int(clamping: reference.size) - offset))
    }

    private func kept(_ number: UInt32) -> PackContents? {
        state.withLock { state in
            state.turn += 1
            state.kept[number]?.turn = state.turn
            return state.kept[number]?.contents
        }
    }

    private func keep(_ number: UInt32, _ contents: PackContents) {
        state.withLock { state in
            state.kept[number] = Kept(contents: contents, turn: state.turn)
            state.memory += contents.memory
            while state.memory > limit, state.kept.count > 1,
                let oldest = state.kept.filter({ $0.key != number }).min(by: { $0.value.turn < $1.value.turn })
            {
                state.kept[oldest.key] = nil
                state.memory -= oldest.value.contents.memory
            }
        }
    }

    private func load(_ reference: PackReference) throws(Fault) -> PackContents {
        let name = ObjectName.pack(reference.id)
        let place = "\(store.name)/\(name)"
        guard let handle = try store.open(name) else {
            throw Fault(.setDamaged, what: "The file is missing.", place: place, remedy: "Run the backup again.")
        }
        loads.add(1, ordering: .relaxed)
        var contents = PackContents()
        let structure = try PackStructure.scan(
            handle, name: place, id: reference.id, set: set, hasher: Hasher256()
        ) { contents.append(offset: $0, $1) }
        guard structure.footer.digest == reference.footer else {
            throw Fault(
                .setDamaged, what: "The pack is not the one it was when the backup began.", place: place,
                remedy: "See who else works on the set, then run the backup again.")
        }
        return contents
    }
}
