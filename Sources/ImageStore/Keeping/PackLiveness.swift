// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry

/// What prune knows of a pack: four bytes and a bit for each record.
final class PackLiveness {
    let id: ObjectID
    let kind: PackHeader.Kind
    /// Bytes it takes with its second copy.
    let size: UInt64
    /// Offsets of its records / 16, rising.
    private let offsets: [UInt32]
    /// Where its records end.
    private let end: Int
    private var live: [UInt64]
    /// Its structure is damaged: it is needed as a whole or not at all.
    let isOpaque: Bool
    private var isNeeded = false
    /// It holds a needed record that is damaged, so it stays as it is.
    var isSpoiled = false
    /// Its needed records lie in other packs now.
    var isMoved = false
    var isRemoved = false

    init(_ id: ObjectID, kind: PackHeader.Kind, size: UInt64, offsets: [UInt32], end: Int) {
        self.id = id
        self.kind = kind
        self.size = size
        self.offsets = offsets
        self.end = end
        live = [UInt64](repeating: 0, count: (offsets.count + 63) / 64)
        isOpaque = false
    }

    /// A pack whose structure is damaged.
    init(opaque id: ObjectID, size: UInt64) {
        self.id = id
        self.size = size
        kind = .data
        offsets = []
        end = PackHeader.size
        live = []
        isOpaque = true
    }

    /// Reads the list of the pack's records from its first or second copy.
    static func read(
        _ store: any ObjectStore, _ id: ObjectID, _ set: SetHeader, size: UInt64, hasher: Hasher256
    ) throws(Fault) -> PackLiveness {
        for name in [ObjectName.pack(id), ObjectName.copy(of: ObjectName.pack(id))] {
            do throws(Fault) {
                guard let handle = try store.open(name) else { continue }
                let pack = try PackStructure.read(
                    handle, name: "\(store.name)/\(name)", id: id, set: set, hasher: hasher)
                return PackLiveness(
                    id, kind: pack.header.kind, size: size,
                    offsets: pack.footer.entries.map { UInt32(truncatingIfNeeded: $0.offset / RecordHeader.alignment) },
                    end: pack.footer.recordsEnd)
            } catch {
                guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
            }
        }
        return PackLiveness(opaque: id, size: size)
    }

    private func index(_ offset: Int) -> Int? {
        guard offset >= 0, offset % RecordHeader.alignment == 0,
            let wanted = UInt32(exactly: offset / RecordHeader.alignment)
        else { return nil }
        var low = 0
        var high = offsets.count
        while low < high {
            let middle = (low + high) / 2
            if offsets[middle] < wanted { low = middle + 1 } else { high = middle }
        }
        return low < offsets.count && offsets[low] == wanted ? low : nil
    }

    /// Whether a record of `length` bytes begins at `offset`, as far as that is known.
    func holds(_ offset: Int, length: Int) -> Bool {
        isOpaque || index(offset).map { self.length($0) == length } ?? false
    }

    private func length(_ index: Int) -> Int {
        let next = index + 1 < offsets.count ? Int(offsets[index + 1]) * RecordHeader.alignment : end
        return next - Int(offsets[index]) * RecordHeader.alignment
    }

    /// Notes that the record at `offset` is needed. A place where no record begins makes the whole pack needed.
    func mark(_ offset: Int) {
        guard let index = index(offset) else {
            isNeeded = true
            return
        }
        live[index >> 6] |= 1 << UInt64(index & 63)
    }

    private func isLive(_ index: Int) -> Bool { live[index >> 6] >> UInt64(index & 63) & 1 == 1 }

    /// Whether anything in it is needed.
    var isLive: Bool { isNeeded || live.contains { $0 != 0 } }
    /// Whether the pack must stay as it is while anything in it is needed.
    var mustStay: Bool { isNeeded || isOpaque || isSpoiled }

    /// Records that are needed: offset and length.
    var records: [(offset: Int, length: Int)] {
        offsets.indices.filter { isLive($0) }.map { (Int(offsets[$0]) * RecordHeader.alignment, length($0)) }
    }
    /// Bytes of records that are needed.
    var liveBytes: UInt64 { offsets.indices.reduce(0) { isLive($1) ? $0 + UInt64(length($1)) : $0 } }
    /// Bytes of all its records.
    var recordBytes: UInt64 { UInt64(max(0, end - PackHeader.size)) }
    /// Bytes that are not needed, in both copies.
    var garbage: UInt64 {
        guard isLive else { return size }
        return mustStay && offsets.isEmpty ? 0 : (recordBytes - min(recordBytes, liveBytes)) * (kind == .lists ? 2 : 1)
    }

    /// Forgets which records are needed: they lie elsewhere now.
    func clear() { live = [UInt64](repeating: 0, count: live.count) }
}
