// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Glibc
import Testing
import Tools

/// Work that is ended from outside: by a full store, by a signal, by a disk that lies.
@Suite(.serialized, .enabled(if: Samples.areAvailable, Samples.why))
struct HaltedTests {
    let scratch: Scratch
    let samples: Samples

    static var canTrace: Bool {
        (try? Tool("strace", package: "strace").run(["-o", "/dev/null", "/bin/true"], seconds: 20))?.status == 0
    }

    init() throws {
        scratch = try Scratch()
        samples = try Samples.get()
    }

    @Test(.enabled(if: getuid() == 0, "mounting needs root"))
    func noSpaceLeftInTheSet() throws {
        let mount = try Mount(["-t", "tmpfs", "-o", "size=9m", "none"], at: "\(scratch.path)/small")
        let set = "\(mount.path)/set"
        #expect(try Program.run("backup", samples.wholeFAT, "--to", set).status == 0)
        try scratch.sh("truncate -s 32M noise.img; head -c 33554432 /dev/urandom > noise.img")
        let noise = "\(scratch.path)/noise.img"
        let document = try Program.mustFail(
            ["backup", noise, "--to", set], status: 7, code: "store.full",
            saying: [set, "No space left on device", "Finished recovery points are not harmed"])
        #expect(document.place?.hasPrefix(set) == true)
        // The earlier point is whole and usable; there is no new one.
        #expect(try Program.run("verify", set).status == 0)
        #expect(try Program.run("--json", "points", set).document().points?.count == 1)
        let target = try scratch.file("t.img", "12M")
        #expect(try Program.run("restore", set, "--to", target, "--yes").status == 0)
        try samples.expectFAT(in: target, size: 12 << 20)
        // With room, the next backup completes.
        try scratch.sh("mount -o remount,size=80m small")
        let again = try Program.run("--json", "backup", noise, "--to", set)
        #expect(again.status == 0, "\(again.err)")
        #expect(try Program.run("verify", set).status == 0)
        let restored = try scratch.file("noise2.img", "32M")
        #expect(try Program.run("restore", set, "--to", restored, "--yes").status == 0)
        try scratch.sh("cmp noise.img noise2.img")
        withExtendedLifetime(mount) {}
    }

    /// The program is slowed down by strace, so that the signal comes while it works.
    private func interrupted(
        _ signal: String, _ calls: String, _ path: String, after count: Int = 12, _ arguments: [String]
    ) throws -> Run {
        try Program.script(
            """
            strace -f -qq -o trace -e trace=\(calls) -e inject=\(calls):delay_enter=60ms -P "$1" "$relight" --json "${@:2}" &
            tracer=$!
            for n in $(seq 400); do
              child=$(pgrep -P $tracer | head -1 || true)
              [ -n "$child" ] && [ $(wc -l < trace) -ge \(count) ] && break
              sleep 0.05
            done
            kill -\(signal) $child
            wait $tracer
            """, [path] + arguments, in: scratch)
    }

    @Test(.enabled(if: HaltedTests.canTrace, "needs strace"), arguments: ["INT", "TERM"])
    func interruptedBackupMakesNoPoint(_ signal: String) throws {
        try scratch.sh("head -c 33554432 /dev/urandom > noise.img")
        let noise = "\(scratch.path)/noise.img"
        let set = "\(scratch.path)/set"
        // The first reads only find out what the disk holds.
        let run = try interrupted(signal, "pread64", noise, after: 60, ["backup", noise, "--to", set])
        #expect(run.status == 130, "\(run.err)")
        let document = try run.document()
        #expect(document.code == "interrupted")
        #expect(try Program.run("--json", "points", set).document().points?.isEmpty == true)
        let again = try Program.run("--json", "backup", noise, "--to", set)
        #expect(again.status == 0)
        #expect(try again.document().shared ?? 0 > 0, "what was stored before the interruption was not used again")
        #expect(try Program.run("verify", set).status == 0)
    }

