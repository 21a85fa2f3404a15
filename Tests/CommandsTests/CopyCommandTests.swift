// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
import Testing
import Tools

/// `relight copy` and `relight archive`.
@Suite(.enabled(if: Samples.areAvailable, Samples.why))
struct CopyCommandTests {
    let scratch: Scratch
    let disk: String
    let set: String
    /// Ids of the set's two points, oldest first.
    let points: [String]

    init() throws {
        scratch = try Scratch()
        disk = try scratch.file("disk.img", "24M")
        set = scratch.path + "/set"
        try scratch.sh(
            """
            mkfs.ext4 -q -F disk.img; head -c 3M /dev/urandom > noise; debugfs -w -R 'write noise noise' disk.img 2>/dev/null
            umask 077; echo one > pass; echo two > other
            """)
        var points: [String] = []
        for name in ["first", "second"] {
            let run = try Program.run(
                "--json", "backup", disk, "--to", set, "--name", name, "--passphrase-file", scratch.path + "/pass")
            #expect(run.status == 0, "\(run.err)")
            points.append(try #require(try run.document().point))
        }
        self.points = points
    }

    private var pass: String { scratch.path + "/pass" }
    private var other: String { scratch.path + "/other" }

    private func expectRestored(_ place: String, _ more: String..., sourceLocation: SourceLocation = #_sourceLocation)
        throws
    {
        let target = try scratch.file("target.img", "24M")
        let run = try Program.run(["restore", place, "--to", target, "--yes"] + more)
        #expect(run.status == 0, "\(run.err)", sourceLocation: sourceLocation)
        try scratch.sh("cmp disk.img target.img; rm target.img")
    }

    @Test func setToSet() throws {
        let copy = scratch.path + "/copy"
        try Program.mustFail(
            ["copy", set, copy, "--passphrase-file", pass], status: 4, code: "unsupported",
            saying: ["readable by anybody", "--like", "--encrypt", "--plain"])
        let made = try Program.run(
            "--json", "copy", set, copy, "--passphrase-file", pass, "--to-passphrase-file", other, "--catalogue")
        #expect(made.status == 0, "\(made.err)")
        #expect(try made.document().schema == "relight.copy/1")
        let listed = try Program.run("--json", "points", copy, "--passphrase-file", other)
        #expect(try listed.document().points?.count == 2)
        #expect(listed.out.contains("\"first\"") && listed.out.contains(points[0]), "the origin is told")
        try expectRestored(copy, "--passphrase-file", other)
        let again = try Program.run(
            "copy", set, copy, "--passphrase-file", pass, "--to-passphrase-file", other)
        #expect(again.status == 0 && again.out.contains("2 points were there already"), "\(again.err)")

        // A backup into a place with a catalogue keeps that right.
        let before = try scratch.sh("wc -l < copy/catalogue")
        #expect(try Program.run("backup", disk, "--to", copy, "--passphrase-file", other).status == 0)
        #expect(try before != scratch.sh("wc -l < copy/catalogue"))
        try scratch.sh("test $(grep -c point copy/catalogue) = 6")
    }

    @Test func replica() throws {
        let copy = scratch.path + "/replica"
        let made = try Program.run(
            "copy", "\(set)@\(points[0].prefix(8))", copy, "--like", "--passphrase-file", pass)
        #expect(made.status == 0, "\(made.err)")
        try scratch.sh("cmp set/set.a replica/set.a; diff -r set/keys replica/keys")
        try expectRestored(copy, "--passphrase-file", pass)
        let rest = try Program.run("--json", "copy", set, copy, "--passphrase-file", pass)
        #expect(rest.status == 0, "\(rest.err)")
        #expect(rest.out.contains("\"verbatim\" : true"))
        #expect(try Program.run("verify", copy, "--passphrase-file", pass).status == 0)
        try Program.mustFail(
            ["copy", set, set, "--passphrase-file", pass], status: 2, code: "usage", saying: ["that is to be copied"])
        let plain = scratch.path + "/plain"
        #expect(try Program.run("copy", set, plain, "--plain", "--passphrase-file", pass).status == 0)
        try expectRestored(plain)
        try Program.mustFail(
            ["copy", set, plain, "--like", "--passphrase-file", pass], status: 4, code: "set.different",
            saying: ["another set"])
    }

    @Test(.enabled(if: Tool("tar", package: "tar").path != nil, "needs GNU tar"))
    func oneFile() throws {
        let file = scratch.path + "/web 01.tar"
        let made = try Program.run("--json", "archive", "\(set)@latest", file, "--passphrase-file", pass)
        #expect(made.status == 0, "\(made.err)")
        #expect(try made.document().schema == "relight.archive/1")
        try expectRestored(file, "--passphrase-file", pass)
        #expect(try Program.run("verify", file, "--passphrase-file", pass).status == 0)
        try Program.mustFail(
            ["archive", set, file, "--passphrase-file", pass], status: 4, code: "target.forbidden",
            saying: [file, "already"])
        for change in [["backup", disk, "--to", file], ["key", "add", file], ["repair", file, "--yes"]] {
            try Program.mustFail(
                change, status: 4, code: "unsupported", saying: [file, "archive is finished", "relight copy"])
        }
        try Program.mustFail(
            ["restore", file, "--passphrase-file", pass, "--to", file, "--yes"], status: 4, code: "target.forbidden",
            saying: ["is a file of the image set"])
        // Unpacked it is a set like any other.
        try scratch.sh("tar -xf 'web 01.tar'; test -d web_01")
        #expect(try Program.run("verify", scratch.path + "/web_01", "--passphrase-file", pass).status == 0)
        #expect(
            try Program.run("backup", disk, "--to", scratch.path + "/web_01", "--passphrase-file", pass).status == 0)
        try expectRestored(scratch.path + "/web_01", "--passphrase-file", pass)
        // And copied back into the set it came from it is known.
        let home = try Program.run("copy", file, set, "--passphrase-file", pass)
        #expect(home.status == 0 && home.out.contains("1 point was there already"), "\(home.err)")
    }

    @Test func parts() throws {
        let made = try Program.run(
            "archive", set, scratch.path + "/a.tar", "--split", "1M", "--passphrase-file", pass)
        #expect(made.status == 0, "\(made.err)")
        try scratch.sh("test $(ls a.tar.* | wc -l) -ge 3; test ! -e a.tar; test $(stat -c %s a.tar.001) = 1048576")
        for name in ["a.tar", "a.tar.001"] { try expectRestored("\(scratch.path)/\(name)", "--passphrase-file", pass) }
        try scratch.sh("mv a.tar.002 away")
        try Program.mustFail(
            ["verify", scratch.path + "/a.tar", "--passphrase-file", pass], status: 5, code: "set.damaged",
            saying: ["a.tar.002", "Part 2"])
        // A part that is left of another archive would be taken for one of this.
        try scratch.sh("mv away a.tar.002; mkdir kept; cp a.tar.* kept; rm a.tar.001 a.tar.002")
        for more in [["--split", "2M"], []] {
            try Program.mustFail(
                ["archive", set, scratch.path + "/a.tar", "--passphrase-file", pass] + more, status: 4,
                code: "target.forbidden", saying: ["a.tar.0", "already"])
        }
        try scratch.sh("cp kept/* .; mv a.tar.002 away")
        // The parts together are the file.
        try scratch.sh("mv away a.tar.002; cat a.tar.* > whole.tar")
        try expectRestored(scratch.path + "/whole.tar", "--passphrase-file", pass)
    }

    private static let judge: String = {
        let parts = #filePath.split(separator: "/").dropLast(2)
        return "/" + parts.joined(separator: "/") + "/Judges/read_set.py"
    }()
    private static let canJudge =
        (try? Tool("python3", package: "python3").check(["-c", "import cryptography, zstandard"])) != nil

    @Test(.enabled(if: canJudge, "needs Python with cryptography and zstandard"))
    func anotherReaderRestoresTheArchive() throws {
        let file = scratch.path + "/a.tar"
        #expect(try Program.run("archive", set, file, "--passphrase-file", pass).status == 0)
        try scratch.sh("tar -xf a.tar")
        try scratch.sh(
            "mkdir out; python3 \"$1\" --passphrase-file pass restore a latest out; cmp disk.img out/disk0.img",
            [Self.judge])
    }
}
