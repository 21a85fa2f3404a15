// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// What is left of a structure whose copy is to be used.
enum Lost {
    /// Whether nothing is left: all bytes are 0, or all are 0xFF. Something that was encrypted, or another format's first
    /// structure, is not like that.
    static func isBlank(_ bytes: some Collection<UInt8>) -> Bool {
        guard let first = bytes.first, first == 0 || first == 0xFF else { return false }
        return bytes.allSatisfy { $0 == first }
    }
}
