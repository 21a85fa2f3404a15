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

/// Hostile metadata: whatever the bytes say, mapping ends and the map lies inside the volume.
struct MutationTests {
    static let nasty: [UInt64] = [
        0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 40, .max,
    ]

    /// Maps `count` mutations of `disk`, each with a few fields in `places` changed.
    static func run(
        _ disk: MemoryDisk, places: [Range<Int>], count: Int, seed: UInt64,
        _ map: (MemoryDisk) throws -> VolumeMap
    ) throws -> Int {
        let original = disk.bytes
        var generator = Seeded(seed)
        var partial = 0
        for _ in 0..<count {
            var touched: [Int] = []
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let place = places.randomElement(using: &generator) ?? 0..<1
                let width = [1, 2, 4, 8].randomElement(using: &generator) ?? 1
                let at = min(Int.random(in: place, using: &generator), original.count - width)
                let value =
                    Bool.random(using: &generator)
                    ? nasty.randomElement(using: &generator) ?? 0 : UInt64.random(in: 0...UInt64.max, using: &generator)
                let bytes = (0..<width).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
                try disk.write(at: ByteCount(UInt64(at)), unsafe bytes.span.bytes)
                touched.append(at)
            }
            let result = try map(disk)
            #expect(result.used.end <= disk.length)
            if result.wholeBecause == nil { partial += 1 }
            for at in touched {
                let old = Array(original[at..<min(at + 8, original.count)])
                try disk.write(at: ByteCount(UInt64(at)), unsafe old.span.bytes)
            }
        }
        #expect(disk.bytes == original)
        return partial
    }

    @Test(
        .enabled(if: mke2fs.path != nil, "e2fsprogs is needed"),
        arguments: [
            ["-t", "ext2", "-b", "1024"], ["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^uninit_bg"],
            [
                "-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^uninit_bg,meta_bg,^resize_inode,bigalloc", "-C",
                "8192",
            ],
            ["-t", "ext4", "-b", "4096"],
        ])
    func mutatedExt(options: [String]) throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(24))
        try mke2fs.check(["-q", "-F"] + options + [image])
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 24 << 20))
        let block = options.contains("4096") ? 4096 : 1024
        let descriptors = max(2048, block)
        // Superblock, its tail with the wide counts, the first descriptors, the first bitmaps.
        let partial = try Self.run(
            disk,
            places: [
                1024..<1300, 1024 + 0x150..<1024 + 0x180, descriptors..<descriptors + 192, 4 * block..<300 * block,
            ],
            count: 2500, seed: 11
        ) { try ExtReader.map($0, Identity(kind: .ext4)) }
        // Some change nothing that matters, so the reader got past the superblock.
        #expect(partial > 100)
    }

    @Test(.enabled(if: mkfat.path != nil, "dosfstools is needed"), arguments: ["12", "16", "32"])
    func mutatedFAT(width: String) throws {
        let folder = try ScratchFolder()
        let size: UInt64 = width == "12" ? 2 : width == "16" ? 10 : 34
        let image = try folder.file("x.img", .mebibytes(size))
        try mkfat.check(["-F", width, "-s", "1", image].filter { width != "12" || ($0 != "-s" && $0 != "1") })
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: Int(size) << 20))
        let partial = try Self.run(disk, places: [11..<66, 11..<66, 512..<20_000], count: 400, seed: 12) {
            try FATReader.map($0, Identity(kind: .fat))
        }
        #expect(partial > 20)
    }

    @Test(.enabled(if: mkntfs.path != nil, "ntfs-3g is needed"), arguments: [512, 4096])
    func mutatedNTFS(cluster: Int) throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(8))
        try mkntfs.check(["-F", "-Q", "-q", "-s", "512", "-c", "\(cluster)", image])
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 8 << 20))
        let boot = try NTFSBootSector(parsing: Array(disk.bytes.prefix(512)))
        let table = Int(boot.mft) * cluster
        let mirror = ByteCount(boot.mirror * UInt64(cluster))
        let copy = try disk.bytes(at: mirror, count: 4096)
        let volume = try NTFSVolume(disk, boot)
        let bitmap = Int(try NTFSTests.first(.bitmap, of: volume).start.bytes)
        let log = Int(try NTFSTests.first(.logFile, of: volume).start.bytes)
        // Boot sector, the records that are read, $Bitmap, the log's first page.
        let records = [0, 2, 3, 5, 6, 8].map { table + 1024 * $0..<table + 1024 * $0 + 600 }
        let partial = try Self.run(
            disk, places: [11..<80, bitmap..<bitmap + 64, log..<log + 64] + records, count: 3000, seed: 15
        ) { disk in
            // Only what both copies say is believed.
            let records = try disk.bytes(at: ByteCount(UInt64(table)), count: 4096)
            try disk.write(at: mirror, unsafe records.span.bytes)
            defer { try? disk.write(at: mirror, unsafe copy.span.bytes) }
            return try NTFSReader.map(disk, Identity(kind: .ntfs))
        }
        #expect(partial > 100)
    }

    @Test(.enabled(if: mkswap.path != nil, "util-linux is needed"))
    func mutatedSwap() throws {
        let folder = try ScratchFolder()
        let image = try SwapTests.made(folder)
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 1 << 20))
        _ = try Self.run(disk, places: [1024..<1100, 4086..<4096], count: 3000, seed: 13) {
            try SwapReader.map($0, Identity(kind: .swap))
        }
    }

    @Test func mutatedVolumesThroughTheFrontDoor() throws {
        guard mke2fs.path != nil else { return }
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(6))
        try mke2fs.check(["-q", "-F", "-t", "ext4", image])
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 6 << 20))
        _ = try Self.run(disk, places: [1024..<2048, 4096..<4200, 0..<512], count: 150, seed: 14) {
            try FilesystemMaps.map($0)
        }
    }
}
