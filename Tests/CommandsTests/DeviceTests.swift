// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import Testing
import Tools

/// Disks that are in use, or hold what they must not, as real block devices.
@Suite(.serialized, .enabled(if: Samples.areLoopsAvailable, "needs root and loop devices"))
struct InUseTests {
    let scratch: Scratch
    let samples: Samples

    init() throws {
        scratch = try Scratch()
        samples = try Samples.get()
    }

    @Test func setOnTheSource() throws {
        let file = try scratch.file("disk.img", "64M")
        try scratch.sh("mke2fs -q -F disk.img")
        let loop = try Loop(file)
        let mount = try Mount([loop.path], at: "\(scratch.path)/mnt")
        for disk in [loop.path, file] {
            try Program.mustFail(
                ["backup", disk, "--to", "\(mount.path)/sets/a"], status: 4, code: "set.on-source",
                saying: [disk, "\(mount.path)/sets/a", "another disk"])
        }
        #expect(try scratch.sh("ls mnt") == "lost+found\n")
        withExtendedLifetime((loop, mount)) {}
    }

    @Test func setOnTheSourceByLabelIsNotEvenMounted() throws {
        let label = "RLS\(UInt32.random(in: 0...99_999_999))"
        let file = try scratch.file("disk.img", "64M")
        try scratch.sh("mke2fs -q -F -t ext4 -L \"$1\" disk.img", [label])
        let loop = try Loop(file)
        let before = try sha256(file)
        try Program.mustFail(
            ["backup", loop.path, "--to", "label:\(label)/sets"], status: 4, code: "set.on-source",
            saying: [loop.path, "label:\(label)/sets"])
        // A mount alone would have changed the superblock.
        try scratch.sh("sync -f disk.img")
        #expect(try sha256(file) == before)
        withExtendedLifetime(loop) {}
    }

    @Test func sourceMountedForWriting() throws {
        let file = "\(scratch.path)/disk.img"
        try scratch.sh("cp --sparse=always \"$1\" disk.img", [samples.wholeExt])
        let loop = try Loop(file)
        let mount = try Mount([loop.path], at: "\(scratch.path)/mnt")
        for disk in [loop.path, file] {
            try Program.mustFail(
                ["backup", disk, "--to", "\(scratch.path)/set"], status: 4, code: "source.in-use",
                saying: [disk, "mounted for writing at \(mount.path)"])
        }
        #expect(unsafe access("\(scratch.path)/set", F_OK) != 0)
        withExtendedLifetime((loop, mount)) {}
    }

    @Test func sourceMountedInAnotherNamespace() throws {
        try scratch.sh("cp --sparse=always \"$1\" disk.img; mkdir mnt", [samples.wholeExt])
        let file = "\(scratch.path)/disk.img"
        let loop = try Loop(file)
        try scratch.sh(
            """
            unshare -m --propagation private sh -c '
              # What other tests have mounted must not be held here after they unmounted it.
              cut -d" " -f2 /proc/self/mounts | grep "^/tmp/" | while read -r place; do umount -l "$place"; done
              mount "$1" mnt && touch ready && while test ! -e stop; do sleep 0.05; done
              umount mnt; touch gone' sh "$1" >/dev/null 2>&1 &
            for n in $(seq 1 200); do test -e ready && break; sleep 0.05; done; test -e ready
            """, [loop.path])
        defer { _ = try? scratch.sh("touch stop; for n in $(seq 1 100); do test -e gone && break; sleep 0.05; done") }
        for disk in [loop.path, file] {
            try Program.mustFail(
                ["backup", disk, "--to", "\(scratch.path)/set"], status: 4, code: "source.in-use",
                saying: [disk, "\(loop.path) is held"])
        }
    }

