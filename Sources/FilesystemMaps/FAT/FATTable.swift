// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
package import Blocks
import Geometry

/// A file allocation table read entry by entry, with the pages last used kept. A cluster that is free in one copy, or
/// whose entry cannot be read there, is looked up in the other.
package final class FATTable {
    private let volume: any BlockSource
    private let boot: FATBootSector
    private let copies: [UInt64]
    private var pages: [UInt64: [UInt8]] = [:]
    /// Pages read so far.
    private(set) var loads: UInt64 = 0

    /// Bytes of a page: whole entries of every width, and whole sectors.
    static let page: UInt64 = 12 << 10
    /// Pages kept: 24 MiB.
    private static let most = 2048

    package init(_ volume: any BlockSource, _ boot: FATBootSector) {
        self.volume = volume
        self.boot = boot
        // FAT32 may name one table as the only one kept up to date.
        let active = boot.width == .fat32 && boot.flags & 0x80 != 0 ? UInt64(boot.flags & 0xF) : 0
        copies = (0..<boot.tables).sorted { $0 == active && $1 != active }
    }

    /// The entry of `cluster`; `nil` where neither copy can be read, or there is no such cluster.
    func entry(_ cluster: UInt32) -> UInt32? {
        var result: UInt32?
        for copy in copies {
            guard let value = entry(cluster, in: copy) else { continue }
            if value != 0 { return value }
            result = value
        }
        return result
    }

    private func entry(_ cluster: UInt32, in copy: UInt64) -> UInt32? {
        let bits = boot.width.bits
        guard UInt64(cluster) < boot.clusters + 2 else { return nil }
        let perPage = FATTable.page * 8 / bits
        guard let bytes = page(UInt64(cluster) / perPage, of: copy) else { return nil }
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
    package func next(_ cluster: UInt32) -> UInt32? {
        guard let value = entry(cluster), value >= 2, value < boot.width.bad, UInt64(value) < boot.clusters + 2 else {
            return nil
        }
        return value
    }

    private func page(_ number: UInt64, of copy: UInt64) -> [UInt8]? {
        let key = number * boot.tables + copy
        if let known = pages[key] { return known.isEmpty ? nil : known }
        let sector = boot.bytesPerSector.bytes
        let all = boot.tableSectors * sector
        let start = number * FATTable.page
        guard start < all else { return nil }
        let count = min(FATTable.page, all - start)
        let at = ByteCount((boot.reservedSectors + copy * boot.tableSectors) * sector + start)
        if pages.count >= FATTable.most { pages.removeAll(keepingCapacity: true) }
        loads += 1
        // One that cannot be read is remembered as empty: on a failing disk each attempt costs seconds.
        let bytes = (try? volume.bytes(at: at, count: Int(count))) ?? []
        pages[key] = bytes
        return bytes.isEmpty ? nil : bytes
    }
}
