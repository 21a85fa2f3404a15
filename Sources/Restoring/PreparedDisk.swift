// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import LinuxDisks
import MachineModel
import PartitionTables
import PointDisk
import RestorePlanning

/// Everything one target needs, made before the first write to any of them: the streams, the table's bytes, the claim.
final class PreparedDisk {
    let plan: DiskPlan
    /// The volumes in the target's disk order, with their content: as it was imaged, until ``reshape(_:_:_:)``.
    private(set) var volumes: [(plan: VolumePlan, stream: any RestoreStream)]
    /// What lies outside the volumes.
    let outside: any RestoreStream
    /// The new table; `nil` for a disk without one.
    let image: TableImage?
    private var disk: WritableDisk?
    /// Where what was claimed begins on the target: a partition's own node is claimed when the rest is left alone.
    private(set) var claimedFrom = ByteCount.zero

    /// Throws `plan.refused` when the source does not hold what the plan was made for.
    init(_ plan: DiskPlan, _ restorer: Restorer) throws(Fault) {
        self.plan = plan
        image = if let table = plan.table { try TableWriter.image(of: table) } else { nil }
        var volumes: [(plan: VolumePlan, stream: any RestoreStream)] = []
        for volume in plan.volumes.sorted(by: { $0.target.start < $1.target.start }) {
            let stream = try PreparedDisk.content(of: volume, plan, restorer.source)
            if volume.treatment == .copy { try PreparedDisk.requireRoom(for: stream, volume, plan) }
            volumes.append((volume, stream))
        }
        self.volumes = volumes
        outside = try restorer.source.stream(disk: plan.sourceIndex, volume: nil)
    }

    private static func requireRoom(
        for stream: any RestoreStream, _ volume: VolumePlan, _ plan: DiskPlan
    ) throws(Fault) {
        guard stream.used.end <= volume.target.length else {
            throw Fault(
                .planRefused,
                what: "The plan has \(volume.target.length.bytes) bytes for \(Restorer.name(volume)), whose data "
                    + "reach to byte \(stream.used.end.bytes).", place: plan.target.path,
                remedy: "Make the plan again from this point: `relight plan`.")
        }
    }

    /// What the image holds of `volume`. Throws `plan.refused` when that is not what the plan was made for, `unsupported`
    /// for what this executor does not do with it, `tool.missing`.
    private static func content(
        of volume: VolumePlan, _ plan: DiskPlan, _ source: any RestoreSource
    ) throws(Fault) -> any RestoreStream {
        try Reshaping.require(volume)
        let stream = try source.stream(disk: plan.sourceIndex, volume: volume.sourceNumber)
        guard stream.length == volume.source.length else {
            throw Fault(
                .planRefused,
                what: "The plan says that \(Restorer.name(volume)) has \(volume.source.length.bytes) bytes; in the "
                    + "recovery point it has \(stream.length.bytes).", place: plan.target.path,
                remedy: "Make the plan again from this point: `relight plan`.")
        }
        return stream
    }

    /// Makes what is written of the volumes that are not copied as they were imaged: shrinks them, on overlays that may
    /// take `room`, one after the other. Nothing of the target is touched.
    func reshape(
        _ source: any RestoreSource, _ room: inout ScratchRoom, _ events: @escaping EventHandler
    ) throws(Fault) {
        for index in volumes.indices {
            let volume = volumes[index].plan
            guard
                let stream = try Reshaping.made(
                    of: volume, disk: plan.sourceIndex, sectors: plan.target.sectorSize, source, room: &room,
                    events: events)
            else { continue }
            try PreparedDisk.requireRoom(for: stream, volume, plan)
            volumes[index].stream = stream
        }
    }

    /// Claims the target for writing: a partition's own node where the rest of a disk is left alone, for its neighbours may
    /// be in use. Throws `missing`, `no-access`, `target.in-use`, `target.changed`.
    func claim() throws(Fault) {
        var path = plan.target.path
        var size = plan.target.size
        if let table = plan.keeps, let volume = plan.volumes.first {
            try Restorer.requireTable(table, at: plan.target)
            if let attached = DiskScan().devices.first(where: { $0.path == plan.target.path }) {
                guard let part = attached.partitions.first(where: { $0.number == volume.number }),
                    part.start == volume.target.start, part.size == volume.target.length
                else {
                    throw Fault(
                        .targetChanged,
                        what: "The kernel does not show partition \(volume.number) where the table has it.",
                        place: path,
                        remedy: "Have the table read again (`partprobe \(path)`), or restart the machine.")
                }
                path = try PartitionNodes.wait(disk: attached.name, number: volume.number)
                (size, claimedFrom) = (part.size, part.start)
            }
        }
        let claimed = try WritableDisk(claiming: path, fileSectorSize: plan.target.sectorSize)
        // The disk may have been exchanged between the check of its identity and now.
        guard claimed.blocks.length == size, claimed.blocks.sectorSize == plan.target.sectorSize else {
            throw Fault(
                .targetChanged, what: "It has another size than the disk the plan was made for.", place: path,
                remedy: "Make a new plan with `relight plan`.")
        }
        try Restorer.checkPin(plan.target)
        disk = consume claimed
    }

    /// Hands the claim over, once.
    func take() -> WritableDisk? { disk.take() }

    static func notClaimed(_ path: String) -> Fault {
        Fault(
            .system, what: "The target was not claimed before writing.", place: path,
            remedy: "This is an error in the program: please report it.")
    }
}
