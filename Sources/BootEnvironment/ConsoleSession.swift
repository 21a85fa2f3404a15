// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
import Glibc
import LinuxDisks
import Tools

/// What runs on one console, in a process of its own whose terminal it is: it shows its screen and becomes a root shell.
public enum ConsoleSession {
    /// What a console shows.
    public enum Kind: String, Sendable, CaseIterable {
        /// The main screen, and a shell below it.
        case main
        /// A shell.
        case shell
        /// The environment is incomplete: a message, and keys to restart or to look around.
        case incomplete
    }

    /// Where PID 1 leaves the text about missing files.
    static let complaintPath = "/run/relight/incomplete"

    /// Shows the screen on standard output and becomes a shell. Returns only with a fault.
    public static func run(_ kind: Kind, terminal: ConsoleDevice, version: String) -> Fault {
        _ = relight_take_terminal(0)
        Terminal.prepare(0, terminal)
        switch kind {
        case .main:
            // The screen is cleared on the machine's own display only: a serial line's log is worth more than its looks.
            // What a job said must stay to be read.
            let line = KernelLine(KernelFiles.live.word("/proc/cmdline", limit: 65_536) ?? "")
            if !terminal.isSerial, line.mode != .job { put("\u{1B}[H\u{1B}[2J") }
            put(MainScreen(version: version, isSerial: terminal.isSerial).text(rows: Terminal.rows(0)))
        case .shell:
            put("\nRelight \(version): root shell on \(terminal.name). `relight screen` shows the machine.\n\n")
        case .incomplete:
            if let fault = offerKeys() { return fault }
        }
        return shell(terminal)
    }

    /// Replaces this process by a root shell. Returns only with a fault.
    static func shell(_ terminal: ConsoleDevice) -> Fault {
        let environment = shellEnvironment(terminal)
        var fault = Fault(
            .environmentIncomplete, what: "No shell was unpacked.",
            remedy: "Give the machine more memory and start it again.")
        for path in ["/usr/bin/bash", "/bin/bash", "/usr/bin/sh", "/bin/sh"] where unsafe access(path, X_OK) == 0 {
            unsafe chdir("/root")
            let name = path.split(separator: "/").last.map(String.init) ?? "sh"
            fault = Tool.execute(path, ["-\(name)"], environment: environment)
        }
        return fault
    }

    static func shellEnvironment(_ terminal: ConsoleDevice) -> [String: String] {
        [
            "TERM": terminal.terminal, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash",
            "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "HISTFILE": "/dev/null", "RELIGHT_CONSOLE": terminal.name,
            "PS1": "relight:\\w# ",
        ]
    }

    /// Waits for a key: `s` goes on to a shell, `r` restarts, `p` switches off.
    private static func offerKeys() -> Fault? {
        let complaint = KernelText.file(complaintPath) ?? "RELIGHT IS INCOMPLETE."
        while true {
            put("\n\(complaint)\n\nKeys: r restarts, p switches off, s opens a shell for looking around.\n")
            let before = Terminal.readKeys(0)
            var key: UInt8 = 0
            let got = unsafe read(0, &key, 1)
            if let before { Terminal.restore(0, before) }
            if got == 0 || (got < 0 && errno != EINTR) {
                return Fault(.system, what: "The console is gone.", remedy: "Use another console.")
            }
            switch Character(UnicodeScalar(key)) {
            case "r": kill(1, Shutdown.restart.signal)
            case "p": kill(1, Shutdown.powerOff.signal)
            case "s": return nil
            default: continue
            }
            sleep(30)
        }
    }

    private static func put(_ text: String) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe write(1, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return }
            rest = rest.dropFirst(count)
        }
    }
}

/// Text files of the environment's own.
enum KernelText {
    /// The text at `path`, at most 64 KiB.
    static func file(_ path: String) -> String? {
        let descriptor = unsafe relight_open(path, O_RDONLY, 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let got = unsafe buffer.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
        return got > 0 ? String(decoding: buffer[0..<got], as: UTF8.self) : nil
    }
}
