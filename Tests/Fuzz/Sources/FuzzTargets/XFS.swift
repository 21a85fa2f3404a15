// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Geometry
import MachineModel

@testable import FilesystemMaps

extension FuzzTarget {
    /// XFS: superblock and its copy, the log and its replay, headers and free space trees of the groups.
    static let xfs = FuzzTarget(name: "xfs", longest: 40_000, seeds: XFSSeeds.make, mend: XFSSeeds.mend) { input in
        let disk = SparseDisk(input, limit: .mebibytes(64))
        guard let map = try? XFSReader.map(disk, Identity(kind: .xfs, usage: .filesystem)) else { return }
        check(map, on: disk)
        guard map.wholeBecause == nil else { return }
        promise(map.used.covers(Extent(from: .zero, to: ByteCount(2048))), "the first headers are used")
        promise(
            [[.clean], [.damaged], [.journalToReplay]].contains(map.states), "no other state has a map")
    }
}

/// Tiny filesystems, made here byte by byte: mkfs.xfs makes none below 300 MiB.
enum XFSSeeds {
    private static let block = 512
    private static let groupBlocks = 256
    private static let groups = 2
    private static let logStart = 64
    private static let logBlocks = 64
    private static let uuid = [UInt8](0x10..<0x20)

    /// Checksums of superblocks, group headers and tree blocks, where the filesystem has them, and of the records of the
    /// log; the superblock's free blocks are made the sum of the headers'.
    static func mend(_ input: inout [UInt8]) {
        var disk = SparseEditor(input)
        var first = disk.bytes(0, 512)
        guard first.big(UInt32.self, at: 0) == 0x5846_5342 else { return }
        let block = UInt64(first.big(UInt32.self, at: 4))
        let group = UInt64(first.big(UInt32.self, at: 84)) * block
        let sector = UInt64(first.big(UInt16.self, at: 102))
        let groups = min(8, UInt64(first.big(UInt32.self, at: 88)))
        guard block >= 512, block <= 4096, sector >= 512, sector <= 4096, group <= 1 << 40 else { return }
        let hasChecksums = first.big(UInt16.self, at: 100) & 15 == 5
        func mended(_ bytes: [UInt8], _ offset: Int) -> [UInt8] {
            var result = bytes
            if hasChecksums { result.put(XFSChecksum.value(bytes, at: offset), at: offset) }
            return result
        }
        var free: UInt64 = 0
        for number in 0..<groups {
            let place = number * group + sector
            let header = disk.bytes(place, Int(sector))
            disk.store(place, mended(header, 216))
            for offset in [48, 52, 60] { free &+= UInt64(header.big(UInt32.self, at: offset)) }
        }
        for place in stride(from: 0, to: min(disk.length, 1024 * block), by: Int(block)) {
            let magic = disk.bytes(place, 4)
            if magic == Array("AB3B".utf8) || magic == Array("AB3C".utf8) {
                disk.store(place, mended(disk.bytes(place, Int(block)), 52))
            }
        }
        let log = first.big(UInt64.self, at: 48) &* block
        let size = min(64 << 10, UInt64(first.big(UInt32.self, at: 96)) &* block)
        if log < disk.length, log <= 1 << 40 {
            for place in stride(from: log, to: log + size, by: 512) where place + 512 <= disk.length {
                let header = disk.bytes(place, 512)
                guard header.big(UInt32.self, at: 0) == 0xFEED_BABE else { continue }
                let content = min(Int(header.big(UInt32.self, at: 12)), 32 << 10)
                disk.store(place, checked(header, disk.bytes(place + 512, content)))
            }
        }
        first.putBig(free, at: 144)
        disk.store(0, first)
        disk.store(0, mended(disk.bytes(0, Int(sector)), 224))
        disk.store(group, mended(disk.bytes(group, Int(sector)), 224))
        input = disk.input
    }

    /// The header of a log record of at most 32 KiB with the checksum it must have.
    private static func checked(_ header: [UInt8], _ content: [UInt8]) -> [UInt8] {
        var result = header
        result.put(0 as UInt32, at: 32)
        result.put(CRC32.castagnoli.checksum(Array(result[..<328]) + content), at: 32)
        return result
    }

