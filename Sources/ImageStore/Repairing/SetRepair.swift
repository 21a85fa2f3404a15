// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings
import Geometry
import Threads

/// Finds damaged files of a set and puts back what they held, byte for byte: from the parity inside a pack, from second
/// copies, and from what other structures say.
///
/// ``plan(events:)`` reads every byte of the set and changes nothing. ``apply(_:events:)`` makes each damaged file again
/// beside it, compares the result with the hashes the recovery points and the pack itself have of it, and only then puts
/// it in its place, so that an interruption costs nothing. Packs it cannot make good are marked, so that no backup builds
/// upon them. Needs as much free space as the largest damaged file takes.
/// No key is needed; without one, packs of an encrypted set that are missing altogether are not noticed.
public struct SetRepair {
    private let reader: SetReader
    private var store: any ObjectStore { reader.store }
    private var set: SetHeader { reader.set }

    /// Repairs the set `reader` reads.
    public init(_ reader: SetReader) {
        self.reader = reader
    }

    /// What is damaged and how it can be repaired. Throws `store.failed`, `interrupted`.
    public func plan(events: EventHandler? = nil) throws(Fault) -> RepairReport {
        var report = RepairReport()
        for place in store.places {
            let found = try SetAccess.look(at: place)
            guard found.header != nil else { continue }
            for name in found.lostCopies {
                report.items.append(
                    RepairReport.Item(
                        file: name, place: label(place), size: ((try? place.open(name)) ?? nil)?.size,
                        what: "The set header is missing or damaged.", source: .header, outcome: .planned))
            }
        }
        report.files += ObjectName.headers.count
        for kind in SmallKind.allCases { try plan(kind, &report) }
        try planPacks(&report, events)
        for place in store.places {
            guard let problem = try Catalogue.problem(in: place, of: store, set) else { continue }
            report.items.append(
                RepairReport.Item(
                    file: Catalogue.name, place: label(place), size: ((try? place.open(Catalogue.name)) ?? nil)?.size,
                    what: problem, source: .listing, outcome: .planned))
        }
        report.items.sort { ($0.file, $0.place ?? "") < ($1.file, $1.place ?? "") }
        return report
    }

    /// What to call one of the set's places; `nil` where there is only one.
    private func label(_ place: any ObjectStore) -> String? { store.places.count > 1 ? place.name : nil }

    /// The place of that name; all of them for none.
    private func place(_ name: String?) -> any ObjectStore { store.places.first { $0.name == name } ?? store }

    /// Carries out what `plan` proposes. A file that cannot be repaired after all is listed as such; the others are
    /// repaired nevertheless. Throws `store.full`, `store.failed`, `interrupted`: what was not repaired is as it was.
    public func apply(_ plan: RepairReport, events: EventHandler? = nil) throws(Fault) -> RepairReport {
        guard !set.forbidsWriting else { throw SetAccess.mustNotBeWritten(store.name) }
        var report = plan
        // Whoever reclaims space meanwhile leaves alone what is there now.
        let announcement = try store.announce(.writer)
        defer { announcement.end() }
        let references = try self.references()
        // What a file is copied from may itself have to be repaired first; the catalogue lists all the others.
        func turn(_ item: RepairReport.Item) -> Int {
            switch item.source {
            case .listing: 2
            case .copy: 1
            default: 0
            }
        }
        let order = (0...2).flatMap { number in report.items.indices.filter { turn(report.items[$0]) == number } }
        for index in order {
            try Interruption.check()
            let item = report.items[index]
            switch item.outcome {
            case .planned:
                events?(.step("repairing \(item.file)"))
                let reason = try repair(item, references)
                report.items[index].outcome = reason.map { .impossible($0) } ?? .repaired
            case .impossible(let why):
                guard case .parity = item.source, let id = ObjectName.id(item.file, suffix: ".pack"),
                    let handle = try place(item.place).open(item.file)
                else { continue }
                events?(.step("repairing what can be of \(item.file)"))
                let pack = try PackRepair(place(item.place), set, name: item.file, id: id, reference: references[id])
                let count = try pack.repairPartly(handle)
                report.items[index].outcome = .impossible(
                    "\(why) \(count) \(count == 1 ? "block" : "blocks") of 4 KiB of other groups were made good.")
            case .repaired: continue
            }
        }
        try condemn(&report)
        return report
    }