    @Test func imageFileMountedWithoutALoopDevice() throws {
        guard Tool("ntfs-3g", package: "ntfs-3g").path != nil, unsafe access("/dev/fuse", W_OK) == 0 else { return }
        let file = try scratch.file("disk.img", "16M")
        try scratch.sh("mkntfs -F -Q -q disk.img; mkdir mnt; ntfs-3g disk.img mnt")
        defer { _ = try? scratch.sh("umount mnt") }
        try Program.mustFail(
            ["backup", file, "--to", "\(scratch.path)/set"], status: 4, code: "source.in-use",
            saying: [file, "mounted for writing at \(scratch.path)/mnt"])
    }

    /// A mount that may only be read is no reason to refuse, unless the filesystem is written to through another.
    @Test func sourceMountedReadOnly() throws {
        try scratch.sh("cp --sparse=always \"$1\" disk.img", [samples.wholeExt])
        let loop = try Loop("\(scratch.path)/disk.img")
        do {
            let mount = try Mount(["-o", "ro", loop.path], at: "\(scratch.path)/mnt")
            let backup = try Program.run("backup", loop.path, "--to", "\(scratch.path)/set")
            #expect(backup.status == 0, "\(backup.err)")
            withExtendedLifetime(mount) {}
        }
        let hidden = try Mount([loop.path], at: "\(scratch.path)/hidden")
        let mount = try Mount(["--bind", "-o", "ro", hidden.path], at: "\(scratch.path)/mnt")
        let refused = try Program.mustFail(
            ["backup", loop.path, "--to", "\(scratch.path)/set"], status: 4, code: "source.in-use",
            saying: ["mounted for writing at \(mount.path)"])
        #expect(refused.what?.contains(hidden.path) == true)
        withExtendedLifetime((hidden, mount)) {}
    }

    /// Somebody holds the source's pages from before; what lies on it now is what is imaged.
    @Test func aSourceThatChangedBelowItsPages() throws {
        try scratch.sh("cp --sparse=always \"$1\" disk.img; cp disk.img other.img; : > letter", [samples.wholeExt])
        try scratch.sh(
            "head -c 2000000 /dev/urandom > letter; debugfs -w -R 'write letter letter' other.img 2>/dev/null")
        let loop = try Loop("\(scratch.path)/disk.img")
        let held = unsafe open(loop.path, O_RDONLY | O_CLOEXEC)
        try #require(held >= 0)
        defer { close(held) }
        // The device's pages hold the old content; the file below it has the new one.
        try scratch.sh(
            "cat \"$1\" > /dev/null; dd if=other.img of=disk.img bs=1M conv=notrunc status=none", [loop.path])
        let set = "\(scratch.path)/set"
        let backup = try Program.run("backup", loop.path, "--to", set)
        #expect(backup.status == 0, "\(backup.err)")
        let target = try scratch.file("target.img", "24M")
        let restore = try Program.run("restore", set, "--to", target, "--yes")
        #expect(restore.status == 0, "\(restore.err)")
        try scratch.sh("e2fsck -fn target.img; debugfs -R 'dump letter back' target.img 2>/dev/null; cmp letter back")
    }

    /// What was written through a device on top of the source, and lies in that device's pages only, is imaged.
    @Test func pagesOfTheDevicesAbove() throws {
        let file = try scratch.file("disk.img", "8M")
        let lower = try Loop(file)
        let upper = try Loop(lower.path)
        let held = unsafe open(upper.path, O_RDWR | O_CLOEXEC)
        try #require(held >= 0)
        defer { close(held) }
        let set = "\(scratch.path)/set"
        for (source, mark) in [(lower.path, UInt8(0x41)), (file, 0x42)] {
            let bytes = [UInt8](repeating: mark, count: 65536)
            try #require(unsafe pwrite(held, bytes, bytes.count, 4 << 20) == bytes.count)
            let backup = try Program.run("backup", source, "--to", set)
            #expect(backup.status == 0, "\(backup.err)")
            let target = try scratch.file("target\(mark).img", "8M")
            let restore = try Program.run("restore", set, "--to", target, "--yes")
            #expect(restore.status == 0, "\(restore.err)")
            let others = try scratch.sh(
                "dd if=\"$1\" bs=64K skip=64 count=1 status=none | tr -d \"$2\" | wc -c",
                [target, mark == 0x41 ? "A" : "B"])
            #expect(others == "0\n")
        }
    }