    /// The log of a filesystem that was not unmounted: a transaction that takes two blocks from the first group's free
    /// run, whose tree and tree of sizes have their leaves at blocks 8 and 12, and says that it is to free one of them.
    /// A second transaction may cancel the buffer at block `cancelled`.
    private static func log(from start: Int, count: Int, cancelled: Int?) -> [UInt8] {
        let taken = 2
        func region(_ bytes: [UInt8], flags: UInt8 = 0) -> [UInt8] {
            var operation = [UInt8](repeating: 0, count: 12)
            operation.putBig(7 as UInt32, at: 0)
            operation.putBig(UInt32(bytes.count), at: 4)
            operation[8] = 0x69
            operation[9] = flags
            return operation + bytes
        }
        /// A buffer of one block of which the pieces of 128 bytes named were logged.
        func buffer(_ block: Int, type: UInt16, flags: UInt16 = 0, _ content: [UInt8], _ pieces: [Int]) -> [UInt8] {
            var format = [UInt8](repeating: 0, count: 24)
            format.put(0x123C as UInt16, at: 0)
            format.put(UInt16(pieces.count + 1), at: 2)
            format.put(type << 11 | flags, at: 4)
            format.put(1 as UInt16, at: 6)
            format.put(UInt64(block), at: 8)
            format.put(1 as UInt32, at: 16)
            format.put(pieces.reduce(UInt32(0)) { $0 | 1 << UInt32($1) }, at: 20)
            return region(format)
                + pieces.flatMap { region(Array(content[$0 * 128..<$0 * 128 + 128])) }
        }
        let disk = volume(version5: true)
        func block(_ number: Int, _ change: (inout [UInt8]) -> Void) -> [UInt8] {
            var bytes = Array(disk[number * 512..<number * 512 + 512])
            change(&bytes)
            return bytes
        }
        let header = block(1) {
            $0.putBig(UInt32(count - taken), at: 52)
            $0.putBig(UInt32(count - taken), at: 56)
        }
        let leaf = { (number: Int) in
            block(number) {
                $0.putBig(UInt32(start + taken), at: 56)
                $0.putBig(UInt32(count - taken), at: 60)
            }
        }
        var begin = [UInt8](repeating: 0, count: 16)
        begin.put(0x5452_414E as UInt32, at: 0)
        begin.put(40 as UInt32, at: 4)
        begin.put(4 as UInt32, at: 12)
        var free = [UInt8](repeating: 0, count: 32)
        free.put(0x1236 as UInt16, at: 0)
        free.put(1 as UInt16, at: 2)
        free.put(1 as UInt32, at: 4)
        free.put(UInt64(start + 1), at: 16)
        free.put(1 as UInt32, at: 24)
        var content = region([], flags: 0x01) + region(begin)
        content +=
            buffer(1, type: 5, header, [0]) + buffer(8, type: 4, leaf(8), [0]) + buffer(12, type: 4, leaf(12), [0])
        content += region(free) + region([], flags: 0x02)
        if let cancelled {
            content += region([], flags: 0x01) + region(begin) + buffer(cancelled, type: 0, flags: 2, [], [])
            content += region([], flags: 0x02)
        }
        // Start, header, three buffers of two regions, one of one, commit; then start, header, buffer, commit.
        var record = [UInt8](repeating: 0, count: 512)
        for (offset, value) in [
            (0, 0xFEED_BABE), (4, 1), (8, 2), (12, UInt32(content.count)), (16, 1), (20, 0), (24, 1), (28, 0),
            (40, cancelled == nil ? 10 : 14),
            (300, 1), (320, 32768),
        ]
            as [(Int, UInt32)]
        { record.putBig(value, at: offset) }
        record.replaceSubrange(304..<320, with: uuid)
        for index in 0..<(content.count + 511) / 512 {
            record.replaceSubrange(44 + index * 4..<48 + index * 4, with: content[index * 512..<index * 512 + 4])
            content.putBig(1 as UInt32, at: index * 512)
        }
        return checked(record, content) + content
    }