    /// Marks the packs that stay damaged. Points that need what is sound in them restore as before, but writers pass them
    /// over, so that new points are not born with the damage.
    private func condemn(_ report: inout RepairReport) throws(Fault) {
        let repaired = Set(
            report.items.filter { $0.outcome == .repaired }.compactMap { ObjectName.id($0.file, suffix: ".pack") })
        for index in report.items.indices {
            let item = report.items[index]
            guard case .impossible = item.outcome, item.size != nil,
                let id = ObjectName.id(item.file, suffix: ".pack"), !repaired.contains(id)
            else { continue }
            if try store.open(ObjectName.tombstone(id)) == nil { try store.put(ObjectName.tombstone(id), []) }
            report.items[index].isCondemned = true
        }
    }

    private func repair(
        _ item: RepairReport.Item, _ references: [ObjectID: PackReference]
    ) throws(Fault) -> String? {
        guard let source = item.source else { return "Nothing to repair it from." }
        let target = place(item.place)
        if case .header = source {
            try replace(item.file, in: target, with: set.bytes)
            return nil
        }
        if case .listing = source {
            try Catalogue.write(to: store)
            return nil
        }
        if let id = ObjectName.id(item.file, suffix: ".pack") {
            let pack = try PackRepair(target, set, name: item.file, id: id, reference: references[id])
            if case .copy(let other) = source {
                guard let handle = try place(item.sourcePlace).open(other) else { return "The other copy is gone." }
                return try pack.copy(handle)
            }
            guard let handle = try target.open(item.file) else { return "The file is gone." }
            return try pack.repair(handle)
        }
        guard case .copy(let other) = source, let kind = SmallKind(item.file),
            let handle = try place(item.sourcePlace).open(other)
        else { return "The other copy is gone." }
        switch try kind.look(handle, other, set) {
        case .damaged(let problem): return "The other copy is damaged too. \(problem)"
        case .foreign: return "The other copy is another set's."
        case .sound(let bytes):
            try replace(item.file, in: target, with: bytes)
            // Somebody may have removed the object meanwhile: whoever of the two is later removes what is left.
            if try place(item.sourcePlace).open(other) == nil {
                try target.delete(item.file)
                return "The object was removed while it was repaired."
            }
            return nil
        }
    }

    /// Puts a small object in its place and reads it back.
    private func replace(_ name: String, in store: any ObjectStore, with bytes: [UInt8]) throws(Fault) {
        let upload = try store.upload()
        do throws(Fault) {
            try unsafe upload.write(at: .zero, bytes.span.bytes)
            try upload.seal(replacing: name)
        } catch {
            upload.abandon()
            throw error
        }
        guard let handle = try store.open(name) else { throw store.notKept(name) }
        handle.dropCaches()
        guard handle.size.bytes == UInt64(bytes.count), try handle.bytes(at: .zero, count: bytes.count) == bytes else {
            throw store.notKept(name)
        }
    }

    // MARK: - Small objects, of which there are two copies

    /// Objects that are read whole.
    private enum SmallKind: CaseIterable {
        case key
        case point
        case moves

        init?(_ name: String) {
            guard let kind = SmallKind.allCases.first(where: { name.hasSuffix($0.suffix) }) else { return nil }
            self = kind
        }

        var folder: String {
            switch self {
            case .key: ObjectName.keys
            case .point: ObjectName.points
            case .moves: ObjectName.moves
            }
        }
        var suffix: String {
            switch self {
            case .key: ".key"
            case .point: ".point"
            case .moves: ".moves"
            }
        }
        /// The largest object that is believed.
        private var most: Int {
            switch self {
            case .key: KeySlot.size
            case .point: PointFile.headerSize + PointFile.maximumBody
            case .moves: MovesFile.headerSize + MovesFile.maximumBody
            }
        }

        enum State {
            case sound([UInt8])
            case damaged(String)
            /// A sound key slot of a set that is not this one.
            case foreign
        }

