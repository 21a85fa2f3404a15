// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

package import Blocks

/// What whoever reads files of ext2, ext3 and ext4 needs to know before.
package enum ExtFiles {
    /// The filesystem in `volume` as it will be once its journal was replayed; `volume` itself where nothing waits, or what
    /// waits cannot be replayed. Its files are then read as they lie there.
    package static func afterReplay(of volume: any BlockSource) -> any BlockSource {
        guard
            let fields = try? Fields("its superblock", of: volume, at: ExtSuperblock.offset, count: ExtSuperblock.size),
            let superblock = try? ExtSuperblock(parsing: fields.bytes), superblock.incompatible.contains(.recover),
            !superblock.hasExternalJournal, let size = superblock.size, size <= volume.length,
            let replay = try? JournalReplay(volume, blocks: superblock.blocks)
        else { return volume }
        return replay.volume
    }
}
