// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import Testing
import Tools

/// Sets that were cut short or changed.
@Suite(.enabled(if: Samples.areAvailable, Samples.why))
struct DamagedSetTests {
    let scratch: Scratch
    let samples: Samples
    let set: String
    let target: String

    init() throws {
        scratch = try Scratch()
        samples = try Samples.get()
        set = try samples.copyOfSet(in: scratch)
        target = try scratch.file("target.img", "64M")
    }

    /// The largest file below `folder` of the set: its path, and its size.
    private func largest(_ folder: String) throws -> String {
        let line = try scratch.sh("find set/\(folder) -type f -printf '%s %p\\n' | sort -n | tail -1")
        return "\(scratch.path)/\(line.split(separator: " ")[1].split(separator: "\n")[0])"
    }

    /// Inverts the byte at half the length of each file.
    private func flip(_ files: [String]) throws {
        for file in files {
            var data = try Data(contentsOf: URL(filePath: file))
            data[data.count / 2] ^= 0xFF
            try data.write(to: URL(filePath: file))
        }
    }

    /// A file's name without its folders.
    private func name(_ path: String) -> String { String(path.split(separator: "/").last ?? "") }

    private func files(named name: String) throws -> [String] {
        try scratch.sh("find set -type f -name \"$1\"", [name]).split(separator: "\n").map { "\(scratch.path)/\($0)" }
    }

    @Test func truncatedPack() throws {
        let pack = try largest("packs")
        try scratch.sh("truncate -s -5000 \"$1\"", [pack])
        let before = try sha256(target)
        try Program.mustFail(
            ["restore", set, "--to", target, "--yes"], status: 5, code: "set.damaged",
            saying: [name(pack), "relight verify"])
        #expect(try sha256(target) == before, "the target was written to before the set was known to be whole")
        for depth in [["--quick"], []] {
            let verify = try Program.run(["verify", set] + depth)
            #expect(verify.status == 5, "\(verify.out)")
            #expect(verify.out.contains("DAMAGED") && verify.out.contains(name(pack)))
        }
    }

    @Test func missingPack() throws {
        let pack = try largest("packs")
        try scratch.sh("rm \"$1\"", [pack])
        let before = try sha256(target)
        try Program.mustFail(
            ["restore", set, "--to", target, "--yes"], status: 5, code: "set.damaged", saying: ["missing"])
        #expect(try sha256(target) == before)
    }

    @Test func flippedByteInAPack() throws {
        let pack = try largest("packs")
        try flip([pack])
        let verify = try Program.run("--json", "verify", set)
        #expect(verify.status == 5)
        #expect(try verify.document().schema == "relight.verify/1")
        #expect(verify.out.contains(name(pack)))
        // The restore meets it on the way; it must end with 5, and the target must not look finished.
        let run = try Program.run("--json", "restore", set, "--to", target, "--yes")
        #expect(run.status == 5)
        let document = try run.document()
        #expect(document.code == "set.damaged")
        #expect(document.what?.contains("not finished") == true, "\(document)")
        let table = try Tool("sfdisk", package: "fdisk").run(["-d", target])
        #expect(table.status != 0, "the target of a failed restore shows a partition table")
    }

    @Test func flippedByteInAList() throws {
        // Lists are the packs that exist twice.
        let copies = try scratch.sh("find set/copies -name '*.pack'")
        let name = try #require(copies.split(separator: "\n").first?.split(separator: "/").last)
        let lists = try files(named: String(name))
        #expect(lists.count == 2)
        try flip([lists[0]])
        #expect(try Program.run("restore", set, "--to", target, "--yes").status == 0, "the second copy is sound")
        #expect(try Program.run("verify", set).status == 5)
        try flip([lists[1]])
        let run = try Program.run("--json", "restore", set, "--to", target, "--yes")
        #expect(run.status == 5)
        #expect(try run.document().code == "set.damaged")
        #expect(try Program.run("verify", set).status == 5)
    }

