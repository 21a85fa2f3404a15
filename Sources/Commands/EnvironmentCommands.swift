// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import BootEnvironment
import CLinux
import FileTrees
import Findings
import Glibc
import LinuxDisks
import Operations
import Synchronization

extension Relight {
    /// Verbs of the booted environment.
    static let environmentCommands: [any ParsableCommand.Type] = [
        JobCommand.self, ScreenCommand.self, PowerOffCommand.self, RebootCommand.self, HaltCommand.self,
        EnvironmentCommand.self,
    ]

    /// The program's first step: as PID 1 of the environment it supervises; called by another name (`poweroff`,
    /// `relight-lease`) it does what that name says; else it is the command line.
    public static func begin(_ words: [String]) -> Never {
        ProbeChild.serveIfAsked(words)
        let name = words.first ?? "relight"
        if BootEnvironment.isInit(firstWord: name) {
            BootEnvironment.run(version: version, arguments: Array(words.dropFirst()))
        }
        let called = name.split(separator: "/").last.map(String.init) ?? name
        if NetworkLease.program.hasSuffix("/" + called) {
            NetworkLease.take(environmentVariables())
            Glibc.exit(0)
        }
        if let shutdown = Shutdown(rawValue: called) { start([shutdown.rawValue]) }
        start(Array(words.dropFirst()))
    }

    /// What is wrong with a command's words; `nil` when the command line takes them.
    static func complaint(_ words: [String]) -> String? {
        do {
            _ = try parseAsRoot(words)
            return nil
        } catch {
            let text = message(for: error).split(separator: "\n").first.map(String.init) ?? "it is not understood"
            return text.last == "." || text.last == "?" ? text : text + "."
        }
    }

    private static func environmentVariables() -> [String: String] {
        var result: [String: String] = [:]
        var next = unsafe environ
        while let text = unsafe next.pointee {
            let entry = unsafe String(cString: text)
            if let sign = entry.firstIndex(of: "=") {
                result[String(entry[..<sign])] = String(entry[entry.index(after: sign)...])
            }
            unsafe next = next.advanced(by: 1)
        }
        return result
    }
}

/// `relight poweroff`.
struct PowerOffCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "poweroff", abstract: "Leaves the environment and switches the machine off.")
    func run() throws { try Shutdown.powerOff.request() }
}

/// `relight reboot`.
struct RebootCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reboot", abstract: "Leaves the environment and starts the machine again.")
    func run() throws { try Shutdown.restart.request() }
}

/// `relight halt`.
struct HaltCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "halt", abstract: "Leaves the environment and stops the machine.", shouldDisplay: false)
    func run() throws { try Shutdown.halt.request() }
}

/// `relight screen`.
struct ScreenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "screen", abstract: "Shows the machine at a glance: disks, network, commands.")
    func run() throws {
        let terminal = unsafe getenv("RELIGHT_CONSOLE").map { unsafe String(cString: $0) } ?? "ttyS0"
        let isSerial = ConsoleDevice(name: terminal, role: .main).isSerial
        let console = Console.current.withLock { $0 }
        let text = MainScreen(version: Relight.version, isSerial: isSerial).text(rows: 1000)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        console.document("screen", ["lines": lines])
        for line in lines { console.line(line) }
    }
}

/// `relight environment`: what PID 1 starts.
struct EnvironmentCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "environment", abstract: "What the booted environment's supervisor starts.", shouldDisplay: false,
        subcommands: [
            Check.self, Coldplug.self, Hotplug.self, NetworkClient.self, ConsoleScreen.self, Job.self, WriteOut.self,
        ])

    /// Children of PID 1 that only read small files get by with this much address space, bytes.
    private static let memory: UInt64 = 768 << 20

    /// Says a line on the standard output PID 1 gave, which is the console.
    static func say(_ text: String) { print("Relight: \(text)") }

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "check", abstract: "Checks that the whole environment was unpacked.")
        @Flag(help: "Compare the digests of the content too.") var content = false
        func run() throws {
            _ = relight_limit_memory(memory)
            let status = try BootEnvironment.check(content: content, say: say)
            if status != 0 { Glibc.exit(status) }
            if content { Console.current.withLock { $0 }.line("All files are as they were made.") }
        }
    }

    struct WriteOut: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "write-out", abstract: "Writes everything out and unmounts, as the machine is left.")
        func run() { Shutdown.writeOut() }
    }

    struct Coldplug: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "coldplug", abstract: "Loads the drivers of all devices and waits for the disks.")
        func run() throws {
            _ = relight_limit_memory(memory)
            Drivers.coldplug(say: say)
        }
    }

    struct Hotplug: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "hotplug", abstract: "Loads the drivers of devices as they appear.")
        func run() throws {
            _ = relight_limit_memory(memory)
            Drivers.listen(say: say)
            throw ExitCode.failure
        }
    }

    struct NetworkClient: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "network", abstract: "Brings the wired network up and keeps it up.")
        func run() throws { throw Network.run() }
    }

    struct ConsoleScreen: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "console", abstract: "Shows a screen on the terminal of this process and becomes a shell.")
        @Argument(help: "The terminal's name.") var terminal: String
        @Argument(help: "main, shell or incomplete.") var kind: String
        func run() throws {
            let device = ConsoleDevice(name: terminal, role: .main)
            throw ConsoleSession.run(
                ConsoleSession.Kind(rawValue: kind) ?? .shell, terminal: device, version: Relight.version)
        }
    }

    struct Job: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "job", abstract: "Finds the job file and carries it out on the consoles.")
        @Option(help: "A console to talk on.") var console: [String] = []
        @Option(help: "The job file; searched for when missing.") var file: String?
        @Option(help: "Seconds in which a key stops it.") var countdown = 10
        func run() throws {
            // How the job went is said on the consoles; a status of this process would look like a signal to PID 1.
            _ = JobRunner(consoles: console, understand: Relight.complaint).run(place: file, countdown: countdown)
        }
    }
}

