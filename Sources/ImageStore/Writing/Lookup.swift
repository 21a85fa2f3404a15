// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization

/// Finding what the set holds already: candidates from the index, each compared with the whole id before use.
extension SetWriter {
    /// Where the unit `id` lies in the set; `nil` when it has to be stored.
    func place(of id: UnitID) throws(Fault) -> UnitPlace? { try confirmed(id, index, data) }

    /// Where the page `id` lies in the set.
    func pagePlace(of id: UnitID) throws(Fault) -> UnitPlace? { try confirmed(id, pages, lists) }

    private func confirmed(_ id: UnitID, _ index: UnitIndex, _ writer: PackWriter) throws(Fault) -> UnitPlace? {
        for candidate in index.candidates(id) {
            let unit: (id: UnitID, length: Int)?
            if let known = writer.unit(candidate) {
                unit = known
            } else {
                unit = try sealedUnit(candidate)
            }
            if let unit, unit.id == id { return UnitPlace(candidate, length: unit.length) }
        }
        return nil
    }

    /// What the footer of a sealed pack says about a candidate. A footer that can no longer be read costs deduplication,
    /// not the backup.
    private func sealedUnit(_ candidate: UnitCandidate) throws(Fault) -> (id: UnitID, length: Int)? {
        guard let reference = packs.usable(candidate.pack) else { return nil }
        do throws(Fault) {
            return try contents.unit(candidate.pack, reference, offset: candidate.offset, index: candidate.index)
        } catch {
            guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
            if packs.distrust(candidate.pack, isLost: true) { note(SetWriter.notBuiltUpon(error)) }
            return nil
        }
    }

    /// The finding for a point whose second copy could not be written.
    static func noSecondCopy(_ fault: Fault, _ place: String) -> Finding {
        Finding(
            .warning, "set.lost-copy",
            what: "The recovery point is complete, but its second copy could not be written: \(fault.what) "
                + "The next backup into this set writes it.",
            place: place)
    }

    /// The finding for an unfinished file that is left alone, because removing it may destroy a finished object.
    static func sharedPlace(_ leftover: String, _ names: [String], _ place: String) -> Finding {
        Finding(
            .warning, "set.shared-place",
            what:
                "\(FolderStore.shared(leftover, names)) All of them are left alone, and what they hold is stored again. "
                + FolderStore.sharedRemedy, place: place)
    }

    /// The finding for a look-up table that takes no more.
    static func indexFull(_ memory: ByteCount) -> Finding {
        Finding(
            .notice, "set.index-full",
            what:
                "The set holds more units than the look-up table of \(memory) takes. The backup is complete and right; "
                + "some of what the set holds already was stored once more.")
    }

    /// The finding for a pack the backup does without.
    static func notBuiltUpon(_ fault: Fault) -> Finding {
        Finding(
            .warning, "set.damaged-pack",
            what: "A pack of the set is damaged or cannot be read (\(fault.what)) What it holds is stored again.",
            place: fault.place)
    }
}

/// Packs by number, the form in which the index holds them.
final class PackTable: Sendable {
    private struct Entry {
        var id: ObjectID
        /// What is known of it once it is sealed.
        var reference: PackReference?
        /// Whether new units may be taken from it.
        var isTrusted = true
        /// Whether it could no longer be read when something was looked for in it.
        var isLost = false
    }
    private struct State {
        var entries: [Entry] = []
        var numbers: [ObjectID: UInt32] = [:]
    }
    private let state = Mutex(State())

    /// Adds a pack; `reference` is `nil` while it is being written.
    func add(_ id: ObjectID, _ reference: PackReference?) -> UInt32 {
        state.withLock { state in
            state.entries.append(Entry(id: id, reference: reference))
            let number = UInt32(truncatingIfNeeded: state.entries.count - 1)
            state.numbers[id] = number
            return number
        }
    }

    /// Notes that a pack is sealed.
    func set(_ number: UInt32, _ reference: PackReference) {
        state.withLock { $0.entries[Int(number)].reference = reference }
    }

    func id(_ number: UInt32) -> ObjectID { state.withLock { $0.entries[Int(number)].id } }
    func reference(_ number: UInt32) -> PackReference? { state.withLock { $0.entries[Int(number)].reference } }

    /// A sealed pack from which new units may be taken.
    func usable(_ number: UInt32) -> PackReference? {
        state.withLock { state in
            let entry = state.entries[Int(number)]
            return entry.isTrusted ? entry.reference : nil
        }
    }

    /// The number of a sealed pack that was found sound when the set was opened, or was written by this run.
    func number(of id: ObjectID) -> UInt32? {
        state.withLock { state in
            guard let number = state.numbers[id] else { return nil }
            let entry = state.entries[Int(number)]
            return entry.isTrusted && entry.reference != nil ? number : nil
        }
    }

    /// Takes nothing from the pack from now on; `false` when that was so already. One that `isLost` could be read when the
    /// set was opened: what was taken from it before cannot be relied on either.
    func distrust(_ number: UInt32, isLost: Bool = false) -> Bool {
        state.withLock { state in
            defer {
                state.entries[Int(number)].isTrusted = false
                if isLost { state.entries[Int(number)].isLost = true }
            }
            return state.entries[Int(number)].isTrusted
        }
    }

    func isLost(_ number: UInt32) -> Bool { state.withLock { $0.entries[Int(number)].isLost } }
}
