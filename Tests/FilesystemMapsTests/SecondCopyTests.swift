// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import Testing
import Tools

@testable import FilesystemMaps

/// Volumes whose first superblock or boot sector is gone, with nothing left of it: the second copy gives the same map, the
/// image keeps the damage, and the format's own tool mends what is restored.
struct SecondCopyTests {
    static func map(_ image: String) throws -> VolumeMap { try FilesystemMaps.map(try FileSource(path: image)) }

    /// Loses the bytes, and compares what the map was with what it is then. Returns a copy made of the used bytes only.
    @discardableResult
    static func lose(
        _ extent: Extent, of image: String, in folder: ScratchFolder, filling byte: UInt8 = 0, kind: ContentKind,
        states: [VolumeState] = [.damaged], but name: (at: UInt64, text: String)? = nil
    ) throws -> String {
        let sound = try map(image)
        #expect(sound.wholeBecause == nil && sound.identity.kind == kind)
        try poke(image, extent.start.bytes, [UInt8](repeating: byte, count: extent.length.int ?? 0))
        if let name {
            // Where nothing at all is left, the copy may be that of an older filesystem.
            let blank = try map(image)
            let size = try FileSource(path: image).length
            #expect(blank.identity.kind != kind && blank.used.byteCount == size)
            try poke(image, name.at, Array(name.text.utf8))
        }
        let broken = try map(image)
        #expect(broken.wholeBecause == nil, "\(kind.rawValue): \(broken.wholeBecause ?? "")")
        #expect(broken.identity.kind == kind && broken.identity.uuid == sound.identity.uuid)
        #expect(broken.states == states && broken.used == sound.used, "\(kind.rawValue): \(broken.states)")
        #expect(broken.damage?.contains("(byte \(extent.start.bytes))") == true, "\(broken.damage ?? "")")
        let source = try FileSource(path: image)
        let copy = try folder.file("lost.img", source.length)
        try restored(source, broken.used, to: copy, garbage: 0xFF)
        return copy
    }

    // MARK: - ext