    @Test func partitionAsSource() throws {
        let loop = try Loop(samples.gpt, "--read-only", "--partscan")
        // Without udev the partition's node may be missing; then there is nothing to name.
        guard unsafe access("\(loop.path)p4", F_OK) == 0 else { return }
        try Program.mustFail(
            ["backup", "\(loop.path)p4", "--to", "\(scratch.path)/set"], status: 1, code: "wrong-kind",
            saying: ["\(loop.path)p4", "--volume 4"])
        withExtendedLifetime(loop) {}
    }

    @Test func mountedTarget() throws {
        let file = try scratch.file("disk.img", "64M")
        try scratch.sh("mke2fs -q -F disk.img")
        let loop = try Loop(file)
        let mount = try Mount([loop.path], at: "\(scratch.path)/mnt")
        try scratch.sh("echo precious > mnt/file; sync -f mnt/file")
        for disk in [loop.path, file] {
            try Program.mustFail(
                ["restore", samples.set, "--to", disk, "--yes"], status: 4, code: "target.in-use",
                saying: [disk, mount.path, "Unmount"])
        }
        #expect(try scratch.sh("cat mnt/file") == "precious\n")
        withExtendedLifetime((loop, mount)) {}
    }

    @Test func loopDeviceOverTheTarget() throws {
        let file = try scratch.file("disk.img", "64M")
        let before = try sha256(file)
        let loop = try Loop(file)
        try Program.mustFail(
            ["restore", samples.set, "--to", file, "--yes"], status: 4, code: "target.in-use",
            saying: [file, loop.path, "losetup --detach"])
        #expect(try sha256(file) == before)
    }

    @Test func targetHoldsTheSet() throws {
        let file = try scratch.file("disk.img", "80M")
        try scratch.sh("mke2fs -q -F disk.img")
        let loop = try Loop(file)
        let mount = try Mount([loop.path], at: "\(scratch.path)/mnt")
        try scratch.sh("cp -a \"$1\" mnt/set; sync -f mnt", [samples.set])
        for disk in [loop.path, file] {
            let run = try Program.run("--json", "restore", "\(mount.path)/set", "--to", disk, "--yes")
            #expect(run.status == 4)
            let reasons = try run.document().reasons ?? []
            #expect(
                reasons.contains { $0.code == "target.forbidden" && $0.what?.contains("\(mount.path)/set") == true })
            #expect(reasons.contains { $0.code == "target.in-use" })
        }
        #expect(try Program.run("verify", "\(mount.path)/set").status == 0)
        withExtendedLifetime((loop, mount)) {}
    }

    @Test func readOnlyTarget() throws {
        let file = try scratch.file("disk.img", "64M")
        let loop = try Loop(file, "--read-only")
        try Program.mustFail(
            ["restore", samples.set, "--to", loop.path, "--yes"], status: 4, code: "target.forbidden",
            saying: [loop.path, "read-only"])
    }

    /// The file behind a loop device may lie beside the set: the disk under both is not what is imaged or overwritten.
    @Test func loopDevicesBesideTheSet() throws {
        let source = try Loop(samples.gpt, "--read-only")
        let set = "\(scratch.path)/set"
        let backup = try Program.run("backup", source.path, "--to", set)
        #expect(backup.status == 0, "\(backup.err)")
        let file = try scratch.file("target.img", "80M")
        let target = try Loop(file)
        let restore = try Program.run("restore", set, "--to", target.path, "--layout", "fill", "--yes")
        #expect(restore.status == 0, "\(restore.err)")
        let verdict = try Tool("sgdisk", package: "gdisk").run(["-v", file])
        #expect(verdict.standardOutput.contains("No problems found"))
        withExtendedLifetime((source, target)) {}
    }
}

