// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry
import MachineModel

/// A description of a disk comes out of an image set: it is not believed before its parts agree.
extension DiskModel {
    /// What in the description contradicts itself, a sentence; `nil` when nothing does.
    var contradiction: String? {
        var numbers: Set<Int> = []
        let ordered = volumes.filter { !$0.extent.isEmpty }.sorted { $0.extent.start < $1.extent.start }
        var sum = ByteCount.zero
        for volume in volumes {
            guard numbers.insert(volume.number).inserted else { return "Two volumes have the number \(volume.number)." }
            guard volume.extent.end <= size else {
                return "Volume \(volume.number) ends at byte \(volume.extent.end.bytes), past the disk's end at "
                    + "\(size.bytes)."
            }
            guard volume.used <= size, let next = sum.adding(volume.used) else {
                return "Volume \(volume.number) is said to use \(volume.used.bytes) of the disk's \(size.bytes) bytes."
            }
            sum = next
        }
        for (left, right) in zip(ordered, ordered.dropFirst()) where left.extent.overlaps(right.extent) {
            return "Volumes \(left.number) and \(right.number) overlap, so that both cannot be written."
        }
        guard let table else {
            // The whole disk is then the volume.
            return volumes.allSatisfy { $0.number == 0 } ? nil : "It has partitions but no partition table."
        }
        guard table.sectorSize == sectorSize else {
            return "Its table counts sectors of \(table.sectorSize.bytes) bytes, the disk those of \(sectorSize.bytes)."
        }
        guard table.diskSectors <= size.bytes / UInt64(sectorSize.bytes) else {
            return "Its table is that of a disk of \(table.diskSectors) sectors."
        }
        for volume in volumes {
            // What of a partition lies past the end of the disk is not in its volume.
            let extent = table.partition(volume.number)?.extent(sectorSize)
            guard let extent, extent.start == volume.extent.start, min(extent.end, size) == volume.extent.end else {
                return "Volume \(volume.number) does not lie in the partition of its number."
            }
        }
        return nil
    }
}
