// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Testing
import Tools

@Suite struct ToolTests {
    let shell = Tool("/bin/sh", package: "dash")

    @Test func capturesBothStreamsAndTheStatus() throws {
        let result = try shell.run(["-c", "echo out; echo err >&2; exit 7"])
        #expect(result.standardOutput == "out\n")
        #expect(result.standardError == "err\n")
        #expect(result.status == 7)
        #expect(result.lastLine == "err")
    }

    @Test func aMissingProgramNamesItsPackage() {
        #expect {
            try Tool("no-such-program", package: "such-package").run([])
        } throws: { error in
            guard let fault = error as? Fault else { return false }
            return fault.code == .toolMissing && fault.remedy.contains("such-package")
        }
    }

    @Test func givesInputLargerThanAPipe() throws {
        let input = [UInt8](repeating: 65, count: 1 << 20)
        let result = try Tool("wc", package: "coreutils").run(["-c"], input: input)
        #expect(result.standardOutput == "1048576\n")
    }

    /// A program that leaves a child holding its output must not be waited for.
    @Test func doesNotWaitForGrandchildren() throws {
        let clock = ContinuousClock()
        let time = try clock.measure { _ = try shell.run(["-c", "sleep 20 & exit 0"], seconds: 15) }
        #expect(time < .seconds(10))
    }

    @Test func killsTheWholeSessionWhenTimeIsUp() {
        #expect {
            try shell.run(["-c", "sleep 60 & sleep 60"], seconds: 0.3)
        } throws: { error in (error as? Fault)?.code == .toolFailed }
    }

    @Test func inheritsNoDescriptors() throws {
        let result = try shell.run(["-c", "ls /proc/self/fd | wc -l"])
        // 0, 1, 2 and the one `ls` opened for the folder itself.
        #expect(result.standardOutput == "4\n")
    }

    @Test func boundsWhatItCaptures() throws {
        let result = try shell.run(["-c", "head -c 1000000 /dev/zero"], limit: 1000)
        #expect(result.standardOutput.utf8.count == 1000)
        #expect(result.status == 0)
    }

    @Test func hasACleanEnvironment() throws {
        let result = try Tool("env", package: "coreutils").run([], environment: ["X": "1"])
        let names = result.standardOutput.split(separator: "\n").compactMap { $0.split(separator: "=").first }
        #expect(Set(names.map(String.init)) == ["HOME", "LC_ALL", "PATH", "TERM", "X"])
    }

    @Test func checkThrowsWithTheLastLine() {
        #expect {
            try shell.check(["-c", "echo reason >&2; exit 3"])
        } throws: { error in
            guard let fault = error as? Fault else { return false }
            return fault.code == .toolFailed && fault.what.contains("reason") && fault.what.contains("3")
        }
    }
}
