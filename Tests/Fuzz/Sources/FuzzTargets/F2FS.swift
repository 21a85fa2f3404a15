// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel

@testable import FilesystemMaps

extension FuzzTarget {
    /// F2FS: superblocks, checkpoints, the segment information table and its journal.
    static let f2fs = FuzzTarget(name: "f2fs", longest: 40_000, seeds: F2FSSeeds.make, mend: F2FSSeeds.mend) { input in
        let disk = SparseDisk(input, limit: .mebibytes(64))
        guard let map = try? F2FSReader.map(disk, Identity(kind: .f2fs, usage: .filesystem)) else { return }
        check(map, on: disk)
        guard map.wholeBecause == nil else { return }
        promise(map.used.covers(Extent(from: .zero, to: .kibibytes(8))), "both superblocks are used")
        promise(map.states == [.clean] || map.states == [.damaged], "no other state has a map")
    }
}

/// Small filesystems, made here byte by byte: they take little room, since nearly all of it is zero.
enum F2FSSeeds {
    private static let block = 4096
    /// First blocks of the areas, of 512 blocks each but the main one, which has eight segments.
    private static let checkpoints: UInt64 = 512
    private static let table: UInt64 = 1536
    private static let nodes: UInt64 = 2560
    private static let summaries: UInt64 = 3584
    private static let main: UInt64 = 4096
    private static let segments: UInt64 = 8
    private static let length = (4096 + 8 * 512) * 4096

    private static func checksum(_ bytes: [UInt8], _ seed: UInt32 = 0xF2F5_2010) -> UInt32 {
        F2FSSuperblock.checksum(unsafe bytes.span.bytes, continuing: seed)
    }

    /// The superblocks' checksums, where they have one, and those of all blocks that may be a checkpoint.
    static func mend(_ input: inout [UInt8]) {
        var disk = SparseEditor(input)
        for place in [1024, 4096 + 1024] as [UInt64] {
            let bytes = disk.bytes(place, 3068)
            if bytes.number(UInt32.self, at: 2180) & 0x800 == 0 { continue }
            var check: [UInt8] = [0, 0, 0, 0]
            check.put(checksum(bytes), at: 0)
            disk.store(place + 3068, check)
        }
        for pack in [checkpoints, checkpoints + 512] {
            let total = UInt64(disk.bytes(pack * 4096 + 136, 4).number(UInt32.self, at: 0))
            for number in [0, total &- 1] where number < 512 {
                let place = (pack + number) * 4096
                var bytes = disk.bytes(place, block)
                let at = Int(bytes.number(UInt32.self, at: 164))
                guard at >= 192, at <= 4092 else { continue }
                var check = checksum(Array(bytes[..<at]))
                if at < 4092 { check = checksum(Array(bytes[(at + 4)...]), check) }
                bytes.put(check, at: at)
                disk.store(place, bytes)
            }
        }
        input = disk.input
    }

    /// `isCompact`: the form of the summaries. The second segment's entry comes from the journal.
    static func volume(isCompact: Bool, flags: UInt32 = 1, checked: Bool = false, synced: Bool = false) -> [UInt8] {
        var disk = [UInt8](repeating: 0, count: length)
        func put(_ bytes: [UInt8], _ place: Int) { disk.replaceSubrange(place..<place + bytes.count, with: bytes) }
        var superblock = [UInt8](repeating: 0, count: 3072)
        let words: [(Int, UInt64)] = [
            (0, 0xF2F5_2010), (4, 1 | 16 << 16), (8, 9), (12, 3), (16, 12), (20, 9), (24, 1), (28, 1),
            (32, checked ? 3068 : 0),
            (36, UInt64(length / block)), (44, segments), (48, 15), (52, 2), (56, 2), (60, 2), (64, 1), (68, segments),
            (72, checkpoints), (76, checkpoints), (80, table), (84, nodes), (88, summaries), (92, main), (96, 3),
            (100, 1),
            (104, 2), (2180, checked ? 0x800 : 0),
        ]
        for (offset, value) in words { superblock.put(UInt32(value), at: offset) }
        superblock.replaceSubrange(108..<124, with: 0x10..<0x20)
        superblock.replaceSubrange(124..<132, with: Array("t\0i\0n\0y\0".utf8))
        if checked { superblock.put(checksum(Array(superblock[..<3068])), at: 3068) }
        put(superblock, 1024)
        put(superblock, 4096 + 1024)

        // 20 valid blocks in segment 0, 7 in segment 1 (by the journal; the table says 3), 512 in segment 5, which the
        // second half of the table tells of, as of all.
        func entry(_ count: Int) -> [UInt8] {
            var bytes = [UInt8](repeating: 0, count: 74)
            bytes.put(UInt16(count), at: 0)
            for index in 0..<count { bytes[2 + index / 8] |= 0x80 >> UInt8(index % 8) }
            return bytes
        }
        let second = Int(table + 512) * block
        put(entry(20), second)
        put(entry(3), second + 74)
        put(entry(512), second + 5 * 74)
        put(entry(99), Int(table) * block)
        var journal: [UInt8] = [1, 0, 1, 0, 0, 0]
        journal += entry(7)

        for (pack, version) in [(checkpoints, 10), (checkpoints + 512, 11)] as [(UInt64, UInt64)] {
            var checkpoint = [UInt8](repeating: 0, count: block)
            checkpoint.put(version, at: 0)
            checkpoint.put(UInt64(539), at: 16)
            checkpoint.put(UInt32(6), at: 40)
            checkpoint.put(UInt16(5), at: 70)
            checkpoint.put(flags | (isCompact ? 4 : 0), at: 132)
            let total = isCompact ? 6 : 8
            checkpoint.put(UInt32(total), at: 136)
            checkpoint.put(UInt32(1), at: 140)
            checkpoint.put(UInt32(64), at: 156)
            checkpoint.put(UInt32(64), at: 160)
            checkpoint.put(UInt32(4092), at: 164)
            checkpoint[192] = 0x80
            checkpoint.put(checksum(Array(checkpoint[..<4092])), at: 4092)
            put(checkpoint, Int(pack) * block)
            put(checkpoint, (Int(pack) + total - 1) * block)
            put(journal, (Int(pack) + (isCompact ? 1 : 3)) * block + (isCompact ? 507 : 3584))
        }
        if synced { put([11, 0, 0, 0], (Int(main) + 6 * 512 + 5) * block + 4084) }
        return disk
    }

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        [
            ("plain", volume(isCompact: false)), ("compact", volume(isCompact: true, checked: true)),
            ("crashed", volume(isCompact: false, flags: 0)), ("synced", volume(isCompact: true, synced: true)),
        ].map { ($0, SparseDisk.input($1, length: UInt64($1.count), block: 64)) }
    }
}
