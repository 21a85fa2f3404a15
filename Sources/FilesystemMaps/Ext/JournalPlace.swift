// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import CExt2Glue
import Findings
import Geometry
import MachineModel

/// Where the blocks of a filesystem's own journal lie: those of its journal's inode.
struct JournalPlace {
    private let volume: any BlockSource
    /// Bytes of a block.
    let blockSize: ByteCount
    /// Blocks of the journal.
    let length: UInt32
    private let runs: [Run]

    private struct Run {
        /// The first block, counted within the journal.
        var first: UInt64
        var extent: Extent
    }

    /// More pieces than this are a lie: mke2fs and tune2fs make the journal in one go.
    private static let mostPieces: UInt64 = 1 << 16
    private static let encrypted: UInt32 = 0x800

    /// Finds the journal of what lies in `volume`.
    init(of volume: any BlockSource) throws(MapProblem) {
        let ext: ExtVolume
        do throws(ExtVolume.Problem) { ext = try ExtVolume(volume) } catch {
            throw .damaged("Its journal cannot be found: \(error.text).")
        }
        let number = ext.facts.journal_inode
        guard number > 0, number <= ext.facts.inodes else {
            throw .damaged("Its journal has inode \(number), which it does not have.")
        }
        let inode: relight_ext_inode
        do throws(ExtVolume.Problem) { inode = try ext.inode(number) } catch {
            throw .damaged("The inode of its journal cannot be read: \(error.text).")
        }
        self.volume = volume
        blockSize = ext.blockSize
        guard inode.isLive, inode.isRegular, inode.has_blocks != 0, !inode.isInline,
            inode.flags & JournalPlace.encrypted == 0, let length = UInt32(exactly: inode.size / blockSize.bytes)
        else { throw .damaged("The inode of its journal is not that of a journal.") }
        self.length = length
        let collector = Collector(blockSize: blockSize)
        let problem = ext.pieces(most: JournalPlace.mostPieces) { collector.add($0) }
        do throws(Fault) { try ext.checkInterruption() } catch { throw .fault(error) }
        guard problem == nil, collector.isSound, collector.next >= length else {
            throw .damaged(
                "The blocks of its journal cannot be told" + (problem.map { ": \($0.text)." } ?? ": some are missing."))
        }
        for run in collector.runs where run.extent.end > volume.length {
            throw .damaged("A block of its journal lies outside the volume.")
        }
        runs = collector.runs
    }

    /// Takes the pieces of the inode, which must follow each other without a gap.
    private final class Collector {
        var runs: [Run] = []
        var next: UInt64 = 0
        var isSound = true
        private let blockSize: ByteCount

        init(blockSize: ByteCount) { self.blockSize = blockSize }

        func add(_ piece: ExtVolume.Piece) -> Bool {
            switch piece.kind {
            case .tree: return true
            case .unwritten: isSound = false
            case .data:
                guard piece.logical == next, !piece.extent.isEmpty else {
                    isSound = false
                    return false
                }
                runs.append(Run(first: next, extent: piece.extent))
                next += piece.extent.length.bytes / blockSize.bytes
            }
            return isSound
        }
    }

    /// The bytes of the volume that the journal takes.
    var extents: ExtentList { ExtentList(runs.map(\.extent)) }

    /// Where block `number` of the journal lies; `nil` outside.
    func offset(of number: UInt32) -> ByteCount? {
        guard number < length else { return nil }
        var low = 0
        var high = runs.count
        while low + 1 < high {
            let middle = (low + high) / 2
            if runs[middle].first <= UInt64(number) { low = middle } else { high = middle }
        }
        guard low < runs.count, runs[low].first <= UInt64(number),
            let inside = blockSize.multiplied(by: UInt64(number) - runs[low].first), inside < runs[low].extent.length
        else { return nil }
        return runs[low].extent.start + inside
    }

    /// The bytes of block `number`.
    func block(_ number: UInt32) throws(MapProblem) -> Fields {
        guard let place = offset(of: number), let count = blockSize.int else {
            throw .damaged("Block \(number) of its journal is not there.")
        }
        return try Fields("block \(number) of its journal", of: volume, at: place, count: count)
    }
}
