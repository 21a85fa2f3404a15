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
    /// Further places the set lies in, or goes on in when the first is full.
    public var also: [String] = []
    /// A name for the recovery point.
    public var name = ""
    /// Volumes to image, each `N`, or `DISK:N` where several disks are named; empty for all.
    public var volumes: [String] = []
    /// Volumes of which every byte is imaged, in use or not; named like ``volumes``.
    public var wholes: [String] = []
    /// What opens encrypted volumes, so that only what is in use of them is imaged.
    public var unlocking = VolumeUnlocking()
    /// How hard to compress.
    public var compression = Compression.standard
    /// What to do about unreadable sectors.
    public var onReadError = ReadErrorPolicy.fail
    /// How what has not changed since the last point is told.
    public var compare = PointFacts.Comparison.full
    /// How much is done to read a bad place all the same.
    public var effort = ReadEffort()
    /// Whether what was written is read back before the point is sealed.
    public var readBack = true
    /// Sector size of image files.
    public var fileSectorSize = SectorSize.s512
    /// Asked when the set is encrypted.
    public var keys = KeyRing.none
    /// Asked when a set is made and ``encryption`` is chosen.
    public var newKeys = KeyRing.none
    /// Encrypts a set that is made now. Refused for a set that exists and is not encrypted.
    public var encryption: NewEncryption?
    /// Parity for a set that is made now, 0 ... 50 percent; `nil` leaves it to the set.
    public var parity: Int?
    /// Unit size for a set that is made now; `nil` leaves it to the set.
    public var unitSize: ByteCount?
    /// Size no pack exceeds; `nil` for the default.
    public var packSize: ByteCount?
    /// The cipher that was asked for by name; a set that exists and has another one is refused.
    public var cipher: NewEncryption.Cipher?

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
        var opened: [OpenedDisk] = []
        for name in request.disks {
            let disk = try OpenedDisk(name, scan, request.fileSectorSize)
            guard disk.selected.isWholeDisk else { throw partOfDisk(disk.selected) }
            if opened.contains(where: { $0.selected.path == disk.selected.path }) {
                throw Fault(
                    .usage, what: "The disk is named twice.", place: disk.selected.path, remedy: "Name each disk once.")
            }
            opened.append(disk)
        }
        // Before the set's place is mounted: that alone would write to a source it lies on.
        try SetPlace.refuse([request.set] + request.also, on: opened.map(\.selected), in: scan)
        for disk in opened { try SourceGuard(scan: scan).refuseIfInUse(disk.selected) }
        try NewPlace.require([request.set] + request.also, in: scan, events: events)
        let place = try SetPlace(request.set, also: request.also, .writing, in: scan)
        defer { place.close() }
        // Mounting the set may have changed what lies where.
        let now = SourceGuard(scan: DiskScan())
        for path in place.paths { for disk in opened { try now.refuseIfHolding(path, at: path, disk.selected) } }
        try SetConstants(parity: request.parity, unitSize: request.unitSize, cipher: request.cipher).require(of: place)
        let marks = opened.compactMap { $0.selected.disk }.map { ReadOnlyMark($0) }
        // Something may have mounted a source while it was looked at. Under the mark nothing new can write to it: from here
        // on what is found is what is imaged.
        let marked = DiskScan()
        for index in opened.indices {
            try SourceGuard(scan: marked).refuseIfInUse(opened[index].selected)
            opened[index] = try OpenedDisk(opened[index].name, marked, request.fileSectorSize)
        }
        let sources = try OpenedDisk.surveyed(opened, request.unlocking)
        try request.unlocking.requireUsed()

        var imaged: [ImagedDisk] = []
        for disk in sources {
            let volumes = try numbers(request.volumes, of: disk, request)
            let wholes = try numbers(request.wholes, of: disk, request) ?? []
            if let volumes, let left = wholes.subtracting(volumes).min() {
                throw Fault(
                    .usage, what: "Volume \(left) is to be imaged in full, but is not among those that are imaged.",
                    place: disk.selected.path, remedy: "Name it with `--volume` too.")
            }
            imaged.append(
                ImagedDisk(source: disk.source, survey: disk.survey.inFull(wholes), volumes: volumes))
        }
        var noticed: [Finding] = []
        for disk in imaged {
            for finding in disk.survey.model.findings {
                noticed.append(finding)
                events(.finding(finding))
            }
            for volume in disk.survey.volumes {
                let model = volume.model
                let path = disk.survey.model.path
                let place = model.number == 0 ? path : "\(path):\(model.number)"
                guard disk.volumes?.contains(model.number) ?? true else { continue }
                for nested in model.layers ?? [] { notice(nested, &noticed, events) }
                guard let reason = model.wholeBecause, model.kind != .empty,
                    !noticed.contains(where: { $0.code == "volume.imaged-whole" && $0.place == place })
                else { continue }
                let finding = Finding(
                    .notice, "volume.imaged-whole", what: "All \(model.extent.length) are imaged: \(reason)",
                    place: place)
                noticed.append(finding)
                events(.finding(finding))
            }
        }

        let time = UInt64(max(0, time(nil)))
        var options = SetWriter.Options(compression: request.compression, time: time)
        options.encryption = request.encryption
        options.parity = request.parity ?? options.parity
        options.unitSize = request.unitSize ?? options.unitSize
        options.packSize = request.packSize ?? options.packSize
        let writer: SetWriter
        do throws(Fault) {
            writer = try SetWriter(
                place.store, options: options, keys: request.keys, newKeys: request.newKeys, events: events)
        } catch {
            throw place.explained(error)
        }
        defer { place.report(events) }
        do throws(Fault) {
            let parents = try ParentPoints(writer.reader())
            let unchanged = UnchangedFiles(events: events)
            noticed += try Imager.image(
                imaged, into: writer, onReadError: request.onReadError, effort: request.effort, parents: parents,
                unchanged: request.compare == .metadata
                    ? { (disk, volume, parent) throws(Fault) in
                        try unchanged.bytes(of: volume, on: disk, since: parent)
                    } : nil, events: events)
            noticed += unchanged.findings
            let facts = PointFacts(
                name: request.name, time: time, tool: Program.version,
                machine: MachineProbe.facts(version: Program.version),
                disks: imaged.map(describe), findings: noticed,
                compare: writer.statistics.skipped > .zero ? .metadata : .full)
            events(.step("sealing the recovery point"))
            let point = try writer.commit(
                facts, readBack: request.readBack, threads: Workers.processors, events: events)
            withExtendedLifetime(marks) {}
            place.refreshCatalogue(events)
            return BackupResult(point: point, set: request.set, statistics: writer.statistics)
        } catch {
            writer.abandon()
            throw place.explained(error)
        }
    }

    /// Says which of the volumes inside others are imaged whole.
    private static func notice(_ volume: NestedVolume, _ noticed: inout [Finding], _ events: EventHandler) {
        for inner in volume.layers ?? [] { notice(inner, &noticed, events) }
        guard let reason = volume.wholeBecause, volume.kind != .empty,
            !noticed.contains(where: { $0.code == "volume.imaged-whole" && $0.place == volume.name })
        else { return }
        let finding = Finding(
            .notice, "volume.imaged-whole", what: "All \(volume.size) are imaged: \(reason)", place: volume.name)
        noticed.append(finding)
        events(.finding(finding))
    }

    /// The disk as the point describes it: only the volumes it holds.
    private static func describe(_ disk: ImagedDisk) -> DiskModel {
        var model = disk.survey.model
        if let chosen = disk.volumes { model.volumes.removeAll { !chosen.contains($0.number) } }
        return model
    }

    private static func partOfDisk(_ selected: SelectedDisk) -> Fault {
        let disk = selected.disk?.path ?? "DISK"
        let number = selected.disk?.partitions.first { $0.path == selected.path }?.number
        return Fault(
            .wrongKind, what: "It is a part of the disk \(disk), not a disk.", place: selected.path,
            remedy: "Image it with `relight backup \(disk) --volume \(number.map(String.init) ?? "N") --to SET`.")
    }

    /// The volumes of `disk` that `texts` name; `nil` where they name none of this disk.
    private static func numbers(
        _ texts: [String], of disk: SourceDisk, _ request: BackupRequest
    ) throws(Fault) -> Set<Int>? {
        guard !texts.isEmpty else { return nil }
        let known = disk.survey.volumes.map { $0.model.number }
        var result: Set<Int> = []
        var isNamed = false
        for text in texts {
            let (named, number) = DiskSelector.splitPart(text)
            if let number, request.disks.contains(named) {
                guard named == disk.name else { continue }
                result.insert(number)
                isNamed = true
            } else if let number = Int(text), request.disks.count == 1 {
                result.insert(number)
                isNamed = true
            } else {
                throw Fault(
                    .usage, what: "\"\(text)\" does not name a volume of the disks given.",
                    remedy: "Write a partition's number, or DISK:NUMBER where several disks are named.")
            }
        }
        // A disk of which no volume is named is imaged with all of them.
        guard isNamed else { return nil }
        if let unknown = result.subtracting(known).min() {
            throw Fault(
                .missing, what: "There is no volume \(unknown).", place: disk.selected.path,
                remedy: "Its volumes are: \(known.map { "\($0)" }.joined(separator: ", ")).")
        }
        return result
    }
}
