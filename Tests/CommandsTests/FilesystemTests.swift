// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import Testing
import Tools

/// Disks with filesystems that only a mount fills: imaged, restored onto garbage, and judged by their own tools.
@Suite(.enabled(if: Samples.areAvailable && geteuid() == 0, "needs root and what the main job needs"))
struct FilesystemTests {
    static let canMountNTFS: Bool = {
        let device = unsafe access("/dev/fuse", R_OK | W_OK)
        return device == 0 && Tool("ntfs-3g", package: "ntfs-3g").path != nil
    }()

    /// The columns of `relight disks` for one volume.
    private func shown(_ image: String, _ kind: String) throws -> String {
        let run = try Program.run("disks", image)
        #expect(run.status == 0, "\(run.err)")
        return String(try #require(run.out.split(separator: "\n").first { $0.contains(" \(kind) ") }))
    }

    /// `checker` is what the restore must have had look at the filesystem, where that is possible.
    private func backUpAndRestore(
        _ image: String, _ scratch: Scratch, size: String, checker: String
    ) throws -> String {
        let before = try sha256(image)
        let backup = try Program.run("backup", image, "--to", "\(scratch.path)/set")
        try #require(backup.status == 0, "\(backup.err)")
        #expect(try sha256(image) == before, "the backup changed its source")
        #expect(!backup.err.contains("imaged whole"), "\(backup.err)")
        let target = try scratch.file("target.img", size)
        // What lies there before must not shine through.
        try scratch.sh("head -c $(stat -c %s target.img) /dev/zero | tr '\\0' '\\245' > garbage; mv garbage target.img")
        let restore = try Program.run("restore", "\(scratch.path)/set", "--to", target, "--yes")
        #expect(restore.status == 0, "\(restore.err)")
        if Samples.areLoopsAvailable { #expect(restore.out.contains("\(checker): clean"), "\(restore.out)") }
        return target
    }

    /// A volume with the header of Windows's shadow copies: told everywhere, until it is imaged in full.
    @Test(.enabled(if: Tool("mkntfs", package: "ntfs-3g").path != nil, "ntfs-3g is needed"))
    func shadowCopiesAreToldUnlessAllIsImaged() throws {
        let scratch = try Scratch()
        try scratch.sh(
            """
            truncate -s 32M p; mkntfs -F -Q -q -L Windows p 2>/dev/null
            printf '\\x6b\\x87\\x08\\x38\\x76\\xc1\\x48\\x4e\\xb7\\xae\\x04\\x04\\x6e\\x6c\\xc7\\x52' |
              dd of=p bs=1 seek=$((0x1E00)) conv=notrunc status=none
            printf '\\x40' | dd of=p bs=1 seek=$((0x1E00 + 49)) conv=notrunc status=none
            printf deleted | dd of=p bs=1 seek=$((20 << 20)) conv=notrunc status=none
            """)
        let image = "\(scratch.path)/p"
        let set = "\(scratch.path)/set"
        func warnings(_ arguments: String...) throws -> [String] {
            let run = try Program.run(["--json"] + arguments)
            #expect(run.status == 0, "\(run.err)")
            let findings = try run.document().findings ?? []
            return findings.filter { $0.code == "volume.snapshots" }.map(\.what)
        }
        let disks = try Program.run("disks", image)
        #expect(disks.out.contains("warning: ") && disks.out.contains("shadow copies"), "\(disks.out)")
        #expect(try warnings("backup", image, "--to", set).count == 1)
        #expect(try Program.run("show", set).out.contains("shadow copies"))

        #expect(try warnings("backup", image, "--to", set, "--whole", "0") == [])
        let show = try Program.run("show", set).out
        #expect(!show.contains("shadow copies") && show.contains("--whole"), "\(show)")
        let target = try scratch.file("target.img", "32M")
        let restore = try Program.run("restore", set, "--to", target, "--yes")
        #expect(restore.status == 0, "\(restore.err)")
        try scratch.sh("cmp p target.img")
    }

    @Test func aVolumeInFull() throws {
        let samples = try Samples.get()
        let scratch = try Scratch()
        // The end of the last partition is free space.
        try scratch.sh(
            """
            cp --sparse=always "$1" d.img
            printf 'a deleted file' | dd of=d.img bs=1 seek=$(((28672 + 81000) * 512)) conv=notrunc status=none
            """, [samples.gpt])
        let image = "\(scratch.path)/d.img"
        let set = "\(scratch.path)/set"
        for (whole, holds) in [("--whole=4", true), ("--whole=2", false)] {
            let backup = try Program.run("backup", image, "--to", set, whole)
            #expect(backup.status == 0, "\(backup.err)")
            #expect(backup.err.contains("asked for with `--whole`"), "\(backup.err)")
            let target = try scratch.file("target\(holds).img", "64M")
            #expect(try Program.run("restore", set, "--to", target, "--yes").status == 0)
            #expect(((try? scratch.sh("grep -q 'a deleted file' \"$1\"", [target])) != nil) == holds)
        }
        for (options, code) in [
            (["--whole", "9"], "missing"), (["--whole", "x"], "usage"), (["--whole", "4", "--volume", "2"], "usage"),
        ] {
            let refused = try Program.run(["--json", "backup", image, "--to", set] + options)
            #expect(try refused.document().code == code, "\(options)")
        }
    }

    /// Bitmaps of alternating bits cost no more memory than others: one bit for each block, and what is always bounded.
    @Test(.enabled(if: Tool("python3", package: "python3").path != nil, "python3 is needed"))
    func alternatingBitmapsOfAVeryLargeFilesystem() throws {
        let scratch = try Scratch()
        try scratch.sh(
            #"""
            truncate -s 8M small; mke2fs -q -F -t ext2 -b 1024 -N 8192 -O ^resize_inode small
            python3 - <<'E'
            import struct
            groups = 66000                      # of 8192 blocks: more than 2^29
            small = open("small", "rb").read()
            super = bytearray(small[1024:2048])
            inodes, = struct.unpack_from("<I", super, 40)
            struct.pack_into("<I", super, 0, groups * inodes)
            struct.pack_into("<I", super, 4, 1 + groups * 8192)
            tables = (1 + 1 + (groups * 32 + 1023) // 1024 + 15) // 16 * 16
            full, half, table = tables, tables + 2, tables + 4
            hostile = range(32000, 32000 + 1600)
            def descriptor(group):
                return struct.pack("<IIIHHH14x", half if group in hostile else full, full, table, 4096, 0, 0)
            with open("large", "wb") as file:
                file.truncate((1 + groups * 8192) * 1024)
                file.seek(1024); file.write(super)
                file.seek(2048); file.write(b"".join(descriptor(group) for group in range(groups)))
                file.seek(full * 1024); file.write(bytes([0xFF]) * 1024)
                file.seek(half * 1024); file.write(bytes([0x55]) * 1024)
            E
            """#)
        let tests = #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
        let cost = try scratch.sh(
            "python3 \"/$1/Judges/run_limited.py\" 110 \"$2\" disks large 2>output",
            [tests, try #require(Program.path)])
        let numbers = cost.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
        try #require(numbers.count == 3)
        #expect(numbers[0] == 0)
        // 64 MiB of bits, 64 MiB of lists, and the program itself.
        #expect(numbers[2] < 220 << 10, "\(cost)")
        let shown = try scratch.sh("cat output")
        #expect(!shown.contains("whole"), "\(shown)")
    }

    @Test(.enabled(if: canMountNTFS, "ntfs-3g and FUSE are needed"))
    func ntfsComesBackWithAllItsFiles() throws {
        let samples = try Samples.get()
        let scratch = try Scratch()
        try scratch.sh(
            """
            truncate -s 80M p; mkntfs -F -Q -q -L Windows p 2>/dev/null; mkdir mnt
            ntfs-3g -o no_detach p mnt 2>/dev/null & mount=$!
            for n in $(seq 1 200); do mountpoint -q mnt && break; sleep 0.05; done
            cp -rL "$1/tree/." mnt; rm mnt/file131073; umount mnt; wait $mount
            truncate -s 96M d.img
            printf 'label: gpt\nstart=2048, size=163840, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n' | sfdisk -q d.img
            dd if=p of=d.img bs=1M seek=1 conv=notrunc,sparse status=none
            """, [samples.path])
        let image = "\(scratch.path)/d.img"
        let row = try shown(image, "ntfs")
        #expect(row.contains("Windows") && row.contains("clean") && row.contains("80 MiB"), "\(row)")
        #expect(!row.contains("whole"), "\(row)")
        _ = try backUpAndRestore(image, scratch, size: "96M", checker: "ntfsfix -n")
        try scratch.sh(
            """
            dd if=target.img of=t bs=1M skip=1 count=80 status=none
            ntfsfix -n t
            mkdir mnt2
            for p in p t; do
              ntfs-3g -o no_detach,ro $p mnt2 2>/dev/null & mount=$!
              for n in $(seq 1 200); do mountpoint -q mnt2 && break; sleep 0.05; done
              cp -r mnt2 out-$p; umount mnt2; wait $mount
            done
            test -f out-t/sub/deeper/s60
            diff -r out-p out-t
            """)
    }

    static let canMountXFS: Bool = {
        guard Samples.areLoopsAvailable, Tool("mkfs.xfs", package: "xfsprogs").path != nil,
            let scratch = try? Scratch()
        else { return false }
        return
            (try? scratch.sh("truncate -s 320M p; mkfs.xfs -q p; mkdir m; mount -o loop p m; umount m")) != nil
    }()

    @Test(.enabled(if: canMountXFS, "xfsprogs, loop devices and XFS in the kernel are needed"))
    func xfsComesBackWithAllItsFiles() throws {
        let samples = try Samples.get()
        let scratch = try Scratch()
        try scratch.sh(
            """
            truncate -s 320M d.img; mkfs.xfs -q -L data d.img; mkdir mnt
            mount -o loop d.img mnt; cp -a "$1/tree/." mnt; rm mnt/file131073; umount mnt
            """, [samples.path])
        let image = "\(scratch.path)/d.img"
        let row = try shown(image, "xfs")
        #expect(row.contains("data") && row.contains("clean") && !row.contains("whole"), "\(row)")
        _ = try backUpAndRestore(image, scratch, size: "320M", checker: "xfs_repair -n")
        try scratch.sh(
            """
            xfs_repair -n -f target.img >&2
            for p in d target; do
              mount -o loop,ro,norecovery,nouuid $p.img mnt; cp -a mnt out-$p; umount mnt
            done
            test -f out-target/sub/deeper/s60
            diff -r --no-dereference out-d out-target
            """)
    }
}
