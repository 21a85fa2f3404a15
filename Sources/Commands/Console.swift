// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Findings
import FoundationEssentials
import Geometry
import Glibc
import Synchronization

/// The options that any command takes.
struct OutputSettings: Sendable {
    var json = false
    var quiet = false
    var logFile: String?

    /// Takes the global options out of `arguments`, wherever they stand before `--`.
    static func extract(from arguments: [String]) -> (OutputSettings, [String]) {
        var settings = OutputSettings()
        var rest: [String] = []
        var index = 0
        while index < arguments.count {
            let word = arguments[index]
            if word == "--" {
                rest.append(contentsOf: arguments[index...])
                break
            } else if word == "--json" {
                settings.json = true
            } else if word == "--quiet" {
                settings.quiet = true
            } else if word == "--log-file", index + 1 < arguments.count {
                index += 1
                settings.logFile = arguments[index]
            } else if word.hasPrefix("--log-file=") {
                settings.logFile = String(word.dropFirst("--log-file=".count))
            } else {
                rest.append(word)
            }
            index += 1
        }
        return (settings, rest)
    }
}

/// Everything the program says: results on standard output, the rest on standard error, all of it in the log file.
///
/// Names and labels come from disks that may be hostile: control characters in what is said for people are shown as `?`.
final class Console: Sendable {
    /// The console of this run.
    static let current = Mutex<Console>(Console(OutputSettings()))

    let settings: OutputSettings
    private let state = Mutex<State>(State())
    private let onTerminal = isatty(2) == 1

    private struct State {
        var losses = 0
        var findings: [Finding] = []
        var lineIsOpen = false
        var lastShown = 0.0
        var phase = ""
        var phaseBegan = 0.0
        var hasEnded = false
    }

    init(_ settings: OutputSettings) { self.settings = settings }

    /// Whether a loss was reported.
    var hasLosses: Bool { state.withLock { $0.losses > 0 } }
    /// What was noticed in this run; at most a thousand findings are kept.
    var findings: [Finding] { state.withLock { $0.findings } }

    /// Hands events of a long operation to this console.
    var events: EventHandler { { [self] event in receive(event) } }

