// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import Threads

/// The allocation table of exFAT, followed where chains have to be. "exFAT file system specification", section 4.1.
final class ExFATTable {
    private let volume: any BlockSource
    private let boot: ExFATBootSector
    /// The piece of the table read last.
    private var piece: Fields?
    private var pieceStart: UInt64 = 0

    private static let pieceEntries: UInt64 = 1 << 14
    private static let end: UInt32 = 0xFFFF_FFFF

    init(_ volume: any BlockSource, _ boot: ExFATBootSector) {
        self.volume = volume
        self.boot = boot
    }

    /// Where the clusters of the chain that begins with `cluster` lie, in its order; at most `most` clusters, which also
    /// ends a chain that bites its tail.
    func chain(from cluster: UInt32, most: UInt64, _ name: String) throws(MapProblem) -> [Extent] {
        var result: [Extent] = []
        var current = cluster
        var count: UInt64 = 0
        while current != ExFATTable.end {
            guard count < most else { throw .damaged("\(name.capitalizedFirst) has more clusters than it can have.") }
            try add(UInt64(current), to: &result, name)
            count += 1
            current = try entry(current)
        }
        return result
    }

    /// Where `length` bytes of a chain lie, which must have as many clusters as they need.
    func extents(from cluster: UInt32, length: UInt64, _ name: String) throws(MapProblem) -> [Extent] {
        let need = length / boot.clusterSize + (length % boot.clusterSize > 0 ? 1 : 0)
        guard need > 0, need <= boot.clusters else { throw .damaged("\(name.capitalizedFirst) is too large.") }
        let result = try chain(from: cluster, most: need, name)
        guard result.reduce(0, { $0 + $1.length.bytes }) == need * boot.clusterSize else {
            throw .damaged("\(name.capitalizedFirst) has fewer clusters than bytes.")
        }
        return result
    }

    private func add(_ cluster: UInt64, to extents: inout [Extent], _ name: String) throws(MapProblem) {
        guard cluster >= 2, cluster - 2 < boot.clusters else {
            throw .damaged("\(name.capitalizedFirst) has cluster \(cluster), which does not exist.")
        }
        let place = boot.place(cluster)
        let end = place + ByteCount(boot.clusterSize)
        if let last = extents.last, last.end == place {
            extents[extents.count - 1] = Extent(from: last.start, to: end)
        } else {
            extents.append(Extent(from: place, to: end))
        }
    }

    /// The entry of a cluster that exists.
    private func entry(_ cluster: UInt32) throws(MapProblem) -> UInt32 {
        let index = UInt64(cluster)
        if piece == nil || index < pieceStart || index >= pieceStart + ExFATTable.pieceEntries {
            do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
            pieceStart = index / ExFATTable.pieceEntries * ExFATTable.pieceEntries
            let count = min(ExFATTable.pieceEntries, boot.clusters + 2 - pieceStart)
            piece = try Fields(
                "the allocation table", of: volume,
                at: ByteCount(boot.tableStart * boot.sectorSize + pieceStart * 4), count: Int(count) * 4)
        }
        guard let piece else { return ExFATTable.end }
        return try piece.little(UInt32.self, "FatEntry", at: Int(index - pieceStart) * 4)
    }
}
