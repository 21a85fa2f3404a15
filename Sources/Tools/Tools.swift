// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Tools
///
/// The one door to external programs. A program is run by an argument array, never through a shell, with a clean
/// environment (`LC_ALL=C`, a fixed `PATH`), its own session, nothing inherited but the descriptors it is given, a time
/// limit, and its output captured up to a bound. A missing program is a fault that names the package to install.
///
/// The room does not know what any program does; the callers read the output.
import CLinux
public import Findings
import Glibc

/// What a program left behind.
public struct ToolOutput: Sendable {
    /// Exit status; 128 + the signal's number when a signal ended it.
    public var status: Int32
    /// Captured standard output, at most the bound asked for.
    public var standardOutput: String
    /// Captured standard error, at most the bound asked for.
    public var standardError: String

    /// The last two lines of both streams, for failures whose last line alone says little.
    public var lastWords: String {
        let lines = [standardOutput, standardError].flatMap { text in
            text.split(separator: "\n").filter { !$0.allSatisfy(\.isWhitespace) }.suffix(2)
        }
        return lines.isEmpty ? "no output" : lines.joined(separator: "; ")
    }

    /// The last non-empty line of standard error, else of standard output: usually the reason of a failure.
    public var lastLine: String {
        for text in [standardError, standardOutput] {
            if let line = text.split(separator: "\n").last(where: { !$0.allSatisfy(\.isWhitespace) }) {
                return String(line)
            }
        }
        return "no output"
    }
}

/// An external program.
public struct Tool: Sendable {
    /// Its name, or its absolute path.
    public var name: String
    /// The Debian package that has it.
    public var package: String

    /// Names a program and the package that has it.
    public init(_ name: String, package: String) {
        self.name = name
        self.package = package
    }

    /// The folders searched, in order.
    public static let searchPath = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"]

    /// Where the program is; `nil` when it is not installed.
    public var path: String? {
        if name.hasPrefix("/") { return unsafe access(name, X_OK) == 0 ? name : nil }
        return Tool.searchPath.map { "\($0)/\(name)" }.first { unsafe access($0, X_OK) == 0 }
    }

    /// Where the program is. Throws `tool.missing`.
    public func requirePath() throws(Fault) -> String {
        guard let path else {
            throw Fault(
                .toolMissing, what: "The program \(name) is not installed.",
                remedy: "Install the Debian package \(package), or run this from the Relight environment, which has it."
            )
        }
        return path
    }

