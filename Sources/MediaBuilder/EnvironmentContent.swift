// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Findings
import Tools

/// All files of the environment: what the hooks name, modules and firmware, the `/etc` of `bootenv`, and what the
/// builder makes itself (module index, library cache, package list).
struct EnvironmentContent {
    /// The group of what is made from all others: kernel module index, library cache.
    static let indexGroup = "index"

    /// The files.
    private(set) var tree: EnvironmentTree
    /// Paths of the first part, which must be there before anything else can be checked.
    let first: Set<String> = ["/usr/bin/relight", "/init", "/bin", "/sbin", "/lib", "/lib64"]
    /// Number of kernel modules.
    private(set) var modules = 0
    /// Firmware that modules name but the archive does not have: `module: file`.
    private(set) var missingFirmware: [String] = []

    init(
        root: DownloadedRoot, kernel: Kernel, hooks: [Hook], packages: PackageLock, options: ISOOptions,
        events: EventHandler
    ) throws(Fault) {
        tree = EnvironmentTree(root: root)
        tree.put("/usr/bin/relight", .file(.file(options.relight), mode: 0o755), group: "base")
        tree.put("/init", .link(target: "usr/bin/relight"), group: "base")
        for name in ["bin", "sbin", "lib", "lib64"] {
            tree.put("/" + name, .link(target: "usr/" + name), group: "base")
        }
        for name in ["dev", "proc", "sys", "run", "mnt", "var/log", "var/lib", "var/tmp", "usr/lib64"] {
            tree.put("/" + name, .folder(mode: name == "var/tmp" ? 0o1777 : 0o755), group: "base")
        }
        tree.put("/tmp", .folder(mode: 0o1777), group: "base")
        tree.put("/root", .folder(mode: 0o700), group: "base")
        try addSettings(options.source + "/bootenv/etc", to: "/etc")

        for hook in hooks {
            events(.step("Collecting \(hook.name)"))
            try tree.add(hook)
        }
        events(.step("Choosing modules and firmware"))
        try addModules(root: root, kernel: kernel, hooks: hooks, cache: options.cache)
        let list = packages.packages.map { "\($0.name) \($0.version)\n" }.joined()
        tree.put("/etc/relight/packages", .file(.bytes(Data(list.utf8)), mode: 0o644), group: Self.indexGroup)
        try addLibraryCache(root: root, cache: options.cache)
        try tree.check()
    }

    /// The environment's own `/etc`, as it lies in the source folder. It has precedence over the packages' files.
    private mutating func addSettings(_ folder: String, to path: String) throws(Fault) {
        for name in try Files.names(in: folder) {
            switch Files.kind(folder + "/" + name) {
            case .folder?: try addSettings(folder + "/" + name, to: path + "/" + name)
            case .file?:
                // The mode comes from the content: a checkout or a copy may lose it.
                let isScript = Files.head(folder + "/" + name, 2).elementsEqual([0x23, 0x21])
                tree.put(
                    path + "/" + name, .file(.file(folder + "/" + name), mode: isScript ? 0o755 : 0o644), group: "base")
            default: break
            }
        }
    }

