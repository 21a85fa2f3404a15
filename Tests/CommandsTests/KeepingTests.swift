// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Testing

/// `relight forget` and `relight prune`.
@Suite(.enabled(if: Program.path != nil, "the program relight is not built"))
struct KeepingTests {
    let scratch: Scratch
    let set: String

    init() throws {
        scratch = try Scratch()
        set = "\(scratch.path)/set"
    }

    /// Backs a disk of random bytes up, of which `changed` MiB are others each time.
    private func backup(_ changed: Int, name: String = "machine") throws -> String {
        try scratch.sh(
            """
            [ -e disk.img ] || head -c 8M /dev/urandom > disk.img
            head -c ${1}M /dev/urandom | dd of=disk.img conv=notrunc status=none
            """, ["\(changed)"])
        let run = try Program.run("--json", "backup", "\(scratch.path)/disk.img", "--to", set, "--name", name)
        #expect(run.status == 0, "\(run.err)")
        return try #require(try run.document().point)
    }

    /// Names, sizes and times of all files of the set.
    private func files() throws -> String { try scratch.sh("find set -printf '%p %s %T@ %C@\\n' | sort") }

    private func size() throws -> Int {
        try #require(Int(try scratch.sh("du -sb set/packs | cut -f1 | tr -d '\\n'")))
    }

    private struct Result: Decodable {
        struct Point: Decodable {
            var id: String
            var keep: Bool
            var reasons: [String]
        }
        struct Prune: Decodable { var freed: Int }
        var schema: String
        var dryRun: Bool
        var points: [Point]
        var prune: Prune?
    }

    @Test func rulesSayWhatStaysAndTheSpaceIsFreed() throws {
        let points = try (0..<3).map { _ in try backup(6) }
        let before = try files()
        // A rehearsal changes no file and no folder.
        let rehearsal = try Program.run("--json", "forget", set, "--keep-last", "1", "--dry-run")
        let result = try JSONDecoder().decode(Result.self, from: Data(rehearsal.out.utf8))
        #expect(result.schema == "relight.forget/1" && result.dryRun)
        #expect(result.points.map(\.id) == points)
        #expect(result.points.map(\.keep) == [false, false, true])
        #expect(result.points.map(\.reasons) == [["no rule keeps it"], ["no rule keeps it"], ["last"]])
        #expect(try Program.run("prune", set, "--dry-run").status == 0)
        #expect(try files() == before)

        let full = try size()
        let forget = try Program.run("--json", "forget", set, "--keep-last", "1", "--prune")
        #expect(forget.status == 0, "\(forget.err)")
        let freed = try JSONDecoder().decode(Result.self, from: Data(forget.out.utf8)).prune?.freed
        #expect(try #require(freed) > 11 << 20)
        #expect(try size() < full - (11 << 20))
        #expect(try Program.run("--json", "points", set).document().points?.map(\.id) == [points[2]])
        #expect(try Program.run("verify", set).status == 0)
        // What is left restores to the same bytes.
        _ = try scratch.file("target.img", "8M")
        #expect(
            try Program.run("restore", set, "--to", "\(scratch.path)/target.img", "--yes").status == 0)
        try scratch.sh("cmp disk.img target.img")
    }

    @Test func aNamedPointGoesAndPruneFreesItsSpace() throws {
        let points = try (0..<2).map { _ in try backup(6) }
        let run = try Program.run("forget", "\(set)@\(points[1].prefix(8))")
        #expect(run.status == 0 && run.out.contains("1 recovery point removed"), "\(run.out)\(run.err)")
        let prune = try Program.run("--json", "prune", set)
        #expect(prune.status == 0, "\(prune.err)")
        #expect(try prune.document().schema == "relight.prune/1")
        #expect(try Program.run("--json", "points", set).document().points?.map(\.id) == [points[0]])
        #expect(try Program.run("verify", set).status == 0)
    }

    @Test func withoutAPointOnlyAWordOfTheUsersRemovesWhatIsStored() throws {
        let point = try backup(1)
        let before = try scratch.sh("find set -type f")
        try Program.mustFail(
            ["forget", "\(set)@\(point)", "--prune"], status: 4, code: "set.incomplete",
            saying: ["No recovery point would be left", "prune \(set) --all-points-forgotten"])
        #expect(try scratch.sh("find set -type f") == before)
        let also = scratch.path + "/also"
        let second = try Program.run(
            "backup", "\(scratch.path)/disk.img", "--to", set, "--also", also, "--name", "machine")
        #expect(second.status == 0, "\(second.err)")
        let run = try Program.run("forget", set, "--also", also, "--keep-last", "1")
        #expect(run.status == 0 && run.out.contains("`relight prune \(set) --also \(also)`."), "\(run.out)\(run.err)")
        #expect(try Program.run("forget", "\(set)@latest", "--also", also).out.contains("--all-points-forgotten`"))
        try Program.mustFail(
            ["prune", set, "--also", also], status: 4, code: "set.incomplete", saying: ["--all-points-forgotten"])
        #expect(try Program.run("prune", set, "--also", also, "--all-points-forgotten").status == 0)
        try scratch.sh("test -z \"$(find set also -path '*packs/*' -type f)\"")
    }

    @Test func whatMakesNoSenseIsRefused() throws {
        _ = try backup(1)
        let before = try files()
        try Program.mustFail(["forget", set], status: 2, code: "usage", saying: ["--keep-daily"])
        try Program.mustFail(["forget", set, "--keep-last", "0"], status: 2, code: "usage", saying: ["keep nothing"])
        try Program.mustFail(
            ["forget", "\(set)@0123456789"], status: 1, code: "set.no-such-point", saying: ["0123456789"])
        #expect(try files() == before)
    }
}