    @Test(
        .enabled(if: mke2fs.path != nil && e2fsck.path != nil && debugfs.path != nil, "e2fsprogs is needed"),
        arguments: [
            (["-t", "ext4", "-b", "1024"], UInt64(48), "8193"), (["-t", "ext4", "-b", "4096"], 300, "32768"),
            (["-t", "ext3", "-b", "1024"], 48, "8193"),
            (["-t", "ext4", "-b", "4096", "-O", "sparse_super2"], 300, "32768"),
            (["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode,^flex_bg"], 48, "8193"),
            (["-t", "ext4", "-b", "1024", "-O", "bigalloc,orphan_file", "-C", "16384"], 400, "131072"),
        ])
    func anExtWithoutItsSuperblock(options: [String], mebibytes: UInt64, copy number: String) throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(ExtTests.Shape(options: options, mebibytes: mebibytes), in: folder)
        let theirs = try ExtTests.contents(image, folder, "theirs")
        let size = try #require(options.firstIndex(of: "-b").map { options[$0 + 1] })
        let place = Extent(from: ByteCount(1024), to: ByteCount(2048))
        let copy = try Self.lose(place, of: image, in: folder, kind: options[1] == "ext3" ? .ext3 : .ext4)
        try e2fsck.check(["-fy", "-b", number, "-B", size, copy], allowed: [1])
        #expect(try e2fsck.run(["-fn", copy]).status == 0)
        let ours = try ExtTests.contents(copy, folder, "ours")
        let difference = try Tool("diff", package: "diffutils").run(["-r", "--no-dereference", theirs, ours])
        #expect(difference.status == 0 && !difference.standardOutput.contains("Only in"), "\(difference.lastWords)")
    }

    @Test(.enabled(if: mke2fs.path != nil && debugfs.path != nil, "e2fsprogs is needed"))
    func anExtWithDamageInItsSuperblock() throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(
            ExtTests.Shape(options: ["-t", "ext4", "-g", "8192", "-b", "4096"], mebibytes: 300), in: folder)
        let sound = try Self.map(image)
        // A wrong checksum; the group's size is read from what is left.
        try poke(image, 1024 + 0x48, [9])
        let map = try Self.map(image)
        #expect(
            map.wholeBecause == nil && map.used == sound.used && map.states == [.damaged], "\(map.wholeBecause ?? "")")
        #expect(map.damage?.contains("group 1 (byte 33554432)") == true, "\(map.damage ?? "")")
        // Something else in its place, which bears no name: nothing is looked for.
        try poke(image, 1024, (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) })
        let other = try Self.map(image)
        #expect(other.identity.kind == .unknown && other.used.byteCount == .mebibytes(300))
    }

    @Test(.enabled(if: mke2fs.path != nil && debugfs.path != nil, "e2fsprogs is needed"))
    func anExtWithoutItsSuperblockMustBeProved() throws {
        let lost = [UInt8](repeating: 0, count: 1024)
        let folder = try ScratchFolder()
        let image = try folder.file("two.img", .mebibytes(48))
        try mke2fs.check(["-q", "-F", "-t", "ext2", "-b", "1024", image])
        try poke(image, 1024, lost)
        let ext2 = try Self.map(image)
        #expect(ext2.identity.kind == .ext2 && ext2.used.byteCount == .mebibytes(48))
        #expect(ext2.wholeBecause?.contains("does not tell whether it was cleanly unmounted") == true)

        // A block of a file that the bitmap calls free: nobody marked it as having errors in the copy.
        let other = try ExtTests.made(ExtTests.Shape(options: ["-t", "ext4", "-b", "1024"]), in: folder)
        let blocks = try debugfs.check(["-R", "blocks /file700001", other]).standardOutput
        let first = try #require(blocks.split(separator: " ").first)
        // Another one takes its place, so that the numbers of free blocks stay right.
        let free = try debugfs.check(["-R", "ffb 1 \(first)", other]).standardOutput
        let next = try #require(free.split(whereSeparator: { !$0.isNumber }).last)
        try debugfs.check(["-w", "-R", "freeb \(first)", other])
        try debugfs.check(["-w", "-R", "setb \(next)", other])
        let used = try Self.map(other)
        #expect(used.wholeBecause == nil)
        try poke(other, 1024, lost)
        let whole = try Self.map(other)
        #expect(whole.wholeBecause?.contains("call a block of inode") == true, "\(whole.wholeBecause ?? "")")
        #expect(whole.used.byteCount == .mebibytes(48))
    }

    @Test(.enabled(if: mke2fs.path != nil && debugfs.path != nil, "e2fsprogs is needed"))
    func anExtThatWaitsForItsJournalWithoutItsSuperblock() throws {
        let folder = try ScratchFolder()
        let image = try ExtJournalTests.image(
            ExtJournalTests.written[0], in: folder, seed: 1, count: 6, uncommitted: false)
        let sound = try Self.map(image)
        #expect(sound.states == [.journalToReplay])
        try poke(image, 1024, [UInt8](repeating: 0, count: 1024))
        let map = try Self.map(image)
        // Inodes that only the journal has cannot be compared with the bitmaps.
        #expect(map.wholeBecause?.contains("its journal waits to be replayed") == true, "\(map.wholeBecause ?? "")")
        #expect(sound.used.extents.allSatisfy { map.used.covers($0) })
    }

    @Test(.enabled(if: mke2fs.path != nil && dumpe2fs.path != nil, "e2fsprogs is needed"))
    func groupsWithADamagedDescriptorAreUsedInFull() throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(
            ExtTests.Shape(options: ["-t", "ext4", "-b", "1024"], mebibytes: 100), in: folder)
        let sound = try Self.map(image)
        // The descriptor of group 5, of 64 bytes from block 2 on.
        try poke(image, 2048 + 5 * 64 + 12, [0xEE, 0xEE])
        let map = try Self.map(image)
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.states == [.damaged] && map.minimum == nil)
        #expect(map.damage?.contains("1 of its 13 group descriptors") == true, "\(map.damage ?? "")")
        #expect(map.damage?.contains("group 5") == true)
        let group = Extent(from: ByteCount((1 + 5 * 8192) << 10), to: ByteCount((1 + 6 * 8192) << 10))
        #expect(map.used == sound.used.union(ExtentList(group)))
        // Places outside the filesystem without checksums that would tell.
        let plain = try folder.file("plain.img", .mebibytes(100))
        try mke2fs.check(["-q", "-F", "-t", "ext2", "-b", "1024", "-d", "\(folder.path)/tree", plain])
        let whole = try Self.map(plain)
        try poke(plain, 2048 + 5 * 32, [0xFF, 0xFF, 0xFF, 0x7F])
        let outside = try Self.map(plain)
        #expect(outside.used == whole.used.union(ExtentList(group)) && outside.states == [.damaged])
        // Most of the table: then it is no table.
        try poke(image, 2048, [UInt8](repeating: 0x5A, count: 64 * 8))
        let most = try Self.map(image)
        #expect(most.used.byteCount == .mebibytes(100) && most.states.contains(.damaged))
    }

    // MARK: - The others

    @Test(
        .enabled(if: mkfat.path != nil && mcopy.path != nil && fsckfat.path != nil, "dosfstools and mtools are needed"),
        arguments: [3, 4, 6])
    func aFAT32WithoutItsBootSector(shape: Int) throws {
        let folder = try ScratchFolder()
        let image = try FATTests.made(FATTests.shapes[shape], in: folder)
        let sector = try FATBootSector(parsing: FileSource(path: image).bytes(at: .zero, count: 512)).bytesPerSector
        let copy = try Self.lose(
            Extent(from: .zero, to: sector), of: image, in: folder, kind: .fat, but: (82, "FAT32   "))
        // fsck.fat offers to put it back; mtools reads it then.
        try Tool("dd", package: "coreutils").check([
            "if=\(copy)", "of=\(copy)", "bs=\(sector.bytes)", "skip=6", "count=1", "conv=notrunc", "status=none",
        ])
        #expect(try fsckfat.run(["-n", copy]).status == 0)
    }

    @Test(.enabled(if: mkfat.path != nil && mcopy.path != nil, "dosfstools and mtools are needed"))
    func aFATWithDamageInItsBootSector() throws {
        let folder = try ScratchFolder()
        let image = try FATTests.made(FATTests.shapes[3], in: folder)
        let sound = try Self.map(image)
        try poke(image, 11, [7, 7])
        let map = try Self.map(image)
        #expect(map.used == sound.used && map.states == [.damaged] && map.identity.uuid == sound.identity.uuid)
        try poke(image, 6 * 512 + 11, [7, 7])
        #expect(try Self.map(image).used.byteCount == .mebibytes(64))
        // FAT16 has no backup.
        let small = try FATTests.made(FATTests.shapes[1], in: folder)
        try poke(small, 0, [UInt8](repeating: 0, count: 512))
        #expect(try Self.map(small).used.byteCount == .mebibytes(32))
    }

    @Test(.enabled(if: mkntfs.path != nil, "ntfs-3g is needed"))
    func anNTFSWithoutItsBootSector() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("source.img", .mebibytes(64))
        try mkntfs.check(["-q", "-F", "-Q", image])
        try Self.lose(
            Extent(from: .zero, to: ByteCount(512)), of: image, in: folder, filling: 0xFF, kind: .ntfs,
            but: (3, "NTFS    "))
    }

    @Test(.enabled(if: mkxfs.path != nil && xfsrepair.path != nil, "xfsprogs is needed"))
    func anXFSWithoutItsSuperblock() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("source.img", .mebibytes(320))
        try mkxfs.check(["-q", image])
        let copy = try Self.lose(Extent(from: .zero, to: ByteCount(512)), of: image, in: folder, kind: .xfs)
        _ = try xfsrepair.run([copy])
        #expect(try xfsrepair.run(["-n", copy]).status == 0)
    }

    @Test(.enabled(if: mkbtrfs.path != nil, "btrfs-progs is needed"))
    func aBtrfsWithoutItsSuperblock() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("source.img", .mebibytes(384))
        try mkbtrfs.check(["-q", "--rootdir", folder.tree(symbolicLinks: true), image])
        let place = Extent(from: .kibibytes(64), to: .kibibytes(68))
        let copy = try Self.lose(place, of: image, in: folder, kind: .btrfs, but: (65_536 + 64, "_BHRfS_M"))
        try btrfsTool.check(["rescue", "super-recover", "-y", copy], allowed: [2])
        #expect(try btrfsTool.run(["check", "--readonly", "--check-data-csum", copy]).status == 0)
    }

    @Test(.enabled(if: mkf2fs.path != nil && fsckf2fs.path != nil, "f2fs-tools is needed"))
    func anF2FSWithoutItsSuperblock() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("source.img", .mebibytes(128))
        try mkf2fs.check(["-q", image])
        try Self.lose(Extent(from: ByteCount(1024), to: ByteCount(4096)), of: image, in: folder, kind: .f2fs)
    }

    @Test(.enabled(if: mkexfat.path != nil, "exfatprogs is needed"))
    func anExFATWithoutItsBootSectorIsNamed() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("source.img", .mebibytes(96))
        try mkexfat.check([image])
        try poke(image, 0, [UInt8](repeating: 0, count: 512))
        let map = try Self.map(image)
        #expect(map.identity.kind == .exFAT && map.used.byteCount == .mebibytes(96))
        #expect(map.wholeBecause?.contains("cleanly unmounted") == true, "\(map.wholeBecause ?? "")")
    }

    @Test func anHFSPlusWithADamagedHeader() throws {
        let sound = try HFSPlusTests.map(HFSPlusTests.changed([]))
        // Signature and version; dates and the rest of what is not looked at may be lost too.
        let broken = try HFSPlusTests.map(HFSPlusTests.changed([(1024, [0, 0, 0, 0]), (1024 + 16, [9, 9, 9, 9])]))
        #expect(broken.identity.kind == .hfsPlus && broken.wholeBecause == nil, "\(broken.wholeBecause ?? "")")
        #expect(broken.used == sound.used && broken.states == [.damaged])
        #expect(broken.damage?.contains("(byte 1024)") == true)
        // Where more is lost, its flags may be too.
        let lost = try HFSPlusTests.map(HFSPlusTests.changed([(1024, [UInt8](repeating: 0, count: 512))]))
        #expect(lost.wholeBecause != nil && lost.used.byteCount == sound.filesystemSize)
    }
}