    /// Runs the program and waits for it.
    ///
    /// - Parameters:
    ///   - arguments: what follows the program's name.
    ///   - input: given on standard input; `/dev/null` when `nil`.
    ///   - environment: added to the clean environment.
    ///   - directory: working directory.
    ///   - seconds: after this long the program and its whole session are killed.
    ///   - limit: bytes captured of each stream; what comes after is read and dropped.
    ///   - interruptible: whether it is killed when a stop is asked for. False for what would leave a disk broken halfway,
    ///     and for cleaning up.
    ///   - onLine: called with each whole line of standard output or standard error as it comes.
    /// - Throws: `tool.missing`; `tool.failed` when it cannot be started or ran out of time; `interrupted`.
    ///   A non-zero exit status is not thrown.
    public func run(
        _ arguments: [String], input: [UInt8]? = nil, environment: [String: String] = [:], directory: String? = nil,
        seconds: Double = 300, limit: Int = 4 << 20, interruptible: Bool = true,
        onLine: (@Sendable (String) -> Void)? = nil
    ) throws(Fault) -> ToolOutput {
        let path = try requirePath()
        let output = try Pipe()
        let error = try Pipe()
        let inputPipe = input == nil ? nil : try Pipe()
        // Only their descriptors are used below; the pipes must stay open until the end all the same.
        defer { withExtendedLifetime((output, error, inputPipe)) {} }
        let process = try Tool.spawn(
            path, [name] + arguments, environment: environment, standardInput: inputPipe?.reading ?? -1,
            standardOutput: output.writing, standardError: error.writing, directory: directory)
        output.closeWriting()
        error.closeWriting()
        inputPipe?.closeReading()

        var capture = [Capture(output.reading, limit), Capture(error.reading, limit)]
        var toWrite = (input ?? [])[...]
        let deadline = Tool.now() + seconds
        if let inputPipe { _ = fcntl(inputPipe.writing, F_SETFL, O_NONBLOCK) }
        let exited = relight_process_descriptor(process)
        defer { if exited >= 0 { close(exited) } }
        var hasExited = false
        var killedBecause: String?

        // The process's own end is what ends the wait, not the end of its output: a daemon it left behind may hold the
        // pipes open for ever. After its end only what is already in the pipes is read.
        while true {
            var polls = capture.map { pollfd(fd: $0.isOpen ? $0.descriptor : -1, events: Int16(POLLIN), revents: 0) }
            polls.append(pollfd(fd: hasExited ? -1 : exited, events: Int16(POLLIN), revents: 0))
            let writing = inputPipe.map { $0.isWritingOpen && !hasExited ? $0.writing : -1 } ?? -1
            polls.append(pollfd(fd: writing, events: Int16(POLLOUT), revents: 0))
            let ready = unsafe poll(&polls, nfds_t(polls.count), hasExited ? 0 : 200)
            if ready > 0 {
                for index in 0..<2 where polls[index].revents != 0 { capture[index].read(onLine) }
                if polls[2].revents != 0 { hasExited = true }
                if polls[3].revents != 0, let inputPipe {
                    let written = unsafe toWrite.withUnsafeBytes { bytes in
                        unsafe write(inputPipe.writing, bytes.baseAddress, bytes.count)
                    }
                    if written > 0 { toWrite = toWrite.dropFirst(written) }
                    if toWrite.isEmpty || (written < 0 && errno != EAGAIN) { inputPipe.closeWriting() }
                }
            } else if hasExited {
                break
            }
            if hasExited && !(capture[0].isOpen || capture[1].isOpen) { break }
            if killedBecause == nil {
                if interruptible, relight_interrupted() != 0 {
                    killedBecause = "interrupted"
                } else if Tool.now() > deadline {
                    killedBecause = "ran longer than \(Int(seconds)) seconds"
                }
                if killedBecause != nil { kill(-process, SIGKILL) }
            }
        }
        let status = Tool.wait(process)
        for index in 0..<2 { capture[index].finish(onLine) }
        if let reason = killedBecause {
            if interruptible, relight_interrupted() != 0 {
                throw Fault(.interrupted, what: "Interrupted while \(name) ran.", remedy: "Run the same command again.")
            }
            throw Fault(
                .toolFailed, what: "\(name) \(reason) and was stopped.",
                remedy: "Run it by hand to see what it waits for: \(([name] + arguments).joined(separator: " "))")
        }
        return ToolOutput(status: status, standardOutput: capture[0].text, standardError: capture[1].text)
    }

    /// Runs the program and throws `tool.failed` with its last line unless its status is in `allowed`.
    @discardableResult
    public func check(
        _ arguments: [String], input: [UInt8]? = nil, environment: [String: String] = [:], directory: String? = nil,
        seconds: Double = 300, limit: Int = 4 << 20, allowed: Set<Int32> = [0], interruptible: Bool = true,
        onLine: (@Sendable (String) -> Void)? = nil
    ) throws(Fault) -> ToolOutput {
        let result = try run(
            arguments, input: input, environment: environment, directory: directory, seconds: seconds, limit: limit,
            interruptible: interruptible, onLine: onLine)
        guard allowed.contains(result.status) else {
            throw Fault(
                .toolFailed, what: "\(name) failed with status \(result.status): \(result.lastLine)",
                remedy: "Run it by hand to see more: \(([name] + arguments).joined(separator: " "))")
        }
        return result
    }

