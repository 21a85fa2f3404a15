// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # DiskSurvey
///
/// Looks at disks from the table down: partition table, volumes, the layers in them, what lies in each and which of its
/// bytes are in use. It owns that recursion; the result is one value for each disk (``SurveyedDisk``) that everything later
/// works from, and nothing later looks again.
///
/// It reads and never writes, and a disk that is damaged is still a result: what cannot be understood is a volume that is
/// imaged whole, with the reason. Bytes outside volumes are used where they hold the table, the gap before the first
/// partition (boot loaders live there) or extended boot records (``Remainder``); other unpartitioned space is not.
///
/// Disks are looked at together, since a volume group or an array may lie on several. Layers only make the used maps of
/// partitions smaller (``LayerSurvey``): what is imaged are partitions and disks, never the volumes in them. A Btrfs on
/// several devices is no layer, but is mapped from all of its devices together too (``BtrfsSet``).
///
/// Once volumes and layers are known, their files are asked which operating systems lie there, where whoever calls says who
/// shall read them. That never fails a survey: what is broken is a finding.
///
/// What the room does not promise: volumes inside more than eight layers are not looked into.
public import Blocks
public import FileTrees
public import Findings
import BinaryFields
import FilesystemMaps
import Geometry
import MachineModel
import PartitionTables
public import VolumeStacks

/// A disk to be looked at.
public struct DiskToSurvey: Sendable {
    /// Its bytes.
    public var source: any BlockSource
    /// Where it was found.
    public var path: String
    /// The maker's name of the device.
    public var model: String?
    /// The device's serial number.
    public var serial: String?
    /// The device's world wide name.
    public var wwn: String?
    /// How it is attached.
    public var bus: String?
    /// What was noticed about the device itself.
    public var findings: [Finding]

    /// A disk; `path` is `source.name` when not given. The other facts are taken over into the model.
    public init(
        _ source: any BlockSource, path: String? = nil, model: String? = nil, serial: String? = nil,
        wwn: String? = nil, bus: String? = nil, findings: [Finding] = []
    ) {
        self.findings = findings
        self.source = source
        self.path = path ?? source.name
        self.model = model
        self.serial = serial
        self.wwn = wwn
        self.bus = bus
    }
}

/// Looks at disks.
public enum DiskSurvey {
    /// Everything on the disk `source`.
    ///
    /// Throws as ``look(at:unlocking:)``.
    public static func look(
        at source: any BlockSource, path: String? = nil, model: String? = nil, serial: String? = nil,
        wwn: String? = nil, bus: String? = nil
    ) throws(Fault) -> SurveyedDisk {
        let disk = DiskToSurvey(source, path: path, model: model, serial: serial, wwn: wwn, bus: bus)
        // One disk in, one out.
        return try look(at: [disk])[0]
    }

    /// Everything on `disks`, in their order, with the layers that lie on several of them. Encrypted volumes are looked into
    /// where `unlocking` has their passphrase. Operating systems are looked for where there is somebody to read files:
    /// `systems`.
    ///
    /// Throws `interrupted`; `wrong-kind` for an image file whose table was written for another sector size; `key.wrong`,
    /// `tool.missing` and `tool.failed` of unlocking.
    public static func look(
        at disks: [DiskToSurvey], unlocking: Unlocking = .none, systems host: ProbeHost? = nil
    ) throws(Fault) -> [SurveyedDisk] {
        var looked: [LookedDisk] = []
        for disk in disks { looked.append(try look(at: disk)) }
        noteTwins(&looked)
        var layers = LayerSurvey(unlocking)
        try layers.survey(&looked)
        if let host { try layers.findSystems(in: &looked, by: host) }
        return looked.map(\.surveyed)
    }

    /// Says of disks that call themselves the same, by their world wide names or by model, serial number and size: several
    /// paths to one disk, or copies of a virtual one.
    private static func noteTwins(_ disks: inout [LookedDisk]) {
        func names(_ disk: DiskModel) -> Set<String> {
            var result: Set<String> = []
            if let wwn = disk.wwn, !wwn.isEmpty { result.insert("the same world wide name (\(wwn))") }
            if let serial = disk.serial, !serial.isEmpty, let model = disk.model {
                result.insert("the same model, size and serial number (\(model), \(disk.size), \(serial))")
            }
            return result
        }
        for index in disks.indices {
            for other in disks.indices where other < index {
                guard let name = names(disks[index].model).intersection(names(disks[other].model)).sorted().last,
                    disks[index].model.path != disks[other].model.path
                else { continue }
                disks[index].model.findings.append(
                    Finding(
                        .warning, "disk.twice",
                        what:
                            "It and \(disks[other].model.path) have \(name): they are several paths to one disk, or one was "
                            + "copied from the other. Name one of them.", place: disks[index].model.path))
                break
            }
        }
    }

