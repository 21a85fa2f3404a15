// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
import Testing
import Tools

/// Sets that lie in several places, by the command line.
@Suite(.enabled(if: Samples.areAvailable && getuid() == 0, "needs root, to mount small filesystems"))
struct PlacesTests {
    let scratch: Scratch
    let disk: String
    let mounts: [Mount]
    var first: String { scratch.path + "/stick1/set" }
    var second: String { scratch.path + "/stick2/set" }

    init() throws {
        scratch = try Scratch()
        disk = try scratch.file("disk.img", "16M")
        try scratch.sh("head -c 16M /dev/urandom | dd of=disk.img conv=notrunc status=none")
        let scratch = self.scratch
        mounts = try ["stick1", "stick2"].map {
            try Mount(["-t", "tmpfs", "-o", "size=12m", "none"], at: "\(scratch.path)/\($0)")
        }
    }

    private func backup(_ more: String...) throws -> Run {
        try Program.run(["--json", "backup", disk, "--to", first, "--pack-size", "2M"] + more)
    }

    @Test func aSetGoesOnWhereThereIsRoom() throws {
        let full = try backup()
        #expect(full.status == 7)
        #expect(try full.document().code == "store.full")
        #expect(try full.document().remedy?.contains("--also OTHER/PLACE") == true)
        let done = try backup("--also", second)
        #expect(done.status == 0, "\(done.err)")
        let shared = try done.document().shared ?? 0
        #expect(shared > 6 << 20, "what the first run stored is used")
        #expect(try done.document().findings?.contains { $0.code == "store.full" } == true)

        // Every place lists the point; only both together hold it.
        for place in [first, second] { #expect(try Program.run("points", place).status == 0) }
        #expect(try Program.run("verify", second, "--also", first).status == 0)
        let target = try scratch.file("target.img", "16M")
        let before = try sha256(target)
        for place in [first, second] {
            try Program.mustFail(
                ["restore", place, "--to", target, "--yes"], status: 5, code: "set.damaged",
                saying: ["of the packs this point needs", "another medium", "--also"])
            #expect(try Program.run("show", place).err.contains("--also"))
            let verified = try Program.run("verify", place, "--quick")
            #expect(verified.status == 5 && verified.err.contains("--also"), "\(verified.out)\(verified.err)")
        }
        #expect(try sha256(target) == before)
        // Nothing is called damaged or lost for good that is only elsewhere.
        for verb in ["verify", "repair"] {
            let run = try Program.run(verb, first)
            #expect(run.status == 5, "\(run.out)")
            #expect(run.err.contains("may lie on another medium of the set"), "\(verb): \(run.err)")
            #expect(run.out.contains("MISSING packs/") && !run.out.contains("another copy"), "\(verb): \(run.out)")
            #expect(!run.out.contains("DAMAGED packs/") && !run.out.contains("LOST packs/"), "\(verb): \(run.out)")
        }
        let copied = try Program.run("copy", first, scratch.path + "/copied")
        #expect(copied.status == 5 && copied.err.contains("another medium"), "\(copied.err)")
        let plan = scratch.path + "/plan.json"
        #expect(try Program.run("plan", first, "--also", second, "--to", target, "-o", plan).status == 0)
        let restored = try Program.run("restore", "--plan", plan, "--yes")
        #expect(restored.status == 0, "\(restored.err)")
        #expect(try sha256(target) == sha256(disk))

        // One place alone does not tell what is needed.
        for place in [first, second] {
            let before = try scratch.sh("find \"$1\" -type f | sort", [place])
            try Program.mustFail(
                ["prune", place], status: 4, code: "set.incomplete",
                saying: ["another medium", "nothing is removed", "--also"])
            #expect(try scratch.sh("find \"$1\" -type f | sort", [place]) == before)
        }
        #expect(try Program.run("prune", first, "--also", second).status == 0)

        // Nothing new fits the first; a second backup of the same stores only its point.
        let again = try backup("--also", second)
        #expect(again.status == 0, "\(again.err)")
        #expect(try again.document().new == 0)
    }

    @Test func noPlaceMayBeOverwrittenOrImaged() throws {
        #expect(try backup("--also", second).status == 0)
        let decoy = second + "/decoy"
        try scratch.sh("truncate -s 16M \"$1\"", [decoy])
        try Program.mustFail(
            ["restore", first, "--also", second, "--to", decoy, "--yes"], status: 4, code: "target.forbidden",
            saying: [decoy, "is a file of the image set"])
        try Program.mustFail(
            ["points", first, "--also", first], status: 2, code: "usage", saying: ["named twice"])
        let other = scratch.path + "/other"
        #expect(try Program.run("backup", disk, "--to", other).status == 0)
        try Program.mustFail(
            ["points", first, "--also", other], status: 4, code: "set.different", saying: [other])
    }

    @Test(.enabled(if: Samples.areLoopsAvailable, "needs loop devices"))
    func aPlaceOnTheSourceIsRefused() throws {
        let file = try scratch.file("ext.img", "32M")
        try scratch.sh("mkfs.ext4 -q -F ext.img")
        let loop = try Loop(file)
        let mount = try Mount([loop.path], at: scratch.path + "/source")
        defer { withExtendedLifetime(mount) {} }
        try Program.mustFail(
            ["backup", loop.path, "--to", first, "--also", scratch.path + "/source/set"], status: 4,
            code: "set.on-source", saying: [scratch.path + "/source/set"])
    }
}
