// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Glibc
import Testing
import Tools

/// What is wrong with what the user names: every message has the thing, the place and the next step, and nothing is
/// written.
@Suite(.enabled(if: Samples.areAvailable, Samples.why))
struct BadInputTests {
    let scratch: Scratch
    let samples: Samples

    init() throws {
        scratch = try Scratch()
        samples = try Samples.get()
    }

    // MARK: - Names

    @Test func missingDisk() throws {
        let missing = "\(scratch.path)/no-such-disk.img"
        try Program.mustFail(
            ["backup", missing, "--to", "\(scratch.path)/set"], status: 1, code: "missing",
            saying: [missing, "There is no such disk or file."])
        #expect(unsafe access("\(scratch.path)/set", F_OK) != 0, "a set was begun for a disk that does not exist")
        try Program.mustFail(["disks", missing], status: 1, code: "missing", saying: [missing])
        try Program.mustFail(
            ["restore", samples.set, "--to", missing, "--yes"], status: 1, code: "missing", saying: [missing])
        try Program.mustFail(
            ["backup", "serial:NO-SUCH-SERIAL", "--to", "\(scratch.path)/set"], status: 1, code: "missing",
            saying: ["serial:NO-SUCH-SERIAL"])
    }

    @Test func folderAsDisk() throws {
        try Program.mustFail(
            ["backup", scratch.path, "--to", "\(scratch.path)/set"], status: 1, code: "wrong-kind",
            saying: [scratch.path, "neither a block device nor an image file"])
    }

    @Test func oddSizedFileAsDisk() throws {
        let file = try scratch.file("odd.img", "1000001")
        try Program.mustFail(
            ["backup", file, "--to", "\(scratch.path)/set"], status: 1, code: "wrong-kind",
            saying: [file, "not a whole number of 512-byte sectors", "qemu-img convert"])
    }

    enum NotASet: String, CaseIterable {
        case empty, other, file, missing
    }

    @Test(arguments: NotASet.allCases) func notASet(_ kind: NotASet) throws {
        let place = "\(scratch.path)/place"
        switch kind {
        case .empty: try scratch.sh("mkdir place")
        case .other: try scratch.sh("mkdir place; echo holiday > place/photo.jpg")
        case .file: try scratch.sh("echo text > place")
        case .missing: break
        }
        let target = try scratch.file("target.img", "64M")
        try scratch.sh("head -c 100000 /dev/urandom | dd of=target.img conv=notrunc status=none")
        let before = try sha256(target)
        for command in [
            ["points", place], ["show", place], ["verify", place], ["plan", place, "--to", target],
            ["restore", place, "--to", target, "--yes"],
        ] {
            try Program.mustFail(command, status: 1, code: "set.not-a-set", saying: [place])
        }
        #expect(try sha256(target) == before)
        // A new set may begin in an empty or missing folder, but not on top of something else.
        let backup = ["backup", samples.wholeFAT, "--to", place]
        switch kind {
        case .empty, .missing: #expect(try Program.run(backup).status == 0)
        case .other, .file:
            try Program.mustFail(backup, status: 1, code: "set.not-a-set", saying: [place])
            #expect(try scratch.sh("find place | wc -l") == (kind == .file ? "1\n" : "2\n"))
        }
    }

    @Test func noSuchPoint() throws {
        try Program.mustFail(
            ["show", "\(samples.set)@abcdef0123"], status: 1, code: "set.no-such-point",
            saying: [samples.set, "abcdef0123", "relight points"])
    }

    @Test func noSuchVolume() throws {
        try Program.mustFail(
            ["backup", samples.gpt, "--volume", "9", "--to", "\(scratch.path)/set"], status: 1, code: "missing",
            saying: [samples.gpt, "There is no volume 9.", "1, 2, 3, 4"])
    }

    // MARK: - Usage

