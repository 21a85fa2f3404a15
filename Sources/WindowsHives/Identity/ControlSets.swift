// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings

/// Which control sets a SYSTEM hive names. `Select` of a SYSTEM hive.
public struct ControlSets: Hashable, Sendable, Codable {
    /// The one that was in use when the hive was written.
    public var current: UInt32?
    /// The one Windows starts with next.
    public var `default`: UInt32?
    /// The one that started last and let somebody log on.
    public var lastKnownGood: UInt32?
    /// The one that failed; 0 when none did.
    public var failed: UInt32?

    /// What the key `Select` says.
    init(_ select: HiveKey) throws(Fault) {
        current = try select.dword("Current")
        `default` = try select.dword("Default")
        lastKnownGood = try select.dword("LastKnownGood")
        failed = try select.dword("Failed")
    }

    /// The key's name of control set `number`: `ControlSet001`.
    public static func name(_ number: UInt32) -> String {
        let digits = String(number)
        return "ControlSet" + String(repeating: "0", count: max(0, 3 - digits.count)) + digits
    }

    /// The name of the current set; of the default one where no current is told.
    public var currentName: String? { (current ?? `default`).map(ControlSets.name) }
}

extension Hive {
    /// What `Select` of a SYSTEM hive says; `nil` when there is no such key.
    public func controlSets() throws(Fault) -> ControlSets? {
        guard let select = try key("Select") else { return nil }
        return try ControlSets(select)
    }

    /// The control set that was in use, else the one that would be used next; `nil` when `Select` names none that is there.
    public func currentControlSet() throws(Fault) -> HiveKey? {
        guard let sets = try controlSets() else { return nil }
        for number in [sets.current, sets.default, sets.lastKnownGood] {
            if let number, let found = try key(ControlSets.name(number)) { return found }
        }
        return nil
    }
}
