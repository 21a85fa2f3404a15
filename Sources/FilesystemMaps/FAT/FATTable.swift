// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Geometry

/// A file allocation table read entry by entry, with the pages last used kept. Where one copy cannot be read the other is
/// asked.
final class FATTable {
    private let volume: any BlockSource
    private let boot: FATBootSector
    private var pages: [UInt64: [UInt8]] = [:]

    /// Bytes of a page: whole entries of every width, and whole sectors.
    private static let page: UInt64 = 48 << 10
    /// Pages kept: 24 MiB.
    private static let most = 512

    init(_ volume: any BlockSource, _ boot: FATBootSector) {
        self.volume = volume
        self.boot = boot
    }

    /// The entry of `cluster`; `nil` where neither copy can be read, or there is no such cluster.
    func entry(_ cluster: UInt32) -> UInt32? {
        let bits = boot.width.bits
        guard UInt64(cluster) < boot.clusters + 2 else { return nil }
        let perPage = FATTable.page * 8 / bits
        guard let bytes = page(UInt64(cluster) / perPage) else { return nil }
        let index = Int(UInt64(cluster) % perPage)
        let span = unsafe bytes.span.bytes
        switch boot.width {
        case .fat12:
            guard let pair = try? span.littleEndian(UInt16.self, "FAT entry", at: index * 3 / 2) else { return nil }
            return UInt32(index % 2 == 0 ? pair & 0xFFF : pair >> 4)
        case .fat16: return (try? span.littleEndian(UInt16.self, "FAT entry", at: index * 2)).map { UInt32($0) }
        case .fat32: return (try? span.littleEndian(UInt32.self, "FAT entry", at: index * 4)).map { $0 & 0x0FFF_FFFF }
        }
    }

    /// The cluster after `cluster` in its chain; `nil` at the end, and where the chain is broken.
    func next(_ cluster: UInt32) -> UInt32? {
        guard let value = entry(cluster), value >= 2, value < boot.width.bad, UInt64(value) < boot.clusters + 2 else {
            return nil
        }
        return value
    }

    private func page(_ number: UInt64) -> [UInt8]? {
        if let known = pages[number] { return known }
        let sector = boot.bytesPerSector.bytes
        let all = boot.tableSectors * sector
        let start = number * FATTable.page
        guard start < all else { return nil }
        let count = min(FATTable.page, all - start)
        var copies = Array(0..<boot.tables)
        if boot.width == .fat32, boot.flags & 0x80 != 0 {
            copies = [UInt64(boot.flags & 0xF)].filter { $0 < boot.tables }
        }
        for copy in copies {
            let at = ByteCount((boot.reservedSectors + copy * boot.tableSectors) * sector + start)
            guard let bytes = try? volume.bytes(at: at, count: Int(count)) else { continue }
            if pages.count >= FATTable.most { pages.removeAll(keepingCapacity: true) }
            pages[number] = bytes
            return bytes
        }
        return nil
    }
}
