// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel

/// A filesystem as it will be once somebody has replayed its journal: in memory, above the volume as it is.
struct JournalReplay {
    /// The volume after the replay.
    let volume: OverlaySource
    /// Where the journal lies.
    let journal: ExtentList

    /// The replay of what waits in the journal of a filesystem of `blocks` blocks; `nil` where nothing waits.
    init?(_ volume: any BlockSource, blocks: UInt64) throws(MapProblem) {
        let place = try JournalPlace(of: volume)
        let superblock = try JournalReplay.superblock(place)
        guard superblock.start != 0 else { return nil }
        guard superblock.error == 0 else {
            throw .whole(
                "Its journal was given up after an error: run e2fsck on it before its bitmaps can be relied on.", .dirty
            )
        }
        let log = try JournalLog(place, superblock, blocks: blocks)
        journal = place.extents
        self.volume = OverlaySource(volume, blockSize: place.blockSize)
        for (target, write) in log.replayed {
            guard let offset = place.blockSize.multiplied(by: target), let origin = place.offset(of: write.block),
                !journal.contains(offset)
            else { throw .damaged("Its journal changes itself.") }
            var bytes = write.isEscaped ? try place.block(write.block).bytes : []
            do throws(Fault) {
                if write.isEscaped {
                    bytes.replaceSubrange(0..<4, with: JournalReplay.magic)
                    try self.volume.write(at: offset, unsafe bytes.span.bytes)
                } else {
                    try self.volume.redirect(offset, to: origin)
                }
            } catch {
                throw error.code == .unsupported ? MapProblem.whole(error.what, nil) : .fault(error)
            }
        }
    }

    /// What the first bytes of an escaped block were.
    private static let magic = (0..<4).map { UInt8(truncatingIfNeeded: JournalSuperblock.magic >> (24 - 8 * $0)) }

    /// The journal's superblock, checked against what holds it.
    private static func superblock(_ place: JournalPlace) throws(MapProblem) -> JournalSuperblock {
        let superblock = try JournalSuperblock(parsing: Array(try place.block(0).bytes.prefix(JournalSuperblock.size)))
        guard UInt64(superblock.blockSize) == place.blockSize.bytes, superblock.length <= place.length else {
            throw .damaged("The superblock of its journal does not fit the filesystem.")
        }
        return superblock
    }
}
