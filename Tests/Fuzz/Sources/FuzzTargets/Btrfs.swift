// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel

@testable import FilesystemMaps

extension FuzzTarget {
    /// Btrfs: superblock, chunks, trees, the log.
    static let btrfs = FuzzTarget(
        name: "btrfs", longest: 60_000, seeds: BtrfsSeeds.make, mend: BtrfsSeeds.mend
    ) { input in
        let disk = SparseDisk(input, limit: .mebibytes(64))
        guard let map = try? BtrfsReader.map(disk, Identity(kind: .btrfs, usage: .filesystem)) else { return }
        check(map, on: disk)
        guard map.wholeBecause == nil else { return }
        promise(map.used.covers(Extent(from: .zero, to: .mebibytes(1))), "the first MiB is used")
        promise(!map.states.contains(.dirty) && !map.states.contains(.unknownFeatures), "no such state has a map")
    }
}

/// Tiny filesystems, made here byte by byte: mkfs.btrfs makes none below 100 MiB, and not every feature.
enum BtrfsSeeds {
    struct Options {
        /// Type bits of the metadata chunk besides "metadata".
        var profile: UInt64 = 0
        var hasGroupTree = false
        var hasLog = false
        /// Whether the extent tree has a node above its leaves.
        var isTall = false
        var checksum: UInt16 = 0
    }

    private typealias Item = (object: UInt64, type: UInt8, offset: UInt64, data: [UInt8])

    private static let block = 4096
    private static let uuid = [UInt8](0x10..<0x20)
    private static let deviceUUID = [UInt8](0x30..<0x40)
    private static let generation: UInt64 = 7
    private static let chunks: [UInt64] = [0x100000, 0x200000, 0x300000]
    private static let length = 2 << 20

    /// Checksums of superblocks and tree blocks.
    static func mend(_ input: inout [UInt8]) {
        var disk = SparseEditor(input)
        let superblock = disk.bytes(65_536, 4096)
        guard let kind = BtrfsChecksum(rawValue: superblock.number(UInt16.self, at: 196)) else { return }
        func mended(_ place: UInt64, _ size: Int) {
            var bytes = disk.bytes(place, size)
            guard let check = kind.value(bytes) else { return }
            bytes.replaceSubrange(0..<check.count, with: check)
            disk.store(place, bytes)
        }
        mended(65_536, 4096)
        let size = Int(superblock.number(UInt32.self, at: 148))
        guard [4096, 8192, 16_384].contains(size) else { return }
        for place in stride(from: 1 << 20, to: UInt64(min(disk.length, 4 << 20)), by: size) {
            if disk.bytes(place + 32, 16) == Array(superblock[32..<48]) { mended(place, size) }
        }
        input = disk.input
    }

