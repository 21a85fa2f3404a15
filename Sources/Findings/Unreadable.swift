// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Geometry

extension Finding {
    /// Sentences on `extents` that could not be read, each ending in `consequence`: one for each of the first 16, and one
    /// that sums up the rest. A failing disk may have thousands; the recovery point itself lists them all.
    public static func unreadable(_ extents: ExtentList, _ consequence: String) -> [String] {
        let most = 16
        var sentences = extents.extents.prefix(most).map {
            "\($0.length.bytes) bytes at byte \($0.start.bytes) \(consequence)"
        }
        let rest = ExtentList(extents.extents.dropFirst(most))
        if !rest.isEmpty {
            sentences.append(
                "\(rest.byteCount.bytes) more bytes in \(rest.extents.count) places, the last ending at byte "
                    + "\(rest.end.bytes), \(consequence)")
        }
        return sentences
    }
}
