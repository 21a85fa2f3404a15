// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// UUIDs whose bytes are stored in the order in which they are printed, as ext and XFS do.
enum PlainUUID {
    /// The text form, lower case, with dashes.
    static func text(_ bytes: [UInt8]) -> String {
        var result = ""
        for (index, digit) in Hex.text(bytes).enumerated() {
            if [8, 12, 16, 20].contains(index) { result.append("-") }
            result.append(digit)
        }
        return result
    }
}
