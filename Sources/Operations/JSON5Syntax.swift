// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Where a text stops being JSON5 (https://spec.json5.org, sections 2 to 8). It says no more than that: values are read by the
/// decoder, which takes the same texts but does not tell the place of a mistake.
struct JSON5Syntax {
    /// A mistake and its place, both counted from 1; columns are characters.
    struct Mistake: Error, Hashable {
        var line: Int
        var column: Int
        /// A fragment: what was found and what belongs there.
        var what: String
    }

    /// Objects and lists may lie in each other this deep.
    static let depth = 512

    private let bytes: [UInt8]
    private var position = 0

    /// The first mistake in `bytes`, which are UTF-8; `nil` when there is none.
    static func mistake(in bytes: [UInt8]) -> Mistake? {
        var scanner = JSON5Syntax(bytes: bytes)
        do throws(Mistake) {
            try scanner.value(depth: 0)
            try scanner.blanks()
            guard scanner.byte == nil else { throw scanner.unexpected("the end of the file") }
            return nil
        } catch {
            return error
        }
    }

    private init(bytes: [UInt8]) {
        self.bytes = bytes
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { position = 3 }
    }

    private var byte: UInt8? { position < bytes.count ? bytes[position] : nil }
    private func byte(after count: Int) -> UInt8? {
        position + count < bytes.count ? bytes[position + count] : nil
    }
    private func isNext(_ character: Character) -> Bool { byte == character.asciiValue }

    private func mistake(_ what: String, at place: Int? = nil) -> Mistake {
        let before = bytes.prefix(place ?? position)
        let start = before.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
        return Mistake(
            line: before.count { $0 == UInt8(ascii: "\n") } + 1,
            column: String(decoding: before[start...], as: UTF8.self).count + 1, what: what)
    }

    private func unexpected(_ wanted: String) -> Mistake {
        guard let byte else { return mistake("the file ends where \(wanted) belongs") }
        guard byte >= 0x20 else { return mistake("a line or control character stands where \(wanted) belongs") }
        let rest = String(decoding: bytes[position...].prefix(16), as: UTF8.self)
        return mistake("\(rest.first.map { "\"\($0)\"" } ?? "something") stands where \(wanted) belongs")
    }

    /// Skips white space and comments.
    private mutating func blanks() throws(Mistake) {
        while let byte {
            switch byte {
            case 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x20: position += 1
            // No-break space, and what else Unicode calls a space.
            case 0xC2 where self.byte(after: 1) == 0xA0: position += 2
            case 0xEF where self.byte(after: 1) == 0xBB && self.byte(after: 2) == 0xBF: position += 3
            case 0xE2 where self.byte(after: 1) == 0x80 && (0x80...0xAF).contains(self.byte(after: 2) ?? 0):
                position += 3
            case UInt8(ascii: "/") where self.byte(after: 1) == UInt8(ascii: "/"):
                while let next = self.byte, next != 0x0A, next != 0x0D { position += 1 }
            case UInt8(ascii: "/") where self.byte(after: 1) == UInt8(ascii: "*"):
                let start = position
                position += 2
                while !(isNext("*") && self.byte(after: 1) == UInt8(ascii: "/")) {
                    guard self.byte != nil else { throw mistake("this comment has no end", at: start) }
                    position += 1
                }
                position += 2
            default: return
            }
        }
    }

    private mutating func value(depth: Int) throws(Mistake) {
        try blanks()
        guard depth < JSON5Syntax.depth else { throw mistake("too many values lie in each other") }
        switch byte {
        case UInt8(ascii: "{"):
            try list("}", "the name of a key, or }", depth) { (scanner) throws(Mistake) in
                try scanner.key()
                try scanner.blanks()
                guard scanner.isNext(":") else { throw scanner.unexpected("a colon") }
                scanner.position += 1
                try scanner.value(depth: depth + 1)
            }
        case UInt8(ascii: "["):
            try list("]", "a value, or ]", depth) { (scanner) throws(Mistake) in
                try scanner.value(depth: depth + 1)
            }
        case UInt8(ascii: "\""), UInt8(ascii: "'"): try string()
        default:
            let start = position
            while let byte, JSON5Syntax.isWord(byte) || [0x2B, 0x2D, 0x2E].contains(byte) { position += 1 }
            let word = String(decoding: bytes[start..<position], as: UTF8.self)
            guard !word.isEmpty else { throw unexpected("a value") }
            guard ["true", "false", "null"].contains(word) || JSON5Syntax.isNumber(word) else {
                throw mistake("\(word.prefix(40)) is no value; a text stands in quotes", at: start)
            }
        }
    }

    /// What stands between brackets, parted by commas; one more comma may stand at the end.
    private mutating func list(
        _ end: Character, _ wanted: String, _ depth: Int, _ item: (inout JSON5Syntax) throws(Mistake) -> Void
    ) throws(Mistake) {
        position += 1
        while true {
            try blanks()
            if isNext(end) { break }
            guard byte != nil, !isNext(",") else { throw unexpected(wanted) }
            try item(&self)
            try blanks()
            if isNext(end) { break }
            guard isNext(",") else { throw unexpected("a comma or \(end)") }
            position += 1
        }
        position += 1
    }

    private mutating func key() throws(Mistake) {
        if isNext("\"") || isNext("'") { return try string() }
        let start = position
        while let byte, JSON5Syntax.isWord(byte) { position += 1 }
        guard position > start, !(0x30...0x39).contains(bytes[start]) else {
            position = start
            throw unexpected("the name of a key")
        }
    }

    private mutating func string() throws(Mistake) {
        let start = position
        let quote = byte
        position += 1
        while let byte, byte != quote {
            guard byte != 0x0A, byte != 0x0D else {
                throw mistake("this text has no closing quote in its line", at: start)
            }
            // A line end after a backslash goes on with the text.
            position += byte == UInt8(ascii: "\\") ? 2 : 1
        }
        guard byte != nil else { throw mistake("this text has no closing quote", at: start) }
        position += 1
    }

    /// Letters, digits, `_`, `$`, a backslash, and everything beyond ASCII.
    private static func isWord(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x61...0x7A).contains(byte | 0x20) && byte >= 0x41 || byte == 0x5F
            || byte == 0x24
            || byte == 0x5C || byte >= 0x80
    }

    private static func isNumber(_ word: String) -> Bool {
        var text = word.lowercased()[...]
        if let first = text.first, first == "+" || first == "-" { text = text.dropFirst() }
        if text == "infinity" || text == "nan" { return true }
        if text.hasPrefix("0x") { return text.count > 2 && text.dropFirst(2).allSatisfy(\.isHexDigit) }
        return text.first.map { $0.isNumber || $0 == "." } ?? false
            && Double(text.hasPrefix(".") ? "0\(text)" : "\(text)0") != nil
    }
}
