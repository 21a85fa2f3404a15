// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
public import Findings

/// One group of the environment's content, as `initramfs-hooks/<name>.hook` declares it.
///
/// `initramfs-hooks/README.md` explains the format.
public struct Hook: Hashable, Sendable {
    /// A symbolic link to make: `path` leads to `target`.
    public struct Link: Hashable, Sendable {
        /// Absolute path of the link.
        public var path: String
        /// What it leads to, relative to its folder or absolute.
        public var target: String
        /// Where it was written.
        public var origin: Origin
    }
    /// Files joined into one, in the order of their names.
    public struct Bundle: Hashable, Sendable {
        /// Absolute path of the file to make.
        public var path: String
        /// Glob of absolute paths whose contents are joined.
        public var pattern: Word
    }

    /// The group's name: the file's name without `.hook`.
    public var name: String
    /// What it is for, one or more sentences.
    public var about: String = ""
    /// Debian packages its files come from.
    public var packages: [Word] = []
    /// Programs by name (looked for in the program folders) or absolute path; their shared libraries come along.
    public var binaries: [Word] = []
    /// Files and folders, taken as they are; globs allowed.
    public var paths: [Word] = []
    /// Shared libraries that are opened by name at run time.
    public var libraries: [Word] = []
    /// Symbolic links to make.
    public var links: [Link] = []
    /// Files to join.
    public var bundles: [Bundle] = []
    /// Kernel modules below the kernel's module folder: a folder, a module without extension, or a glob.
    public var modules: [Word] = []
    /// Modules not taken although a pattern of `modules` names them. Dependencies come along all the same.
    public var excludedModules: [Word] = []
    /// Firmware files below the firmware folder that no module names; globs allowed.
    public var firmware: [Word] = []
    /// Firmware not taken although a module names it.
    public var excludedFirmware: [Word] = []

    /// Reads a hook. `file` is its name for messages, e.g. `initramfs-hooks/base.hook`.
    public init(name: String, text: String, file: String) throws(Fault) {
        self.name = name
        for line in try DeclarationFile.parse(text, file: file) {
            guard !line.words.isEmpty else {
                throw line.fault("`\(line.verb)` stands alone.", remedy: "Name what it is to take, or remove the line.")
            }
            switch line.verb {
            case "about": about += (about.isEmpty ? "" : " ") + line.sentence
            case "packages": packages += line.words
            case "binaries": binaries += line.words
            case "paths": paths += try line.absolutePaths()
            case "libraries": libraries += line.words
            case "modules": modules += line.words
            case "no-modules": excludedModules += line.words
            case "firmware": firmware += line.words
            case "no-firmware": excludedFirmware += line.words
            case "link":
                guard line.words.count == 2, let path = line.words.first, let target = line.words.last else {
                    throw line.fault(
                        "`link` takes a path and a target, but \(line.words.count) words are given.",
                        remedy: "Write `link /usr/bin/sh bash`.")
                }
                try line.checkAbsolute(path.text)
                links.append(Link(path: path.text, target: target.text, origin: line.origin))
            case "bundle":
                guard line.words.count == 2, let path = line.words.first, let pattern = line.words.last else {
                    throw line.fault(
                        "`bundle` takes a path and a glob, but \(line.words.count) words are given.",
                        remedy: "Write `bundle /etc/ssl/certs/ca-certificates.crt /usr/share/…/*.crt`.")
                }
                try line.checkAbsolute(path.text)
                try line.checkAbsolute(pattern.text)
                bundles.append(Bundle(path: path.text, pattern: pattern))
            default:
                throw line.fault(
                    "`\(line.verb)` is not a verb of hook files.",
                    remedy: "Use about, packages, binaries, paths, libraries, link, bundle, modules, no-modules, "
                        + "firmware or no-firmware.")
            }
        }
        guard !about.isEmpty else {
            throw Fault(
                .mediaDescription, what: "The hook does not say what it is for.", place: file,
                remedy: "Begin it with a line `about …`.")
        }
    }
}

extension Declaration {
    /// Refuses a path that is not absolute or leaves its root.
    func checkAbsolute(_ path: String) throws(Fault) {
        // By bytes, as the kernel parts paths: a character may be a slash and what follows in one.
        let parts = path.utf8.split(separator: UInt8(ascii: "/"))
        guard path.utf8.first == UInt8(ascii: "/"), !parts.contains(where: { $0.elementsEqual("..".utf8) }) else {
            throw fault("`\(path)` is not an absolute path.", remedy: "Begin it with `/` and leave out `..`.")
        }
    }
    /// The words, checked to be absolute paths.
    func absolutePaths() throws(Fault) -> [Word] {
        for word in words { try checkAbsolute(word.text) }
        return words
    }
}

/// All hooks of a folder, in the order their content enters the initramfs.
public struct HookSet: Hashable, Sendable {
    /// The hooks: `base` first, the others by name. A file wanted by two groups belongs to the first.
    public var hooks: [Hook]

    /// Hooks made elsewhere.
    public init(_ hooks: [Hook]) {
        self.hooks = hooks.sorted { ($0.name == "base" ? 0 : 1, $0.name) < ($1.name == "base" ? 0 : 1, $1.name) }
    }

    /// Reads every `*.hook` of `folder`.
    public init(folder: String) throws(Fault) {
        var hooks: [Hook] = []
        for name in try Files.names(in: folder) where name.hasSuffix(".hook") {
            let file = folder + "/" + name
            hooks.append(
                try Hook(name: String(name.dropLast(".hook".count)), text: try Files.text(file), file: file))
        }
        guard !hooks.isEmpty else {
            throw Fault(
                .mediaDescription, what: "The folder holds no hook file.", place: folder,
                remedy: "Run the builder in Relight's source folder, or name that folder with --source.")
        }
        self.init(hooks)
    }
}
