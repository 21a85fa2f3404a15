// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Threads

/// What all footers of a set list, to find a record that is in no place anything says: the last resort when a pack and
/// what says where its records went are both lost. 16 bytes a unit, sorted; bounded.
struct RecordSearch: Sendable {
    private struct Entry: BitwiseCopyable {
        var key: UInt64
        var pack: UInt32
        /// Offset of the record / 16 in the upper 28 bits, number of the id in it in the lower 4.
        var packed: UInt32
    }
    private var packs: [ObjectID] = []
    private var entries: [Entry] = []

    /// Most units remembered: 128 MiB. Later ones are not found.
    private static let most = 1 << 23

    /// Reads the footers of all packs; those that are damaged or cannot be opened are left out.
    init(_ store: any ObjectStore, _ set: SetHeader) throws(Fault) {
        let hasher = try Hasher256()
        for object in store.listReadable(ObjectName.packs).objects.sorted(by: { $0.name < $1.name }) {
            try Interruption.check()
            guard let id = ObjectName.id(object.name, suffix: ".pack"),
                let handle = (try? store.open(object.name)) ?? nil,
                let pack = try? PackStructure.read(
                    handle, name: "\(store.name)/\(object.name)", id: id, set: set, hasher: hasher)
            else { continue }
            let number = UInt32(truncatingIfNeeded: packs.count)
            packs.append(id)
            for entry in pack.footer.entries {
                for (index, unit) in entry.record.ids.enumerated() where entries.count < RecordSearch.most {
                    entries.append(
                        Entry(
                            key: unit.a, pack: number,
                            packed: UInt32(truncatingIfNeeded: entry.offset / RecordHeader.alignment) << 4
                                | UInt32(truncatingIfNeeded: index & 15)))
                }
            }
        }
        entries.sort { ($0.key, $0.pack, $0.packed) < ($1.key, $1.pack, $1.packed) }
    }

    /// Records that may hold `id` as their id number `index`: only eight bytes of the ids were compared.
    func candidates(_ id: UnitID, index: Int) -> [RecordStart] {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].key < id.a { low = middle + 1 } else { high = middle }
        }
        var result: [RecordStart] = []
        while low < entries.count, entries[low].key == id.a, result.count < 16 {
            let entry = entries[low]
            if Int(entry.packed & 15) == index {
                result.append(
                    RecordStart(
                        pack: packs[Int(entry.pack)], offset: Int(entry.packed >> 4) * RecordHeader.alignment))
            }
            low += 1
        }
        return result
    }
}
