// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
import Glibc
import LinuxDisks
import Tools

/// PID 1's loop: starts children, hears of their ends, and says so. It reads nothing that is not its own.
final class Supervisor {
    /// What a child is there for.
    enum Role: Hashable {
        case check
        case coldplug
        case hotplug
        case network
        case job
        case console(String, ConsoleSession.Kind)

        /// One word for the list of children, and back.
        var word: String {
            switch self {
            case .check: return "check"
            case .coldplug: return "coldplug"
            case .hotplug: return "hotplug"
            case .network: return "network"
            case .job: return "job"
            case .console(let name, let kind): return "console:\(name):\(kind.rawValue)"
            }
        }

        init?(word: String) {
            let parts = word.split(separator: ":").map(String.init)
            switch parts.first {
            case "check": self = .check
            case "coldplug": self = .coldplug
            case "hotplug": self = .hotplug
            case "network": self = .network
            case "job": self = .job
            case "console" where parts.count == 3:
                guard let kind = ConsoleSession.Kind(rawValue: parts[2]) else { return nil }
                self = .console(parts[1], kind)
            default: return nil
            }
        }

        var title: String {
            switch self {
            case .check: return "The check of the unpacked files"
            case .coldplug: return "The loading of drivers"
            case .hotplug: return "The listener for new devices"
            case .network: return "The network"
            case .job: return "The job"
            case .console(let name, _): return "The session on \(name)"
            }
        }
    }

    private struct Child {
        var role: Role
        var since: Double
    }

    /// How long to wait before a child that ended is started again: it doubles while the child does not live.
    struct BackOff {
        private(set) var failures = 0

        /// Seconds to wait after a child that lived for `lifetime` seconds.
        mutating func pause(afterLifetime lifetime: Double) -> Double {
            failures = lifetime >= 5 ? 0 : min(failures + 1, 6)
            return failures == 0 ? 0.2 : min(30, Double(1 << failures) / 2)
        }
    }

    static let childrenPath = "/run/relight/children"
    static let readyPath = "/run/relight/ready"
    static let markerPath = "/run/relight/environment"

    private let version: String
    private var line = KernelLine("")
    private var consoles: [ConsoleDevice] = []
    private var broadcast = Broadcast([])
    private var children: [Int32: Child] = [:]
    private var backOffs: [Role: BackOff] = [:]
    private var due: [(time: Double, role: Role)] = []
    private var isChecked = false
    private var isComplete = true
    private var isColdplugged = false
    private var isReady = false
    private var began = 0.0

    init(version: String) { self.version = version }

    /// Never returns; a fault of the loop itself ends in a message and the loop's next turn.
    func run(problems: [String], isResumed: Bool) -> Never {
        let wanted = [SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGPWR, SIGHUP]
        let signals = unsafe relight_signal_descriptor(wanted, Int32(wanted.count))
        // Warnings and worse stay in the kernel's log; the consoles are for people.
        _ = relight_kernel_messages_on_console(3)
        line = KernelLine(KernelFiles.live.word("/proc/cmdline", limit: 65_536) ?? "")
        consoles = ConsoleDevice.find()
        broadcast = Broadcast(consoles.filter { $0.role == .main })
        began = uptime()
        if isResumed {
            takeOver()
        } else {
            begin(problems)
        }
        while true {
            turn(signals)
        }
    }

    private func begin(_ problems: [String]) {
        say("")
        say(stamped("Relight \(version): started."))
        for problem in problems + line.complaints { say(stamped("Relight: \(problem)")) }
        setHostName()
        _ = writeFile(Supervisor.markerPath, version + "\n")
        start(.hotplug)
        start(.coldplug)
        start(.check)
    }

