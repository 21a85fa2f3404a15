// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel

@testable import FilesystemMaps

extension FuzzTarget {
    /// HFS+: wrapper, volume header, journal, allocation file.
    static let hfsplus = FuzzTarget(name: "hfsplus", longest: 40_000, seeds: HFSPlusSeeds.make) { input in
        let disk = SparseDisk(input, limit: .mebibytes(64))
        guard let map = try? HFSPlusReader.map(disk, Identity(kind: .hfsPlus, usage: .filesystem)) else { return }
        check(map, on: disk)
        guard map.wholeBecause == nil else { return }
        promise(map.used.covers(Extent(from: .zero, to: .kibibytes(2))), "boot blocks and header are used")
        promise(map.used.contains(disk.length - ByteCount(1)), "the last byte is used")
        promise(map.states == [.clean], "only a clean filesystem has a map")
    }
}

/// Volumes without files, made here byte by byte: the trees are not looked into.
enum HFSPlusSeeds {
    /// 1024 blocks of 512 bytes: the header in blocks 2 and 3, an allocation file in two pieces (4, 6), trees in 10 to
    /// 17, with a journal 20 and 24 to 31.
    static func volume(attributes: UInt32 = 0x100, journalEnd: UInt64 = 512) -> [UInt8] {
        let size = 512
        let blocks = 1024
        var disk = [UInt8](repeating: 0, count: blocks * size)
        var used: Set<Int> = [0, 1, 2, 3, 4, 1022, 1023, 900, 901, 555]
        used.formUnion(10..<18)
        let isJournaled = attributes & 0x2000 != 0
        if isJournaled {
            used.formUnion([20] + Array(24..<32))
            disk.putBig(1 as UInt32, at: 20 * size)
            disk.putBig(UInt64(24 * size), at: 20 * size + 36)
            disk.putBig(UInt64(8 * size), at: 20 * size + 44)
            disk.putBig(0x4A4E_4C78 as UInt32, at: 24 * size)
            disk.putBig(0x1234_5678 as UInt32, at: 24 * size + 4)
            disk.putBig(512 as UInt64, at: 24 * size + 8)
            disk.putBig(journalEnd, at: 24 * size + 16)
        }
        for block in used { disk[4 * size + block / 8] |= 0x80 >> UInt8(block % 8) }
        var header = [UInt8](repeating: 0, count: 512)
        header.replaceSubrange(0..<2, with: "H+".utf8)
        header.putBig(4 as UInt16, at: 2)
        header.putBig(attributes, at: 4)
        header.putBig(isJournaled ? 20 : 0 as UInt32, at: 12)
        header.putBig(UInt32(size), at: 40)
        header.putBig(UInt32(blocks), at: 44)
        header.putBig(UInt32(blocks - used.count), at: 48)
        func fork(_ index: Int, _ start: UInt32, _ count: UInt32) {
            let at = 112 + 80 * index
            header.putBig(UInt64(count) * UInt64(size), at: at)
            header.putBig(count, at: at + 12)
            header.putBig(start, at: at + 16)
            header.putBig(count, at: at + 20)
        }
        fork(0, 4, 1)
        fork(1, 10, 4)
        fork(2, 14, 4)
        disk.replaceSubrange(1024..<1536, with: header)
        disk.replaceSubrange((disk.count - 1024)..<(disk.count - 512), with: header)
        return disk
    }

    private static func wrapped(_ volume: [UInt8]) -> [UInt8] {
        var disk = [UInt8](repeating: 0, count: 8192)
        disk.replaceSubrange(1024..<1026, with: "BD".utf8)
        disk.putBig(1024 as UInt32, at: 1024 + 20)
        disk.putBig(8 as UInt16, at: 1024 + 28)
        disk.replaceSubrange(1024 + 124..<1024 + 126, with: "H+".utf8)
        disk.putBig(4 as UInt16, at: 1024 + 126)
        disk.putBig(UInt16(volume.count / 1024), at: 1024 + 128)
        return disk + volume + [UInt8](repeating: 0, count: 2048)
    }

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        let plain = volume()
        return [
            ("plain", plain), ("journaled", volume(attributes: 0x2100)),
            ("waiting", volume(attributes: 0x2100, journalEnd: 1024)), ("wrapped", wrapped(plain)),
        ].map { ($0, SparseDisk.input($1, length: UInt64($1.count), block: 64)) }
    }
}
