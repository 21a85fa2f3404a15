// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import Testing
import Tools

private let canPresent = unsafe access("/dev/fuse", R_OK | W_OK) == 0

/// Restores to disks on which the volumes do not fit as they were.
@Suite(
    .enabled(if: Samples.areLoopsAvailable && canPresent, "needs root, loop devices and /dev/fuse"),
    .serialized)
struct ShrinkRestoreTests {
    /// A disk with an ext4 of 240 MiB, half full everywhere, and swap space behind it; imaged.
    private final class Source: Sendable {
        let scratch: Scratch
        var disk: String { "\(scratch.path)/disk.img" }
        var set: String { "\(scratch.path)/set" }
        static let shared = Result { try Source() }
        private static let removal: Void = {
            atexit { if case .success(let source) = shared { _ = try? source.scratch.sh("rm -rf \"$PWD\"") } }
        }()
        static func get() throws -> Source {
            _ = removal
            return try shared.get()
        }

        private init() throws {
            scratch = try Scratch()
            try scratch.sh(
                """
                mkdir tree
                for n in $(seq 1 420); do
                  mkdir -p tree/d$((n % 9))
                  openssl enc -aes-128-ctr -K $(printf %032x $n) -iv 0 -in /dev/zero 2>/dev/null |
                    head -c $((n * 7919 % 900000 + 100)) > tree/d$((n % 9))/f$n || true
                done
                truncate -s 240M root; mke2fs -q -F -t ext4 -b 4096 -L root -d tree root
                # Every second file goes, so that what is left lies everywhere.
                for n in $(seq 1 2 420); do rm tree/d$((n % 9))/f$n; echo "rm d$((n % 9))/f$n"; done > gone
                debugfs -w -f gone root >/dev/null 2>&1
                e2fsck -fp root >/dev/null || test $? = 1
                (cd tree; find . -type f -print0 | sort -z | xargs -0 sha256sum) > hashes
                truncate -s 320M disk.img
                printf 'label: gpt\\nsize=240M, type=linux\\nsize=64M, type=swap\\n' | sfdisk -q disk.img
                dd if=root of=disk.img bs=1M seek=1 conv=notrunc,sparse status=none
                truncate -s 64M swap; mkswap -q -L pages -U 0f8a2d2c-8a5e-4c5e-9d0e-3b6f4a7c1d22 swap
                dd if=swap of=disk.img bs=1M seek=241 conv=notrunc,sparse status=none
                rm -rf root swap tree
                """)
            let backup = try Program.run("--quiet", "backup", disk, "--to", set)
            try #require(backup.status == 0, "\(backup.err)")
        }

        func hashOfSet() throws -> String { try scratch.sh("find set -type f | sort | xargs sha256sum | sha256sum") }

        /// A disk image of `size` full of garbage.
        func target(_ size: String) throws -> String {
            try scratch.sh("head -c \(size) /dev/zero | tr '\\0' '\\245' > target.img")
            return "\(scratch.path)/target.img"
        }
    }

    @Test func fortyPercentSmaller() throws {
        let source = try Source.get()
        let before = try source.hashOfSet()
        let target = try source.target("192M")
        let plan = try Program.run("plan", source.set, "--to", target)
        #expect(plan.status == 0, "\(plan.err)")
        #expect(plan.out.contains("resize2fs") && plan.out.contains("of memory"), "\(plan.out)")
        let restore = try Program.run("restore", source.set, "--to", target, "--yes", seconds: 300)
        #expect(restore.status == 0, "\(restore.err)")
        #expect(restore.out.contains("shrunk by resize2fs to"), "\(restore.out)")
        #expect(restore.out.contains("e2fsck -fn: clean"), "\(restore.out)")
        try source.scratch.sh(
            """
            sgdisk -v target.img | grep -q 'No problems found'
            get() { sfdisk -d target.img | grep "^target.img$1" | sed "s/.*$2= *\\([0-9]*\\).*/\\1/"; }
            for n in 1 2; do
              dd if=target.img of=p$n bs=512 skip=$(get $n start) count=$(get $n size) conv=sparse status=none
            done
            e2fsck -fn p1
            test "$(blkid -p -s LABEL -o value p1)" = root
            blkid -p p2 | grep -q 'UUID="0f8a2d2c-8a5e-4c5e-9d0e-3b6f4a7c1d22".*TYPE="swap"'
            mkdir out; debugfs -R "rdump / out" p1 2>/dev/null; rm -rf out/lost+found
            (cd out; find . -type f -print0 | sort -z | xargs -0 sha256sum) | cmp - hashes
            rm -rf out p1 p2
            """)
        #expect(try source.hashOfSet() == before, "the restore changed the set")
        #expect(try mountsOfOurs() == 0)
    }

    /// What fits by what is measured only is planned after a measurement.
    @Test func theSmallestSizeIsMeasuredWhenTheEstimateDoesNotFit() throws {
        let source = try Source.get()
        let target = try source.target("186M")
        let plan = try Program.run("plan", source.set, "--to", target, seconds: 300)
        #expect(plan.status == 0, "\(plan.err)")
        #expect(plan.err.contains("shrinking ext4"), "\(plan.err)")
    }

    /// Too small for what is in use: refused before the first write.
    @Test func tooSmallIsRefused() throws {
        let source = try Source.get()
        let target = try source.target("96M")
        let before = try sha256(target)
        let restore = try Program.run("restore", source.set, "--to", target, "--yes", seconds: 300)
        #expect(restore.status == 4, "\(restore.err)")
        #expect(try sha256(target) == before)
    }

    /// Killed while a volume is shrunk: the target is as it was, and nothing is left mounted or attached.
    @Test(arguments: [0.3, 0.9, 1.6]) func killedWhileShrinking(_ seconds: Double) throws {
        let source = try Source.get()
        let target = try source.target("192M")
        let before = try sha256(target)
        let program = try #require(Program.path)
        let process = try Tool.spawn(program, ["relight", "restore", source.set, "--to", target, "--yes"])
        // Until it has begun to shrink.
        for _ in 0..<200 where try folders(of: process) == 0 { usleep(20_000) }
        usleep(UInt32(seconds * 100_000))
        kill(process, SIGKILL)
        #expect(Tool.wait(process) == 128 + SIGKILL)
        #expect(try sha256(target) == before, "the target was written to")
        #expect(try mountsOfOurs() == 0)
        // What it had started ends by itself, for its file is gone.
        var left = ""
        for _ in 0..<100 {
            left = try source.scratch.sh("pgrep -fa '/relight-volume-' | grep -v pgrep || true")
            if left.isEmpty { break }
            usleep(100_000)
        }
        #expect(left.isEmpty, "\(left)")
        #expect(
            try source.scratch.sh("losetup --list --noheadings --output BACK-FILE | grep -c relight-volume || true")
                == "0\n")
    }

    /// FUSE mounts of ours that everybody sees.
    private func mountsOfOurs() throws -> Int {
        let lines = try shell.run(["-c", "grep -c ' - fuse relight ' /proc/self/mountinfo"]).standardOutput
        return Int(lines.filter(\.isNumber)) ?? -1
    }

    /// FUSE mounts that any thread of `process` sees.
    private func folders(of process: Int32) throws -> Int {
        let lines = try shell.run([
            "-c", "cat /proc/\(process)/task/*/mountinfo 2>/dev/null | grep -c ' - fuse relight '",
        ]).standardOutput
        return Int(lines.filter(\.isNumber)) ?? 0
    }
}
