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
        let source = try FileSource(path: selected.path, fileSectorSize: fileSectorSize)
        let disk = selected.isWholeDisk ? selected.disk : nil
        self.name = name
        self.selected = selected
        self.source = source
        self.survey = try DiskSurvey.look(
            at: source, path: selected.path, model: disk?.model, serial: disk?.serial, wwn: disk?.wwn,
            bus: disk?.bus ?? (selected.isFile ? "file" : nil))
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
