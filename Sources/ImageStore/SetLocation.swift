// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings

/// `SET[@POINT]` as written on a command line. The separator is the last `@` after the last `/`.
public struct SetLocation: Hashable, Sendable {
    /// The place of the set: a folder.
    public var set: String
    /// A point's id prefix, or `latest`.
    public var point: String

    /// Parses `SET[@POINT]`; the point is `latest` when none is named. Throws `usage` when either part is empty, or the
    /// point is neither `latest` nor hexadecimal digits.
    public init(_ text: String) throws(Fault) {
        // By bytes, as the kernel parts paths: a character may be one of the separators and what follows in one.
        let bytes = text.utf8
        let start = bytes.lastIndex(of: UInt8(ascii: "/")).map { bytes.index(after: $0) } ?? bytes.startIndex
        if let separator = bytes[start...].lastIndex(of: UInt8(ascii: "@")) {
            set = String(text[..<separator])
            point = String(text[bytes.index(after: separator)...])
        } else {
            set = text
            point = "latest"
        }
        let isPrefix = (1...32).contains(point.utf8.count) && point.allSatisfy { $0.isASCII && $0.isHexDigit }
        guard !set.isEmpty, point == "latest" || isPrefix else {
            throw Fault(
                .usage, what: "\"\(text)\" does not name an image set and a recovery point in it.",
                remedy:
                    "Write SET, SET@latest, or SET@ and the first digits of a point's id; `relight points SET` lists them. "
                    + "When the folder's own name has an @, write a / after it or add @latest.")
        }
    }
}
