// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FilesystemMaps

/// Texts out of files of systems.
enum PlainText {
    /// A text that may be printed, of at most `limit` characters; `nil` where nothing is left of it.
    static func safe(_ text: some StringProtocol, limit: Int = 256) -> String? {
        let trimmed = trim(text)
        guard !trimmed.isEmpty else { return nil }
        return SafeText.name(String(trimmed.prefix(limit)))
    }

    /// The lines of a file.
    static func lines(_ bytes: [UInt8]) -> [Substring] {
        String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline)
    }

    static func trim(_ text: some StringProtocol) -> String {
        var part = text[...]
        while let first = part.first, first.isWhitespace { part = part.dropFirst() }
        while let last = part.last, last.isWhitespace { part = part.dropLast() }
        return String(part)
    }

    /// `NAME=value` lines as a shell reads them: quotes taken away, backslashes before `"$\`` too. The first of each name.
    static func assignments(_ bytes: [UInt8]) -> [String: String] {
        var result: [String: String] = [:]
        for line in lines(bytes) {
            let line = trim(line)
            guard !line.hasPrefix("#"), let sign = line.firstIndex(of: "=") else { continue }
            let name = trim(line[..<sign])
            guard !name.isEmpty, result[name] == nil, result.count < 256 else { continue }
            result[name] = unquoted(trim(line[line.index(after: sign)...]))
        }
        return result
    }

    private static func unquoted(_ text: String) -> String {
        var result = ""
        var quote: Character?
        var isEscaped = false
        for character in text {
            if isEscaped {
                result.append(character)
                isEscaped = false
            } else if character == "\\", quote != "'" {
                isEscaped = true
            } else if let open = quote {
                if character == open { quote = nil } else { result.append(character) }
            } else if character == "\"" || character == "'" {
                quote = character
            } else if character.isWhitespace {
                // What follows is a comment or another word.
                break
            } else {
                result.append(character)
            }
        }
        return result
    }
}
