// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
import Synchronization
import Testing
import Threads

@Suite struct WorkerTests {
    @Test func runsOnEveryThreadAndReportsTheFirstFault() throws {
        let seen = Mutex<Set<Int>>([])
        try Workers.run(4) { index, _ in seen.withLock { _ = $0.insert(index) } }
        #expect(seen.withLock { $0 } == [0, 1, 2, 3])
        #expect {
            try Workers.run(3) { (index, stop) throws(Fault) in
                if index == 1 { throw Fault(.system, what: "one", remedy: "") }
                while !stop.isSet { usleep(1000) }
            }
        } throws: { ($0 as? Fault)?.what == "one" }
    }
}
