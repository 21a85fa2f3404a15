// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import Testing
import Tools

/// What somebody in a hurry types, and what they must be told.
@Suite(.enabled(if: Samples.areAvailable, Samples.why))
struct PlainAnswersTests {
    let scratch: Scratch
    let samples: Samples
    static var hasPython: Bool { Tool("python3", package: "python3").path != nil }

    init() throws {
        scratch = try Scratch()
        samples = try Samples.get()
    }

    // MARK: - Where a set lies

    @Test(.enabled(if: getuid() == 0, "mounting needs root"))
    func aSetInMemoryIsSaid() throws {
        let mount = try Mount(["-t", "tmpfs", "none"], at: "\(scratch.path)/ram")
        let run = try Program.run("--json", "backup", samples.wholeFAT, "--to", "\(mount.path)/set")
        #expect(run.status == 0)
        let finding = try run.document().findings?.first { $0.code == "store.in-memory" }
        #expect(finding?.severity == .warning && finding?.what.contains("switched off") == true)
        let other = try Program.run("--json", "backup", samples.wholeFAT, "--to", "\(scratch.path)/set")
        #expect(try other.document().findings?.contains { $0.code == "store.in-memory" } == false)
    }

    @Test func onlyTheLastFolderOfAPathIsMade() throws {
        let place = "\(scratch.path)/mnt/usb/set"
        for command in [
            ["backup", samples.wholeFAT, "--to", place], ["copy", samples.set, place],
            ["archive", samples.set, place + "/x.tar"],
        ] {
            try Program.mustFail(
                command, status: 7, code: "store.missing",
                saying: ["There is no folder \(scratch.path)/mnt/usb", "what exists of it is \(scratch.path)."])
        }
        #expect(try scratch.sh("ls") == "")
    }

    @Test(arguments: ["LABEL:STICK/set", "lable:STICK/set", "uiid:1234", "https://host/set"])
    func aMisspeltLabelMakesNoFolder(place: String) throws {
        let run = try Program.script(
            "\"$relight\" backup \"$1\" --to \"$2\"; code=$?; ls; exit $code", [samples.wholeFAT, place], in: scratch)
        #expect(run.status == 2 && run.out == "", "\(run.err)")
        #expect(run.err.contains("names no kind of place") && run.err.contains("./\(place)"), "\(run.err)")
    }

    @Test func aFolderWithAColonIsOneWhenItIsThereOrWrittenSo() throws {
        let run = try Program.script(
            "mkdir a:b && \"$relight\" backup \"$1\" --to a:b/s && \"$relight\" backup \"$1\" --to ./c:d && ls -d a:b/s c:d",
            [samples.wholeFAT], in: scratch)
        #expect(run.status == 0 && run.out.hasSuffix("a:b/s\nc:d\n"), "\(run.err)")
    }

    @Test func aStoreThatIsNotAttachedIsAStoresFault() throws {
        for command in [
            ["points", "label:NO-SUCH-STICK/set"], ["backup", samples.wholeFAT, "--to", "label:NO-SUCH-STICK/set"],
        ] {
            try Program.mustFail(
                command, status: 7, code: "store.missing", saying: ["No attached filesystem is label:NO-SUCH-STICK"])
        }
    }

    @Test(.enabled(if: Samples.areLoopsAvailable, "needs loop devices"))
    func adviceNamesTheLabelAndNotTheMountPoint() throws {
        try scratch.sh("truncate -s 8M ext.img; mke2fs -q -F -L RLPLAIN ext.img")
        let loop = try Loop("\(scratch.path)/ext.img")
        defer { withExtendedLifetime(loop) {} }
        let run = try Program.run("points", "label:RLPLAIN/nope")
        #expect(run.status == 1)
        #expect(run.err.contains("--to label:RLPLAIN/nope") && !run.err.contains("/run/relight"), "\(run.err)")
    }

    @Test func anEmptyImageFileIsNoFinishedArchive() throws {
        let file = try scratch.file("new.img", "1M")
        for command in [["points", file], ["backup", samples.wholeFAT, "--to", file]] {
            let plain = try Program.run(command)
            #expect(plain.status == 1 && plain.err.contains("begins with zeros"), "\(plain.err)")
            #expect(!plain.err.contains("finished") && !plain.err.contains("would make a set"))
        }
    }

    @Test func aMissingTargetSaysHowToMakeAFile() throws {
        try Program.mustFail(
            ["plan", samples.set, "--to", "\(scratch.path)/new.img"], status: 1, code: "missing",
            saying: ["truncate -s SIZE \(scratch.path)/new.img"])
    }

