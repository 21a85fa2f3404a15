// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// The modules of one kernel, from the files depmod(8) writes into `/lib/modules/VERSION`.
public struct ModuleIndex: Sendable {
    /// The contents of a kernel's index files; empty where a kernel has none.
    public struct Files: Sendable {
        /// `modules.dep`: each module's file and those it needs.
        public var dependencies: String
        /// `modules.alias`: patterns of device names.
        public var aliases: String
        /// `modules.builtin`: files of what is inside the kernel.
        public var builtIn: String
        /// `modules.builtin.modinfo`, in zero-ended texts: what is inside the kernel says of itself, device names among it.
        public var builtInInfo: String
        /// `modules.softdep`.
        public var soft: String
        /// `modules.weakdep`.
        public var weak: String

        /// Contents.
        public init(
            dependencies: String, aliases: String, builtIn: String = "", builtInInfo: String = "", soft: String = "",
            weak: String = ""
        ) {
            self.dependencies = dependencies
            self.aliases = aliases
            self.builtIn = builtIn
            self.builtInInfo = builtInInfo
            self.soft = soft
            self.weak = weak
        }
    }

    /// Who drives a device.
    public enum Driver: Hashable, Sendable {
        /// It is inside the kernel.
        case builtIn(String)
        /// A module, by name.
        case module(String)

        /// Its name, with `_` for `-`.
        public var name: String {
            switch self {
            case .builtIn(let name), .module(let name): name
            }
        }
    }

    /// Each module's file below the kernel's module folder, by name.
    public let files: [String: String]
    /// Names of what is inside the kernel.
    public let builtIn: Set<String>
    private let needs: [String: [String]]
    private let companions: [String: [String]]
    /// Patterns and drivers by what a device name has before its first `:`; those whose pattern does not fix that in `""`.
    private let patterns: [String: [(pattern: AliasPattern, driver: Driver)]]

    /// Reads the index files.
    public init(_ texts: Files) {
        var files: [String: String] = [:]
        var needs: [String: [String]] = [:]
        for line in texts.dependencies.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let name = ModuleIndex.name(of: line[..<colon])
            files[name] = String(line[..<colon])
            needs[name] = line[line.index(after: colon)...].split(separator: " ").map { ModuleIndex.name(of: $0) }
        }
        var companions: [String: [String]] = [:]
        for (text, verb) in [(texts.soft, "softdep"), (texts.weak, "weakdep")] {
            for line in text.split(separator: "\n") {
                let words = line.split(separator: " ")
                guard words.count > 2, words[0] == verb else { continue }
                companions[ModuleIndex.normal(words[1]), default: []] += words[2...]
                    .filter { !$0.hasSuffix(":") }.map { ModuleIndex.normal($0) }
            }
        }
        var builtIn = Set(texts.builtIn.split(separator: "\n").map { ModuleIndex.name(of: $0) })
        var patterns: [String: [(AliasPattern, Driver)]] = [:]
        func add(_ pattern: some StringProtocol, _ driver: Driver) {
            let pattern = AliasPattern(pattern)
            let bus = pattern.prefix.firstIndex(of: UInt8(ascii: ":"))
                .map { String(decoding: pattern.prefix[..<$0], as: UTF8.self) }
            patterns[bus ?? "", default: []].append((pattern, driver))
        }
        for line in texts.aliases.split(separator: "\n") {
            // A pattern may hold blanks; a module's name does not.
            guard line.hasPrefix("alias "), let blank = line.lastIndex(of: " "),
                line.index(line.startIndex, offsetBy: 6) < blank
            else { continue }
            let pattern = line[line.index(line.startIndex, offsetBy: 6)..<blank]
            add(pattern, .module(ModuleIndex.normal(line[line.index(after: blank)...])))
        }
        // NAME.alias=PATTERN, one after the other.
        for text in texts.builtInInfo.split(separator: "\0") {
            guard let equals = text.firstIndex(of: "="), let dot = text[..<equals].lastIndex(of: ".") else { continue }
            let name = ModuleIndex.normal(text[..<dot])
            if text[text.index(after: dot)..<equals] == "alias" {
                builtIn.insert(name)
                add(text[text.index(after: equals)...], .builtIn(name))
            }
        }
        self.files = files
        self.needs = needs
        self.companions = companions
        self.builtIn = builtIn
        self.patterns = patterns
    }

    /// A module's name with `_` for `-`, as the kernel keeps it.
    public static func normal(_ name: some StringProtocol) -> String { String(name.map { $0 == "-" ? "_" : $0 }) }

    /// The name of the module in a file: without folders and without `.ko` and what follows.
    public static func name(of path: some StringProtocol) -> String {
        let file = path.lastIndex(of: "/").map { String(path[path.index(after: $0)...]) } ?? String(path)
        for end in [".ko", ".ko.xz", ".ko.zst", ".ko.gz"] where file.hasSuffix(end) {
            return normal(file.dropLast(end.count))
        }
        return normal(file)
    }

    /// Who drives a device of this name, in no order; empty where nobody does.
    public func drivers(of modalias: String) -> Set<Driver> {
        let name = Array(modalias.utf8)
        let bus = modalias.firstIndex(of: ":").map { String(modalias[..<$0]) } ?? ""
        var result: Set<Driver> = []
        for key in Set([bus, ""]) {
            for entry in patterns[key] ?? [] where entry.pattern.matches(name) { result.insert(entry.driver) }
        }
        return result
    }

    /// A module and all it needs, what is needed before what needs it; with `companions` also those that should be there
    /// though the kernel does not insist. Empty for what is inside the kernel or not there.
    public func closure(_ module: String, companions withCompanions: Bool = true) -> [String] {
        var result: [String] = []
        var seen: Set<String> = []
        // By a list of its own: what an index says may go in circles, and deep.
        var stack: [(name: String, isDone: Bool)] = [(ModuleIndex.normal(module), false)]
        while let (name, isDone) = stack.popLast() {
            if isDone {
                result.append(name)
                continue
            }
            guard files[name] != nil, seen.insert(name).inserted else { continue }
            stack.append((name, true))
            let others = (needs[name] ?? []) + (withCompanions ? companions[name] ?? [] : [])
            for other in others.reversed() where !seen.contains(other) { stack.append((other, false)) }
        }
        return result
    }
}
