// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Findings
import Glibc
import Tools

/// The unpacked packages: a file tree that looks like an installed system on which no maintainer script ever ran.
struct DownloadedRoot: Sendable {
    /// The tree's folder on this machine; absolute, no `/` at its end.
    let folder: String

    /// Folders programs are looked for in.
    static let programFolders = ["/usr/bin", "/usr/sbin"]
    /// Folders shared libraries are looked for in.
    static let libraryFolders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/lib/x86_64-linux-gnu/systemd"]
    /// The program loader, as programs name it.
    static let loader = "/usr/lib64/ld-linux-x86-64.so.2"

    /// Unpacks `packages` into a fresh folder. Documentation, manuals and translations stay behind.
    static func unpack(_ packages: [String], into folder: String, events: EventHandler) throws(Fault) -> DownloadedRoot
    {
        try Files.freshFolder(folder)
        // A usr-merged system: the packages of older suites still carry the short folders.
        for name in ["bin", "sbin", "lib", "lib64"] {
            try Files.makeFolder(folder + "/usr/" + name)
            try Files.makeLink(folder + "/" + name, to: "usr/" + name)
        }
        let dpkg = try Tool("dpkg-deb", package: "dpkg").requirePath()
        let tar = try Tool("tar", package: "tar").requirePath()
        let left = ["doc", "man", "locale", "info", "bug", "lintian", "linda", "doc-base"]
            .map { "--exclude=./usr/share/\($0)" }
        for (index, package) in packages.enumerated() {
            if index % 20 == 0 { events(.step("Unpacking package \(index + 1) of \(packages.count)")) }
            var ends: [Int32] = [-1, -1]
            guard unsafe pipe(&ends) == 0 else {
                throw Fault(.system, what: "No pipe could be made.", remedy: "Too many files are open; try again.")
            }
            let reading: Int32
            let writing: Int32
            do {
                defer { for end in ends { close(end) } }
                writing = try Tool.spawn(
                    dpkg, ["dpkg-deb", "--fsys-tarfile", package], standardOutput: ends[1], standardError: 2)
                reading = try Tool.spawn(
                    tar, ["tar", "-x", "-p", "--no-same-owner", "--keep-directory-symlink"] + left + ["-C", folder],
                    standardInput: ends[0], standardError: 2)
            }
            let statuses = [Tool.wait(reading), Tool.wait(writing)]
            guard statuses == [0, 0] else {
                throw Fault(
                    .mediaTool, what: "The package cannot be unpacked (dpkg-deb and tar ended with \(statuses)).",
                    place: package, remedy: "Check the free space; remove the file to have it downloaded again.")
            }
        }
        return DownloadedRoot(folder: folder)
    }

    /// What lies at an absolute path of the tree once links in its *folders* are followed; the last part may be a link.
    struct Place: Hashable, Sendable {
        /// The path inside the tree, without links in its folders.
        var path: String
        var kind: Files.Kind
    }

    /// Finds `path`, following links of folders inside the tree only. `nil` when it does not exist.
    func place(_ path: String, depth: Int = 0) -> Place? {
        guard depth < 32 else { return nil }
        var current = ""
        let parts = path.split(separator: "/").map(String.init)
        for (index, part) in parts.enumerated() {
            if part == "." { continue }
            if part == ".." {
                // Above the tree's top is its top.
                current = current.isEmpty ? "" : Files.parent(of: current)
                if current == "/" { current = "" }
                continue
            }
            current += "/" + part
            guard let kind = Files.kind(folder + current) else { return nil }
            if index == parts.count - 1 { return Place(path: current, kind: kind) }
            if case .link(let target) = kind {
                let rest = parts[(index + 1)...].joined(separator: "/")
                return place(Self.joined(Files.parent(of: current), target) + "/" + rest, depth: depth + 1)
            }
        }
        return Files.kind(folder + current).map { Place(path: current.isEmpty ? "/" : current, kind: $0) }
    }

    /// A link's target as an absolute path of the tree.
    static func joined(_ folder: String, _ target: String) -> String {
        target.hasPrefix("/") ? target : (folder == "/" ? "" : folder) + "/" + target
    }

    /// Where a program is, by name or absolute path.
    func program(_ name: String) -> Place? {
        if name.hasPrefix("/") { return place(name) }
        for folder in Self.programFolders {
            if let found = place(folder + "/" + name) { return found }
        }
        return nil
    }

