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

    struct Place: Hashable {
        var file: String
        var offset: Int
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
        for finding in reader.findings {
            let file = String(finding.place.dropFirst(reader.store.name.utf8.count + 1))
            damage(file, -1, finding.what)
        }
        try inspectKeys()
        let points = try loadPoints(names)
        moves = try MoveMap(reader.store, reader.set)
        for copy in moves.damaged {
            damage(copy.name, copy.fault.extent.flatMap(\.start.int) ?? -1, copy.fault.what)
        }
        try inspectPacks(points, all: names == nil)
        if depth != .quick { try readPacks() }
        for point in points { try check(point) }
        report.damages.sort { ($0.file, $0.offset ?? .zero) < ($1.file, $1.offset ?? .zero) }
        return report
    }

    /// Notes a damage once, and returns its number.
    @discardableResult
    func damage(_ file: String, _ offset: Int, _ what: String, harmless: Bool = false) -> Int {
        let place = Place(file: file, offset: offset, harmless: harmless)
        if let known = places[place] { return known }
        report.damages.append(
            VerifyReport.Damage(file: file, offset: offset < 0 ? nil : ByteCount(UInt64(offset)), what: what))
        places[place] = report.damages.count - 1
        return report.damages.count - 1
    }

    func damage(_ file: String, _ fault: Fault) {
        damage(file, fault.extent.flatMap(\.start.int) ?? -1, fault.what)
    }

    // MARK: - Keys and marks

    /// Key slots in both copies, and the marks of packs that are going.
    private func inspectKeys() throws(Fault) {
        if reader.set.isEncrypted {
            let slots = try KeySlots(reader.store, reader.set)
            report.keySlots = slots.slots.count
            for copy in slots.damaged { damage(copy.name, -1, "The key slot is damaged: \(copy.what)") }
            for name in slots.missing { damage(name, -1, "This copy of a key slot is missing.") }
            if slots.slots.isEmpty {
                damage(ObjectName.keys, -1, "No key slot is sound: without one nobody can open the set.")
            }
        }
        for object in try reader.store.list(ObjectName.tombstones)
        where ObjectName.id(object.name, suffix: ".gone") == nil || object.size != .zero {
            damage(object.name, -1, "This is not an empty mark of a pack that is to be removed.")
        }
    }

    // MARK: - Points

    private func loadPoints(_ names: [String]?) throws(Fault) -> [RecoveryPoint] {
        var ids = try reader.ids()
        if let names {
            var chosen: [ObjectID] = []
            for name in names {
                guard let id = ObjectID(try reader.point(name).summary.id) else { continue }
                if !chosen.contains(id) { chosen.append(id) }
            }
            ids = chosen
        }
        var points: [RecoveryPoint] = []
        for id in ids {
            var sound: PointFile?
            var last: Int?
            var closed = false
            for name in [ObjectName.point(id), ObjectName.copy(of: ObjectName.point(id))] {
                do throws(Fault) {
                    let file = try reader.read(id, name)
                    sound = sound ?? file
                } catch {
                    // Its stored bytes match their hash; what they say is not known without the key.
                    if error.code == .keyNeeded, !reader.isOpen {
                        closed = true
                        continue
                    }
                    guard error.code == .setDamaged || error.code == .setVersion || error.code == .storeFailed else {
                        throw error
                    }
                    last = damage(name, error.extent.flatMap(\.start.int) ?? -1, error.what)
                }
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