/// Sources with places that cannot be read: a loop device that goes past the end of its file answers with I/O errors there.
@Suite(.serialized, .enabled(if: Samples.areLoopsAvailable, "needs root and loop devices"))
struct UnreadableSourceTests {
    let scratch: Scratch
    let loop: Loop

    init() throws {
        let samples = try Samples.get()
        scratch = try Scratch()
        try scratch.sh(
            """
            truncate -s 24M bad.img
            sfdisk -q bad.img <<'E'
            label: dos
            start=2048, size=16384, type=83
            start=20480, size=28672, type=da
            E
            mke2fs -q -F -t ext4 -d "$1/tree" -E offset=1048576 bad.img 8M
            head -c 14680064 /dev/urandom | dd of=bad.img bs=1M seek=10 conv=notrunc status=none
            """, [samples.path])
        loop = try Loop("\(scratch.path)/bad.img", "--direct-io=on")
        // What lies in the last 128 KiB of the disk is lost.
        try scratch.sh("sync bad.img; truncate -s $((24 * 1048576 - 131072)) bad.img")
        _ = try? Tool("blockdev", package: "util-linux").run(["--flushbufs", loop.path])
        let read = try shell.run(["-c", "dd if=\"$1\" of=/dev/null bs=64k", "sh", loop.path])
        try #require(read.status != 0, "this kernel gives no I/O error past the end of a loop device's file")
    }

    @Test func failMakesNoPoint() throws {
        let set = "\(scratch.path)/set"
        let document = try Program.mustFail(
            ["backup", loop.path, "--to", set], status: 1, code: "source.unreadable",
            saying: [loop.path, "Input/output error", "--on-read-error skip"])
        #expect(document.what?.contains("byte") == true)
        let points = try Program.run("--json", "points", set)
        #expect(try points.document().points?.isEmpty == true)
    }

    /// Through the page cache one bad sector costs all of its page; read past it, no more than itself.
    @Test func sectorsBesideBadOnesAreRead() throws {
        try scratch.sh("truncate -s $((24 * 1048576 - 131072 - 512 * 3)) bad.img")
        _ = try? Tool("blockdev", package: "util-linux").run(["--flushbufs", loop.path])
        let backup = try Program.run(
            "--json", "backup", loop.path, "--to", "\(scratch.path)/set", "--on-read-error", "skip")
        #expect(backup.status == 3, "\(backup.err)")
        #expect(try backup.document().unreadable == 131_072 + 512 * 3)
    }

    /// The filesystem's own place is damaged: the files concerned are named by the backup and by the point.
    @Test func filesThatLostDataAreNamed() throws {
        try scratch.sh(
            """
            head -c 60000 /dev/urandom > letter; truncate -s 8M fs.img; mkdir -p d/etc; cp letter d/etc/letter
            mke2fs -q -F -t ext4 -b 4096 -E root_owner=0:0 -d d fs.img 8M
            """)
        let blocks = try Tool("debugfs", package: "e2fsprogs").check(
            ["-R", "blocks /etc/letter", "\(scratch.path)/fs.img"]
        ).standardOutput.split { $0 == " " || $0 == "\n" }.compactMap { UInt64($0) }
        let fifth = try #require(blocks.dropFirst(5).first) * 4096
        // From its sixth block on nothing can be read.
        let image = try Loop("\(scratch.path)/fs.img", "--direct-io=on")
        try scratch.sh("sync fs.img; truncate -s \(fifth) fs.img")
        _ = try? Tool("blockdev", package: "util-linux").run(["--flushbufs", image.path])
        let set = "\(scratch.path)/set"
        let backup = try Program.run("--json", "backup", image.path, "--to", set, "--on-read-error", "skip")
        #expect(backup.status == 3, "\(backup.err)")
        let lost = 60000 - 5 * 4096
        let sentence = "The file /etc/letter lost \(lost) bytes."
        #expect(try backup.document().findings?.contains { $0.severity == .loss && $0.what == sentence } == true)
        #expect(try Program.run("show", set).out.contains(sentence))
        withExtendedLifetime(image) {}
    }

