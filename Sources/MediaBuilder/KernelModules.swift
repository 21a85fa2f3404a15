// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// The kernel's modules and what they depend on, from `modules.dep`, `modules.softdep` and `modules.weakdep`.
struct KernelModules: Sendable {
    /// For each module's path below the kernel's module folder (`kernel/fs/fat/vfat.ko.xz`) those it needs.
    let dependencies: [String: [String]]
    /// Modules that should be there too though the kernel does not insist, by module name.
    let companions: [String: [String]]
    /// Paths of drivers inside the kernel itself, without extension.
    let builtIn: Set<String>
    private let byName: [String: String]

    /// Reads the index files' contents.
    init(dependencies text: String, soft: String, weak: String, builtIn: String) {
        var dependencies: [String: [String]] = [:]
        var byName: [String: String] = [:]
        for line in text.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let path = String(line[..<colon])
            dependencies[path] = line[line.index(after: colon)...].split(separator: " ").map(String.init)
            byName[Self.name(of: path)] = path
        }
        var companions: [String: [String]] = [:]
        for (text, verb) in [(soft, "softdep"), (weak, "weakdep")] {
            for line in text.split(separator: "\n") {
                let words = line.split(separator: " ").map(String.init)
                guard words.count > 2, words[0] == verb else { continue }
                companions[Self.normal(words[1]), default: []] += words[2...].filter { !$0.hasSuffix(":") }.map(
                    Self.normal)
            }
        }
        self.dependencies = dependencies
        self.companions = companions
        self.byName = byName
        self.builtIn = Set(builtIn.split(separator: "\n").map { Self.bare(String($0)) })
    }

    /// A module's path without `kernel/` and without `.ko` and what follows: what hooks write.
    static func bare(_ path: String) -> String {
        let inside = path.hasPrefix("kernel/") ? path.dropFirst("kernel/".count) : path[...]
        for end in [".ko", ".ko.xz", ".ko.zst", ".ko.gz"] where inside.hasSuffix(end) {
            return String(inside.dropLast(end.count))
        }
        return String(inside)
    }
    /// A module's name: `_` for `-`.
    static func name(of path: String) -> String { normal(Files.name(of: bare(path))) }
    private static func normal(_ name: String) -> String { String(name.map { $0 == "-" ? "_" : $0 }) }

    /// Whether a hook's pattern names the module `bare`: the module itself, a folder above it, or a glob.
    static func pattern(_ pattern: String, names bare: String) -> Bool {
        if bare == pattern || bare.hasPrefix(pattern + "/") { return true }
        return pattern.contains(where: { "*?[".contains($0) }) && Files.matches(bare, glob: pattern)
    }

    /// The group each chosen module belongs to: the first whose pattern names it, else the first that needs it.
    func choose(_ hooks: [Hook]) throws(Fault) -> [String: String] {
        var owner: [String: String] = [:]
        let paths = dependencies.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        let bares = paths.map(Self.bare)
        for hook in hooks {
            var matched: Set<Word> = []
            for (path, bare) in zip(paths, bares) {
                let words = hook.modules.filter { Self.pattern($0.text, names: bare) }
                guard !words.isEmpty else { continue }
                matched.formUnion(words)
                if hook.excludedModules.contains(where: { Self.pattern($0.text, names: bare) }) { continue }
                add(path, to: hook.name, &owner)
            }
            for word in hook.modules where !word.isOptional && !matched.contains(word) {
                if builtIn.contains(where: { Self.pattern(word.text, names: $0) }) { continue }
                throw Fault(
                    .mediaContent, what: "`\(word.text)` names no module of this kernel.",
                    place: word.origin.description,
                    remedy: "Correct it, or write `\(word.text)?` if only some kernels have it.")
            }
        }
        return owner
    }

    private func add(_ path: String, to group: String, _ owner: inout [String: String]) {
        guard owner[path] == nil, let needed = dependencies[path] else { return }
        owner[path] = group
        for other in needed { add(other, to: group, &owner) }
        for name in companions[Self.name(of: path)] ?? [] {
            if let other = byName[name] { add(other, to: group, &owner) }
        }
    }
}

/// The firmware files that chosen modules name, from `modinfo`.
struct FirmwareNames: Sendable {
    /// Firmware names (maybe globs) by module path below the kernel's module folder.
    var byModule: [String: [String]] = [:]

    /// Reads the output of `modinfo FILE…`; `folder` is the kernel's module folder.
    init(modinfo text: String, folder: String) {
        var module: String?
        for line in text.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
            switch line[..<colon] {
            case "filename":
                module = value.hasPrefix(folder + "/") ? String(value.dropFirst(folder.count + 1)) : nil
            case "firmware":
                if let module { byModule[module, default: []].append(String(value)) }
            default: break
            }
        }
    }
}