    private mutating func addModules(
        root: DownloadedRoot, kernel: Kernel, hooks: [Hook], cache: String
    ) throws(Fault) {
        let folder = root.folder + kernel.moduleFolder
        let owner = try kernel.modules(root: root).choose(hooks)
        let chosen = owner.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        modules = chosen.count
        for path in chosen {
            tree.put(
                kernel.moduleFolder + "/" + path, .file(.file(folder + "/" + path), mode: 0o644),
                group: owner[path] ?? Self.indexGroup)
        }

        let information = try root.run("modinfo", chosen.map { folder + "/" + $0 }).standardOutput
        let names = FirmwareNames(modinfo: information, folder: folder).byModule
        let excluded = hooks.flatMap(\.excludedFirmware)
        for path in chosen {
            for name in names[path] ?? [] {
                if excluded.contains(where: { Files.matches(name, glob: $0.text) }) { continue }
                let found = try root.paths(matching: "/usr/lib/firmware/" + name)
                if found.isEmpty { missingFirmware.append("\(KernelModules.name(of: path)): \(name)") }
                for file in found { try addFirmware(file, group: owner[path] ?? Self.indexGroup) }
            }
        }
        for hook in hooks {
            for word in hook.firmware {
                let found = try root.paths(matching: "/usr/lib/firmware/" + word.text)
                if found.isEmpty && !word.isOptional {
                    throw Fault(
                        .mediaContent, what: "The firmware \(word.text) is in none of the downloaded packages.",
                        place: word.origin.description, remedy: "Correct the name, or add its package.")
                }
                for file in found { try addFirmware(file, group: hook.name) }
            }
        }
        let list = missingFirmware.map { $0 + "\n" }.joined()
        tree.put("/etc/relight/missing-firmware", .file(.bytes(Data(list.utf8)), mode: 0o644), group: Self.indexGroup)
        try addModuleIndex(root: root, kernel: kernel, chosen: chosen, cache: cache)
    }

    private mutating func addFirmware(_ path: String, group: String) throws(Fault) {
        try tree.addAll(path, group: group, Word(text: path, isOptional: false, origin: Origin(file: group, line: 0)))
    }

    /// The index files `modprobe` reads, made by `depmod` for just the chosen modules.
    private mutating func addModuleIndex(
        root: DownloadedRoot, kernel: Kernel, chosen: [String], cache: String
    ) throws(Fault) {
        let key = try SHA256.hex(Data((root.folder + chosen.joined(separator: "\n")).utf8)).prefix(16)
        let base = "\(cache)/module-index-\(key)"
        let folder = base + kernel.moduleFolder
        if !Files.exists(base) {
            for old in try Files.names(in: cache) where old.hasPrefix("module-index-") {
                try Files.remove(cache + "/" + old)
            }
            let part = base + ".part"
            try Files.freshFolder(part)
            let source = root.folder + kernel.moduleFolder
            for path in chosen { try Files.link(source + "/" + path, to: part + kernel.moduleFolder + "/" + path) }
            for name in try Files.names(in: source) where Self.kernelOwnIndexes.contains(name) {
                try Files.link(source + "/" + name, to: part + kernel.moduleFolder + "/" + name)
            }
            try Files.makeLink(part + "/lib", to: "usr/lib")
            try root.run("depmod", ["-b", part, kernel.release])
            try Files.remove(part + kernel.moduleFolder + "/kernel")
            try Files.move(part, to: base)
        }
        for name in try Files.names(in: folder) {
            tree.put(
                kernel.moduleFolder + "/" + name, .file(.file(folder + "/" + name), mode: 0o644), group: Self.indexGroup
            )
        }
    }
    /// Index files that come with the kernel's package.
    private static let kernelOwnIndexes: Set = ["modules.builtin", "modules.builtin.modinfo", "modules.order"]

    /// `/etc/ld.so.cache` for the libraries in the tree, by the downloaded `ldconfig`.
    private mutating func addLibraryCache(root: DownloadedRoot, cache: String) throws(Fault) {
        let stage = cache + "/library-cache"
        try Files.freshFolder(stage)
        for (path, entry) in tree.entries where path.hasPrefix("/usr/lib/") && path.contains(".so") {
            switch entry.node {
            case .file(.file(let source), _): try Files.link(source, to: stage + path)
            case .link(let target): try Files.makeLink(stage + path, to: target)
            default: break
            }
        }
        try Files.write(Data("/usr/lib/x86_64-linux-gnu\n/usr/lib\n".utf8), to: stage + "/etc/ld.so.conf")
        try root.run("ldconfig", ["-r", stage, "-X"])
        let made = try Files.bytes(stage + "/etc/ld.so.cache")
        tree.put("/etc/ld.so.cache", .file(.bytes(made), mode: 0o644), group: Self.indexGroup)
        try Files.remove(stage)
    }
}
