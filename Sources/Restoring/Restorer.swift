// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import FilesystemMaps
import FilesystemResize
public import Findings
import Geometry
import LinuxDisks
import MachineModel
import PartitionTables
public import RestorePlanning
import Synchronization
import Threads

/// Carries plans out.
public struct Restorer: Sendable {
    /// Where the data come from.
    public var source: any RestoreSource
    /// How much is read back.
    public var readBack: ReadBack
    /// Told what happens.
    public var events: EventHandler

    /// A restorer.
    public init(source: any RestoreSource, readBack: ReadBack = .full, events: @escaping EventHandler) {
        self.source = source
        self.readBack = readBack
        self.events = events
    }

    /// Carries `plan` out. Throws before the first write when a pin does not hold, a target is in use, a program is
    /// missing or the source is incomplete.
    public func run(_ plan: RestorePlan) throws(Fault) -> [DiskReport] {
        try source.requireComplete()
        for disk in plan.disks { try requireTools(disk) }
        var reports: [DiskReport] = []
        for disk in plan.disks { try Restorer.checkPin(disk.target) }
        for disk in plan.disks { reports.append(try restore(disk)) }
        return reports
    }

    private func requireTools(_ disk: DiskPlan) throws(Fault) {
        for volume in disk.volumes {
            try FilesystemTools.tool(for: volume.kind)?.require(growing: volume.grows)
        }
    }

    /// Throws `target.changed` unless the disk at the pin's path is still the one the plan was made for.
    static func checkPin(_ pin: TargetPin) throws(Fault) {
        let found = try FileSource(path: pin.path, fileSectorSize: pin.sectorSize)
        let attached = DiskScan().devices.first { $0.path == pin.path }
        func refuse(_ what: String, _ seen: String, _ expected: String) -> Fault {
            Fault(
                .targetChanged, what: "Its \(what) is \(seen); the plan was made for \(expected).", place: pin.path,
                remedy: "This is another disk than the one that was planned for. Make a new plan.")
        }
        guard found.length == pin.size else { throw refuse("size", "\(found.length.bytes)", "\(pin.size.bytes)") }
        guard found.sectorSize == pin.sectorSize else {
            throw refuse("sector size", "\(found.sectorSize.bytes)", "\(pin.sectorSize.bytes)")
        }
        if let serial = pin.serial, attached?.serial != serial {
            throw refuse("serial number", attached?.serial ?? "unknown", serial)
        }
        if let wwn = pin.wwn, attached?.wwn != wwn {
            throw refuse("world wide name", attached?.wwn ?? "unknown", wwn)
        }
    }

    private func restore(_ plan: DiskPlan) throws(Fault) -> DiskReport {
        var reports = try writeAndCompare(plan)
        // The claim on the disk has ended: partitions can be opened.
        if let table = plan.table { try Parted.requireAgreement(path: plan.target.path, with: table) }
        for (index, volume) in Restorer.inOrder(plan).enumerated() { try growAndCheck(volume, plan, &reports[index]) }
        return DiskReport(target: plan.target.path, volumes: reports)
    }

    /// The volumes in the target's disk order.
    private static func inOrder(_ plan: DiskPlan) -> [VolumePlan] {
        plan.volumes.sorted { $0.target.start < $1.target.start }
    }

    /// Everything up to the new table, under an exclusive claim on the disk, which ends with this function.
    private func writeAndCompare(_ plan: DiskPlan) throws(Fault) -> [VolumeReport] {
        let path = plan.target.path
        let disk = try WritableDisk(claiming: path, fileSectorSize: plan.target.sectorSize)
        let target = disk.blocks
        // Nothing of the plan may fail for want of being written down: make the table's bytes before the first write.
        let image: TableImage? = if let table = plan.table { try TableWriter.image(of: table) } else { nil }
        var streams: [(VolumePlan, any RestoreStream)] = []
        for volume in Restorer.inOrder(plan) {
            let stream = try source.stream(disk: plan.sourceIndex, volume: volume.number)
            guard stream.used.end <= volume.target.length else {
                throw Fault(
                    .planRefused,
                    what: "The plan has \(volume.target.length.bytes) bytes for \(Restorer.name(volume)), whose data reach "
                        + "to byte \(stream.used.end.bytes).", place: path,
                    remedy: "Make the plan from this recovery point: `relight plan`.")
            }
            streams.append((volume, stream))
        }
        let outside = try source.stream(disk: plan.sourceIndex, volume: nil)

        events(.step("\(path): taking the old partition table away"))
        try wipeEnds(target)

        let total = streams.reduce(ByteCount.zero) { $0 + $1.1.used.byteCount }
        let meter = Meter(total: total, phase: "writing", events)
        var reports: [VolumeReport] = []
        if let gap = plan.gap { try copyGap(outside, gap, target) }
        for (volume, stream) in streams {
            events(.step("\(path): writing \(Restorer.name(volume)), \(stream.used.byteCount) of \(volume.target.length)"))
            try write(stream, volume, target, meter)
            reports.append(
                VolumeReport(number: volume.number, written: stream.used.byteCount, compared: .zero, grown: false))
            for extent in stream.unreadable.extents {
                events(
                    .finding(
                        Finding(
                            .loss, "source.unreadable",
                            what: "\(extent.length.bytes) bytes at byte \(extent.start.bytes) could not be read when the "
                                + "image was made; zeros were written there.",
                            place: "\(path):\(volume.number)")))
            }
        }
        events(.step("\(path): flushing"))
        try target.flush()
        if readBack == .full {
            try target.dropCaches()
            let meter = Meter(total: total, phase: "reading back", events)
            for index in streams.indices {
                try compare(streams[index].1, streams[index].0, target, meter)
                reports[index].compared = streams[index].1.used.byteCount
            }
            if let gap = plan.gap { try compareGap(outside, gap, target) }
        }
        for (volume, _) in streams where volume.moves { try mendHiddenSectors(volume, target) }
        if let image {
            events(.step("\(path): writing the partition table"))
            try image.write(to: target)
            try target.dropCaches()
            try image.verify(on: target)
        }
        try target.flush()
        try target.rereadPartitions()
        try disk.finish()
        return reports
    }

