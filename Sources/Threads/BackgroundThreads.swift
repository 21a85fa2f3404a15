// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Glibc
import Synchronization

/// Threads that work beside their maker until they end by themselves.
public final class BackgroundThreads: Sendable {
    private let threads: Mutex<[pthread_t]>

    /// Starts `count` threads that run `body`. Where the system has no more threads there are fewer, see ``count``.
    public init(_ count: Int, _ body: @escaping @Sendable () -> Void) {
        var started: [pthread_t] = []
        for _ in 0..<count {
            let box = unsafe Unmanaged.passRetained(Body(body))
            var thread = pthread_t()
            let status = unsafe pthread_create(
                &thread, nil,
                { argument in
                    if let argument = unsafe argument {
                        unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
                    }
                    return nil
                }, box.toOpaque())
            if status == 0 { started.append(thread) } else { unsafe box.release() }
        }
        threads = Mutex(started)
    }

    /// Number of threads that were started and not joined yet.
    public var count: Int { threads.withLock { $0.count } }

    /// Returns when all have ended.
    public func join() {
        let all = threads.withLock { threads in
            defer { threads = [] }
            return threads
        }
        for thread in all { _ = pthread_join(thread, nil) }
    }

    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }
}
