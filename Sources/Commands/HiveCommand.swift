// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import BinaryFields
import Findings
import Glibc
import Synchronization
import WindowsHives

/// `relight hive …`.
struct HiveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hive", abstract: "Looks into registry hives of Windows, BCD stores included. Nothing is written.",
        subcommands: [Show.self])

    /// `relight hive show`.
    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Shows a key of a registry hive: its values, and the keys below it.",
            discussion: """
                A hive is a file: SYSTEM, SOFTWARE and others in Windows/System32/config, NTUSER.DAT in a user's folder, BCD \
                in EFI/Microsoft/Boot of the EFI system partition or in Boot of the active partition. Paths begin below the \
                hive's root; upper and lower case are the same. Quote them, or separate names with slashes:

                  relight hive show SYSTEM 'ControlSet001\\Control\\ComputerName' --recursive
                  relight hive show SOFTWARE 'Microsoft/Windows NT/CurrentVersion'

                A hive that Windows did not write completely, as on a disk imaged while Windows ran or after a power cut, is \
                dirty: its last changes are in its logs. Name them, in any order, and the hive is shown as Windows would see \
                it; neither hive nor logs are changed:

                  relight hive show SYSTEM --log SYSTEM.LOG1 --log SYSTEM.LOG2
                """)

        @Argument(help: "The hive.") var file: String
        @Argument(help: "The key; without it the root.") var path: String = ""
        @Option(help: ArgumentHelp("A transaction log of the hive (repeatable).", valueName: "file")) var log:
            [String] = []
        @Flag(help: "Also all keys below, with their values.") var recursive = false

        func run() throws {
            let console = Console.current.withLock { $0 }
            var logs: [HiveSource] = []
            for name in log { logs.append(try HiveSource(path: name)) }
            let hive = try Hive(try HiveSource(path: file), logs: logs)
            let key = try find(in: hive)
            var document = Document(file: file, hive)
            let kind = hive.kind
            if path.isEmpty, kind == .system || kind == .software {
                let windows = WindowsIdentity(
                    system: kind == .system ? hive : nil, software: kind == .software ? hive : nil)
                document.windows = windows
            }
            console.line(
                "\(file): \(HiveCommand.words(kind)), version \(hive.header.version), \(HiveCommand.words(hive))")
            if let windows = document.windows, windows.build != nil { console.line("  \(windows.summary)") }
            if case .dirty(let why) = hive.state {
                console.receive(.finding(Finding(.warning, "hive.dirty", what: dirty(why), place: file)))
            }
            var budget = hive.imageLength / 24
            try show(key, &budget, console, &document)
            document.findings = console.findings
            console.document("hive", document)
        }

        /// The key that was asked for.
        private func find(in hive: Hive) throws(Fault) -> HiveKey {
            if let key = try hive.key(path) { return key }
            let slashed = path.replacing("/", with: "\\")
            if let key = try hive.key(slashed) { return key }
            // How far one comes.
            var key = try hive.root()
            var missing = path
            for name in slashed.split(separator: "\\") {
                guard let next = try key.subkey(String(name)) else {
                    missing = String(name)
                    break
                }
                key = next
            }
            throw Fault(
                .missing,
                what: key.depth == 0
                    ? "There is no key \(missing) in the hive's root." : "There is no key \(missing) in \(key.path).",
                place: file,
                remedy:
                    "`relight hive show \(file)\(key.depth == 0 ? "" : " '\(key.path)'")` lists the keys that are there."
            )
        }

        private func dirty(_ why: String) -> String {
            var text = "The hive was not written completely: \(why). It is shown as it lies there."
            let beside = [".LOG1", ".LOG2", ".LOG"].map { file + $0 }.filter { name in
                let isThere = unsafe access(name, R_OK) == 0
                return isThere && !log.contains(name)
            }
            if !beside.isEmpty {
                text += " Logs lie beside it: add \(beside.map { "--log \($0)" }.joined(separator: " "))."
            }
            return text
        }

        private func show(
            _ key: HiveKey, _ budget: inout UInt64, _ console: Console, _ document: inout Document
        ) throws(Fault) {
            var values: [ShownValue] = []
            try key.forEachValue { (value) throws(Fault) -> Bool in
                values.append(try ShownValue(value))
                return true
            }
            // A sound hive has no more values than have room in it.
            guard values.count < budget else {
                throw Fault(
                    .hiveDamaged, what: "Its keys share their values: there are more than have room in it.",
                    place: file,
                    remedy: "Show single keys, without --recursive.")
            }
            budget -= UInt64(values.count) + 1
            document.count += values.count + 1
            guard !console.settings.json || document.count <= Document.most else {
                throw Fault(
                    .usage, what: "There are more than \(Document.most) keys and values: too many for one document.",
                    place: file, remedy: "Name a key further down, or leave out --json.")
            }
            var shown = ShownKey(key, try key.className(), values)
            console.line()
            console.line("\\\(key.path)")
            console.line("  written \(key.lastWritten)\(shown.className.map { ", class \"\($0)\"" } ?? "")")
            var table = TextTable([])
            for value in values {
                table.add(["  " + (value.name.isEmpty ? "(default)" : value.name), value.type, value.words])
            }
            for line in table.lines.dropFirst() { console.line(line) }
            var below: [HiveKey] = []
            try key.forEachSubkey { (subkey) throws(Fault) -> Bool in
                shown.subkeys.append(subkey.name)
                if recursive { below.append(subkey) } else { console.line("  \\\(subkey.name)") }
                return true
            }
            if console.settings.json { document.keys.append(shown) }
            for subkey in below { try show(subkey, &budget, console, &document) }
        }
    }

    /// What a hive is for.
    static func words(_ kind: HiveKind) -> String {
        switch kind {
        case .system: "SYSTEM hive"
        case .software: "SOFTWARE hive"
        case .bcd: "BCD store"
        case .drivers: "DRIVERS hive"
        case .components: "COMPONENTS hive"
        case .sam: "SAM hive"
        case .security: "SECURITY hive"
        case .user: "hive of a user"
        case .other: "registry hive"
        }
    }

    /// Whether it was written completely.
    static func words(_ hive: Hive) -> String {
        switch hive.state {
        case .clean: return "clean"
        case .dirty: return "dirty"
        case .recovered(let recovery):
            let changes = recovery.entries == 1 ? "1 change" : "\(recovery.entries) changes"
            let stop = recovery.stoppedBecause.map { "; then it ends, as it would for Windows: \($0)" } ?? ""
            return "shown with \(changes) from \(recovery.logs.joined(separator: " and "))\(stop)"
        }
    }
}

