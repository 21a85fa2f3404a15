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

/// Btrfs made by mkfs.btrfs and filled by the kernel; `btrfs check` judges.
@Suite(.serialized, .enabled(if: canMountBtrfs, "btrfs-progs, loop devices, Btrfs in the kernel and root are needed"))
struct BtrfsTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var options: [String] = []
        var devices = 1
        var mebibytes: UInt64 = 384
        var mount = "noatime"
        var testDescription: String { "\(options.joined(separator: " ")) on \(devices), \(mount)" }
    }

    static let single = [
        Shape(),
        Shape(options: ["-m", "single", "-d", "single"], mount: "noatime,compress=zstd"),
        Shape(options: ["-M", "-n", "4096"], mebibytes: 128),
        Shape(options: ["-m", "dup", "-d", "dup"], mebibytes: 640),
        Shape(options: ["-n", "65536", "--csum", "xxhash"]),
        Shape(options: ["-n", "4096", "--csum", "sha256"], mount: "noatime,compress=lzo"),
        Shape(options: ["--csum", "blake2"]),
        Shape(options: ["-O", "^skinny-metadata,^no-holes,^extref", "-R", "^free-space-tree,quota"]),
    ]

    static let several = [
        Shape(options: ["-m", "raid1", "-d", "raid1"], devices: 2),
        Shape(options: ["-m", "raid0", "-d", "raid0"], devices: 3),
        Shape(options: ["-m", "raid10", "-d", "raid10"], devices: 4),
        Shape(options: ["-m", "raid1c3", "-d", "raid0"], devices: 3),
        Shape(options: ["-m", "raid1c4", "-d", "single"], devices: 4),
        Shape(options: ["-m", "dup", "-d", "raid10"], devices: 4),
    ]

    /// An empty filesystem: the images of its devices.
    static func empty(_ shape: Shape, in folder: ScratchFolder) throws -> [String] {
        let images = try (0..<shape.devices).map { try folder.file("source\($0).img", .mebibytes(shape.mebibytes)) }
        try mkbtrfs.check(["-q", "-f", "-L", "label"] + shape.options + images)
        return images
    }

    /// Runs a script with the filesystem on `images` mounted at `mnt` in the folder, and returns what it prints.
    @discardableResult
    static func mounted(
        _ images: [String], in folder: ScratchFolder, options: String = "noatime", _ script: String
    ) throws -> String {
        try shell.check(
            [
                "-c",
                """
                set -e; cd "$1"; options=$2; shift 2; mkdir -p mnt; loops=; trap 'for l in $loops; do losetup -d $l; done' EXIT
                for i in "$@"; do l=$(losetup --find --show "$i"); loops="$loops $l"; done
                first=${loops# }; first=${first%% *}
                btrfs device scan $loops >/dev/null
                mount -t btrfs -o "$options" $first mnt
                ( \(script) ) || { umount mnt; exit 1; }
                umount mnt; \(BtrfsTests.forget)
                """, "mounted", folder.path, options,
            ] + images
        ).standardOutput
    }

    /// A filesystem with content, holes in its free space, snapshots, shared and reserved extents.
    static func made(_ shape: Shape, in folder: ScratchFolder, files: Int = 1500) throws -> [String] {
        _ = try folder.tree(symbolicLinks: true)
        let images = try empty(shape, in: folder)
        try mounted(
            images, in: folder, options: shape.mount,
            """
            set -e; cp -a tree/. mnt/; btrfs subvolume create mnt/volume >/dev/null; cp -a tree/sub mnt/volume/
            mkdir mnt/many; sync; seq 1 \(files) | (cd mnt/many; split -l 1 -a 4 - f)
            for n in 1 2 3 4 5 6 7 8; do cat tree/file700001; done > mnt/large; sync
            btrfs subvolume snapshot mnt/volume mnt/snapshot >/dev/null; rm mnt/many/*[acegikmoqsuwy] mnt/file131073
            cp --reflink=auto mnt/file700001 mnt/volume/shared; rm mnt/volume/sub/copy700001; ln mnt/file4096 mnt/hard2
            fallocate -l 1M mnt/reserved; dd if=tree/file65536 of=mnt/large bs=4096 seek=40 conv=notrunc status=none
            setfattr -n user.name -v value mnt/file4096 2>/dev/null || true; sync; rm mnt/many/*[bdf]
            """)
        return images
    }

    /// What `btrfs filesystem df` says is in use, all copies counted.
    static func figure(_ images: [String], in folder: ScratchFolder) throws -> UInt64 {
        let report = try mounted(images, in: folder, options: "ro", "btrfs filesystem df -b mnt")
        var sum: UInt64 = 0
        for line in report.split(separator: "\n") where !line.hasPrefix("GlobalReserve") {
            guard let used = line.split(separator: "used=").last.flatMap({ UInt64($0) }) else { continue }
            let copies = [("RAID1C3", 3), ("RAID1C4", 4), ("DUP", 2), ("RAID10", 2), ("RAID1:", 2), ("RAID1,", 2)]
            sum += used * UInt64(copies.first { line.contains($0.0) }?.1 ?? 1)
        }
        return sum
    }

    /// Whether both filesystems hold the same files.
    static func same(
        _ one: [String], _ other: [String], in folder: ScratchFolder, options: String = "ro"
    ) throws -> Bool {
        try shell.check(["-c", "rm -rf \"$1/theirs\" \"$1/ours\"", "remove", folder.path])
        try mounted(one, in: folder, options: options, "mkdir theirs; cp -a mnt/. theirs/")
        try mounted(other, in: folder, options: options, "mkdir ours; cp -a mnt/. ours/")
        return try Tool("diff", package: "diffutils").run(
            ["-r", "--no-dereference", "\(folder.path)/theirs", "\(folder.path)/ours"]
        ).status == 0
    }

    /// Has the kernel forget the devices; a process that looks at mounts of its own may hold them for a while.
    static let forget =
        "n=0; until btrfs device scan -u $loops >/dev/null 2>&1; do n=$((n+1)); test $n -lt 300 || break; sleep 0.2; done"

    /// What `btrfs check` says of the filesystem on `images`; empty where it finds nothing.
    static func check(_ images: [String], in folder: ScratchFolder) throws -> String {
        let run = try shell.run(
            [
                "-c",
                """
                loops=; trap 'for l in $loops; do losetup -d $l; done' EXIT
                for i in "$@"; do l=$(losetup --find --show "$i"); loops="$loops $l"; done
                first=${loops# }; first=${first%% *}; btrfs device scan $loops >/dev/null
                btrfs check --readonly --check-data-csum $first 2>&1; status=$?
                \(BtrfsTests.forget)
                exit $status
                """, "check",
            ] + images)
        return run.status == 0 && !run.standardOutput.contains("ERROR") ? "" : run.standardOutput
    }

    /// Files of the same size as `images` with 0xFF where nothing is used.
    static func copies(_ images: [String], _ maps: [VolumeMap], in folder: ScratchFolder) throws -> [String] {
        try zip(images, maps).enumerated().map { index, pair in
            let source = try FileSource(path: pair.0)
            let copy = try folder.file("copy\(index).img", source.length)
            try restored(source, pair.1.used, to: copy, garbage: 0xFF)
            return copy
        }
    }

    @Test(arguments: sampled(single))
    func onlyUsedBlocksMakeTheSameFilesystem(shape: Shape) throws {
        let folder = try ScratchFolder()
        let images = try Self.made(shape, in: folder)
        let source = try FileSource(path: images[0])
        let map = try FilesystemMaps.map(source)
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.states == [.clean])
        #expect(map.identity.kind == .btrfs)
        #expect(map.identity.label == "label")
        #expect(map.filesystemSize == .mebibytes(shape.mebibytes))
        let figure = try Self.figure(images, in: folder)
        #expect(map.used.byteCount.bytes >= figure)
        #expect(map.used.byteCount.bytes <= figure + (1 << 20) + 8192, "\(map.used.byteCount) of \(figure)")
        #expect(try map == FilesystemMaps.map(withoutFile(source)))

        let copies = try Self.copies(images, [map], in: folder)
        let verdict = try Self.check(copies, in: folder)
        #expect(verdict == "", "\(verdict)")
        #expect(try Self.same(images, copies, in: folder))
    }

    @Test(arguments: sampled(several))
    func allDevicesTogetherAreMapped(shape: Shape) throws {
        let folder = try ScratchFolder()
        let images = try Self.made(shape, in: folder)
        let volumes = try images.map { path in
            let source = try FileSource(path: path)
            return (source: source as any BlockSource, identity: try Identification.identify(source))
        }
        // Alone each is whole.
        for (index, volume) in volumes.enumerated() {
            let map = try FilesystemMaps.map(volume.source)
            #expect(
                map.wholeBecause?.contains("device \(index + 1) of a Btrfs on \(shape.devices) devices") == true,
                "\(map.wholeBecause ?? "")")
            #expect(map.used.byteCount == volume.source.length)
            let device = try #require(try FilesystemMaps.btrfsDevice(volume.source))
            #expect(device.number == UInt64(index + 1) && device.devices == UInt64(shape.devices))
            #expect(device.filesystem == volume.identity.uuid)
        }
        let few = try FilesystemMaps.map(btrfs: Array(volumes.dropLast()))
        #expect(few.allSatisfy { $0.wholeBecause?.contains("of a Btrfs on") == true })
        let maps = try FilesystemMaps.map(btrfs: volumes)
        for map in maps {
            #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
            #expect(map.states == [.clean])
        }
        let sum = maps.reduce(UInt64(0)) { $0 + $1.used.byteCount.bytes }
        let figure = try Self.figure(images, in: folder)
        #expect(sum >= figure)
        #expect(sum <= figure + UInt64(shape.devices) * ((1 << 20) + 8192), "\(sum) of \(figure)")
        let copies = try Self.copies(images, maps, in: folder)
        let verdict = try Self.check(copies, in: folder)
        #expect(verdict == "", "\(verdict)")
        #expect(try Self.same(images, copies, in: folder))
    }

    @Test(arguments: ["raid5", "raid6"])
    func parityIsNotLookedInto(profile: String) throws {
        let folder = try ScratchFolder()
        let shape = Shape(options: ["-m", "raid1", "-d", profile], devices: 3)
        let images = try Self.empty(shape, in: folder)
        let volumes = try images.map { path in
            (source: try FileSource(path: path) as any BlockSource, identity: Identity(kind: .btrfs))
        }
        for map in try FilesystemMaps.map(btrfs: volumes) {
            #expect(map.wholeBecause?.contains("RAID5 or RAID6") == true, "\(map.wholeBecause ?? "")")
            #expect(map.used.byteCount == .mebibytes(384))
        }
    }

    /// A copy taken while it is mounted, after fsync and before the transaction's end: what a power cut leaves.
    @Test func whatFsyncWroteIsInUse() throws {
        let folder = try ScratchFolder()
        let images = try Self.made(Shape(), in: folder)
        try Self.mounted(
            images, in: folder, options: "noatime,commit=300",
            """
            set -e; sync; for n in 1 2 3 4 5 6 7 8 9; do
              mkdir -p mnt/new$n
              dd if=tree/file700001 of=mnt/new$n/file bs=64k conv=fsync status=none
              dd if=tree/file5000 of=mnt/volume/late$n conv=fsync status=none; echo $n > mnt/small$n; sync mnt/small$n
              dd if=tree/file65536 of=mnt/large bs=4096 seek=$n conv=fsync,notrunc status=none
            done
            cp --sparse=always source0.img cut.img
            """)
        let cut = "\(folder.path)/cut.img"
        let report = try btrfsTool.check(["inspect-internal", "dump-super", cut]).standardOutput
        let line = try #require(report.split(separator: "\n").first { $0.hasPrefix("log_root\t") })
        try #require(line.split(separator: "\t").last != "0", "the transaction ended too early")
        let map = try FilesystemMaps.map(try FileSource(path: cut))
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.states == [.journalToReplay])
        // The extent tree alone would miss some of it.
        let member = try BtrfsMember(try FileSource(path: cut))
        let extents = try BtrfsExtents(try BtrfsVolume([member]))
        #expect(extents.used.byteCount.bytes > member.superblock.bytesUsed + (6 << 20))
        let copies = try Self.copies([cut], [map], in: folder)
        // Mounting replays the log in each.
        let same = try Self.same([cut], copies, in: folder, options: "noatime")
        #expect(same)
        #expect(try Self.mounted(copies, in: folder, "cmp mnt/new9/file tree/file700001 && cat mnt/small9") == "9\n")
        let verdict = try Self.check(copies, in: folder)
        #expect(verdict == "", "\(verdict)")
    }

    @Test func aFilesystemThatWasShrunkOrBalancedIsMapped() throws {
        let folder = try ScratchFolder()
        let images = try Self.made(Shape(mebibytes: 1024), in: folder)
        try Self.mounted(
            images, in: folder,
            "btrfs balance start --full-balance mnt >/dev/null; btrfs filesystem resize 600M mnt >/dev/null")
        let map = try FilesystemMaps.map(try FileSource(path: images[0]))
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.filesystemSize == .mebibytes(600))
        let copies = try Self.copies(images, [map], in: folder)
        #expect(try Self.check(copies, in: folder) == "")
        #expect(try Self.same(images, copies, in: folder))
    }

    /// One made of an ext4, whose image it keeps.
    @Test func aConvertedFilesystemIsMapped() throws {
        let convert = Tool("btrfs-convert", package: "btrfs-progs")
        guard convert.path != nil, mke2fs.path != nil else { return }
        let folder = try ScratchFolder()
        let tree = try folder.tree(symbolicLinks: true)
        let image = try folder.file("source0.img", .mebibytes(512))
        try mke2fs.check(["-q", "-F", "-t", "ext4", "-b", "4096", "-d", tree, image])
        try convert.check(["--no-progress", image])
        let map = try FilesystemMaps.map(try FileSource(path: image))
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        let copies = try Self.copies([image], [map], in: folder)
        let verdict = try Self.check(copies, in: folder)
        #expect(verdict == "", "\(verdict)")
        #expect(try Self.same([image], copies, in: folder))
        try convert.check(["-r", copies[0]])
        #expect(try e2fsck.run(["-f", "-n", copies[0]]).status == 0)
    }

    /// The smallest size is an estimate: shrinking to it must work.
    @Test(arguments: [
        Shape(mebibytes: 3072), Shape(options: ["-m", "single"], mebibytes: 1024),
        Shape(options: ["-m", "dup", "-d", "dup"], mebibytes: 2048), Shape(mebibytes: 20480),
    ])
    func itShrinksToTheSmallestSize(shape: Shape) throws {
        let folder = try ScratchFolder()
        let images = try Self.made(shape, in: folder)
        try Self.mounted(
            images, in: folder,
            """
            for n in 1 2 3 4; do mkdir mnt/copy$n; cp -a tree/. mnt/copy$n/; truncate -s 40M mnt/large$n; done
            for n in 1 2 3 4; do fallocate -l 60M mnt/large$n; done; sync; rm mnt/large2
            """)
        let map = try FilesystemMaps.map(try FileSource(path: images[0]))
        #expect(map.minimumIs == "estimated")
        let minimum = try #require(map.minimum)
        #expect(minimum >= map.used.byteCount && minimum <= .mebibytes(shape.mebibytes))
        try Self.mounted(images, in: folder, "btrfs filesystem resize \(minimum.bytes) mnt >/dev/null")
        let small = try FilesystemMaps.map(try FileSource(path: images[0]))
        #expect(small.filesystemSize == minimum, "\(minimum)")
    }

    @Test(.enabled(if: Tool("partclone.btrfs", package: "partclone").path != nil, "partclone is needed"))
    func partcloneSavesNoLess() throws {
        let folder = try ScratchFolder()
        let images = try Self.made(Shape(), in: folder)
        let map = try FilesystemMaps.map(try FileSource(path: images[0]))
        let run = try Tool("partclone.btrfs", package: "partclone").run(
            ["-c", "-q", "-L", "\(folder.path)/log", "-s", images[0], "-O", "\(folder.path)/saved"])
        let report = run.standardOutput + run.standardError
        let line = try #require(report.split(whereSeparator: \.isNewline).last { $0.contains("Space in use:") })
        let blocks = try #require(
            line.split(separator: "=").last?.split(separator: " ").first.flatMap { UInt64($0) })
        let block = try #require(report.split(whereSeparator: \.isNewline).last { $0.contains("Block size:") })
        let size = try #require(block.split(separator: ":").last?.split(separator: " ").first.flatMap { UInt64($0) })
        let theirs = blocks * size
        // The first MiB is more than it saves.
        #expect(map.used.byteCount.bytes <= theirs + theirs / 100 + (4 << 20), "\(map.used.byteCount) of \(theirs)")
    }

    // MARK: - States and damage

    /// Changes fields of a superblock and mends its checksum.
    static func change(_ image: String, at place: ByteCount = .kibibytes(64), _ changes: [(Int, [UInt8])]) throws {
        var bytes = try FileSource(path: image).bytes(at: place, count: 4096)
        for (offset, new) in changes { bytes.replaceSubrange(offset..<offset + new.count, with: new) }
        let check = try #require(BtrfsChecksum.crc32c.value(bytes))
        bytes.replaceSubrange(0..<check.count, with: check)
        try poke(image, place.bytes, bytes)
    }

    static func spoiled(_ shape: Shape = Shape(), _ body: (String) throws -> Void) throws -> VolumeMap {
        let folder = try ScratchFolder()
        let images = try empty(shape, in: folder)
        try body(images[0])
        return try FilesystemMaps.map(try FileSource(path: images[0]))
    }

    static func expectWhole(_ map: VolumeMap, _ states: [VolumeState], _ reason: String) {
        #expect(map.states == states, "\(map.wholeBecause ?? "mapped")")
        #expect(map.used == ExtentList(Extent(from: .zero, to: .mebibytes(384))))
        #expect(map.wholeBecause?.contains(reason) == true, "\(map.wholeBecause ?? "mapped")")
    }

    @Test func unknownFeaturesMakeItWhole() throws {
        for (offset, bit) in [(188, 13), (188, 14), (188, 20), (180, 5)] {
            let map = try Self.spoiled { image in
                var flags = [UInt8](try FileSource(path: image).bytes(at: ByteCount(65536 + UInt64(offset)), count: 8))
                flags[bit / 8] |= 1 << UInt8(bit % 8)
                try Self.change(image, [(offset, flags)])
            }
            Self.expectWhole(map, [.unknownFeatures], "features unknown")
        }
        let zoned = try Self.spoiled { try Self.change($0, [(189, [0x13])]) }
        Self.expectWhole(zoned, [.unknownFeatures], "zoned")
        let converted = try Self.spoiled { try Self.change($0, [(56 + 4, [8])]) }
        Self.expectWhole(converted, [.dirty], "conversion")
        let target = try Self.spoiled { try Self.change($0, [(201, [0])]) }
        Self.expectWhole(target, [.dirty], "replacement")
    }

    @Test func aBrokenFirstSuperblockIsReplacedByTheCopy() throws {
        let sound = try Self.spoiled { _ in }
        for (place, bytes) in [(UInt64(65536 + 72), [UInt8(99)]), (65536, [1, 2, 3, 4]), (65536 + 144, [1])] {
            let map = try Self.spoiled { try poke($0, place, bytes) }
            #expect(map.wholeBecause == nil, "byte \(place): \(map.wholeBecause ?? "")")
            #expect(map.states == [.damaged])
            #expect(map.damage?.contains("superblock") == true)
            #expect(map.used == sound.used)
            #expect(map.identity.kind == .btrfs)
            #expect(map.identity.label == "label")
        }
        // The kernel does not look at the copies either.
        let copy = try Self.spoiled { try poke($0, (64 << 20) + 72, [99]) }
        #expect(copy.wholeBecause == nil && copy.states == [.clean] && copy.used == sound.used)
        // The copy alone says nothing: something else may have been laid over the filesystem.
        let gone = try Self.spoiled { try poke($0, 65536 + 64, [UInt8](repeating: 0, count: 8)) }
        #expect(gone.identity.kind != .btrfs && gone.wholeBecause != nil)
        let both = try Self.spoiled {
            try poke($0, 65536 + 72, [99])
            try poke($0, (64 << 20) + 72, [99])
        }
        #expect(both.wholeBecause != nil && both.used.byteCount == .mebibytes(384))
    }

    @Test func superblocksOfTwoTransactionsMakeItWhole() throws {
        let map = try Self.spoiled { try Self.change($0, at: .mebibytes(64), [(72 + 1, [9])]) }
        Self.expectWhole(map, [.dirty], "two transactions")
    }

    /// Where the copies of the extent tree's root lie.
    static func extentRoot(_ image: String) throws -> [UInt64] {
        let volume = try BtrfsVolume([BtrfsMember(try FileSource(path: image))])
        let address = try volume.trees().extents.root
        let chunk = try #require(volume.chunk(of: address, count: volume.superblock.nodeSize))
        return volume.chunks[chunk].places(of: address, count: volume.superblock.nodeSize).map(\.offset)
    }

    @Test func aBrokenTreeBlockIsReadFromItsCopy() throws {
        let sound = try Self.spoiled { _ in }
        let map = try Self.spoiled { image in
            let places = try Self.extentRoot(image)
            #expect(places.count == 2)
            try poke(image, places[0] + 300, [1, 2, 3])
        }
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.states == [.damaged])
        #expect(map.used == sound.used)
        let both = try Self.spoiled { image in
            for place in try Self.extentRoot(image) { try poke(image, place + 300, [1, 2, 3]) }
        }
        Self.expectWhole(both, [.damaged], "checksum")
    }

    @Test func countsThatDifferMakeItWhole() throws {
        let map = try Self.spoiled { try Self.change($0, [(121, [0x77])]) }
        Self.expectWhole(map, [.damaged], "superblock")
        // An extent less, in both copies.
        let extent = try Self.spoiled { image in
            for place in try Self.extentRoot(image) {
                var node = try FileSource(path: image).bytes(at: ByteCount(place), count: 16384)
                // The first item becomes one of a type that is none of its business.
                node[101 + 8] = 1
                let check = try #require(BtrfsChecksum.crc32c.value(node))
                node.replaceSubrange(0..<check.count, with: check)
                try poke(image, place, node)
            }
        }
        #expect(extent.wholeBecause != nil)
        #expect(extent.used.byteCount == .mebibytes(384))
    }

    @Test func aFilesystemLargerThanItsVolumeIsDamaged() throws {
        let folder = try ScratchFolder()
        let images = try Self.empty(Shape(), in: folder)
        let window = try Window(try FileSource(path: images[0]), Extent(from: .zero, to: .mebibytes(200)), name: "cut")
        let map = try FilesystemMaps.map(window)
        #expect(map.states == [.damaged])
        #expect(map.used.byteCount == .mebibytes(200))
        #expect(map.wholeBecause?.contains("larger than the volume") == true)
    }

    @Test func anotherMetadataUUIDIsFollowed() throws {
        let tune = Tool("btrfstune", package: "btrfs-progs")
        guard tune.path != nil else { return }
        let sound = try Self.spoiled { _ in }
        let map = try Self.spoiled { image in
            try tune.check(["-f", "-M", "11111111-2222-3333-4444-555555555555", image])
        }
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.identity.uuid == "11111111-2222-3333-4444-555555555555")
        #expect(map.used.byteCount == sound.used.byteCount)
    }
}

/// The checksums, by the values that their authors publish.
struct BtrfsChecksumTests {
    static func hex(_ bytes: [UInt8]) -> String { Hex.text(bytes) }

    @Test func xxhash() {
        func hash(_ text: String) -> String {
            let bytes = Array(text.utf8)
            return Hex.number(unsafe XXHash64.hash(bytes.span.bytes))
        }
        #expect(hash("") == "EF46DB3751D8E999")
        #expect(hash("a") == "D24EC4F1A98C6E5B")
        #expect(hash("as") == "1C330FB2D66BE179")
        #expect(hash("asdf") == "415872F599CEA71E")
        #expect(hash("Call me Ishmael. Some years ago--never mind how long precisely-") == "2A2E85470D6FD96")
    }

    @Test func blake2b() throws {
        let tool = Tool("b2sum", package: "coreutils")
        guard tool.path != nil else { return }
        for count in [0, 1, 63, 127, 128, 129, 255, 256, 257, 4064] {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            let theirs = try tool.check(["-l", "256", "-"], input: bytes).standardOutput.prefix(64)
            #expect(Hex.text(unsafe BLAKE2b.hash(bytes.span.bytes)) == theirs, "\(count) bytes")
        }
    }
}
