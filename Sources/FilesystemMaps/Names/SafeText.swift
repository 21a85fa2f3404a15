// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Names from a disk, made safe to print: on a terminal a control character can do anything.
public enum SafeText {
    /// `bytes` as UTF-8. What is no UTF-8 becomes `\xNN`, control characters, line separators and what changes the
    /// direction of text `\u{…}`, a backslash `\\`.
    public static func name(_ bytes: some Sequence<UInt8>) -> String {
        var result = ""
        var decoder = UTF8()
        // A decoder of its own, for which bytes were wrong must be known to print them.
        let all = Array(bytes)
        var position = 0
        while position < all.count {
            var length = 1
            var scalar: Unicode.Scalar?
            for count in 1...4 where position + count <= all.count {
                var part = all[position..<position + count].makeIterator()
                decoder = UTF8()
                if case .scalarValue(let value) = decoder.decode(&part), part.next() == nil,
                    UTF8.width(value) == count
                {
                    scalar = value
                    length = count
                    break
                }
            }
            if let scalar { append(scalar, to: &result) } else { result += "\\x" + hex(UInt32(all[position]), 2) }
            position += length
        }
        return result
    }

    /// `text` with the same replacements.
    public static func name(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars { append(scalar, to: &result) }
        return result
    }

    /// A path of at most `limit` characters; what is cut off at its start is told by an ellipsis.
    static func path(_ names: [String], limit: Int = 1024) -> String {
        let path = "/" + names.joined(separator: "/")
        return path.count <= limit ? path : "…" + path.suffix(limit - 1)
    }

    private static func append(_ scalar: Unicode.Scalar, to result: inout String) {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned, .surrogate:
            result += "\\u{\(hex(scalar.value, 1))}"
        default:
            if scalar == "\\" { result += "\\\\" } else { result.unicodeScalars.append(scalar) }
        }
    }

    private static func hex(_ value: UInt32, _ width: Int) -> String {
        let text = String(value, radix: 16, uppercase: true)
        return String(repeating: "0", count: max(0, width - text.count)) + text
    }
}
