// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Commands
///
/// The command line: one file per verb. A verb parses its words, calls `Operations`, and prints; it decides nothing.
/// The root command and the exit code of every fault are here.
public import ArgumentParser

/// `relight`.
public struct Relight: ParsableCommand {
    /// Name, summary and verbs.
    public static let configuration = CommandConfiguration(
        commandName: "relight",
        abstract: "Images machines cold, restores them to bare metal, and gets them to boot.",
        version: version,
        subcommands: [])

    /// The program's version.
    public static let version = "0.1.0"

    /// Made by the argument parser.
    public init() {}
}