/// A key in JSON.
private struct ShownKey: Encodable {
    let path: String
    let lastWritten: String
    let className: String?
    let values: [ShownValue]
    var subkeys: [String] = []

    enum CodingKeys: String, CodingKey {
        case path, lastWritten, values, subkeys
        case className = "class"
    }

    init(_ key: HiveKey, _ className: String?, _ values: [ShownValue]) {
        path = key.path
        lastWritten = key.lastWritten.description
        self.className = className
        self.values = values
    }
}

/// A value in JSON and in words.
private struct ShownValue: Encodable {
    let name: String
    /// `REG_SZ`; a number for types without a name.
    let type: String
    let typeNumber: UInt32
    /// Bytes of data.
    let length: Int
    /// Hexadecimal; left out when there is more than 1 MiB.
    let data: String?
    let text: String?
    let texts: [String]?
    let number: UInt64?

    /// What it says, in one line.
    var words: String {
        if let text { return "\"\(text)\"" }
        if let texts { return texts.map { "\"\($0)\"" }.joined(separator: " ") }
        if let number {
            let digits = String(number, radix: 16)
            return "0x\(String(repeating: "0", count: max(0, 2 * length - digits.count)))\(digits) (\(number))"
        }
        guard let data else { return "\(length) bytes" }
        return data.utf8.count <= 128 ? data : "\(data.prefix(128))… (\(length) bytes)"
    }

    init(_ value: HiveValue) throws(Fault) {
        let most = 1 << 20
        name = value.name
        type = value.type.description
        typeNumber = value.type.rawValue
        length = value.length
        let isShort = value.length <= most
        data = isShort ? Hex.text(try value.data(limit: most)) : nil
        text = isShort ? try value.string() : nil
        texts = isShort ? try value.multiString() : nil
        if let dword = try value.dword() { number = UInt64(dword) } else { number = try value.qword() }
    }
}

private struct Document: Encodable {
    let file: String
    let version: String
    let kind: HiveKind
    let lastWritten: String
    let state: State
    var windows: WindowsIdentity?
    var keys: [ShownKey] = []
    var findings: [Finding] = []
    /// Keys and values so far.
    var count = 0

    /// Keys and values that one document may have: it is made in memory.
    static let most = 1_000_000

    private enum CodingKeys: String, CodingKey {
        case file, version, kind, lastWritten, state, windows, keys, findings
    }

    init(file: String, _ hive: Hive) {
        self.file = file
        version = hive.header.version
        kind = hive.kind
        lastWritten = hive.header.lastWritten.description
        state = State(hive.state)
    }

    struct State: Encodable {
        /// `clean`, `recovered`, `dirty`.
        let state: String
        var because: String?
        var logs: [String]?
        var format: HiveRecovery.LogFormat?
        var changes: Int?
        var lastSequence: UInt32?
        var stoppedBecause: String?

        init(_ value: HiveState) {
            switch value {
            case .clean: state = "clean"
            case .dirty(let why):
                state = "dirty"
                because = why
            case .recovered(let recovery):
                state = "recovered"
                logs = recovery.logs
                format = recovery.format
                changes = recovery.entries
                lastSequence = recovery.lastSequence
                stoppedBecause = recovery.stoppedBecause
            }
        }
    }
}
