// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Glibc
import Testing
import Tools

/// Restores whose target is laid out otherwise than the source, judged by other people's tools.
@Suite(.enabled(if: Samples.areLoopsAvailable, "needs root, loop devices and what the main job needs"))
struct LayoutTests {
    let scratch: Scratch
    let samples: Samples

    init() throws {
        scratch = try Scratch()
        samples = try Samples.get()
    }

    static let hasWindowsTools = ["mkntfs", "ntfsfix", "mkfs.exfat", "fsck.exfat"].allSatisfy {
        Tool($0, package: "").path != nil
    }

    /// A file of `size` full of a pattern, for what lay there before must not shine through.
    private func garbage(_ name: String, _ size: String) throws -> String {
        try scratch.sh("head -c $1 /dev/zero | tr '\\0' '\\245' > \"$2\"", [size, name])
        return "\(scratch.path)/\(name)"
    }

    @discardableResult
    private func restore(_ set: String, _ options: String...) throws -> Run {
        let run = try Program.run(["restore", set] + options + ["--yes"])
        try #require(run.status == 0, "\(run.err)\(run.out)")
        return run
    }

    /// Has sgdisk or sfdisk, and parted, look at a table.
    private func expectSoundTable(_ path: String, isGPT: Bool) throws {
        if isGPT {
            let verdict = try Tool("sgdisk", package: "gdisk").run(["-v", path])
            #expect(verdict.standardOutput.contains("No problems found"), "\(verdict.standardOutput)")
            #expect(!verdict.standardOutput.contains("Caution"), "\(verdict.standardOutput)")
        }
        let verdict = try Tool("sfdisk", package: "fdisk").run(["--verify", path])
        let words = verdict.standardOutput + verdict.standardError
        #expect(verdict.status == 0 && words.contains("No errors detected"), "\(words)")
        if let parted = Tool("parted", package: "parted").path {
            let verdict = try Tool(parted, package: "parted").run(["-s", path, "unit", "s", "print"])
            #expect(verdict.status == 0 && verdict.standardError.isEmpty, "\(verdict.standardError)")
        }
    }

    /// `number start size type` of each partition, as sfdisk sees them.
    private func table(_ path: String) throws -> [String] {
        try scratch.sh(
            """
            sfdisk -d "$1" | sed -nE 's/^.*[^0-9]([0-9]+) : start= *([0-9]+), size= *([0-9]+), type=([^,]*).*/\\1 \\2 \\3 \\4/p'
            """, [path]
        ).split(separator: "\n").map(String.init)
    }

    // MARK: - Moving

    /// Boot sectors of FAT, NTFS and exFAT say where they lie: after a move their checkers are content, and what they say
    /// is true, in their copies too.
    @Test(.enabled(if: hasWindowsTools, "ntfs-3g and exfatprogs are needed")) func movedFilesystemsKnowTheirPlace()
        throws
    {
        try scratch.sh(
            """
            truncate -s 192M disk.img
            sfdisk -q disk.img <<'E'
            label: gpt
            start=2048, size=65536
            start=67584, size=81920, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
            start=149504, size=65536, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
            start=215040, size=32768, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
            E
            put() { dd if=$1 of=disk.img bs=512 seek=$2 conv=notrunc,sparse status=none; rm $1; }
            truncate -s 32M p; mke2fs -q -F -t ext4 -b 4096 -d "$1/tree" p; put p 2048
            truncate -s 40M p; mkfs.fat -F 32 -h 67584 p >/dev/null; mcopy -s -i p "$1"/fattree/* ::/; put p 67584
            truncate -s 32M p; mkntfs -F -Q -q -p 149504 p >/dev/null 2>&1; put p 149504
            truncate -s 16M p; mkfs.exfat p >/dev/null; put p 215040
            """, [samples.path])
        let set = "\(scratch.path)/set"
        try #require(Program.run("backup", "\(scratch.path)/disk.img", "--to", set).status == 0)
        let target = try garbage("target.img", "268435456")
        try restore(set, "--to", target, "--size", "1=64M")
        try expectSoundTable(target, isGPT: true)
        let starts = try table(target).map { $0.split(separator: " ").compactMap { UInt64($0) } }
        #expect(starts.map { $0[0] } == [1, 2, 3, 4])
        #expect(starts[0][2] == 131_072 && starts[1][1] == 133_120, "\(starts)")
        try samples.expectTree(in: target, at: 2048 * 512, size: 64 << 20)
        try samples.expectFAT(in: target, at: starts[1][1] * 512, size: 40 << 20)
        try scratch.sh(
            """
            part() { dd if=target.img of=part bs=512 skip=$1 count=$2 conv=sparse status=none; }
            number() { od -An -v -t u$3 -j $2 -N $3 $1 | tr -d ' '; }
            part $1 81920; test $(number part 28 4) = $1; test $(number part $((6 * 512 + 28)) 4) = $1
            part $2 65536; ntfsfix -n part; test $(number part 28 4) = $2
            test $(number part $((65535 * 512 + 28)) 4) = $2
            cmp -n 512 part <(tail -c 512 part)
            part $3 32768; fsck.exfat -n part; test $(number part 64 8) = $3
            test $(number part $((12 * 512 + 64)) 8) = $3
            """, starts[1...].map { "\($0[1])" })
    }