    /// Table and volumes of one disk.
    static func look(at given: DiskToSurvey) throws(Fault) -> LookedDisk {
        let (source, path) = (given.source, given.path)
        var disk = DiskModel(
            path: path, model: given.model, serial: given.serial, wwn: given.wwn, bus: given.bus, size: source.length,
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
        disk.findings = given.findings + reading.findings

        var volumes: [LookedVolume] = []
        if let whole {
            let extent = Extent(from: .zero, to: source.length)
            volumes = [
                LookedVolume(
                    volume: SurveyedVolume(number: 0, extent: extent, map: whole.map), name: path, source: source,
                    mayBeMember: whole.mayBeMember, layer: whole.layer)
            ]
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
        let remainder =
            disk.table.map { Remainder.of($0, regions: reading.regions, diskSize: source.length) } ?? ExtentList()
        return LookedDisk(model: disk, volumes: volumes, remainder: remainder)
    }

    /// One partition; `nil` where nothing of it is on the disk.
    private static func volume(
        _ partition: Partition, of source: any BlockSource, path: String
    ) throws(Fault) -> LookedVolume? {
        let place = "\(path):\(partition.number)"
        // A hostile length may pass 2^64; what there is of it ends with the disk.
        let start = partition.first.offset(source.sectorSize) ?? source.length
        let end = partition.extent(source.sectorSize)?.end ?? source.length
        let extent = Extent(from: start, to: min(end, source.length))
        guard !extent.isEmpty else { return nil }
        let window = try Window(source, extent, name: place)
        var map = try FilesystemMaps.map(window)
        var mayBeMember = true
        var layer: ContentKind?
        if end > source.length {
            map.used = ExtentList(Extent(from: .zero, to: extent.length))
            map.wholeBecause = "The partition passes the end of the disk; only what is there can be imaged."
            map.minimum = nil
            map.minimumIs = nil
            if !map.states.contains(.damaged) { map.states.append(.damaged) }
            mayBeMember = false
        } else if partition.type == storageSpaces {
            layer = WindowsLayers.storageSpaces
        }
        return LookedVolume(
            volume: SurveyedVolume(number: partition.number, extent: extent, map: map), name: place, source: window,
            mayBeMember: mayBeMember, layer: layer)
    }

    /// The partition type of Windows Storage Spaces.
    private static let storageSpaces = GUID("e75caf8f-f680-4cee-afa3-b001e56efc2d").map { PartitionType.gpt($0) }
}

/// A disk whose table was read, before its layers are known.
struct LookedDisk {
    var model: DiskModel
    var volumes: [LookedVolume]
    var remainder: ExtentList

    /// The result, with what is to be said of its volumes.
    var surveyed: SurveyedDisk {
        var model = model
        model.volumes = volumes.map(\.volume.model)
        for looked in volumes { model.findings += looked.volume.map.findings(place: looked.name) }
        model.findings += volumes.flatMap(\.findings)
        return SurveyedDisk(model: model, volumes: volumes.map(\.volume), remainder: remainder)
    }
}

/// A volume of such a disk.
struct LookedVolume {
    var volume: SurveyedVolume
    /// Its place, for messages.
    let name: String
    let source: any BlockSource
    /// Whether its content may be a layer's. Not where it is cut short, or the table is damaged.
    let mayBeMember: Bool
    /// What it is a member of, where libblkid does not know.
    var layer: ContentKind?
    /// What is to be said of what lies in it.
    var findings: [Finding] = []
}

extension VolumeMap {
    /// What is to be said of a volume at `place`.
    func findings(place: String) -> [Finding] {
        var result: [Finding] = []
        if let damage { result.append(Finding(.warning, "volume.damaged", what: damage, place: place)) }
        for warning in warnings { result.append(Finding(.warning, warning.code, what: warning.what, place: place)) }
        if let reason = wholeBecause, states.contains(where: { $0 != .clean }) {
            result.append(
                Finding(.warning, "volume.imaged-whole", what: "It is imaged whole. \(reason)", place: place))
        }
        return result
    }
}