    @Test func skipIsAListedLoss() throws {
        let set = "\(scratch.path)/set"
        let backup = try Program.run("--json", "backup", loop.path, "--to", set, "--on-read-error", "skip")
        #expect(backup.status == 3, "\(backup.err)")
        let document = try backup.document()
        #expect(document.unreadable == 131_072)
        #expect(document.findings?.contains { $0.severity == .loss && $0.what.contains("131072 bytes") } == true)

        let show = try Program.run("--json", "show", set)
        let extents = try #require(try show.document().unreadableExtents)
        #expect(extents.map(\.disk) == [1] && extents.map(\.volume) == [2])
        #expect(extents.first?.extents == [[14_680_064 - 131_072, 131_072]])
        #expect(try Program.run("show", set).out.contains("131072 bytes could not be read"))
        #expect(try Program.run("verify", set).status == 0)

        let target = try scratch.file("target.img", "24M")
        let plan = try Program.run("plan", set, "--to", target)
        #expect(plan.out.contains("131072 bytes at byte 14548992 could not be read"))
        let restore = try Program.run("--json", "restore", set, "--to", target, "--yes")
        #expect(restore.status == 3, "\(restore.err)")
        #expect(try restore.document().findings?.contains { $0.severity == .loss && $0.place == "\(target):2" } == true)
        try Samples.get().expectTree(in: target, at: 1 << 20, size: 8 << 20)
        // Everything that could be read is there, and zeros after it.
        try scratch.sh("truncate -s 24M bad.img; cmp bad.img target.img")
    }
}

extension InUseTests {
    /// The whole disk as a filesystem on a device that is 4096-byte sectored, with a table.
    @Test func fourKibibyteSectors() throws {
        let image = try scratch.file("4k.img", "128M")
        do {
            let loop = try Loop(image, "--sector-size", "4096")
            try scratch.sh(
                """
                sgdisk -n 1:256:2303 -t 1:ef00 -n 2:2304:14591 -t 2:8300 "$1" >/dev/null
                truncate -s 8M esp; mkfs.fat -S 4096 -n ESP esp >/dev/null; mcopy -s -i esp "$2"/fattree/* ::/
                truncate -s 48M root; mke2fs -q -F -t ext4 -d "$2/tree" root
                dd if=esp of="$1" bs=4096 seek=256 conv=notrunc status=none
                dd if=root of="$1" bs=4096 seek=2304 conv=notrunc status=none
                """, [loop.path, samples.path])
        }
        let before = try sha256(image)
        let set = "\(scratch.path)/set"
        let wrong = try Program.run("--json", "backup", image, "--to", set)
        #expect(wrong.status == 1)
        #expect(try wrong.document().remedy?.contains("--sector-size 4096") == true)
        let backup = try Program.run("backup", image, "--to", set, "--sector-size", "4096")
        #expect(backup.status == 0, "\(backup.err)")
        #expect(try sha256(image) == before)
        let target = try scratch.file("target.img", "200M")
        let restore = try Program.run(
            "restore", set, "--to", target, "--sector-size", "4096", "--layout", "fill", "--yes")
        #expect(restore.status == 0, "\(restore.err)")
        let loop = try Loop(target, "--sector-size", "4096")
        let verdict = try Tool("sgdisk", package: "gdisk").run(["-v", loop.path])
        #expect(verdict.standardOutput.contains("No problems found"), "\(verdict.standardOutput)")
        try samples.expectFAT(in: target, at: 256 * 4096, size: 8 << 20)
        try samples.expectTree(in: target, at: 2304 * 4096, size: (200 << 20) - 2304 * 4096 - (2 << 20))
        withExtendedLifetime(loop) {}
    }
}