    private static func little(_ values: UInt64...) -> [UInt8] {
        values.flatMap { value in (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) } }
    }

    private static func key(_ item: (object: UInt64, type: UInt8, offset: UInt64, data: [UInt8])) -> [UInt8] {
        little(item.object) + [item.type] + little(item.offset)
    }

    private static func header(_ address: UInt64, _ owner: UInt64, _ generation: UInt64, _ count: Int, _ level: UInt8)
        -> [UInt8]
    {
        var bytes = [UInt8](repeating: 0, count: 32) + uuid + little(address, 1)
        bytes += [UInt8](repeating: 0x20, count: 16) + little(generation, owner)
        bytes.append(contentsOf: (0..<4).map { UInt8(truncatingIfNeeded: count >> (8 * $0)) })
        return bytes + [level]
    }

    private static func leaf(
        _ address: UInt64, _ owner: UInt64, _ items: [Item], generation: UInt64 = BtrfsSeeds.generation
    ) -> [UInt8] {
        var bytes = header(address, owner, generation, items.count, 0)
        var end = block - 101
        var tail: [UInt8] = []
        for item in items {
            end -= item.data.count
            bytes += key(item) + Array(little(UInt64(end)).prefix(4)) + Array(little(UInt64(item.data.count)).prefix(4))
            tail = item.data + tail
        }
        return bytes + [UInt8](repeating: 0, count: block - bytes.count - tail.count) + tail
    }

    private static func root(_ address: UInt64, level: UInt8 = 0, generation: UInt64 = BtrfsSeeds.generation) -> [UInt8]
    {
        var bytes = [UInt8](repeating: 0, count: 439)
        bytes.put(generation, at: 160)
        bytes.put(address, at: 176)
        bytes[238] = level
        return bytes
    }

    /// A chunk of 64 KiB for each of its stripes' turns.
    private static func chunk(_ length: UInt64, _ type: UInt64, _ offsets: [UInt64]) -> [UInt8] {
        var bytes = little(length, 2, 65_536, type) + [UInt8](repeating: 0, count: 12)
        bytes.append(contentsOf: [UInt8(offsets.count), 0, 2, 0])
        for offset in offsets { bytes += little(1, offset) + deviceUUID }
        return bytes
    }

    static func volume(_ options: Options) -> [UInt8] {
        var disk = [UInt8](repeating: 0, count: length)
        let isStriped = options.profile & 8 != 0
        let copies: [UInt64] = options.profile & 32 != 0 ? [0x120000, 0x140000] : [0x120000]
        let items: [[UInt8]] = [
            chunk(65_536, 2, [0x100000]),
            chunk(131_072, 4 | options.profile, isStriped ? [0x120000, 0x140000] : copies),
            chunk(131_072, 1, [0x160000]),
        ]
        func put(_ bytes: [UInt8]) {
            var bytes = bytes
            if let check = BtrfsChecksum(rawValue: options.checksum)?.value(bytes) {
                bytes.replaceSubrange(0..<check.count, with: check)
            }
            let address = bytes.number(UInt64.self, at: 48)
            var places = [address]
            if address >= chunks[1] {
                let inside = address - chunks[1]
                places =
                    isStriped
                    ? [(inside & 0x10000 == 0 ? 0x120000 : 0x140000) + inside % 0x10000] : copies.map { $0 + inside }
            }
            for place in places { disk.replaceSubrange(Int(place)..<Int(place) + bytes.count, with: bytes) }
        }

        var device = little(1, UInt64(length), 0x50000) + [UInt8](repeating: 0, count: 42) + deviceUUID + uuid
        device += [UInt8](repeating: 0, count: 98 - device.count)
        put(
            leaf(
                chunks[0], 3,
                [(1, 216, 1, device)] + zip(chunks, items).map { (256, 228, $0, $1) }))

        let metadata: [UInt64] = [0x200000, 0x201000, 0x202000, 0x203000, 0x204000].filter {
            ($0 != 0x202000 || options.hasGroupTree) && ($0 < 0x203000 || options.isTall)
        }
        let none = [UInt8](repeating: 0, count: 24)
        func group(_ index: Int, _ used: Int) -> Item {
            let lengths: [UInt64] = [65_536, 131_072, 131_072]
            let types = [2, 4 | options.profile, 1]
            return (chunks[index], 192, lengths[index], little(UInt64(used), 256, types[index]))
        }
        let groups = [group(0, block), group(1, metadata.count * block), group(2, 12_288)]
        var extents: [Item] = [(chunks[0], 169, 0, none)]
        extents += metadata.map { ($0, 169, 0, none) }
        extents += [(0x300000, 168, 8192, none), (0x304000, 168, 4096, none)]
        if !options.hasGroupTree { extents += groups }
        extents.sort { ($0.object, $0.type) < ($1.object, $1.type) }

        var roots: [Item] = [(2, 132, 0, root(options.isTall ? 0x203000 : 0x201000, level: options.isTall ? 1 : 0))]
        if options.hasGroupTree { roots.append((11, 132, 0, root(0x202000))) }
        put(leaf(0x200000, 1, roots))
        if options.isTall {
            let half = extents.count / 2
            let halves = [Array(extents[..<half]), Array(extents[half...])]
            var bytes = header(0x203000, 2, generation, 2, 1)
            for (items, address) in zip(halves, [0x201000, 0x204000] as [UInt64]) {
                put(leaf(address, 2, items))
                bytes += key(items[0]) + little(address, generation)
            }
            put(bytes + [UInt8](repeating: 0, count: block - bytes.count))
        } else {
            put(leaf(0x201000, 2, extents))
        }
        if options.hasGroupTree { put(leaf(0x202000, 11, groups)) }
        if options.hasLog {
            let log = UInt64(bitPattern: -6)
            var extent = little(8, 8192) + [0, 0, 0, 0, 1]
            extent += little(0x308000, 8192, 0, 8192)
            put(leaf(0x210000, log, [(log, 132, 5, root(0x211000, generation: 8))], generation: 8))
            put(leaf(0x211000, log, [(257, 1, 0, none), (257, 108, 0, extent)], generation: 8))
        }

        var superblock = [UInt8](repeating: 0, count: 4096)
        superblock.replaceSubrange(32..<48, with: uuid)
        superblock.replaceSubrange(64..<72, with: "_BHRfS_M".utf8)
        let used = UInt64((1 + metadata.count) * block + 12_288)
        let numbers: [(Int, UInt64)] = [
            (48, 65_536), (56, 1), (72, generation), (80, 0x200000), (88, chunks[0]),
            (96, options.hasLog ? 0x210000 : 0), (112, UInt64(length)), (120, used), (136, 1),
            (164, generation), (180, options.hasGroupTree ? 8 : 0), (188, 0x141),
        ]
        for (offset, value) in numbers { superblock.put(value, at: offset) }
        superblock.put(UInt32(block), at: 144)
        superblock.put(UInt32(block), at: 148)
        superblock.put(options.checksum, at: 196)
        superblock.replaceSubrange(201..<201 + 98, with: device)
        superblock.replaceSubrange(299..<303, with: "tiny".utf8)
        let array = key((256, 228, chunks[0], [])) + items[0]
        superblock.put(UInt32(array.count), at: 160)
        superblock.replaceSubrange(811..<811 + array.count, with: array)
        if let check = BtrfsChecksum(rawValue: options.checksum)?.value(superblock) {
            superblock.replaceSubrange(0..<check.count, with: check)
        }
        disk.replaceSubrange(65_536..<65_536 + 4096, with: superblock)
        return disk
    }

    static let options: [(name: String, options: Options)] = [
        ("single", Options()), ("dup", Options(profile: 32, isTall: true)),
        ("striped", Options(profile: 8, hasGroupTree: true)), ("log", Options(hasLog: true)),
        ("all", Options(profile: 32, hasGroupTree: true, hasLog: true, isTall: true, checksum: 1)),
    ]

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        options.map { ($0.name, SparseDisk.input(volume($0.options), length: UInt64(length), block: 64)) }
    }
}
