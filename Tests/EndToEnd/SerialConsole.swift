// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Findings
import Glibc

/// The machine's serial console: everything it prints, with the time since power-on, and what is typed to it.
///
/// It is read while something is waited for; a machine that prints when nobody waits is held up, never lost.
final class SerialConsole {
    private let input: Int32
    private let output: Int32
    private let log: Int32
    private let began: Double
    private let patience: Double
    /// All bytes so far.
    private var received: [UInt8] = []
    /// What was already waited for.
    private var cursor = 0
    private var lineBegan = 0
    private var lineTime = 0.0
    private(set) var hasEnded = false

    /// Texts that end every wait at once.
    static let fatal = ["Kernel panic - not syncing", "error: you need to load the kernel first", "No bootable device"]

    /// `input` is what the machine reads, `output` what it prints; both are closed with the console.
    init(input: Int32, output: Int32, logFile: String, patience: Double) throws(Fault) {
        self.input = input
        self.output = output
        self.patience = patience
        log = unsafe open(logFile, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        began = Time.now()
        guard log >= 0 else {
            throw Fault(.system, what: "The log cannot be written.", place: logFile, remedy: "Check the folder.")
        }
    }
    deinit {
        close(input)
        close(output)
        close(log)
    }

    /// Seconds since power-on.
    var elapsed: Double { Time.now() - began }

    /// Everything printed so far.
    var text: String { String(decoding: received, as: UTF8.self) }

    /// Whether `text` was printed at any time.
    func has(_ text: String) -> Bool { received.firstRange(of: Array(text.utf8)) != nil }

    /// Waits until `text` is printed after what was last waited for. The seconds since power-on.
    ///
    /// - Parameter seconds: only guards against a machine that hangs; multiplied by the run's patience.
    @discardableResult
    func wait(_ text: String, within seconds: Double) throws(Fault) -> Double {
        try waitForAny([text], within: seconds).time
    }

    /// Waits until one of `texts` is printed; which one, and when.
    @discardableResult
    func waitForAny(_ texts: [String], within seconds: Double) throws(Fault) -> (text: String, time: Double) {
        let deadline = Time.now() + seconds * patience
        let needles = texts.map { ($0, Array($0.utf8)) }
        let fatal = Self.fatal.filter { !texts.contains($0) }.map { ($0, Array($0.utf8)) }
        var searched = cursor
        while true {
            let fresh = received[searched...]
            let hits = needles.compactMap { text, bytes in fresh.firstRange(of: bytes).map { ($0, text) } }
            if let (range, text) = hits.min(by: { $0.0.lowerBound < $1.0.lowerBound }) {
                cursor = range.upperBound
                return (text, elapsed)
            }
            if let (bad, _) = fatal.first(where: { fresh.firstRange(of: $0.1) != nil }) {
                readFor(2)
                throw failure("The machine says \"\(bad)\" while \(Self.list(texts)) is waited for.")
            }
            // A text may come in pieces: the end of what was searched is searched again.
            searched = max(cursor, received.count - 256)
            if hasEnded { throw failure("The machine ended while \(Self.list(texts)) was waited for.") }
            if relight_interrupted() != 0 {
                throw Fault(.interrupted, what: "Interrupted.", remedy: "Run the same command again.")
            }
            guard Time.now() < deadline else {
                throw failure("\(Self.list(texts)) did not come within \(Int(seconds * patience)) s.")
            }
            read(milliseconds: 200)
        }
    }

    /// Types `text`. A line ends with `\r`.
    func send(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(input, $0.baseAddress, $0.count) }
            if count <= 0 { return }
            bytes = bytes.dropFirst(count)
        }
    }

    /// Types a command line to a shell and waits for its end; what it printed, and its exit status.
    func command(_ line: String, within seconds: Double) throws(Fault) -> (output: String, status: Int) {
        // The marker is typed in two halves so that the echo of the line itself does not match.
        let marker = "RLCMD\(received.count)"
        send("\(line); echo \(marker.prefix(3))''\(marker.dropFirst(3))=$?=\r")
        let start = cursor
        try wait(marker + "=", within: seconds)
        let end = cursor
        try wait("=", within: 10)
        let status = Int(String(decoding: received[end..<cursor - 1], as: UTF8.self)) ?? -1
        let output = String(decoding: received[start..<max(start, end - marker.utf8.count - 1)], as: UTF8.self)
        return (output, status)
    }

    /// Reads on for a while, whatever comes.
    func readFor(_ seconds: Double) {
        let deadline = Time.now() + seconds
        while Time.now() < deadline, !hasEnded { read(milliseconds: 100) }
    }

    /// Reads until the machine ends.
    func waitForEnd(within seconds: Double) throws(Fault) {
        let deadline = Time.now() + seconds * patience
        while !hasEnded {
            if relight_interrupted() != 0 {
                throw Fault(.interrupted, what: "Interrupted.", remedy: "Run the same command again.")
            }
            guard Time.now() < deadline else {
                throw failure("The machine did not end within \(Int(seconds * patience)) s.")
            }
            read(milliseconds: 200)
        }
    }

    private func read(milliseconds: Int32) {
        var poll = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
        guard unsafe Glibc.poll(&poll, 1, milliseconds) > 0 else { return }
        var buffer = [UInt8](repeating: 0, count: 16_384)
        let count = unsafe buffer.withUnsafeMutableBytes { unsafe Glibc.read(output, $0.baseAddress, $0.count) }
        guard count > 0 else {
            if count == 0 || errno != EINTR {
                hasEnded = true
                writeLine(received[lineBegan...])
            }
            return
        }
        for byte in buffer[0..<count] {
            if received.count == lineBegan { lineTime = elapsed }
            received.append(byte)
            if byte == UInt8(ascii: "\n") {
                writeLine(received[lineBegan...])
                lineBegan = received.count
            }
        }
    }

    private func writeLine(_ bytes: ArraySlice<UInt8>) {
        guard !bytes.isEmpty else { return }
        let clean = Self.printable(bytes)
        let text = Array("[\(Time.fixed(lineTime))] \(clean)\n".utf8)
        _ = unsafe text.withUnsafeBytes { unsafe Glibc.write(log, $0.baseAddress, $0.count) }
    }

    /// The text without control characters and escape sequences.
    static func printable(_ bytes: some Sequence<UInt8>) -> String {
        var result: [UInt8] = []
        var state = 0
        for byte in bytes {
            switch state {
            case 1: state = byte == UInt8(ascii: "[") ? 2 : 0
            case 2: if (0x40...0x7E).contains(byte) { state = 0 }
            default:
                if byte == 0x1B { state = 1 } else if byte >= 0x20 && byte != 0x7F || byte == 9 { result.append(byte) }
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    private func failure(_ what: String) -> Fault {
        let last = Self.printable(received.suffix(4000).map { $0 == 10 ? UInt8(ascii: "|") : $0 })
            .split(separator: "|").suffix(6).joined(separator: "\n      ")
        return Fault(
            .vm, what: "\(what) Its last lines:\n      \(last)\n   ",
            remedy: "The whole console is in the scenario's folder.")
    }

    private static func list(_ texts: [String]) -> String { texts.map { "\"\($0)\"" }.joined(separator: " or ") }
}

/// Time for people and limits.
enum Time {
    static func now() -> Double {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Seconds with two digits after the point, at least seven wide.
    static func fixed(_ seconds: Double) -> String {
        let hundredths = Int((seconds * 100).rounded())
        let text = "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)"
        return String(repeating: " ", count: max(0, 7 - text.count)) + text
    }

    /// Seconds with one digit after the point.
    static func short(_ seconds: Double) -> String {
        let tenths = Int((seconds * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }
}

extension FaultCode {
    /// A virtual machine did not do what the scenario expects.
    static let vm = FaultCode("vm", exit: .failed)
}
