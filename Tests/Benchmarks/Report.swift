// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry

/// The whole run as a document or as data.
struct Report {
    let machine: Machine
    let options: Options
    /// What each input holds, one sentence each.
    let inputs: [String]
    /// Where outputs went.
    let place: String
    /// The machine's load before each measured command.
    let loads: [Double]
    let results: [Result]

    /// Under which conditions the figures came about.
    var conditions: String {
        let nice = options.priority == 0 ? "" : ", measured commands at nice \(options.priority)"
        let load = "\(fixed(loads.min() ?? 0, 1)) to \(fixed(loads.max() ?? 0, 1)), median \(fixed(median(loads), 1))"
        return
            "\(options.rounds) interleaved round\(options.rounds == 1 ? "" : "s"), medians; source in the page cache, "
            + "output to \(place)\(nice). Load of the machine \(load), of which a measured command is about "
            + "\(machine.processors). A process that does nothing is charged \(machine.floor >> 20) MiB of peak memory."
    }

    /// `docs/benchmarks.md`.
    var markdown: String {
        var lines = [
            "# Benchmarks", "",
            "Written by `make bench-table`. What is measured, how, and how to read it: [Tests/Benchmarks/README.md](../Tests/Benchmarks/README.md).",
            "Figures of one machine say little about another; the ratios are the result.", "",
            "- Machine: \(machine.lines[0])", "- Programs: \(machine.lines[1])",
            "- \(conditions)",
        ]
        lines += inputs.map { "- \($0)" }
        lines += Tables(results: results, rounds: options.rounds).lines(markdown: true)
        return lines.joined(separator: "\n") + "\n"
    }

    /// Every sample. Seconds and bytes.
    var json: String {
        func quoted(_ text: String) -> String {
            var result = "\""
            for scalar in text.unicodeScalars {
                switch scalar {
                case "\"": result += "\\\""
                case "\\": result += "\\\\"
                case "\n": result += "\\n"
                default:
                    if scalar.value >= 32 { result.unicodeScalars.append(scalar) } else { result += " " }
                }
            }
            return result + "\""
        }
        func list(_ items: [String]) -> String { "[" + items.joined(separator: ", ") + "]" }
        let rows = results.map { row in
            let samples = row.samples.map { sample in
                "{\"wall\": \(fixed(sample.wall, 3)), \"cpu\": \(fixed(sample.cpu, 3)), \"peak\": \(sample.peak), \"output\": \(sample.output.map(String.init) ?? "null")}"
            }
            return
                "    {\"job\": \(quoted(row.job.title)), \"program\": \(quoted(row.contender)), \"remark\": \(row.remark.map(quoted) ?? "null"), \"samples\": \(list(samples))}"
        }
        return """
            {
              "machine": \(list(machine.lines.map(quoted))),
              "inputs": \(list(inputs.map(quoted))),
              "output": \(quoted(place)),
              "conditions": \(quoted(conditions)),
              "rounds": \(options.rounds),
              "peakOfNothing": \(machine.floor),
              "results": [
            \(rows.joined(separator: ",\n"))
              ]
            }

            """
    }
}