        /// Checks every byte of an object, without a key.
        func look(_ handle: any ObjectHandle, _ name: String, _ set: SetHeader) throws(Fault) -> State {
            guard let size = handle.size.int, size <= most else { return .damaged("It is too long.") }
            let bytes: [UInt8]
            do throws(Fault) {
                bytes = try handle.bytes(at: .zero, count: size)
            } catch {
                guard error.code == .storeFailed || error.code == .setDamaged else { throw error }
                return .damaged(error.what)
            }
            let hash = try Hasher256().hash(Array(bytes.dropFirst(PointFile.headerSize)))
            do throws(FieldError) {
                switch self {
                case .key:
                    let slot = try unsafe KeySlot(bytes.span.bytes)
                    guard ObjectName.id(name, suffix: suffix) == slot.id else {
                        return .damaged("It is another key slot.")
                    }
                    guard slot.set == set else { return .foreign }
                case .point:
                    guard size >= PointFile.headerSize else { return .damaged("It is cut off.") }
                    let head = Array(bytes[..<PointFile.headerSize])
                    let header = try unsafe PointFile.Header(head.span.bytes, fileSize: UInt64(size))
                    guard ObjectName.id(name, suffix: suffix) == PointFile.id(header.root), header.set == set else {
                        return .damaged("It is another recovery point.")
                    }
                    guard hash == header.stored else { return .damaged("Its body is damaged.") }
                case .moves:
                    guard size >= MovesFile.headerSize else { return .damaged("It is cut off.") }
                    let head = Array(bytes[..<MovesFile.headerSize])
                    let header = try unsafe MovesFile.Header(head.span.bytes, fileSize: UInt64(size))
                    guard ObjectName.id(name, suffix: suffix) == header.id, header.set == set else {
                        return .damaged("It belongs to another set, or has another's name.")
                    }
                    guard hash == header.stored else { return .damaged("Its body is damaged.") }
                }
            } catch {
                return .damaged("\(error).")
            }
            return .sound(bytes)
        }
    }

    private func plan(_ kind: SmallKind, _ report: inout RepairReport) throws(Fault) {
        for first in firstNames(kind.folder, kind.suffix) {
            var copies: [Copy] = []
            var isForeign = false
            for name in [first, ObjectName.copy(of: first)] {
                copies += try self.copies(name) { (_, handle) throws(Fault) in
                    report.files += 1
                    report.read = report.read.adding(handle.size) ?? report.read
                    switch try kind.look(handle, name, set) {
                    case .sound: return nil
                    case .damaged(let what): return what
                    case .foreign:
                        isForeign = true
                        return nil
                    }
                }
            }
            // Left by a run that ended before its set had a header: it opens nothing here, whole or not.
            if isForeign { continue }
            for copy in copies {
                guard let what = copy.problem else { continue }
                let other = copies.first { $0.problem == nil }
                report.items.append(
                    RepairReport.Item(
                        file: copy.name, place: copy.place.flatMap(label), size: copy.handle?.size, what: what,
                        source: other.map { .copy($0.name) }, sourcePlace: other?.place.flatMap(label),
                        outcome: other != nil ? .planned : .impossible("All copies are damaged or missing.")))
            }
        }
    }

    /// One copy of an object, and what is wrong with it.
    private struct Copy {
        var name: String
        /// `nil` when it is missing everywhere.
        var place: (any ObjectStore)?
        var handle: (any ObjectHandle)?
        var problem: String?
    }

    /// The copies of an object in all places, each looked at by `look`; one that is missing when there is none.
    private func copies(
        _ name: String, _ look: (any ObjectStore, any ObjectHandle) throws(Fault) -> String?
    ) throws(Fault) -> [Copy] {
        var result: [Copy] = []
        for place in store.places {
            do throws(Fault) {
                guard let handle = try place.open(name) else { continue }
                result.append(Copy(name: name, place: place, handle: handle, problem: try look(place, handle)))
            } catch {
                guard error.code == .storeFailed || error.code == .setDamaged else { throw error }
                result.append(Copy(name: name, place: place, problem: error.what))
            }
        }
        return result.isEmpty ? [Copy(name: name, problem: "The file is missing.")] : result
    }

    /// Names of first copies, of which a first or a second copy is there.
    private func firstNames(_ folder: String, _ suffix: String) -> [String] {
        var names: Set<String> = []
        for object in store.listReadable(folder).objects where ObjectName.id(object.name, suffix: suffix) != nil {
            names.insert(object.name)
        }
        let copies = ObjectName.copies + "/"
        for object in store.listReadable(ObjectName.copy(of: folder)).objects
        where ObjectName.id(object.name, suffix: suffix) != nil {
            names.insert(String(object.name.dropFirst(copies.utf8.count)))
        }
        return names.sorted()
    }

