// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Geometry
import MachineModel

/// What came of copying points from set to set.
public struct CopyReport: Sendable {
    /// A point that was copied.
    public struct Copied: Sendable {
        /// The point in the set it was copied from.
        public var source: PointSummary
        /// The copy.
        public var copy: PointSummary
        /// What was read, new, shared and stored.
        public var statistics: SetWriter.Statistics
        /// Whether records were taken over as they are stored; else everything was encoded anew.
        public var verbatim: Bool
    }
    /// The target's id: 32 hexadecimal digits.
    public var set = ""
    /// Points that were copied, in order.
    public var copied: [Copied] = []
    /// Points of the source that the target has already.
    public var present: [PointSummary] = []
    /// Points that could not be copied because the source is damaged or cannot be read, and why.
    public var failed: [(point: PointSummary, fault: Fault)] = []
    /// What was noticed: points of the source that cannot be read.
    public var findings: [Finding] = []

    init() {}
}

/// The number of a copied point.
enum CopyNumber {
    /// The number `point` gets among the points `present` of the target, so that the latest of them by number is the newest
    /// by time: its own, where that is in order; else the one after the last point that is not newer, or, when a newer one has
    /// that, the same (of two with one number the newer is later). Points whose dates cannot be right have no say.
    ///
    /// - Parameters:
    ///   - identity: the point that `point` is, or is a copy of.
    ///   - now: the time by the target's clock.
    static func choose(
        for point: PointSummary, of identity: PointFacts.Origin, among present: [PointSummary], now: UInt64
    ) -> UInt64 {
        let highest = present.map(\.number).max() ?? 0
        // Going on with copies of one set only: that set's own order.
        if point.number > highest, present.allSatisfy({ $0.facts.origin?.set == identity.set }) { return point.number }
        let order = present.sorted { ($0.number, $0.facts.time, $0.id) < ($1.number, $1.facts.time, $1.id) }
        let wrong = RetentionPlan.implausible(order, now: now)
        let right = order.filter { wrong[$0.id] == nil }
        let time = point.facts.time
        let newer = right.filter { $0.facts.time > time }.map(\.number).min()
        // The newest of all comes last even where a wrong date has the highest number.
        let older = newer == nil ? highest : right.filter { $0.facts.time <= time }.map(\.number).max() ?? 0
        if point.number >= older, point.number <= newer ?? .max { return point.number }
        return min(older == .max ? older : older + 1, newer ?? .max)
    }
}

/// Copies recovery points from one set into another, only what is missing there.
///
/// Each point is copied with its time, name and, where that fits, its number (see ``CopyNumber``), oldest first, and sealed by itself: an interrupted copy is gone on
/// with by running it again. The copy's facts name the point it was made from, by which it is recognised: a point is never
/// copied twice, unless packs of the copy are missing in the target. The source is only read.
public enum SetCopy {
    /// How to copy.
    public struct Options: Sendable {
        /// Which point: the beginning of an id, or `latest`; `nil` for all.
        public var point: String?
        /// Make the target the same set as the source: id, keys, and what opens it. Then records are never encrypted again.
        /// Only for a place that is empty, or holds that set already.
        public var like = false
        /// Whether what is encrypted in the source may be readable by anybody in the target.
        public var allowPlain = false
        /// How to write; constants of a set that is made now.
        public var writing = SetWriter.Options()
        /// Whether units of a set that is made now are as large as the source's.
        public var keepUnitSize = true
        /// Whether what was written is read back before each point is sealed.
        public var readBack = true
        /// Number of threads.
        public var threads = 2

        /// The defaults: all points.
        public init() {}
    }

