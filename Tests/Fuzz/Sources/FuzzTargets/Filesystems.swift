// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel

@testable import FilesystemMaps

extension FuzzTarget {
    /// ext2, ext3, ext4: the superblock, the journal and its replay, then libext2fs over descriptors and bitmaps.
    static let ext = FuzzTarget(name: "ext", longest: 40_000, seeds: ExtSeeds.make, mend: ExtSeeds.mend) { input in
        let disk = SparseDisk(input, limit: .mebibytes(64))
        names(on: disk, .ext4)
        if case .unchanged(let list, _)? = try? MetadataCompare.compare(disk, with: disk, kind: .ext4, imaged: .max) {
            promise(list.end <= disk.length, "unchanged bytes lie on the volume")
        }
        guard let map = try? ExtReader.map(disk, Identity(kind: .ext4, usage: .filesystem)) else { return }
        check(map, on: disk)
        guard map.wholeBecause == nil else { return }
        promise(map.used.covers(Extent(from: .zero, to: .kibibytes(2))), "boot sector and superblock are used")
        promise([[.clean], [.journalToReplay]].contains(map.states), "no other state has a map")
    }

    /// FAT12, FAT16, FAT32.
    static let fat = FuzzTarget(name: "fat", longest: 40_000, seeds: FATSeeds.make) { input in
        let disk = SparseDisk(input, limit: .mebibytes(64))
        names(on: disk, .fat)
        guard let map = try? FATReader.map(disk, Identity(kind: .fat, usage: .filesystem)) else { return }
        check(map, on: disk)
        promise(
            map.used.covers(Extent(from: .zero, to: ByteCount(min(512, disk.length.bytes)))), "the boot sector is used")
    }

    /// Swap space and hibernation images.
    static let swap = FuzzTarget(name: "swap", longest: 70_000, seeds: SwapSeeds.make) { input in
        let disk = SparseDisk(input, limit: .mebibytes(64))
        guard let map = try? SwapReader.map(disk, Identity(kind: .swap)) else { return }
        check(map, on: disk)
        promise(map.wholeBecause != nil || map.used.end <= .kibibytes(64), "only the header is used")
    }

    /// What is told of lost places: bounded, and safe to print.
    static func names(on disk: any BlockSource, _ kind: ContentKind) {
        var limits = FileNames.Limits()
        limits.names = 10
        limits.steps = 20_000
        let step = max(4096, disk.length.bytes / 16)
        let lost = ExtentList(
            stride(from: 0, to: disk.length.bytes, by: UInt64.Stride(step)).map {
                Extent(from: ByteCount($0), to: ByteCount(min(disk.length.bytes, $0 + 2048)))
            })
        guard let found = try? FileNames.at(lost, of: disk, kind: kind, limits: limits) else { return }
        keep(found)
        promise(found.items.count <= 31, "no more is named than was asked for")
        promise(
            found.items.allSatisfy { item in item.name.unicodeScalars.allSatisfy { $0.value >= 32 } },
            "names are safe to print")
    }

    /// What every map promises.
    static func check(_ map: VolumeMap, on disk: any BlockSource) {
        keep(map)
        if map.wholeBecause != nil {
            promise(map.used.byteCount == disk.length, "a volume that is imaged whole is used whole")
        } else {
            promise(map.used.end <= disk.length, "used bytes lie on the volume")
        }
        keep(map.model(number: 1, extent: Extent(from: .zero, to: disk.length)))
    }
}

enum ExtSeeds {
    /// The checksum as ext4 counts it: CRC-32C without the last inversion.
    private static func crc(_ seed: UInt32, _ bytes: [UInt8]) -> UInt32 {
        ~(unsafe CRC32.castagnoli.checksum(bytes.span.bytes, continuing: ~seed))
    }

    /// The superblock's checksum, and those of descriptors and block bitmaps, where the filesystem has metadata_csum, and
    /// those of the journal.
    static func mend(_ input: inout [UInt8]) {
        var disk = SparseEditor(input)
        JournalSeeds.mend(&disk)
        input = disk.input
        var superblock = disk.bytes(1024, 1024)
        // RO_COMPAT metadata_csum.
        guard superblock.number(UInt32.self, at: 0x64) & 0x400 != 0 else { return }
        let log = superblock.number(UInt32.self, at: 0x18)
        guard log <= 6 else { return }
        let block = UInt64(1024) << UInt64(log)
        let incompatible = superblock.number(UInt32.self, at: 0x60)
        let seed =
            incompatible & 0x2000 != 0
            ? superblock.number(UInt32.self, at: 0x270) : crc(~0, Array(superblock[0x68..<0x78]))
        let wide = incompatible & 0x80 != 0
        let size = wide ? max(32, min(1024, Int(superblock.number(UInt16.self, at: 0xFE)))) : 32
        let perGroup = UInt64(superblock.number(UInt32.self, at: 0x20))
        let clustersPerGroup = Int(superblock.number(UInt32.self, at: 0x24))
        let blocks = UInt64(superblock.number(UInt32.self, at: 4))
        let groups = perGroup == 0 ? 0 : min(16, (blocks + perGroup - 1) / perGroup)
        let table = (UInt64(superblock.number(UInt32.self, at: 0x14)) + 1) * block
        for group in 0..<groups {
            let place = table + group * UInt64(size)
            var descriptor = disk.bytes(place, size)
            // BLOCK_UNINIT: the bitmap is not read.
            if clustersPerGroup / 8 <= 65_536, descriptor.number(UInt16.self, at: 0x12) & 2 == 0 {
                let bitmap = UInt64(descriptor.number(UInt32.self, at: 0)) * block
                let check = crc(seed, disk.bytes(bitmap, clustersPerGroup / 8))
                descriptor.put(UInt16(truncatingIfNeeded: check), at: 0x18)
                if size >= 0x3A { descriptor.put(UInt16(truncatingIfNeeded: check >> 16), at: 0x38) }
            }
            descriptor.put(UInt16(0), at: 0x1E)
            var number: [UInt8] = []
            number.appendLittleEndian(UInt32(group))
            descriptor.put(UInt16(truncatingIfNeeded: crc(crc(seed, number), descriptor)), at: 0x1E)
            disk.store(place, descriptor)
        }
        superblock.put(crc(~0, Array(superblock[..<1020])), at: 1020)
        disk.store(1024, superblock)
        input = disk.input
    }

