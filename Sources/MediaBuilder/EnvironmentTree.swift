// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Findings

/// A file of the environment: where its bytes are now.
enum Content: Hashable, Sendable {
    /// A file on this machine.
    case file(String)
    /// These bytes.
    case bytes(Data)

    func load() throws(Fault) -> Data {
        switch self {
        case .file(let path): try Files.bytes(path)
        case .bytes(let data): data
        }
    }
}

/// What lies at a path of the environment.
enum Node: Hashable, Sendable {
    case folder(mode: UInt32)
    case file(Content, mode: UInt32)
    case link(target: String)
}

/// The environment's files by path, each with the group it belongs to. The first group that wants a path has it.
struct EnvironmentTree {
    /// A path's entry.
    struct Entry: Hashable, Sendable {
        var node: Node
        var group: String
    }
    /// Absolute path to entry. Folders above an entry are not listed unless they have a mode of their own.
    private(set) var entries: [String: Entry] = [:]
    private let root: DownloadedRoot
    /// ELF programs and libraries whose own needs were looked up.
    private var resolved: Set<String> = []

    init(root: DownloadedRoot) { self.root = root }

    /// Puts something in, unless another group has put something there before.
    mutating func put(_ path: String, _ node: Node, group: String) {
        if entries[path] == nil { entries[path] = Entry(node: node, group: group) }
    }

    /// Puts something in, whatever was there.
    mutating func replace(_ path: String, _ node: Node, group: String) {
        entries[path] = Entry(node: node, group: group)
    }

    /// Takes all a hook names except modules and firmware.
    mutating func add(_ hook: Hook) throws(Fault) {
        for word in hook.binaries {
            guard let place = root.program(word.text) else {
                if word.isOptional { continue }
                throw missing(word, "The program \(word.text) is in none of the downloaded packages.")
            }
            try add(place, group: hook.name, word)
        }
        for word in hook.libraries {
            let found = DownloadedRoot.libraryFolders.compactMap { root.place($0 + "/" + word.text) }.first
            guard let found else {
                if word.isOptional { continue }
                throw missing(word, "The library \(word.text) is in none of the downloaded packages.")
            }
            try add(found, group: hook.name, word)
        }
        for word in hook.paths {
            let found = try root.paths(matching: word.text)
            if found.isEmpty && !word.isOptional {
                throw missing(word, "\(word.text) is in none of the downloaded packages.")
            }
            for path in found { try addAll(path, group: hook.name, word) }
        }
        for link in hook.links { put(link.path, .link(target: link.target), group: hook.name) }
        for bundle in hook.bundles {
            let found = try root.paths(matching: bundle.pattern.text)
            guard !found.isEmpty else {
                throw missing(bundle.pattern, "\(bundle.pattern.text) is in none of the downloaded packages.")
            }
            var joined = Data()
            for path in found {
                joined.append(try Files.bytes(root.folder + path))
                if joined.last != UInt8(ascii: "\n") { joined.append(UInt8(ascii: "\n")) }
            }
            put(bundle.path, .file(.bytes(joined), mode: 0o644), group: hook.name)
        }
    }

    private func missing(_ word: Word, _ what: String) -> Fault {
        Fault(
            .mediaContent, what: what, place: word.origin.description,
            remedy: "Correct the name, add its package to a `packages` line, or write `\(word.text)?` if only some "
                + "suites have it.")
    }

    /// A path and, if it is a folder, everything below it.
    mutating func addAll(_ path: String, group: String, _ word: Word) throws(Fault) {
        guard let place = root.place(path) else {
            throw missing(word, "\(path) is in none of the downloaded packages.")
        }
        if case .folder = place.kind {
            for name in try Files.names(in: root.folder + place.path) {
                try addAll(place.path + "/" + name, group: group, word)
            }
        } else {
            try add(place, group: group, word)
        }
    }

    /// One file or link, with what it leads to and the libraries it needs.
    private mutating func add(_ place: DownloadedRoot.Place, group: String, _ word: Word, depth: Int = 0) throws(Fault)
    {
        switch place.kind {
        case .folder: try addAll(place.path, group: group, word)
        case .other: throw missing(word, "\(place.path) is neither a file, a folder nor a link.")
        case .link(let target):
            put(place.path, .link(target: target), group: group)
            let next = DownloadedRoot.joined(Files.parent(of: place.path), target)
            guard depth < 16, let target = root.place(next) else {
                throw missing(word, "\(place.path) is a link to \(next), which does not exist.")
            }
            try add(target, group: group, word, depth: depth + 1)
        case .file(_, let mode):
            put(place.path, .file(.file(root.folder + place.path), mode: mode), group: group)
            try addLibraries(of: place.path, group: group, word)
        }
    }

    private mutating func addLibraries(of path: String, group: String, _ word: Word) throws(Fault) {
        guard resolved.insert(path).inserted, ELF.needsLibraries(Files.head(root.folder + path, 4096)) else { return }
        for library in try root.libraries(of: path) {
            guard let place = root.place(library) else { continue }
            try add(place, group: group, word)
        }
        guard let loader = root.place(DownloadedRoot.loader) else { return }
        try add(loader, group: group, word)
    }

    /// Programs that are scripts must find their interpreter in the tree; links must lead somewhere.
    func check() throws(Fault) {
        for (path, entry) in entries.sorted(by: { $0.key < $1.key }) {
            switch entry.node {
            case .folder: break
            case .link(let target):
                let full = DownloadedRoot.joined(Files.parent(of: path), target)
                // Links into file systems that exist only at run time lead nowhere here.
                if ["/proc/", "/run/", "/sys/", "/dev/"].contains(where: { normalized(full).hasPrefix($0) }) {
                    continue
                }
                guard reaches(full) else {
                    throw Fault(
                        .mediaContent, what: "The link leads to \(full), which is not in the environment.", place: path,
                        remedy: "Add what it leads to, or leave the link out (group \(entry.group)).")
                }
            case .file(.file(let source), let mode) where mode & 0o111 != 0:
                let head = Files.head(source, 128)
                guard head.starts(with: [0x23, 0x21]) else { continue }
                let line = head.dropFirst(2).prefix { $0 != UInt8(ascii: "\n") }
                let words = String(decoding: line, as: UTF8.self).split(separator: " ").map(String.init)
                guard let interpreter = words.first else { continue }
                let names =
                    interpreter.hasSuffix("/env")
                    ? [interpreter] + words.dropFirst().prefix(1).map { "/usr/bin/" + $0 }
                    : [interpreter]
                for name in names where !reaches(name) {
                    throw Fault(
                        .mediaContent, what: "The script needs \(name), which is not in the environment.", place: path,
                        remedy: "Add the interpreter, or leave the script out (group \(entry.group)).")
                }
            case .file: break
            }
        }
    }

    private func normalized(_ path: String) -> String {
        var parts: [Substring] = []
        for part in path.split(separator: "/") {
            if part == ".." { _ = parts.popLast() } else if part != "." { parts.append(part) }
        }
        return "/" + parts.joined(separator: "/")
    }

    private func reaches(_ path: String, depth: Int = 0) -> Bool {
        guard depth < 16 else { return false }
        var clean = normalized(path)
        for name in ["bin", "sbin", "lib", "lib64"] where clean.hasPrefix("/\(name)/") { clean = "/usr" + clean }
        switch entries[clean]?.node {
        case .file?, .folder?: return true
        case .link(let target)?:
            return reaches(DownloadedRoot.joined(Files.parent(of: clean), target), depth: depth + 1)
        case nil: return entries.keys.contains { $0.hasPrefix(clean + "/") }
        }
    }
}
