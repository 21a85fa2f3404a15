// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import ImageStore
import LinuxDisks

/// Changes who can open an encrypted set.
public enum Keys {
    /// Opens the key slots of the set at `place` for `body`.
    public static func with<R>(
        _ place: String, _ ring: KeyRing, writing: Bool = true, _ body: (SetKeyring) throws(Fault) -> R
    ) throws(Fault) -> R {
        let location = try StoreLocation.open(place, writing ? .readWrite : .readOnly, identify: Identify.volume)
        defer { location.release() }
        return try body(SetKeyring(FolderStore(path: location.path), keys: ring))
    }
}
