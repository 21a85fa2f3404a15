// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
import Testing
import Tools

/// The program is killed at each of its calls that change a file. What was there before is never harmed, what was being
/// made is absent or complete, and the same command run again finishes.
@Suite(.enabled(if: Program.canBeTraced, Program.why), .serialized)
struct KillSweepTests {
    @Test(arguments: Verb.all) func killedAtAnyCallItHarmsNothing(verb: Verb) throws {
        let stage = try Stage(verb)
        let calls = try stage.attempt { folder in
            let (calls, output) = try Call.record(stage.verb.command, in: folder)
            try #require(output.status == 0, "\(verb.name): \(output.standardError)")
            for set in verb.sets {
                try set.expectDone(in: folder, "undisturbed")
                try set.expectTidy(in: folder, "undisturbed")
            }
            return calls
        }
        try #require(calls.count >= 5, "a change of a set takes more calls than \(calls.count)")
        let step = Amount.isFull ? 1 : verb.step
        var killed = 0
        for (index, call) in calls.enumerated() where index % step == (index / step) % step {
            let moment = "\(verb.name), killed at \(call): \(call.text)"
            try stage.attempt { folder in
                let run = try Program.traced(
                    [
                        "-qq", "-o", "/dev/null", "-e", "trace=\(call.name)", "-e",
                        "inject=\(call.name):signal=SIGKILL:when=\(call.number)",
                    ], stage.verb.command, in: folder)
                // strace ends as its child did.
                #expect(run.status == 137 || run.status == 128 + SIGKILL || run.status < 0, "\(moment): \(run.status)")
                killed += 1
                for set in verb.sets {
                    try set.expectEarlierPoints(in: folder, moment)
                    try set.expectSound(in: folder, moment, copiesMayBeMissing: true)
                    if index % 5 == 0 { try set.expectJudgeAgrees(in: folder, moment) }
                }
                try Self.expectRerunFinishes(stage.verb, in: folder, moment)
            }
        }
        let kinds = Dictionary(grouping: calls, by: \.name).map { "\($0.key) \($0.value.count)" }.sorted()
        print(
            "kill sweep: \(verb.name): strace counts \(calls.count) calls (\(kinds.joined(separator: ", "))), killed at \(killed)"
        )
        if Amount.isFull { #expect(killed == calls.count) }
    }

    static func expectRerunFinishes(_ verb: Verb, in folder: String, _ moment: String) throws {
        let rerun = try Program.run(verb.command, in: folder)
        #expect(
            rerun.status == 0 || rerun.status == verb.statusWhenDone, "\(moment), run again: \(rerun.standardError)")
        for command in verb.afterwards {
            let run = try Program.run(command, in: folder)
            #expect(run.status == 0, "\(moment), then \(command): \(run.standardError)")
        }
        for set in verb.sets {
            try set.expectDone(in: folder, moment + ", run again")
            try set.expectSound(in: folder, moment + ", run again")
            try set.expectTidy(in: folder, moment + ", run again")
        }
    }
}
