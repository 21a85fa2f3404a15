// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import CLinux
import Findings
import FoundationEssentials
import Geometry
import Glibc
import Tools

/// `relight-vm`: runs the scenarios on virtual machines.
struct RelightVM: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "relight-vm", abstract: "Tests Relight on virtual machines.",
        subcommands: [List.self, Run.self, Demo.self])

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the scenarios.")
        mutating func run() {
            for scenario in allScenarios {
                print("\(scenario.name)  [\(scenario.kind.rawValue)]  \(scenario.shows)")
            }
        }
    }

    struct Run: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Runs scenarios, one after the other.")

        @Argument(help: "Scenarios by name; a trailing * stands for any end.")
        var names: [String] = []
        @Option(help: "Instead of names: quick or full.")
        var set: String?
        @Option(help: "The ISO under test.")
        var iso = "build/relight.iso"
        @Option(help: "Folder with vmlinuz and initrd of the same build.")
        var boot = "build/boot"
        @Option(help: "The program of the same build, for use on this machine.")
        var program = "build/relight"
        @Option(help: "Folder for logs and disks; each scenario has one below it.")
        var out = "build/vm"
        @Option(help: "Folder for what is kept from run to run.")
        var cache = "build/cache/vm"
        @Option(help: "Also write the results as a table to this file.")
        var results: String?
        @Option(help: "Multiplies all time limits, for slow or busy machines.")
        var patience = 1.0

        mutating func validate() throws {
            guard names.isEmpty != (set == nil) else { throw ValidationError("Give names or --set quick|full.") }
            if let set, Scenario.Kind(rawValue: set) == nil { throw ValidationError("--set takes quick or full.") }
        }

        mutating func run() throws {
            let chosen = try choose()
            let here = FileManager.default.currentDirectoryPath
            func full(_ path: String) -> String { path.hasPrefix("/") ? path : here + "/" + path }
            var rows: [ResultRow] = []
            for scenario in chosen {
                let folder = full(out) + "/" + scenario.name
                try? FileManager.default.removeItem(atPath: folder)
                try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
                print("\(scenario.name): \(scenario.shows)")
                let stage = Stage(
                    folder: folder, iso: full(iso), boot: full(boot), cache: full(cache), program: full(program),
                    patience: patience)
                let began = Time.now()
                var failure: String?
                do {
                    try scenario.run(stage)
                } catch {
                    failure = "\(error)"
                    if relight_interrupted() != 0 { throw ExitCode(130) }
                }
                let row = ResultRow(
                    scenario: scenario, seconds: Time.now() - began, figures: stage.figures, failure: failure,
                    log: try logDigest(folder))
                rows.append(row)
                print("  \(failure == nil ? "ok" : "FAILED") after \(Time.short(row.seconds)) s  \(row.figureText)")
                if let failure { print("    \(failure)\n    \(folder)") }
            }
            let failed = rows.filter { $0.failure != nil }.count
            print("\n" + ResultRow.table(rows))
            print("\n\(rows.count - failed) of \(rows.count) passed.")
            if let results { try writeText(results, ResultRow.document(rows)) }
            if failed > 0 { throw ExitCode(1) }
        }

        private func choose() throws -> [Scenario] {
            if let set { return allScenarios.filter { set == "full" || $0.kind.rawValue == set } }
            var chosen: [Scenario] = []
            for name in names {
                let found = allScenarios.filter {
                    name.hasSuffix("*") ? $0.name.hasPrefix(name.dropLast()) : $0.name == name
                }
                guard !found.isEmpty else {
                    throw ValidationError("There is no scenario \(name); see `relight-vm list`.")
                }
                chosen += found
            }
            return chosen
        }

        /// SHA-256 of all console logs of a scenario, in their order.
        private func logDigest(_ folder: String) throws -> String {
            let logs = try FileManager.default.contentsOfDirectory(atPath: folder)
                .filter { $0.hasPrefix("console-") }.sorted()
            var text: [UInt8] = []
            for log in logs { text += [UInt8](try Data(contentsOf: URL(filePath: folder + "/" + log))) }
            let output = try Tool("sha256sum", package: "coreutils").check([], input: text).standardOutput
            return String(output.prefix(64))
        }
    }
}

/// A scenario's result.
struct ResultRow {
    var scenario: Scenario
    var seconds: Double
    var figures: [(name: String, value: String)]
    /// What went wrong; `nil`: passed.
    var failure: String?
    /// SHA-256 of its console logs.
    var log: String

    var figureText: String { figures.map { "\($0.name) \($0.value)" }.joined(separator: ", ") }

    /// Columns of equal width for a terminal.
    static func table(_ rows: [ResultRow]) -> String {
        let width = rows.map(\.scenario.name.count).max() ?? 0
        return rows.map { row in
            let name = row.scenario.name + String(repeating: " ", count: width - row.scenario.name.count)
            return
                "\(name)  \(row.failure == nil ? "ok    " : "FAILED")  \(Time.fixed(row.seconds)) s  \(row.figureText)"
        }.joined(separator: "\n")
    }

    /// The page for `docs/results.md`.
    static func document(_ rows: [ResultRow]) -> String {
        var text = """
            # Results

            Written by `relight-vm run --results`; never by hand. Virtual machines under QEMU without hardware
            acceleration. Times are from power-on. The last column is the SHA-256 of the run's console logs.

            | scenario | shows | result | seconds | figures | log |
            |---|---|---|---:|---|---|

            """
        for row in rows {
            text += "| \(row.scenario.name) | \(row.scenario.shows) | \(row.failure == nil ? "passed" : "**failed**") "
            text += "| \(Time.short(row.seconds)) | \(row.figureText) | `\(row.log.prefix(16))` |\n"
        }
        return text
    }
}