    // MARK: - Tables

    @Test func anMBRBecomesAGPT() throws {
        let set = "\(scratch.path)/set"
        try #require(Program.run("backup", samples.mbr, "--to", set).status == 0)
        let target = try garbage("target.img", "67108864")
        let run = try restore(set, "--to", target, "--table", "gpt")
        #expect(run.out.contains("install it anew"), "\(run.out)")
        try expectSoundTable(target, isGPT: true)
        #expect(
            try table(target) == [
                "1 2048 32768 0FC63DAF-8483-4772-8E79-3D69D8477DE4",
                "5 36864 16384 EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
                "6 55296 8192 0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
                "7 65536 49152 0FC63DAF-8483-4772-8E79-3D69D8477DE4",
                "8 34 2014 21686148-6449-6E6F-744E-656564454649",
            ])
        try samples.expectTree(in: target, at: 2048 * 512, size: 16 << 20)
        try samples.expectFAT(in: target, at: 36864 * 512, size: 8 << 20)
        try samples.expectTree(in: target, at: 65536 * 512, size: 24 << 20)
    }

    @Test func aGPTBecomesAnMBR() throws {
        let target = try garbage("target.img", "67108864")
        try restore(samples.set, "--to", target, "--table", "mbr")
        try expectSoundTable(target, isGPT: false)
        #expect(try table(target) == ["2 4096 16384 ef", "3 20480 8192 82", "4 28672 81920 83"])
        #expect(try scratch.sh("sfdisk -d target.img | head -1") == "label: dos\n")
        try samples.expectTree(in: target, at: 28672 * 512, size: 40 << 20)
        try samples.expectFAT(in: target, at: 4096 * 512, size: 8 << 20)
    }

    @Test func aLogicalPartitionIsLeftOut() throws {
        let set = "\(scratch.path)/set"
        try #require(Program.run("backup", samples.mbr, "--to", set).status == 0)
        let target = try garbage("target.img", "67108864")
        let run = try restore(set, "--to", target, "--drop", "5")
        #expect(run.out.contains("left out as asked for"), "\(run.out)")
        try expectSoundTable(target, isGPT: false)
        #expect(
            try table(target) == ["1 2048 32768 83", "2 34816 79872 5", "5 55296 8192 82", "6 65536 49152 83"])
        try samples.expectTree(in: target, at: 65536 * 512, size: 24 << 20)
    }

    @Test func aLogicalPartitionGrowsAndTheOthersMoveWithTheirRecords() throws {
        let set = "\(scratch.path)/set"
        try #require(Program.run("backup", samples.mbr, "--to", set).status == 0)
        let target = try garbage("target.img", "134217728")
        try restore(set, "--to", target, "--size", "1=32M", "--size", "7=40M")
        try expectSoundTable(target, isGPT: false)
        let rows = try table(target).map { $0.split(separator: " ").compactMap { UInt64($0) } }
        #expect(rows.map { $0[0] } == [1, 2, 5, 6, 7])
        #expect(rows[0][2] == 65536 && rows[4][2] == 81920, "\(rows)")
        #expect(rows.allSatisfy { $0[1].isMultiple(of: 2048) }, "\(rows)")
        try samples.expectTree(in: target, at: rows[0][1] * 512, size: 32 << 20)
        try samples.expectFAT(in: target, at: rows[2][1] * 512, size: 8 << 20)
        try samples.expectTree(in: target, at: rows[4][1] * 512, size: 40 << 20)
    }

    @Test func identifiersAreNewWhenWished() throws {
        let target = try garbage("target.img", "67108864")
        let run = try restore(samples.set, "--to", target, "--ids", "new")
        #expect(run.out.contains("New disk GUID") && run.out.contains("tune2fs -U random"), "\(run.out)")
        try expectSoundTable(target, isGPT: true)
        let ids = "sfdisk -d \"$1\" | grep -oE '(label-id: |uuid=)[0-9A-F-]+' | sort"
        let (old, new) = (try scratch.sh(ids, [samples.gpt]), try scratch.sh(ids, [target]))
        #expect(Set(old.split(separator: "\n")).isDisjoint(with: new.split(separator: "\n")))
        #expect(new.split(separator: "\n").count == 5)
        try samples.expectTree(in: target, at: 28672 * 512, size: 40 << 20)
    }

    // MARK: - Sectors

    @Test func sectorsOfAnotherSizeGetATableOfTheirOwn() throws {
        try scratch.sh(
            """
            truncate -s 96M disk.img
            sfdisk -q disk.img <<'E'
            label: gpt
            start=2048, size=65536
            start=67584, size=16384, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F
            start=83968, size=65536
            E
            put() { dd if=$1 of=disk.img bs=512 seek=$2 conv=notrunc,sparse status=none; rm $1; }
            truncate -s 32M p; mke2fs -q -F -t ext4 -b 4096 -d "$1/tree" p; put p 2048
            truncate -s 8M p; mkswap -q p; put p 67584
            truncate -s 32M p; mke2fs -q -F -t ext4 -b 4096 -d "$1/tree" p; put p 83968
            """, [samples.path])
        let set = "\(scratch.path)/set"
        try #require(Program.run("backup", "\(scratch.path)/disk.img", "--to", set).status == 0)
        let target = try garbage("target.img", "100663296")
        try restore(set, "--to", target, "--sector-size", "4096")
        let back = "\(scratch.path)/back"
        do {
            let loop = try Loop(target, "--sector-size", "4096")
            try expectSoundTable(loop.path, isGPT: true)
            let rows = try table(loop.path)
            #expect(
                rows.map { $0.split(separator: " ").prefix(3).joined(separator: " ") } == [
                    "1 256 8192", "2 8448 2048", "3 10496 8192",
                ])
            try #require(Program.run("backup", loop.path, "--to", back).status == 0)
        }
        try samples.expectTree(in: target, at: 1 << 20, size: 32 << 20)
        try samples.expectTree(in: target, at: 41 << 20, size: 32 << 20)
        // And back again.
        let small = try garbage("small.img", "100663296")
        try restore(back, "--to", small)
        try expectSoundTable(small, isGPT: true)
        try samples.expectTree(in: small, at: 41 << 20, size: 32 << 20)
    }

    // MARK: - A volume into a partition

    @Test func oneVolumeLeavesItsNeighboursAlone() throws {
        let target = try garbage("target.img", "134217728")
        try scratch.sh(
            """
            sfdisk -q --wipe=never target.img <<'E'
            label: gpt
            start=2048, size=40960
            start=43008, size=122880
            start=165888, size=40960
            E
            around() { head -c $((43008 * 512)) target.img; tail -c +$((165888 * 512 + 1)) target.img; }
            around | sha256sum > before
            """)
        let run = try restore(samples.set, "--to", "\(target):2=4", "--layout", "fill")
        #expect(run.out.contains("into partition 2, the rest left as it is"), "\(run.out)")
        try scratch.sh(
            """
            around() { head -c $((43008 * 512)) target.img; tail -c +$((165888 * 512 + 1)) target.img; }
            around | sha256sum > after; cmp before after
            """)
        try samples.expectTree(in: target, at: 43008 * 512, size: 60 << 20)
        // A FAT says where it lies.
        try restore(samples.set, "--to", "\(target):3=2")
        try samples.expectFAT(in: target, at: 165_888 * 512, size: 8 << 20)
        #expect(try scratch.sh("od -An -t u4 -j $((165888 * 512 + 28)) -N 4 target.img | tr -d ' \\n'") == "165888")
        // Too small for it.
        let before = try sha256(target)
        try Program.mustFail(
            ["restore", samples.set, "--to", "\(target):1=4", "--size", "4=1M", "--yes"], status: 4,
            code: "plan.refused",
            saying: ["--size"])
        try Program.mustFail(
            ["restore", samples.set, "--to", "\(target):9=4", "--yes"], status: 4, code: "missing",
            saying: ["no partition 9"])
        #expect(try sha256(target) == before)
    }

    @Test func twoVolumesGoIntoTwoPartitionsOfOneDisk() throws {
        let target = try garbage("target.img", "134217728")
        try scratch.sh(
            "printf 'label: dos\\nstart=2048, size=40960\\nstart=43008, size=122880\\n' | sfdisk -q --wipe=never target.img"
        )
        try restore(samples.set, "--to", "\(target):1=2", "--to", "\(target):2=1:4")
        try samples.expectFAT(in: target, at: 2048 * 512, size: 8 << 20)
        try samples.expectTree(in: target, at: 43008 * 512, size: 40 << 20)
        try Program.mustFail(
            ["restore", samples.set, "--to", "\(target):1=2", "--to", "\(target):1=4", "--yes"], status: 4,
            code: "plan.refused", saying: ["target of two"])
    }

    @Test func aNeighbourMayBeMounted() throws {
        let target = try scratch.file("target.img", "128M")
        try scratch.sh(
            "printf 'label: gpt\\nstart=2048, size=40960\\nstart=43008, size=122880\\n' | sfdisk -q target.img")
        let loop = try Loop(target, "--partscan")
        // The kernel may not look by itself, and without devtmpfs nobody makes the nodes.
        try scratch.sh(
            """
            name=$(basename "$1"); test -e /sys/block/$name/${name}p1 || partx --add "$1"
            for part in 1 2; do
              number=$(cat /sys/block/$name/${name}p$part/dev)
              test -b "$1p$part" || { mknod "$1p$part" b ${number%:*} ${number#*:}; echo "$1p$part" >> made; }
            done
            mke2fs -q -F "$1p1"
            """, [loop.path])
        defer { _ = try? scratch.sh("test ! -e made || xargs rm -f < made") }
        let mount = try Mount(["\(loop.path)p1"], at: "\(scratch.path)/neighbour")
        try scratch.sh("echo here > neighbour/file")
        try Program.mustFail(
            ["restore", samples.set, "--to", loop.path, "--yes"], status: 4, code: "target.in-use", saying: ["mounted"])
        try Program.mustFail(
            ["restore", samples.set, "--to", "\(loop.path):1=4", "--yes"], status: 4, code: "target.in-use",
            saying: ["mounted"])
        try restore(samples.set, "--to", "\(loop.path):2=4")
        try scratch.sh("sync; grep here neighbour/file")
        try samples.expectTree(in: loop.path, at: 43008 * 512, size: 40 << 20)
        withExtendedLifetime(mount) {}
    }

    @Test func aTableThatChangedIsRefused() throws {
        let target = try scratch.file("target.img", "128M")
        try scratch.sh(
            "printf 'label: gpt\\nstart=2048, size=40960\\nstart=43008, size=122880\\n' | sfdisk -q target.img")
        let plan = "\(scratch.path)/plan.json"
        try #require(Program.run("plan", samples.set, "--to", "\(target):2=4", "-o", plan).status == 0)
        try scratch.sh(
            "printf 'label: gpt\\nstart=2048, size=40960\\nstart=43008, size=122000\\n' | sfdisk -q target.img")
        let before = try sha256(target)
        try Program.mustFail(
            ["restore", "--plan", plan, "--yes"], status: 4, code: "target.changed", saying: [target, "table"])
        #expect(try sha256(target) == before)
    }
}

