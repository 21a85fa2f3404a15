// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import Testing
import Tools

@testable import FilesystemMaps

/// Filesystems of all shapes, made by mke2fs; e2fsck, debugfs and dumpe2fs judge.
@Suite(.enabled(if: mke2fs.path != nil && debugfs.path != nil, "e2fsprogs is needed"))
struct ExtTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var options: [String]
        var mebibytes: UInt64 = 48
        /// mke2fs -d and debugfs do not count quota; e2fsck does it afterwards.
        var needsCheck = false
        var testDescription: String { options.joined(separator: " ") }
    }

    static let shapes = [
        Shape(options: ["-t", "ext2", "-b", "1024"]),
        Shape(options: ["-t", "ext2", "-b", "4096"]),
        Shape(options: ["-t", "ext3", "-b", "1024"]),
        Shape(options: ["-t", "ext3", "-b", "2048"]),
        Shape(options: ["-t", "ext4", "-b", "1024"]),
        Shape(options: ["-t", "ext4", "-b", "2048"]),
        Shape(options: ["-t", "ext4", "-b", "4096"], mebibytes: 300),
        Shape(options: ["-t", "ext4", "-b", "8192"], mebibytes: 100),
        Shape(options: ["-t", "ext4", "-b", "16384", "-O", "bigalloc", "-C", "131072"], mebibytes: 200),
        Shape(options: ["-t", "ext4", "-b", "32768"], mebibytes: 200),
        Shape(options: ["-t", "ext4", "-b", "65536"], mebibytes: 200),
        Shape(options: ["-t", "ext4", "-O", "^extent,^64bit,^metadata_csum"]),
        Shape(options: ["-t", "ext4", "-O", "mmp,large_dir,encrypt,verity,stable_inodes"]),
        Shape(options: ["-t", "ext4", "-I", "1024", "-E", "stride=16,stripe_width=64,num_backup_sb=1"]),
        Shape(options: ["-t", "ext4", "-O", "^has_journal"]),
        Shape(options: ["-t", "ext4", "-O", "^64bit,^metadata_csum,uninit_bg"], mebibytes: 300),
        Shape(options: ["-t", "ext4", "-O", "64bit,metadata_csum,metadata_csum_seed"]),
        Shape(options: ["-t", "ext4", "-O", "bigalloc", "-C", "65536"], mebibytes: 300),
        Shape(options: ["-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"], mebibytes: 64),
        Shape(options: ["-t", "ext4", "-O", "meta_bg,^resize_inode"], mebibytes: 300),
        Shape(options: ["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode,^flex_bg"], mebibytes: 64),
        Shape(options: ["-t", "ext4", "-O", "^flex_bg"], mebibytes: 300),
        Shape(options: ["-t", "ext4", "-O", "sparse_super2"], mebibytes: 300),
        Shape(options: ["-t", "ext4", "-O", "inline_data,project,casefold,ea_inode"]),
        Shape(options: ["-t", "ext4", "-O", "quota"], needsCheck: true),
        Shape(options: ["-t", "ext4", "-O", "orphan_file"]),
        Shape(options: ["-t", "ext4", "-g", "8192", "-b", "4096"], mebibytes: 300),
        Shape(options: ["-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1"], mebibytes: 2048),
    ]

    /// A filesystem with content, some of which was deleted again.
    static func made(_ shape: Shape, in folder: ScratchFolder) throws -> String {
        let image = try folder.file("source.img", .mebibytes(shape.mebibytes))
        let tree = try folder.tree(symbolicLinks: true)
        try mke2fs.check(["-q", "-F", "-L", "label", "-d", tree] + shape.options + [image])
        try debugfs.check(["-w", "-R", "rm /sub/copy700001", image])
        try debugfs.check(["-w", "-R", "rm /file131073", image])
        if shape.needsCheck { try e2fsck.check(["-fy", image], allowed: [1]) }
        return image
    }

    static func contents(_ image: String, _ folder: ScratchFolder, _ name: String) throws -> String {
        let out = "\(folder.path)/\(name)"
        try Tool("mkdir", package: "coreutils").check([out])
        try debugfs.check(["-R", "rdump / \(out)", image])
        return out
    }

    static func number(_ name: String, _ image: String) throws -> UInt64 {
        let listed = try dumpe2fs.check(["-h", image]).standardOutput
        let line = try #require(listed.split(separator: "\n").first { $0.hasPrefix("\(name):") })
        return try #require(line.split(separator: " ").last.flatMap { UInt64($0) })
    }

    @Test(arguments: shapes)
    func onlyUsedBlocksMakeTheSameFilesystem(shape: Shape) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(shape, in: folder)
        let source = try FileSource(path: image)
        let map = try FilesystemMaps.map(source)
        #expect(map.wholeBecause == nil)
        #expect(map.states == [.clean])
        #expect(map.identity.label == "label")

        // Exactly what dumpe2fs calls not free; the block count includes the boot sector of a 1 KiB filesystem.
        let size = try Self.number("Block size", image)
        let used = (try Self.number("Block count", image) - Self.number("Free blocks", image)) * size
        #expect(map.used.byteCount.bytes == used)
        #expect(map.filesystemSize?.bytes == (try Self.number("Block count", image)) * size)

        let copy = try folder.file("copy.img", .mebibytes(shape.mebibytes))
        try restored(source, map.used, to: copy)
        #expect(try e2fsck.run(["-fn", copy]).status == 0)
        let ours = try Self.contents(copy, folder, "ours")
        let theirs = try Self.contents(image, folder, "theirs")
        let difference = try Tool("diff", package: "diffutils").run(["-r", "--no-dereference", theirs, ours])
        #expect(difference.status == 0)
        #expect(!difference.standardOutput.contains("Only in"))
    }

    @Test func withoutAFileTheMapIsTheSame() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Shape(options: ["-t", "ext4"]), in: folder)
        let source = try FileSource(path: image)
        #expect(try FilesystemMaps.map(withoutFile(source)) == FilesystemMaps.map(source))
    }

    @Test func insideALargerDiskNothingShifts() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Shape(options: ["-t", "ext4", "-b", "1024"]), in: folder)
        let disk = try folder.file("disk.img", .mebibytes(100))
        try Tool("dd", package: "coreutils").check(
            ["if=\(image)", "of=\(disk)", "bs=1M", "seek=7", "conv=notrunc,sparse", "status=none"])
        let window = try Window(
            try FileSource(path: disk), Extent(from: .mebibytes(7), to: .mebibytes(60)), name: "disk.img:1")
        let map = try FilesystemMaps.map(window)
        let alone = try FilesystemMaps.map(try FileSource(path: image))
        // The volume is larger than the filesystem; who keeps what behind its end is not known here.
        #expect(map.used == alone.used.union(ExtentList(Extent(from: .mebibytes(48), to: .mebibytes(53)))))
        #expect(map.filesystemSize == .mebibytes(48))
    }

    /// The reason and states after something was done to a filesystem.
    static func spoiled(_ options: [String] = ["-t", "ext4"], _ body: (String) throws -> Void) throws -> VolumeMap {
        let folder = try ScratchFolder()
        let image = try folder.file("source.img", .mebibytes(32))
        try mke2fs.check(["-q", "-F"] + options + [image])
        try body(image)
        let source = try FileSource(path: image)
        let map = try FilesystemMaps.map(source)
        #expect(map.used == ExtentList(Extent(from: .zero, to: source.length)))
        #expect(map.minimum == nil)
        return map
    }

    /// The block of the first group's block bitmap.
    static func firstBitmap(_ image: String) throws -> UInt64 {
        let listed = try dumpe2fs.check([image]).standardOutput
        let line = try #require(listed.split(separator: "\n").first { $0.contains("Block bitmap at") })
        return try #require(line.split(separator: " ").dropFirst(3).first.flatMap { UInt64($0) })
    }

    @Test func errorsMakeItWhole() throws {
        let map = try Self.spoiled { _ = try debugfs.check(["-w", "-R", "set_super_value state 3", $0]) }
        #expect(map.states == [.dirty])
    }

    @Test func anExt2ThatWasNotUnmountedIsWhole() throws {
        let map = try Self.spoiled(["-t", "ext2"]) {
            _ = try debugfs.check(["-w", "-R", "set_super_value state 0", $0])
        }
        #expect(map.states == [.dirty])
    }

    @Test func aWrongSuperblockChecksumInAllCopiesMakesItWhole() throws {
        let map = try Self.spoiled { image in
            // Four groups of 8 MiB.
            for place in [1024, (8193 << 10), (24577 << 10)] as [UInt64] { try poke(image, place + 0x48, [9]) }
        }
        #expect(map.states == [.damaged])
        #expect(map.identity.kind == .ext4)
    }

    @Test func aWrongDescriptorChecksumMakesItWhole() throws {
        let map = try Self.spoiled(["-t", "ext4", "-b", "4096"]) { try poke($0, 4096 + 12, [0xFF, 0xFF]) }
        #expect(map.states == [.damaged])
    }

    @Test func aWrongBitmapChecksumMakesItWhole() throws {
        let map = try Self.spoiled(["-t", "ext4", "-b", "4096"]) { image in
            try poke(image, try Self.firstBitmap(image) * 4096, [0])
        }
        #expect(map.states == [.damaged])
    }

    @Test func metadataCalledFreeMakeItWhole() throws {
        let map = try Self.spoiled(["-t", "ext2", "-b", "1024"]) { image in
            try poke(image, try Self.firstBitmap(image) * 1024, [UInt8](repeating: 0, count: 128))
        }
        #expect(map.states == [.damaged])
    }

    @Test func moreFreeThanTheDescriptorsSayMakesItWhole() throws {
        let folder = try ScratchFolder()
        let map = try Self.spoiled(["-t", "ext2", "-b", "1024", "-d", folder.tree(symbolicLinks: false)]) { image in
            // The last blocks in use of the first group are file data.
            let start = try Self.firstBitmap(image) * 1024
            let bitmap = try FileSource(path: image).bytes(at: ByteCount(start), count: 1024)
            let last = try #require(bitmap.lastIndex { $0 != 0 })
            try poke(image, start + UInt64(last), [0])
        }
        #expect(map.states == [.damaged])
        #expect(map.wholeBecause?.contains("free blocks") == true)
    }

    /// As when blocks of bitmaps were exchanged: the sums agree, the groups do not.
    @Test func errorsOfTwoGroupsThatCancelOutMakeItWhole() throws {
        let folder = try ScratchFolder()
        let map = try Self.spoiled(["-t", "ext3", "-b", "1024", "-d", folder.tree(symbolicLinks: false)]) { image in
            let listed = try dumpe2fs.check([image]).standardOutput
            let places = listed.split(separator: "\n").filter { $0.contains("Block bitmap at") }
                .compactMap { $0.split(separator: " ").dropFirst(3).first.flatMap { UInt64($0) } }
            try #require(places.count > 1)
            let source = try FileSource(path: image)
            let first = try source.bytes(at: ByteCount(places[0] * 1024), count: 1024)
            let second = try source.bytes(at: ByteCount(places[1] * 1024), count: 1024)
            // The last blocks in use of the first group are file data; as many of the second are called used instead.
            let used = try #require(first.lastIndex { $0 != 0 })
            let free = try #require(second.lastIndex { $0 == 0 })
            try poke(image, places[0] * 1024 + UInt64(used), [0])
            try poke(image, places[1] * 1024 + UInt64(free), [first[used]])
        }
        #expect(map.states == [.damaged])
        #expect(map.wholeBecause?.contains("The bitmap of group 0 has more free blocks") == true)
    }

    /// resize2fs itself cannot make it smaller, however few blocks its files have.
    @Test(arguments: [["-N", "8192"], ["-N", "65536"], ["-b", "1024", "-N", "65536"]])
    func theSmallestSizeIsNoPromiseThatFails(options: [String]) throws {
        let folder = try ScratchFolder()
        let image = try folder.file("source.img", .mebibytes(256))
        let tree = "\(folder.path)/tree"
        try shell.check(["-c", "mkdir \"$1\" && cd \"$1\" && seq 1 6000 | xargs touch", "many", tree])
        try mke2fs.check(["-q", "-F", "-t", "ext4", "-d", tree] + options + [image])
        let map = try FilesystemMaps.map(try FileSource(path: image))
        #expect(map.minimumIs == "estimated")
        let said = try Tool("resize2fs", package: "e2fsprogs").check(["-P", image]).standardOutput
        let blocks = try #require(
            said.split(whereSeparator: { $0 == " " || $0 == "\n" }).last.flatMap { UInt64($0) })
        let need = blocks * (try Self.number("Block size", image))
        let minimum = try #require(map.minimum)
        #expect(minimum.bytes >= need, "\(said)")
        #expect(minimum <= .mebibytes(256))
    }

    @Test func unknownFeaturesMakeItWhole() throws {
        for field in [0x60, 0x64] as [UInt64] {
            let map = try Self.spoiled(["-t", "ext2"]) { image in
                let old = try FileSource(path: image).bytes(at: ByteCount(1024 + field), count: 4)
                try poke(image, 1024 + field, [old[0], old[1], old[2], 0x40])
            }
            #expect(map.states == [.unknownFeatures] || map.identity.kind == .unknown)
        }
    }

    @Test func aFilesystemLargerThanItsVolumeIsDamaged() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Shape(options: ["-t", "ext4"]), in: folder)
        let window = try Window(try FileSource(path: image), Extent(from: .zero, to: .mebibytes(40)), name: "cut")
        let map = try FilesystemMaps.map(window)
        #expect(map.states == [.damaged])
        #expect(map.used.byteCount == .mebibytes(40))
        #expect(map.wholeBecause?.contains("larger than the volume") == true)
    }

    @Test func anUnreadableBitmapMakesItWholeInsteadOfFailing() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Shape(options: ["-t", "ext4"]), in: folder)
        func map(badAt place: UInt64) throws -> VolumeMap {
            let sector = Extent(from: ByteCount(place), to: ByteCount(place + 512))
            return try FilesystemMaps.map(Faulty(try FileSource(path: image), bad: ExtentList(sector)))
        }
        let bitmap = try map(badAt: Self.firstBitmap(image) * 1024)
        #expect(bitmap.states == [.damaged])
        #expect(bitmap.wholeBecause?.contains("Input/output error") == true)
        // A block that is kept for more descriptors is not needed for the map, and is in use.
        let reserved = try map(badAt: 4096)
        #expect(
            reserved.states == [.clean] && reserved.used.contains(ByteCount(4096)), "\(reserved.wholeBecause ?? "")")
    }

    @Test func theEstimateIsNotBelowWhatResize2fsNeeds() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Shape(options: ["-t", "ext4"], mebibytes: 512), in: folder)
        let map = try FilesystemMaps.map(try FileSource(path: image))
        let minimum = try #require(map.minimum)
        #expect(map.minimumIs == "estimated")
        try Tool("resize2fs", package: "e2fsprogs").check(["-f", image, "\(minimum.bytes / 1024)K"])
        #expect(try e2fsck.run(["-fn", image]).status == 0)
    }
}
