// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings

/// What is said of a command line that is not understood, in the voice of every other fault.
enum Wording {
    /// Commands and options that are designed and come with later versions: who has read of them is told so.
    static let laterVerbs = [
        "clone", "ls", "extract", "boot", "bcd", "adapt", "wizard",
    ]
    static let laterOptions = ["--rate", "--resume", "--size", "--drop", "--table", "--firmware", "--ids"]
    /// Options that are taken out before a command sees its words.
    private static let everywhere = ["--json", "--quiet", "--log-file", "--version", "--help"]

    /// The fault for a first word that is no command, or a second that is none of the first; `nil` when both are.
    static func unknownVerb(_ arguments: [String]) -> Fault? {
        var command: any ParsableCommand.Type = Relight.self
        var said: [String] = []
        var known: [String] = []
        for word in arguments {
            guard !word.hasPrefix("-") else { return nil }
            let configuration = command.configuration
            let below = configuration.subcommands
            guard !below.isEmpty else { return nil }
            if said.isEmpty, word == "help" { return nil }
            if let next = find(word, in: below) {
                command = next
                said.append(word)
                continue
            }
            known = names(below)
            let typed = (["relight"] + said + [word]).joined(separator: " ")
            if said.isEmpty, laterVerbs.contains(word) {
                return Fault(
                    .usage, what: "`\(typed)` is not in this version.", remedy: "`relight --help` lists what is.")
            }
            let near = nearest(word, known)
            return Fault(
                .usage, what: "There is no command `\(typed)`.\(near.map { " Did you mean \($0)?" } ?? "")",
                remedy: said.isEmpty
                    ? "`relight --help` lists the commands."
                    : "There are: \(known.joined(separator: ", ")).")
        }
        return nil
    }

    private static func find(_ word: String, in commands: [any ParsableCommand.Type]) -> (any ParsableCommand.Type)? {
        for command in commands { if name(command) == word { return command } }
        return nil
    }

    private static func names(_ commands: [any ParsableCommand.Type]) -> [String] {
        var result: [String] = []
        for command in commands {
            let configuration = command.configuration
            if configuration.shouldDisplay { result.append(name(command)) }
        }
        return result
    }

    private static func name(_ command: any ParsableCommand.Type) -> String {
        let configuration = command.configuration
        return configuration.commandName ?? "\(command)".lowercased()
    }

    /// The fault for words that the parser refuses with `message`.
    static func usage(_ message: String, _ arguments: [String]) -> Fault {
        var what = message.split(separator: "\n").first.map(String.init) ?? "The command line is not understood"
        // The parser suggests options that have nothing in common with the one that was typed.
        if let range = what.firstRange(of: "Unknown option '"), let end = what[range.upperBound...].firstIndex(of: "'")
        {
            let option = String(what[range.upperBound..<end])
            let its = what.firstRange(of: "Did you mean '").map { range in
                String(what[range.upperBound...].prefix { $0 != "'" })
            }
            what =
                laterOptions.contains(option)
                ? "\(option) is not in this version."
                : "There is no option \(option) here."
                    + (nearest(option, everywhere + [its].compactMap { $0 }).map { " Did you mean \($0)?" } ?? "")
        }
        if let last = what.last, !".?!".contains(last) { what += "." }
        let verb = arguments.first { !$0.hasPrefix("-") }
        return Fault(
            .usage, what: what,
            remedy: verb.map { "`relight help \($0)` shows how it is written." }
                ?? "`relight --help` lists the commands.")
    }

    /// The one of `words` that was probably meant: one slip away, or two for longer ones; `nil` when none is near.
    static func nearest(_ word: String, _ words: [String]) -> String? {
        let letters = word.count { $0 != "-" }
        let best = words.map { ($0, distance(Array(word), Array($0))) }.min { $0.1 < $1.1 }
        guard let best, best.1 <= (letters < 6 ? 1 : 2) else { return nil }
        return best.0
    }

    /// Letters to change, add, leave out, or swap with their neighbour, to make one of the other.
    private static func distance(_ first: [Character], _ second: [Character]) -> Int {
        guard first.count < 64, second.count < 64 else { return .max }
        var rows = [Array(0...second.count)]
        for i in 1..<max(1, first.count + 1) {
            var row = [i]
            for j in 1..<max(1, second.count + 1) {
                let differs = first[i - 1] == second[j - 1] ? 0 : 1
                var best = min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + differs)
                if i > 1, j > 1, first[i - 1] == second[j - 2], first[i - 2] == second[j - 1] {
                    best = min(best, rows[i - 2][j - 2] + 1)
                }
                row.append(best)
            }
            rows.append(row)
        }
        return rows[first.count][second.count]
    }
}
