// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import Threads

/// Which files of a FAT12, FAT16 or FAT32 filesystem lie at damaged places: every directory is read and every chain of
/// clusters followed.
struct FATNames {
    private let volume: any BlockSource
    private let boot: FATBootSector
    private let table: FATTable
    private let limits: FileNames.Limits
    private var tally: LossTally
    private var steps: UInt64
    private var directories: [Directory] = []
    private var items: [LostContent.Item] = []
    private var more = 0

    private struct Directory {
        /// First cluster; 0 for the fixed root directory.
        var cluster: UInt32
        /// The directory above, an index; itself for the root.
        var parent: Int
        var name: String
        var depth: Int
    }
    /// A directory has at most this many bytes.
    private static let mostDirectoryBytes: UInt64 = 65536 * 32
    private static let mostDirectories = 1 << 20
    private static let mostDepth = 128

    static func at(
        _ damaged: ExtentList, of source: any BlockSource, _ limits: FileNames.Limits
    ) throws(Fault) -> LostContent {
        let spared = Faulty(source, bad: limits.spared ?? damaged)
        let boot: FATBootSector
        do {
            boot = try FATBootSector(parsing: try spared.bytes(at: .zero, count: 512))
        } catch let error as Fault {
            return .untold(damaged, because: "Which files lie there cannot be told: \(error.what)")
        } catch {
            return .untold(damaged, because: "Which files lie there cannot be told: its boot sector is damaged.")
        }
        guard boot.size <= source.length else {
            return .untold(damaged, because: "Which files lie there cannot be told: its end is missing.")
        }
        var walk = FATNames(spared, boot, damaged, limits)
        walk.regions()
        try walk.walk()
        try walk.unclaimed()
        return LostContent(items: walk.items + walk.tally.others, more: walk.more, notes: walk.tally.notes)
    }

    private init(
        _ volume: any BlockSource, _ boot: FATBootSector, _ damaged: ExtentList, _ limits: FileNames.Limits
    ) {
        self.volume = volume
        self.boot = boot
        self.table = FATTable(volume, boot)
        self.limits = limits
        self.tally = LossTally(damaged, limit: limits.names)
        // A sound filesystem has each cluster in one chain.
        self.steps = min(limits.steps, boot.clusters * 4 + 65536)
    }

    private var dataStart: ByteCount { ByteCount(boot.firstDataSector * boot.bytesPerSector.bytes) }

    private func sectors(_ first: UInt64, _ count: UInt64) -> Extent {
        Extent(
            from: ByteCount(first * boot.bytesPerSector.bytes),
            to: ByteCount((first + count) * boot.bytesPerSector.bytes))
    }

    /// Boot sectors and tables.
    private mutating func regions() {
        tally.region(.metadata, "boot sector and reserved sectors", sectors(0, boot.reservedSectors))
        for copy in 0..<boot.tables {
            tally.region(
                .metadata, "allocation table \(copy + 1)",
                sectors(boot.reservedSectors + copy * boot.tableSectors, boot.tableSectors))
        }
    }

    private mutating func walk() throws(Fault) {
        var root: UInt32 = 0
        if boot.is32 {
            let bytes = try? volume.bytes(at: .zero, count: 512)
            root =
                bytes.flatMap { bytes in
                    let span = unsafe bytes.span.bytes
                    return try? span.littleEndian(UInt32.self, "BPB_RootClus", at: 44)
                } ?? 0
        }
        directories = [Directory(cluster: root, parent: 0, name: "", depth: 0)]
        var seen: Set<UInt32> = [root]
        var index = 0
        while index < directories.count {
            try Interruption.check()
            guard steps > 0, !limits.stop() else {
                tally.note("Not everything was looked at: the time or the number of clusters was used up.")
                return
            }
            look(index, &seen)
            index += 1
        }
    }