    /// Throws `usage` when the log file cannot be written to.
    func requireLog() throws(Fault) {
        guard let path = settings.logFile else { return }
        let descriptor = unsafe open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0o600)
        guard descriptor >= 0 else {
            throw Fault(
                .usage, what: "The log file cannot be written: \(unsafe String(cString: strerror(errno))).",
                place: path,
                remedy: "Name a file in a folder that exists and may be written to.")
        }
        close(descriptor)
    }

    /// Prints the one JSON document of the command, with its schema. Does nothing without `--json`.
    func document(_ schema: String, _ value: some Encodable) {
        guard settings.json else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(Document(schema: "relight.\(schema)/1", value: value)) else { return }
        writeAll(1, String(decoding: data, as: UTF8.self) + "\n")
    }

    /// A line of the result for people. Nothing under `--json`.
    func line(_ text: String = "") {
        // What is told of a disk or point is one line, whatever its name: scripts look for lines.
        let text = Console.printable(text, lineEnds: false)
        state.withLock { state in
            closeProgress(&state)
            if !settings.json { writeAll(1, Console.wrapped(text, 1) + "\n") }
        }
        log(text)
    }

    /// A line beside the result.
    func errorLine(_ text: String) {
        let text = Console.printable(text)
        if settings.json {
            part(JSONField.object([("event", .text("message")), ("text", .text(text))]))
        } else {
            part(Console.wrapped(text, 2))
        }
        log(text)
    }

    /// A question on standard error, without a line end; not logged.
    func prompt(_ text: String) {
        state.withLock { state in
            closeProgress(&state)
            writeAll(2, Console.printable(text))
        }
    }

    func receive(_ event: Event) {
        switch event {
        case .step(let step):
            let text = Console.printable(step)
            log(text)
            guard !settings.quiet else { return }
            part(settings.json ? JSONField.object([("event", .text("step")), ("text", .text(step))]) : text)
        case .finding(let finding):
            state.withLock { state in
                if finding.severity == .loss { state.losses += 1 }
                if state.findings.count < 1000 { state.findings.append(finding) }
            }
            let text = Console.printable("\(finding.severity.rawValue): \(finding)")
            log(text)
            guard settings.json else { return part(Console.wrapped(text, 2)) }
            part(
                JSONField.object([
                    ("event", .text("finding")), ("severity", .text(finding.severity.rawValue)),
                    ("code", .text(finding.code)), ("what", .text(finding.what)), ("where", .text(finding.place)),
                ]))
        case .progress(let progress):
            show(progress)
        }
    }

    /// Ends an open progress line.
    func finish() { state.withLock { closeProgress(&$0) } }

    func fail(_ fault: Fault) {
        let text = Console.printable("\(fault)")
        log("error: \(text)")
        if settings.json {
            finish()
            document("error", ErrorDocument(fault))
        } else {
            part(Console.wrapped("relight: \(text)", 2))
        }
    }

    func refuse(_ refusal: Refused) {
        let reasons = refusal.reasons.map { Console.printable("\($0)") }
        for reason in reasons { log("refused: \(reason)") }
        if settings.json {
            finish()
            document("error", ErrorDocument(refusal.reasons))
        } else {
            part(
                Console.wrapped(
                    (["relight: refused before anything was written:"] + reasons.map { "  - \($0)" }).joined(
                        separator: "\n"), 2))
        }
    }

    private func show(_ progress: Progress) {
        guard !settings.quiet else { return }
        let now = Clock.monotonic()
        // Written under the lock: threads report at once, and lines must not mix.
        state.withLock { state in
            // The same phase may come again, for the next disk; a report that another thread overtook is not that.
            let isEarly = progress.total.map { progress.done.bytes < $0.bytes / 4 } ?? false
            if state.phase != progress.phase || (state.hasEnded && isEarly) {
                state.phase = progress.phase
                state.phaseBegan = now
                // On a terminal at once; elsewhere a phase that is over soon needs no line.
                state.lastShown = onTerminal || settings.json ? 0 : now
                state.hasEnded = false
            }
            let ended = progress.total.map { progress.done >= $0 } ?? false
            let pause = onTerminal && !settings.json ? 0.2 : 5.0
            guard !state.hasEnded, ended || now - state.lastShown >= pause else { return }
            state.lastShown = now
            state.hasEnded = ended
            let seconds = now - state.phaseBegan
            let rate = seconds > 0.05 ? Double(progress.done.bytes) / seconds : 0
            let left =
                rate > 0 ? progress.total.map { Double($0.bytes - min($0.bytes, progress.done.bytes)) / rate } : nil
            if settings.json {
                writeAll(2, Console.json(progress, rate, left) + "\n")
                return
            }
            var line = "\(progress.phase): \(progress.done)"
            if let total = progress.total {
                let percent = total == .zero ? 100 : Int(Double(progress.done.bytes) / Double(total.bytes) * 100)
                line += " of \(total) (\(percent) %)"
            }
            if rate > 0 { line += ", \(ByteCount(UInt64(rate)))/s" }
            if let left, !ended { line += ", \(Clock.words(left)) left" }
            guard onTerminal else { return writeAll(2, line + "\n") }
            // A line that wraps could not be overwritten.
            state.lineIsOpen = true
            writeAll(2, "\r\u{1B}[K" + line.prefix(max(20, Console.columns() - 1)))
        }
    }

    private static func json(_ progress: Progress, _ rate: Double, _ left: Double?) -> String {
        var fields: [(String, JSONField)] = [
            ("event", .text("progress")), ("phase", .text(progress.phase)), ("done", .number(progress.done.bytes)),
        ]
        if let total = progress.total { fields.append(("total", .number(total.bytes))) }
        fields.append(("bytesPerSecond", .number(UInt64(max(0, rate)))))
        if let left { fields.append(("secondsLeft", .number(UInt64(max(0, left))))) }
        return JSONField.object(fields)
    }

    /// Columns of the terminal that `descriptor` is; 80 where nobody knows.
    private static func columns(_ descriptor: Int32 = 2) -> Int {
        var rows: UInt16 = 0
        var columns: UInt16 = 0
        guard unsafe relight_terminal_size(descriptor, &rows, &columns) == 0, columns > 0 else { return 80 }
        return Int(columns)
    }

    /// `text` as it fits the terminal `descriptor`; unchanged where that is none.
    private static func wrapped(_ text: String, _ descriptor: Int32) -> String {
        guard isatty(descriptor) == 1 else { return text }
        return wrapped(text, columns: columns(descriptor))
    }

    /// `text` with lines longer than `columns` broken between words, what follows indented.
    static func wrapped(_ text: String, columns: Int) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { line in
            guard line.count > columns, columns > 20 else { return String(line) }
            let indent = String(repeating: " ", count: min(line.prefix { $0 == " " }.count + 4, columns / 2))
            var result = ""
            var row = ""
            for word in line.split(separator: " ", omittingEmptySubsequences: false) {
                if row.isEmpty || row == indent {
                    row += word
                } else if row.count + 1 + word.count <= columns {
                    row += " " + word
                } else {
                    result += row + "\n"
                    row = indent + word
                }
            }
            return result + row
        }.joined(separator: "\n")
    }

    /// `text` with control characters replaced, line ends too unless they are meant: a label must not steer the terminal.
    static func printable(_ text: String, lineEnds: Bool = true) -> String {
        func steers(_ scalar: Unicode.Scalar) -> Bool {
            (scalar.value < 0x20 && !(lineEnds && scalar == "\n")) || (0x7F...0x9F).contains(scalar.value)
                || (0x202A...0x202E).contains(scalar.value) || (0x2066...0x2069).contains(scalar.value)
        }
        guard text.unicodeScalars.contains(where: steers) else { return text }
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars { result.append(steers(scalar) ? "?" : scalar) }
        return String(result)
    }

    /// A whole line on standard error.
    private func part(_ text: String) {
        state.withLock { state in
            closeProgress(&state)
            writeAll(2, text + "\n")
        }
    }

    private func closeProgress(_ state: inout State) {
        if state.lineIsOpen { writeAll(2, "\n") }
        state.lineIsOpen = false
    }

    private func log(_ text: String) {
        guard let path = settings.logFile else { return }
        let descriptor = unsafe open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0o600)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        writeAll(descriptor, "\(Clock.stamp()) \(text)\n")
    }

    private func writeAll(_ descriptor: Int32, _ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno == EINTR { continue }
            if count <= 0 { return }
            bytes = bytes.dropFirst(count)
        }
    }
}

