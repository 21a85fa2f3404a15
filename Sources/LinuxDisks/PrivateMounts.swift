// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import CLinux
public import Findings
import Synchronization
import Threads

/// Mounts that nobody else sees, and that are gone however their maker ends: even killed, it leaves none behind.
public enum PrivateMounts {
    /// Runs `body` on a thread of its own, in a mount namespace of its own; programs started there are in it too. All that
    /// is mounted there, and loop devices that `mount -o loop` made, go away when the thread and those programs have
    /// ended. Throws what `body` throws; `no-access` where that is not allowed.
    public static func run<T: Sendable>(_ body: @escaping @Sendable () throws(Fault) -> T) throws(Fault) -> T {
        let outcome = Outcome<T>()
        let thread = BackgroundThreads(1) {
            let status = relight_private_mounts()
            guard status == 0 else {
                return outcome.set(
                    .failure(
                        Fault(
                            .noAccess, what: "No private mounts can be made: \(errorText(-status)).",
                            remedy: "Run relight as root, on the machine itself or in the Relight environment.")))
            }
            do throws(Fault) {
                outcome.set(.success(try body()))
            } catch {
                outcome.set(.failure(error))
            }
        }
        thread.join()
        guard let result = outcome.value else {
            throw Fault(.system, what: "No thread can be started.", remedy: "Free some memory and try again.")
        }
        return try result.get()
    }

    private final class Outcome<T: Sendable>: Sendable {
        private let stored = Mutex<Result<T, Fault>?>(nil)
        var value: Result<T, Fault>? { stored.withLock { $0 } }
        func set(_ result: Result<T, Fault>) { stored.withLock { $0 = result } }
    }
}