    /// A filesystem of two groups of 256 blocks of 512 bytes. The second group's free space is every other block of its
    /// last two hundred, so that its tree has two levels.
    static func volume(version5: Bool, mounted: Bool = false, cancelled: Int? = nil) -> [UInt8] {
        var disk = [UInt8](repeating: 0, count: groups * groupBlocks * block)
        func put(_ bytes: [UInt8], _ index: Int, checksum: Int? = nil) {
            var bytes = bytes
            if version5, let checksum { bytes.put(XFSChecksum.value(bytes, at: checksum), at: checksum) }
            disk.replaceSubrange(index * block..<index * block + bytes.count, with: bytes)
        }
        // Group 0: all behind the log; group 1: every other block.
        let runs = [
            [(logStart + logBlocks, groupBlocks - logStart - logBlocks)],
            stride(from: 56, to: groupBlocks, by: 2).map { ($0, 1) },
        ]
        let header = version5 ? 56 : 16
        let perLeaf = (block - header) / 8
        let perNode = (block - header) / 12
        var free = 0
        for (group, runs) in runs.enumerated() {
            let leaves = stride(from: 0, to: runs.count, by: perLeaf).map {
                Array(runs[$0..<min($0 + perLeaf, runs.count)])
            }
            // The tree by block, then that by size: all runs of a group are of one size.
            for (first, node, magic) in [(8, 5, version5 ? "AB3B" : "ABTB"), (12, 6, version5 ? "AB3C" : "ABTC")] {
                func begin(_ level: Int, _ count: Int, left: UInt32, right: UInt32, _ index: Int) -> [UInt8] {
                    var bytes = [UInt8](repeating: 0, count: block)
                    bytes.replaceSubrange(0..<4, with: magic.utf8)
                    bytes.putBig(UInt16(level), at: 4)
                    bytes.putBig(UInt16(count), at: 6)
                    bytes.putBig(left, at: 8)
                    bytes.putBig(right, at: 12)
                    if version5 {
                        bytes.putBig(UInt64(group * groupBlocks + index), at: 16)
                        bytes.replaceSubrange(32..<48, with: uuid)
                        bytes.putBig(UInt32(group), at: 48)
                    }
                    return bytes
                }
                for (index, leaf) in leaves.enumerated() {
                    var bytes = begin(
                        0, leaf.count, left: index == 0 ? .max : UInt32(first + index - 1),
                        right: index + 1 == leaves.count ? .max : UInt32(first + index + 1), first + index)
                    for (place, run) in leaf.enumerated() {
                        bytes.putBig(UInt32(run.0), at: header + place * 8)
                        bytes.putBig(UInt32(run.1), at: header + place * 8 + 4)
                    }
                    put(bytes, group * groupBlocks + first + index, checksum: 52)
                }
                let root = leaves.count == 1 ? first : node
                if leaves.count > 1 {
                    var bytes = begin(1, leaves.count, left: .max, right: .max, root)
                    for (index, leaf) in leaves.enumerated() {
                        bytes.putBig(UInt32(leaf[0].0), at: header + index * 8)
                        bytes.putBig(UInt32(leaf[0].1), at: header + index * 8 + 4)
                        bytes.putBig(UInt32(first + index), at: header + perNode * 8 + index * 4)
                    }
                    put(bytes, group * groupBlocks + root, checksum: 52)
                }
            }
            let sum = runs.reduce(0) { $0 + $1.1 }
            let roots = leaves.count == 1 ? (8, 12, 1) : (5, 6, 2)
            let numbers: [Int] = [
                1, group, groupBlocks, roots.0, roots.1, 0, roots.2, roots.2, 0, 0, 3, 4, sum,
            ]
            var bytes = [UInt8](repeating: 0, count: block)
            bytes.replaceSubrange(0..<4, with: "XAGF".utf8)
            for (index, number) in numbers.enumerated() { bytes.putBig(UInt32(number), at: 4 + 4 * index) }
            bytes.putBig(UInt32(runs.map(\.1).max() ?? 0), at: 56)
            bytes.replaceSubrange(64..<80, with: uuid)
            put(bytes, group * groupBlocks + 1, checksum: 216)
            free += sum + 4
        }

        var superblock = [UInt8](repeating: 0, count: block)
        superblock.replaceSubrange(0..<4, with: "XFSB".utf8)
        superblock.putBig(UInt32(block), at: 4)
        superblock.putBig(UInt64(groups * groupBlocks), at: 8)
        superblock.replaceSubrange(32..<48, with: uuid)
        superblock.putBig(UInt64(logStart), at: 48)
        superblock.putBig(UInt32(groupBlocks), at: 84)
        superblock.putBig(UInt32(groups), at: 88)
        superblock.putBig(UInt32(logBlocks), at: 96)
        superblock.putBig(version5 ? 0xB4A5 : 0xB4A4 as UInt16, at: 100)
        superblock.putBig(UInt16(block), at: 102)
        superblock.replaceSubrange(108..<112, with: "tiny".utf8)
        superblock.replaceSubrange(120..<125, with: [9, 9, 8, 1, 8])
        superblock.putBig(UInt64(free), at: 144)
        superblock.putBig(version5 ? 0x18A : 0x8A as UInt32, at: 200)
        if version5 { superblock.putBig(3 as UInt32, at: 216) }
        put(superblock, 0, checksum: 224)
        put(superblock, groupBlocks, checksum: 224)

        if mounted {
            put(
                log(
                    from: logStart + logBlocks, count: groupBlocks - logStart - logBlocks, cancelled: cancelled),
                logStart)
            return disk
        }
        var log = [UInt8](repeating: 0, count: 2 * block)
        for (offset, value) in [
            (0, 0xFEED_BABE), (4, 1), (8, 2), (12, 512), (16, 1), (20, 0), (24, 1), (40, 1), (300, 1), (320, 32768),
        ]
            as [(Int, UInt32)]
        { log.putBig(value, at: offset) }
        log.replaceSubrange(304..<320, with: uuid)
        log.putBig(1 as UInt32, at: 512)
        log[512 + 9] = 0x20
        put(log, logStart)
        return disk
    }

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        [
            ("version5", volume(version5: true)), ("version4", volume(version5: false)),
            ("mounted", volume(version5: true, mounted: true)),
        ].map { name, disk in
            (name, SparseDisk.input(disk, length: UInt64(disk.count), block: 64))
        }
    }
}

extension [UInt8] {
    /// The big-endian number of `T`'s size at `offset`; 0 outside.
    func big<T: FixedWidthInteger>(_ type: T.Type, at offset: Int) -> T { number(type, at: offset).byteSwapped }

    /// Stores `value` big-endian at `offset`; nothing outside.
    mutating func putBig<T: FixedWidthInteger>(_ value: T, at offset: Int) { put(value.byteSwapped, at: offset) }
}
