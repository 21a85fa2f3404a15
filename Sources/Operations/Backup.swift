// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import DiskSurvey
public import Findings
public import Geometry
import Glibc
public import ImageStore
public import Imaging
import LinuxDisks
import MachineModel
import Threads

/// What a backup is asked for.
public struct BackupRequest: Sendable {
    /// The disks, as written: paths or selectors.
    public var disks: [String]
    /// The image set's place: a folder, or `label:NAME/folder`.
    public var set: String
    /// A name for the recovery point.
    public var name = ""
    /// Volumes to image, each `N`, or `DISK:N` where several disks are named; empty for all.
    public var volumes: [String] = []
    /// How hard to compress.
    public var compression = Compression.standard
    /// What to do about unreadable sectors.
    public var onReadError = ReadErrorPolicy.fail
    /// Whether what was written is read back before the point is sealed.
    public var readBack = true
    /// Sector size of image files.
    public var fileSectorSize = SectorSize.s512

    /// A request for one recovery point of `disks` in `set`.
    public init(disks: [String], set: String) {
        self.disks = disks
        self.set = set
    }
}

/// What a backup made.
public struct BackupResult: Sendable {
    /// The new recovery point.
    public var point: PointSummary
    /// Where its set lies.
    public var set: String
    /// What was read, new, shared and stored.
    public var statistics: SetWriter.Statistics
}

/// Makes recovery points.
public enum Backup {
    /// Images the disks of `request` into its set. Nothing is written to any source.
    public static func run(_ request: BackupRequest, events: @escaping EventHandler) throws(Fault) -> BackupResult {
        let scan = DiskScan()
        var opened: [SourceDisk] = []
        for name in request.disks {
            let disk = try SourceDisk(name, scan: scan, fileSectorSize: request.fileSectorSize)
            if opened.contains(where: { $0.selected.path == disk.selected.path }) {
                throw Fault(
                    .usage, what: "The disk is named twice.", place: disk.selected.path, remedy: "Name each disk once.")
            }
            opened.append(disk)
        }
        for disk in opened { try refuseIfInUse(disk) }
        let location = try StoreLocation.open(request.set, in: scan, identify: Identify.volume)
        defer { location.release() }
        // Mounting the set may have changed what lies where.
        let now = DiskScan()
        for disk in opened { try refuseIfHolding(location.path, disk, now) }
        let marks = opened.compactMap { $0.selected.disk }.map { ReadOnlyMark($0) }

        var imaged: [ImagedDisk] = []
        for disk in opened {
            imaged.append(
                ImagedDisk(source: disk.source, survey: disk.survey, volumes: try chosen(disk, request)))
        }
        var noticed: [Finding] = []
        for disk in imaged {
            for finding in disk.survey.model.findings {
                noticed.append(finding)
                events(.finding(finding))
            }
            for volume in disk.survey.volumes {
                guard disk.volumes?.contains(volume.model.number) ?? true, let reason = volume.model.wholeBecause,
                    volume.model.kind != .empty
                else { continue }
                let finding = Finding(
                    .notice, "volume.imaged-whole",
                    what: "All \(volume.model.extent.length) are imaged: \(reason)",
                    place: "\(disk.survey.model.path):\(volume.model.number)")
                noticed.append(finding)
                events(.finding(finding))
            }
        }

        let time = UInt64(max(0, time(nil)))
        let store = FolderStore(path: location.path)
        let writer = try SetWriter(
            store, options: SetWriter.Options(compression: request.compression, time: time), events: events)
        do {
            noticed += try Imager.image(imaged, into: writer, onReadError: request.onReadError, events: events)
            let facts = PointFacts(
                name: request.name, time: time, tool: Program.version, machine: MachineProbe.facts(version: Program.version),
                disks: imaged.map(describe), findings: noticed)
            events(.step("sealing the recovery point"))
            let point = try writer.commit(
                facts, readBack: request.readBack, threads: Workers.processors, events: events)
            withExtendedLifetime(marks) {}
            return BackupResult(point: point, set: request.set, statistics: writer.statistics)
        } catch {
            writer.abandon()
            throw error
        }
    }

    /// The disk as the point describes it: only the volumes it holds.
    private static func describe(_ disk: ImagedDisk) -> DiskModel {
        var model = disk.survey.model
        if let chosen = disk.volumes { model.volumes.removeAll { !chosen.contains($0.number) } }
        return model
    }

    /// A disk that something writes to cannot be imaged consistently.
    private static func refuseIfInUse(_ disk: SourceDisk) throws(Fault) {
        guard let attached = disk.selected.disk else { return }
        let scan = DiskScan()
        let writable = scan.mounts.filter(\.isWritable).map(\.point)
        var uses: [String] = []
        for (path, mounts, swap) in [(attached.path, attached.mounts, attached.isSwap)]
            + attached.partitions.map({ ($0.path, $0.mounts, $0.isSwap) })
        {
            uses += mounts.filter { writable.contains($0) }.map { "\(path) is mounted for writing at \($0)" }
            if swap { uses.append("\(path) is used as swap") }
        }
        guard let use = uses.first else { return }
        throw Fault(
            .sourceInUse, what: "The disk is in use: \(use). Its image would mix states of different moments.",
            place: attached.path,
            remedy: "Boot the Relight environment and image it from there, or unmount it first.")
    }

    private static func refuseIfHolding(_ set: String, _ disk: SourceDisk, _ scan: DiskScan) throws(Fault) {
        guard let attached = disk.selected.disk else { return }
        guard !scan.wholeDisks(under: attached.name).isDisjoint(with: scan.disks(holding: set)) else { return }
        throw Fault(
            .setOnSource, what: "The image set \(set) lies on the disk that is to be imaged.", place: attached.path,
            remedy: "Put the set on another disk: an image that lies on its own source is lost with it.")
    }

    private static func chosen(_ disk: SourceDisk, _ request: BackupRequest) throws(Fault) -> Set<Int>? {
        guard !request.volumes.isEmpty else { return nil }
        let known = disk.survey.volumes.map { $0.model.number }
        var result: Set<Int> = []
        for text in request.volumes {
            let (named, number) = DiskSelector.splitPart(text)
            if let number, request.disks.contains(named) {
                if named == disk.name { result.insert(number) }
            } else if let number = Int(text), request.disks.count == 1 {
                result.insert(number)
            } else {
                throw Fault(
                    .usage, what: "\"\(text)\" does not name a volume of the disks given.",
                    remedy: "Write a partition's number, or DISK:NUMBER where several disks are named.")
            }
        }
        if let unknown = result.subtracting(known).min() {
            throw Fault(
                .missing, what: "There is no volume \(unknown).", place: disk.selected.path,
                remedy: "Its volumes are: \(known.map { "\($0)" }.joined(separator: ", ")).")
        }
        return result
    }
}

extension FaultCode {
    /// A disk that is to be imaged is mounted for writing or used as swap.
    public static let sourceInUse = FaultCode("source.in-use", exit: .refused)
}
