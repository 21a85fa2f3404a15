// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import TestSupport
import Testing
import Tools

@testable import FilesystemMaps

private let grub = Tool("grub-fstest", package: "grub-common")
private let partclone = Tool("partclone.hfsplus", package: "partclone")

/// HFS+ made by the tests themselves; GRUB's driver and partclone judge where they are.
struct HFSPlusTests {
    static let files: [(name: String, bytes: [UInt8])] = {
        var seed = Seeded(3)
        return [("a", 1), ("b", 4096), ("c", 70_000), ("d", 300_001), ("e", 0)].map { name, count in
            (name, (0..<count).map { _ in UInt8.random(in: 0...255, using: &seed) })
        }
    }()

    static let images: [HFSPlusImage] = [
        HFSPlusImage(files: files), HFSPlusImage(blockSize: 512, blocks: 8193, files: files),
        HFSPlusImage(blockSize: 1024, blocks: 5001, isHFSX: true, files: files),
        HFSPlusImage(blocks: 600, journal: .empty, files: files), HFSPlusImage(journal: .bigEndian, files: files),
        HFSPlusImage(journal: .uninitialised, files: files), HFSPlusImage(blockSize: 65_536, blocks: 300, files: files),
    ]

    static func map(_ bytes: [UInt8]) throws -> VolumeMap { try FilesystemMaps.map(MemoryDisk(bytes)) }

    /// What must be used: the blocks, and around them boot blocks, header and its copy.
    static func expected(_ image: HFSPlusImage, _ used: Set<Int>, _ length: Int) -> ExtentList {
        let size = UInt64(image.blockSize)
        var extents = used.map {
            Extent(from: ByteCount(UInt64($0) * size), to: ByteCount((UInt64($0) + 1) * size))
        }
        extents.append(Extent(from: .zero, to: .kibibytes(2)))
        extents.append(Extent(from: ByteCount(UInt64(length) - 1024), to: ByteCount(UInt64(length))))
        return ExtentList(extents)
    }

    @Test(arguments: images.indices)
    func onlyUsedBlocksAreMapped(index: Int) throws {
        let image = Self.images[index]
        let (bytes, used) = image.made()
        let map = try Self.map(bytes)
        #expect(map.identity.kind == .hfsPlus)
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.states == [.clean])
        #expect(map.used == Self.expected(image, used, bytes.count))
        #expect(map.used.byteCount < ByteCount(UInt64(bytes.count)))
        #expect(map.blockSize == ByteCount(UInt64(image.blockSize)))
    }

    @Test(.enabled(if: grub.path != nil, "grub-common is needed"), arguments: images.indices)
    func filesAreWholeWithGarbageWhereNothingIsUsed(index: Int) throws {
        let folder = try ScratchFolder()
        let disk = MemoryDisk(Self.images[index].made().bytes)
        let copy = try folder.file("copy.img", disk.length)
        try restored(disk, try FilesystemMaps.map(disk).used, to: copy, garbage: 0xFF)
        for file in Self.files where !file.bytes.isEmpty {
            let out = "\(folder.path)/\(file.name)"
            try grub.check([copy, "cp", "(loop0)/\(file.name)", out])
            try Tool("cmp", package: "diffutils").check(["-", out], input: file.bytes)
        }
    }

    @Test(.enabled(if: partclone.path != nil, "partclone is needed"))
    func partcloneCountsTheSame() throws {
        let folder = try ScratchFolder()
        let disk = MemoryDisk(Self.images[0].made().bytes)
        let image = try folder.file("source.img", disk.length)
        try restored(disk, ExtentList(Extent(from: .zero, to: disk.length)), to: image)
        let run = try partclone.run(
            ["-c", "-q", "-L", "\(folder.path)/log", "-s", image, "-O", "\(folder.path)/saved"])
        let report = run.standardOutput + run.standardError
        let line = try #require(report.split(whereSeparator: \.isNewline).last { $0.contains("Space in use:") })
        let blocks = try #require(
            line.split(separator: "=").last?.split(separator: " ").first.flatMap { UInt64($0) })
        let used = try FilesystemMaps.map(disk).used.byteCount.bytes / 4096
        #expect(used <= blocks + 1 && blocks <= used + 1, "\(used) and \(blocks)")
    }

    @Test func aWrapperIsUsedWhole() throws {
        let (bytes, used) = Self.images[0].made()
        let wrapped = HFSPlusImage.wrapped(bytes)
        let map = try Self.map(wrapped)
        #expect(map.identity.kind == .hfsPlus)
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        let start = ByteCount(8192 + 4 * 4096)
        let inside = try #require(Self.expected(Self.images[0], used, bytes.count).shifted(by: start))
        let length = ByteCount(UInt64(wrapped.count))
        let around = ExtentList([
            Extent(from: .zero, to: start), Extent(from: start + ByteCount(UInt64(bytes.count)), to: length),
        ])
        #expect(map.used == inside.union(around))
    }

    // MARK: - States and damage

    static func expectWhole(_ bytes: [UInt8], _ states: [VolumeState], _ reason: String) throws {
        let map = try Self.map(bytes)
        #expect(map.states == states, "\(map.wholeBecause ?? "mapped")")
        #expect(map.used.byteCount == ByteCount(UInt64(bytes.count)))
        #expect(map.wholeBecause?.contains(reason) == true, "\(map.wholeBecause ?? "mapped")")
    }

    @Test func oneThatWasNotUnmountedIsWhole() throws {
        try Self.expectWhole(HFSPlusImage(isUnmounted: false).made().bytes, [.dirty], "not cleanly unmounted")
        try Self.expectWhole(
            HFSPlusImage(journal: .empty, isUnmounted: false).made().bytes, [.journalToReplay], "not cleanly unmounted")
        try Self.expectWhole(HFSPlusImage(journal: .waiting).made().bytes, [.journalToReplay], "journal waits")
        try Self.expectWhole(HFSPlusImage(journal: .elsewhere).made().bytes, [], "another device")
    }

    static func changed(_ changes: [(Int, [UInt8])]) -> [UInt8] {
        var bytes = HFSPlusImage(files: files).made().bytes
        for (offset, new) in changes { bytes.replaceSubrange(offset..<offset + new.count, with: new) }
        return bytes
    }

    @Test func contradictionsMakeItWhole() throws {
        // Attributes: inconsistent. Free blocks. A bit of the bitmap, of which block 1 has the first.
        try Self.expectWhole(Self.changed([(1024 + 6, [9])]), [.dirty], "inconsistent")
        try Self.expectWhole(Self.changed([(1024 + 51, [1])]), [.damaged], "free blocks")
        try Self.expectWhole(Self.changed([(4096 + 100, [0x80])]), [.damaged], "free blocks")
        // The catalog's first block is free, another one used instead.
        try Self.expectWhole(Self.changed([(4096, [0xF7]), (4096 + 100, [0x80])]), [.damaged], "catalog")
        // An allocation file of more blocks than its eight extents have.
        try Self.expectWhole(Self.changed([(1024 + 112 + 15, [9])]), [], "eight pieces")
        // Free blocks that are more than all: no header.
        try Self.expectWhole(Self.changed([(1024 + 48, [1])]), [.damaged], "copy before its end is sound")
    }

    @Test func aFilesystemLargerThanItsVolumeIsDamaged() throws {
        let bytes = HFSPlusImage(files: Self.files).made().bytes
        try Self.expectWhole(Array(bytes.dropLast(1 << 20)), [.damaged], "larger than the volume")
    }
}

