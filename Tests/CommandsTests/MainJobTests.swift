// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Testing
import Tools

/// The main job through the built program, judged by other people's tools.
@Suite(.enabled(if: Samples.areAvailable, Samples.why))
struct MainJobTests {
    let scratch: Scratch
    let samples: Samples

    init() throws {
        scratch = try Scratch()
        samples = try Samples.get()
    }

    private func expectNoProblems(_ image: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let verdict = try Tool("sgdisk", package: "gdisk").run(["-v", image])
        #expect(
            verdict.standardOutput.contains("No problems found"), "\(verdict.standardOutput)\(verdict.standardError)",
            sourceLocation: sourceLocation)
    }

    /// Everything sfdisk says of a table but the names of the nodes and what the size of the disk decides.
    private func table(_ image: String, dropping words: [String] = []) throws -> [String] {
        try Tool("sfdisk", package: "fdisk").check(["-d", image]).standardOutput.split(separator: "\n").map {
            String($0).replacing(image, with: "disk")
        }.filter { line in !words.contains { line.hasPrefix($0) } }
    }

    private func backup(_ disks: String...) throws -> String {
        let set = "\(scratch.path)/set"
        let before = try disks.map(sha256)
        let run = try Program.run(["backup"] + disks + ["--to", set])
        try #require(run.status == 0, "\(run.err)")
        #expect(try disks.map(sha256) == before, "the backup changed a source")
        return set
    }

    private func restore(_ set: String, _ options: String...) throws {
        let run = try Program.run(["restore", set] + options + ["--yes"])
        #expect(run.status == 0, "\(run.err)")
    }

    // MARK: - GPT

    @Test func gptToAnEqualDisk() throws {
        let target = try scratch.file("t.img", "64M")
        // What lies there before must not shine through.
        try scratch.sh("head -c 67108864 /dev/urandom > t.img")
        try restore(samples.set, "--to", target)
        try expectNoProblems(target)
        #expect(try table(target) == table(samples.gpt))
        try samples.expectTree(in: target, at: 28672 * 512, size: 40 << 20)
        try samples.expectFAT(in: target, at: 4096 * 512, size: 8 << 20)
        // BIOS boot partition and boot code, bit for bit; the swap's header.
        try scratch.sh("cmp -i 1048576 -n 1048576 \"$1\" t.img; cmp -n 440 \"$1\" t.img", [samples.gpt])
        let swap = try Tool("blkid", package: "util-linux").check(
            ["-p", "-O", "\(20480 * 512)", "-S", "\(4 << 20)", "-o", "value", "-s", "LABEL", target])
        #expect(swap.lastLine == "swp")
    }

    @Test func gptToALargerDiskKeepsSizes() throws {
        let target = try scratch.file("t.img", "100M")
        try restore(samples.set, "--to", target)
        try expectNoProblems(target)
        #expect(try table(target, dropping: ["last-lba"]) == table(samples.gpt, dropping: ["last-lba"]))
        try samples.expectTree(in: target, at: 28672 * 512, size: 40 << 20)
    }

    @Test(.enabled(if: Samples.areLoopsAvailable, "growing in an image file needs loop devices"))
    func gptToALargerDiskFills() throws {
        let target = try scratch.file("t.img", "100M")
        try restore(samples.set, "--to", target, "--layout", "fill")
        try expectNoProblems(target)
        let size = UInt64((100 - 14 - 1) << 20)
        try samples.expectTree(in: target, at: 28672 * 512, size: size)
        let blocks = try scratch.sh(
            "dd if=t.img of=p bs=1M skip=14 conv=sparse status=none; dumpe2fs -h p 2>/dev/null | grep -E '^Block (count|size)'"
        )
        let numbers = blocks.split(separator: "\n").compactMap { UInt64($0.split(separator: " ").last ?? "") }
        #expect(numbers.reduce(1, *) == size, "\(blocks)")
    }

    // MARK: - MBR

    @Test func mbrWithLogicalPartitions() throws {
        let set = try backup(samples.mbr)
        let equal = try scratch.file("equal.img", "64M")
        try restore(set, "--to", equal)
        #expect(try table(equal) == table(samples.mbr))
        // Boot code and the gap behind it.
        try scratch.sh("cmp -n 440 \"$1\" equal.img; cmp -i 512 -n 1048064 \"$1\" equal.img", [samples.mbr])
        try samples.expectTree(in: equal, at: 2048 * 512, size: 16 << 20)
        try samples.expectFAT(in: equal, at: 36864 * 512, size: 8 << 20)
        try samples.expectTree(in: equal, at: 65536 * 512, size: 24 << 20)
        guard Samples.areLoopsAvailable else { return }
        let larger = try scratch.file("larger.img", "96M")
        try restore(set, "--to", larger, "--layout", "fill")
        let rows = try table(larger)
        #expect(
            rows.contains { $0.hasPrefix("disk7") && $0.contains("start=       65536, size=      131072") }, "\(rows)")
        #expect(rows.contains { $0.hasPrefix("disk2") && $0.contains("size=      161792") }, "\(rows)")
        try samples.expectTree(in: larger, at: 65536 * 512, size: 64 << 20)
        let verdict = try Tool("sfdisk", package: "fdisk").run(["--verify", larger])
        #expect(verdict.status == 0, "\(verdict.standardError)")
    }

    // MARK: - No table

    @Test func wholeDiskExt4() throws {
        let set = try backup(samples.wholeExt)
        let equal = try scratch.file("equal.img", "24M")
        try restore(set, "--to", equal)
        try samples.expectTree(in: equal, size: 24 << 20)
        guard Samples.areLoopsAvailable else { return }
        let larger = try scratch.file("larger.img", "40M")
        try restore(set, "--to", larger, "--layout", "fill")
        try samples.expectTree(in: larger, size: 40 << 20)
    }

    @Test func wholeDiskFAT() throws {
        let set = try backup(samples.wholeFAT)
        let target = try scratch.file("t.img", "12M")
        try restore(set, "--to", target)
        try samples.expectFAT(in: target, size: 12 << 20)
    }

    // MARK: - Points

    @Test func secondBackupAddsNextToNothing() throws {
        let set = try backup(samples.gpt)
        let size = { UInt64(try scratch.sh("du -sb set | cut -f1").split(separator: "\n")[0]) ?? 0 }
        let first = try size()
        let again = try Program.run("--json", "backup", samples.gpt, "--to", set)
        #expect(again.status == 0)
        let document = try again.document()
        #expect(document.new == 0 && document.stored == 0)
        #expect(document.shared ?? 0 > 1 << 20)
        #expect(try size() - first < 64 << 10)
        #expect(try Program.run("--json", "points", set).document().points?.count == 2)
    }

    @Test func oneVolumeOnly() throws {
        let set = "\(scratch.path)/set"
        let run = try Program.run("backup", samples.gpt, "--volume", "4", "--to", set)
        #expect(run.status == 0, "\(run.err)")
        let target = try scratch.file("t.img", "64M")
        try scratch.sh("cp --sparse=always \"$1\" t.img", [samples.gpt])
        let plan = try Program.run("plan", set, "--to", target)
        #expect(plan.out.contains("the image does not hold it"), "\(plan.out)")
        try restore(set, "--to", target)
        try expectNoProblems(target)
        try samples.expectTree(in: target, at: 28672 * 512, size: 40 << 20)
        // The partition that was not imaged is there, and what lay in its place is no longer found.
        let found = try Tool("blkid", package: "util-linux").run([
            "-p", "-O", "\(4096 * 512)", "-S", "\(8 << 20)", target,
        ])
        #expect(found.status == 2, "\(found.standardOutput)")
    }

    @Test func twoDisksInOnePoint() throws {
        let set = try backup(samples.gpt, samples.wholeFAT)
        let first = try scratch.file("first.img", "64M")
        let second = try scratch.file("second.img", "16M")
        try Program.mustFail(
            ["restore", set, "--to", first, "--yes"], status: 2, code: "usage",
            saying: ["2 disks", samples.gpt, samples.wholeFAT, "--to \(first)=NUMBER"])
        try restore(set, "--to", "\(second)=2", "--to", "\(first)=1")
        try expectNoProblems(first)
        try samples.expectTree(in: first, at: 28672 * 512, size: 40 << 20)
        try samples.expectFAT(in: second, size: 12 << 20)
        // By its old path, alone.
        let third = try scratch.file("third.img", "12M")
        let plan = try Program.run("plan", set, "--to", "\(third)=\(samples.wholeFAT)")
        #expect(plan.status == 0)
        #expect(plan.out.contains("Disk 1 of the recovery point is not restored."), "\(plan.out)")
    }

    @Test func storedPlanIsCarriedOutFromAnywhere() throws {
        let target = try scratch.file("t.img", "64M")
        // Named relatively, and carried out from another folder.
        let made = try Program.script(
            "cd \"$1\" && \"$relight\" plan set --to \"$2\" -o \"$2.json\"", [samples.path, target], in: scratch)
        #expect(made.status == 0, "\(made.err)")
        let run = try Program.run("--json", "restore", "--plan", "\(target).json", "--yes")
        #expect(run.status == 0, "\(run.err)")
        #expect(try run.document().schema == "relight.restore/1")
        try samples.expectTree(in: target, at: 28672 * 512, size: 40 << 20)
    }
}