    /// Copies points that `source` has open into the set in `store`, or makes one there. `keys` are asked when the target is
    /// encrypted and not the same set as the source, `newKeys` when it is made encrypted now.
    ///
    /// Throws what opening sets throws, `usage` when both are the same place, `set.different`, `unsupported` for a copy that
    /// would be readable by anybody, `set.damaged` when the one point asked for is damaged, `store.full`, `store.failed`,
    /// `interrupted`. Points that were copied before stay.
    public static func run(
        from source: SetReader, to store: any ObjectStore, options: Options, keys: KeyRing = .none,
        newKeys: KeyRing = .none, events: @escaping EventHandler = { _ in }
    ) throws(Fault) -> CopyReport {
        try requireOther(source.store, store)
        var writing = options.writing
        var known: Set<PointFacts.Origin> = []
        var earlier: [PointSummary] = []
        var present: [PointSummary] = []
        if let header = try SetAccess.look(at: store).header {
            try check(source, header, options, store.name)
            let target: SetReader
            if header == source.set {
                target = try SetReader(store) { (_) in source.keys }
            } else {
                target = try SetReader(store, keys: keys)
            }
            if options.like, header.isEncrypted { try copySlots(source, store, events) }
            writing.replica = SetReplica(header, target.keys)
            writing.encryption = nil
            present = try target.points().points
            let packs = try PackListing(target)
            for point in present {
                if let id = ObjectID(point.id), let first = try packs.missing(of: target.load(id)).first {
                    // Of this copy not all is here: the point is copied anew.
                    events(.finding(incomplete(point, first, store)))
                    continue
                }
                earlier.append(point)
                known.insert(.init(set: target.setID, point: point.id))
                if let origin = point.facts.origin { known.insert(origin) }
            }
        } else {
            guard options.like || !source.isEncrypted || writing.encryption != nil || options.allowPlain else {
                throw readableByAnybody(store.name, isNew: true)
            }
            if options.like { writing.replica = try SetReplica(source) }
            if options.keepUnitSize { writing.unitSize = ByteCount(UInt64(source.set.unitSize)) }
        }

        var report = CopyReport()
        let points: [PointSummary]
        if let name = options.point {
            points = [try source.point(name).summary]
        } else {
            let listing = try source.points()
            points = listing.points
            report.findings = listing.findings.filter { $0.severity == .loss }
        }
        var asked = newKeys
        for (number, point) in points.enumerated() {
            let identity = point.facts.origin ?? .init(set: source.setID, point: point.id)
            guard known.insert(identity).inserted else {
                report.present.append(point)
                continue
            }
            events(
                .step(
                    "copying point \(point.shortID)\(point.facts.name.isEmpty ? "" : " \"\(point.facts.name)\"")"
                        + (points.count > 1 ? ", \(number + 1) of \(points.count)" : "")))
            let writer = try SetWriter(store, options: writing, keys: keys, newKeys: asked, events: events)
            // From here on the set exists, and its keys are known.
            writing.replica = SetReplica(writer.set, writer.keys)
            writing.encryption = nil
            asked = .none
            report.set = writer.setID
            do throws(Fault) {
                let number = CopyNumber.choose(for: point, of: identity, among: present, now: try store.clock())
                let copied = try copy(point, source, writer, number, earlier, options, events)
                report.copied.append(copied)
                earlier.append(copied.copy)
                present.append(copied.copy)
            } catch {
                // A medium that cannot be read is one thing at the source, another at the target, which ends the writer.
                let isHealthy = (try? writer.requireHealthy()) != nil
                writer.abandon()
                guard error.code == .setDamaged || error.code == .storeFailed && isHealthy, options.point == nil else {
                    throw error
                }
                report.failed.append((point, error))
            }
        }
        if report.copied.isEmpty, report.failed.isEmpty, !report.present.isEmpty {
            // A run that was killed after its last point may have left second copies to be made.
            let writer = try SetWriter(store, options: writing, keys: keys, events: events)
            report.set = writer.setID
            writer.abandon()
        }
        return report
    }

    private static func copy(
        _ point: PointSummary, _ source: SetReader, _ writer: SetWriter, _ number: UInt64, _ earlier: [PointSummary],
        _ options: Options, _ events: @escaping EventHandler
    ) throws(Fault) -> CopyReport.Copied {
        let opened = try source.point(point.id)
        let reader = try writer.reader()
        // The copy of the point before, or at least a point of a machine with the same disks.
        let sizes = point.facts.disks.map(\.size)
        let parent = earlier.last { $0.facts.disks.map(\.size) == sizes }
        var before: RecoveryPoint?
        if let parent { before = try? reader.point(parent.id) }
        let work = PointCopy(opened, into: writer)
        try work.run(earlier: before, threads: options.threads, events: events)
        let copy = try writer.commit(
            PointCopy.facts(of: opened), number: number, readBack: options.readBack, threads: options.threads,
            events: events)
        return .init(source: point, copy: copy, statistics: writer.statistics, verbatim: work.isVerbatim)
    }

    private static func incomplete(_ point: PointSummary, _ pack: String, _ store: any ObjectStore) -> Finding {
        Finding(
            .warning, "set.damaged-pack",
            what:
                "The recovery point \(point.shortID) of the target needs \(pack), which is missing there. A point that the "
                + "source has is copied anew; then remove this one: `relight forget`. If the pack lies on another medium of "
                + "the target, name that with --to-also instead.", place: store.name)
    }

    /// Gives a replica the key slots the source has and it has not: what opens the source opens it too. Those that only the
    /// replica has are named, and stay.
    private static func copySlots(
        _ source: SetReader, _ store: any ObjectStore, _ events: EventHandler
    ) throws(Fault) {
        let wanted = try KeySlots(source.store, source.set).slots
        let there = try KeySlots(store, source.set).slots
        let lacking = wanted.filter { slot in !there.contains { $0.id == slot.id } }
        if !lacking.isEmpty {
            events(
                .step(
                    "copying \(lacking.count == 1 ? "a key slot" : "\(lacking.count) key slots") that the replica lacks"
                ))
            try store.prepare()
        }
        for slot in lacking { try SetKeyring.putSame(slot, in: store) }
        for slot in there where !wanted.contains(where: { $0.id == slot.id }) {
            events(
                .finding(
                    Finding(
                        .notice, "key.replica-only",
                        what:
                            "The key slot \(slot.id.text.prefix(8))\(slot.label.isEmpty ? "" : " \"\(slot.label)\"") opens "
                            + "this copy, but no longer the source. `relight key remove` removes it.", place: store.name
                    )))
        }
    }

    // MARK: - What is refused

    private static func requireOther(_ source: any ObjectStore, _ target: any ObjectStore) throws(Fault) {
        func places(_ store: any ObjectStore) -> [any ObjectStore] { (store as? SpanStore)?.places ?? [store] }
        for one in places(source) {
            for other in places(target) where SpanStore.same(one, other) {
                throw Fault(
                    .usage, what: "This is a place of the set that is to be copied.", place: other.name,
                    remedy: "Name another place for the copy.")
            }
        }
    }

    private static func check(
        _ source: SetReader, _ target: SetHeader, _ options: Options, _ place: String
    ) throws(Fault) {
        guard target != source.set else { return }
        if options.like {
            throw Fault(
                .differentSets, what: "There is another set here already (\(target.id.text)).", place: place,
                remedy: "Name an empty or new folder for a replica, or leave out --like to add to this set.")
        }
        if target.id == source.set.id {
            throw Fault(
                .setDamaged, what: "Both places hold the set \(target.id.text), but their headers differ.",
                place: place,
                remedy: "One of them was changed: run `relight verify` on both.")
        }
        guard target.isEncrypted || !source.isEncrypted || options.allowPlain else {
            throw readableByAnybody(place, isNew: false)
        }
        if options.writing.encryption != nil, !target.isEncrypted {
            throw Fault(
                .unsupported, what: "The target is a set that is not encrypted, and stays so.", place: place,
                remedy: "Name an empty or new folder for an encrypted copy.")
        }
    }

    private static func readableByAnybody(_ place: String, isNew: Bool) -> Fault {
        Fault(
            .unsupported, what: "The source is encrypted, and the copy would be readable by anybody.", place: place,
            remedy: isNew
                ? "Add --like for a copy that the same passphrase opens, --encrypt for one with its own, or --plain if it may "
                    + "be readable."
                : "Name an empty or new folder for an encrypted copy, or add --plain if it may be readable.")
    }
}