/// What is known by name only.
struct WholeReaderTests {
    @Test(arguments: ["ReFS", "zfs_member", "apfs", "BitLocker", "hfs", "bcachefs"])
    func itIsNamedAndImagedWhole(kind: String) throws {
        let disk = MemoryDisk([UInt8](repeating: 0, count: 1 << 16))
        let map = try FilesystemMaps.map(disk, identified: Identity(kind: ContentKind(rawValue: kind)))
        #expect(map.used.byteCount == disk.length)
        let name = ["zfs_member": "ZFS", "apfs": "APFS", "hfs": "HFS"][kind] ?? kind
        #expect(map.wholeBecause?.contains(name) == true)
        #expect(map.wholeBecause?.contains("all of it is imaged") == true)
    }

    /// Their signatures, as libblkid looks for them.
    @Test func libblkidNamesThem() throws {
        func kind(_ length: Int, _ pieces: [(Int, [UInt8])]) throws -> String {
            var bytes = [UInt8](repeating: 0, count: length)
            for (offset, piece) in pieces { bytes.replaceSubrange(offset..<offset + piece.count, with: piece) }
            return try Identification.identify(MemoryDisk(bytes)).kind.rawValue
        }
        #expect(try kind(1 << 20, [(0, [0, 0, 0] + Array("ReFS".utf8))]) == "ReFS")
        // Windows 7 and later: the first of three places of the metadata.
        let guid: [UInt8] = [
            0x3B, 0xD6, 0x67, 0x49, 0x29, 0x2E, 0xD8, 0x4A, 0x83, 0x99, 0xF6, 0xA3, 0x39, 0xE3, 0xD0, 0x01,
        ]
        let locked: [(Int, [UInt8])] = [
            (0, [0xEB, 0x58, 0x90] + Array("-FVE-FS-".utf8)), (160, guid + [0, 0, 1]),
            (65_536, Array("-FVE-FS-".utf8) + [64, 0, 2, 0]),
        ]
        #expect(try kind(1 << 20, locked) == "BitLocker")
        var uberblock: [UInt8] = []
        uberblock.append(contentsOf: [0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0])
        let labels = [0, 262_144, (64 << 20) - 524_288, (64 << 20) - 262_144]
        let uberblocks = labels.flatMap { label in (0..<32).map { (label + 131_072 + $0 * 1024, uberblock) } }
        #expect(try kind(64 << 20, uberblocks) == "zfs_member")
    }
}
