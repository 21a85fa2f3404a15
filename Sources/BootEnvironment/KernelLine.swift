// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// What the kernel's command line asks of the environment.
public struct KernelLine: Hashable, Sendable {
    /// What the consoles show.
    public enum Mode: String, Sendable, CaseIterable {
        /// The main screen with a shell below it.
        case wizard
        /// A shell.
        case shell
        /// The job file.
        case job
    }
    /// `relight.mode=`; `wizard` when missing or unknown.
    public var mode = Mode.wizard
    /// `relight.job=`: a path, or `label:NAME/file`. Used in ``Mode/job`` only.
    public var job: String?
    /// `relight.countdown=`: seconds before a job starts, 0 ... 3600.
    public var countdown = 10
    /// `relight.hostname=`: letters, digits and hyphens.
    public var hostname: String?
    /// `relight.network=off`: the network is left alone.
    public var network = true
    /// What could not be understood, a sentence each.
    public var complaints: [String] = []

    /// Reads the line. Words are parted by blanks; a value may be quoted. The last of equal names counts, as in the
    /// kernel. Words that do not begin with `relight.` are not ours.
    public init(_ text: String) {
        for word in KernelLine.words(text) where word.hasPrefix("relight.") {
            let sign = word.firstIndex(of: "=")
            let name = String(word[..<(sign ?? word.endIndex)])
            let value = sign.map { String(word[word.index(after: $0)...]) } ?? ""
            switch name {
            case "relight.mode":
                if let mode = Mode(rawValue: value) {
                    self.mode = mode
                } else {
                    let known = Mode.allCases.map(\.rawValue).joined(separator: ", ")
                    complaints.append("relight.mode=\(value) on the kernel line is none of \(known); wizard is used.")
                }
            case "relight.job": job = value.isEmpty ? nil : value
            case "relight.countdown":
                if let seconds = Int(value), (0...3600).contains(seconds) {
                    countdown = seconds
                } else {
                    complaints.append(
                        "relight.countdown=\(value) on the kernel line is not a number of seconds from 0 to 3600; "
                            + "\(countdown) is used.")
                }
            case "relight.hostname":
                let plain = value.utf8.allSatisfy {
                    (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x2D
                }
                if plain, !value.isEmpty, value.utf8.count <= 63, !value.hasPrefix("-") {
                    hostname = value
                } else {
                    complaints.append(
                        "relight.hostname=\(value) on the kernel line is not a host's name; it is ignored.")
                }
            case "relight.network": network = value != "off"
            default: complaints.append("\(name) on the kernel line is not known; it is ignored.")
            }
        }
        if let job, mode != .job {
            complaints.append(
                "relight.job=\(job) on the kernel line does nothing without relight.mode=job; no job is run.")
        }
    }

    /// The words of a kernel line: blanks part them except between double quotes, which are dropped.
    static func words(_ text: String) -> [String] {
        var words: [String] = []
        var word = ""
        var isQuoted = false
        for character in text {
            if character == "\"" {
                isQuoted.toggle()
            } else if character.isWhitespace, !isQuoted {
                if !word.isEmpty { words.append(word) }
                word = ""
            } else {
                word.append(character)
            }
        }
        if !word.isEmpty { words.append(word) }
        return words
    }
}
