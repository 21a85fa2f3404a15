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

    /// A journal without checksums, so that everything in it is believed.
    @Test(.enabled(if: mke2fs.path != nil && debugfs.path != nil, "e2fsprogs is needed"), arguments: [5, 4])
    func mutatedJournals(shape: Int) throws {
        let folder = try ScratchFolder()
        let image = try ExtJournalTests.image(
            ExtJournalTests.written[shape], in: folder, seed: 3, count: 6, uncommitted: true)
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 32 << 20))
        let blocks = try ExtJournalTests.places(image).prefix(80).map { Int($0) }
        let partial = try Self.run(
            disk, places: blocks.map { $0..<$0 + 64 } + [blocks[0]..<blocks[0] + 96], count: 1500, seed: 14
        ) { try ExtReader.map($0, Identity(kind: .ext4)) }
        #expect(partial > 100)
    }

    /// Volumes without their first superblock or boot sector: the copies are changed, and what they lead to.
    @Test(.enabled(if: mke2fs.path != nil && mkfat.path != nil, "e2fsprogs and dosfstools are needed"))
    func mutatedSecondCopies() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(24))
        // A journal, three groups; no checksum over the copy, which would end each test too early.
        try mke2fs.check([
            "-q", "-F", "-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^uninit_bg", "-N", "128", image,
        ])
        try poke(image, 1024, [UInt8](repeating: 0, count: 1024))
        let copy = 8193 << 10
        var disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 24 << 20))
        let ext = try Self.run(
            disk, places: [copy..<copy + 300, copy + 0x150..<copy + 0x180, 2048..<2048 + 192], count: 600, seed: 21
        ) { try ExtReader.map($0, Identity(kind: .ext4)) }
        #expect(ext > 20)
        let fat = try folder.file("y.img", .mebibytes(34))
        try mkfat.check(["-F", "32", "-s", "1", fat])
        try poke(fat, 0, [UInt8](repeating: 0, count: 512))
        disk = MemoryDisk(try FileSource(path: fat).bytes(at: .zero, count: 34 << 20))
        let backup = 6 * 512
        let mapped = try Self.run(disk, places: [backup + 11..<backup + 71], count: 300, seed: 22) {
            try FATReader.map($0, Identity(kind: .fat))
        }
        #expect(mapped > 20)
    }

    /// A log that waits to be replayed, with fields of its records changed and the checksums made right again.
    @Test(.enabled(if: canMountXFS && CrashSeries.isPossible, "XFS in the kernel and root are needed"))
    func mutatedXFSLogs() throws {
        let (folder, image) = try XFSJournalTests.crashed()
        let source = try withExtendedLifetime(folder) { try FileSource(path: image) }
        let identity = Identity(kind: .xfs, usage: .filesystem)
        #expect(try XFSReader.map(source, identity).wholeBecause == nil)
        let log = try XFSLog(source, XFSSuperblock(parsing: source.bytes(at: .zero, count: 512)))
        let records = try XFSJournalTests.records(log)
        var random = Seeded(16)
        var partial = 0
        for _ in 0..<600 {
            let record = try #require(records.randomElement(using: &random))
            var bytes = try log.blocks(record.place, record.blocks).fields.bytes
            let content = Int(record.headers) * 512
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                // The headers, the first operations, or anything.
                let most = [64, content + 200, bytes.count].randomElement(using: &random) ?? 64
                let width = [1, 2, 4, 8].randomElement(using: &random) ?? 1
                let at = Int.random(in: 0..<most - 8, using: &random)
                let value =
                    Bool.random(using: &random)
                    ? Self.nasty.randomElement(using: &random) ?? 0 : UInt64.random(in: 0...UInt64.max, using: &random)
                for index in 0..<width { bytes[at + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index))) }
            }
            XFSJournalTests.mend(&bytes, record)
            let overlay = OverlaySource(source, blockSize: ByteCount(512))
            for index in 0..<bytes.count / 512 {
                let place = (record.place + UInt64(index)) % log.count
                try overlay.write(
                    at: log.place.start + ByteCount(place * 512),
                    unsafe bytes.span.bytes.extracting(index * 512..<index * 512 + 512))
            }
            let map = try XFSReader.map(overlay, identity)
            #expect(map.used.end <= source.length)
            if map.wholeBecause == nil { partial += 1 }
        }
        #expect(partial > 10)
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

    /// Directories and chains of a filled filesystem, of which the walk through them meets every mutation.
    @Test(.enabled(if: mkfat.path != nil && mcopy.path != nil, "dosfstools and mtools are needed"))
    func mutatedFATTree() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(6))
        try mkfat.check(["-F", "12", "-s", "8", image])
        let tree = try folder.tree(symbolicLinks: false)
        try shell.check(["-c", "cd \"$2\" && mcopy -s -i \"$1\" * ::", "copy", image, tree])
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 6 << 20))
        let boot = try FATBootSector(parsing: try disk.bytes(at: .zero, count: 512))
        let data = Int(boot.firstDataSector) * 512
        let partial = try Self.run(
            disk, places: [512..<data, data - 16384..<data, data..<data + 65536], count: 3000, seed: 17
        ) { try FATReader.map($0, Identity(kind: .fat)) }
        #expect(partial > 100)
    }

    /// What is named of mutated metadata is bounded, comes to an end, and counts no byte beyond those asked for.
    static func names(_ disk: MemoryDisk, _ kind: ContentKind, _ seed: inout Seeded) throws -> LostContent {
        let length = disk.length.bytes
        let extents = (0..<6).map { _ in
            let start = UInt64.random(in: 0..<length / 512, using: &seed) * 512
            return Extent(from: ByteCount(start), to: ByteCount(min(length, start + 4096)))
        }
        var limits = FileNames.Limits()
        limits.names = 20
        let found = try FileNames.at(ExtentList(extents), of: disk, kind: kind, limits: limits)
        #expect(found.items.count <= 60)
        #expect(found.items.allSatisfy { item in item.name.unicodeScalars.allSatisfy { $0.value >= 32 } })
        return found
    }

    @Test(
        .enabled(if: mke2fs.path != nil, "e2fsprogs is needed"),
        arguments: [
            ["-t", "ext2", "-b", "1024"], ["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,inline_data"],
            ["-t", "ext4", "-b", "1024"],
        ])
    func namesOfMutatedExt(options: [String]) throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(6))
        try mke2fs.check(
            ["-q", "-F", "-N", "256", "-d", try folder.tree(symbolicLinks: true)] + options + [image])
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 6 << 20))
        let table = Int(
            try #require(
                try dumpe2fs.check([image]).standardOutput.split(separator: "Inode table at ").dropFirst().first
                    .flatMap { UInt64($0.prefix { $0.isNumber }) }))
        var named = 0
        var generator = Seeded(31)
        _ = try Self.run(
            disk, places: [1024..<1300, 2048..<2112, table << 10..<(table + 48) << 10, (table + 48) << 10..<6 << 20],
            count: 1500, seed: 32
        ) { disk in
            named += try Self.names(disk, .ext4, &generator).items.count { $0.kind == .file }
            return VolumeMap(identity: Identity(kind: .ext4), whole: disk.length)
        }
        #expect(named > 300)
    }

    @Test(
        .enabled(if: mkfat.path != nil && mcopy.path != nil, "dosfstools and mtools are needed"),
        arguments: ["12", "16"])
    func namesOfMutatedFAT(width: String) throws {
        let folder = try ScratchFolder()
        let size: UInt64 = width == "12" ? 4 : 10
        let image = try folder.file("x.img", .mebibytes(size))
        try mkfat.check(["-F", width, image])
        try mcopy.check(["-i", image, "-s", try folder.tree(symbolicLinks: false), "::"])
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: Int(size) << 20))
        let boot = try FATBootSector(parsing: try disk.bytes(at: .zero, count: 512))
        let data = Int(boot.firstDataSector * 512)
        var named = 0
        var generator = Seeded(33)
        _ = try Self.run(disk, places: [11..<62, 512..<4096, data..<data + 100_000], count: 800, seed: 34) { disk in
            named += try Self.names(disk, .fat, &generator).items.count { $0.kind == .file }
            return VolumeMap(identity: Identity(kind: .fat), whole: disk.length)
        }
        #expect(named > 100)
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

    @Test(.enabled(if: mkxfs.path != nil, "xfsprogs is needed"), arguments: [["-m", "crc=0"], []])
    func mutatedXFS(options: [String]) throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(36))
        // The smallest one that xfsprogs makes at all.
        try mkxfs.check(["-q", "--unsupported", "-d", "agcount=2", "-l", "agnum=0"] + options + [image])
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 36 << 20))
        let superblock = try XFSSuperblock(parsing: Array(disk.bytes.prefix(512)))
        let log = Int(try XFSLog(disk, superblock).place.start.bytes)
        let root = 4096 * Int(disk.bytes[512 + 18]) * 256 + 4096 * Int(disk.bytes[512 + 19])
        let places = [0..<260, 512..<512 + 80, 512 + 16..<512 + 32, root..<root + 80, log..<log + 530]
        let partial = try Self.run(disk, places: places, count: 3000, seed: 16) { disk in
            guard superblock.isVersion5 else { return try XFSReader.map(disk, Identity(kind: .xfs)) }
            // Checksums are mended, so that what lies behind them is reached.
            var touched: [(ByteCount, [UInt8])] = []
            for (place, count, offset) in [(0, 512, 224), (512, 512, 216), (root, 4096, 52)] {
                let place = ByteCount(UInt64(place))
                let old = try disk.bytes(at: place, count: count)
                touched.append((place, old))
                var new = old
                let check = XFSChecksum.value(old, at: offset)
                new.replaceSubrange(
                    offset..<offset + 4, with: (0..<4).map { UInt8(truncatingIfNeeded: check >> (8 * $0)) })
                try disk.write(at: place, unsafe new.span.bytes)
            }
            defer { for (place, old) in touched { try? disk.write(at: place, unsafe old.span.bytes) } }
            return try XFSReader.map(disk, Identity(kind: .xfs))
        }
        #expect(partial > 100)
    }

    /// Maps mutations of `disk` with all checksums of `blocks` (place and length) mended first, and put back afterwards.
    static func mended(
        _ disk: MemoryDisk, _ blocks: [(UInt64, Int)], _ sum: ([UInt8]) -> [UInt8]?, at offset: Int = 0,
        _ map: (MemoryDisk) throws -> VolumeMap
    ) throws -> VolumeMap {
        var touched: [(ByteCount, [UInt8])] = []
        for (place, count) in blocks {
            let old = try disk.bytes(at: ByteCount(place), count: count)
            touched.append((ByteCount(place), old))
            var new = old
            guard let check = sum(old) else { continue }
            new.replaceSubrange(offset..<offset + check.count, with: check)
            try disk.write(at: ByteCount(place), unsafe new.span.bytes)
        }
        defer { for (place, old) in touched { try? disk.write(at: place, unsafe old.span.bytes) } }
        return try map(disk)
    }

    @Test(.enabled(if: mkbtrfs.path != nil, "btrfs-progs is needed"))
    func mutatedBtrfs() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(24))
        // The smallest one, mixed, with small blocks and single metadata, so that nothing is mended from a copy.
        try mkbtrfs.check(["-q", "-M", "-n", "4096", "-m", "single", "-d", "single", image])
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 24 << 20))
        let volume = try BtrfsVolume([BtrfsMember(disk)])
        let extents = try volume.trees().extents
        var blocks: [(UInt64, Int)] = [(65_536, 4096)]
        for address in [volume.superblock.root, volume.superblock.chunkRoot, extents.root] {
            let chunk = try #require(volume.chunk(of: address, count: 4096))
            blocks.append((try #require(volume.chunks[chunk].places(of: address, count: 4096).first).offset, 4096))
        }
        // Of the superblock the first fields and the array of chunks; of the trees heads, keys, and items at the end.
        var places = [65_536 + 32..<65_536 + 300, 65_536 + 811..<65_536 + 940]
        for (place, _) in blocks.dropFirst() {
            let start = Int(place)
            places += [start + 32..<start + 300, start + 3000..<start + 4096]
        }
        let partial = try Self.run(disk, places: places, count: 4000, seed: 21) { disk in
            try Self.mended(disk, blocks, { BtrfsChecksum.crc32c.value($0) }) {
                try BtrfsReader.map($0, Identity(kind: .btrfs))
            }
        }
        #expect(partial > 100)
    }

    @Test(.enabled(if: mkexfat.path != nil, "exfatprogs is needed"))
    func mutatedExFAT() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(4))
        try mkexfat.check(["-c", "512", "-b", "512", image])
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 4 << 20))
        let boot = try ExFATBootSector(parsing: Array(disk.bytes.prefix(512)))
        let root = Int(boot.place(UInt64(boot.root)).bytes)
        let table = Int(boot.tableStart) * 512
        let places = [
            64..<120, table..<table + 64, root..<root + 160, Int(boot.heap.bytes)..<Int(boot.heap.bytes) + 900,
        ]
        func sum(_ region: [UInt8]) -> [UInt8] {
            let sum = ExFATBootSector.checksum(region[..<(11 * 512)])
            return (0..<512).map { UInt8(truncatingIfNeeded: sum >> UInt32($0 % 4 * 8)) }
        }
        let partial = try Self.run(disk, places: places, count: 1500, seed: 22) { disk in
            try Self.mended(disk, [(0, 12 * 512)], sum, at: 11 * 512) {
                try ExFATReader.map($0, Identity(kind: .exFAT))
            }
        }
        #expect(partial > 100)
    }

    @Test(.enabled(if: mkf2fs.path != nil, "f2fs-tools is needed"))
    func mutatedF2FS() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(52))
        try mkf2fs.check(["-q", "-f", image])
        let disk = MemoryDisk(try FileSource(path: image).bytes(at: .zero, count: 52 << 20))
        let superblock = try F2FSSuperblock(parsing: Array(disk.bytes[1024..<1024 + F2FSSuperblock.size]))
        let (checkpoint, _) = try F2FSCheckpoint.newest(disk, superblock)
        let first = checkpoint.start * 4096
        let last = first + (checkpoint.packBlocks - 1) * 4096
        let journal = Int(first + checkpoint.summaries * 4096) + 507
        let table = Int(superblock.table) * 4096
        let places = [
            1024..<1124, 1024 + 2170..<1024 + 2210, Int(first)..<Int(first) + 260, journal..<journal + 200,
            table..<table + 200,
        ]
        func sum(_ block: [UInt8]) -> [UInt8] {
            let body = Array(block.prefix(4092))
            let check = F2FSSuperblock.checksum(unsafe body.span.bytes)
            return (0..<4).map { UInt8(truncatingIfNeeded: check >> (8 * $0)) }
        }
        let partial = try Self.run(disk, places: places, count: 3000, seed: 23) { disk in
            try Self.mended(disk, [(first, 4096), (last, 4096)], sum, at: 4092) {
                try F2FSReader.map($0, Identity(kind: .f2fs))
            }
        }
        #expect(partial > 100)
    }

    @Test(arguments: [nil, HFSPlusImage.Journal.empty])
    func mutatedHFSPlus(journal: HFSPlusImage.Journal?) throws {
        let image = HFSPlusImage(blockSize: 512, blocks: 1200, journal: journal)
        let disk = MemoryDisk(image.made().bytes)
        let partial = try Self.run(
            disk, places: [1024..<1536, 1024..<1100, 1536..<1700, 1536 + 512..<30_000], count: 4000, seed: 24
        ) { try HFSPlusReader.map($0, Identity(kind: .hfsPlus)) }
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
