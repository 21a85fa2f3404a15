// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import TestSupport
import Testing

@testable import MediaBuilder

@Suite struct KernelModuleTests {
    private let modules = KernelModules(
        dependencies: """
            kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz
            kernel/fs/jbd2/jbd2.ko.xz:
            kernel/fs/ext4x/other.ko.xz:
            kernel/lib/crc16.ko.xz:
            kernel/lib/crc32c-intel.ko:
            kernel/drivers/net/e1000.ko.zst:

            """, soft: "softdep ext4 pre: crc32c-intel\n", weak: "", builtIn: "kernel/fs/proc/proc.ko\n")

    private func hook(_ name: String, _ lines: String) throws -> Hook {
        try Hook(name: name, text: "about x\n" + lines, file: name)
    }

    @Test func aFolderBringsItsModulesTheirDependenciesAndCompanions() throws {
        let owner = try modules.choose([try hook("fs", "modules fs/ext4")])
        #expect(
            owner.keys.sorted() == [
                "kernel/fs/ext4/ext4.ko.xz", "kernel/fs/jbd2/jbd2.ko.xz", "kernel/lib/crc16.ko.xz",
                "kernel/lib/crc32c-intel.ko",
            ])
    }

    @Test func anExcludedModuleComesAllTheSameWhenAnotherNeedsIt() throws {
        let owner = try modules.choose([try hook("fs", "modules fs\nno-modules fs/jbd2 fs/ext4x")])
        #expect(owner["kernel/fs/jbd2/jbd2.ko.xz"] == "fs")
        #expect(owner["kernel/fs/ext4x/other.ko.xz"] == nil)
    }

    @Test func theFirstGroupThatWantsAModuleHasIt() throws {
        let owner = try modules.choose([try hook("a", "modules lib/crc16"), try hook("b", "modules fs/ext4")])
        #expect(owner["kernel/lib/crc16.ko.xz"] == "a")
        #expect(owner["kernel/fs/ext4/ext4.ko.xz"] == "b")
    }

    @Test func aPatternThatNamesNothingIsAMistakeUnlessOptionalOrBuiltIn() throws {
        #expect(throws: Fault.self) { try modules.choose([try hook("a", "modules drivers/nett")]) }
        _ = try modules.choose([try hook("a", "modules drivers/nett? fs/proc drivers/n*/e1000")])
    }

    @Test func firmwareIsReadForEachModule() {
        let text = """
            filename:       /r/usr/lib/modules/6/kernel/drivers/net/tg3.ko.xz
            firmware:       tigon/tg3.bin
            firmware:       tigon/tg3_tso.bin
            description:    firmware: not this
            filename:       /elsewhere/x.ko
            firmware:       x.bin
            """
        let names = FirmwareNames(modinfo: text, folder: "/r/usr/lib/modules/6").byModule
        #expect(names == ["kernel/drivers/net/tg3.ko.xz": ["tigon/tg3.bin", "tigon/tg3_tso.bin"]])
    }
}

@Suite struct DownloadedRootTests {
    private func root(_ scratch: Scratch) throws -> DownloadedRoot {
        try Files.makeLink(scratch.folder + "/bin", to: "usr/bin")
        try Files.makeLink(scratch.folder + "/usr/share/misc/magic", to: "/usr/lib/file/magic")
        try Files.makeLink(scratch.folder + "/usr/loop", to: "loop")
        try Files.write(Data("x".utf8), to: scratch.folder + "/usr/bin/ls")
        try Files.write(Data("x".utf8), to: scratch.folder + "/usr/lib/file/magic")
        try Files.write(Data("x".utf8), to: scratch.folder + "/usr/lib/file/magic.mgc")
        return DownloadedRoot(folder: scratch.folder)
    }

    @Test func linksOfFoldersAreFollowedInsideTheTree() throws {
        let scratch = try Scratch()
        let root = try root(scratch)
        #expect(root.place("/bin/ls")?.path == "/usr/bin/ls")
        #expect(root.place("/usr/share/misc/magic")?.kind == .link(target: "/usr/lib/file/magic"))
        #expect(root.place("/usr/share/misc/magic").flatMap(root.target(of:))?.path == "/usr/lib/file/magic")
        #expect(root.place("/usr/loop").flatMap(root.target(of:)) == nil)
        #expect(root.place("/usr/bin/../../../../usr/bin/ls")?.path == "/usr/bin/ls")
        #expect(root.place("/usr/loop/x") == nil)
        #expect(try root.paths(matching: "/usr/lib/*/magic*") == ["/usr/lib/file/magic", "/usr/lib/file/magic.mgc"])
    }

    @Test func aLibraryOfTheBuildMachineIsRefused() throws {
        let listed = """
            \tlinux-vdso.so.1 (0x00007fff)
            \tlibz.so.1 => /r/usr/lib/x86_64-linux-gnu/libz.so.1 (0x00007f)
            \t/lib64/ld-linux-x86-64.so.2 => /r/usr/lib64/ld-linux-x86-64.so.2 (0x00007f)
            """
        #expect(
            try DownloadedRoot.libraries(listed: listed, root: "/r", of: "/usr/bin/x")
                == ["/usr/lib/x86_64-linux-gnu/libz.so.1"])
        #expect(
            try DownloadedRoot.libraries(
                listed: "\tlibz.so.1 => /a (0x1) b/usr/lib/libz.so.1 (0x00007f)", root: "/a (0x1) b", of: "/usr/bin/x")
                == ["/usr/lib/libz.so.1"])
        for bad in ["\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x0)", "\tlibz.so.1 => not found"] {
            #expect(throws: Fault.self) { try DownloadedRoot.libraries(listed: bad, root: "/r", of: "/usr/bin/x") }
        }
    }

    @Test func aScriptWithoutItsInterpreterIsRefused() throws {
        let scratch = try Scratch()
        try Files.write(Data("#!/usr/bin/perl -w\n".utf8), to: scratch.folder + "/usr/bin/tool")
        let root = DownloadedRoot(folder: scratch.folder)
        var tree = EnvironmentTree(root: root)
        tree.put("/usr/bin/tool", .file(.file(scratch.folder + "/usr/bin/tool"), mode: 0o755), group: "x")
        #expect(throws: Fault.self) { try tree.check() }
        tree.put("/usr/bin/perl", .file(.bytes(Data()), mode: 0o755), group: "x")
        try tree.check()
    }

    @Test func aLinkThatLeadsNowhereIsRefused() throws {
        var tree = EnvironmentTree(root: DownloadedRoot(folder: "/nonexistent"))
        tree.put("/etc/mtab", .link(target: "../proc/self/mounts"), group: "x")
        try tree.check()
        tree.put("/usr/bin/sh", .link(target: "bash"), group: "x")
        #expect(throws: Fault.self) { try tree.check() }
    }

    @Test func mutatedProgramsNeverCrashTheReader() {
        var seed = [UInt8](repeating: 0, count: 512)
        seed.replaceSubrange(0..<6, with: [0x7F, 0x45, 0x4C, 0x46, 2, 1])
        (seed[16], seed[18], seed[32], seed[54], seed[56], seed[64]) = (3, 62, 64, 56, 1, 2)
        #expect(ELF.needsLibraries(Data(seed)))
        var random = Seeded(0xE1F)
        for _ in 0..<5000 { _ = ELF.needsLibraries(Data(random.mutated(seed))) }
    }
}
