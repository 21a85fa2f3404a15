// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Geometry
import Glibc
import Threads

extension FaultCode {
    /// Somebody else is at work on the set, and the two must not be at once.
    public static let setBusy = FaultCode("set.busy", exit: .refused)
}

/// Removes recovery points from a set and reclaims the space nothing needs any more.
///
/// Promised: no point that is not named to go is harmed, whatever happens at any moment; both jobs work on a full medium;
/// what was interrupted is finished by the next run.
public final class SetKeeper: Sendable {
    let store: any ObjectStore
    let reader: SetReader

    /// Opens the set in `store`. Throws what opening throws, and `set.version` when the set must not be written to.
    public init(_ store: any ObjectStore, keys: KeyRing = .none) throws(Fault) {
        let found = try SetAccess.require(store)
        guard !found.readOnly else {
            throw Fault(
                .setVersion, what: "The set has features this program must not write to.", place: store.name,
                remedy: "Use a newer version of Relight for it; this one can read it.")
        }
        self.store = store
        reader = try SetReader(store, keys: keys)
    }

    /// What `policy` and the points `named` (ids or prefixes of ids) mean. Nothing is written, but where the place's clock
    /// can only be told by making a file; not even that with `isRehearsal`.
    ///
    /// A damaged point is removed only when it is named by its full id; it is among the plan's findings else.
    /// Throws `set.no-such-point`, `set.damaged`, `store.failed`.
    public func plan(
        _ policy: RetentionPolicy?, named: [String] = [], isRehearsal: Bool = false
    ) throws(Fault) -> ForgetPlan {
        let listing = try reader.points()
        let ids = try reader.ids()
        var chosen: Set<String> = []
        var unreadable: [String] = []
        for name in named {
            let name = name.lowercased()
            if name == "latest" {
                try reader.requireKnownLatest()
                chosen.insert(try reader.point().summary.id)
                continue
            }
            let matches = ids.filter { !name.isEmpty && $0.text.hasPrefix(name) }
            guard matches.count == 1 else {
                throw Fault(
                    .noSuchPoint,
                    what: matches.isEmpty
                        ? "No recovery point's id begins with \"\(name)\"."
                        : "\(matches.count) recovery points' ids begin with \"\(name)\".",
                    place: store.name, remedy: "`relight points` lists them; use more digits of the id.")
            }
            let id = matches[0].text
            if listing.points.contains(where: { $0.id == id }) {
                chosen.insert(id)
            } else if name == id {
                if !unreadable.contains(id) { unreadable.append(id) }
            } else {
                throw Fault(
                    .setDamaged, what: "The recovery point \(id) cannot be read, so nobody can tell what it holds.",
                    place: store.name,
                    remedy: "Put its file back from a copy of the set, or name it by its full id to remove it.")
            }
        }
        var plan = ForgetPlan(
            retention: RetentionPlan(listing.points, policy: policy, named: chosen, now: try now(isRehearsal)),
            unreadable: unreadable)
        plan.leavesNothing = plan.retention.removed.count + unreadable.count >= ids.count
        plan.findings =
            plan.retention.findings
            + listing.findings.filter { finding in
                finding.severity == .loss && !unreadable.contains { finding.place.contains($0) }
            }.map { finding in
                var finding = finding
                finding.severity = .warning
                finding.what = "This recovery point cannot be read; it is left alone. \(finding.what)"
                return finding
            }
        return plan
    }

    /// The time by the place's clock; in a rehearsal by this machine's, but not before the last point was written.
    func now(_ isRehearsal: Bool) throws(Fault) -> UInt64 {
        guard isRehearsal else { return try store.clock() }
        let written = try store.list(ObjectName.points).map(\.modified).max() ?? 0
        return max(written, UInt64(max(0, time(nil))))
    }

    /// Removes the points of `plan`, oldest first. Takes no room. What is removed cannot come back; the space is freed by
    /// ``prune(_:events:)``. Throws `store.failed`, `interrupted`: points not reached stay.
    public func forget(_ plan: ForgetPlan, events: EventHandler? = nil) throws(Fault) {
        for id in plan.retention.removed.map(\.id) + plan.unreadable {
            guard let id = ObjectID(id) else { continue }
            try Interruption.check()
            events?(.step("removing recovery point \(id.text.prefix(10))"))
            let first = ObjectName.point(id)
            // Until the first is gone the point exists, and a writer makes the second again.
            try store.delete(ObjectName.copy(of: first))
            try store.delete(first)
            // A writer that did so at this moment looks afterwards whether the first still is there; whoever of the two
            // is later removes it.
            if try store.open(ObjectName.copy(of: first)) != nil { try store.delete(ObjectName.copy(of: first)) }
        }
    }
}

/// Which points are to be removed.
public struct ForgetPlan: Hashable, Sendable {
    /// What becomes of each readable point.
    public var retention: RetentionPlan
    /// Ids of points that cannot be read and were named.
    public var unreadable: [String]
    /// What is worth knowing before it is done.
    public var findings: [Finding] = []

    /// Whether no point is left when it is done.
    public var leavesNothing = false

    /// Whether anything is removed.
    public var isEmpty: Bool { retention.removed.isEmpty && unreadable.isEmpty }

    init(retention: RetentionPlan, unreadable: [String]) {
        self.retention = retention
        self.unreadable = unreadable
    }
}
