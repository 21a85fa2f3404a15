// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Geometry
import Threads

extension SetReader {
    /// Checks the set, or the points whose ids are given and what they need.
    ///
    /// Damage is not thrown but reported: every damaged item by file and offset, with the points, streams and extents
    /// that are lost by it. Throws `store.failed`, `interrupted`, `set.no-such-point`.
    ///
    /// - Parameters:
    ///   - depth: how thoroughly. A reader opened without the key of an encrypted set checks structure or stored bytes;
    ///     ``VerifyReport/isOpen`` says so. Other depths throw `key.needed` then.
    ///   - share: which records a depth of ``VerifyDepth/share`` reads.
    ///   - points: ids or prefixes of the points to check; `nil` checks all points and all packs there are.
    ///   - threads: number of threads.
    public func verify(
        _ depth: VerifyDepth, share: VerifyShare? = nil, points: [String]? = nil, threads: Int = 2,
        events: EventHandler? = nil
    ) throws(Fault) -> VerifyReport {
        guard isOpen || depth == .quick || depth == .stored else {
            throw Fault(
                .keyNeeded, what: "The set is encrypted, and was opened without its key.", place: store.name,
                remedy: "Give the passphrase or key file, or check the stored bytes only: `relight verify --stored`.")
        }
        let verifier = Verifier(self, depth: depth, threads: threads, events: events)
        if depth == .share { verifier.take(share ?? VerifyShare(percent: 5, seed: .random(in: 0..<100))) }
        return try verifier.run(points)
    }
}

/// One verification. Not shared between threads, except for what its tasks share on purpose.
final class Verifier {
    let reader: SetReader
    let depth: VerifyDepth
    let threads: Int
    let events: EventHandler?
    var report: VerifyReport
    var files: [String: PackFile] = [:]
    /// Pages whose both copies and all frames are sound.
    var soundPages: Set<UnitID> = []
    var places: [Place: Int] = [:]
    var moves = MoveMap()
    /// The packs that points name, and those their records went to.
    var needed: Set<ObjectID> = []
    /// Packs that are marked for removal.
    private var condemned: Set<ObjectID> = []
    private var holders: [String: String?] = [:]

    struct Place: Hashable {
        var file: String
        var offset: Int
        /// Where the set lies in several places, the one it was found in, unless that is the first that has the file.
        var store: String?
        /// Of another kind than what is at the same place and costs data.
        var harmless = false
    }

    init(_ reader: SetReader, depth: VerifyDepth, threads: Int, events: EventHandler?) {
        self.reader = reader
        self.depth = depth
        self.threads = threads
        self.events = events
        self.report = VerifyReport(depth: depth)
        self.report.isOpen = reader.isOpen
    }

    func take(_ share: VerifyShare) { report.share = share }

    func run(_ names: [String]?) throws(Fault) -> VerifyReport {
        for finding in reader.store.openingFindings {
            report.damages.append(VerifyReport.Damage(file: finding.place, what: finding.what))
        }
        try inspectHeaders()
        try inspectKeys()
        let points = try loadPoints(names)
        moves = try MoveMap(reader.store, reader.set, forReading: true)
        for copy in moves.damaged {
            damage(copy.name, copy.fault.extent.flatMap(\.start.int) ?? -1, copy.fault.what, in: copy.place)
        }
        if names == nil { try inspectCatalogue() }
        try inspectPacks(points, all: names == nil)
        if depth != .quick { try readPacks() }
        for point in points { try check(point) }
        setAside()
        report.damages.sort { ($0.file, $0.offset ?? .zero) < ($1.file, $1.offset ?? .zero) }
        return report
    }

    /// A damaged pack that is marked for removal and that nothing needs is what a backup left whose read-back failed: no
    /// damage of the set. Where not every point is known nobody can tell.
    private func setAside() {
        guard reader.isOpen, report.closedPoints == 0, !report.damages.contains(where: \.pointLost) else { return }
        var names: Set<String> = []
        report.damages.removeAll { damage in
            guard damage.losses.isEmpty, let id = ObjectName.id(damage.file, suffix: ".pack"), condemned.contains(id),
                !needed.contains(id)
            else { return false }
            names.insert(damage.file)
            return true
        }
        report.condemned = names.sorted()
    }

    /// Notes a damage once, and returns its number. `place` is the one of the set's places it was found in; without it, the
    /// first that has the file.
    @discardableResult
    func damage(
        _ file: String, _ offset: Int, _ what: String, in place: String? = nil, harmless: Bool = false
    ) -> Int {
        let first = holder(file)
        let place = Place(file: file, offset: offset, store: place == first ? nil : place, harmless: harmless)
        if let known = places[place] { return known }
        report.damages.append(
            VerifyReport.Damage(
                file: file, place: first == nil ? nil : place.store ?? first,
                offset: offset < 0 ? nil : ByteCount(UInt64(offset)), what: what))
        places[place] = report.damages.count - 1
        return report.damages.count - 1
    }

