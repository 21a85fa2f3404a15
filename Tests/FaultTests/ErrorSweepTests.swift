// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Testing
import Tools

/// The kernel refuses, cuts short or interrupts each call of the program that changes a file. Success is never claimed
/// unless everything is there; a failure is said in a sentence and harms nothing that was there before.
@Suite(.enabled(if: Program.canBeTraced, Program.why), .serialized)
struct ErrorSweepTests {
    /// What the kernel does to a call.
    enum Interference: String, CaseIterable {
        /// The medium fails once.
        case failure = "error=EIO"
        /// The medium is full from here on.
        case full = "error=ENOSPC"
        /// A signal comes in between.
        case signal = "error=EINTR"
        /// The kernel says that it wrote a single byte, and wrote none.
        case short = "retval=1"

        /// Calls after which nothing can be called done.
        func mustFail(_ call: Call) -> Bool {
            switch self {
            case .failure, .full: ["pwrite64", "fsync", "renameat2", "rename"].contains(call.name)
            case .signal, .short: false
            }
        }

        func applies(to call: Call) -> Bool { self != .short || call.name == "pwrite64" }

        func option(_ call: Call) -> String {
            "inject=\(call.name):\(rawValue):when=\(call.number)\(self == .full ? "+" : "")"
        }
    }

    @Test(arguments: Verb.all) func successIsNeverClaimedAfterAnError(verb: Verb) throws {
        let stage = try Stage(verb)
        let calls = try stage.attempt { folder in try Call.record(stage.verb.command, in: folder).calls }
        try #require(calls.count >= 5)
        let step = Amount.isFull ? 1 : verb.step * 3
        var count = 0
        var failures = 0
        for (kind, interference) in Interference.allCases.enumerated() {
            for (index, call) in calls.enumerated()
            where interference.applies(to: call) && (index + kind * 2) % step == (index / step) % step {
                let moment = "\(verb.name), \(interference) at \(call): \(call.text)"
                count += 1
                try stage.attempt { folder in
                    let run = try Program.traced(
                        ["-qq", "-o", "/dev/null", "-e", "trace=\(call.name)", "-e", interference.option(call)],
                        stage.verb.command, in: folder)
                    if run.status == 0 {
                        // A point whose second copy could not be written is there, and that it has none is said.
                        #expect(
                            !interference.mustFail(call)
                                || run.standardError.contains("second copy could not be written"),
                            "\(moment): success is claimed")
                        for set in verb.sets { try set.expectDone(in: folder, moment) }
                    } else {
                        failures += 1
                        #expect([5, 7, 130].contains(run.status), "\(moment): \(run.status) \(run.standardError)")
                        #expect(run.isCleanFailure, "\(moment): \(run.standardError)")
                    }
                    for set in verb.sets {
                        try set.expectEarlierPoints(in: folder, moment)
                        try set.expectSound(in: folder, moment, copiesMayBeMissing: true)
                    }
                    if run.status != 0, count % 3 == 0 {
                        try KillSweepTests.expectRerunFinishes(stage.verb, in: folder, moment)
                    }
                }
            }
        }
        print(
            "error sweep: \(verb.name): \(count) errors at \(calls.count) calls, \(failures) of them ended the command")
        #expect(failures > 0)
    }
}
