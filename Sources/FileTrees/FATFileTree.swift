// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Blocks
import FilesystemMaps
public import Findings
import Geometry

/// The files of FAT12, FAT16 and FAT32.
public final class FATFileTree: FileTree {
    private let volume: any BlockSource
    private let boot: FATBootSector
    private let table: FATTable
    private let dataStart: UInt64
    /// A folder has at most 65,536 entries of 32 bytes.
    private static let mostFolderBytes: UInt64 = 2 << 20

    /// Upper and lower case do not matter.
    public var isCaseSensitive: Bool { false }

    /// Opens what lies in `source`. Throws `tree.damaged` and what reading throws.
    public init(_ source: any BlockSource) throws(Fault) {
        volume = source
        let sector = try source.bytes(at: .zero, count: 512)
        do throws(FieldError) {
            boot = try FATBootSector(parsing: sector)
        } catch {
            throw .damagedTree("Its boot sector is damaged: \(error).", place: source.name)
        }
        table = FATTable(source, boot)
        dataStart = boot.firstDataSector * boot.bytesPerSector.bytes
    }

    /// Goes along `path`; there are no links.
    public func step(_ path: [String]) throws(Fault) -> TreeStep {
        guard let found = try walk(path) else { return .missing }
        return .found(FATFileTree.entry(found))
    }

    /// The names in a folder.
    public func list(_ path: [String], most: Int) throws(Fault) -> [TreeEntry] {
        guard let folder = try walk(path), folder.isDirectory else { return [] }
        var result: [TreeEntry] = []
        try entries(of: folder) { entry in
            result.append(FATFileTree.entry(entry))
            return result.count < most
        }
        return result
    }

    /// Bytes of a file.
    public func read(_ path: [String], stream: String?, from offset: UInt64, count: Int) throws(Fault) -> [UInt8] {
        guard stream == nil, let file = try walk(path), !file.isDirectory else { return [] }
        let size = UInt64(file.size)
        guard offset < size, count > 0 else { return [] }
        let end = offset + min(UInt64(min(count, TreeLimits.read)), size - offset)
        let cluster = boot.clusterBytes.bytes
        var result: [UInt8] = []
        result.reserveCapacity(Int(end - offset))
        var position: UInt64 = 0
        var next: UInt32? = file.cluster
        while position < end {
            guard let current = next, let start = place(current) else {
                throw .damagedTree(
                    "The file \(file.name) has \(size) bytes, but its clusters end before.", place: volume.name)
            }
            let from = max(position, offset)
            let to = min(position + cluster, end)
            if from < to {
                result += try volume.bytes(at: ByteCount(start + from - position), count: Int(to - from))
            }
            position += cluster
            next = position < end ? table.next(current) : nil
        }
        return result
    }

    /// There are none.
    public func streams(_ path: [String]) throws(Fault) -> [TreeStream] { [] }

    private static func entry(_ entry: FATDirectory.Entry) -> TreeEntry {
        TreeEntry(
            name: entry.name, kind: entry.isDirectory ? .folder : .file,
            size: entry.isDirectory ? 0 : UInt64(entry.size),
            attributes: UInt32(entry.attributes))
    }

    private func walk(_ path: [String]) throws(Fault) -> FATDirectory.Entry? {
        var current = FATDirectory.Entry(name: "", isDirectory: true, cluster: boot.rootCluster, size: 0)
        for (depth, part) in path.enumerated() {
            guard current.isDirectory, depth < TreeLimits.parts else { return nil }
            let wanted = part.lowercased()
            var next: FATDirectory.Entry?
            try entries(of: current) { entry in
                if entry.name.lowercased() == wanted { next = entry }
                return next == nil
            }
            guard let next else { return nil }
            current = next
        }
        return current
    }

    /// Byte of the volume at which `cluster` begins; `nil` where there is no such cluster.
    private func place(_ cluster: UInt32) -> UInt64? {
        guard cluster >= 2, UInt64(cluster) < boot.clusters + 2 else { return nil }
        return dataStart + (UInt64(cluster) - 2) * boot.clusterBytes.bytes
    }

    private func entries(of folder: FATDirectory.Entry, _ body: (FATDirectory.Entry) -> Bool) throws(Fault) {
        var reader = FATDirectory()
        var goOn = true
        func take(_ bytes: [UInt8]) {
            reader.read(bytes, is32: boot.is32) { entry in
                goOn = body(entry)
                return goOn
            }
        }
        // Cluster 0 stands for the root, which FAT12 and FAT16 keep before the first cluster.
        if folder.cluster == 0, !boot.is32 {
            let size = boot.bytesPerSector.bytes
            let start = (boot.reservedSectors + boot.tables * boot.tableSectors) * size
            return take(try volume.bytes(at: ByteCount(start), count: Int(boot.rootEntries * 32)))
        }
        var next: UInt32? = folder.cluster == 0 ? boot.rootCluster : folder.cluster
        var bytes: UInt64 = 0
        while let cluster = next, goOn, !reader.hasEnded {
            guard let start = place(cluster), bytes <= FATFileTree.mostFolderBytes else {
                throw .damagedTree(
                    "The clusters of \(folder.name.isEmpty ? "the root folder" : "the folder \(folder.name)") do not end.",
                    place: volume.name)
            }
            take(try volume.bytes(at: ByteCount(start), count: Int(boot.clusterBytes.bytes)))
            bytes += boot.clusterBytes.bytes
            next = table.next(cluster)
        }
    }
}