    func damage(_ file: String, _ fault: Fault) {
        damage(file, fault.extent.flatMap(\.start.int) ?? -1, fault.what)
    }

    /// What cannot be listed.
    func damage(_ folder: String, _ faults: [Fault]) {
        for fault in faults {
            let prefix = "\(reader.store.name)/"
            damage(
                fault.place.hasPrefix(prefix) ? String(fault.place.dropFirst(prefix.count)) : folder, -1,
                "It cannot be looked at: \(fault.what)")
        }
    }

    /// The name of the first place that has a file, where the set lies in several.
    private func holder(_ file: String) -> String? {
        let stores = reader.store.places
        guard stores.count > 1 else { return nil }
        if let known = holders[file] { return known }
        let found = stores.first { store in
            // What cannot be opened is there.
            do throws(Fault) { return try store.open(file) != nil } catch { return true }
        }
        holders[file] = .some(found?.name)
        return found?.name
    }

    // MARK: - Headers, keys and marks

    private func inspectHeaders() throws(Fault) {
        for place in reader.store.places {
            let found = try SetAccess.look(at: place)
            guard found.header != nil else { continue }
            for name in found.lostCopies {
                damage(
                    name, -1, "This copy of the set's header is missing or damaged; the next backup writes it again.",
                    in: reader.store.places.count > 1 ? place.name : nil)
            }
        }
    }

    /// Key slots in both copies, and the marks of packs that are going.
    private func inspectKeys() throws(Fault) {
        if reader.set.isEncrypted {
            let slots = try KeySlots(reader.store, reader.set)
            report.keySlots = slots.slots.count
            report.lostKeySlots = slots.lost.count
            for copy in slots.damaged {
                damage(copy.name, -1, "The key slot is damaged: \(copy.what)", in: copy.place)
            }
            for name in slots.missing { damage(name, -1, "This copy of a key slot is missing.") }
            if slots.slots.isEmpty {
                damage(ObjectName.keys, -1, "No key slot is sound: without one nobody can open the set.")
            }
        }
        let marks = reader.store.listReadable(ObjectName.tombstones)
        damage(ObjectName.tombstones, marks.faults)
        for object in marks.objects {
            if let id = ObjectName.id(object.name, suffix: ".gone"), object.size == .zero {
                condemned.insert(id)
            } else {
                damage(object.name, -1, "This is not an empty mark of a pack that is to be removed.")
            }
        }
    }

    /// The list for places that cannot list, in each place that has one.
    private func inspectCatalogue() throws(Fault) {
        for place in reader.store.places {
            guard let problem = try Catalogue.problem(in: place, of: reader.store, reader.set) else { continue }
            damage(Catalogue.name, -1, problem, in: reader.store.places.count > 1 ? place.name : nil)
        }
    }

    // MARK: - Points

    private func loadPoints(_ names: [String]?) throws(Fault) -> [RecoveryPoint] {
        let listing = try reader.readableIDs()
        damage(ObjectName.points, listing.faults)
        var ids = listing.ids
        if let names {
            var chosen: [ObjectID] = []
            for name in names {
                // What cannot be read may be newer than the newest that can.
                let lost = name == "latest" ? try reader.points().unreadable : []
                for id in [try reader.point(name).summary.id] + lost {
                    guard let id = ObjectID(id), !chosen.contains(id) else { continue }
                    chosen.append(id)
                }
            }
            ids = chosen
        }
        var points: [RecoveryPoint] = []
        for id in ids {
            try Interruption.check()
            var sound: PointFile?
            var last: Int?
            var closed = false
            for name in [ObjectName.point(id), ObjectName.copy(of: ObjectName.point(id))] {
                var isThere = false
                for place in reader.store.places {
                    do throws(Fault) {
                        guard let file = try reader.read(id, name, in: place) else { continue }
                        isThere = true
                        sound = sound ?? file
                    } catch {
                        isThere = true
                        // Its stored bytes match their hash; what they say is not known without the key.
                        if error.code == .keyNeeded, !reader.isOpen {
                            closed = true
                            continue
                        }
                        guard error.code == .setDamaged || error.code == .setVersion || error.code == .storeFailed
                        else {
                            throw error
                        }
                        last = damage(name, error.extent.flatMap(\.start.int) ?? -1, error.what, in: place.name)
                    }
                }
                if !isThere { last = damage(name, -1, "The recovery point's file is missing.") }
            }
            if let sound {
                points.append(RecoveryPoint(reader, sound, id, findings: []))
            } else if closed {
                report.closedPoints += 1
            } else if let last {
                report.damages[last].pointLost = true
            }
        }
        points.sort { ($0.summary.number, $0.summary.id) < ($1.summary.number, $1.summary.id) }
        report.points = points.map(\.summary)
        return points
    }
}