    @Test func flippedByteInAPoint() throws {
        let points = try files(named: "*.point")
        #expect(points.count == 2)
        try flip([points[0]])
        let one = try Program.run("--json", "points", set)
        #expect(one.status == 0, "the second copy is sound")
        #expect(try one.document().points?.count == 1)
        #expect(try Program.run("restore", set, "--to", target, "--yes").status == 0)
        try flip([points[1]])
        let both = try Program.run("--json", "points", set)
        #expect(both.status == 5)
        #expect(try both.document().points?.isEmpty == true)
        #expect(try both.document().findings?.contains { $0.place.hasSuffix(".point") } == true)
        try scratch.sh("truncate -s 0 target.img; truncate -s 64M target.img")
        let before = try sha256(target)
        let run = try Program.run("--json", "restore", set, "--to", target, "--yes")
        #expect(run.status == 5, "\(run.out)")
        #expect(try run.document().schema == "relight.error/1")
        #expect(try sha256(target) == before)
    }

    @Test func latestIsNotTakenInSilence() throws {
        let new = try Program.run("--json", "backup", samples.wholeFAT, "--to", set)
        let id = try #require(try new.document().point)
        try flip(try files(named: "\(id).point"))
        let plan = try Program.run("plan", set, "--to", target)
        #expect(plan.status == 0)
        #expect(plan.err.contains("may be newer") && plan.err.contains(id), "\(plan.err)")
        try Program.mustFail(["plan", "\(set)@\(id)", "--to", target], status: 5, code: "set.damaged", saying: [id])
    }

    @Test func flippedByteInTheHeader() throws {
        let headers = ["\(set)/set.a", "\(set)/set.b"]
        for header in headers {
            try flip([header])
            let run = try Program.run("--json", "points", set)
            #expect(run.status == 0, "\(header): \(run.out)")
            #expect(try run.document().points?.count == 1)
            #expect(try run.document().findings?.contains { $0.place == header } == true, "\(run.out)")
        }
        // The next backup writes them again.
        #expect(try Program.run("backup", samples.gpt, "--to", set).status == 0)
        #expect(try Program.run("verify", set).status == 0)
    }

    @Test func repairPutsBackWhatAProtectedSetHeld() throws {
        let disk = try scratch.file("disk.img", "24M")
        let protected = scratch.path + "/protected"
        try scratch.sh("mkfs.ext4 -q -F \"$1\"; head -c 9000000 /dev/urandom > data", [disk])
        try scratch.sh("debugfs -w -R 'write data data' \"$1\" 2>/dev/null", [disk])
        #expect(try Program.run("backup", disk, "--to", protected, "--protect", "5").status == 0)
        try scratch.sh("cp -a protected before")
        let sound = try Program.run("repair", protected)
        #expect(sound.status == 0 && sound.out.contains("Nothing is damaged"))
        let damage = """
            pack=$(find protected -type f -printf '%s %p\\n' | sort -n | tail -1 | cut -d' ' -f2)
            dd if=/dev/zero of=$pack bs=4096 seek=500 count=60 conv=notrunc status=none
            truncate -s -300 $pack
            for file in protected/set.a protected/points/*.point; do printf damage | dd of=$file bs=1 seek=40 conv=notrunc status=none; done
            """
        try scratch.sh(damage)
        #expect(try Program.run("verify", protected).status == 5)
        let plan = try Program.run("repair", protected)
        #expect(plan.status == 5 && plan.out.contains("3 files can be repaired"))
        #expect(try Program.run("verify", protected).status == 5, "a plan changes nothing")
        let done = try Program.run("--json", "repair", protected, "--yes")
        #expect(done.status == 0, "\(done.err)")
        #expect(try done.document().schema == "relight.repair/1")
        try scratch.sh(
            "diff -r before/packs protected/packs; diff -r before/points protected/points; cmp {before,protected}/set.a"
        )
        #expect(try Program.run("verify", protected).status == 0)
        // Too much.
        try scratch.sh(
            "pack=$(ls -S protected/packs/*/*.pack | head -1); dd if=/dev/zero of=$pack bs=1M count=4 conv=notrunc status=none"
        )
        let lost = try Program.run("repair", protected, "--yes")
        #expect(lost.status == 5 && lost.out.contains("cannot be repaired"))
    }
}