/// What cannot be is refused with its code, and the target stays as it is.
@Suite(.enabled(if: Samples.areAvailable, Samples.why))
struct LayoutRefusalTests {
    let scratch: Scratch
    let samples: Samples

    init() throws {
        scratch = try Scratch()
        samples = try Samples.get()
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var options: [String]
        var code: String
        var words: [String]
        var size = "64M"
        var testDescription: String { options.joined(separator: " ") }
    }

    static let cases = [
        Case(
            options: [], code: "target.too-small", words: ["at least", "1:", "vfat \"ESP\"", "--drop 4"], size: "20M"),
        Case(options: ["--layout", "keep"], code: "target.too-small", words: ["at least"], size: "20M"),
        Case(options: ["--size", "2=2M"], code: "volume.cannot-shrink", words: ["vfat"]),
        Case(options: ["--size", "4=1T"], code: "target.too-small", words: ["1099511627776"]),
        Case(options: ["--size", "9=1G"], code: "plan.refused", words: ["no such part", "1, 2, 3, 4"]),
        Case(options: ["--drop", "7"], code: "plan.refused", words: ["no such part"]),
        Case(options: ["--drop", "4", "--size", "4=20M"], code: "plan.refused", words: ["--size and --drop"]),
        Case(options: ["--layout", "exact", "--drop", "4"], code: "plan.refused", words: ["--layout keep"]),
        Case(options: ["--sector-size", "4096"], code: "target.sector-size", words: ["512-byte sectors", "--drop 2"]),
        Case(
            options: ["--sector-size", "4096", "--drop", "2", "--drop", "4", "--firmware", "bios"],
            code: "boot.impossible", words: ["BIOS", "4096"]),
    ]

