// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CCrypto
import Synchronization

/// Passphrases and key files for encrypted volumes, by the names of the volumes.
public final class Unlocking: Sendable {
    /// None: encrypted volumes stay locked.
    public static let none = Unlocking([:])

    private struct State {
        /// By volume.
        var secrets: [String: [UInt8]]
        var used: Set<String> = []
        /// Volume keys by what tells the volume's header, so that a slow key derivation is done once.
        var keys: [[UInt8]: VolumeKey] = [:]
    }
    private let state: Mutex<State>

    /// Secrets by volume: a place (`/dev/sda:2`), a name (`vg0/crypt`), or the UUID of the encrypted volume.
    public init(_ secrets: [String: [UInt8]]) { state = Mutex(State(secrets: secrets)) }

    deinit {
        state.withLock { state in
            for name in state.secrets.keys { wipe(&state.secrets[name, default: []]) }
        }
    }

    /// Names for which no encrypted volume was found so far.
    public var unused: [String] {
        state.withLock { state in state.secrets.keys.filter { !state.used.contains($0) }.sorted() }
    }

    /// The secret for a volume of any of `names`.
    func secret(for names: [String]) -> [UInt8]? {
        state.withLock { state in
            for name in names {
                guard let secret = state.secrets[name] else { continue }
                state.used.insert(name)
                return secret
            }
            return nil
        }
    }

    /// The volume key of the header that `digest` stands for, as it was found before.
    func key(_ digest: [UInt8]) -> VolumeKey? { state.withLock { $0.keys[digest] } }

    /// Keeps a volume key.
    func keep(_ key: VolumeKey, _ digest: [UInt8]) { state.withLock { $0.keys[digest] = key } }
}

/// Overwrites `bytes` before they are given back.
func wipe(_ bytes: inout [UInt8]) {
    unsafe bytes.withUnsafeMutableBytes { unsafe OPENSSL_cleanse($0.baseAddress, $0.count) }
}
