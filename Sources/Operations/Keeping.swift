// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import ImageStore

/// Which recovery points to remove.
public struct ForgetRequest: Sendable {
    /// The image set: a folder, or `label:NAME/folder`.
    public var set: String
    /// Further places the set lies in.
    public var also: [String] = []
    /// Points to remove whatever the policy says: ids, their beginnings, or `latest`.
    public var points: [String] = []
    /// Which points of each machine to keep; an empty one keeps all that are not named.
    public var policy = RetentionPolicy()
    /// Find out what would be done, and write nothing at all.
    public var isRehearsal = false
    /// Reclaims the space afterwards.
    public var prune: PruneOptions?

    /// A request for the set at a place.
    public init(set: String) { self.set = set }
}

/// What was removed, or would be.
public struct ForgetResult: Sendable {
    /// What becomes of each point.
    public var plan: ForgetPlan
    /// What reclaiming space did, where it was asked for.
    public var prune: PruneReport?
}

/// Removes recovery points and reclaims space.
public enum Keeping {
    /// Removes recovery points. Throws `usage` when neither a point nor a policy is given, what opening a set throws,
    /// `set.no-such-point`, `store.failed`, `interrupted`; and with ``ForgetRequest/prune``, what that throws, and before
    /// anything is removed `set.incomplete` when no point would be left.
    public static func forget(
        _ request: ForgetRequest, keys: KeyRing, events: @escaping EventHandler
    ) throws(Fault) -> ForgetResult {
        guard !request.points.isEmpty || !request.policy.isEmpty else {
            throw Fault(
                .usage, what: "Neither a recovery point nor a rule says what to keep.", place: request.set,
                remedy: "Name points (SET@POINT), or give rules such as --keep-daily 7 --keep-weekly 4.")
        }
        return try open(request.set, request.also, keys, request.isRehearsal, events) { (keeper) throws(Fault) in
            let plan = try keeper.plan(
                request.policy.isEmpty ? nil : request.policy, named: request.points,
                isRehearsal: request.isRehearsal)
            if request.prune != nil, plan.leavesNothing {
                throw Fault(
                    .setIncomplete,
                    what:
                        "No recovery point would be left here, so nobody could tell what points on another medium of the "
                        + "set need. Nothing was removed.",
                    place: ([request.set] + request.also).joined(separator: " + "),
                    remedy: "Leave --prune out, then free the space with "
                        + "`relight prune \(SetPlace.words(request.set, request.also)) --all-points-forgotten`.")
            }
            for finding in plan.findings { events(.finding(finding)) }
            var result = ForgetResult(plan: plan)
            if request.isRehearsal { return result }
            try keeper.forget(plan, events: events)
            if let options = request.prune {
                let report = try keeper.prune(options, events: events)
                for finding in report.findings { events(.finding(finding)) }
                result.prune = report
            }
            return result
        }
    }

    /// Reclaims the space that no point needs. Throws what opening a set throws, `set.busy`, `set.damaged`, `store.full`,
    /// `store.failed`, `interrupted`.
    public static func prune(
        _ set: String, also: [String] = [], keys: KeyRing, _ options: PruneOptions, events: @escaping EventHandler
    ) throws(Fault) -> PruneReport {
        try open(set, also, keys, options.isRehearsal, events) { (keeper) throws(Fault) in
            let report = try keeper.prune(options, events: events)
            for finding in report.findings { events(.finding(finding)) }
            return report
        }
    }

    private static func open<R>(
        _ set: String, _ also: [String], _ keys: KeyRing, _ isRehearsal: Bool, _ events: EventHandler,
        _ body: (SetKeeper) throws(Fault) -> R
    ) throws(Fault) -> R {
        let place = try SetPlace(set, also: also, isRehearsal ? .reading : .writing)
        defer { place.close() }
        let result = try body(SetKeeper(place.store, keys: keys))
        if !isRehearsal { place.refreshCatalogue(events) }
        return result
    }
}