    /// What a place leads to in the end, inside the tree; itself when it is no link. `nil` when it leads nowhere.
    func target(of place: Place) -> Place? {
        var current = place
        for _ in 0..<16 {
            guard case .link(let target) = current.kind else { return current }
            guard let next = self.place(Self.joined(Files.parent(of: current.path), target)) else { return nil }
            current = next
        }
        return nil
    }

    /// Paths that match a glob of absolute paths, sorted; links in folders are followed first.
    func paths(matching pattern: String) throws(Fault) -> [String] {
        guard pattern.contains(where: { "*?[".contains($0) }) else { return place(pattern).map { [$0.path] } ?? [] }
        var found = [""]
        for part in pattern.split(separator: "/").map(String.init) {
            var next: [String] = []
            for folder in found {
                guard part.contains(where: { "*?[".contains($0) }) else {
                    if let place = place(folder + "/" + part) { next.append(place.path) }
                    continue
                }
                guard let here = place(folder + "/.") else { continue }
                for name in (try? Files.names(in: self.folder + here.path)) ?? []
                where Files.matches(name, glob: part) {
                    next.append((here.path == "/" ? "" : here.path) + "/" + name)
                }
            }
            found = next
        }
        return found
    }

    /// Arguments that run a downloaded program with the downloaded loader and libraries.
    private func loaderArguments(_ name: String) -> [String] {
        let libraries = Self.libraryFolders.map { folder + $0 }.joined(separator: ":")
        return ["--inhibit-cache", "--library-path", libraries, "--argv0", name]
    }
    private var loaderTool: Tool { Tool(folder + Self.loader, package: "libc6") }

    /// Runs a program of the tree on this machine. Throws unless it ends with 0.
    @discardableResult
    func run(
        _ name: String, _ arguments: [String], environment: [String: String] = [:], directory: String? = nil,
        seconds: Double = 600
    ) throws(Fault) -> ToolOutput {
        // The kernel would follow an absolute link to the build machine's own file.
        guard let program = program(name).flatMap(target(of:)) else {
            throw Fault(
                .mediaContent, what: "The program \(name) is in none of the downloaded packages.", place: folder,
                remedy: "Add its package to `builder-packages` in the layout file.")
        }
        var surroundings = [
            "TZ": "UTC", "GCONV_PATH": folder + "/usr/lib/x86_64-linux-gnu/gconv", "MTOOLSRC": "/dev/null",
        ]
        surroundings.merge(environment) { _, new in new }
        let output = try loaderTool.run(
            loaderArguments(Files.name(of: name)) + [folder + program.path] + arguments, environment: surroundings,
            directory: directory, seconds: seconds, limit: 64 << 20)
        guard output.status == 0 else {
            throw Fault(
                .mediaTool, what: "\(name) failed with status \(output.status): \(output.lastLine)", place: folder,
                remedy: "Run it by hand to see more: \(([name] + arguments).joined(separator: " "))")
        }
        return output
    }

    /// The shared libraries a program or library needs, by the tree's own loader: absolute paths of the tree.
    func libraries(of path: String) throws(Fault) -> [String] {
        let output = try loaderTool.run(
            Array(loaderArguments("ld.so").dropLast(2)) + ["--list", folder + path], seconds: 60)
        guard output.status == 0 else {
            throw Fault(
                .mediaContent, what: "Its shared libraries cannot be found: \(output.lastLine)", place: path,
                remedy: "Name the package with the missing library on a `packages` line of the hook.")
        }
        return try Self.libraries(listed: output.standardOutput, root: folder, of: path)
    }

    /// Reads what the loader's `--list` prints. A library outside `root` would be the build machine's own: refused.
    static func libraries(listed text: String, root: String, of path: String) throws(Fault) -> [String] {
        var found: [String] = []
        for line in text.split(separator: "\n") {
            // NAME => PATH (ADDRESS); the path may hold blanks.
            guard let arrow = line.firstRange(of: " => ") else { continue }
            let name = line[..<arrow.lowerBound].trimmingPrefix(while: \.isWhitespace)
            var target = String(line[arrow.upperBound...])
            if target.hasSuffix(")"), let address = target.ranges(of: " (0x").last {
                target = String(target[..<address.lowerBound])
            }
            // The loader itself is listed under the name programs give it.
            if name.hasSuffix("ld-linux-x86-64.so.2") { continue }
            guard target.hasPrefix(root + "/") else {
                throw Fault(
                    .mediaContent, what: "The shared library \(name) is not in the downloaded packages.",
                    place: path,
                    remedy: "Name the package that has it on a `packages` line of the hook.")
            }
            found.append(String(target.dropFirst(root.count)))
        }
        return found
    }
}
