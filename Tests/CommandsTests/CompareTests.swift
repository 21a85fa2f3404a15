// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
import Testing
import Tools

/// `backup --compare metadata`: what metadata say is unchanged is not read, and the point is whole all the same.
@Suite(
    .serialized,
    .enabled(if: Program.path != nil && Samples.areLoopsAvailable && geteuid() == 0, "needs root and loop devices"))
struct CompareTests {
    let scratch: Scratch
    let set: String
    let disk: String

    /// A disk with an ext4, imaged once; its files are older than the first point by more than the margin.
    init() throws {
        scratch = try Scratch()
        set = "\(scratch.path)/set"
        disk = "\(scratch.path)/disk.img"
        try scratch.sh(
            """
            mkdir -p tree/big tree/small mnt
            for n in 1 2 3 4; do head -c 3000000 /dev/urandom > tree/big/b$n; done
            for n in $(seq 50); do head -c 5000 /dev/urandom > tree/small/s$n; done
            sleep 7
            truncate -s 40M disk.img; mke2fs -q -F -t ext4 -d tree disk.img
            """)
        try #require(try Program.run("backup", disk, "--to", set).status == 0)
    }

    @Test func onlyWhatChangedIsReadAndThePointIsWhole() throws {
        try scratch.sh(
            """
            mount -o loop disk.img mnt
            printf changed | dd of=mnt/big/b2 bs=1 seek=1500000 conv=notrunc status=none
            rm mnt/small/s7; head -c 5000 /dev/urandom > mnt/small/s7; head -c 700000 /dev/urandom > mnt/new
            mv mnt/big/b3 mnt/big/renamed; umount mnt
            """)
        let second = try Program.run("--json", "backup", disk, "--to", set, "--compare", "metadata")
        #expect(second.status == 0, "\(second.err)")
        let document = try second.document()
        // Two of the four large files were left alone.
        #expect((5_500_000...7_000_000).contains(document.skipped ?? 0), "\(document.skipped ?? 0)")
        #expect((document.new ?? 0) < 4_000_000)
        #expect(try Program.run("show", set).out.contains("made with --compare metadata"))
        #expect(try Program.run("--json", "show", set).document().compare == "metadata")
        #expect(try Program.run("points", set).out.contains("unchanged files not read"))
        #expect(try Program.run("verify", set).status == 0)

        // Reading everything finds nothing that the point lacks.
        let third = try Program.run("--json", "backup", disk, "--to", set)
        #expect(try third.document().new == 0 && third.document().skipped == 0)
        #expect(try Program.run("--json", "show", set).document().compare == "full")

        let target = try scratch.file("target.img", "40M")
        let id = try #require(document.point)
        #expect(try Program.run("restore", "\(set)@\(id)", "--to", target, "--yes").status == 0)
        #expect(try Tool("e2fsck", package: "e2fsprogs").run(["-fn", target]).status == 0)
        try scratch.sh(
            """
            mkdir one other; debugfs -R "rdump / one" disk.img 2> /dev/null; debugfs -R "rdump / other" target.img 2> /dev/null
            diff -r one other
            """)
    }

    @Test func whereMetadataDoNotTellAllIsRead() throws {
        try scratch.sh("tune2fs -U random disk.img > /dev/null")
        let second = try Program.run("--json", "backup", disk, "--to", set, "--compare", "metadata")
        #expect(second.status == 0, "\(second.err)")
        let document = try second.document()
        #expect(document.skipped == 0)
        #expect(
            document.findings?.contains { $0.code == "compare.full" && $0.what.contains("another filesystem") } == true)
        #expect(try Program.run("--json", "show", set).document().compare == "full")
    }

    @Test func theFirstBackupReadsAll() throws {
        let other = "\(scratch.path)/other"
        let first = try Program.run("--json", "backup", disk, "--to", other, "--compare", "metadata")
        #expect(first.status == 0, "\(first.err)")
        #expect(try first.document().skipped == 0)
    }
}