/// A JSON document with its schema beside the value's own fields.
private struct Document<Value: Encodable>: Encodable {
    let schema: String
    let value: Value

    private enum Key: String, CodingKey { case schema }
    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(schema, forKey: .schema)
        try value.encode(to: encoder)
    }
}

/// An error under `--json`.
private struct ErrorDocument: Encodable {
    let code: String
    let what: String
    let place: String
    let remedy: String
    let reasons: [ErrorDocument]?

    private enum CodingKeys: String, CodingKey {
        case code, what, remedy, reasons
        case place = "where"
    }

    init(_ fault: Fault) {
        (code, what, place, remedy) = (fault.code.rawValue, fault.what, fault.place, fault.remedy)
        reasons = nil
    }
    init(_ faults: [Fault]) {
        code = faults.first?.code.rawValue ?? FaultCode.planRefused.rawValue
        what = faults.first?.what ?? "Refused."
        place = faults.first?.place ?? ""
        remedy = faults.first?.remedy ?? ""
        reasons = faults.map { ErrorDocument($0) }
    }
}

/// A field of a one-line JSON object.
private enum JSONField {
    case text(String)
    case number(UInt64)

    static func object(_ fields: [(String, JSONField)]) -> String {
        "{" + fields.map { "\(quoted($0.0)):\($0.1.text)" }.joined(separator: ",") + "}"
    }
    private var text: String {
        switch self {
        case .text(let value): return JSONField.quoted(value)
        case .number(let value): return String(value)
        }
    }
    private static func quoted(_ text: String) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .withoutEscapingSlashes
        guard let data = try? encoder.encode(text) else { return "\"\"" }
        return String(decoding: data, as: UTF8.self)
    }
}

/// Time for people.
enum Clock {
    static func monotonic() -> Double {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Seconds since 1970.
    static func now() -> UInt64 { UInt64(max(0, time(nil))) }

    /// `2026-11-21T03:04:05Z`.
    static func stamp() -> String { Date(timeIntervalSince1970: Double(time(nil))).formatted(.iso8601) }

    /// `45 s`, `3 min 20 s`, `2 h 05 min`.
    static func words(_ seconds: Double) -> String {
        let whole = Int(seconds.rounded(.up))
        if whole < 60 { return "\(whole) s" }
        if whole < 3600 { return "\(whole / 60) min \(whole % 60) s" }
        let minutes = whole % 3600 / 60
        return "\(whole / 3600) h \(minutes < 10 ? "0" : "")\(minutes) min"
    }
}