    // MARK: - What is chosen when a set is made

    @Test(arguments: [["--protect", "5"], ["--unit-size", "16K"]])
    func whatASetIsNotIsNotSwallowed(options: [String]) throws {
        let set = try samples.copyOfSet(in: scratch)
        for command in [["backup", samples.wholeFAT, "--to", set], ["copy", samples.set, set]] {
            try Program.mustFail(
                command + options, status: 4, code: "unsupported", saying: ["exists already", "when a set is made"])
        }
        #expect(try Program.run(["backup", samples.wholeFAT, "--to", set, "--unit-size", "64K"]).status == 0)
    }

    // MARK: - Which point

    @Test func theLatestOfSeveralMachinesIsSaid() throws {
        let set = try samples.copyOfSet(in: scratch)
        let target = try scratch.file("t.img", "64M")
        let alone = try Program.run("plan", set, "--to", target)
        #expect(!alone.err.contains("latest") && alone.out.hasPrefix("Recovery point "), "\(alone.err)")
        let backup = try Program.run("--json", "backup", samples.wholeFAT, "--to", set, "--name", "colleague")
        let id = try #require(try backup.document().point).prefix(10)
        let plan = try Program.run("plan", set, "--to", target)
        #expect(plan.err.contains("`latest` took \(id) \"colleague\", made 20"), "\(plan.err)")
        #expect(plan.err.contains(samples.gpt), "the other machine's point is named")
        #expect(plan.out.hasPrefix("Recovery point \(id) \"colleague\", made 20"), "\(plan.out)")
        #expect(try !Program.run("plan", "\(set)@\(id)", "--to", target).err.contains("latest"))
        let restored = try Program.run("restore", set, "--to", target, "--yes")
        #expect(restored.err.contains("`latest` took \(id)"))
        #expect(restored.out.contains("\nRecovery point \(id) \"colleague\", made 20"), "\(restored.out)")
        // A second point of the same disk is no other machine.
        let own = "\(scratch.path)/own"
        for _ in 0..<2 { #expect(try Program.run("backup", samples.wholeFAT, "--to", own).status == 0) }
        #expect(try !Program.run("plan", own, "--to", target).err.contains("latest"))
        #expect(try Program.run("points", own).out.contains("machine"))
    }

    @Test func aCopyIsFoundByTheIdOfItsOrigin() throws {
        let archive = "\(scratch.path)/a.tar"
        let made = try Program.run("archive", samples.set, archive)
        let words = made.out.split(separator: " ")
        let origin = try #require(words.dropFirst().first)
        let copy = try #require(words.firstIndex(of: "as").map { words[$0 + 1].dropLast() })
        #expect(origin != copy)
        let run = try Program.run("show", "\(archive)@\(origin)")
        #expect(run.status == 0 && run.out.contains("Recovery point \(copy)"), "\(run.err)")
    }

    // MARK: - A set that has lost its points

    @Test func packsWithoutAPointAreNotSound() throws {
        let set = try samples.copyOfSet(in: scratch)
        try scratch.sh("rm -r set/points set/copies/points")
        let verify = try Program.run("verify", set)
        #expect(verify.status == 3 && !verify.out.contains("Sound"), "\(verify.out)")
        #expect(verify.err.contains("No recovery point is here, but"), "\(verify.err)")
        let quick = try Program.run("verify", set, "--quick")
        #expect(quick.status == 3 && !quick.out.contains("is sound"), "\(quick.out)")
        #expect(try Program.run("points", set).out.contains("that none refers to"))
    }

    // MARK: - Questions

    @Test(.enabled(if: hasPython, "needs Python"))
    func interruptEndsTheQuestion() throws {
        let target = try scratch.file("t.img", "64M")
        let before = try sha256(target)
        let seen = try scratch.sh(
            """
            /usr/bin/python3 - "$1" "$2" "$3" <<'P'
            import os, pty, sys, time, select
            pid, fd = pty.fork()
            if pid == 0: os.execv(sys.argv[1], [sys.argv[1], "restore", sys.argv[2], "--to", sys.argv[3]])
            seen = b""
            while b"Type its" not in seen: seen += os.read(fd, 1000)
            time.sleep(0.3)
            os.write(fd, b"\\x03")
            end = time.time() + 20
            status = None
            while time.time() < end and status is None:
                if select.select([fd], [], [], 0.2)[0]:
                    try: seen += os.read(fd, 1000)
                    except OSError: pass
                done, code = os.waitpid(pid, os.WNOHANG)
                if done: status = os.waitstatus_to_exitcode(code)
            if status is None: os.kill(pid, 9)
            print(seen.decode(), "STATUS", status)
            P
            """, [try #require(Program.path), samples.set, target])
        #expect(seen.contains("STATUS 130") && seen.contains("Nothing was written."), "\(seen)")
        let words = seen.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        #expect(words.contains("recovery point") && words.contains("be written to it"), "\(seen)")
        #expect(try sha256(target) == before)
    }

    // MARK: - Words

    @Test(arguments: [
        (["verfy", "set"], "Did you mean verify?"), (["key", "lst", "set"], "Did you mean list?"),
        (["clone", "a", "--to", "b"], "`relight clone` is not in this version"),
        (["points", "--josn", "set"], "Did you mean --json?"),
        (["backup", "a", "--to", "b", "--rate", "5"], "--rate is not in this version"),
    ])
    func aSlipIsAnsweredForWhatItIs(words: [String], answer: String) throws {
        try Program.mustFail(words, status: 2, code: "usage", saying: ["relight: ", answer, "`relight "])
    }

    @Test func nothingFarOffIsSuggested() throws {
        let run = try Program.run("points", "--unheard-of", "set")
        #expect(run.status == 2 && !run.err.contains("Did you mean"), "\(run.err)")
    }

    @Test func aNameCannotForgeALine() throws {
        try Program.mustFail(
            ["backup", samples.wholeFAT, "--to", "\(scratch.path)/set", "--name", "a\nRELIGHT-JOB ok"], status: 2,
            code: "usage", saying: ["control character"])
    }

    @Test func helpSaysWhatThisVersionDoes() throws {
        let help = try Program.run("--help").out
        #expect(!help.contains("boot.") && !help.contains("8 checked"), "\(help)")
        let plan = try Program.run("plan", "--help").out
        for word in ["proportional", "--size", "--drop", "--recreate", "--table", "--firmware", "--ids", "DISK:NUMBER"]
        {
            #expect(plan.contains(word), "\(plan)")
        }
    }

    // MARK: - JSON

    @Test func everythingIsOneDocument() throws {
        try scratch.sh(
            """
            echo "{relight: 1, steps: [{run: ['true']}]}" > ok.job; echo "{relight: 1, steps: [{run: ['false']}]}" > no.job
            echo "{relight: 1, steps: [{}" > bad.job
            """)
        func schema(_ words: String...) throws -> (String, Int32) {
            let run = try Program.run(["--json"] + words)
            return (try run.document().schema, run.status)
        }
        let job = scratch.path
        #expect(try schema("job", "check", "\(job)/ok.job") == ("relight.job/1", 0))
        #expect(try schema("job", "run", "\(job)/ok.job") == ("relight.job/1", 0))
        #expect(try schema("job", "run", "\(job)/no.job") == ("relight.job/1", 1))
        #expect(try schema("job", "run", "\(job)/bad.job") == ("relight.error/1", 2))
        #expect(try schema("screen") == ("relight.screen/1", 0))
        #expect(try schema("--version") == ("relight.version/1", 0))
        #expect(try schema("backup", "--help") == ("relight.help/1", 0))
    }

    @Test func messagesAreJSONTooWhereACopyFails() throws {
        let set = try samples.copyOfSet(in: scratch)
        try scratch.sh("rm $(find set/packs -name '*.pack' -size +20k)")
        let run = try Program.run("--json", "copy", set, "\(scratch.path)/other")
        #expect(run.status == 5, "\(run.err)")
        for line in run.err.split(separator: "\n") { #expect(line.hasPrefix("{"), "\(line)") }
        #expect(run.err.contains("may lie on another medium"), "\(run.err)")
    }

    // MARK: - Jobs

    @Test func checkSaysWhatRunWould() throws {
        try scratch.sh(
            "echo \"{relight: 1, steps: [{restore: {from: '/s', to: ['serial:NO-SUCH-1'], confirm: true}}]}\" > j.job")
        for verb in ["check", "run"] {
            let run = try Program.run("job", verb, "\(scratch.path)/j.job")
            #expect(run.status == 1 && (run.out + run.err).contains("serial:NO-SUCH-1"), "\(verb): \(run.err)")
        }
        let none = try Program.run("job", "run", "\(scratch.path)/nope.job")
        #expect(!(none.out + none.err).contains("kernel line") && none.status == 1)
    }
}
