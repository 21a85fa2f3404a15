// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemResize
public import Findings
public import Geometry
import LinuxDisks
import MachineModel
import PartitionTables
public import PointDisk
public import RestorePlanning

/// Carries plans out.
public struct Restorer: Sendable {
    /// Where the data come from.
    public var source: any RestoreSource
    /// How much is read back.
    public var readBack: ReadBack
    /// The room for overlays on which volumes are shrunk, all together.
    public var scratch: ScratchRoom
    /// Told what happens.
    public var events: EventHandler
    /// What stands between the restorer and a claimed disk: nothing, except in tests.
    var layer: @Sendable (FileTarget) -> any BlockTarget = { $0 }

    /// A restorer.
    public init(
        source: any RestoreSource, readBack: ReadBack = .full,
        scratch: ScratchRoom = ScratchRoom(memory: .mebibytes(256)),
        events: @escaping EventHandler
    ) {
        self.source = source
        self.readBack = readBack
        self.scratch = scratch
        self.events = events
    }

    /// Carries `plan` out. Throws before the first write to any target when the plan contradicts itself or the source, a
    /// pin does not hold, a target is in use, a program is missing, the source is incomplete, or a volume that is to be
    /// smaller cannot be shrunk.
    public func run(_ plan: RestorePlan) throws(Fault) -> [DiskReport] {
        try plan.requireSound()
        try source.requireComplete()
        var ready: [PreparedDisk] = []
        for disk in plan.disks {
            for volume in disk.volumes { try FilesystemTools.tool(for: volume.kind)?.require(growing: volume.grows) }
            ready.append(try PreparedDisk(disk, self))
        }
        for disk in ready { try Restorer.checkPin(disk.plan.target) }
        for disk in ready { try disk.claim() }
        var room = scratch
        for disk in ready { try disk.reshape(source, &room, events) }
        var reports: [DiskReport] = []
        for disk in ready { reports.append(try restore(disk)) }
        return reports
    }

    /// Throws `target.changed` unless the disk at the pin's path is still the one the plan was made for.
    public static func checkPin(_ pin: TargetPin) throws(Fault) {
        let found = try FileSource(path: pin.path, fileSectorSize: pin.sectorSize)
        let attached = DiskScan().devices.first { $0.path == pin.path }
        func require(_ what: String, _ seen: String?, _ expected: String?) throws(Fault) {
            guard seen != expected else { return }
            throw Fault(
                .targetChanged,
                what:
                    "Its \(what) is \(seen ?? "unknown"); the plan was made for \(expected ?? "a disk that tells none").",
                place: pin.path,
                remedy: "This is not the disk that was planned for. Make a new plan with `relight plan`.")
        }
        try require("size in bytes", "\(found.length.bytes)", "\(pin.size.bytes)")
        try require("sector size in bytes", "\(found.sectorSize.bytes)", "\(pin.sectorSize.bytes)")
        try require("serial number", attached?.serial, pin.serial)
        try require("world wide name", attached?.wwn, pin.wwn)
    }

    /// Throws `target.changed` unless the disk still has the table that is to stay.
    static func requireTable(_ table: PartitionTable, at pin: TargetPin) throws(Fault) {
        let found = try FileSource(path: pin.path, fileSectorSize: pin.sectorSize)
        guard try TableReader.read(found).table == table else {
            throw Fault(
                .targetChanged, what: "Its partition table is not the one the plan was made for.", place: pin.path,
                remedy: "Make a new plan with `relight plan`.")
        }
    }

    private func restore(_ disk: PreparedDisk) throws(Fault) -> DiskReport {
        var reports: [VolumeReport]
        do throws(Fault) {
            reports = try writeAndCompare(disk)
        } catch {
            throw unfinished(error, disk.plan)
        }
        // The claim on the disk has ended: partitions can be opened.
        let plan = disk.plan
        if let table = plan.table { try Parted.requireAgreement(path: plan.target.path, with: table) }
        for (index, volume) in disk.volumes.enumerated() { try growAndCheck(volume.plan, plan, &reports[index]) }
        let outside = disk.outside.lost
        if !outside.isEmpty {
            events(
                .finding(
                    Finding(
                        .loss, FaultCode.setDamaged.rawValue,
                        what: "\(outside.byteCount.bytes) bytes outside the volumes (boot code) are lost in the image "
                            + "set; zeros were written there.", place: plan.target.path)))
        }
        return DiskReport(target: plan.target.path, volumes: reports, lostOutside: outside)
    }

