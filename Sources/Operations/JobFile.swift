// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import FoundationEssentials
import LinuxDisks

/// A job file: steps that run without anybody watching. JSON5, read as a whole and refused as a whole before the first
/// step. Each step becomes the words of a `relight` command of its own; a key of the file is an option of the command
/// line in camel case (`onReadError` is `--on-read-error`).
public struct JobFile: Hashable, Sendable {
    /// What to do when all steps have ended.
    public enum After: String, Sendable, CaseIterable {
        /// Switch the machine off.
        case poweroff
        /// Start it again.
        case reboot
        /// Leave it at a shell.
        case shell
    }
    /// The steps in order; at least one.
    public var steps: [JobStep]
    /// What to do afterwards; `shell` when the file says nothing.
    public var after: After

    /// A job file is refused above this size, bytes.
    public static let limit = 1 << 20

    /// Disks that any step reads or writes, as the file names them.
    public var disks: [String] { steps.flatMap(\.disks) }

    /// Reads and checks a job file. Throws `job` when it is not one or a key is unknown, `unsupported` for verbs this
    /// version lacks, `target.not-confirmed` for a destructive step that does not pin or confirm its target; each time
    /// with every problem found, of whatever kind, the step and the key named. With `understand`, which returns what is wrong
    /// with a command's words, also what the command line would not take.
    public init(
        parsing bytes: [UInt8], name: String, understand: (([String]) -> String?)? = nil
    ) throws(Fault) {
        func fault(_ code: FaultCode, _ problems: [String]) -> Fault {
            Fault(
                code, what: problems.joined(separator: " "), place: name,
                remedy: "Nothing was done. Correct the file and check it with `relight job check`.")
        }
        guard bytes.count <= JobFile.limit else { throw fault(.job, ["A job file has at most 1 MiB."]) }
        // The decoder itself traps on bytes that are not UTF-8.
        guard let text = String(validating: bytes, as: UTF8.self) else { throw fault(.job, ["It is not UTF-8 text."]) }
        let root: JobValue
        do {
            let decoder = JSONDecoder()
            decoder.allowsJSON5 = true
            root = try decoder.decode(JobValue.self, from: Data(text.utf8))
        } catch {
            // The decoder does not tell the place.
            if let mistake = JSON5Syntax.mistake(in: bytes) {
                throw fault(
                    .job, ["It is not JSON5: line \(mistake.line), column \(mistake.column): \(mistake.what)."])
            }
            // Its own words may end with a full stop.
            let reason = JobFile.reason(error)
            throw fault(.job, ["It is not JSON5: \(reason)\(reason.hasSuffix(".") ? "" : ".")"])
        }
        guard case .object(let fields) = root else {
            throw fault(.job, ["It is not an object: { relight: 1, steps: […] }."])
        }

        var reader = JobReader()
        for key in fields.keys.sorted() where !["relight", "steps", "after"].contains(key) {
            reader.problem("The key \"\(key)\" is not known.")
        }
        if fields["relight"] != .integer(1) {
            reader.problem("It does not say \"relight: 1\", the version of the form.")
        }
        after = .shell
        if let value = fields["after"] {
            if case .text(let word) = value, let known = After(rawValue: word) {
                after = known
            } else {
                reader.problem("\"after\" is none of \(After.allCases.map(\.rawValue).joined(separator: ", ")).")
            }
        }
        steps = []
        if case .list(let list)? = fields["steps"], !list.isEmpty {
            for (index, value) in list.prefix(1000).enumerated() {
                if let step = reader.step(value, number: index + 1) { steps.append(step) }
            }
            if list.count > 1000 { reader.problem("It has more than 1000 steps.") }
        } else {
            reader.problem("\"steps\" is not a list with at least one step.")
        }
        // The words of a step that has problems already say nothing new.
        if let understand {
            for step in steps where !reader.isFaulty(step.number) {
                if let problem = JobFile.problem(step, understand) { reader.missingVerbs.append(problem) }
            }
        }
        let all = reader.problems + reader.missingVerbs + reader.refusals
        guard !all.isEmpty else { return }
        throw fault(!reader.problems.isEmpty ? .job : !reader.missingVerbs.isEmpty ? .unsupported : .notConfirmed, all)
    }