    /// Reads a directory, follows the chains of its files and keeps its directories for later.
    private mutating func look(_ index: Int, _ seen: inout Set<UInt32>) {
        let directory = directories[index]
        var reader = FATDirectory()
        var entries: [FATDirectory.Entry] = []
        var lost = ByteCount.zero
        func take(_ extent: Extent) {
            let parts = tally.hit(extent)
            if !parts.isEmpty {
                tally.claim(parts)
                lost += parts.byteCount
            }
            guard !reader.hasEnded else { return }
            // Sector by sector, so that a damaged one hides its own entries only.
            var position = extent.start
            while position < extent.end, let next = position.adding(boot.bytesPerSector) {
                if let count = boot.bytesPerSector.int, let bytes = try? volume.bytes(at: position, count: count) {
                    reader.read(bytes, is32: boot.is32) {
                        entries.append($0)
                        return true
                    }
                }
                position = next
            }
        }
        if directory.cluster == 0, !boot.is32 {
            take(sectors(boot.reservedSectors + boot.tables * boot.tableSectors, boot.rootSectors))
        } else {
            var next: UInt32? = directory.cluster
            var bytes: UInt64 = 0
            while let cluster = next, let extent = extent(cluster), bytes < FATNames.mostDirectoryBytes, steps > 0 {
                steps -= 1
                take(extent)
                bytes += extent.length.bytes
                next = table.next(cluster)
            }
        }
        if lost > .zero { add(.directory, path(index), lost) }
        for entry in entries {
            if entry.isDirectory {
                guard entry.cluster >= 2, directory.depth < FATNames.mostDepth,
                    directories.count < FATNames.mostDirectories, seen.insert(entry.cluster).inserted
                else { continue }
                directories.append(
                    Directory(cluster: entry.cluster, parent: index, name: entry.name, depth: directory.depth + 1))
            } else {
                follow(entry, in: index)
            }
        }
    }

    private mutating func follow(_ entry: FATDirectory.Entry, in directory: Int) {
        var left = ByteCount(UInt64(entry.size))
        var next: UInt32? = entry.cluster
        var lost = ByteCount.zero
        while let cluster = next, left > .zero, steps > 0, let extent = extent(cluster) {
            steps -= 1
            let parts = tally.hit(extent)
            if !parts.isEmpty {
                let data = Extent(from: extent.start, to: min(extent.end, extent.start + min(left, extent.length)))
                lost += parts.intersection(data).byteCount
                tally.claim(parts.intersection(data))
                tally.region(.free, "space behind a file's end", Extent(from: data.end, to: extent.end))
            }
            left = left.subtracting(extent.length) ?? .zero
            next = table.next(cluster)
        }
        if lost > .zero { add(.file, path(directory, entry.name), lost) }
    }

    private mutating func add(_ kind: LostContent.Kind, _ name: String, _ bytes: ByteCount) {
        if items.count < limits.names { items.append(LostContent.Item(kind, name, bytes)) } else { more += 1 }
    }

    private func extent(_ cluster: UInt32) -> Extent? {
        guard cluster >= 2, UInt64(cluster) < boot.clusters + 2,
            let offset = boot.clusterBytes.multiplied(by: UInt64(cluster) - 2), let start = dataStart.adding(offset)
        else { return nil }
        return Extent(start: start, length: boot.clusterBytes)
    }

    private func path(_ directory: Int, _ file: String? = nil) -> String {
        var parts = file.map { [$0] } ?? []
        var index = directory
        while index != 0, parts.count <= FATNames.mostDepth + 1 {
            parts.append(directories[index].name)
            index = directories[index].parent
        }
        return SafeText.path(parts.reversed())
    }

    /// What no file and no table claimed: free, or not known.
    private mutating func unclaimed() throws(Fault) {
        var pending = LossTally.Alike()
        var rounds = 0
        for extent in tally.unclaimed.extents {
            let clusters = Extent(from: dataStart, to: boot.size)
            let outside = extent.length - extent.intersection(clusters).length
            if outside > .zero { pending.add(.free, "behind the last cluster", outside, to: &tally) }
            var position = max(extent.start, clusters.start)
            let end = min(extent.end, clusters.end)
            while position < end {
                rounds += 1
                if rounds % 4096 == 0 {
                    try Interruption.check()
                    if limits.stop() {
                        pending.add(.unknown, "not known", end - position, to: &tally)
                        tally.note("The time to look for names ended before everything was looked at.")
                        break
                    }
                }
                let cluster = (position - dataStart).bytes / boot.clusterBytes.bytes + 2
                let next = min(dataStart + ByteCount((cluster - 1) * boot.clusterBytes.bytes), end)
                let value = UInt32(exactly: cluster).flatMap { table.entry($0) }
                if UInt64(cluster) >= boot.clusters + 2 {
                    pending.add(.free, "behind the last cluster", next - position, to: &tally)
                } else if value == 0 || value == boot.width.bad {
                    let name: StaticString = value == 0 ? "free space" : "clusters marked as bad"
                    pending.add(.free, name, next - position, to: &tally)
                } else {
                    pending.add(.unknown, "not known", next - position, to: &tally)
                }
                position = max(next, position + ByteCount(1))
            }
        }
        pending.end(&tally)
    }
}
