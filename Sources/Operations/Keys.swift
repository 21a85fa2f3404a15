// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import ImageStore

/// Changes who can open an encrypted set.
public enum Keys {
    /// Opens the key slots of the set at `place` (and in the other places `also`) for `body`.
    public static func with<R>(
        _ place: String, also: [String] = [], _ ring: KeyRing, writing: Bool = true,
        _ body: (SetKeyring) throws(Fault) -> R
    ) throws(Fault) -> R {
        let place = try SetPlace(place, also: also, writing ? .writing : .reading)
        defer { place.close() }
        let result = try body(SetKeyring(place.store, keys: ring))
        if writing { try Catalogue.refresh(place.store) }
        return result
    }
}
