// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Threads
///
/// Sharing work among threads, and noticing that a stop was asked for. The first fault stops every thread of a run. The
/// room knows nothing of what the work is.
import CLinux
public import Findings
import Glibc
import Synchronization

/// The same work on several threads; the first fault stops them all.
public enum Workers {
    /// Number of processors this process may use, at least 1: those its affinity mask allows (`taskset`, cpusets), where
    /// the kernel says so, else all that are online.
    public static var processors: Int {
        let usable = Int(relight_usable_processors())
        return max(1, usable > 0 ? usable : sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    }

    /// Runs `body` on `count` threads, handing each its index, and returns when all have ended.
    /// `body` should look at `stop` between pieces of work: it is true once another thread has failed.
    /// Throws the first fault.
    public static func run(
        _ count: Int, _ body: @escaping @Sendable (_ index: Int, _ stop: borrowing Stop) throws(Fault) -> Void
    ) throws(Fault) {
        let shared = Shared()
        var threads: [pthread_t] = []
        for index in 0..<max(1, count) - 1 {
            let box = unsafe Unmanaged.passRetained(
                Start { shared.run { () throws(Fault) in try body(index + 1, shared.stop) } })
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
        shared.run { () throws(Fault) in try body(0, shared.stop) }
        for thread in threads { _ = pthread_join(thread, nil) }
        if let fault = shared.fault.withLock({ $0 }) { throw fault }
    }

    /// Tells the threads of one run whether to go on.
    public struct Stop: ~Copyable, Sendable {
        fileprivate let flag = Atomic<Bool>(false)
        /// True once a thread has failed.
        public var isSet: Bool { flag.load(ordering: .relaxed) }
    }

    private final class Shared: Sendable {
        let stop = Stop()
        let fault = Mutex<Fault?>(nil)

        func run(_ body: () throws(Fault) -> Void) {
            do {
                try body()
            } catch {
                fault.withLock { if $0 == nil { $0 = error } }
                stop.flag.store(true, ordering: .relaxed)
            }
        }
    }

    private final class Start: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
}
