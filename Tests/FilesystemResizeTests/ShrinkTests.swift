// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemResize
import Findings
import Geometry
import MachineModel
import PointDisk
import Testing
import Tools

/// A filesystem to shrink, and who judges what came out.
struct ShrinkCase: Sendable, CustomTestStringConvertible {
    let kind: String
    let make: String
    let percent: Int
    let judge: String
    var size = ByteCount.mebibytes(400)
    /// What is kept is at most this part of what was moved.
    var part: UInt64 = 4
    var testDescription: String { make }

    static let all = [
        ShrinkCase(
            kind: "ext4", make: "mke2fs -q -F -t ext4 -b 4096", percent: 45,
            judge: "e2fsck -fn \"$1\" && dumpe2fs -h \"$1\" 2>&1"),
        ShrinkCase(
            kind: "ext4", make: "mke2fs -q -F -t ext4 -b 1024 -O ^flex_bg", percent: 40, judge: "e2fsck -fn \"$1\""),
        ShrinkCase(kind: "ext2", make: "mke2fs -q -F -t ext2 -b 2048", percent: 40, judge: "e2fsck -fn \"$1\""),
        ShrinkCase(
            kind: "ntfs", make: "mkntfs -Q -F -q", percent: 45, judge: "ntfsfix -n \"$1\" && ntfsinfo -f -m \"$1\""),
        ShrinkCase(
            kind: "ntfs", make: "mkntfs -Q -F -q -c 512", percent: 40,
            judge: "ntfsfix -n \"$1\" && ntfsinfo -f -m \"$1\""),
        ShrinkCase(
            kind: "btrfs", make: "mkfs.btrfs -q", percent: 40, judge: "btrfs check --readonly \"$1\"",
            // The kernel makes none smaller than 256 MiB.
            size: .mebibytes(600),
            // It writes its trees anew with each transaction, twice, and what it let go of stays kept.
            part: 2),
    ]
}

@Suite(.enabled(if: canMount, "needs root and /dev/fuse"), .serialized)
struct ShrinkTests {
    /// Forty percent smaller, with at least thirty percent of the used blocks beyond the cut.
    @Test(arguments: ShrinkCase.all) func fortyPercentSmaller(_ sample: ShrinkCase) throws {
        let size = sample.size
        let cut = ByteCount.mebibytes((size.bytes >> 20) * 6 / 10)
        let image = try FilledImage(sample.kind, size: size, percent: sample.percent, make: sample.make)
        let before = try FilledImage.sha256(image.path)
        let beyond = try image.beyond(cut)
        let peak = peakMemory()
        let shrinker = try Shrinker(
            ContentKind(rawValue: sample.kind), room: ScratchRoom(memory: .mebibytes(64)), events: { _ in })
        let shrunk = try shrinker.shrink(image.source, to: cut)
        let figures = shrunk.figures
        print(
            """
            FIGURES \(sample.make): \(size) to \(cut), \(beyond) % of the used bytes beyond the cut; written \(figures.written), \
            moved \(figures.moved), zeros \(figures.zeros), kept \(figures.kept), memory \(figures.memory), file \
            \(figures.file); memory is \(figures.memory.bytes * 100 / max(1, figures.moved.bytes)) % of what was moved; the \
            process's peak rose by \((peakMemory() - peak) >> 20) MiB; used afterwards \(shrunk.used.byteCount)
            """)
        #expect(beyond >= 30)
        #expect(figures.memory.bytes + figures.file.bytes <= figures.moved.bytes / sample.part)
        #expect(shrunk.content.length == cut && shrunk.used.end <= cut)
        // Not everything: what is free is not written.
        #expect(shrunk.used.byteCount.bytes < cut.bytes * 95 / 100)
        let target = try image.write(shrunk.content, shrunk.used, to: "target.img")
        let judged = try shell.run(["-c", sample.judge, "sh", target], seconds: 300)
        #expect(judged.status == 0, "\(judged.lastWords)")
        #expect(try FilledImage.mounted(target, sample.kind, FilledImage.listing) == image.hashes)
        #expect(try FilledImage.sha256(image.path) == before, "the source was changed")
        #expect(shrunk.check.isClean)
    }