    @Test(.enabled(if: HaltedTests.canTrace, "needs strace"), arguments: [true, false])
    func interruptedRestoreLeavesNothingThatLooksFinished(_ hasTable: Bool) throws {
        let set = "\(scratch.path)/set"
        let source = hasTable ? samples.gpt : samples.wholeExt
        #expect(try Program.run("backup", source, "--to", set).status == 0)
        let target = try scratch.file("t.img", hasTable ? "64M" : "24M")
        let run = try interrupted("TERM", "pwrite64", target, ["restore", set, "--to", target, "--yes"])
        #expect(run.status == 130, "\(run.err)")
        let document = try run.document()
        #expect(document.code == "interrupted")
        #expect(document.what?.contains("not finished") == true)
        let found = try Tool("blkid", package: "util-linux").run(["-p", target])
        #expect(found.status == 2, "\(found.standardOutput)")
        // The same restore then completes.
        #expect(try Program.run("restore", set, "--to", target, "--yes").status == 0)
        if hasTable {
            try samples.expectTree(in: target, at: 28672 * 512, size: 40 << 20)
        } else {
            try samples.expectTree(in: target, size: 24 << 20)
        }
    }

    /// The tool that grows a filesystem is not killed halfway, and no loop device stays behind.
    @Test(.enabled(if: HaltedTests.canTrace && Samples.areLoopsAvailable, "needs strace and loop devices"))
    func interruptedWhileGrowing() throws {
        let target = try scratch.file("t.img", "100M")
        let run = try Program.script(
            """
            tool=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v resize2fs)
            strace -f -qq -o trace -e trace=execve -e inject=execve:delay_enter=3s -P "$tool" \
              "$relight" --json restore "$2" --to "$1" --layout fill --yes &
            tracer=$!
            for n in $(seq 400); do
              child=$(pgrep -P $tracer | head -1 || true)
              [ -n "$child" ] && pgrep -P "$child" > /dev/null && grep -q growing log 2>/dev/null && break
              sleep 0.05
            done 2> /dev/null
            sleep 0.5
            kill -INT $child
            wait $tracer
            """.replacing("--yes &", with: "--yes 2> log &"), [target, samples.set], in: scratch)
        #expect(run.status == 130, "\(run.err)")
        #expect(try run.document().what?.contains("Interrupted while ext4 was grown or checked") == true, "\(run.out)")
        try samples.expectTree(in: target, at: 28672 * 512, size: 85 << 20)
        let loops = try Tool("losetup", package: "mount").check(["--associated", target])
        #expect(loops.standardOutput.isEmpty)
    }

    /// A disk that says it wrote and did not: the seventh write to it is swallowed.
    @Test(.enabled(if: HaltedTests.canTrace, "needs strace"))
    func swallowedWriteIsNoticed() throws {
        try scratch.sh("head -c 8388608 /dev/urandom > noise.img")
        let noise = "\(scratch.path)/noise.img"
        let set = "\(scratch.path)/set"
        #expect(try Program.run("backup", noise, "--to", set).status == 0)
        let target = try scratch.file("t.img", "8M")
        let run = try Program.script(
            """
            strace -f -qq -o trace -e trace=pwrite64 -e inject=pwrite64:retval=262144:when=7 -P "$1" \
              "$relight" --json restore "$2" --to "$1" --yes
            """, [target, set], in: scratch)
        #expect(run.status == 5, "\(run.err)")
        let document = try run.document()
        #expect(document.code == "target.read-back")
        #expect(document.place == target)
        #expect(
            document.what?.contains("read back differently") == true || document.what?.contains("reads back") == true)
        #expect(document.remedy?.contains("cable") == true)
    }

    /// A disk that dies: from the twentieth read on, every one fails.
    @Test(.enabled(if: HaltedTests.canTrace, "needs strace"), arguments: ["fail", "skip"])
    func dyingSource(_ policy: String) throws {
        try scratch.sh("head -c 8388608 /dev/urandom > noise.img")
        let noise = "\(scratch.path)/noise.img"
        let set = "\(scratch.path)/set"
        let run = try Program.script(
            """
            strace -f -qq -o trace -e trace=pread64 -e inject=pread64:error=EIO:when=20+ -P "$1" \
              "$relight" --json backup "$1" --to "$2" --on-read-error "$3"
            """, [noise, set, policy], in: scratch)
        let document = try run.document()
        let points = try Program.run("--json", "points", set).document().points ?? []
        if policy == "fail" {
            #expect(run.status == 1, "\(run.err)")
            #expect(document.code == "source.unreadable")
            #expect(document.place == noise)
            #expect(points.isEmpty)
        } else {
            #expect(run.status == 3, "\(run.err)")
            #expect(document.unreadable ?? 0 > 0)
            #expect(points.count == 1)
        }
    }
}
