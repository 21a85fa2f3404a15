// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Findings
import Glibc
import Synchronization

/// The same work on several threads; the first fault stops them all.
enum Threads {
    /// Runs `body` on `count` threads and returns when all have ended. `body` is called again and again on each thread
    /// until it returns false or any thread has failed. `prepare` makes what each thread keeps to itself.
    static func run<Own>(
        _ count: Int, prepare: @escaping @Sendable () throws(Fault) -> Own,
        _ body: @escaping @Sendable (inout Own) throws(Fault) -> Bool
    ) throws(Fault) {
        let shared = Shared()
        let work: @Sendable () -> Void = {
            do throws(Fault) {
                var own = try prepare()
                while !shared.stop.load(ordering: .relaxed) {
                    try Interruption.check()
                    if try !body(&own) { break }
                }
            } catch {
                shared.fault.withLock { if $0 == nil { $0 = error } }
                shared.stop.store(true, ordering: .relaxed)
            }
        }
        var threads: [pthread_t] = []
        for _ in 0..<max(1, count) - 1 {
            let box = unsafe Unmanaged.passRetained(Start(work))
            var thread = pthread_t()
            let status = unsafe pthread_create(
                &thread, nil,
                { argument in
                    if let argument = unsafe argument {
                        unsafe Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().body()
                    }
                    return nil
                }, box.toOpaque())
            if status == 0 { threads.append(thread) } else { unsafe box.release() }
        }
        work()
        for thread in threads { _ = pthread_join(thread, nil) }
        if let fault = shared.fault.withLock({ $0 }) { throw fault }
    }

    private final class Shared: Sendable {
        let stop = Atomic<Bool>(false)
        let fault = Mutex<Fault?>(nil)
    }

    private final class Start: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
}

/// Whether a stop was asked for (SIGINT, SIGTERM).
enum Interruption {
    static func check() throws(Fault) {
        guard relight_interrupted() == 0 else {
            throw Fault(
                .interrupted, what: "Interrupted.",
                remedy: "What was finished before is kept; run the same command again to go on.")
        }
    }
}
