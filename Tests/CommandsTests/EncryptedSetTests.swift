// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
import Testing
import Tools

/// Encrypted sets by the command line.
@Suite(.enabled(if: Samples.areAvailable, Samples.why))
struct EncryptedSetTests {
    static let passphrase = "CANARY-passphrase-7f3a"
    let scratch: Scratch
    let disk: String
    let set: String

    init() throws {
        scratch = try Scratch()
        disk = try scratch.file("disk.img", "24M")
        set = scratch.path + "/set"
        try scratch.sh(
            """
            mkfs.ext4 -q -F disk.img; printf 'CANARY-content-91c2 %.0s' $(seq 500) > text
            debugfs -w -R 'write text text' disk.img 2>/dev/null
            umask 077; printf '%s\\n' "$1" > pass; printf 'another' > other; head -c 100 /dev/urandom > key
            """, [Self.passphrase])
    }

    private func backup(_ more: [String] = ["--passphrase-file", "pass"], name: String = "secret-name") throws -> Run {
        try Program.script(
            "cd \"$1\"; shift; \"$relight\" --json --log-file log backup \"$@\"",
            [scratch.path, disk, "--to", set, "--name", name] + more, in: scratch)
    }

    @Test func whatIsSecretShowsNowhere() throws {
        let made = try backup()
        #expect(made.status == 0, "\(made.err)")
        let again = try backup()
        #expect(try again.document().new == 0, "an encrypted set shares as any other")
        // The log names what the user named; the set does not.
        let logged = try scratch.sh("cat log")
        let stored = try scratch.sh("find set; find set -type f -print0 | xargs -0 cat | strings")
        for secret in [Self.passphrase, "CANARY-content"] {
            #expect(!(logged + stored).contains(secret), "\(secret) shows")
        }
        #expect(!stored.contains("secret-name") && !stored.contains("disk.img"))
        #expect(!(made.out + made.err + again.out + again.err).contains(Self.passphrase))
    }

    @Test func onlyTheRightKeyOpensIt() throws {
        #expect(try backup().status == 0)
        for command in ["points", "show", "verify"] {
            try Program.mustFail([command, set], status: 6, code: "key.needed", saying: ["--passphrase-file"])
            try Program.mustFail(
                [command, set, "--passphrase-file", scratch.path + "/other"], status: 6, code: "key.wrong",
                saying: ["passphrase"])
            let run = try Program.run(command, set, "--passphrase-file", scratch.path + "/pass")
            #expect(run.status == 0, "\(command): \(run.err)")
        }
        let target = try scratch.file("target.img", "24M")
        let before = try sha256(target)
        try Program.mustFail(
            ["restore", set, "--to", target, "--yes", "--key-file", scratch.path + "/key"], status: 6,
            code: "key.wrong",
            saying: ["passphrase, not by a key file"])
        #expect(try sha256(target) == before)
        let run = try Program.run(
            "restore", set, "--to", target, "--yes", "--passphrase-file", scratch.path + "/pass")
        #expect(run.status == 0, "\(run.err)")
        #expect(try scratch.sh("debugfs -R 'cat text' target.img 2>/dev/null | cmp - text && echo same") == "same\n")
    }

    @Test func aDamagedSlotIsNotAWrongPassphrase() throws {
        #expect(try backup().status == 0)
        try scratch.sh(
            "for f in $(find set -name '*.key'); do printf damage | dd of=$f bs=1 seek=120 conv=notrunc status=none; done"
        )
        try Program.mustFail(
            ["points", set, "--passphrase-file", scratch.path + "/pass"], status: 5, code: "set.damaged",
            saying: ["key slots"])
    }

    @Test func oneDamagedSlotOfTwoIsNamedAndCanBeTakenAway() throws {
        #expect(try backup().status == 0)
        let (pass, key) = (scratch.path + "/pass", scratch.path + "/key")
        let slot = try scratch.sh("ls set/keys").prefix(32)
        #expect(try Program.run("key", "add", set, "--passphrase-file", pass, "--new-key-file", key).status == 0)
        try scratch.sh(
            "for f in $(find set -name \"$1.key\"); do printf x | dd of=$f bs=1 seek=120 conv=notrunc status=none; done",
            [String(slot)])
        try Program.mustFail(
            ["points", set, "--passphrase-file", pass], status: 6, code: "key.wrong",
            saying: ["1 of the set's 2 key slots is damaged", "opens the set no more"])
        let verify = try Program.run("verify", set, "--key-file", key)
        #expect(verify.status == 5 && verify.out.contains("key slot is damaged in both copies"), "\(verify.out)")
        #expect(!verify.out.contains("second copies are sound"))
        let list = try Program.run("key", "list", set, "--key-file", key)
        #expect(list.out.contains("\(slot.prefix(10))  DAMAGED"), "\(list.out)")
        let removed = try Program.run("key", "remove", set, String(slot.prefix(8)), "--key-file", key)
        #expect(removed.status == 0, "\(removed.err)")
        #expect(try Program.run("verify", set, "--key-file", key).status == 0)
    }

