// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Commands
///
/// The command line: one file per verb. A verb parses its words, calls `Operations`, and prints; it decides nothing.
/// The root command, the global options and the exit code of every fault are here.
public import ArgumentParser
import Findings
import Glibc
import Operations
import Synchronization

/// `relight`.
public struct Relight: ParsableCommand {
    /// Name, summary and verbs.
    public static let configuration = CommandConfiguration(
        commandName: "relight",
        abstract: "Images disks cold, keeps and checks the images, and restores them to bare metal.",
        usage: "relight [--json] [--quiet] [--log-file <file>] <command> …",
        discussion: """
            Options before or after any command:
              --json             exactly one JSON document on standard output;
                                 progress as JSON lines on standard error
              --quiet            no progress
              --log-file <file>  also append everything said to a file

            Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but with losses that are listed; 4 refused before the \
            first write; 5 damaged data found; 6 wrong passphrase or key; 7 store full or unreachable; \
            130 interrupted.
            """,
        version: version,
        groupedSubcommands: [
            CommandGroup(
                name: "Images",
                subcommands: [
                    DisksCommand.self, BackupCommand.self, PointsCommand.self, ShowCommand.self, VerifyCommand.self,
                    RepairCommand.self, ForgetCommand.self, PruneCommand.self, CopyCommand.self, ArchiveCommand.self,
                    KeyCommand.self,
                ]),
            CommandGroup(name: "Restore", subcommands: [PlanCommand.self, RestoreCommand.self]),
            CommandGroup(name: "Boot", subcommands: [EFICommand.self, HardwareCommand.self]),
            CommandGroup(name: "Windows", subcommands: [HiveCommand.self]),
            CommandGroup(name: "Media", subcommands: [MediaCommand.self]),
            CommandGroup(name: "In the booted environment", subcommands: environmentCommands),
        ])

    /// The program's version.
    public static let version = Program.version

    /// Made by the argument parser.
    public init() {}

    /// Runs the command line `arguments` (without the program's name) and ends the process with its exit code.
    public static func start(_ arguments: [String]) -> Never {
        let (settings, rest) = OutputSettings.extract(from: arguments)
        let console = Console(settings)
        Console.current.withLock { $0 = console }
        Glibc.exit(code(of: rest, console).rawValue)
    }

    private static func code(of arguments: [String], _ console: Console) -> ProgramExit {
        do {
            try console.requireLog()
            if let fault = Wording.unknownVerb(arguments) { throw fault }
            var command = try parseAsRoot(arguments)
            try command.run()
            console.finish()
            return console.hasLosses ? .doneWithLosses : .done
        } catch let fault as Fault {
            console.fail(fault)
            return fault.code.exit
        } catch let refusal as Refused {
            console.refuse(refusal)
            return .refused
        } catch let early as EarlyExit {
            console.finish()
            return early.code
        } catch {
            let parsed = exitCode(for: error)
            if parsed.isSuccess {
                let text = fullMessage(for: error)
                if console.settings.json {
                    console.document(text == version ? "version" : "help", ["text": text])
                } else {
                    print(text)
                }
                return .done
            }
            guard parsed == .validationFailure else {
                let fault = Fault(
                    .system, what: "\(error)", remedy: "This is an error in the program: please report it.")
                console.fail(fault)
                return fault.code.exit
            }
            console.fail(Wording.usage(message(for: error), arguments))
            return .usage
        }
    }
}

/// Thrown by a verb that has said everything and only has an exit code left to give.
struct EarlyExit: Error {
    let code: ProgramExit
}

/// Thrown by a verb whose work was refused before the first write, with every reason.
struct Refused: Error {
    let reasons: [Fault]
}
