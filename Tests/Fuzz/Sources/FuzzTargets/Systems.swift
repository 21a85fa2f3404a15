// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel

@testable import FileTrees
@testable import FilesystemMaps
@testable import InstalledSystems

extension FuzzTarget {
    /// Files of ext (through libext2fs) and FAT, and the system in them. libntfs-3g is not among them: it is known not to be
    /// proof against this, which is why it runs in children.
    static let trees = FuzzTarget(
        name: "trees", longest: 60_000, seeds: TreeSeeds.make, mend: ExtSeeds.mend
    ) { input in
        let disk = SparseDisk(input, limit: .mebibytes(64))
        for (kind, tree) in [
            (ContentKind.ext4, (try? ExtFileTree(disk)) as (any FileTree)?), (.fat, try? FATFileTree(disk)),
        ] {
            guard let tree else { continue }
            var todo: [[String]] = [[]]
            var seen = 0
            while let folder = todo.popLast(), seen < 60 {
                for entry in (try? tree.list(folder, most: 40)) ?? [] {
                    seen += 1
                    let path = folder + [entry.name]
                    if entry.kind == .folder, path.count < 6 { todo.append(path) }
                    let bytes = (try? tree.read(path, stream: nil, from: 3, count: 3000)) ?? []
                    promise(bytes.count <= 3000, "no more is read than was asked for")
                    _ = try? tree.find(path.joined(separator: "/"))
                    promise(
                        entry.name.unicodeScalars.allSatisfy { $0.value >= 32 && $0.value != 127 },
                        "names are safe to print")
                }
            }
            let volume = SeenVolume(name: "v:1", disk: 0, source: disk, kind: kind)
            guard let found = try? InstalledSystems.look(at: [volume], by: .inProcess) else { continue }
            for (_, system) in found.systems { check(system) }
            for (_, program) in found.programs { keep(program) }
        }
    }

    /// What is read out of files of systems: os-release, fstab, crypttab, hostname, boot entries, heads of kernels and
    /// programs; and what a probe's child says.
    static let systemfiles = FuzzTarget(
        name: "systemfiles", longest: 8192, isText: true, seeds: SystemFileSeeds.make
    ) { input in
        keep(PlainText.assignments(input))
        keep(ELFHead.architecture(input) ?? "")
        if let image = try? PEImage(parsing: input) { promise(image.sections.count <= 96, "sections are bounded") }
        var reader = WireReader(input)
        while let entry = try? reader.entry() { keep(entry) }
        keep((try? reader.path()) ?? [])
        let volumes = [
            SeenVolume(
                name: "vg/root", disk: 0, source: MemoryDisk([UInt8](repeating: 0, count: 1 << 20)), kind: .ext4,
                uuid: "a")
        ]
        let mounts = Fstab(input, crypttab: input, volumes).mounts
        promise(mounts.count <= 256, "lines are bounded")
        // Every file of a system has these bytes.
        let seen = try? InstalledSystems.look(at: volumes) { (_, _) throws(Fault) in SameEverywhere(input) }
        for (_, system) in seen?.systems ?? [] { check(system) }
    }

    private static func check(_ system: InstalledSystem) {
        keep(system)
        promise((system.linux?.kernels.count ?? 0) <= 64, "kernels are bounded")
        promise(system.summary.unicodeScalars.allSatisfy { $0.value >= 32 }, "what is told is safe to print")
    }
}

/// A tree with the same few folders everywhere and the same bytes in every file.
private final class SameEverywhere: FileTree {
    let bytes: [UInt8]
    var isCaseSensitive: Bool { true }
    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func step(_ path: [String]) throws(Fault) -> TreeStep {
        if path.count > 6 || path.first == "@" { return .missing }
        let folders: Set = ["", "etc", "usr", "lib", "modules", "boot", "loader", "entries", "1", "bin", "grub"]
        let name = path.last ?? ""
        return .found(
            TreeEntry(
                name: name, kind: folders.contains(name) ? .folder : .file,
                size: folders.contains(name) ? 0 : UInt64(bytes.count)))
    }
    func list(_ path: [String], most: Int) throws(Fault) -> [TreeEntry] {
        ["vmlinuz-1", "a.conf", "x64-efi"].map { TreeEntry(name: $0, kind: .file, size: UInt64(bytes.count)) }
            + [TreeEntry(name: "1", kind: .folder)]
    }
    func read(_ path: [String], stream: String?, from offset: UInt64, count: Int) throws(Fault) -> [UInt8] {
        offset < UInt64(bytes.count) ? Array(bytes.dropFirst(Int(offset)).prefix(count)) : []
    }
    func streams(_ path: [String]) throws(Fault) -> [TreeStream] { [] }
}

enum TreeSeeds {
    private static let files = [
        ("etc/os-release", "ID=seed\nPRETTY_NAME=\"Seed OS 1\"\n"), ("etc/hostname", "seed\n"),
        ("etc/fstab", "UUID=11111111-2222-3333-4444-555555555555 / ext4 defaults 0 1\n"),
        ("boot/vmlinuz-6.1.0", "kernel"), ("EFI/BOOT/BOOTX64.EFI", "MZ"), ("EFI/a long name.efi", "MZ"),
    ]

