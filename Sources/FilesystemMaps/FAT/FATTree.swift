// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import Threads

/// Whether the directories of a FAT filesystem and its allocation table agree: every cluster of every directory and file
/// is allocated, no two share one, and none ends before its file does.
struct FATTree {
    private let volume: any BlockSource
    private let boot: FATBootSector
    private let table: FATTable
    private let dataStart: ByteCount
    /// First clusters of the directories still to be read.
    private var todo: [UInt32] = []
    /// Clusters that may still be met: a sound filesystem has each in one chain.
    private var steps: UInt64
    /// Pages of the table that may still be read: chains scattered over all of a large table would take hours.
    private let mostLoads: UInt64

    /// More directories than this are not believed: 16 MiB of their places.
    private static let mostDirectories = 4 << 20

    init(_ volume: any BlockSource, _ boot: FATBootSector) {
        self.volume = volume
        self.boot = boot
        table = FATTable(volume, boot)
        dataStart = ByteCount(boot.firstDataSector * boot.bytesPerSector.bytes)
        steps = boot.clusters
        mostLoads = 16 * (boot.tableBytesNeeded / FATTable.page + 1) + 262_144
    }

    /// Throws where something contradicts the table, or cannot be looked at.
    mutating func check() throws(MapProblem) {
        if boot.is32 {
            try look(at: boot.rootCluster, "The root directory")
        } else {
            let size = boot.bytesPerSector.bytes
            let root = (boot.reservedSectors + boot.tables * boot.tableSectors) * size
            var hasEnded = false
            // At most 65,535 entries of 32 bytes.
            try entries(
                in: Extent(from: ByteCount(root), to: ByteCount(root + boot.rootSectors * size)), isFirst: false,
                &hasEnded)
        }
        while let cluster = todo.popLast() { try look(at: cluster, "A directory", isBelow: true) }
    }

    /// Reads the directory that begins with `cluster`.
    private mutating func look(at cluster: UInt32, _ what: String, isBelow: Bool = false) throws(MapProblem) {
        var hasEnded = false
        var isFirst = isBelow
        var next: UInt32? = cluster
        while let current = next {
            next = try step(from: current, what)
            guard !hasEnded else { continue }
            let start = dataStart + ByteCount((UInt64(current) - 2) * boot.clusterBytes.bytes)
            let extent = Extent(from: start, to: start + boot.clusterBytes)
            try entries(in: extent, isFirst: isFirst, own: current, &hasEnded)
            isFirst = false
        }
    }

    /// The cluster after `cluster`, which must be allocated; `nil` at the chain's end.
    private mutating func step(from cluster: UInt32, _ what: String) throws(MapProblem) -> UInt32? {
        guard cluster >= 2, UInt64(cluster) < boot.clusters + 2 else {
            throw .damaged("\(what) has a cluster, \(cluster), that does not exist.")
        }
        guard steps > 0 else { throw .damaged("Its files have more clusters than there are: some share theirs.") }
        steps -= 1
        if steps % 4096 == 0 { do throws(Fault) { try Interruption.check() } catch { throw .fault(error) } }
        guard table.loads < mostLoads else {
            throw .whole("Its files are too scattered to be compared with its allocation table.", nil)
        }
        guard let value = table.entry(cluster) else {
            throw .damaged("A part of its allocation table cannot be read.")
        }
        guard value != 0 else {
            throw .damaged(
                "\(what) has clusters that its allocation table calls free: the table does not tell what is in use. Run "
                    + "fsck.fat or chkdsk on a copy of it.")
        }
        guard value != boot.width.bad else {
            throw .damaged("\(what) has a cluster that its allocation table calls bad.")
        }
        return value > boot.width.bad ? nil : value
    }

    /// Takes the entries that lie in `extent`: files are followed, directories kept for later. The first cluster of a
    /// directory below the root must begin with its entry of itself.
    private mutating func entries(
        in extent: Extent, isFirst: Bool, own: UInt32 = 0, _ hasEnded: inout Bool
    ) throws(MapProblem) {
        guard let count = extent.length.int, !extent.isEmpty else { return }
        let block = try Fields("a directory", of: volume, at: extent.start, count: count)
        do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
        if isFirst {
            let itself = [UInt8(ascii: ".")] + [UInt8](repeating: 0x20, count: 10)
            guard try block.bytes("DIR_Name", at: 0, count: 11) == itself, try cluster(block, 0) == own else {
                throw .damaged("A directory does not begin as one does: it was never written, or is lost.")
            }
        }
        var at = 0
        while at + 32 <= count {
            defer { at += 32 }
            let first = block.bytes[at]
            if first == 0 {
                hasEnded = true
                return
            }
            let attributes = block.bytes[at + 11] & 0x3F
            // Deleted, the directory's own and its parent's entry, parts of a long name, the volume's label.
            if first == 0xE5 || first == UInt8(ascii: ".") || attributes & 0x08 != 0 { continue }
            let start = try cluster(block, at)
            if attributes & 0x10 != 0 {
                guard todo.count < FATTree.mostDirectories else { throw .damaged("It has too many directories.") }
                todo.append(start)
            } else {
                try follow(start, size: UInt64(try block.little(UInt32.self, "DIR_FileSize", at: at + 28)), block, at)
            }
        }
    }

    private mutating func follow(_ first: UInt32, size: UInt64, _ block: Fields, _ at: Int) throws(MapProblem) {
        if first == 0, size == 0 { return }
        let what = "The file \(name(block, at))"
        guard first != 0 else { throw .damaged("\(what) has \(size) bytes but no cluster.") }
        var next: UInt32? = first
        var clusters: UInt64 = 0
        while let current = next {
            next = try step(from: current, what)
            clusters += 1
        }
        guard clusters * boot.clusterBytes.bytes >= size else {
            throw .damaged("\(what) has \(size) bytes, but its clusters end before: the others are called free.")
        }
    }

    /// DIR_FstClusHI and LO.
    private func cluster(_ block: Fields, _ at: Int) throws(MapProblem) -> UInt32 {
        let low = UInt32(try block.little(UInt16.self, "DIR_FstClusLO", at: at + 26))
        return boot.is32
            ? low | UInt32(try block.little(UInt16.self, "DIR_FstClusHI", at: at + 20) & 0x0FFF) << 16 : low
    }

    /// The short name, safe to print.
    private func name(_ block: Fields, _ at: Int) -> String {
        let tail = block.bytes[at + 8..<at + 11].filter { $0 != 0x20 }
        let base = block.bytes[at..<at + 8].filter { $0 != 0x20 }
        return SafeText.name(base + (tail.isEmpty ? [] : [UInt8(ascii: ".")] + tail))
    }
}
