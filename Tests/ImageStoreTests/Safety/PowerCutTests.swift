// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import TestSupport
import Testing

@testable import ImageStore

/// Power cuts on a medium with a volatile cache, computed: after each thing the store does, every combination of what
/// was not flushed yet.
@Suite struct PowerCutTests {
    @Test func whateverAPowerCutLeavesReportedPointsAreThere() throws {
        let outcome = try PowerCut.twoBackups()
        #expect(outcome.violations.isEmpty, "\(outcome.violations)")
        #expect(outcome.moments > 60 && outcome.remains > 10 && outcome.reruns > 5 && outcome.shared > 5)
        print(
            "power cut: \(outcome.moments) moments, \(outcome.remains) different remains, \(outcome.reruns) backed up to, \(outcome.shared) with two names of one file"
        )
    }

    @Test func encryptedSetsWithParityToo() throws {
        let base = Sample.folder()
        defer { Sample.remove(base) }
        let keys = EncryptionTests.ring("pass")
        var options = EncryptionTests.options()
        options.parity = 10
        let recorder = DiskRecorder()
        try recorder.record {
            try Sample.backup(
                [(PowerCut.first, nil)], to: FolderStore(path: base + "/set"), name: "first", options: options,
                keys: keys)
            recorder.acknowledge(["first"])
        }
        let outcome = try PowerCut(contents: ["first": PowerCut.first], keys: keys, options: options, rerunStep: 3)
            .run(
                recorder.steps, base: base)
        #expect(outcome.violations.isEmpty, "\(outcome.violations)")
        #expect(outcome.remains > 8)
    }
}
