// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Testing
import Tools

/// One damaged frame of a known file: what is named, what is restored all the same.
@Suite(.enabled(if: Samples.areAvailable, Samples.why))
struct LostFilesTests {
    let scratch: Scratch
    let disk: String
    let set: String

    /// An ext4 filesystem with large files and many small ones, imaged; the byte that `file` has at `offset` is damaged in
    /// its pack.
    init() throws {
        scratch = try Scratch()
        set = scratch.path + "/set"
        disk = scratch.path + "/disk.img"
        try scratch.sh(
            """
            mkdir tree tree/etc tree/small
            for name in a b c; do head -c 3000000 /dev/urandom > tree/$name; done
            for n in $(seq 100 299); do head -c 12000 /dev/urandom > tree/small/s$n; done
            echo root:x:0:0 > tree/etc/passwd
            truncate -s 40M disk.img; mke2fs -q -F -t ext4 -d tree disk.img
            """)
        try #require(try Program.run("--quiet", "backup", disk, "--to", set).status == 0)
    }

    private func damage(_ file: String, at offset: Int) throws {
        let content = try Data(contentsOf: URL(filePath: "\(scratch.path)/tree/\(file)"))
        let wanted = content[offset..<offset + 64]
        for pack in try scratch.sh("find set/packs -name '*.pack'").split(separator: "\n") {
            let url = URL(filePath: "\(scratch.path)/\(pack)")
            var data = try Data(contentsOf: url)
            guard let range = data.firstRange(of: wanted) else { continue }
            data[range.lowerBound] ^= 0x40
            try data.write(to: url)
            return
        }
        Issue.record("random content is not stored as it is")
    }

    private struct Verified: Decodable {
        var complete: Bool
        var lost: [Lost]
    }
    private struct Restored: Decodable {
        var disks: [Disk]
        var lost: [Lost]
        struct Disk: Decodable { var volumes: [Volume] }
        struct Volume: Decodable {
            var whole: Bool
            var lost: [[UInt64]]
        }
    }
    private struct Lost: Decodable {
        var bytes: UInt64
        var extents: [[UInt64]]
        var files: [Item]
        var more: Int
        struct Item: Decodable {
            var kind: String
            var name: String
        }
    }

    private func decode<T: Decodable>(_ type: T.Type, _ run: Run) throws -> T {
        try JSONDecoder().decode(type, from: Data(run.out.utf8))
    }

    /// The files debugfs finds at `lost`.
    private func judged(_ lost: Lost) throws -> Set<String> {
        let blocks = lost.extents.flatMap { Array($0[0] / 4096..<($0[0] + $0[1] + 4095) / 4096) }
        let text = try scratch.sh(
            """
            size=$(dumpe2fs -h disk.img 2>/dev/null | sed -n 's/^Block size: *//p'); per=$((4096 / size))
            blocks=""; for b in "$@"; do for k in $(seq 0 $((per - 1))); do blocks="$blocks $((b * per + k))"; done; done
            inodes=$(debugfs -R "icheck $blocks" disk.img 2>/dev/null | awk '$2 ~ /^[0-9]+$/ { print $2 }' | sort -u)
            debugfs -R "ncheck $(echo $inodes)" disk.img 2>/dev/null | awk 'NR > 1 { print $2 }' | sed 's,^//,/,'
            """, blocks.map { "\($0)" })
        return Set(text.split(separator: "\n").map(String.init))
    }

    /// Every byte of the target but the lost ones is the disk's; those are zero.
    private func expectEverythingElse(_ target: String, lost: [[UInt64]]) throws {
        var expected = try Data(contentsOf: URL(filePath: disk))
        for extent in lost {
            expected.replaceSubrange(
                Int(extent[0])..<Int(extent[0] + extent[1]), with: Data(count: Int(extent[1])))
        }
        #expect(try Data(contentsOf: URL(filePath: target)) == expected)
    }

