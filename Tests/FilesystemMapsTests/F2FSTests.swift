// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import Testing
import Tools

@testable import FilesystemMaps

/// F2FS made by mkfs.f2fs and filled by sload.f2fs; fsck.f2fs judges, dump.f2fs takes files out.
@Suite(
    .enabled(
        if: [mkf2fs, fsckf2fs, sloadf2fs].allSatisfy { $0.path != nil }, "f2fs-tools are needed"))
struct F2FSTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var options: [String] = []
        var mebibytes: UInt64 = 200
        var testDescription: String { "\(options.joined(separator: " ")), \(mebibytes) MiB" }
    }

    static let shapes = [
        Shape(), Shape(options: ["-s", "2", "-z", "2"], mebibytes: 400),
        Shape(options: ["-O", "extra_attr,inode_checksum,sb_checksum,inode_crtime"]),
        Shape(options: ["-O", "encrypt,lost_found,quota,extra_attr,project_quota"], mebibytes: 300),
        Shape(options: ["-i"], mebibytes: 6000), Shape(options: ["-w", "4096"]),
        Shape(options: ["-C", "utf8"], mebibytes: 160),
    ]

    static func empty(_ shape: Shape, in folder: ScratchFolder) throws -> String {
        let image = try folder.file("source.img", .mebibytes(shape.mebibytes))
        try mkf2fs.check(["-q", "-f", "-l", "some label"] + shape.options + [image])
        return image
    }

    static func made(_ shape: Shape, in folder: ScratchFolder) throws -> String {
        let tree = try folder.tree(symbolicLinks: true)
        let image = try empty(shape, in: folder)
        // A second time, so that it is written into a filesystem that holds something.
        for mount in ["/", "/again"] {
            let run = try sloadf2fs.run(["-f", tree, "-t", mount, image])
            // 1: it mended what it had left open itself.
            try #require(run.status <= 1, "\(run.standardOutput.suffix(400)) \(run.standardError)")
        }
        return image
    }

    /// The names in a filesystem with their inodes, and the files taken out of it.
    static func content(_ image: String, _ name: String, in folder: ScratchFolder) throws -> String {
        let list = try fsckf2fs.run(["--dry-run", "-t", image]).standardOutput
            .split(separator: "\n").filter { $0.contains("<ino = ") }
        try #require(list.count > 100)
        let inodes = list.filter { line in
            ["file1 ", "file700001", "file131073", "copy65536", "s77 "].contains { line.contains("-- \($0)") }
        }.compactMap { $0.split(separator: "<ino = 0x").last?.split(separator: ">").first.map(String.init) }
        try #require(inodes.count >= 5)
        try shell.check(
            [
                "-c",
                """
                set -e; mkdir -p "$1/$3"; cd "$1/$3"; i=$2; shift 3
                for n in "$@"; do mkdir $n; (cd $n; echo y | dump.f2fs -i $n "$i" >/dev/null); done
                """, "dump", folder.path, image, name,
            ] + inodes)
        return list.joined(separator: "\n")
    }

    @Test(arguments: sampled(shapes))
    func onlyValidBlocksMakeTheSameFilesystem(shape: Shape) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(shape, in: folder)
        let source = try FileSource(path: image)
        let map = try FilesystemMaps.map(source)
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.states == [.clean])
        #expect(map.identity.kind == .f2fs)
        #expect(map.identity.label == "some label")
        let superblock = try F2FSSuperblock(parsing: try source.bytes(at: ByteCount(1024), count: 3072))
        let (checkpoint, _) = try F2FSCheckpoint.newest(source, superblock)
        #expect(map.used.byteCount.bytes == 4096 * (superblock.main + checkpoint.validBlocks))
        #expect(try map == FilesystemMaps.map(withoutFile(source)))

        let copy = try folder.file("copy.img", source.length)
        try restored(source, map.used, to: copy, garbage: 0xFF)
        let verdict = try fsckf2fs.run(["--dry-run", copy])
        #expect(verdict.status == 0 && !verdict.standardOutput.contains("[Fail]"), "\(verdict.standardOutput)")
        #expect(try Self.content(image, "theirs", in: folder) == Self.content(copy, "ours", in: folder))
        #expect(
            try Tool("diff", package: "diffutils").run(["-r", "\(folder.path)/theirs", "\(folder.path)/ours"]).status
                == 0)
    }

    /// Four TiB: the bitmap of the table lies behind the checkpoint, in blocks of its own.
    @Test(.enabled(if: isFull, "RELIGHT_TESTS=full is needed")) func bitmapsInBlocksOfTheirOwnAreRead() throws {
        let folder = try ScratchFolder()
        let source = try FileSource(path: try Self.empty(Shape(mebibytes: 4 << 20), in: folder))
        let superblock = try F2FSSuperblock(parsing: try source.bytes(at: ByteCount(1024), count: 3072))
        #expect(superblock.payload > 0)
        let (checkpoint, _) = try F2FSCheckpoint.newest(source, superblock)
        let map = try FilesystemMaps.map(source)
        #expect(map.states == [.clean], "\(map.wholeBecause ?? "")")
        #expect(map.used.byteCount.bytes == 4096 * (superblock.main + checkpoint.validBlocks))
    }

    @Test(.enabled(if: Tool("partclone.f2fs", package: "partclone").path != nil, "partclone is needed"))
    func partcloneCountsTheSame() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Shape(), in: folder)
        let map = try FilesystemMaps.map(try FileSource(path: image))
        let run = try Tool("partclone.f2fs", package: "partclone").run(
            ["-c", "-q", "-L", "\(folder.path)/log", "-s", image, "-O", "\(folder.path)/saved"])
        let report = run.standardOutput + run.standardError
        let line = try #require(report.split(whereSeparator: \.isNewline).last { $0.contains("Space in use:") })
        let blocks = try #require(
            line.split(separator: "=").last?.split(separator: " ").first.flatMap { UInt64($0) })
        #expect(
            map.used.byteCount.bytes / 4096 <= blocks + blocks / 100, "\(map.used.byteCount.bytes / 4096), \(blocks)")
    }

    // MARK: - States and damage

    static func spoiled(_ shape: Shape = Shape(), _ body: (String, F2FSSuperblock) throws -> Void) throws -> VolumeMap {
        let folder = try ScratchFolder()
        let image = try empty(shape, in: folder)
        try body(
            image, try F2FSSuperblock(parsing: try FileSource(path: image).bytes(at: ByteCount(1024), count: 3072)))
        return try FilesystemMaps.map(try FileSource(path: image))
    }

    static func expectWhole(_ map: VolumeMap, _ states: [VolumeState], _ reason: String) {
        #expect(map.states == states, "\(map.wholeBecause ?? "mapped")")
        #expect(map.used == ExtentList(Extent(from: .zero, to: .mebibytes(200))))
        #expect(map.wholeBecause?.contains(reason) == true, "\(map.wholeBecause ?? "mapped")")
    }

    /// Changes fields of the newer checkpoint, in both its blocks, and mends the checksums.
    static func change(_ image: String, _ superblock: F2FSSuperblock, _ changes: [(Int, [UInt8])]) throws {
        let source = try FileSource(path: image)
        let (checkpoint, _) = try F2FSCheckpoint.newest(source, superblock)
        for block in [checkpoint.start, checkpoint.start + checkpoint.packBlocks - 1] {
            var bytes = try source.bytes(at: ByteCount(block * 4096), count: 4096)
            for (offset, new) in changes { bytes.replaceSubrange(offset..<offset + new.count, with: new) }
            let body = Array(bytes.prefix(4092))
            let check = F2FSSuperblock.checksum(unsafe body.span.bytes)
            bytes.replaceSubrange(4092..<4096, with: (0..<4).map { UInt8(truncatingIfNeeded: check >> (8 * $0)) })
            try poke(image, block * 4096, bytes)
        }
    }

    @Test func withoutAnUnmountItIsWhole() throws {
        let crashed = try Self.spoiled { try Self.change($0, $1, [(132, [0x84, 1])]) }
        Self.expectWhole(crashed, [.journalToReplay], "not unmounted")
        let broken = try Self.spoiled { try Self.change($0, $1, [(132, [0x95, 1])]) }
        Self.expectWhole(broken, [.dirty], "fsck.f2fs")
        let unknown = try Self.spoiled { try Self.change($0, $1, [(132, [0x85, 0x81])]) }
        Self.expectWhole(unknown, [.unknownFeatures], "flags unknown")
    }

    /// What fsync writes after a mount: a node with the checkpoint's version where warm nodes go on.
    @Test func aFileSyncedSinceTheCheckpointMakesItWhole() throws {
        let map = try Self.spoiled { image, superblock in
            let (checkpoint, _) = try F2FSCheckpoint.newest(try FileSource(path: image), superblock)
            let next = superblock.main + checkpoint.warmNode.segment * 512 + checkpoint.warmNode.offset
            try poke(
                image, next * 4096 + 4084,
                (0..<4).map { UInt8(truncatingIfNeeded: checkpoint.version >> (8 * $0)) } + [1, 2, 3, 4])
        }
        Self.expectWhole(map, [.journalToReplay], "synced since")
    }

    @Test func countsThatDifferMakeItWhole() throws {
        let map = try Self.spoiled { try Self.change($0, $1, [(16, [77])]) }
        Self.expectWhole(map, [.damaged], "valid blocks")
        // A bit of a segment's map without its count.
        let bit = try Self.spoiled { image, superblock in
            try poke(image, superblock.table * 4096 + 74 * 20 + 2, [0x80])
        }
        Self.expectWhole(bit, [.damaged], "contradicts itself")
    }

    @Test func aBrokenSuperblockIsReadFromItsCopy() throws {
        let sound = try Self.spoiled { _, _ in }
        for (place, bytes) in [(UInt64(1024 + 16), [UInt8(13)]), (1024 + 92, [9, 9, 9, 9]), (1024 + 56, [1])] {
            let map = try Self.spoiled { image, _ in try poke(image, place, bytes) }
            #expect(map.wholeBecause == nil, "byte \(place): \(map.wholeBecause ?? "")")
            #expect(map.states == [.damaged])
            #expect(map.used == sound.used)
        }
        let both = try Self.spoiled { image, _ in
            for place in [1024, 4096 + 1024] as [UInt64] { try poke(image, place + 92, [9, 9, 9, 9]) }
        }
        Self.expectWhole(both, [.damaged], "superblock is damaged")
    }

    @Test func aBrokenCheckpointMakesItWhole() throws {
        let map = try Self.spoiled { image, superblock in
            let (checkpoint, _) = try F2FSCheckpoint.newest(try FileSource(path: image), superblock)
            try poke(image, checkpoint.start * 4096 + 500, [1, 2, 3])
        }
        Self.expectWhole(map, [.damaged], "checkpoint")
    }

    @Test func unknownFeaturesAreWhole() throws {
        for (feature, reason) in [([UInt8](arrayLiteral: 0, 0, 2, 0), "features unknown"), ([2, 0, 0, 0], "zoned")] {
            let map = try Self.spoiled { image, _ in
                for place in [1024, 4096 + 1024] as [UInt64] { try poke(image, place + 2180, feature) }
            }
            Self.expectWhole(map, [.unknownFeatures], reason)
        }
        let several = try Self.spoiled { image, _ in
            for place in [1024, 4096 + 1024] as [UInt64] { try poke(image, place + 2201, Array("/dev/x".utf8)) }
        }
        Self.expectWhole(several, [], "several devices")
        let readOnly = try Self.spoiled(Shape(options: ["-O", "ro"])) { _, _ in }
        Self.expectWhole(readOnly, [.unknownFeatures], "read-only")
    }

    @Test func aFilesystemLargerThanItsVolumeIsDamaged() throws {
        let folder = try ScratchFolder()
        let image = try Self.empty(Shape(), in: folder)
        let window = try Window(try FileSource(path: image), Extent(from: .zero, to: .mebibytes(100)), name: "cut")
        let map = try FilesystemMaps.map(window)
        #expect(map.states == [.damaged])
        #expect(map.wholeBecause?.contains("larger than the volume") == true)
    }
}