    static let wrongUsage: [[String]] = [
        ["backup"], ["backup", "DISK"], ["backup", "--to", "set"], ["nonsense"], ["restore"], ["restore", "--to", "x"],
        ["verify"], ["show", "set@"], ["points"], ["plan", "SET", "--to", "DISK", "--layout", "diagonal"],
        ["plan", "SET", "--to", "DISK", "--size", "4"], ["plan", "SET", "--to", "DISK", "--size", "4=much"],
        ["plan", "SET", "--to", "DISK", "--size", "x=1G"], ["plan", "SET", "--to", "DISK", "--drop", "root"],
        ["plan", "SET", "--to", "DISK", "--recreate", "everything"], ["plan", "SET", "--to", "DISK", "--table", "apm"],
        ["plan", "SET", "--to", "DISK", "--ids", "random"], ["plan", "SET", "--to", "DISK", "--firmware", "coreboot"],
        ["restore", "--plan", "FILE", "--drop", "1"], ["restore", "--plan", "FILE", "--ids", "new"],
        ["plan", "SET", "--to", "DISK:1"], ["plan", "SET", "--to", "DISK:1=9"],
        ["backup", "DISK", "--to", "SET", "--level", "99"], ["backup", "DISK", "--to", "SET", "--sector-size", "777"],
        ["backup", "DISK", "--to", "SET", "--on-read-error", "pray"], ["backup", "DISK", "--to", ""],
        ["backup", "DISK", "DISK", "--to", "SET"], ["restore", "SET", "--plan", "FILE"], ["plan", "SET"],
        ["restore", "SET", "--yes"], ["--log-file"],
        ["--log-file", "/no/such/folder/log", "points", "SET"],
    ]

    @Test(arguments: wrongUsage) func wrongUsageEndsWithTwo(_ words: [String]) throws {
        let arguments = words.map { word in
            switch word {
            case "DISK": samples.wholeFAT
            case "SET": samples.set
            case "FILE": "\(scratch.path)/plan.json"
            case _ where word.hasPrefix("DISK:"): word.replacing("DISK", with: samples.wholeFAT)
            default: word
            }
        }
        if words.contains("FILE") {
            let target = try scratch.file("t.img", "64M")
            _ = try Program.run("plan", samples.set, "--to", target, "-o", "\(scratch.path)/plan.json")
        }
        let plain = try Program.run(arguments)
        #expect(plain.status == 2, "\(plain.err)")
        #expect(plain.out.isEmpty && !plain.err.isEmpty)
        let json = try Program.run(["--json"] + arguments)
        #expect(json.status == 2)
        let document = try json.document()
        #expect(document.schema == "relight.error/1")
        #expect(document.code == "usage")
        #expect(document.what?.isEmpty == false && document.remedy?.isEmpty == false)
    }

    // MARK: - Targets

    @Test func targetTooSmall() throws {
        let target = try scratch.file("small.img", "20M")
        try scratch.sh("head -c 100000 /dev/urandom | dd of=small.img conv=notrunc status=none")
        let before = try sha256(target)
        for command in [["restore", samples.set, "--to", target, "--yes"], ["plan", samples.set, "--to", target]] {
            let document = try Program.mustFail(
                command, status: 4, code: "target.too-small",
                saying: [target, "refused before anything was written", "20971520", "at least"])
            #expect(document.reasons?.first?.code == "target.too-small")
        }
        #expect(try sha256(target) == before)
    }

    @Test func targetOfOtherSectorSize() throws {
        let target = try scratch.file("target.img", "64M")
        try Program.mustFail(
            ["restore", samples.set, "--to", target, "--sector-size", "4096", "--yes"], status: 4,
            code: "target.sector-size", saying: [":2", "4096-byte sectors", "512-byte sectors"])
    }

    @Test func nobodyToConfirm() throws {
        let target = try scratch.file("target.img", "64M")
        let before = try sha256(target)
        let run = try Program.run("--json", "restore", samples.set, "--to", target)
        #expect(run.status == 4)
        #expect(try run.document().code == "target.not-confirmed")
        #expect(try sha256(target) == before)
    }

    @Test func targetIsAFileOfTheSet() throws {
        let set = try samples.copyOfSet(in: scratch)
        let pack = try scratch.sh("truncate -s 64M set/decoy; echo \"$PWD/set/decoy\"").split(separator: "\n")[0]
        try Program.mustFail(
            ["restore", set, "--to", String(pack), "--yes"], status: 4, code: "target.forbidden",
            saying: [String(pack), "is a file of the image set"])
    }

