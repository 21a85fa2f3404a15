// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Findings
import Glibc
import Tools

/// What one run of a command took.
struct Measured {
    /// Seconds from start to end.
    var wall: Double
    /// User and system seconds of the command and all its descendants that ended.
    var cpu: Double
    /// Bytes: the peak resident size of the largest process among them.
    var peak: UInt64
    /// Exit status; 128 + the signal's number.
    var status: Int32
}

/// Runs commands through a shell, because the peers are pipelines.
struct Shell {
    /// Added to the clean environment.
    var environment: [String: String] = [:]
    /// Receives the output of the last measured command.
    var log: String
    /// Priority of measured commands, as of nice(1).
    var priority = 0

    /// Seconds after which a command is taken to hang.
    static let limit = 3600.0

    private static let bash = Tool("/bin/bash", package: "bash")

    /// Runs a command that is not measured; its standard output. Throws when it fails. One that cleans up runs to its
    /// end although a stop was asked for.
    @discardableResult
    func run(_ command: String, limit: Int = 4 << 20, isCleaning: Bool = false) throws(Fault) -> String {
        try Shell.bash.check(
            ["-o", "pipefail", "-c", command], environment: environment, seconds: Shell.limit, limit: limit,
            interruptible: !isCleaning
        ).standardOutput
    }

    /// Whether a command that is not measured succeeds.
    func succeeds(_ command: String) throws(Fault) -> Bool {
        try Shell.bash.run(["-o", "pipefail", "-c", command], environment: environment, seconds: Shell.limit).status
            == 0
    }

    /// Runs a command and measures it. Its output goes to the log.
    func measure(_ command: String) throws(Fault) -> Measured {
        let output = unsafe relight_open(log, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        guard output >= 0 else {
            throw Fault(.system, what: "\(log) cannot be written.", remedy: "Choose another folder with --dir.")
        }
        defer { close(output) }
        // Each command is a session, and Linux shares the processors among sessions first: the session's own priority is
        // what counts where that is on.
        let autogroup =
            priority == 0
            ? "" : "[ ! -e /proc/self/autogroup ] || echo \(priority) > /proc/$BASHPID/autogroup || exit 1\n"
        let begin = Shell.now()
        let process = try Tool.spawn(
            "/usr/bin/nice", ["nice", "-n", "\(priority)", "/bin/bash", "-o", "pipefail", "-c", autogroup + command],
            environment: environment, standardOutput: output, standardError: output)
        var waiting = pollfd(fd: relight_process_descriptor(process), events: Int16(POLLIN), revents: 0)
        defer { if waiting.fd >= 0 { close(waiting.fd) } }
        // The descriptor ends the wait at once; the timeout is only for looking at the clock and for interrupts.
        while unsafe poll(&waiting, 1, 500) <= 0 {
            if relight_interrupted() != 0 || Shell.now() > begin + Shell.limit { kill(-process, SIGKILL) }
        }
        let end = Shell.now()
        var status: Int32 = 0
        var usage = rusage()
        while unsafe wait4(process, &status, 0, &usage) < 0 && errno == EINTR {}
        guard relight_interrupted() == 0 else {
            throw Fault(.interrupted, what: "Interrupted.", remedy: "Run the same command again; inputs are kept.")
        }
        return Measured(
            wall: end - begin, cpu: Shell.seconds(usage.ru_utime) + Shell.seconds(usage.ru_stime),
            peak: UInt64(max(0, usage.ru_maxrss)) << 10, status: Tool.exitStatus(status))
    }

    /// The last lines of the log, for a failure.
    func lastWords() throws(Fault) -> String {
        try run("tail -c 2000 '\(log)' | tr '\\r' '\\n' | grep -v '^ *$' | tail -n 3 || true")
    }

    static func now() -> Double {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    private static func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
}