    @Test func aChangeOfKeysSaysWhatItDoesNotReach() throws {
        #expect(try backup().status == 0)
        let (pass, other) = (scratch.path + "/pass", scratch.path + "/other")
        let added = try Program.run(
            "key", "add", set, "--passphrase-file", pass, "--new-passphrase-file", other, "--label", "door")
        #expect(added.status == 0 && !added.err.contains("old slot"), "\(added.err)")
        let changed = try Program.run(
            "key", "change", set, "--passphrase-file", other, "--new-key-file", scratch.path + "/key")
        #expect(changed.status == 0 && changed.err.contains("old slot still opens copies"), "\(changed.err)")
        let list = try Program.run("key", "list", set, "--passphrase-file", pass)
        #expect(list.out.contains("  door"), "the slot keeps its label: \(list.out)")
        let wrong = try Program.run("points", set, "--passphrase-file", other)
        #expect(wrong.status == 6 && !wrong.err.contains("Caps Lock"), "nobody typed it: \(wrong.err)")
    }

    @Test func keysAreAddedChangedAndRemoved() throws {
        #expect(try backup().status == 0)
        let (pass, other, key) = (scratch.path + "/pass", scratch.path + "/other", scratch.path + "/key")
        #expect(
            try Program.run("key", "change", set, "--passphrase-file", pass, "--new-passphrase-file", other).status == 0
        )
        try Program.mustFail(["points", set, "--passphrase-file", pass], status: 6, code: "key.wrong", saying: [])
        #expect(try Program.run("key", "add", set, "--passphrase-file", other, "--new-key-file", key).status == 0)
        #expect(try Program.run("points", set, "--key-file", key).status == 0)
        let list = try Program.run("key", "list", set, "--key-file", key)
        #expect(list.out.contains("key file") && list.out.contains("passphrase"))
        let slot = try #require(list.out.split(separator: "\n").first { $0.contains("passphrase") }).prefix(10)
        #expect(try Program.run("key", "remove", set, String(slot), "--key-file", key).status == 0)
        try Program.mustFail(["points", set, "--passphrase-file", other], status: 6, code: "key.wrong", saying: [])
        let last = try Program.run("key", "list", set, "--key-file", key).out.split(separator: "\n").last?.prefix(10)
        try Program.mustFail(
            ["key", "remove", set, String(last ?? ""), "--key-file", key], status: 2, code: "usage", saying: ["only"])
    }

    @Test func aPlainSetIsNotTakenForAnEncryptedOne() throws {
        #expect(try backup([]).status == 0)
        let refused = try backup()
        #expect(refused.status == 4)
        #expect(try refused.document().code == "unsupported")
    }

    @Test func aPassphraseIsAskedForAndNotShown() throws {
        #expect(try backup().status == 0)
        let seen = try scratch.sh(
            """
            /usr/bin/python3 - "$1" "$2" "$3" <<'P'
            import os, pty, sys, time
            relight, folder, secret = sys.argv[1:]
            pid, fd = pty.fork()
            if pid == 0: os.execv(relight, [relight, "points", folder])
            seen = b""
            for answer in (b"wrong\\n", secret.encode() + b"\\n"):
                while seen.count(b"Passphrase of") < (1 if answer == b"wrong\\n" else 2): seen += os.read(fd, 1000)
                time.sleep(0.3)
                os.write(fd, answer)
            try:
                while True:
                    part = os.read(fd, 1000)
                    if not part: break
                    seen += part
            except OSError: pass
            print(seen.decode(), "STATUS", os.waitpid(pid, 0)[1])
            P
            """, [try #require(Program.path), set, Self.passphrase])
        #expect(seen.contains("STATUS 0") && seen.contains("secret-name") && seen.contains("keyboard layout"))
        #expect(!seen.contains(Self.passphrase) && !seen.contains("wrong"))
    }
}
