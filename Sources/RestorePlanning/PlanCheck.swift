// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import MachineModel

extension RestorePlan {
    /// Throws `plan.refused` unless everything the plan writes lies within its target and nothing lies on anything else.
    /// A stored plan is a text that anyone may have changed; whoever carries it out asks this first.
    public func requireSound() throws(Fault) {
        if disks.isEmpty { throw RestorePlan.unsound("It names no target.", "") }
        for (index, disk) in disks.enumerated() {
            if disks[..<index].contains(where: { $0.target.path == disk.target.path }) {
                throw RestorePlan.unsound("It names the target twice.", disk.target.path)
            }
            try disk.requireSound()
        }
        var sum: ByteCount? = .zero
        for volume in disks.flatMap(\.volumes) { sum = sum?.adding(volume.used) }
        if sum == nil { throw RestorePlan.unsound("Its volumes hold more than any store could.", "") }
    }

    static func unsound(_ what: String, _ place: String) -> Fault {
        Fault(
            .planRefused, what: "The plan contradicts itself. \(what)", place: place,
            remedy: "Make it again with `relight plan`.")
    }
}

extension DiskPlan {
    /// Partitions of the new table that the recovery point holds nothing for: they are made, and stay empty.
    public var unfilled: [Extent] {
        guard let table else { return [] }
        let filled = Set(volumes.map(\.number))
        return table.volumes.filter { !filled.contains($0.number) }.compactMap { $0.extent(table.sectorSize) }
    }

    func requireSound() throws(Fault) {
        func require(_ condition: Bool, _ what: String) throws(Fault) {
            if !condition { throw RestorePlan.unsound(what, target.path) }
        }
        try require(sourceIndex >= 0, "It names no disk of the recovery point.")
        let whole = Extent(from: .zero, to: target.size)
        if let table {
            try require(
                table.sectorSize == target.sectorSize
                    && table.diskSectors == target.size.bytes / UInt64(target.sectorSize.bytes),
                "Its partition table is for a disk of another size.")
            for extent in unfilled { try require(whole.contains(extent), "A partition passes the end of the target.") }
        } else {
            try require(volumes.count == 1 && gap == nil, "A disk without a partition table is one volume.")
        }
        if let gap {
            try require(whole.contains(gap) && gap.start > .zero, "The gap before the first partition lies wrong.")
        }
        for (index, volume) in volumes.enumerated() {
            let name = volume.number == 0 ? "The volume" : "Partition \(volume.number)"
            try require(whole.contains(volume.target), "\(name) passes the end of the target.")
            try require(volume.target.length >= volume.source.length, "\(name) is smaller than what goes into it.")
            if let table {
                try require(
                    table.partition(volume.number)?.extent(table.sectorSize) == volume.target,
                    "\(name) is not where its partition table has it.")
            } else {
                try require(volume.number == 0 && volume.target.start == .zero, "\(name) does not begin the disk.")
            }
            if let gap {
                try require(!gap.overlaps(volume.target), "\(name) lies in the gap before the first partition.")
            }
            try require(volume.used <= sourceSize, "\(name) is said to hold more than the disk it came from.")
            for other in volumes[..<index] {
                try require(!other.target.overlaps(volume.target), "\(name) overlaps partition \(other.number).")
            }
        }
    }
}