    @Test(arguments: ["b", "small/s200"])
    func oneDamagedFrameCostsExactlyTheFilesInIt(file: String) throws {
        try damage(file, at: file == "b" ? 1_500_000 : 5_000)
        for depth in [[], ["--stored"]] {
            let run = try Program.run(["--json", "verify", set] + depth)
            #expect(run.status == 5)
            let found = try decode(Verified.self, run)
            #expect(!found.complete)
            let lost = try #require(found.lost.first)
            #expect(found.lost.count == 1 && lost.bytes <= 256 << 10)
            let named = Set(lost.files.filter { $0.kind == "file" }.map(\.name))
            let judged = try judged(lost)
            #expect(named.isSubset(of: judged) && named.contains("/" + file))
            #expect(named.count + lost.more == judged.count, "\(named), \(lost.more) more, debugfs: \(judged)")
            if file == "b" { #expect(named == ["/b"]) }
        }
        let text = try Program.run("verify", set)
        #expect(text.out.contains("/\(file)"), "\(text.out)")

        // By default nothing that is not whole is left behind as finished, and the fault names the files.
        let target = try scratch.file("target.img", "40M")
        try Program.mustFail(
            ["restore", set, "--to", target, "--yes"], status: 5, code: "set.damaged", saying: ["/\(file)"])

        try scratch.sh("rm target.img; truncate -s 40M target.img")
        let run = try Program.run("--json", "restore", set, "--to", target, "--yes", "--on-damage", "skip")
        #expect(run.status == 3, "\(run.err)")
        let restored = try decode(Restored.self, run)
        let volume = try #require(restored.disks.first?.volumes.first)
        #expect(!volume.whole)
        #expect(restored.lost.first?.files.contains { $0.name == "/" + file } == true)
        #expect(try run.document().findings?.contains { $0.code == "set.damaged" } == true)
        try expectEverythingElse(target, lost: volume.lost)
        #expect(
            try Program.run("restore", set, "--to", target, "--yes", "--on-damage", "skip").out.contains("NOT WHOLE"))
    }

    @Test func aMissingPackIsSkippedToo() throws {
        try scratch.sh("rm $(ls -S set/packs/*/*.pack | head -1)")
        let target = try scratch.file("target.img", "40M")
        let before = try sha256(target)
        try Program.mustFail(
            ["restore", set, "--to", target, "--yes"], status: 5, code: "set.damaged", saying: ["missing"])
        #expect(try sha256(target) == before)
        let run = try Program.run("--json", "restore", set, "--to", target, "--yes", "--on-damage", "skip")
        #expect(run.status == 3, "\(run.err)")
        let volume = try #require(try decode(Restored.self, run).disks.first?.volumes.first)
        #expect(!volume.whole)
        try expectEverythingElse(target, lost: volume.lost)
    }

    @Test func sharesAndStoredBytesAreChecked() throws {
        let share = try Program.run("verify", set, "--share", "20", "--seed", "3")
        #expect(share.status == 0 && share.out.contains("The rest was not read") && share.out.contains("seed 3"))
        let stored = try Program.run("verify", set, "--stored")
        #expect(stored.status == 0 && stored.out.contains("was not decompressed"))
        for wrong in [["--share", "0"], ["--share", "101"], ["--seed", "1"], ["--quick", "--stored"]] {
            #expect(try Program.run(["verify", set] + wrong).status == 2, "\(wrong)")
        }
    }

    @Test func anEncryptedSetIsCheckedWithoutItsKey() throws {
        let secret = scratch.path + "/secret"
        try scratch.sh("(umask 77; echo passphrase > secret)")
        let closed = scratch.path + "/closed"
        try #require(
            try Program.run("--quiet", "backup", disk, "--to", closed, "--encrypt", "--passphrase-file", secret).status
                == 0)
        for depth in ["--quick", "--stored"] {
            let run = try Program.run("verify", closed, depth)
            #expect(run.status == 0 && run.out.contains("without its key"), "\(run.err)")
        }
        #expect(try Program.run("verify", closed).status == 6, "everything needs the key")
        try scratch.sh(
            "f=$(ls -S closed/packs/*/*.pack | head -1); printf damage | dd of=$f bs=1 seek=300000 conv=notrunc status=none"
        )
        let run = try Program.run("verify", closed, "--stored")
        #expect(run.status == 5 && run.out.contains("with the key only"), "\(run.out)")
        let open = try Program.run("verify", closed, "--stored", "--passphrase-file", secret)
        #expect(open.status == 5 && open.out.contains("LOST in"), "\(open.out)")
    }
}
