// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Testing
import Tools

/// The program on archives with damage beside what is sound, and on sets whose newest point is lost.
@Suite(.enabled(if: Samples.areAvailable, Samples.why))
struct DamagedPlacesTests {
    let scratch: Scratch
    let disk: String
    let set: String
    let points: [String]

    init() throws {
        scratch = try Scratch()
        disk = try scratch.file("disk.img", "8M")
        set = scratch.path + "/set"
        try scratch.sh("mkfs.ext4 -q -F disk.img")
        var points: [String] = []
        for name in ["first", "second"] {
            let run = try Program.run("--json", "backup", disk, "--to", set, "--name", name)
            #expect(run.status == 0, "\(run.err)")
            points.append(try #require(try run.document().point))
        }
        self.points = points
    }

    private func change(_ path: String, _ change: (inout Data) throws -> Void) throws {
        var data = try Data(contentsOf: URL(filePath: path))
        try change(&data)
        try data.write(to: URL(filePath: path))
    }

    private func expectRestored(_ place: String) throws {
        let target = try scratch.file("target.img", "8M")
        let run = try Program.run(["restore", place, "--to", target, "--yes"])
        #expect(run.status == 0, "\(run.err)")
        #expect(run.err.contains("archive") || run.err.contains("header"), "the damage is told: \(run.err)")
        try scratch.sh("cmp disk.img target.img; rm target.img")
    }

    @Test func anArchiveIsReadAsFarAsItGoes() throws {
        let archive = scratch.path + "/a.tar"
        #expect(try Program.run("archive", set, archive).status == 0)
        let whole = try Data(contentsOf: URL(filePath: archive))
        // The tar header of the second copy of a pack of lists.
        let name = try #require(whole.firstRange(of: Data("copies/packs/".utf8)))
        try change(archive) { $0[name.lowerBound + 20] ^= 1 }
        for depth in [[], ["--quick"], ["--stored"]] {
            let verify = try Program.run(["verify", archive] + depth)
            #expect(verify.status == 5 && verify.out.contains("DAMAGED"), "\(verify.out)\(verify.err)")
            #expect(verify.out.contains("no recovery point lost anything"), "\(verify.out)")
        }
        #expect(try Program.run("points", archive).out.contains("second"))
        try expectRestored(archive)
        // Its tail lost.
        try whole.dropLast(700).write(to: URL(filePath: archive))
        #expect(try Program.run("verify", archive).status == 5)
        try expectRestored(archive)
        // Nothing is ever written to one.
        try Program.mustFail(["backup", disk, "--to", archive], status: 4, code: "unsupported", saying: [])
    }

    @Test func latestIsNotAnOlderPointUnawares() throws {
        for folder in ["points", "copies/points"] {
            try change("\(set)/\(folder)/\(points[1]).point") { $0[300] ^= 1 }
        }
        for depth in ["--quick", "--stored"] {
            let verify = try Program.run("verify", set + "@latest", depth)
            #expect(verify.status == 5 && verify.out.contains("a recovery point is lost"), "\(verify.out)")
            #expect(try Program.run("verify", "\(set)@\(points[0])", depth).status == 0)
        }
        let copy = scratch.path + "/copy"
        try Program.mustFail(
            ["copy", set + "@latest", copy], status: 5, code: "set.damaged", saying: [points[1], "by its id"])
        #expect(try Program.run("copy", "\(set)@\(points[0])", copy).status == 0)
        try Program.mustFail(
            ["forget", set + "@latest"], status: 5, code: "set.damaged", saying: [points[1], "by its id"])
        #expect(try Program.run("points", set).out.contains("first"))
    }
}