    @Test(arguments: cases) func isRefused(_ test: Case) throws {
        let target = try scratch.file("target.img", test.size)
        try scratch.sh("head -c 100000 /dev/urandom | dd of=target.img conv=notrunc status=none")
        let before = try sha256(target)
        for verb in [["plan"], ["restore", "--yes"]] {
            try Program.mustFail(
                verb + [samples.set, "--to", target] + test.options, status: 4, code: test.code, saying: test.words)
        }
        #expect(try sha256(target) == before)
    }

    @Test func plansOfFormatOneAreCarriedOut() throws {
        let target = try scratch.file("target.img", "64M")
        let plan = "\(scratch.path)/plan.json"
        try #require(Program.run("plan", samples.set, "--to", target, "-o", plan).status == 0)
        try scratch.sh(
            """
            python3 - plan.json <<'E'
            import json, sys
            plan = json.load(open(sys.argv[1]))
            assert plan["plan"] == 2 and plan["disks"][0]["volumes"][0]["treatment"] == {"do": "copy"}
            plan["plan"] = 1
            for disk in plan["disks"]:
                del disk["dropped"], disk["ids"]
                for volume in disk["volumes"]: del volume["sourceNumber"], volume["treatment"], volume["fixUps"]
            json.dump(plan, open(sys.argv[1], "w"))
            plan["plan"] = 3
            json.dump(plan, open("later.json", "w"))
            E
            """)
        #expect(try Program.run("restore", "--plan", plan, "--yes").status == 0)
        try samples.expectTree(in: target, at: 28672 * 512, size: 40 << 20)
        try Program.mustFail(
            ["restore", "--plan", "\(scratch.path)/later.json", "--yes"], status: 2, code: "usage",
            saying: ["version 3", "versions 1 to 2"])
    }

