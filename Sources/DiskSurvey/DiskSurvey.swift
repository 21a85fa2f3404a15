// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # DiskSurvey
///
/// Looks at one disk from the table down: partition table, volumes, what lies in each and which of its bytes are in use.
/// It owns that recursion; the result is one value (``SurveyedDisk``) that everything later works from, and nothing later
/// looks again.
///
/// It reads and never writes, and a disk that is damaged is still a result: what cannot be understood is a volume that is
/// imaged whole, with the reason. Bytes outside volumes are used where they hold the table, the gap before the first
/// partition (boot loaders live there) or extended boot records (``Remainder``); other unpartitioned space is not.
///
/// What the room does not promise: layers between partition and filesystem are recognised and named, not looked into.
public import Blocks
public import Findings
import FilesystemMaps
import Geometry
import MachineModel
import PartitionTables

/// Looks at disks.
public enum DiskSurvey {
    /// Everything on the disk `source`. `path` is where it was found (`source.name` when not given); the other facts are
    /// taken over into the model.
    ///
    /// Throws `interrupted`, and `wrong-kind` for an image file whose table was written for another sector size.
    public static func look(
        at source: any BlockSource, path: String? = nil, model: String? = nil, serial: String? = nil,
        wwn: String? = nil, bus: String? = nil
    ) throws(Fault) -> SurveyedDisk {
        let path = path ?? source.name
        var disk = DiskModel(
            path: path, model: model, serial: serial, wwn: wwn, bus: bus, size: source.length,
            sectorSize: source.sectorSize)
        var reading = TableReading(table: nil)
        var whole: WholeDisk?
        do throws(Fault) {
            reading = try TableReader.read(source)
            whole = try WholeDisk(source, reading)
        } catch {
            // The sector size of a plain file is what the user says, so a wrong one is for the user to mend.
            if error.code == .interrupted || (error.code == .wrongKind && source.file?.isDevice == false) {
                throw error
            }
            whole = WholeDisk(source, because: error.what)
            reading.findings.append(
                Finding(.warning, error.code.rawValue, what: "\(error.what) \(error.remedy)", place: path))
        }
        disk.findings = reading.findings

        var volumes: [SurveyedVolume] = []
        if let whole {
            volumes = [SurveyedVolume(number: 0, extent: Extent(from: .zero, to: source.length), map: whole.map)]
            if let reason = whole.because {
                disk.findings.append(
                    Finding(
                        .notice, "disk.imaged-whole", what: "The disk is taken as one volume: \(reason)", place: path))
            }
        } else if let table = reading.table {
            disk.table = table
            for partition in table.volumes {
                if let volume = try volume(partition, of: source, path: path) {
                    volumes.append(volume)
                } else {
                    disk.findings.append(
                        Finding(
                            .loss, "partition.missing",
                            what: "It lies past the end of the disk; nothing of it is there.",
                            place: "\(path):\(partition.number)"))
                }
            }
        }
        disk.volumes = volumes.map(\.model)
        for volume in volumes {
            if let damage = volume.map.damage {
                disk.findings.append(
                    Finding(
                        .warning, "volume.damaged", what: damage,
                        place: volume.number == 0 ? path : "\(path):\(volume.number)"))
            }
            for warning in volume.map.warnings {
                disk.findings.append(
                    Finding(
                        .warning, warning.code, what: warning.what,
                        place: volume.number == 0 ? path : "\(path):\(volume.number)"))
            }
            guard let reason = volume.map.wholeBecause, volume.map.states.contains(where: { $0 != .clean }) else {
                continue
            }
            disk.findings.append(
                Finding(
                    .warning, "volume.imaged-whole", what: "It is imaged whole. \(reason)",
                    place: volume.number == 0 ? path : "\(path):\(volume.number)"))
        }
        let remainder =
            disk.table.map { Remainder.of($0, regions: reading.regions, diskSize: source.length) } ?? ExtentList()
        return SurveyedDisk(model: disk, volumes: volumes, remainder: remainder)
    }

    /// One partition; `nil` where nothing of it is on the disk.
    private static func volume(
        _ partition: Partition, of source: any BlockSource, path: String
    ) throws(Fault) -> SurveyedVolume? {
        let place = "\(path):\(partition.number)"
        // A hostile length may pass 2^64; what there is of it ends with the disk.
        let start = partition.first.offset(source.sectorSize) ?? source.length
        let end = partition.extent(source.sectorSize)?.end ?? source.length
        let extent = Extent(from: start, to: min(end, source.length))
        guard !extent.isEmpty else { return nil }
        var map = try FilesystemMaps.map(try Window(source, extent, name: place))
        if end > source.length {
            map.used = ExtentList(Extent(from: .zero, to: extent.length))
            map.wholeBecause = "The partition passes the end of the disk; only what is there can be imaged."
            map.minimum = nil
            map.minimumIs = nil
            if !map.states.contains(.damaged) { map.states.append(.damaged) }
        }
        return SurveyedVolume(number: partition.number, extent: extent, map: map)
    }
}
