// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Findings

/// Where a word of a declarative file was written.
public struct Origin: Hashable, Sendable, CustomStringConvertible {
    /// The file's name as the user knows it.
    public var file: String
    /// The line, counted from 1.
    public var line: Int

    /// `file:line`.
    public var description: String { "\(file):\(line)" }
}

/// A word with the place it was written at.
public struct Word: Hashable, Sendable {
    /// The word, without a trailing `?`.
    public var text: String
    /// Written with a trailing `?`: not finding it is no error (suites differ).
    public var isOptional: Bool
    /// The place.
    public var origin: Origin
}

/// A line of a declarative file: a verb and its words.
struct Declaration: Hashable, Sendable {
    var verb: String
    var words: [Word]
    var origin: Origin

    /// The line's words as one text, for sentences.
    var sentence: String { words.map(\.text).joined(separator: " ") }

    /// A fault that names this line.
    func fault(_ what: String, remedy: String) -> Fault {
        Fault(.mediaDescription, what: what, place: origin.description, remedy: remedy)
    }

    /// The line's only word.
    func single(_ meaning: String) throws(Fault) -> String {
        guard let word = words.first, words.count == 1 else {
            throw fault(
                "`\(verb)` takes exactly one word, \(meaning), but \(words.count) are given.",
                remedy: "Write `\(verb) \(meaning.uppercased())`.")
        }
        return word.text
    }
}

/// Reads the line-oriented format of `initramfs-hooks/*.hook` and `iso-builder/layout`: one verb and its words on each
/// line, separated by blanks; `#` at a line's start or after a blank begins a comment. There is no quoting and no
/// continuation: a verb may be repeated instead.
enum DeclarationFile {
    /// The longest line that is accepted, in bytes; longer ones are a damaged file.
    static let longestLine = 4096

    /// The declarations of `text`; `file` is the name for messages. Throws on control characters and endless lines.
    static func parse(_ text: String, file: String) throws(Fault) -> [Declaration] {
        var declarations: [Declaration] = []
        var number = 0
        for line in text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            number += 1
            let origin = Origin(file: file, line: number)
            guard line.count <= longestLine else {
                throw Fault(
                    .mediaDescription, what: "The line has \(line.count) bytes; \(longestLine) is the most.",
                    place: origin.description, remedy: "Split it: a verb may be repeated on the next line.")
            }
            if let control = line.first(where: { ($0 < 0x20 && $0 != UInt8(ascii: "\t")) || $0 == 0x7F }) {
                throw Fault(
                    .mediaDescription, what: "The line holds the control character \(control).",
                    place: origin.description, remedy: "Save the file as plain text with Unix line ends.")
            }
            var words: [Word] = []
            for piece in line.split(whereSeparator: { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }) {
                guard piece.first != UInt8(ascii: "#") else { break }
                var text = String(decoding: piece, as: UTF8.self)
                let isOptional = text.count > 1 && text.hasSuffix("?")
                if isOptional { text.removeLast() }
                words.append(Word(text: text, isOptional: isOptional, origin: origin))
            }
            guard let verb = words.first else { continue }
            declarations.append(Declaration(verb: verb.text, words: Array(words.dropFirst()), origin: origin))
        }
        return declarations
    }
}
