// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

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

    private func backUpAndRestore(_ image: String, _ scratch: Scratch, size: String) throws -> String {
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
        return target
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
        _ = try backUpAndRestore(image, scratch, size: "96M")
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
        _ = try backUpAndRestore(image, scratch, size: "320M")
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
