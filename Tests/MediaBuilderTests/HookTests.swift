// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import TestSupport
import Testing

@testable import MediaBuilder

@Suite struct HookTests {
    private func hook(_ text: String) throws -> Hook { try Hook(name: "x", text: text, file: "hooks/x.hook") }

    /// The place a faulty hook is refused at.
    private func place(_ text: String) -> String? {
        do {
            _ = try hook(text)
            return nil
        } catch {
            return (error as? Fault)?.place
        }
    }

    @Test func verbsMayBeRepeatedAndCommentsAreLeftOut() throws {
        let hook = try hook(
            """
            # A comment.
            about     Two sentences. # not this
            about     Three.
            packages  bash coreutils

            packages  zstd
            binaries  ls cat lsfd?
            modules   fs/ext4 fs/*
            """)
        #expect(hook.about == "Two sentences. Three.")
        #expect(hook.packages.map(\.text) == ["bash", "coreutils", "zstd"])
        #expect(hook.binaries.map(\.text) == ["ls", "cat", "lsfd"])
        #expect(hook.binaries.map(\.isOptional) == [false, false, true])
        #expect(hook.modules.map(\.text) == ["fs/ext4", "fs/*"])
        #expect(hook.packages.last?.origin.description == "hooks/x.hook:6")
    }

    @Test(arguments: [
        ("packages a\n", "hooks/x.hook"),
        ("about x\npakages a\n", "hooks/x.hook:2"),
        ("about x\n\npackages\n", "hooks/x.hook:3"),
        ("about x\nlink /usr/bin/sh\n", "hooks/x.hook:2"),
        ("about x\nlink usr/bin/sh bash\n", "hooks/x.hook:2"),
        ("about x\npaths /usr/../etc/shadow\n", "hooks/x.hook:2"),
        // The second slash and the accent behind it are one character.
        ("about x\npaths /usr/../\u{301}etc\n", "hooks/x.hook:2"),
        ("about x\nbundle /etc/a\n", "hooks/x.hook:2"),
        ("about x\npackages a\u{1}b\n", "hooks/x.hook:2"),
        ("about x\npackages a\r\n", "hooks/x.hook:2"),
    ])
    func aMistakeIsNamedWithItsLine(_ text: String, _ expected: String) {
        #expect(place(text) == expected)
    }

    @Test func anEndlessLineIsRefused() {
        #expect(place("about x\npackages " + String(repeating: "a", count: 5000)) == "hooks/x.hook:2")
    }

    @Test func baseComesFirstThenTheNamesInOrder() throws {
        let names = try ["fs-ext", "storage", "base", "boot"].map { try Hook(name: $0, text: "about x", file: $0) }
        #expect(HookSet(names).hooks.map(\.name) == ["base", "boot", "fs-ext", "storage"])
    }

    @Test func theRepositorysOwnHooksAndLayoutAreRead() throws {
        let hooks = try HookSet(folder: Repository.folder + "/initramfs-hooks").hooks
        #expect(hooks.first?.name == "base")
        #expect(hooks.count > 8)
        let file = Repository.folder + "/iso-builder/layout"
        let layout = try Layout(text: try Files.text(file), file: file)
        #expect(layout.sizeLimit == 140_000_000)
        let lockFile = Repository.folder + "/iso-builder/\(layout.suite).lock"
        let lock = try PackageLock(text: try Files.text(lockFile), file: lockFile)
        #expect(lock.suite == layout.suite)
        #expect(lock.text == (try Files.text(lockFile)))
        let wanted = Set([layout.kernelPackage] + layout.builderPackages + hooks.flatMap(\.packages).map(\.text))
        #expect(wanted.subtracting(lock.packages.map(\.name)).isEmpty, "the lock file is older than the hooks")
    }

    @Test func mutatedDescriptionsNeverCrashTheReader() throws {
        let seeds = try ["base", "storage", "network"].map {
            Array(try Files.text(Repository.folder + "/initramfs-hooks/\($0).hook").utf8)
        }
        var random = Seeded(0x5EED)
        for round in 0..<3000 {
            let text = random.mutated(seeds[round % seeds.count])
            _ = try? Hook(name: "x", text: String(decoding: text, as: UTF8.self), file: "x")
            _ = try? Layout(text: String(decoding: text, as: UTF8.self), file: "x")
        }
    }
}
