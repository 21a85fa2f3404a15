// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// What a hive is for, told by the names below its root.
public enum HiveKind: String, Hashable, Sendable, Codable {
    /// SYSTEM: services, drivers, control sets.
    case system
    /// SOFTWARE: what is installed, Windows itself included.
    case software
    /// A BCD store: what boots.
    case bcd
    /// DRIVERS: driver packages (Windows 8 and later).
    case drivers
    /// COMPONENTS: the servicing stack.
    case components
    /// SAM: accounts.
    case sam
    /// SECURITY.
    case security
    /// NTUSER.DAT and DEFAULT: a user's settings.
    case user
    /// None of these.
    case other
}

extension Hive {
    /// What the hive is for; ``HiveKind/other`` also where its root cannot be read.
    public var kind: HiveKind {
        guard let root = try? root() else { return .other }
        func has(_ path: String) -> Bool { (try? root.key(path)) != nil }
        if has("Select"), has("ControlSet001") || has("ControlSet002") || has("ControlSet003") { return .system }
        if has("Microsoft"), has("Classes") || has("Microsoft\\Windows NT\\CurrentVersion") { return .software }
        // Every store has the boot manager's object; those made by hand may lack the description.
        if has("Objects"), has("Description") || has("Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}") { return .bcd }
        if has("CanonicalData"), has("Installers") { return .components }
        if has("DriverDatabase") { return .drivers }
        if has("SAM") { return .sam }
        if has("Policy"), has("RXACT") { return .security }
        if has("Software"), has("Control Panel") { return .user }
        return .other
    }
}