    static func name(_ volume: VolumePlan) -> String {
        let label = volume.label.map { " (\($0))" } ?? ""
        return volume.number == 0 ? "the whole disk\(label)" : "partition \(volume.number)\(label)"
    }

    /// The table goes first: from here until the new one is written, the disk shows that it is unfinished. Old tables
    /// and RAID signatures at the end go with it.
    private func wipeEnds(_ target: FileTarget) throws(Fault) {
        let end = ByteCount.mebibytes(1)
        let whole = Extent(from: .zero, to: target.length)
        let tail = Extent(from: target.length.subtracting(end) ?? .zero, to: target.length)
        try target.zero(Extent(from: .zero, to: end).intersection(whole))
        try target.zero(tail)
        try target.flush()
    }

    private func write(
        _ stream: any RestoreStream, _ volume: VolumePlan, _ target: FileTarget, _ meter: Meter
    ) throws(Fault) {
        // Signatures of what lay here before could be found again at the ends of the volume, where RAID and filesystems
        // keep theirs: whatever of that is not going to be written is zeroed.
        let edge = ByteCount.mebibytes(1)
        let whole = Extent(from: .zero, to: volume.target.length)
        let tail = Extent(from: whole.length.subtracting(edge) ?? .zero, to: whole.end)
        for window in [Extent(from: .zero, to: edge).intersection(whole), tail] {
            for hole in stream.used.complement(in: window).extents {
                guard let place = Extent(start: volume.target.start + hole.start, length: hole.length) else { continue }
                try target.zero(place)
            }
        }
        let base = volume.target.start
        try stream.forEachPiece(workers: Workers.processors) { (place, used, bytes) throws(Fault) in
            try Interruption.check()
            guard let first = used.extents.first else { return }
            let span = Extent(from: first.start, to: used.end)
            if let bytes, let from = (span.start - place.start).int, let to = (span.end - place.start).int {
                try target.write(at: base + span.start, bytes.extracting(from..<to))
            } else {
                for extent in used.extents { try target.zero(Extent(from: base + extent.start, to: base + extent.end)) }
            }
            meter.add(used.byteCount)
        }
    }

    private func compare(
        _ stream: any RestoreStream, _ volume: VolumePlan, _ target: FileTarget, _ meter: Meter
    ) throws(Fault) {
        let different = Mutex<[ByteCount]>([])
        let base = volume.target.start
        try stream.compare(workers: Workers.processors) { (place, used, buffer) throws(Fault) in
            try Interruption.check()
            for extent in used.extents {
                guard let from = (extent.start - place.start).int, let to = (extent.end - place.start).int else { continue }
                var part = buffer._mutatingExtracting(from..<to)
                try target.read(at: base + extent.start, into: &part)
            }
        } result: { (place, used, equal) throws(Fault) in
            if !equal { different.withLock { $0.append(place.start) } }
            meter.add(used.byteCount)
        }
        let wrong = different.withLock { $0.sorted() }
        guard let first = wrong.first else { return }
        let place = volume.target.start + first
        throw Fault(
            .readBack,
            what: "\(wrong.count) of the pieces written read back differently, the first at byte \(place.bytes).",
            place: target.name,
            remedy: "Do not use this disk: its cable, controller or memory corrupts data. It was left without a partition "
                + "table. Try another port or disk, and test the memory.")
    }

    /// The gap before the first partition holds boot loaders' code; it is small and compared at once.
    private func copyGap(_ outside: any RestoreStream, _ gap: Extent, _ target: FileTarget) throws(Fault) {
        try outside.forEachPiece(workers: 1) { (place, used, bytes) throws(Fault) in
            for extent in used.intersection(gap).extents {
                if let bytes, let from = (extent.start - place.start).int, let to = (extent.end - place.start).int {
                    try target.write(at: extent.start, bytes.extracting(from..<to))
                } else {
                    try target.zero(extent)
                }
            }
        }
    }

