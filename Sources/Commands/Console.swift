// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

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
final class Console: Sendable {
    /// The console of this run.
    static let current = Mutex<Console>(Console(OutputSettings()))

    let settings: OutputSettings
    private let state = Mutex<State>(State())
    private let onTerminal = isatty(2) == 1

    private struct State {
        var losses = 0
        var lineIsOpen = false
        var lastShown = 0.0
        var phase = ""
        var phaseBegan = 0.0
        var lastPercent = -1
    }

    init(_ settings: OutputSettings) { self.settings = settings }

    /// Whether a loss was reported.
    var hasLosses: Bool { state.withLock { $0.losses > 0 } }

    /// Hands events of a long operation to this console.
    var events: EventHandler { { [self] event in receive(event) } }

    /// Prints the one JSON document of the command, with its schema. Does nothing without `--json`.
    func document(_ schema: String, _ value: some Encodable) {
        guard settings.json else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(Document(schema: "relight.\(schema)/1", value: value)) else { return }
        print(String(decoding: data, as: UTF8.self))
    }

    /// A line of the result for people. Nothing under `--json`.
    func line(_ text: String = "") {
        closeProgress()
        if !settings.json { print(text) }
        log(text)
    }

    /// A line beside the result.
    func errorLine(_ text: String) {
        closeProgress()
        write(text + "\n")
        log(text)
    }

    func receive(_ event: Event) {
        switch event {
        case .step(let text):
            log(text)
            guard !settings.quiet else { return }
            if settings.json { jsonLine(["event": .text("step"), "text": .text(text)]) } else { errorPart(text) }
        case .finding(let finding):
            if finding.severity == .loss { state.withLock { $0.losses += 1 } }
            log("\(finding.severity.rawValue): \(finding)")
            if settings.json {
                jsonLine([
                    "event": .text("finding"), "severity": .text(finding.severity.rawValue), "code": .text(finding.code),
                    "what": .text(finding.what), "where": .text(finding.place),
                ])
            } else {
                errorPart("\(finding.severity.rawValue): \(finding)")
            }
        case .progress(let progress):
            show(progress)
        }
    }

    /// Ends an open progress line.
    func finish() { closeProgress() }

    func fail(_ fault: Fault) {
        closeProgress()
        log("error: \(fault)")
        if settings.json {
            document("error", ErrorDocument(fault))
        } else {
            write("relight: \(fault)\n")
        }
    }

    func refuse(_ refusal: Refused) {
        closeProgress()
        for reason in refusal.reasons { log("refused: \(reason)") }
        if settings.json {
            document("error", ErrorDocument(refusal.reasons))
            return
        }
        write("relight: refused before anything was written:\n")
        for reason in refusal.reasons { write("  - \(reason)\n") }
    }

    private func show(_ progress: Progress) {
        guard !settings.quiet else { return }
        let now = Clock.monotonic()
        let text: String? = state.withLock { state in
            if state.phase != progress.phase {
                state.phase = progress.phase
                state.phaseBegan = now
                state.lastShown = 0
                state.lastPercent = -1
            }
            let ended = progress.total.map { progress.done >= $0 } ?? false
            let percent = progress.total.map { $0 == .zero ? 100 : Int(Double(progress.done.bytes) / Double($0.bytes) * 100) }
            let pause = onTerminal && !settings.json ? 0.2 : 5.0
            guard now - state.lastShown >= pause || (ended && state.lastPercent != 100) else { return nil }
            state.lastShown = now
            state.lastPercent = ended ? 100 : percent ?? -1
            let seconds = now - state.phaseBegan
            let rate = seconds > 0.05 ? Double(progress.done.bytes) / seconds : 0
            let left = rate > 0 ? progress.total.map { Double($0.bytes - min($0.bytes, progress.done.bytes)) / rate } : nil
            if settings.json {
                var fields: [(String, JSONField)] = [
                    ("event", .text("progress")), ("phase", .text(progress.phase)),
                    ("done", .number(progress.done.bytes)),
                ]
                if let total = progress.total { fields.append(("total", .number(total.bytes))) }
                fields.append(("bytesPerSecond", .number(UInt64(max(0, rate)))))
                if let left { fields.append(("secondsLeft", .number(UInt64(max(0, left))))) }
                return JSONField.object(fields)
            }
            var line = "\(progress.phase): \(progress.done)"
            if let total = progress.total { line += " of \(total)" }
            if let percent { line += " (\(percent) %)" }
            if rate > 0 { line += ", \(ByteCount(UInt64(rate)))/s" }
            if let left, !ended { line += ", \(Clock.words(left)) left" }
            if onTerminal { state.lineIsOpen = true }
            return line
        }
        guard let text else { return }
        if settings.json || !onTerminal { write(text + "\n") } else { write("\r\u{1B}[K" + text) }
    }

    private func errorPart(_ text: String) {
        closeProgress()
        write(text + "\n")
    }

    private func closeProgress() {
        let open = state.withLock { state in
            defer { state.lineIsOpen = false }
            return state.lineIsOpen
        }
        if open { write("\n") }
    }

    private func jsonLine(_ fields: KeyValuePairs<String, JSONField>) {
        closeProgress()
        write(JSONField.object(fields.map { ($0.key, $0.value) }) + "\n")
    }

    private func write(_ text: String) { writeAll(2, text) }

    private func log(_ text: String) {
        guard let path = settings.logFile else { return }
        let descriptor = unsafe open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o600)
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
