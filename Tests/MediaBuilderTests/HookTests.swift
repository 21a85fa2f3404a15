// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Testing

@testable import MediaBuilder

@Test func aHookNeedsAnAbout() {
    #expect(throws: Fault.self) { try Hook(name: "x", text: "packages a\n", file: "x.hook") }
}
