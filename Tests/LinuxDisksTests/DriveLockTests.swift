// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Testing

@testable import LinuxDisks

/// Drives that lock themselves; there is none here, so what they answer is given.
struct DriveLockTests {
    private static func codes(_ flags: UInt32) -> [String] {
        DriveLock.findings("/dev/sdx", flags: flags).map(\.code)
    }

    @Test func aLockedDriveIsNamed() {
        #expect(Self.codes(0).isEmpty)
        #expect(Self.codes(3).isEmpty)
        #expect(Self.codes(7).isEmpty)
        #expect(Self.codes(15) == ["disk.opal-locked"])
    }

    @Test func aDriveThatShowsItsShadowIsNamed() {
        #expect(Self.codes(31) == ["disk.opal-shadow"])
        #expect(Self.codes(55).isEmpty)
    }

    @Test func whatKnowsNothingOfOpalSaysNothing() {
        #expect(DriveLock.findings("/dev/null").isEmpty && DriveLock.findings("/nowhere").isEmpty)
    }
}