    /// Starts a program with exactly the three descriptors given (−1: `/dev/null`) in a session of its own and returns
    /// its process id. The caller waits for it.
    public static func spawn(
        _ path: String, _ arguments: [String], environment: [String: String] = [:], standardInput: Int32 = -1,
        standardOutput: Int32 = -1, standardError: Int32 = -1, directory: String? = nil
    ) throws(Fault) -> Int32 {
        var full = ["LC_ALL": "C", "PATH": searchPath.joined(separator: ":"), "TERM": "vt220", "HOME": "/root"]
        full.merge(environment) { _, new in new }
        var process = pid_t()
        let status = unsafe withCStrings(arguments) { argumentPointers in
            unsafe withCStrings(full.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }) {
                environmentPointers in
                unsafe relight_spawn(
                    path, argumentPointers, environmentPointers, standardInput, standardOutput, standardError,
                    directory,
                    &process)
            }
        }
        guard status == 0 else {
            throw Fault(
                .toolFailed, what: "\(path) cannot be started: \(unsafe String(cString: strerror(-status))).",
                remedy: "Check that the program is complete and made for this machine.")
        }
        return process
    }

    /// Starts a program in a session of its own with `terminal` (`/dev/ttyS0`) as its controlling terminal and returns
    /// its process id. The caller waits for it. Throws `tool.failed`.
    public static func spawn(
        _ path: String, _ arguments: [String], environment: [String: String] = [:], onTerminal terminal: String
    ) throws(Fault) -> Int32 {
        var full = ["LC_ALL": "C", "PATH": searchPath.joined(separator: ":"), "TERM": "vt220", "HOME": "/root"]
        full.merge(environment) { _, new in new }
        var process = pid_t()
        let status = unsafe withCStrings(arguments) { argumentPointers in
            unsafe withCStrings(full.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }) {
                environmentPointers in
                unsafe relight_spawn_on_terminal(path, argumentPointers, environmentPointers, terminal, &process)
            }
        }
        guard status == 0 else {
            throw Fault(
                .toolFailed,
                what: "\(path) cannot be started on \(terminal): \(unsafe String(cString: strerror(-status))).",
                remedy: "Check that the program and the terminal exist.")
        }
        return process
    }

    /// Replaces the calling process by a program. Returns only when that failed, with a fault.
    public static func execute(
        _ path: String, _ arguments: [String], environment: [String: String] = [:]
    ) -> Fault {
        var full = ["LC_ALL": "C", "PATH": searchPath.joined(separator: ":"), "TERM": "vt220", "HOME": "/root"]
        full.merge(environment) { _, new in new }
        unsafe withCStrings(arguments) { argumentPointers in
            unsafe withCStrings(full.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }) {
                environmentPointers in
                _ = unsafe execve(path, argumentPointers, environmentPointers)
            }
        }
        return Fault(
            .toolFailed, what: "\(path) cannot be started: \(unsafe String(cString: strerror(errno))).",
            remedy: "Check that the program is complete and made for this machine.")
    }

    /// Waits for a process; its exit status, or 128 + the number of the signal that ended it.
    public static func wait(_ process: Int32) -> Int32 {
        var raw: Int32 = 0
        while unsafe waitpid(process, &raw, 0) < 0 {
            if errno != EINTR { return 127 }
        }
        return exitStatus(raw)
    }

    /// The exit status in a `waitpid` result; 128 + the signal's number when a signal ended the process.
    public static func exitStatus(_ raw: Int32) -> Int32 {
        let signal = raw & 0x7F
        return signal == 0 ? raw >> 8 & 0xFF : 128 + signal
    }

    static func now() -> Double {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    private static func withCStrings<R>(
        _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> R
    ) -> R {
        var pointers = unsafe strings.map { unsafe strdup($0) }
        unsafe pointers.append(nil)
        defer {
            for index in unsafe pointers.indices { unsafe free(pointers[index]) }
        }
        return unsafe pointers.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else {
                preconditionFailure("an array with a terminator is never empty")
            }
            return unsafe body(base)
        }
    }
}

/// The two ends of a pipe, closed when released.
private final class Pipe {
    private(set) var reading: Int32
    private(set) var writing: Int32
    var isWritingOpen: Bool { writing >= 0 }

    init() throws(Fault) {
        var ends: [Int32] = [-1, -1]
        guard unsafe relight_pipe(&ends) == 0 else {
            throw Fault(.system, what: "No pipe could be made.", remedy: "Too many files are open; try again.")
        }
        reading = ends[0]
        writing = ends[1]
    }
    func closeReading() {
        if reading >= 0 { close(reading) }
        reading = -1
    }
    func closeWriting() {
        if writing >= 0 { close(writing) }
        writing = -1
    }
    deinit {
        closeReading()
        closeWriting()
    }
}

/// Bytes read from a pipe, up to a bound, cut into lines as they come.
private struct Capture {
    let descriptor: Int32
    let limit: Int
    var isOpen = true
    private var bytes: [UInt8] = []
    private var line: [UInt8] = []

    init(_ descriptor: Int32, _ limit: Int) {
        self.descriptor = descriptor
        self.limit = limit
    }

    var text: String { String(decoding: bytes, as: UTF8.self) }

    mutating func read(_ onLine: (@Sendable (String) -> Void)?) {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let got = unsafe buffer.withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
        if got <= 0 {
            if got == 0 || (errno != EINTR && errno != EAGAIN) { isOpen = false }
            return
        }
        bytes.append(contentsOf: buffer[0..<min(got, max(0, limit - bytes.count))])
        guard let onLine else { return }
        for byte in buffer[0..<got] {
            if byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") {
                if !line.isEmpty { onLine(String(decoding: line, as: UTF8.self)) }
                line.removeAll(keepingCapacity: true)
            } else if line.count < 4096 {
                line.append(byte)
            }
        }
    }

    mutating func finish(_ onLine: (@Sendable (String) -> Void)?) {
        if let onLine, !line.isEmpty { onLine(String(decoding: line, as: UTF8.self)) }
        line.removeAll()
    }
}