    private static let options: [(name: String, arguments: [String], size: Int)] = [
        ("ext2", ["-t", "ext2", "-b", "1024", "-O", "^resize_inode", "-N", "16"], 256 << 10),
        ("ext4", ["-t", "ext4", "-b", "1024", "-O", "^has_journal,^resize_inode", "-N", "16"], 256 << 10),
        (
            "ext4-groups",
            ["-t", "ext4", "-b", "1024", "-g", "256", "-O", "^has_journal,^resize_inode", "-G", "2", "-N", "64"],
            1 << 20
        ),
        (
            "ext4-bigalloc",
            ["-t", "ext4", "-b", "1024", "-C", "4096", "-O", "^has_journal,^resize_inode,bigalloc", "-N", "16"], 1 << 20
        ),
        (
            "ext4-gdt-csum",
            [
                "-t", "ext4", "-b", "1024", "-O", "^has_journal,^resize_inode,^metadata_csum,uninit_bg,meta_bg", "-N",
                "16",
            ],
            256 << 10
        ),
        ("ext3-journal", ["-t", "ext3", "-b", "1024", "-J", "size=1", "-O", "^resize_inode", "-N", "16"], 3 << 20),
        ("ext4-journal", ["-t", "ext4", "-b", "1024", "-J", "size=1", "-O", "^resize_inode", "-N", "16"], 3 << 20),
    ]

    @Sendable static func make() throws -> [(name: String, bytes: [UInt8])] {
        try options.map { name, arguments, size in
            let image = try Scratch(bytes: size)
            try image.run(
                "mke2fs", "e2fsprogs",
                ["-q", "-F", "-m", "0", "-U", "11111111-2222-3333-4444-555555555555"] + arguments
                    + [
                        "-E", "lazy_itable_init=0,hash_seed=11111111-2222-3333-4444-555555555555,root_owner=0:0",
                        image.path,
                    ],
                environment: ["SOURCE_DATE_EPOCH": "1700000000", "E2FSPROGS_FAKE_TIME": "1700000000"])
            var bytes = try image.bytes()
            if name.hasSuffix("-journal") {
                let blocks = try image.run("debugfs", "e2fsprogs", ["-R", "blocks <8>", image.path])
                    .split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
                if name.hasPrefix("ext4"), let start = blocks.first {
                    // As the kernel does at the first mount: version 3 of checksums, 64-bit block numbers.
                    bytes.putBig(0x13 as UInt32, at: start * 1024 + 40)
                    bytes[start * 1024 + 80] = 4
                }
                // Behind the first twelve blocks of ext3's lies a block that is none of the journal's.
                JournalSeeds.fill(&bytes, journal: blocks, from: name.hasPrefix("ext3") ? 1 : 100)
            }
            var input = SparseDisk.input(bytes, length: UInt64(size), block: 128)
            mend(&input)
            return (name, input)
        }
    }
}

enum FATSeeds {
    private static let options: [(name: String, arguments: [String], size: Int)] = [
        ("fat12", ["-F", "12"], 512 << 10), ("fat16", ["-F", "16", "-s", "1"], 3 << 20),
        ("fat32", ["-F", "32", "-s", "1"], 3 << 20), ("fat12-4096", ["-F", "12", "-S", "4096"], 4 << 20),
    ]

    @Sendable static func make() throws -> [(name: String, bytes: [UInt8])] {
        try options.map { name, arguments, size in
            let image = try Scratch(bytes: size)
            try image.run("mkfs.fat", "dosfstools", arguments + ["-i", "12345678", "--invariant", image.path])
            return (name, SparseDisk.input(try image.bytes(), length: UInt64(size), block: 64))
        }
    }
}

enum SwapSeeds {
    @Sendable static func make() throws -> [(name: String, bytes: [UInt8])] {
        let image = try Scratch(bytes: 256 << 10)
        try image.run("mkswap", "util-linux", ["-q", "-U", "11111111-2222-3333-4444-555555555555", image.path])
        var bytes = try image.bytes()
        var result = [("swap", SparseDisk.input(bytes, length: UInt64(bytes.count), block: 64))]
        bytes.replaceSubrange(4086..<4095, with: "S1SUSPEND".utf8)
        result.append(("hibernated", SparseDisk.input(bytes, length: UInt64(bytes.count), block: 64)))
        return result
    }
}
