// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

@testable import BootEnvironment
import TestSupport
import Testing

@Suite struct KernelLineTests {
    @Test func wordsOfOthersAreLeftAlone() {
        let line = KernelLine("BOOT_IMAGE=/vmlinuz console=tty0 console=ttyS0,115200 quiet root=/dev/ram0")
        #expect(line == KernelLine(""))
        #expect(line.mode == .wizard)
        #expect(line.countdown == 10)
        #expect(line.network)
    }

    @Test(arguments: KernelLine.Mode.allCases)
    func modeIsRead(mode: KernelLine.Mode) {
        #expect(KernelLine("quiet relight.mode=\(mode.rawValue) x").mode == mode)
    }

    @Test func quotedValuesAndTheLastOfEqualsCount() {
        let line = KernelLine(
            "relight.mode=job relight.job=a \"relight.job=label:MY DISK/jobs/a.job\" relight.countdown=0 relight.hostname=web-01"
        )
        #expect(line.job == "label:MY DISK/jobs/a.job")
        #expect(line.countdown == 0)
        #expect(line.hostname == "web-01")
        #expect(line.complaints.isEmpty)
        #expect(KernelLine("relight.job=\"a b\"").job == "a b")
    }

    @Test(arguments: [
        "relight.mode=wizzard", "relight.countdown=-1", "relight.countdown=99999999999999999999",
        "relight.hostname=a_b",
        "relight.hostname=-x", "relight.hostname=", "relight.nonsense=1", "relight.",
    ])
    func mistakesAreSaidAndChangeNothing(text: String) {
        var line = KernelLine(text)
        #expect(line.complaints.count == 1)
        line.complaints = []
        #expect(line == KernelLine(""))
    }

    @Test(arguments: ["relight.job=/a", "relight.mode=shell relight.job=/a", "relight.job=/a relight.mode=wizard"])
    func aJobWithoutItsModeIsSaid(text: String) {
        let complaints = KernelLine(text).complaints
        #expect(complaints.count == 1)
        #expect(complaints.first?.contains("relight.job=/a") == true)
        #expect(complaints.first?.contains("relight.mode=job") == true)
        #expect(KernelLine("relight.job=/a relight.mode=job").complaints == [])
        #expect(KernelLine("relight.job=").complaints == [])
    }

    @Test func networkCanBeLeftAlone() {
        #expect(!KernelLine("relight.network=off").network)
        #expect(KernelLine("relight.network=on").network)
    }

    @Test func mutatedLinesNeverTrap() {
        let seed = Array("relight.mode=job \"relight.job=label:A B/x\" relight.countdown=5 relight.hostname=a".utf8)
        var random = Seeded(3)
        for _ in 0..<20_000 { _ = KernelLine(String(decoding: random.mutated(seed), as: UTF8.self)) }
    }
}