    private static func problem(_ step: JobStep, _ understand: ([String]) -> String?) -> String? {
        guard step.verb != .run, let problem = understand(step.arguments) else { return nil }
        return "Step \(step.number) (\(step.verb.rawValue)): \(problem)"
    }

    /// Has the command line read the words of each step: a key that this version's commands do not take is refused
    /// before the first step. `understand` returns what is wrong with a command's words, `nil` when nothing is.
    /// Throws `unsupported` with every problem.
    public func check(_ understand: ([String]) -> String?) throws(Fault) {
        let problems = steps.compactMap { JobFile.problem($0, understand) }
        guard problems.isEmpty else {
            throw Fault(
                .unsupported, what: problems.joined(separator: " "),
                remedy: "Nothing was done. `relight help VERB` lists what this version's commands take.")
        }
    }

    private static func reason(_ error: any Error) -> String {
        guard let error = error as? DecodingError else { return "it cannot be read" }
        if case .dataCorrupted(let context) = error {
            if let under = context.underlyingError {
                return "\(under)".split(separator: "\n").first.map(String.init) ?? ""
            }
            return context.debugDescription
        }
        return "a value is of an unknown kind"
    }
}

/// One step of a job.
public struct JobStep: Hashable, Sendable {
    /// What a step can do.
    public enum Verb: String, Sendable, CaseIterable {
        /// Image disks into a set.
        case backup
        /// Read a set back.
        case verify
        /// Bring a disk back.
        case restore
        /// Remove recovery points.
        case forget
        /// Reclaim space.
        case prune
        /// Copy points from set to set.
        case copy
        /// Write a point into one file.
        case archive
        /// Run a program.
        case run
    }
    /// Verbs of later versions: known, so that the message can say so.
    static let laterVerbs = [
        "clone", "extract", "boot-check", "boot-repair", "boot-undo", "adapt",
    ]

    /// Its number, from 1.
    public var number: Int
    /// What it does.
    public var verb: Verb
    /// The words after `relight`; for `run` the program and its words.
    public var arguments: [String]
    /// Disks it reads or writes, as the file names them, without part numbers.
    public var disks: [String]
    /// Disks it writes to, as the file names them, without part numbers.
    public var targets: [String]
    /// The image set it works with, without the point, as the file names it.
    public var set: String?
    /// Seconds after which it is ended; only `run` has a limit.
    public var seconds: Double?
}

/// A value of a job file.
enum JobValue: Hashable, Sendable, Decodable {
    case object([String: JobValue])
    case list([JobValue])
    case text(String)
    case integer(Int)
    case number(Double)
    case flag(Bool)
    case null

    init(from decoder: any Decoder) throws {
        let single = try decoder.singleValueContainer()
        if single.decodeNil() {
            self = .null
        } else if let value = try? single.decode(Bool.self) {
            self = .flag(value)
        } else if let value = try? single.decode(Int.self) {
            self = .integer(value)
        } else if let value = try? single.decode(Double.self) {
            self = .number(value)
        } else if let value = try? single.decode(String.self) {
            self = .text(value)
        } else if let value = try? single.decode([JobValue].self) {
            self = .list(value)
        } else {
            self = .object(try single.decode([String: JobValue].self))
        }
    }
}

/// How one key of a step becomes words of a command.
private struct JobOption {
    enum Kind {
        /// One string or whole number.
        case text
        /// One of these words.
        case choice([String])
        /// `fast`, `default`, `best`, `off`, or 1 ... 19.
        case level
        /// `true` gives the option, `false` leaves it out.
        case flag
        /// A list, or one, of strings or whole numbers; each gives the option once.
        case list
        /// An object of parts and values, or a list of `PART=VALUE`; each member gives the option once.
        case map
        /// An option of a later version: known, so that the message can say so.
        case later
    }
    var key: String
    var kind: Kind
    /// The option where it is not called like the key.
    var word: String?

    /// `onReadError` is `--on-read-error`.
    var option: String {
        if let word { return word }
        var result = "--"
        for character in key {
            if character.isUppercase { result.append("-") }
            result.append(contentsOf: character.lowercased())
        }
        return result
    }

