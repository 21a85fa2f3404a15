// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry
import MachineModel

/// What of a partitioned disk belongs in an image though it lies in no volume.
enum Remainder {
    /// The gap before the first partition is kept up to here: boot loaders embed themselves in its first MiB, and a disk
    /// whose first partition begins far inside holds nothing in between.
    static let mostGap = ByteCount.mebibytes(64)

    /// The bytes: the gap from sector 0 to the first partition, `regions` (the table's own sectors), and the usual place
    /// of a backup GPT even where no sound one was found there.
    static func of(_ table: PartitionTable, regions: ExtentList, diskSize: ByteCount) -> ExtentList {
        let size = table.sectorSize
        let first = table.partitions.compactMap { $0.first.offset(size) }.min() ?? diskSize
        var pieces = regions.extents
        pieces.append(Extent(from: .zero, to: min(first, mostGap)))
        pieces.append(Extent(from: .zero, to: size.count))
        if let gpt = table.gpt {
            let entries = UInt64(gpt.entryCount) * UInt64(gpt.entrySize)
            let length = (ByteCount(entries).roundedUp(to: size.count) ?? .zero) + size.count
            pieces.append(Extent(from: diskSize.subtracting(length) ?? .zero, to: diskSize))
        }
        let volumes = ExtentList(table.volumes.compactMap { $0.extent(size) })
        return ExtentList(pieces).intersection(Extent(from: .zero, to: diskSize)).subtracting(volumes)
    }
}
