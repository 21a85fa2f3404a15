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

/// XFS made by mkfs.xfs and filled by the kernel; xfs_db and xfs_repair judge.
@Suite(.enabled(if: canMountXFS, "xfsprogs, loop devices, XFS in the kernel and root are needed"))
struct XFSTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var options: [String]
        var mebibytes: UInt64 = 320
        var isVersion4: Bool { options.contains("crc=0") }
        var testDescription: String { options.joined(separator: " ") }
    }

    static let shapes = [
        Shape(options: []),
        Shape(options: ["-b", "size=1024"]),
        Shape(options: ["-b", "size=2048", "-n", "size=8192"]),
        Shape(options: ["-s", "size=4096"]),
        Shape(options: ["-m", "rmapbt=1,reflink=1", "-i", "nrext64=1"]),
        Shape(options: ["-m", "reflink=0,finobt=0,bigtime=0,inobtcount=0", "-i", "sparse=0"]),
        Shape(options: ["-m", "crc=0"]),
        Shape(options: ["-m", "crc=0", "-b", "size=512"]),
        Shape(options: ["-m", "crc=0", "-l", "version=1"]),
        Shape(options: ["-m", "crc=0", "-l", "lazy-count=0"]),
        Shape(options: ["--unsupported", "-d", "agcount=9", "-l", "size=10m"]),
        Shape(options: ["-d", "su=64k,sw=4,agcount=4", "-l", "su=256k"]),
        Shape(options: ["-m", "uuid=11111111-2222-3333-4444-555555555555", "-l", "size=64m"]),
    ]

    /// A filesystem without content.
    static func empty(_ shape: Shape, in folder: ScratchFolder) throws -> String {
        let image = try folder.file("source.img", .mebibytes(shape.mebibytes))
        try mkxfs.check(["-q", "-L", "label"] + shape.options + [image])
        return image
    }

    /// Runs a script with `image` mounted at `mnt` in the folder.
    static func mounted(_ image: String, in folder: ScratchFolder, _ script: String, options: String = "") throws {
        try shell.check(
            [
                "-c",
                """
                set -e; cd "$1"; mkdir -p mnt
                mount -t xfs -o "loop,nouuid$3" "$2" mnt
                ( \(script) ) || { umount mnt; exit 1; }
                umount mnt
                """, "mounted", folder.path, image, options,
            ])
    }

    /// A filesystem with content, its free space in many pieces. New kernels do not mount version 4: mkfs.xfs fills it.
    static func made(_ shape: Shape, in folder: ScratchFolder, holes: Int = 3000) throws -> String {
        let tree = try folder.tree(symbolicLinks: true)
        if shape.isVersion4 {
            var list = "/dev/null\n0 0\nd--755 0 0\n"
            for file in ["file0", "file1", "file4096", "file5000", "file131073", "file700001"] {
                list += "\(file) ---644 0 0 \(tree)/\(file)\nd\(file) d--755 0 0\ncopy ---644 0 0 \(tree)/\(file)\n$\n"
            }
            try shell.check(["-c", "cat > \"$1/proto\"", "write", folder.path], input: Array((list + "$\n").utf8))
            return try empty(Shape(options: shape.options + ["-p", "\(folder.path)/proto"]), in: folder)
        }
        let image = try empty(shape, in: folder)
        try mounted(
            image, in: folder,
            """
            set -e; cp -a tree/. mnt/; mkdir mnt/many; sync mnt
            seq 1 \(holes) | (cd mnt/many; split -l 1 -a 4 - f)
            sync mnt; rm mnt/many/*[acegikmoqsuwy]; rm mnt/sub/copy700001 mnt/file131073
            cp --reflink=auto mnt/file700001 mnt/sub/shared; ln mnt/file4096 mnt/sub/hard2
            """)
        return image
    }

    /// Whether both filesystems hold the same files.
    static func same(_ one: String, _ other: String, in folder: ScratchFolder) throws -> Bool {
        for (image, name) in [(one, "theirs"), (other, "ours")] {
            try mounted(image, in: folder, "cp -a mnt \(name)", options: ",ro,norecovery")
        }
        return try Tool("diff", package: "diffutils").run(
            ["-r", "--no-dereference", "\(folder.path)/theirs", "\(folder.path)/ours"]
        ).status == 0
    }

    /// What xfs_db says of a field of every group's header.
    static func field(_ name: String, _ image: String) throws -> [UInt64] {
        let groups = try xfsdb.check(["-r", "-c", "sb 0", "-c", "print agcount", image]).lastLine
        let count = try #require(groups.split(separator: " ").last.flatMap { UInt64($0) })
        return try (0..<count).map { group in
            let line = try xfsdb.check(["-r", "-c", "agf \(group)", "-c", "print \(name)", image]).lastLine
            return try #require(line.split(separator: " ").last.flatMap { UInt64($0) })
        }
    }

    /// Free blocks by xfs_db, without the groups' free lists, which it counts among them.
    static func free(_ image: String) throws -> UInt64 {
        let report = try xfsdb.check(["-r", "-c", "freesp -s", image]).standardOutput
        let line = try #require(report.split(separator: "\n").first { $0.hasPrefix("total free blocks") })
        let all = try #require(line.split(separator: " ").last.flatMap { UInt64($0) })
        return all - (try field("flcount", image).reduce(0, +))
    }

    @Test(arguments: shapes)
    func onlyUsedBlocksMakeTheSameFilesystem(shape: Shape) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(shape, in: folder)
        let source = try FileSource(path: image)
        let map = try FilesystemMaps.map(source)
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.states == [.clean])
        #expect(map.identity.kind == .xfs)
        #expect(map.identity.label == "label")
        let size = try #require(map.filesystemSize)
        let block = try #require(map.blockSize)
        #expect(map.used.byteCount.bytes == size.bytes - block.bytes * (try Self.free(image)))
        #expect(map.used.byteCount < .mebibytes(100))

        let copy = try folder.file("copy.img", .mebibytes(shape.mebibytes))
        try restored(source, map.used, to: copy)
        let verdict = try xfsrepair.run(["-n", "-f", copy])
        #expect(verdict.status == 0, "\(verdict.standardError)")
        if !shape.isVersion4 { #expect(try Self.same(image, copy, in: folder)) }
    }

    /// Free space in so many pieces that the trees have several levels.
    @Test func treesOfSeveralLevelsAreRead() throws {
        let folder = try ScratchFolder()
        let options = ["-b", "size=1024", "-d", "agcount=2"]
        let image = try Self.made(Shape(options: options), in: folder, holes: 40_000)
        #expect((try Self.field("bnolevel", image).max() ?? 0) > 1)
        let source = try FileSource(path: image)
        let map = try FilesystemMaps.map(source)
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.used.extents.count > 2000)
        let block = try #require(map.blockSize)
        let size = try #require(map.filesystemSize)
        #expect(map.used.byteCount.bytes == size.bytes - block.bytes * (try Self.free(image)))
        let copy = try folder.file("copy.img", .mebibytes(320))
        try restored(source, map.used, to: copy)
        #expect(try xfsrepair.run(["-n", "-f", copy]).status == 0)
    }

    /// partclone.xfs reads the same trees, but leaves the free lists out.
    @Test(.enabled(if: Tool("partclone.xfs", package: "partclone").path != nil, "partclone is needed"))
    func partcloneCountsTheSameBlocks() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Shape(options: []), in: folder)
        let map = try FilesystemMaps.map(try FileSource(path: image))
        let run = try Tool("partclone.xfs", package: "partclone").run(
            ["-c", "-q", "-L", "\(folder.path)/log", "-s", image, "-O", "\(folder.path)/saved"])
        let report = run.standardOutput + run.standardError
        let line = try #require(report.split(whereSeparator: \.isNewline).last { $0.contains("Space in use:") })
        let blocks = try #require(
            line.split(separator: "=").last?.split(separator: " ").first.flatMap { UInt64($0) })
        let lists = try Self.field("flcount", image).reduce(0, +)
        #expect(map.used.byteCount.bytes / 4096 == blocks + lists, "\(line)")
    }

    @Test func withoutAFileTheMapIsTheSame() throws {
        let folder = try ScratchFolder()
        let source = try FileSource(path: try Self.made(Shape(options: []), in: folder))
        #expect(try FilesystemMaps.map(withoutFile(source)) == FilesystemMaps.map(source))
    }

    @Test func afterManyMountsTheLogIsStillReadRight() throws {
        let folder = try ScratchFolder()
        let image = try Self.empty(Shape(options: ["--unsupported", "-l", "size=10m"]), in: folder)
        // The log goes round: each turn writes more than a megabyte of it.
        for turn in 1...12 {
            try Self.mounted(
                image, in: folder,
                "mkdir mnt/d\(turn); cd mnt/d\(turn); seq 1 1500 | split -l 1 -a 4 - f; sync .; rm f*[a-m]")
            let map = try FilesystemMaps.map(try FileSource(path: image))
            #expect(map.states == [.clean], "turn \(turn): \(map.wholeBecause ?? "")")
        }
        // It went round at least once: the first block is not of the first round any more.
        let source = try FileSource(path: image)
        let log = try XFSLog(source, XFSSuperblock(parsing: source.bytes(at: .zero, count: 512)))
        let head = Fields("the log", try source.bytes(at: log.place.start, count: 8))
        let first = try head.big(UInt32.self, "cycle", at: 0)
        #expect(try (first == 0xFEED_BABE ? head.big(UInt32.self, "h_cycle", at: 4) : first) > 1)
    }

    // MARK: - States

    static func spoiled(_ options: [String] = [], _ body: (String, ScratchFolder) throws -> Void) throws -> VolumeMap {
        let folder = try ScratchFolder()
        let image = try empty(Shape(options: options), in: folder)
        try body(image, folder)
        return try FilesystemMaps.map(try FileSource(path: image))
    }

    static func expectWhole(_ map: VolumeMap, _ states: [VolumeState], _ reason: String) {
        #expect(map.states == states, "\(map.wholeBecause ?? "mapped")")
        #expect(map.used == ExtentList(Extent(from: .zero, to: .mebibytes(320))))
        #expect(map.wholeBecause?.contains(reason) == true, "\(map.wholeBecause ?? "mapped")")
    }

    /// Its log is replayed in memory.
    @Test(arguments: [[], ["-l", "su=256k"]])
    func aCopyOfAMountedFilesystemIsMappedWithItsLog(options: [String]) throws {
        let map = try Self.spoiled(options) { image, folder in
            // A copy taken while it is mounted, after a sync: what a power cut leaves.
            try Self.mounted(
                image, in: folder, "mkdir mnt/new; echo x > mnt/new/file; sync; cp --sparse=always source.img cut.img")
            try shell.check(["-c", "mv \"$1/cut.img\" \"$1/source.img\"", "move", folder.path])
        }
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.states == [.journalToReplay])
        #expect(map.used.byteCount < .mebibytes(100))
    }

    /// Changes a field of the superblock and mends its checksum.
    static func change(_ image: String, _ offset: Int, _ bytes: [UInt8]) throws {
        var sector = try FileSource(path: image).bytes(at: .zero, count: 512)
        sector.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        let check = XFSChecksum.value(sector, at: 224)
        sector.replaceSubrange(224..<228, with: (0..<4).map { UInt8(truncatingIfNeeded: check >> (8 * $0)) })
        try poke(image, 0, sector)
    }

    @Test func aRealTimeDeviceOrAnExternalLogIsNamed() throws {
        let log = try Self.spoiled { image, _ in try Self.change(image, 48, [UInt8](repeating: 0, count: 8)) }
        Self.expectWhole(log, [], "another device")
        let realTime = try Self.spoiled { image, _ in try Self.change(image, 16 + 7, [1]) }
        Self.expectWhole(realTime, [], "real-time")
    }

    @Test(arguments: [208 + 4, 208 + 8, 208 + 12])
    func unknownFeaturesMakeItWhole(offset: Int) throws {
        let map = try Self.spoiled { image, _ in try Self.change(image, offset, [0x40]) }
        #expect(map.states == [.unknownFeatures], "\(map.wholeBecause ?? "mapped")")
        #expect(map.used.byteCount == .mebibytes(320))
    }

    @Test func oneThatNeedsRepairIsWhole() throws {
        let map = try Self.spoiled { image, _ in
            let old = try FileSource(path: image).bytes(at: ByteCount(219), count: 1)[0]
            try Self.change(image, 219, [old | 16])
        }
        Self.expectWhole(map, [.damaged], "xfs_repair")
    }

    // MARK: - Damage

    @Test(arguments: [[], ["-m", "crc=0"]])
    func aBrokenSuperblockIsReadFromItsCopy(options: [String]) throws {
        let sound = try Self.spoiled(options) { _, _ in }
        for (place, bytes) in [(UInt64(4), [UInt8](repeating: 0, count: 4)), (84, [0xFF, 0xFF]), (120, [99])] {
            let map = try Self.spoiled(options) { image, _ in try poke(image, place, bytes) }
            #expect(map.wholeBecause == nil, "byte \(place): \(map.wholeBecause ?? "")")
            #expect(map.states == [.damaged])
            #expect(map.damage?.contains("superblock") == true)
            #expect(map.used == sound.used)
            #expect(map.identity.kind == .xfs)
        }
    }

    @Test func withoutAnySuperblockItIsWhole() throws {
        let map = try Self.spoiled { image, _ in
            for group in 0..<4 as Range<UInt64> { try poke(image, group * (80 << 20) + 4, [0, 0, 0, 0]) }
        }
        #expect(map.used.byteCount == .mebibytes(320))
        #expect(map.wholeBecause != nil)
    }

    /// Where the tree of the first group begins.
    static func root(_ image: String) throws -> UInt64 {
        let header = try FileSource(path: image).bytes(at: ByteCount(512), count: 512)
        let span = unsafe header.span.bytes
        return UInt64(try span.bigEndian(UInt32.self, "root", at: 16)) * 4096
    }

    @Test func wrongChecksumsMakeItWhole() throws {
        Self.expectWhole(try Self.spoiled { image, _ in try poke(image, 512 + 100, [1]) }, [.damaged], "checksum")
        let tree = try Self.spoiled { image, _ in try poke(image, try Self.root(image) + 4000, [1]) }
        Self.expectWhole(tree, [.damaged], "checksum")
    }

    @Test func countsThatDifferMakeItWhole() throws {
        // The first record's length, in version 4, which has no checksums.
        let record = try Self.spoiled(["-m", "crc=0"]) { image, _ in try poke(image, try Self.root(image) + 16 + 7, [1])
        }
        Self.expectWhole(record, [.damaged], "free blocks")
        let superblock = try Self.spoiled { image, _ in try Self.change(image, 151, [0xEE]) }
        Self.expectWhole(superblock, [.damaged], "superblock says")
    }

    @Test func aFilesystemLargerThanItsVolumeIsDamaged() throws {
        let folder = try ScratchFolder()
        let image = try Self.empty(Shape(options: []), in: folder)
        let window = try Window(try FileSource(path: image), Extent(from: .zero, to: .mebibytes(200)), name: "cut")
        let map = try FilesystemMaps.map(window)
        #expect(map.states == [.damaged])
        #expect(map.used.byteCount == .mebibytes(200))
        #expect(map.wholeBecause?.contains("larger than the volume") == true)
    }
}