    static let backup = [
        JobOption(key: "name", kind: .text), JobOption(key: "volume", kind: .list),
        JobOption(key: "whole", kind: .list),
        JobOption(key: "also", kind: .list),
        JobOption(key: "encrypt", kind: .flag), JobOption(key: "passphraseFile", kind: .text),
        JobOption(key: "keyFile", kind: .text), JobOption(key: "cipher", kind: .choice(["aes256", "aes128"])),
        JobOption(key: "protect", kind: .text), JobOption(key: "unitSize", kind: .text),
        JobOption(key: "packSize", kind: .text), JobOption(key: "level", kind: .level),
        JobOption(key: "onReadError", kind: .choice(["fail", "skip"])), JobOption(key: "rate", kind: .later),
        JobOption(key: "noVerify", kind: .flag), JobOption(key: "sectorSize", kind: .text),
        JobOption(key: "readRetries", kind: .text), JobOption(key: "badPlaceTime", kind: .text),
        JobOption(key: "badTime", kind: .text), JobOption(key: "compare", kind: .choice(["full", "metadata"])),
        JobOption(key: "unlock", kind: .list),
    ]
    static let verify = [
        JobOption(key: "quick", kind: .flag), JobOption(key: "stored", kind: .flag),
        JobOption(key: "share", kind: .text), JobOption(key: "seed", kind: .text),
        JobOption(key: "passphraseFile", kind: .text), JobOption(key: "keyFile", kind: .text),
        JobOption(key: "also", kind: .list),
    ]
    static let copy = [
        JobOption(key: "also", kind: .list), JobOption(key: "toAlso", kind: .list),
        JobOption(key: "like", kind: .flag), JobOption(key: "plain", kind: .flag),
        JobOption(key: "encrypt", kind: .flag), JobOption(key: "cipher", kind: .choice(["aes256", "aes128"])),
        JobOption(key: "passphraseFile", kind: .text), JobOption(key: "keyFile", kind: .text),
        JobOption(key: "toPassphraseFile", kind: .text), JobOption(key: "toKeyFile", kind: .text),
        JobOption(key: "level", kind: .level), JobOption(key: "protect", kind: .text),
        JobOption(key: "unitSize", kind: .text), JobOption(key: "packSize", kind: .text),
        JobOption(key: "catalogue", kind: .flag), JobOption(key: "noVerify", kind: .flag),
    ]
    static let archive = [
        JobOption(key: "split", kind: .text), JobOption(key: "noVerify", kind: .flag),
        JobOption(key: "also", kind: .list), JobOption(key: "passphraseFile", kind: .text),
        JobOption(key: "keyFile", kind: .text),
    ]
    static let forget = [
        JobOption(key: "point", kind: .list), JobOption(key: "keepLast", kind: .text),
        JobOption(key: "keepHourly", kind: .text), JobOption(key: "keepDaily", kind: .text),
        JobOption(key: "keepWeekly", kind: .text), JobOption(key: "keepMonthly", kind: .text),
        JobOption(key: "keepYearly", kind: .text), JobOption(key: "dryRun", kind: .flag),
        JobOption(key: "prune", kind: .flag), JobOption(key: "passphraseFile", kind: .text),
        JobOption(key: "keyFile", kind: .text), JobOption(key: "also", kind: .list),
    ]
    static let prune = [
        JobOption(key: "dryRun", kind: .flag), JobOption(key: "garbage", kind: .text),
        JobOption(key: "grace", kind: .text), JobOption(key: "allPointsForgotten", kind: .flag),
        JobOption(key: "passphraseFile", kind: .text), JobOption(key: "keyFile", kind: .text),
        JobOption(key: "also", kind: .list),
    ]
    static let restore = [
        JobOption(key: "layout", kind: .choice(["exact", "keep", "proportional", "fill"])),
        JobOption(key: "size", kind: .map), JobOption(key: "sizes", kind: .map, word: "--size"),
        JobOption(key: "drop", kind: .list), JobOption(key: "recreate", kind: .list),
        JobOption(key: "scratch", kind: .text),
        JobOption(key: "table", kind: .choice(["auto", "mbr", "gpt"])),
        JobOption(key: "firmware", kind: .choice(["auto", "bios", "uefi"])),
        JobOption(key: "ids", kind: .choice(["keep", "new"])), JobOption(key: "resume", kind: .later),
        JobOption(key: "noRepair", kind: .flag), JobOption(key: "noAdapt", kind: .flag),
        JobOption(key: "readBack", kind: .choice(["full", "off"])),
        JobOption(key: "onDamage", kind: .choice(["fail", "skip"])), JobOption(key: "passphraseFile", kind: .text),
        JobOption(key: "keyFile", kind: .text), JobOption(key: "also", kind: .list),
    ]
}

