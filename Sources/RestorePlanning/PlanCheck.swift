// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import MachineModel
import PartitionTables

extension RestorePlan {
    /// Throws `plan.refused` unless everything the plan writes lies within its target and nothing lies on anything else,
    /// and its tables can be written. A stored plan is a text that anyone may have changed; whoever carries it out asks
    /// this first.
    public func requireSound() throws(Fault) {
        try requireConsistent()
        for table in disks.compactMap(\.table) {
            do {
                _ = try TableWriter.image(of: table)
            } catch {
                throw RestorePlan.unsound(error.what, "")
            }
        }
    }

    /// The same without making the tables' bytes.
    func requireConsistent() throws(Fault) {
        if disks.isEmpty { throw RestorePlan.unsound("It names no target.", "") }
        for (index, disk) in disks.enumerated() {
            let twice = disks[..<index].contains { other in
                other.target.path == disk.target.path
                    && (other.keeps == nil || other.keeps != disk.keeps
                        || other.volumes.map(\.number) == disk.volumes.map(\.number))
            }
            if twice { throw RestorePlan.unsound("It names the target twice.", disk.target.path) }
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
        func refused(_ what: String) -> Fault { RestorePlan.unsound(what, target.path) }
        guard sourceIndex >= 0 else { throw refused("It names no disk of the recovery point.") }
        let whole = Extent(from: .zero, to: target.size)
        if let table {
            guard
                table.sectorSize == target.sectorSize
                    && table.diskSectors == target.size.bytes / UInt64(target.sectorSize.bytes)
            else { throw refused("Its partition table is for a disk of another size.") }
            guard keeps == nil else { throw refused("It writes a partition table and keeps one.") }
            for extent in unfilled where !whole.contains(extent) {
                throw refused("A partition passes the end of the target.")
            }
        } else if let keeps {
            guard keeps.sectorSize == target.sectorSize, volumes.count == 1, gap == nil else {
                throw refused("One volume goes into a partition that is there.")
            }
        } else {
            guard volumes.count == 1, gap == nil else {
                throw refused("A disk without a partition table is one volume.")
            }
        }
        if let gap, !whole.contains(gap) || gap.start == .zero {
            throw refused("The gap before the first partition lies wrong.")
        }
        for (index, volume) in volumes.enumerated() {
            func require(_ condition: Bool, _ what: String) throws(Fault) {
                if condition { return }
                let name = volume.number == 0 ? "The volume" : "Partition \(volume.number)"
                throw refused("\(name) \(what)")
            }
            try require(whole.contains(volume.target), "passes the end of the target.")
            let isAligned = volume.target.start.isMultiple(of: target.sectorSize.count)
            switch volume.treatment {
            case .copy:
                try require(volume.target.length >= volume.source.length, "is smaller than what goes into it.")
            case .shrink(let size, let tool):
                try require(
                    size <= volume.target.length && size > .zero && size.isMultiple(of: target.sectorSize.count),
                    "is smaller than what goes into it.")
                try require(!volume.grows && !tool.isEmpty, "is to be made smaller and larger.")
            case .recreate(let tool): try require(!volume.grows && !tool.isEmpty, "is to be made anew by nothing.")
            }
            if let table = table ?? keeps {
                try require(
                    isAligned && table.partition(volume.number).map { !$0.isExtendedContainer } ?? false
                        && table.partition(volume.number)?.extent(table.sectorSize) == volume.target,
                    "is not where its partition table has it.")
            } else {
                try require(volume.number == 0 && volume.target.start == .zero, "does not begin the disk.")
            }
            if let gap { try require(!gap.overlaps(volume.target), "lies in the gap before the first partition.") }
            try require(volume.used <= sourceSize, "is said to hold more than the disk it came from.")
            try require(volume.sourceNumber >= 0, "comes from no volume of the recovery point.")
            for fixUp in volume.fixUps {
                guard case .hiddenSectors(let sector) = fixUp else { continue }
                try require(
                    LBA(UInt64(sector)).offset(target.sectorSize) == volume.target.start,
                    "would be told another place than it has.")
            }
            for other in volumes[..<index] {
                try require(!other.target.overlaps(volume.target), "overlaps partition \(other.number).")
                try require(
                    other.sourceNumber != volume.sourceNumber, "gets the same content as partition \(other.number).")
            }
        }
    }
}
