// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Glibc
import Testing
import Tools

/// What was deleted is not in a set: free space of the sources is full of a mark, which no set and no restored disk has.
@Suite(
    .serialized,
    .enabled(if: Program.path != nil && Samples.areLoopsAvailable, "needs the built program, root and loop devices"))
struct StaleDataTests {
    static let mark = "stale+data+that+nobody+may+keep"

    /// Whether all of `tools` are there.
    private static func have(_ tools: [String]) -> Bool { tools.allSatisfy { Tool($0, package: "").path != nil } }

    @Test(arguments: [
        ("ext4", ["mke2fs"], "mke2fs -q -F -t ext4 -E nodiscard", "mount -o loop,nodiscard"),
        ("xfs", ["mkfs.xfs"], "mkfs.xfs -q -K", "mount -o loop,nodiscard"),
        ("btrfs", ["mkfs.btrfs"], "mkfs.btrfs -q -K", "mount -o loop,nodiscard"),
        ("ntfs", ["mkntfs", "ntfs-3g"], "mkntfs -q -F -Q", "ntfs-3g"),
        ("fat", ["mkfs.fat", "mcopy", "mdel"], "mkfs.fat -F 32", ""),
    ])
    func deletedFilesAreInNoSet(name: String, tools: [String], make: String, mount: String) throws {
        guard Self.have(tools) else { return }
        let scratch = try Scratch()
        let image = try scratch.file("\(name).img", "400M")
        let setting = """
            mkdir -p m keep; for n in $(seq 1 30); do head -c $((n * 7000)) /dev/urandom > keep/f$n; done
            for n in 1 2 3 4 5 6; do yes "$1" | head -c 20000000 > big$n || true; done; \(make) $2 >/dev/null 2>&1

            """
        if mount.isEmpty {
            try scratch.sh(
                setting + "mcopy -i $2 big* :: ; mcopy -i $2 keep/* :: ; mdel -i $2 '::big*'", [Self.mark, image])
        } else {
            try scratch.sh(
                setting + """
                    \(mount) $2 m; trap 'umount m' EXIT; cp big* m/; cp -r keep m/; sync; rm m/big*; sync
                    """, [Self.mark, image])
            try scratch.sh("for n in 1 2 3 4 5 6 7 8 9; do [ -z \"$(losetup -j $1)\" ] || sleep 0.3; done", [image])
        }
        try scratch.sh("rm big*; grep -q -a -F -e \"$1\" $2", [Self.mark, image])
        for level in ["off", "default"] {
            let set = "\(scratch.path)/set-\(level)"
            let backup = try Program.run("backup", image, "--to", set, "--level", level)
            #expect(backup.status == 0, "\(backup.err)")
            try scratch.sh("! grep -r -q -a -F -e \"$1\" \"$2\"", [Self.mark, set])
            // What is compressed is read back: a blank disk then has all that the set holds.
            let target = try scratch.file("target-\(level).img", "400M")
            let restore = try Program.run("restore", set, "--to", target, "--yes")
            #expect(restore.status == 0, "\(restore.err)")
            try scratch.sh("! grep -q -a -F -e \"$1\" \"$2\"; rm -r \"$2\" \"$3\"", [Self.mark, target, set])
        }
    }
}
