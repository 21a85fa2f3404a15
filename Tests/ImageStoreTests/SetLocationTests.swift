// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import ImageStore
import Testing

@Suite struct SetLocationTests {
    /// U+0602 joins what follows it to one character, U+0301 joins what stands before it.
    @Test func separatorsAreBytesNotCharacters() throws {
        let joined = try SetLocation("/mnt/a\u{602}@latest")
        #expect(joined.set == "/mnt/a\u{602}" && joined.point == "latest")
        let accented = try SetLocation("/mnt@1/\u{301}b")
        #expect(accented.set == "/mnt@1/\u{301}b" && accented.point == "latest")
    }
}