    /// What does not fit is refused by the resizer, in its own words, and nothing is left behind.
    @Test(arguments: ["ext4", "ntfs"]) func whatDoesNotFitIsRefused(_ kind: String) throws {
        let make = kind == "ext4" ? "mke2fs -q -F -t ext4" : "mkntfs -Q -F -q"
        let image = try FilledImage(kind, size: .mebibytes(96), percent: 80, make: make)
        let shrinker = try Shrinker(
            ContentKind(rawValue: kind), room: ScratchRoom(memory: .mebibytes(64)), events: { _ in })
        #expect {
            try shrinker.shrink(image.source, to: .mebibytes(40))
        } throws: { error in
            guard let fault = error as? Fault else { return false }
            return fault.code == .toolFailed && !fault.what.hasSuffix(": ") && fault.remedy.contains("room")
        }
    }

    /// Without room the fault names it; with a folder it goes there.
    @Test func whatHasNoRoomGoesToAFile() throws {
        let image = try FilledImage("ext4", size: .mebibytes(96), percent: 45, make: "mke2fs -q -F -t ext4")
        let tight = ScratchRoom(memory: .kibibytes(192))
        #expect {
            try Shrinker(.ext4, room: tight, events: { _ in }).shrink(image.source, to: .mebibytes(64))
        } throws: { error in
            (error as? Fault)?.code == .noScratchRoom
        }
        let spilling = ScratchRoom(memory: .kibibytes(192), folder: image.folder.path)
        let shrunk = try Shrinker(.ext4, room: spilling, events: { _ in }).shrink(image.source, to: .mebibytes(64))
        #expect(shrunk.figures.file > .zero)
        #expect(shrunk.figures.memory <= spilling.memory)
        let target = try image.write(shrunk.content, shrunk.used, to: "target.img")
        #expect(try shell.run(["-c", "e2fsck -fn \"$1\"", "sh", target]).status == 0)
        #expect(try FilledImage.mounted(target, "ext4", FilledImage.listing) == image.hashes)
    }

    @Test func whatCannotShrinkIsSaidSo() throws {
        for kind in ["xfs", "vfat", "f2fs", "zfs_member"] {
            #expect {
                try Shrinker(ContentKind(rawValue: kind), room: ScratchRoom(memory: .zero), events: { _ in })
            } throws: { error in
                (error as? Fault)?.code == .unsupported
            }
        }
    }

    /// The measured smallest size is below what resize2fs says, and the filesystem is sound at it.
    @Test func theSmallestSizeOfExtIsMeasured() throws {
        let image = try FilledImage("ext4", size: .mebibytes(200), percent: 46, make: "mke2fs -q -F -t ext4 -b 1024")
        let used = try image.used()
        let shrinker = try Shrinker(.ext4, room: ScratchRoom(memory: .mebibytes(64)), events: { _ in })
        let least = try shrinker.measureMinimum(image.source, used: used)
        let words = try shell.check([
            "-c", "e2fsck -fy \"$1\" >/dev/null; resize2fs -P \"$1\" 2>/dev/null", "sh", image.path,
        ])
        let blocks = words.standardOutput.split(whereSeparator: \.isWhitespace).last.flatMap { UInt64($0) }
        let estimate = ByteCount(try #require(blocks) * 1024)
        print(
            "FIGURES ext4 of 200 MiB, \(used) used: measured \(least.size) (\(least.how)); resize2fs -P says \(estimate)"
        )
        #expect(least.size >= used)
        #expect(least.size <= estimate)
        let wanted = try shrinker.measureMinimum(image.source, used: used, wanted: .mebibytes(190))
        #expect(wanted.size == .mebibytes(190) && wanted.how.contains("1 try"))
    }

    @Test func theSmallestSizeOfNTFSIsMeasured() throws {
        let image = try FilledImage("ntfs", size: .mebibytes(120), percent: 46, make: "mkntfs -Q -F -q")
        let used = try image.used()
        let shrinker = try Shrinker(.ntfs, room: ScratchRoom(memory: .mebibytes(64)), events: { _ in })
        let least = try shrinker.measureMinimum(image.source, used: used)
        print("FIGURES NTFS of 120 MiB, \(used) used: measured \(least.size) (\(least.how))")
        #expect(least.size >= used.roundedDown(to: .mebibytes(1)) && least.size < .mebibytes(100))
    }
}