    /// After PID 1 crashed and was executed again its children still run; the list says what each is for.
    private func takeOver() {
        for line in KernelFiles.live.lines(Supervisor.childrenPath, limit: 65_536) {
            let parts = line.split(separator: " ")
            guard parts.count == 2, let process = Int32(parts[0]), process > 1, let role = Role(word: String(parts[1])),
                kill(process, 0) == 0
            else { continue }
            children[process] = Child(role: role, since: uptime())
        }
        isReady = KernelFiles.live.exists(Supervisor.readyPath)
        isComplete = !KernelFiles.live.exists(ConsoleSession.complaintPath)
        let running = Set(children.values.map(\.role))
        if isReady {
            isChecked = true
            isColdplugged = true
            let main = Set(consoles.filter { $0.role == .main }.map(\.name))
            for role in Supervisor.lost(standingRoles, running: running, mainConsoles: main) { start(role) }
        } else {
            for role in [Role.hotplug, .coldplug, .check] where !running.contains(role) { start(role) }
        }
        say(stamped("Relight: the supervisor goes on with \(children.count) children."))
    }

    /// The standing roles to start after a crash. While a job runs the main consoles are its own.
    static func lost(_ standing: [Role], running: Set<Role>, mainConsoles: Set<String>) -> [Role] {
        standing.filter { role in
            if running.contains(role) { return false }
            if running.contains(.job), case .console(let name, _) = role { return !mainConsoles.contains(name) }
            return true
        }
    }

    /// Roles that should always run once the environment is ready.
    private var standingRoles: [Role] {
        [.hotplug] + (line.network ? [.network] : []) + consoles.map { .console($0.name, kind(of: $0)) }
    }

    private func kind(of console: ConsoleDevice) -> ConsoleSession.Kind {
        if !isComplete { return .incomplete }
        return console.role == .shell || line.mode == .shell ? .shell : .main
    }

    private func turn(_ signals: Int32) {
        let now = uptime()
        let ready = due.filter { $0.time <= now }
        due.removeAll { $0.time <= now }
        for item in ready { start(item.role) }

        let wait = due.map { max(0, $0.time - uptime()) }.min() ?? 1
        var polls = [pollfd(fd: signals, events: Int16(POLLIN), revents: 0)]
        _ = unsafe poll(&polls, 1, Int32(min(wait, 1) * 1000) + 1)
        while case let signal = relight_read_signal(signals), signal != 0 {
            if let shutdown = Shutdown.asked(by: signal) { shutdown.perform(say: { [self] in say($0) }) }
        }
        // Also without a signal: two that come together are told as one.
        reap()
        if !isReady, !isColdplugged, uptime() - began > 90 {
            say(stamped("Relight: a driver does not come up; going on without waiting for it."))
            isColdplugged = true
        }
        if !isReady, !isChecked, uptime() - began > 90 { isChecked = true }
        if !isReady, isChecked, isColdplugged { becomeReady() }
    }

    private func reap() {
        while true {
            var status: Int32 = 0
            let process = unsafe waitpid(-1, &status, WNOHANG)
            guard process > 0 else { return }
            // Others are orphans that came to PID 1.
            guard let child = children.removeValue(forKey: process) else { continue }
            writeChildren()
            ended(child, Tool.exitStatus(status))
        }
    }

    private func ended(_ child: Child, _ status: Int32) {
        let lifetime = uptime() - child.since
        switch child.role {
        case .check:
            isChecked = true
            if status == BootEnvironment.incompleteStatus {
                isComplete = false
                say(KernelText.file(ConsoleSession.complaintPath) ?? "RELIGHT IS INCOMPLETE.")
            } else if status != 0 {
                complain(child.role, status)
            }
        case .coldplug:
            if status != 0 { complain(child.role, status) }
            isColdplugged = true
            say(stamped("Relight: drivers are loaded."))
        case .job:
            jobEnded(status)
        case .hotplug, .network:
            complain(child.role, status)
            again(child.role, lifetime)
        case .console:
            if status != 0, status < 128 || status == 128 + SIGHUP || status == 128 + SIGTERM {
                // A shell ends with the status of its last command, or is hung up: nothing is wrong.
            } else if status != 0 {
                complain(child.role, status)
            }
            again(child.role, lifetime)
        }
    }

    private func again(_ role: Role, _ lifetime: Double) {
        var backOff = backOffs[role] ?? BackOff()
        due.append((uptime() + backOff.pause(afterLifetime: lifetime), role))
        backOffs[role] = backOff
    }