    // MARK: - Packs

    /// What the points say of packs; nothing for points that cannot be read.
    private func references() throws(Fault) -> [ObjectID: PackReference] {
        var result: [ObjectID: PackReference] = [:]
        guard reader.isOpen else { return result }
        for id in try reader.readableIDs().ids {
            do throws(Fault) {
                for pack in try reader.load(id).file.packs { result[pack.id] = pack }
            } catch {
                guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
            }
        }
        return result
    }

    private func planPacks(_ report: inout RepairReport, _ events: EventHandler?) throws(Fault) {
        let references = try self.references()
        let listed =
            store.listReadable(ObjectName.packs).objects
            + store.listReadable(ObjectName.copy(of: ObjectName.packs)).objects
        let total = listed.reduce(ByteCount.zero) { $0.adding($1.size) ?? $0 }
        var done = ByteCount.zero
        var names = Set(firstNames(ObjectName.packs, ".pack"))
        // A pack whose records were moved is not missing.
        let moves = try MoveMap(store, set, forReading: true)
        for id in references.keys where moves.targets(of: id).isEmpty { names.insert(ObjectName.pack(id)) }
        for first in names.sorted() {
            guard let id = ObjectName.id(first, suffix: ".pack") else { continue }
            try Interruption.check()
            events?(.progress(Progress(phase: "checking", done: done, total: total)))
            let second = ObjectName.copy(of: first)
            var copies: [Copy] = []
            for name in [first, second] {
                copies += try self.copies(name) { (place, handle) throws(Fault) in
                    let pack = try PackRepair(place, set, name: name, id: id, reference: references[id])
                    let problem = try pack.problem(handle)
                    report.files += 1
                    report.read = report.read.adding(handle.size) ?? report.read
                    done = done.adding(handle.size) ?? done
                    return problem
                }
            }
            // Only packs of lists have a second copy. The first says which kind it is, where it can.
            var isTwice = copies.contains { $0.name == second && $0.place != nil }
            for copy in copies where !isTwice && copy.name == first {
                if let handle = copy.handle { isTwice = try isLists(handle, id) }
            }
            let start = report.items.count
            for copy in copies where isTwice || copy.name == first {
                guard let problem = copy.problem else { continue }
                let other = copies.first { $0.problem == nil && (isTwice || $0.name == first) }
                var item = RepairReport.Item(
                    file: copy.name, place: copy.place.flatMap(label), size: copy.handle?.size, what: problem,
                    source: other.map { .copy($0.name) }, sourcePlace: other?.place.flatMap(label), outcome: .planned)
                if other == nil {
                    if let handle = copy.handle, let place = copy.place {
                        let pack = try PackRepair(place, set, name: copy.name, id: id, reference: references[id])
                        let cure = try pack.cure(handle)
                        item.source = cure.source
                        if !cure.why.isEmpty { item.outcome = .impossible(cure.why) }
                    } else {
                        item.outcome = .impossible("There is nothing to make it from.")
                    }
                }
                report.items.append(item)
            }
            secondChance(start, &report)
        }
    }

    /// A copy that cannot be repaired from itself is made from another, once that is repaired. The items from `start` on are
    /// those of one pack.
    private func secondChance(_ start: Int, _ report: inout RepairReport) {
        guard let source = report.items.indices[start...].first(where: { report.items[$0].outcome == .planned }) else {
            return
        }
        for index in report.items.indices[start...] {
            guard case .impossible = report.items[index].outcome else { continue }
            report.items[index].source = .copy(report.items[source].file)
            report.items[index].sourcePlace = report.items[source].place
            report.items[index].outcome = .planned
        }
    }

    /// Whether a pack is one of lists: its header says so, else its first record.
    private func isLists(_ handle: any ObjectHandle, _ id: ObjectID) throws(Fault) -> Bool {
        do throws(Fault) {
            return try PackStructure.header(handle, name: "", id: id, set: set).kind == .lists
        } catch {
            guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
        }
        let end = Int(clamping: min(handle.size.bytes, UInt64(UInt32.max)))
        var scanner = PackScanner(handle, unitSize: set.unitSize, from: PackHeader.size, to: end)
        guard case .record(_, let record)? = try scanner.next() else { return false }
        return record.kind == .page
    }
}