    /// Everything up to the new table, under the claim on the disk, which ends with this function.
    private func writeAndCompare(_ disk: PreparedDisk) throws(Fault) -> [VolumeReport] {
        let plan = disk.plan
        guard let claimed = disk.take() else { throw PreparedDisk.notClaimed(plan.target.path) }
        let path = plan.target.path
        let part = plan.keeps == nil ? nil : plan.volumes.first?.target
        var target: any BlockTarget = layer(claimed.blocks)
        if disk.claimedFrom > .zero { target = PartTarget(target, at: disk.claimedFrom, of: plan.target.size) }
        let held = plan.table == nil ? HeldBack(of: part ?? Extent(from: .zero, to: target.length)) : nil
        let writer = VolumeWriter(target: target, heldBack: held)

        if let held, part != nil {
            events(.step("\(path): taking the partition's old content away"))
            try target.zero(held.extent)
            try target.flush()
        } else {
            events(.step("\(path): taking the old partition table away"))
            try writer.wipeEnds()
        }
        for extent in plan.unfilled { try writer.wipeEdges(of: extent, except: ExtentList()) }

        let total = disk.volumes.reduce(ByteCount.zero) { $0 + $1.stream.used.byteCount }
        let meter = Meter(total: total, phase: "writing", events)
        var reports: [VolumeReport] = []
        if let gap = plan.gap { try writer.copyGap(disk.outside, gap) }
        for (volume, stream) in disk.volumes {
            events(
                .step("\(path): writing \(Restorer.name(volume)), \(stream.used.byteCount) of \(volume.target.length)"))
            try writer.write(stream, volume, meter)
            let lost = stream.lost
            reports.append(
                VolumeReport(
                    number: volume.number, written: stream.used.byteCount - lost.byteCount, compared: .zero,
                    grown: false, lost: lost, reshaped: (stream as? BlockStream)?.reshaped))
            tellLost(lost, volume, path)
            tellUnreadable(stream, volume, path)
        }
        events(.step("\(path): flushing"))
        try target.flush()
        if readBack == .full {
            try target.dropCaches()
            let meter = Meter(total: total, phase: "reading back", events)
            for (index, (volume, stream)) in disk.volumes.enumerated() {
                try writer.compare(stream, volume, meter)
                reports[index].compared = stream.used.byteCount - reports[index].lost.byteCount
            }
            if let gap = plan.gap { try writer.compareGap(disk.outside, gap) }
        }
        for (volume, _) in disk.volumes { try mend(volume, writer) }
        if let image = disk.image {
            events(.step("\(path): writing the partition table"))
            do throws(Fault) {
                try image.write(to: target)
                try target.dropCaches()
                try image.verify(on: target)
            } catch {
                // A table that came out wrong must not be found. When that fails too, the first fault is what matters.
                try? writer.wipeEnds()
                throw error
            }
        } else {
            events(.step("\(path): writing \(part == nil ? "its" : "the partition's") first MiB"))
            try writer.writeHeldBack(comparing: readBack == .full)
        }
        try target.flush()
        if part != nil {
            try claimed.finish()
            return reports
        }
        do throws(Fault) {
            try claimed.blocks.rereadPartitions()
        } catch {
            events(
                .finding(
                    Finding(.warning, "kernel.old-partitions", what: "\(error.what) \(error.remedy)", place: path)))
        }
        try claimed.finish()
        return reports
    }

    static func name(_ volume: VolumePlan) -> String {
        let label = volume.label.map { " (\($0))" } ?? ""
        return volume.number == 0 ? "the whole disk\(label)" : "partition \(volume.number)\(label)"
    }

    /// Says which sectors hold zeros because the source could not be read; above a number only how many there are.
    private func tellUnreadable(_ stream: any RestoreStream, _ volume: VolumePlan, _ path: String) {
        let place = volume.number == 0 ? path : "\(path):\(volume.number)"
        for sentence in Finding.unreadable(
            stream.unreadable, "could not be read when the image was made; zeros were written there.")
        {
            events(.finding(Finding(.loss, FaultCode.unreadable.rawValue, what: sentence, place: place)))
        }
    }

    /// Says where zeros stand because the set has lost what lay there.
    private func tellLost(_ lost: ExtentList, _ volume: VolumePlan, _ path: String) {
        let place = volume.number == 0 ? path : "\(path):\(volume.number)"
        for sentence in Finding.unreadable(lost, "are lost in the image set; zeros were written there.") {
            events(.finding(Finding(.loss, FaultCode.setDamaged.rawValue, what: sentence, place: place)))
        }
    }

    /// A fault that came after the first write also says how it leaves the disk.
    private func unfinished(_ fault: Fault, _ plan: DiskPlan) -> Fault {
        var fault = fault
        let path = plan.target.path
        let lacks = plan.table == nil ? "its first MiB" : "a partition table"
        let what = plan.keeps == nil ? "the disk" : "the partition"
        if fault.place.isEmpty { fault.place = path }
        fault.what +=
            " The restore of \(path) is not finished: \(what) was left without \(lacks), so that nothing takes it for whole."
        if fault.code == .interrupted { fault.remedy = "Run the same restore again: it begins anew." }
        return fault
    }
}