/// Reads steps and collects what is wrong with them.
private struct JobReader {
    var problems: [String] = []
    var missingVerbs: [String] = []
    var refusals: [String] = []
    private var place = ""

    /// Whether something is wrong with the step `number`.
    func isFaulty(_ number: Int) -> Bool {
        (problems + missingVerbs).contains { $0.hasPrefix("Step \(number) ") || $0.hasPrefix("Step \(number):") }
    }

    mutating func problem(_ text: String) { problems.append(place.isEmpty ? text : "\(place): \(text)") }

    mutating func step(_ value: JobValue, number: Int) -> JobStep? {
        place = "Step \(number)"
        defer { place = "" }
        guard case .object(let fields) = value, let (word, content) = fields.first, fields.count == 1 else {
            problem("It is not an object with one verb, such as {verify: {set: \"label:BACKUPS/sets\"}}.")
            return nil
        }
        guard let verb = JobStep.Verb(rawValue: word) else {
            if JobStep.laterVerbs.contains(word) {
                missingVerbs.append("\(place): \"\(word)\" is not in this version.")
            } else {
                let known = JobStep.Verb.allCases.map(\.rawValue).joined(separator: ", ")
                problem("The verb \"\(word)\" is not known; there are \(known).")
            }
            return nil
        }
        place = "Step \(number) (\(word))"
        if verb == .run { return run(content, number) }
        guard case .object(let keys) = content else {
            problem("What follows the verb is not an object.")
            return nil
        }
        switch verb {
        case .backup: return backup(keys, number)
        case .verify: return verify(keys, number)
        case .forget: return keeping(.forget, keys, JobOption.forget, number)
        case .prune: return keeping(.prune, keys, JobOption.prune, number)
        case .restore: return restore(keys, number)
        case .copy: return copy(keys, number)
        case .archive: return archive(keys, number)
        case .run: return nil
        }
    }

    private mutating func backup(_ keys: [String: JobValue], _ number: Int) -> JobStep? {
        let words = options(keys, JobOption.backup, besides: ["disks", "to"])
        let disks = texts(keys["disks"], "disks") ?? []
        if disks.isEmpty { problem("\"disks\" names no disk.") }
        let set = place(keys["to"], "to")
        guard let set else { return nil }
        return JobStep(
            number: number, verb: .backup, arguments: ["backup", "--to=\(set)"] + words + ["--"] + disks,
            disks: disks.map { DiskSelector.splitPart($0).disk }, targets: [], set: set, seconds: nil)
    }

    private mutating func verify(_ keys: [String: JobValue], _ number: Int) -> JobStep? {
        let words = options(keys, JobOption.verify, besides: ["set", "from"])
        if keys["set"] != nil, keys["from"] != nil { problem("\"set\" and \"from\" mean the same; give one.") }
        let key = keys["from"] == nil ? "set" : "from"
        guard let set = place(keys[key], key) else { return nil }
        return JobStep(
            number: number, verb: .verify, arguments: ["verify"] + words + ["--", set], disks: [], targets: [],
            set: JobReader.withoutPoint(set), seconds: nil)
    }

    /// A step that names nothing but a set and options.
    private mutating func keeping(
        _ verb: JobStep.Verb, _ keys: [String: JobValue], _ known: [JobOption], _ number: Int
    ) -> JobStep? {
        let words = options(keys, known, besides: ["set"])
        guard let set = place(keys["set"], "set") else { return nil }
        return JobStep(
            number: number, verb: verb, arguments: [verb.rawValue] + words + ["--", set], disks: [], targets: [],
            set: JobReader.withoutPoint(set), seconds: nil)
    }

