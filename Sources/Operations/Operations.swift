// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Operations
///
/// The verbs that the command line, job files and the wizard share: values in, events and values out. An operation opens
/// what is named, checks that it may be done, calls the rooms that do the work, and returns what came of it. It prints
/// nothing and asks nobody; whoever calls it has asked before.
public import Blocks
public import DiskSurvey
import FileTrees
import FilesystemMaps
public import Findings
public import Geometry
public import ImageStore
public import LinuxDisks
import MachineModel
import Synchronization
import VolumeStacks

/// The program's version, as stored in recovery points and shown by `--version`.
public enum Program {
    /// Semantic version.
    public static let version = "0.2.0"
}

/// A disk opened for reading.
public struct SourceDisk: Sendable {
    /// How the user named it.
    public let name: String
    /// How it was found.
    public let selected: SelectedDisk
    /// Its bytes.
    public let source: FileSource
    /// What is on it.
    public let survey: SurveyedDisk

    /// Opens and surveys the disk `name` stands for. `fileSectorSize` is the sector size of image files.
    public init(_ name: String, scan: DiskScan, fileSectorSize: SectorSize) throws(Fault) {
        self = try SourceDisk.open([name], scan: scan, fileSectorSize: fileSectorSize)[0]
    }

    /// Opens the disks that `names` stand for and surveys them together, since layers may lie on several.
    public static func open(
        _ names: [String], scan: DiskScan, fileSectorSize: SectorSize, unlocking: VolumeUnlocking = VolumeUnlocking()
    ) throws(Fault) -> [SourceDisk] {
        var opened: [OpenedDisk] = []
        for name in names { opened.append(try OpenedDisk(name, scan, fileSectorSize)) }
        return try OpenedDisk.surveyed(opened, unlocking)
    }

    init(name: String, selected: SelectedDisk, source: FileSource, survey: SurveyedDisk) {
        self.name = name
        self.selected = selected
        self.source = source
        self.survey = survey
    }
}

/// A disk opened for reading, not looked at yet.
struct OpenedDisk {
    let name: String
    let selected: SelectedDisk
    let source: FileSource

    init(_ name: String, _ scan: DiskScan, _ fileSectorSize: SectorSize) throws(Fault) {
        let selected = try DiskSelector.resolve(name, in: scan, identify: Identify.volume)
        try self.init(name, selected, scan, fileSectorSize)
    }

    init(_ name: String, _ selected: SelectedDisk, _ scan: DiskScan, _ fileSectorSize: SectorSize) throws(Fault) {
        OpenedDisk.writeBackLayers(of: selected, in: scan)
        source = try FileSource(path: selected.path, fileSectorSize: fileSectorSize)
        self.name = name
        self.selected = selected
    }

    /// Brings to the disk what programs wrote through the devices that lie on it: partitions, layers, and the loop devices
    /// over an image file. Each has a page cache of its own, and while something has it open, what was written may still lie
    /// only there. Those mounted for writing are left alone: a backup refuses them, and a listing must not wait for them.
    private static func writeBackLayers(of selected: SelectedDisk, in scan: DiskScan) {
        let names = SourceGuard(scan: scan).names(selected)
        guard !names.isEmpty else { return }
        let writable = Set(scan.mounts.filter(\.isWritable).map(\.point))
        // The topmost first, for its pages go to what lies below.
        let layers = scan.devices.map { ($0, scan.devices(under: $0.name).union([$0.name])) }
            .filter { !$0.1.isDisjoint(with: names) }.sorted { $0.1.count > $1.1.count }
        for (device, _) in layers {
            var nodes = device.partitions.map { ($0.path, $0.mounts) }
            if device.path != selected.path { nodes.append((device.path, device.mounts)) }
            for (path, mounts) in nodes where writable.isDisjoint(with: mounts) { _ = try? FileSource(path: path) }
        }
    }

    static func surveyed(
        _ disks: [OpenedDisk], _ unlocking: VolumeUnlocking
    ) throws(Fault) -> [SourceDisk] {
        var host = ProbeHost.standard
        host.allowsMounting = MachineProbe.isEnvironment()
        let surveys = try DiskSurvey.look(
            at: disks.map { opened in
                let disk = opened.selected.isWholeDisk ? opened.selected.disk : nil
                return DiskToSurvey(
                    opened.source, path: opened.selected.path, model: disk?.model, serial: disk?.serial, wwn: disk?.wwn,
                    bus: disk?.bus ?? (opened.selected.isFile ? "file" : nil),
                    findings: disk.map { DriveLock.findings($0.path) } ?? [])
            }, unlocking: unlocking.keys(disks), systems: host)
        return zip(disks, surveys).map {
            SourceDisk(name: $0.name, selected: $0.selected, source: $0.source, survey: $1)
        }
    }
}

/// Passphrases and key files of encrypted volumes, by the volumes as the user names them.
public final class VolumeUnlocking: Sendable {
    private let given: [(volume: String, secret: Secret)]
    /// Kept between surveys of the same disks: deriving a key takes seconds.
    private let made = Mutex<Unlocking?>(nil)

    /// Each volume is `N` where one disk is named, `DISK:N`, `DISK` for a disk that is a volume as a whole, a name as
    /// `relight disks` shows it (`vg0/crypt`), or the UUID of the encrypted volume.
    public init(_ given: [(volume: String, secret: Secret)] = []) { self.given = given }

    /// Throws `missing` when there is a volume that was not found, or is not encrypted.
    func requireUsed() throws(Fault) {
        guard let unused = made.withLock({ $0 })?.unused.first else { return }
        throw Fault(
            .missing, what: "There is no encrypted volume \(unused) on the disks named.",
            remedy: "`relight disks` shows the volumes; name one as N, DISK:N, VG/LV, or by the UUID of its encryption."
        )
    }

    /// The secrets by the names that surveys of `disks` use.
    func keys(_ disks: [OpenedDisk]) -> Unlocking {
        guard !given.isEmpty else { return .none }
        return made.withLock { made in
            if let made { return made }
            var secrets: [String: [UInt8]] = [:]
            for (volume, secret) in given {
                let (named, number) = DiskSelector.splitPart(volume)
                var name = volume
                if let number, let disk = disks.first(where: { $0.name == named }) {
                    name = "\(disk.selected.path):\(number)"
                } else if let number = Int(volume), disks.count == 1, let disk = disks.first {
                    name = "\(disk.selected.path):\(number)"
                } else if let disk = disks.first(where: { $0.name == volume }) {
                    name = disk.selected.path
                }
                secrets[name] = unsafe secret.withBytes { unsafe Array($0) }
            }
            let result = Unlocking(secrets)
            made = result
            return result
        }
    }
}

/// Tells labels and UUIDs by libblkid, for selectors such as `label:BACKUPS`.
public enum Identify {
    /// What the device at a path holds; `nil` where nothing is recognised or it cannot be read.
    public static let volume: VolumeIdentity.Identifier = { path in
        guard let source = try? FileSource(path: path), let found = try? Identification.identify(source),
            found.kind != .unknown, found.kind != .empty
        else { return nil }
        return VolumeIdentity(kind: found.kind.rawValue, label: found.label, uuid: found.uuid)
    }
}
