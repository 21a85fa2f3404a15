// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import ImageStore

/// Finds and repairs damage of image sets.
public enum RepairSet {
    /// Packs that points need, that are not here and cannot be made again: they may be on another medium of the set.
    public static func missingPacks(_ report: RepairReport) -> [String] {
        report.items.filter { item in
            guard item.size == nil, item.file.hasPrefix("packs/"), case .impossible = item.outcome else { return false }
            return true
        }.map(\.file)
    }

    /// What is damaged in the set at `place` (and in the other places `also`) and how it can be repaired; with `apply`,
    /// repairs it. Without `keys`, an encrypted set is repaired as far as that goes without its key: packs that are
    /// missing altogether are not noticed.
    /// Throws what opening a set throws, `store.full`, `store.failed`, `interrupted`.
    public static func run(
        _ place: String, also: [String] = [], keys: KeyRing?, apply: Bool, events: @escaping EventHandler
    ) throws(Fault) -> RepairReport {
        let opened = try SetPlace(place, also: also, apply ? .writing : .reading)
        defer { opened.close() }
        let store = opened.store
        let reader: SetReader
        if let keys { reader = try SetReader(store, keys: keys) } else { reader = try SetReader(locked: store) }
        if !reader.isOpen {
            events(
                .finding(
                    Finding(
                        .notice, "set.locked",
                        what: "The set is encrypted and was opened without its key: files that are missing altogether "
                            + "are not noticed.", place: place)))
        }
        let repair = SetRepair(reader)
        let plan = try repair.plan(events: events)
        if let missing = opened.missing(missingPacks(plan), ofThoseNeededBy: "the points need") {
            events(
                .finding(
                    Finding(
                        .warning, missing.code.rawValue, what: "\(missing.what) \(missing.remedy)", place: missing.place
                    )))
        }
        return apply ? try repair.apply(plan, events: events) : plan
    }
}