    private func complain(_ role: Role, _ status: Int32) {
        let how = status > 128 ? "was ended by signal \(status - 128)" : "ended with status \(status)"
        say(stamped("Relight: \(role.title) \(how)."))
    }

    private func becomeReady() {
        isReady = true
        _ = writeFile(Supervisor.readyPath, "\(uptime())\n")
        if line.network, isComplete { start(.network) }
        guard isComplete else {
            for console in consoles { start(.console(console.name, .incomplete)) }
            return
        }
        say(stamped("Relight: ready to take orders."))
        say("RELIGHT-READY \(version)")
        if line.mode == .job {
            start(.job)
            for console in consoles where console.role == .shell { start(.console(console.name, .shell)) }
        } else {
            for console in consoles { start(.console(console.name, kind(of: console))) }
        }
    }

    /// The job ran, or its countdown was stopped: the consoles are for people again.
    private func jobEnded(_ status: Int32) {
        if status > 128 {
            // The runner itself crashed, so nobody else will say it.
            complain(.job, status)
            say("RELIGHT-JOB failed")
        }
        let running = Set(children.values.map(\.role))
        for console in consoles where console.role == .main {
            let role = Role.console(console.name, .main)
            if !running.contains(role) { start(role) }
        }
    }

    private func start(_ role: Role) {
        let relight = "/proc/self/exe"
        do throws(Fault) {
            let process: Int32
            switch role {
            case .console(let name, let kind):
                guard let console = consoles.first(where: { $0.name == name }) else { return }
                process = try Tool.spawn(
                    relight, ["relight", "environment", "console", console.name, kind.rawValue],
                    environment: ["TERM": console.terminal], onTerminal: console.path)
            case .job:
                var words = ["relight", "environment", "job", "--countdown", String(line.countdown)]
                for console in consoles where console.role == .main { words += ["--console", console.name] }
                if let job = line.job { words.append("--file=\(job)") }
                process = try Tool.spawn(relight, words, standardOutput: 1, standardError: 2)
            case .check, .coldplug, .hotplug, .network:
                process = try Tool.spawn(
                    relight, ["relight", "environment", role.word], standardOutput: 1, standardError: 2)
            }
            children[process] = Child(role: role, since: uptime())
            writeChildren()
        } catch {
            say(stamped("Relight: \(role.title) cannot be started. \(error.what)"))
            switch role {
            case .check: isChecked = true
            case .coldplug: isColdplugged = true
            default: again(role, 0)
            }
        }
    }

    private func writeChildren() {
        let lines = children.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value.role.word)\n" }
        _ = writeFile(Supervisor.childrenPath, lines.joined())
    }

    private func setHostName() {
        let name = line.hostname ?? KernelFiles.live.word("/etc/hostname", limit: 64) ?? "relight"
        _ = unsafe sethostname(name, name.utf8.count)
    }

    private func say(_ text: String) {
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) { broadcast.say(String(line)) }
    }
}

extension BootEnvironment {
    /// Exit status of the check when files are missing.
    public static let incompleteStatus: Int32 = 40

    /// Checks the unpacked files: 0 when they are all there (or no list says which), ``incompleteStatus`` when not,
    /// with the text for people left for PID 1. `content` compares the digests too, which takes long.
    public static func check(content: Bool = false, say: (String) -> Void) throws(Fault) -> Int32 {
        guard let bytes = KernelFiles.live.bytes(UnpackedManifest.path, limit: UnpackedManifest.limit + 1) else {
            say("No list of files came with this environment, so nobody knows whether it is complete.")
            return 0
        }
        let manifest = try UnpackedManifest(parsing: bytes)
        var differences = manifest.differences()
        if differences.isEmpty, content { differences = try manifest.contentDifferences() }
        guard !differences.isEmpty else { return 0 }
        let complaint = manifest.complaint(differences, memory: UnpackedManifest.memory())
        if MachineProbe.isEnvironment(), !content { _ = writeFile(ConsoleSession.complaintPath, complaint) }
        if content { say(complaint) }
        return incompleteStatus
    }
}