    @Sendable static func make() throws -> [(name: String, bytes: [UInt8])] {
        var result: [(name: String, bytes: [UInt8])] = []
        for (name, options) in [
            ("ext4", ["-t", "ext4", "-O", "^has_journal,^resize_inode"]),
            ("ext4-inline", ["-t", "ext4", "-I", "256", "-O", "^has_journal,^resize_inode,inline_data"]),
            ("ext2", ["-t", "ext2", "-O", "^resize_inode"]),
        ] {
            let image = try Scratch(bytes: 256 << 10)
            try image.run(
                "mke2fs", "e2fsprogs",
                ["-q", "-F", "-m", "0", "-b", "1024", "-N", "48", "-U", "11111111-2222-3333-4444-555555555555"]
                    + options
                    + [
                        "-E", "lazy_itable_init=0,hash_seed=11111111-2222-3333-4444-555555555555,root_owner=0:0",
                        image.path,
                    ], environment: ["SOURCE_DATE_EPOCH": "1700000000", "E2FSPROGS_FAKE_TIME": "1700000000"])
            var script = "mkdir etc\nmkdir boot\nsymlink lib /usr/lib\n"
            // Kept until debugfs has read them.
            var kept: [Scratch] = []
            for (path, text) in files where !path.hasPrefix("EFI") {
                let file = try Scratch(bytes: 0)
                try file.run("dd", "coreutils", ["of=\(file.path)", "status=none"], text)
                kept.append(file)
                // debugfs writes into the current folder only.
                let parts = path.split(separator: "/")
                script += "cd /\(parts[0])\nwrite \(file.path) \(parts[1])\ncd /\n"
            }
            defer { withExtendedLifetime(kept) {} }
            try image.run(
                "debugfs", "e2fsprogs", ["-w", "-f", "-", image.path], script,
                environment: ["E2FSPROGS_FAKE_TIME": "1700000000"])
            var input = SparseDisk.input(try image.bytes(), length: 256 << 10, block: 128)
            ExtSeeds.mend(&input)
            result.append((name, input))
        }
        for (name, options) in [("fat12", ["-F", "12"]), ("fat16", ["-F", "16", "-s", "1"])] {
            let size = name == "fat12" ? 256 << 10 : 3 << 20
            let image = try Scratch(bytes: size)
            try image.run("mkfs.fat", "dosfstools", options + ["-i", "12345678", "--invariant", image.path])
            let times = ["SOURCE_DATE_EPOCH": "1700000000", "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"]
            for folder in ["EFI", "EFI/BOOT"] {
                try image.run("mmd", "mtools", ["-i", image.path, "::\(folder)"], environment: times)
            }
            for (path, text) in files where path.hasPrefix("EFI") {
                try image.run("mcopy", "mtools", ["-i", image.path, "-", "::\(path)"], text, environment: times)
            }
            result.append((name, SparseDisk.input(try image.bytes(), length: UInt64(size), block: 64)))
        }
        return result
    }
}

enum SystemFileSeeds {
    @Sendable static func make() throws -> [(name: String, bytes: [UInt8])] {
        var kernel = [UInt8](repeating: 0, count: 0x280)
        kernel.replaceSubrange(0x202..<0x206, with: "HdrS".utf8)
        kernel[0x20E] = 0x40
        kernel.replaceSubrange(0x240..<0x24E, with: "6.1.0-1 (x) #1".utf8)
        var program = [UInt8](repeating: 0, count: 0x1E8)
        program.replaceSubrange(0..<2, with: "MZ".utf8)
        program.put(UInt32(0x80), at: 0x3C)
        program.replaceSubrange(0x80..<0x82, with: "PE".utf8)
        program.put(UInt16(0x8664), at: 0x84)
        program.put(UInt16(2), at: 0x86)
        program.put(UInt16(240), at: 0x94)
        program.put(UInt16(0x20B), at: 0x98)
        program.replaceSubrange(0x188..<0x18D, with: ".sbat".utf8)
        program.put(UInt32(64), at: 0x190)
        program.put(UInt32(64), at: 0x198)
        program.put(UInt32(0x1D8), at: 0x19C)
        var answer = WireWriter(0)
        answer.entry(TreeEntry(name: "name", kind: .file, size: 9, attributes: 0x20, reparseTag: 0x8000_0017))
        answer.path(["a", "b"])
        return [
            ("os-release", Array("PRETTY_NAME=\"A \\\"B\\\" 1\"\nID=a\nID_LIKE='b c'\nVERSION_ID=1\n".utf8)),
            (
                "fstab",
                Array(
                    "UUID=a / ext4 defaults 0 1\n/dev/mapper/vg-root /srv\\040x xfs\n# x\n\"LABEL=b\" none swap\n".utf8)
            ),
            ("crypttab", Array("root UUID=a none luks\n".utf8)),
            ("entry", Array("title A\nversion 6.1\nlinux /vmlinuz-1\ninitrd /initrd-1\noptions root=UUID=a\n".utf8)),
            ("kernel", kernel), ("program", program), ("answer", Array(answer.bytes.dropFirst())),
        ]
    }
}
