// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Glibc
import Synchronization
import Threads

/// Calls something twice a second, for what else would be silent for long.
final class Ticker: Sendable {
    private let isOver = Atomic<Bool>(false)
    private let thread: Mutex<BackgroundThreads?>

    init(_ body: @escaping @Sendable () -> Void) {
        thread = Mutex(nil)
        let started = BackgroundThreads(1) { [self] in
            while !isOver.load(ordering: .relaxed) {
                body()
                usleep(500_000)
            }
        }
        thread.withLock { $0 = started }
    }

    func end() {
        isOver.store(true, ordering: .relaxed)
        thread.withLock { $0 }?.join()
    }
}