    private mutating func copy(_ keys: [String: JobValue], _ number: Int) -> JobStep? {
        let words = options(keys, JobOption.copy, besides: ["from", "to"])
        guard let source = place(keys["from"], "from"), let target = place(keys["to"], "to") else { return nil }
        return JobStep(
            number: number, verb: .copy, arguments: ["copy"] + words + ["--", source, target], disks: [], targets: [],
            set: target, seconds: nil)
    }

    private mutating func archive(_ keys: [String: JobValue], _ number: Int) -> JobStep? {
        let words = options(keys, JobOption.archive, besides: ["from", "to"])
        guard let source = place(keys["from"], "from"), let file = place(keys["to"], "to") else { return nil }
        return JobStep(
            number: number, verb: .archive, arguments: ["archive"] + words + ["--", source, file], disks: [],
            targets: [], set: JobReader.withoutPoint(source), seconds: nil)
    }

    private mutating func restore(_ keys: [String: JobValue], _ number: Int) -> JobStep? {
        if keys["plan"] != nil {
            problem("\"plan\" cannot be used in a job of this version: name the target with \"to\".")
        }
        var words = options(keys, JobOption.restore, besides: ["from", "to", "confirm", "plan"])
        // A job cannot be asked whether a disk that is still attached will be detached: who confirms it has decided that.
        if keys["ids"] == nil { words.append("--ids=keep") }
        let set = place(keys["from"], "from")
        var targets: [String] = []
        var mappings: [String] = []
        let list: [JobValue]
        switch keys["to"] {
        case .list(let values)?: list = values
        case .some(let value): list = [value]
        case nil: list = []
        }
        for value in list {
            var disk: String?
            var source: String?
            switch value {
            case .text(let text):
                // DISK=SOURCE, as on the command line.
                let sign = text.lastIndex(of: "=")
                disk = sign.map { String(text[..<$0]) } ?? text
                source = sign.map { String(text[text.index(after: $0)...]) }
            case .object(let fields):
                for key in fields.keys.sorted() where !["disk", "source"].contains(key) {
                    problem("The key \"\(key)\" in \"to\" is not known.")
                }
                disk = text(fields["disk"])
                source = text(fields["source"])
                if fields["source"] != nil, source == nil { problem("\"source\" in \"to\" is not a string.") }
            default: break
            }
            guard let disk, check(disk, "to"), source.map({ check($0, "source") }) ?? true else {
                if disk == nil { problem("\"to\" is not a list of {disk: \"serial:X\"}.") }
                continue
            }
            let target = DiskSelector.splitPart(disk).disk
            if (try? DiskSelector(target))?.isPinned != true {
                refusals.append(
                    "\(place): the target \"\(disk)\" is not pinned; name it by serial:, wwn: or its exact size:.")
            }
            targets.append(target)
            mappings.append("--to=\(disk)" + (source.map { "=\($0)" } ?? ""))
        }
        if list.isEmpty { problem("\"to\" names no target disk.") }
        switch keys["confirm"] {
        case .flag(true)?: break
        case nil, .flag(false)?:
            refusals.append("\(place): it overwrites a disk and does not say \"confirm: true\".")
        default: problem("\"confirm\" is neither true nor false.")
        }
        guard let set else { return nil }
        return JobStep(
            number: number, verb: .restore, arguments: ["restore"] + mappings + words + ["--yes", "--", set],
            disks: targets, targets: targets, set: JobReader.withoutPoint(set), seconds: nil)
    }

    private mutating func run(_ content: JobValue, _ number: Int) -> JobStep? {
        var command = content
        var seconds: Double?
        if case .object(let keys) = content {
            for key in keys.keys.sorted() where !["command", "timeout"].contains(key) {
                problem("The key \"\(key)\" is not known.")
            }
            switch keys["timeout"] {
            case nil: break
            case .integer(let value)? where value > 0 && value <= 1_000_000: seconds = Double(value)
            default: problem("\"timeout\" is not a number of seconds above 0.")
            }
            command = keys["command"] ?? .null
        }
        let words: [String]
        switch command {
        case .text(let line) where !line.isEmpty && !line.utf8.contains(0): words = ["/bin/sh", "-c", line]
        case .list(let values):
            words = values.compactMap { text($0) }
            if words.count != values.count || words.isEmpty || words[0].isEmpty
                || words.contains(where: { $0.utf8.contains(0) })
            {
                problem("The command is not a list of words.")
                return nil
            }
        default:
            problem("It names no command: {run: [\"program\", \"word\"]}, or a line for the shell.")
            return nil
        }
        return JobStep(
            number: number, verb: .run, arguments: words, disks: [], targets: [], set: nil, seconds: seconds)
    }

