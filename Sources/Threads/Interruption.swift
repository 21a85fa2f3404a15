// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings

/// Whether the user or the system asked the program to stop (SIGINT, SIGTERM).
public enum Interruption {
    /// Throws `interrupted` once a stop was asked for. Long loops call it at each piece of work.
    public static func check() throws(Fault) {
        guard relight_interrupted() == 0 else {
            throw Fault(
                .interrupted, what: "Interrupted.",
                remedy: "What was finished before is kept; run the same command again to go on.")
        }
    }
}
