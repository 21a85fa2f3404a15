// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Glibc
import LinuxDisks
import Tools

/// Where a job is told of and keys are read from: every main console in the environment, standard output elsewhere. All
/// of it is kept for the log.
final class JobConsole {
    private struct Line {
        var device: ConsoleDevice
        var descriptor: Int32
        var before: termios?
        /// A shell that has the console for itself.
        var shell: Int32?
    }

    /// Bytes of the log that are kept; the middle of a longer one is dropped.
    static let limit = 4 << 20
    private var lines: [Line] = []
    private let toStandardOutput: Bool
    /// Told instead of standard output.
    private let listener: ((String) -> Void)?
    private let logDescriptor: Int32
    private(set) var log: [UInt8] = []
    private var isCut = false

    init(_ names: [String], logFile: String?, listener: ((String) -> Void)? = nil) {
        toStandardOutput = names.isEmpty && listener == nil
        self.listener = listener
        logDescriptor =
            logFile.map { unsafe relight_open($0, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0o600) } ?? -1
        for name in names {
            let device = ConsoleDevice(name: name, role: .main)
            let descriptor = JobConsole.open(device)
            guard descriptor >= 0 else { continue }
            Terminal.prepare(descriptor, device)
            lines.append(
                Line(device: device, descriptor: descriptor, before: Terminal.readKeys(descriptor), shell: nil))
        }
    }

    deinit {
        for line in lines {
            if let before = line.before { Terminal.restore(line.descriptor, before) }
            close(line.descriptor)
        }
        if logDescriptor >= 0 { close(logDescriptor) }
    }

    private static func open(_ device: ConsoleDevice) -> Int32 {
        unsafe relight_open(device.path, O_RDWR | O_NOCTTY | O_NONBLOCK, 0)
    }

    /// Says a line everywhere and keeps it.
    func say(_ text: String) {
        keep(text + "\n")
        listener?(text)
        show(text + "\r\n", plain: text + "\n")
    }

    /// Shows a line that overwrites itself on terminals and is not kept.
    func tick(_ text: String) { show("\r\u{1B}[K" + text, plain: nil) }

    private func show(_ text: String, plain: String?) {
        for line in lines where line.shell == nil { put(line.descriptor, Array(text.utf8)) }
        if toStandardOutput, let plain { put(1, Array(plain.utf8)) }
    }

    private func keep(_ text: String) {
        let bytes = Array(text.utf8)
        if logDescriptor >= 0 { put(logDescriptor, bytes) }
        if log.count + bytes.count > JobConsole.limit {
            // The beginning says what was asked, the end how it went.
            let part = JobConsole.limit / 2
            let head = log.prefix(part)
            let tail = log.suffix(part - (1 << 16))
            log = Array(head) + (isCut ? [] : Array("\n[part of the log was dropped here]\n".utf8)) + Array(tail)
            isCut = true
        }
        log += bytes
    }

    private func put(_ descriptor: Int32, _ bytes: [UInt8]) {
        var rest = bytes[...]
        var patience = 50
        while !rest.isEmpty, patience > 0 {
            let count = unsafe rest.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if count < 0, errno == EAGAIN || errno == EINTR {
                patience -= 1
                usleep(10_000)
            } else {
                return
            }
        }
    }

    /// Descriptors to wait on for keys.
    var keyDescriptors: [Int32] { lines.map { $0.shell == nil ? $0.descriptor : -1 } }

    /// Keys that were pressed since the last call, with the console each came from.
    func keys() -> [(key: UInt8, console: Int)] {
        var result: [(UInt8, Int)] = []
        for (index, line) in lines.enumerated() where line.shell == nil {
            var buffer = [UInt8](repeating: 0, count: 64)
            let got = unsafe buffer.withUnsafeMutableBytes { unsafe read(line.descriptor, $0.baseAddress, $0.count) }
            if got > 0 { result += buffer[0..<got].map { ($0, index) } }
        }
        return result
    }

    /// Gives a console to a root shell until that ends.
    func openShell(_ console: Int) {
        guard lines.indices.contains(console), lines[console].shell == nil else { return }
        let line = lines[console]
        if let before = line.before { Terminal.restore(line.descriptor, before) }
        put(line.descriptor, Array("\r\nA shell beside the job; `exit` goes back to it.\r\n".utf8))
        let name = line.device.name
        lines[console].shell = try? Tool.spawn(
            "/proc/self/exe", ["relight", "environment", "console", name, "shell"],
            environment: ["TERM": line.device.terminal], onTerminal: line.device.path)
    }

    /// Takes back consoles whose shell has ended.
    func takeBack() {
        for index in lines.indices {
            guard let shell = lines[index].shell else { continue }
            var status: Int32 = 0
            let ended = unsafe waitpid(shell, &status, WNOHANG)
            guard ended == shell || (ended < 0 && errno == ECHILD) else { continue }
            lines[index].shell = nil
            // The end of the shell's session hung up the descriptor.
            close(lines[index].descriptor)
            lines[index].descriptor = JobConsole.open(lines[index].device)
            lines[index].before = Terminal.readKeys(lines[index].descriptor)
            put(lines[index].descriptor, Array("\r\nBack to the job.\r\n".utf8))
        }
    }

    /// Ends shells that are still open.
    func closeShells() {
        for line in lines { if let shell = line.shell { kill(-shell, SIGHUP) } }
        for _ in 0..<20 where lines.contains(where: { $0.shell != nil }) {
            takeBack()
            usleep(50_000)
        }
    }
}