    /// The words of all options; keys that are neither options nor in `besides` are problems.
    private mutating func options(
        _ keys: [String: JobValue], _ options: [JobOption], besides: [String]
    ) -> [String] {
        var words: [String] = []
        for (key, value) in keys.sorted(by: { $0.key < $1.key }) where !besides.contains(key) {
            guard let option = options.first(where: { $0.key == key }) else {
                let hint =
                    key == "passphrase"
                    ? " A passphrase stands in no job file; name a file with \"passphraseFile\"." : ""
                problem("The key \"\(key)\" is not known.\(hint)")
                continue
            }
            switch option.kind {
            case .text:
                if let text = text(value), check(text, key) {
                    words.append("\(option.option)=\(text)")
                } else if text(value) == nil {
                    problem("\"\(key)\" is not a string.")
                }
            case .choice(let choices):
                if let text = text(value), choices.contains(text) {
                    words.append("\(option.option)=\(text)")
                } else {
                    problem("\"\(key)\" is none of \(choices.joined(separator: ", ")).")
                }
            case .level:
                let text = text(value) ?? ""
                if ["fast", "default", "best", "off"].contains(text) || (1...19).contains(Int(text) ?? 0) {
                    words.append("\(option.option)=\(text)")
                } else {
                    problem("\"\(key)\" is none of fast, default, best, off, 1 to 19.")
                }
            case .flag:
                if case .flag(let isOn) = value {
                    if isOn { words.append(option.option) }
                } else {
                    problem("\"\(key)\" is neither true nor false.")
                }
            case .list:
                for text in texts(value, key) ?? [] { words.append("\(option.option)=\(text)") }
            case .map:
                guard case .object(let fields) = value else {
                    for text in texts(value, key) ?? [] { words.append("\(option.option)=\(text)") }
                    continue
                }
                for (part, size) in fields.sorted(by: { $0.key < $1.key }) {
                    guard let text = text(size) else {
                        problem("\"\(key)\" holds something that is not a string.")
                        continue
                    }
                    if check(part, key), check(text, key) { words.append("\(option.option)=\(part)=\(text)") }
                }
            case .later: missingVerbs.append("\(place): \"\(key)\" is not in this version.")
            }
        }
        return words
    }

    /// A string, or a whole number written as one.
    private func text(_ value: JobValue?) -> String? {
        switch value {
        case .text(let text)?: return text
        case .integer(let number)?: return String(number)
        default: return nil
        }
    }

    private mutating func texts(_ value: JobValue?, _ key: String) -> [String]? {
        let values: [JobValue]
        switch value {
        case .list(let list)?: values = list
        case .some(let one): values = [one]
        case nil: return nil
        }
        var result: [String] = []
        for value in values {
            guard let text = text(value) else {
                problem("\"\(key)\" holds something that is not a string.")
                return nil
            }
            if check(text, key) { result.append(text) }
        }
        return result
    }

    private mutating func place(_ value: JobValue?, _ key: String) -> String? {
        guard let text = text(value) else {
            problem(value == nil ? "\"\(key)\" is missing." : "\"\(key)\" is not a string.")
            return nil
        }
        return check(text, key) ? text : nil
    }

    /// Whether a word can stand on a command line without being taken for something else.
    private mutating func check(_ text: String, _ key: String) -> Bool {
        if text.isEmpty || text.hasPrefix("-") || text.unicodeScalars.contains(where: { $0.value < 0x20 }) {
            problem("\"\(key)\" holds an empty word, one that begins with \"-\", or one with a control character.")
            return false
        }
        return true
    }

    /// `SET@POINT` without the point: what stands before the last `@` after the last `/`.
    static func withoutPoint(_ text: String) -> String {
        let start = text.lastIndex(of: "/") ?? text.startIndex
        guard let sign = text[start...].lastIndex(of: "@") else { return text }
        return String(text[..<sign])
    }
}
