// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Operations
///
/// The verbs that the command line, job files and the wizard share: values in, events and values out. An operation opens
/// what is named, checks that it may be done, calls the rooms that do the work, and returns what came of it. It prints
/// nothing and asks nobody; whoever calls it has asked before.
public import Blocks
public import DiskSurvey
import FilesystemMaps
public import Findings
public import Geometry
public import LinuxDisks
import MachineModel

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
        let selected = try DiskSelector.resolve(name, in: scan, identify: Identify.volume)
        SourceDisk.writeBackLayers(of: selected, in: scan)
        let source = try FileSource(path: selected.path, fileSectorSize: fileSectorSize)
        let disk = selected.isWholeDisk ? selected.disk : nil
        self.name = name
        self.selected = selected
        self.source = source
        self.survey = try DiskSurvey.look(
            at: source, path: selected.path, model: disk?.model, serial: disk?.serial, wwn: disk?.wwn,
            bus: disk?.bus ?? (selected.isFile ? "file" : nil))
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
