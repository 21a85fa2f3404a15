// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Geometry
import MachineModel

/// Descriptions of disks come out of image sets, and plans out of files: neither is believed before its parts agree.
extension DiskModel {
    /// What in the description contradicts itself, a sentence; `nil` when nothing does.
    var contradiction: String? {
        var numbers: Set<Int> = []
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

extension RestorePlan {
    /// Checks a plan that was stored: everything in it lies on its disks, and no volume is written over another.
    /// Throws `plan.refused` naming the first thing that does not agree.
    public func check() throws(Fault) {
        var total = ByteCount.zero
        for disk in disks {
            func refused(_ what: String) -> Fault {
                Fault(
                    .planRefused, what: "The plan contradicts itself: \(what)", place: disk.target.path,
                    remedy: "Make it anew with `relight plan`.")
            }
            for volume in disk.volumes {
                guard volume.target.end <= disk.target.size else {
                    throw refused("volume \(volume.number) passes the end of the disk.")
                }
                guard volume.target.length >= volume.source.length, volume.used <= disk.sourceSize,
                    let sum = total.adding(volume.used)
                else { throw refused("volume \(volume.number) has no room for its data.") }
                total = sum
            }
            let places = disk.volumes.filter { !$0.target.isEmpty }.sorted { $0.target.start < $1.target.start }
            // Partitions that overlapped on the source do so on the target.
            for (left, right) in zip(places, places.dropFirst())
            where left.target.overlaps(right.target) && !left.source.overlaps(right.source) {
                throw refused("volumes \(left.number) and \(right.number) would overwrite each other.")
            }
            if let gap = disk.gap {
                guard gap.end <= disk.sourceSize, gap.end <= disk.target.size,
                    places.allSatisfy({ !$0.target.overlaps(gap) })
                else { throw refused("the gap behind the table passes a disk's end or lies in a volume.") }
            }
            guard let table = disk.table else { continue }
            guard table.sectorSize == disk.target.sectorSize,
                table.diskSectors <= disk.target.size.bytes / UInt64(table.sectorSize.bytes)
            else { throw refused("its partition table is made for another disk.") }
            for volume in disk.volumes {
                guard table.partition(volume.number)?.extent(table.sectorSize) == volume.target else {
                    throw refused("volume \(volume.number) does not lie in its partition.")
                }
            }
        }
    }
}