    @Test func sameTargetTwice() throws {
        let target = try scratch.file("target.img", "64M")
        let before = try sha256(target)
        try Program.mustFail(
            ["restore", samples.set, "--to", "\(target)=1", "--to", "\(target)=1", "--yes"], status: 4,
            code: "plan.refused", saying: [target, "target of two disks"])
        #expect(try sha256(target) == before)
    }

    @Test func secondTargetRefusedMeansFirstUntouched() throws {
        let first = try scratch.file("first.img", "64M")
        let second = try scratch.file("second.img", "20M")
        let before = try sha256(first)
        try Program.mustFail(
            ["restore", samples.set, "--to", "\(first)=1", "--to", "\(second)=1", "--yes"], status: 4,
            code: "target.too-small", saying: [second])
        #expect(try sha256(first) == before)
    }

    // MARK: - Stored plans

    @Test func planOnADevice() throws {
        let target = try scratch.file("target.img", "64M")
        try Program.mustFail(
            ["plan", samples.set, "--to", target, "-o", "/dev/null"], status: 1, code: "wrong-kind",
            saying: ["/dev/null", "not a file"])
    }

    @Test func changedTargetIsRefused() throws {
        let target = try scratch.file("target.img", "64M")
        let plan = "\(scratch.path)/plan.json"
        #expect(try Program.run("plan", samples.set, "--to", target, "-o", plan).status == 0)
        // Another size.
        try scratch.sh("truncate -s 65M target.img")
        try Program.mustFail(
            ["restore", "--plan", plan, "--yes"], status: 4, code: "target.changed",
            saying: [target, "68157440", "67108864", "relight plan"])
        // Something on it that was not there.
        try scratch.sh("truncate -s 64M target.img; mke2fs -q -F -L precious target.img")
        let before = try sha256(target)
        try Program.mustFail(
            ["restore", "--plan", plan, "--yes"], status: 4, code: "target.changed",
            saying: [target, "precious", "held nothing"])
        #expect(try sha256(target) == before)
    }

    @Test func editedPlansAreRefused() throws {
        let target = try scratch.file("target.img", "64M")
        let before = try sha256(target)
        let plan = "\(scratch.path)/plan.json"
        #expect(try Program.run("plan", samples.set, "--to", target, "-o", plan).status == 0)
        let text = String(decoding: try Data(contentsOf: URL(filePath: plan)), as: UTF8.self)
        let start = "\(28672 * 512)"
        for (from, to) in [
            (start, "999999999999"), (start, "\(20480 * 512)"), (start, "0"), (start, "18446744073709551000"),
        ] {
            let edited = text.replacing(from, with: to)
            #expect(edited != text)
            try Data(edited.utf8).write(to: URL(filePath: plan))
            let run = try Program.run("--json", "restore", "--plan", plan, "--yes")
            #expect([2, 4].contains(run.status), "\(from) → \(to): \(run.status) \(run.out)")
            #expect(try run.document().schema == "relight.error/1")
        }
        try Data("{\"plan\":1}".utf8).write(to: URL(filePath: plan))
        try Program.mustFail(
            ["restore", "--plan", plan, "--yes"], status: 2, code: "usage", saying: [plan, "no restore plan"])
        #expect(try sha256(target) == before)
    }

    // MARK: - What is said

    @Test func labelsCannotSteerTheTerminal() throws {
        let image = try scratch.file("evil.img", "8M")
        // The label is at byte 120 of the superblock, which is at byte 1024.
        try scratch.sh(
            "mke2fs -q -F evil.img; printf '\\033[2Jx\\r\\007y' | dd of=evil.img bs=1 seek=1144 conv=notrunc status=none"
        )
        let run = try Program.run("disks", image)
        #expect(run.status == 0)
        for character in ["\u{1B}", "\r", "\u{7}"] { #expect(!run.out.contains(character)) }
        #expect(run.out.contains("?[2Jx"))
    }
}
