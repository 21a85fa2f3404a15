// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry

/// What the command line asks for.
struct Options {
    /// The `relight` to measure.
    var relight = ""
    /// Folder for inputs and small files.
    var directory = "build/bench"
    /// Number of rounds.
    var rounds = 3
    /// Used bytes of the main inputs.
    var size = UInt64(2) << 30
    /// Where the files of the inputs are taken from.
    var source = "/usr"
    /// Only contenders and jobs whose name matches.
    var only: String?
    /// Where to write the tables as Markdown.
    var table: String?
    /// Where to write the samples as JSON.
    var json: String?
    /// Priority of the measured commands, −20 … 19.
    var priority = 0
    /// Only make the inputs.
    var isInputsOnly = false

    static let usage = """
        usage: relight-bench RELIGHT [--rounds N] [--size 2G] [--only REGEX] [--dir FOLDER] [--source FOLDER]
                             [--table FILE.md] [--json FILE] [--nice N] [--inputs-only]

          --rounds N      rounds of every contender once (default 3)
          --size SIZE     used bytes of the main inputs, e.g. 256M or 2G (default 2G)
          --only REGEX    only contenders whose "input: name" matches, e.g. 'ext4: (relight|borg)' (extended, any case)
          --dir FOLDER    inputs and small files (default build/bench); inputs are kept for the next run
          --source FOLDER where the files of the inputs are taken from (default /usr)
          --table FILE    also write the tables as Markdown
          --json FILE     also write every sample as JSON
          --nice N        priority of the measured commands, e.g. -10 on a machine that does other work (default 0)
          --inputs-only   make the inputs that are missing, and measure nothing

        Needs root (loop devices, mounts) and the packages that `make deps-bench` installs.
        """

    /// The options; `nil` when the arguments are not understood.
    static func parse(_ arguments: ArraySlice<String>) throws(Fault) -> Options? {
        var options = Options()
        var rest = Array(arguments)
        while !rest.isEmpty {
            let word = rest.removeFirst()
            guard word.hasPrefix("--") else {
                guard options.relight.isEmpty else { return nil }
                options.relight = word
                continue
            }
            if word == "--inputs-only" {
                options.isInputsOnly = true
                continue
            }
            guard !rest.isEmpty else { return nil }
            let value = rest.removeFirst()
            switch word {
            case "--rounds":
                guard let rounds = Int(value), (1...1000).contains(rounds) else { return nil }
                options.rounds = rounds
            case "--size":
                guard let size = bytes(value), size >= 64 << 20, size <= 1 << 40 else {
                    throw Fault(
                        .usage, what: "The size \(value) is not between 64M and 1024G.", remedy: "Write e.g. 2G.")
                }
                options.size = size
            case "--nice":
                guard let priority = Int(value), (-20...19).contains(priority) else { return nil }
                options.priority = priority
            case "--only": options.only = value
            case "--dir": options.directory = value
            case "--source": options.source = value
            case "--table": options.table = value
            case "--json": options.json = value
            default: return nil
            }
        }
        return options.relight.isEmpty ? nil : options
    }

    /// Bytes written as `256M`, `2G` or a plain number.
    private static func bytes(_ text: String) -> UInt64? {
        let shifts: [Character: UInt64] = ["K": 10, "M": 20, "G": 30]
        guard let last = text.uppercased().last else { return nil }
        let shift = shifts[last]
        guard let number = UInt64(shift == nil ? text : String(text.dropLast())) else { return nil }
        let (value, overflow) = number.multipliedReportingOverflow(by: 1 << (shift ?? 0))
        return overflow ? nil : value
    }
}
