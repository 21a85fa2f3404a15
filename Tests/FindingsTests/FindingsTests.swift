// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Testing

@Suite struct FaultTests {
    @Test func saysPlaceProblemAndNextStep() {
        let fault = Fault(.missing, what: "There is no such disk.", place: "/dev/sdz", remedy: "Check the name.")
        #expect(fault.description == "/dev/sdz: There is no such disk. Check the name.")
        #expect(Fault(.usage, what: "Odd.", remedy: "").description == "Odd.")
    }

    /// Scripts rely on these.
    @Test(
        arguments: [
            (FaultCode.usage, 2), (.missing, 1), (.unreadable, 1), (.targetTooSmall, 4), (.targetInUse, 4),
            (.targetForbidden, 4), (.targetChanged, 4), (.planRefused, 4), (.setOnSource, 4), (.setDamaged, 5),
            (.diskDamaged, 5), (.readBack, 5), (.wrongKey, 6), (.storeFull, 7), (.storeFailed, 7), (.interrupted, 130),
        ] as [(FaultCode, Int32)])
    func endsTheProgramWithItsExitCode(code: FaultCode, exit: Int32) { #expect(code.exit.rawValue == exit) }
}
