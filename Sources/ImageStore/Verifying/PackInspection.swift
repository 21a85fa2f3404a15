// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Threads

/// The structure of packs: that they are there, in full length, and what records they hold.
extension Verifier {
    /// What is known of one pack file, in little memory.
    final class PackFile: Sendable {
        let name: String
        let id: ObjectID
        let isData: Bool
        /// Offsets of the records, rising.
        let offsets: [UInt32]
        /// Number of the first unit of each record in `marks`; one more at the end.
        let firsts: [UInt32]
        /// A word of each unit's id.
        let marks: [UInt32]
        /// Where the records end.
        let end: Int
        /// Where the footer begins: after the records and the parity.
        let footer: Int
        /// Bytes that are no records, where the footer did not help.
        let gaps: [Range<Int>]
        /// Hashes of the pack's segments; empty where the footer did not help.
        let segments: [UnitID]

        init(
            name: String, id: ObjectID, isData: Bool, offsets: [UInt32], firsts: [UInt32], marks: [UInt32],
            end: Int, footer: Int, gaps: [Range<Int>], segments: [UnitID]
        ) {
            self.segments = segments
            self.footer = footer
            self.name = name
            self.id = id
            self.isData = isData
            self.offsets = offsets
            self.firsts = firsts
            self.marks = marks
            self.end = end
            self.gaps = gaps
        }

        var isCopy: Bool { name.hasPrefix(ObjectName.copies + "/") }

        /// Index of the record at `offset`.
        func record(_ offset: Int) -> Int? {
            var low = 0
            var high = offsets.count
            while low < high {
                let middle = (low + high) / 2
                if Int(offsets[middle]) < offset { low = middle + 1 } else { high = middle }
            }
            return low < offsets.count && Int(offsets[low]) == offset ? low : nil
        }

        func length(_ record: Int) -> Int {
            (record + 1 < offsets.count ? Int(offsets[record + 1]) : end) - Int(offsets[record])
        }
    }

    func inspectPacks(_ points: [RecoveryPoint], all: Bool) throws(Fault) {
        var needed: [ObjectID: PackReference] = [:]
        for point in points { for pack in point.file.packs { needed[pack.id] = pack } }
        var names: [String: ObjectID] = [:]
        var sizes: [String: ByteCount] = [:]
        // Where records of a pack went that was removed. Whether all went is found out record by record.
        var targets: Set<ObjectID> = []
        for id in needed.keys {
            var isGone = false
            // What cannot be opened is there, and is looked at in its turn.
            do throws(Fault) { isGone = try reader.store.open(ObjectName.pack(id)) == nil } catch { isGone = false }
            let moved = isGone ? moves.targets(of: id) : []
            if moved.isEmpty { names[ObjectName.pack(id)] = id } else { targets.formUnion(moved) }
        }
        self.needed = targets.union(needed.keys)
        for folder in [ObjectName.packs, ObjectName.copy(of: ObjectName.packs)] {
            let listing = reader.store.listReadable(folder)
            damage(folder, listing.faults)
            for object in listing.objects {
                guard let id = ObjectName.id(object.name, suffix: ".pack") else { continue }
                if all || needed[id] != nil || targets.contains(id) {
                    names[object.name] = id
                    sizes[object.name] = object.size
                }
            }
        }
        let hasher = try Hasher256()
        let total = sizes.values.reduce(ByteCount.zero) { $0.adding($1) ?? $0 }
        var done = ByteCount.zero
        for (name, id) in names.sorted(by: { $0.key < $1.key }) {
            try Interruption.check()
            events?(.progress(Progress(phase: "checking structure", done: done, total: total)))
            done = done.adding(sizes[name] ?? .zero) ?? done
            report.packs += 1
            let isCopy = name.hasPrefix(ObjectName.copies + "/")
            let opened: (any ObjectHandle)?
            do throws(Fault) {
                opened = try reader.store.open(name)
            } catch {
                guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
                damage(name, error)
                continue
            }
            guard let handle = opened else {
                report.damages[damage(name, -1, "The file is missing.")].isMissing = true
                // A pack of lists is there twice.
                if needed[id] != nil, !isCopy, sizes[ObjectName.copy(of: name)] == nil {
                    report.missingPacks.append(name)
                }
                continue
            }
            if !isCopy { report.packBytes = report.packBytes.adding(handle.size) ?? report.packBytes }
            if let reference = needed[id], handle.size.bytes != reference.size {
                damage(name, -1, "The file has \(handle.size.bytes) bytes; \(reference.size) are expected.")
            }
            let file = try inspect(handle, name, id, needed[id], hasher)
            files[name] = file
            if !file.isData, !isCopy { report.listPacks += 1 }
            if !file.isData, !isCopy, needed[id] != nil {
                // The second copy of a pack of lists must be there; when it is, it is looked at in its turn. A pack no
                // point refers to is what an interrupted backup left.
                let copy = ObjectName.copy(of: name)
                if names[copy] == nil { damage(copy, -1, "The second copy of a pack of lists is missing.") }
            }
            if isCopy { try inspectOthers(name, id, needed[id], hasher) }
        }
    }