    private func compareGap(_ outside: any RestoreStream, _ gap: Extent, _ target: FileTarget) throws(Fault) {
        try outside.forEachPiece(workers: 1) { (place, used, bytes) throws(Fault) in
            for extent in used.intersection(gap).extents {
                guard let count = extent.length.int, let from = (extent.start - place.start).int else { continue }
                let seen = try target.bytes(at: extent.start, count: count)
                let equal = if let bytes { bytes.matches(seen, at: from) } else { unsafe seen.span.bytes.isAllZero }
                guard equal else {
                    throw Fault(
                        .readBack, what: "The boot loader's code reads back differently.", place: target.name,
                        remedy: "Do not use this disk: its cable, controller or memory corrupts data.")
                }
            }
        }
    }

    /// A FAT or NTFS boot sector says how many sectors lie before it (BPB HiddenSectors, offset 0x1C); boot code and
    /// Windows believe it. FAT32 keeps a copy in the sector BPB_BkBootSec (offset 0x32) names, NTFS in the last sector.
    private func mendHiddenSectors(_ volume: VolumePlan, _ target: FileTarget) throws(Fault) {
        guard volume.kind == .fat || volume.kind.rawValue == "ntfs" else { return }
        let size = target.sectorSize
        guard let hidden = LBA(offset: volume.target.start, size), let value = UInt32(exactly: hidden.value) else { return }
        var places: [ByteCount] = [.zero]
        let boot = try target.bytes(at: volume.target.start, count: 512)
        let backup = UInt64(boot[0x32]) | UInt64(boot[0x33]) << 8
        if volume.kind == .fat, boot[0x16] == 0, boot[0x17] == 0, backup > 0, backup < 64,
            let place = LBA(backup).offset(size)
        {
            places.append(place)
        } else if volume.kind.rawValue == "ntfs" {
            places.append(volume.source.length - size.count)
        }
        for place in places {
            let at = volume.target.start + place
            var sector = try target.bytes(at: at, count: 512)
            guard sector[510] == 0x55, sector[511] == 0xAA else { continue }
            for index in 0..<4 { sector[0x1C + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(index))) }
            try unsafe target.write(at: at, sector.span.bytes)
            try target.flush()
            guard try target.bytes(at: at, count: 512) == sector else {
                throw Fault(
                    .readBack, what: "The boot sector at byte \(at.bytes) reads back differently.", place: target.name,
                    remedy: "Do not use this disk.")
            }
        }
        events(.step("\(target.name): boot sector of \(Restorer.name(volume)) set to its new place"))
    }

    private func growAndCheck(_ volume: VolumePlan, _ plan: DiskPlan, _ report: inout VolumeReport) throws(Fault) {
        guard let tool = FilesystemTools.tool(for: volume.kind) else { return }
        let path = plan.target.path
        if let attached = DiskScan().devices.first(where: { $0.path == path }) {
            let node = volume.number == 0 ? path : try PartitionNodes.wait(disk: attached.name, number: volume.number)
            try growAndCheck(volume, tool, node, &report)
        } else if LoopDevice.isAvailable {
            let loop = try LoopDevice(file: path, extent: volume.target, sectorSize: plan.target.sectorSize)
            try growAndCheck(volume, tool, loop.path, &report)
        } else if volume.grows {
            events(
                .finding(
                    Finding(
                        .loss, "filesystem.not-grown",
                        what: "The data are restored and compared, but the filesystem was not grown: that needs a loop "
                            + "device, which only root can attach.", place: "\(path):\(volume.number)")))
        }
    }

    private func growAndCheck(
        _ volume: VolumePlan, _ tool: any FilesystemTool, _ node: String, _ report: inout VolumeReport
    ) throws(Fault) {
        if volume.grows {
            events(.step("\(node): growing \(volume.kind.rawValue) to \(volume.target.length)"))
            do {
                try tool.grow(node)
                report.grown = true
            } catch {
                if error.code == .interrupted { throw error }
                events(
                    .finding(
                        Finding(
                            .loss, "filesystem.not-grown",
                            what: "The data are restored and compared, but the filesystem was not grown. \(error.what) "
                                + error.remedy, place: node)))
            }
        }
        events(.step("\(node): checking \(volume.kind.rawValue)"))
        let verdict = try tool.check(node)
        report.check = verdict.evidence
        report.clean = verdict.isClean
        if !verdict.isClean {
            events(
                .finding(
                    Finding(
                        .warning, "filesystem.not-clean",
                        what: "Restored bit for bit, but its own checker is not content: \(verdict.evidence)", place: node)))
        }
    }
}

/// Counts work from several threads and reports it.
final class Meter: Sendable {
    private let state = Mutex<ByteCount>(.zero)
    private let total: ByteCount
    private let phase: String
    private let events: EventHandler

    init(total: ByteCount, phase: String, _ events: @escaping EventHandler) {
        self.total = total
        self.phase = phase
        self.events = events
    }

    func add(_ count: ByteCount) {
        let done = state.withLock { done in
            done += count
            return done
        }
        events(.progress(Progress(phase: phase, done: done, total: total)))
    }
}
