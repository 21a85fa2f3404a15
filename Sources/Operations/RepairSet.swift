// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import ImageStore

/// Finds and repairs damage of image sets.
public enum RepairSet {
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
        return apply ? try repair.apply(plan, events: events) : plan
    }
}