    /// Second copies lie in every place of a set. All but the one in the first place that has it, which is read like any
    /// other pack, are compared with their own hashes.
    private func inspectOthers(
        _ name: String, _ id: ObjectID, _ reference: PackReference?, _ hasher: Hasher256
    ) throws(Fault) {
        var isFirst = true
        for place in reader.store.places {
            do throws(Fault) {
                guard let handle = try place.open(name) else { continue }
                if isFirst {
                    isFirst = false
                    continue
                }
                report.packs += 1
                if depth == .quick {
                    _ = try PackStructure.read(
                        handle, name: "\(place.name)/\(name)", id: id, set: reader.set, hasher: hasher)
                } else {
                    let pack = try PackRepair(place, reader.set, name: name, id: id, reference: reference)
                    if let problem = try pack.problem(handle) { damage(name, -1, problem, in: place.name) }
                }
            } catch {
                guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
                damage(name, error.extent.flatMap(\.start.int) ?? -1, error.what, in: place.name)
                isFirst = false
            }
        }
    }

    private func inspect(
        _ handle: any ObjectHandle, _ name: String, _ id: ObjectID, _ reference: PackReference?, _ hasher: Hasher256
    ) throws(Fault) -> PackFile {
        var offsets: [UInt32] = []
        var firsts: [UInt32] = [0]
        var marks: [UInt32] = []
        func add(_ offset: Int, _ record: RecordHeader) {
            offsets.append(UInt32(truncatingIfNeeded: offset))
            for id in record.ids { marks.append(UInt32(truncatingIfNeeded: id.b)) }
            firsts.append(UInt32(truncatingIfNeeded: marks.count))
        }
        do throws(Fault) {
            let structure = try PackStructure.read(
                handle, name: "\(reader.store.name)/\(name)", id: id, set: reader.set, hasher: hasher)
            if let reference, structure.footer.digest != reference.footer {
                damage(name, structure.footer.offset, "The pack is not the one the recovery point was made with.")
            }
            // Kept for all packs until the end: no more room than they need. 4 bytes a unit and 8 a record.
            let entries = structure.footer.entries
            offsets.reserveCapacity(entries.count)
            firsts.reserveCapacity(entries.count + 1)
            marks.reserveCapacity(entries.reduce(0) { $0 + $1.record.ids.count })
            for entry in entries { add(entry.offset, entry.record) }
            return PackFile(
                name: name, id: id, isData: structure.header.kind == .data, offsets: offsets, firsts: firsts,
                marks: marks, end: structure.footer.recordsEnd, footer: structure.footer.offset, gaps: [],
                segments: structure.footer.segments)
        } catch {
            guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
            damage(name, error)
        }
        // Without its footer the pack is read from front to back; what is sound is found by itself. The footer's own
        // bytes are no records and no loss.
        var gaps: [Range<Int>] = []
        var end = PackHeader.size
        var isData = !name.hasPrefix(ObjectName.copies + "/")
        // What is longer than any pack has been is looked at as far as it once went, not to an end somebody invented.
        let limit = handle.size.bytes > 0xFFFF_FFFF ? reference?.size ?? UInt64(PackHeader.size) : 0xFFFF_FFFF
        var size = Int(clamping: min(handle.size.bytes, limit))
        do throws(Fault) {
            // Parity tells where the records end, too.
            if reader.set.parity > 0 {
                let pack = DamagedPack(size: size) { (offset, span) throws(Fault) in
                    try handle.read(at: ByteCount(UInt64(offset)), into: &span)
                }
                if let header = try ParityCheck.locate(pack, id: id) { size = min(size, header.layout.bodyLength) }
            }
            var scanner = PackScanner(handle, unitSize: reader.set.unitSize, from: PackHeader.size, to: size)
            while let item = try scanner.next() {
                try Interruption.check()
                switch item {
                case .record(let offset, let record):
                    add(offset, record)
                    end = offset + record.totalSize
                    if record.kind == .page { isData = false }
                case .gap(let range): gaps.append(range)
                }
            }
        } catch {
            guard error.code == .storeFailed || error.code == .setDamaged else { throw error }
            damage(name, error)
        }
        return PackFile(
            name: name, id: id, isData: isData, offsets: offsets, firsts: firsts, marks: marks, end: end,
            footer: end, gaps: gaps, segments: [])
    }
}