/// `relight job …`.
struct JobCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "job", abstract: "Carries out a job file: steps that run without anybody watching.",
        subcommands: [Run.self, Check.self])

    /// `relight job run`.
    struct Run: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Carries out a job file.",
            discussion: """
                The file is JSON5: { relight: 1, steps: [{backup: {…}}, {verify: {…}}, {restore: {…}}, {run: […]}], \
                after: "poweroff" }. Keys are the options of the command line in camel case. A step that overwrites a \
                disk must name it by serial:, wwn: or its exact size: and say confirm: true.
                """)
        @Argument(help: ArgumentHelp("The job file: a path, or label:NAME/file.", valueName: "file"))
        var file: String
        @Option(help: ArgumentHelp("Seconds to wait first.", valueName: "seconds"))
        var countdown = 0
        func run() throws {
            let console = Console.current.withLock { $0 }
            let runner = JobRunner(
                consoles: [], understand: Relight.complaint,
                say: console.settings.json ? { console.errorLine($0) } : nil)
            let status = runner.run(place: file, countdown: countdown)
            if console.settings.json, let fault = runner.fault { throw fault }
            console.document("job", JobDocument(runner, status: status))
            if status != 0 { Glibc.exit(status) }
        }
    }

    /// `relight job check`.
    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Checks a job file and shows its steps; does nothing else.")
        @Argument(help: ArgumentHelp("The job file: a path, or label:NAME/file.", valueName: "file"))
        var file: String
        func run() throws {
            let console = Console.current.withLock { $0 }
            let found = try JobSearch.find(file, say: { console.errorLine($0) }, understand: Relight.complaint)
            try found.job.check(Relight.complaint)
            try JobRunner.checkDisks(found.job)
            console.document("job", JobDocument(found))
            for step in found.job.steps {
                console.line("\(step.number). \(step.verb.rawValue): \(step.arguments.joined(separator: " "))")
            }
            console.line("after: \(found.job.after.rawValue)")
        }
    }
}

/// A job in JSON: what it would do, and what came of the steps that were run.
private struct JobDocument: Encodable {
    let name: String
    let steps: [Step]
    let after: String
    /// `nil` for a job that was only checked.
    let ok: Bool?

    struct Step: Encodable {
        let number: Int
        let verb: String
        let arguments: [String]
        /// `ok`, `failed`, `refused` or `crashed`; `nil` when it was not run.
        let outcome: String?
        let status: Int32?
    }

    init(_ found: FoundJob) {
        name = found.name
        after = found.job.after.rawValue
        ok = nil
        steps = found.job.steps.map {
            Step(number: $0.number, verb: $0.verb.rawValue, arguments: $0.arguments, outcome: nil, status: nil)
        }
    }

    init(_ runner: JobRunner, status: Int32) {
        name = runner.found?.name ?? ""
        after = runner.found?.job.after.rawValue ?? ""
        ok = status == ProgramExit.done.rawValue || status == ProgramExit.doneWithLosses.rawValue
        steps = (runner.found?.job.steps ?? []).map { step in
            let result = runner.results[step.number]
            return Step(
                number: step.number, verb: step.verb.rawValue, arguments: step.arguments,
                outcome: result?.outcome.rawValue, status: result?.status)
        }
    }
}