    /// Whatever a stored plan is changed to, it is refused before the first write or does what it says.
    @Test(arguments: [
        (#"v["treatment"] = {"do": "shrink", "to": 1 << 20, "by": "resize2fs"}"#, 4),
        (#"v["treatment"] = {"do": "shrink", "to": 1 << 60, "by": "resize2fs"}"#, 4),
        (#"v["treatment"] = {"do": "recreate", "by": "sh"}"#, 4), (#"v["treatment"] = {"do": "erase"}"#, 2),
        (#"v["sourceNumber"] = 2"#, 4), (#"v["sourceNumber"] = -1"#, 4), (#"v["number"] = 3"#, 4),
        (#"v["fixUps"] = [{"hiddenSectors": 5}]"#, 4), (#"d["table"]["partitions"][0]["first"] = 0"#, 4),
        (#"d["table"]["gpt"]["entryCount"] = 4294967295"#, 4), (#"d["keeps"] = d["table"]"#, 4),
        (#"d["keeps"] = d["table"]; del d["table"]"#, 4),
        (#"d["volumes"].remove(v)"#, 4), (#"v["kind"] = "unknown""#, 4),
        (#"d["target"]["path"] = d["target"]["path"].replace("/target", "/./target")"#, 4),
    ]) func aChangedPlanIsRefused(_ change: String, _ status: Int32) throws {
        let target = try scratch.file("target.img", "64M")
        let plan = "\(scratch.path)/plan.json"
        try #require(Program.run("plan", samples.set, "--to", target, "-o", plan).status == 0)
        try scratch.sh(
            """
            python3 - plan.json "$1" <<'E'
            import json, sys
            plan = json.load(open(sys.argv[1]))
            d = plan["disks"][0]; v = d["volumes"][3]
            exec(sys.argv[2])
            json.dump(plan, open(sys.argv[1], "w"))
            E
            """, [change])
        let before = try sha256(target)
        let run = try Program.run("restore", "--plan", plan, "--yes")
        #expect(run.status == status, "\(run.err)")
        #expect(try sha256(target) == before)
    }
}
