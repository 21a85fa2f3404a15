// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import DiskSurvey
import Findings
public import Geometry
import Glibc
import LinuxDisks
import MachineModel
import PartitionTables
public import RestorePlanning

/// What is asked of a plan, beyond the recovery point.
public struct PlanRequest: Hashable, Sendable {
    /// Where the point's disks go, each as written: `DISK` or `DISK=SOURCE`; `DISK:N` or `DISK:N=PART` for one volume.
    public var targets: [String]
    /// What is wished of the layout.
    public var wishes: PlanWishes
    /// Sector size of targets that are image files.
    public var fileSectorSize: SectorSize

    /// A request.
    public init(targets: [String], wishes: PlanWishes = PlanWishes(), fileSectorSize: SectorSize = .s512) {
        self.targets = targets
        self.wishes = wishes
        self.fileSectorSize = fileSectorSize
    }
}

/// Looks at targets: what they are, what would be lost, what speaks against writing to them.
struct TargetAssessor {
    let scan: DiskScan
    /// The folders and files of the image set.
    let set: [String]
    let fileSectorSize: SectorSize
    /// Kernel names of the disks the set lies on.
    private let setDisks: Set<String>

    init(scan: DiskScan, set: [String], fileSectorSize: SectorSize) {
        self.scan = scan
        self.set = set
        self.fileSectorSize = fileSectorSize
        setDisks = set.reduce(into: []) { $0.formUnion(scan.disks(holding: $1)) }
    }

    private func holdsSet(_ path: String) -> Fault {
        let named = set.count > 1 ? "a part of the image set" : "the image set"
        return Fault(
            .targetForbidden, what: "The target holds \(named) \(set.joined(separator: " + ")).", place: path,
            remedy: "Restore to another disk, or copy the set elsewhere first.")
    }

    /// The target `name`; with `part`, only that partition of it is to be written.
    func assess(_ name: String, part: Int? = nil) throws(Fault) -> Planner.Target {
        let selected: SelectedDisk
        do throws(Fault) {
            selected = try DiskSelector.resolve(name, in: scan, identify: Identify.volume)
        } catch {
            var fault = error
            if fault.code == .missing, case .path(let path)? = try? DiskSelector(name), !path.hasPrefix("/dev/") {
                fault.remedy =
                    "To restore into an image file, make it first: `truncate -s SIZE \(path)`. \(fault.remedy)"
            }
            throw fault
        }
        guard selected.isWholeDisk else {
            let number = selected.disk?.partitions.first { $0.path == selected.path }?.number
            throw Fault(
                .unsupported, what: "It is a part of a disk.", place: selected.path,
                remedy: "Name the whole disk\(selected.disk.map { ", \($0.path)" } ?? "")"
                    + (number.flatMap { number in selected.disk.map { ", or \($0.path):\(number) for one volume" } }
                        ?? "")
                    + ".")
        }
        let source = try FileSource(path: selected.path, fileSectorSize: fileSectorSize)
        let pin = TargetPin(
            path: selected.path, serial: selected.disk?.serial, wwn: selected.disk?.wwn, model: selected.disk?.model,
            size: source.length, sectorSize: source.sectorSize)
        return Planner.Target(
            pin: pin, holds: holds(source, selected, part), objections: objections(selected, part),
            isVirtual: selected.isFile || selected.disk?.bus == "loop")
    }

    /// What will be lost, one fragment for each thing found.
    private func holds(_ source: FileSource, _ selected: SelectedDisk, _ part: Int?) -> [String] {
        do {
            let found = try DiskSurvey.look(
                at: source, path: selected.path, model: nil, serial: nil, wwn: nil, bus: nil
            ).model
            let volumes = found.volumes.filter {
                $0.kind != .empty && ($0.number != 0 || $0.kind != .unknown) && (part == nil || part == $0.number)
            }
            var result = volumes.map { volume in
                let label = volume.label.map { " \"\($0)\"" } ?? ""
                let place = volume.number == 0 ? "" : "partition \(volume.number): "
                return "\(place)\(volume.kind.rawValue)\(label), \(volume.extent.length)"
            }
            if result.isEmpty, part == nil, let table = found.table {
                result.append("an empty \(table.kind.rawValue) partition table")
            }
            return result
        } catch {
            return ["something that cannot be read (\(error.what))"]
        }
    }

    private func objections(_ selected: SelectedDisk, _ part: Int?) -> [Fault] {
        var result: [Fault] = []
        if let disk = selected.disk {
            for use in part.map({ disk.uses(ofPartition: $0) }) ?? disk.uses {
                result.append(
                    Fault(
                        .targetInUse, what: "The target is in use: \(use).", place: disk.path,
                        remedy: "Unmount it or stop what lies on it (swap, LVM, RAID), then try again."))
            }
            if disk.isReadOnly {
                result.append(
                    Fault(
                        .targetForbidden, what: "The target is read-only.", place: disk.path,
                        remedy: "Look for a write-protect switch, or use another disk."))
            }
            // Downwards through the target's own layers only: the disk that the file behind a loop device lies on is not
            // overwritten.
            let below = scan.wholeDisks(under: disk.name, throughFiles: false).union([disk.name])
            // A partition that holds the set is mounted: it is in use, and its neighbours are not.
            if part == nil, !below.isDisjoint(with: setDisks) { result.append(holdsSet(disk.path)) }
            if scan.bootMedia().contains(disk.name) {
                result.append(
                    Fault(
                        .targetForbidden, what: "The target is a Relight boot medium.", place: disk.path,
                        remedy: "Restore to another disk."))
            }
        } else if selected.isFile {
            let loops = scan.devices.filter { $0.backingFile == selected.path }
            for loop in loops {
                let uses = loop.uses.isEmpty ? "" : ": " + loop.uses.joined(separator: "; ")
                result.append(
                    Fault(
                        .targetInUse, what: "The loop device \(loop.path) lies over the target\(uses).",
                        place: selected.path,
                        remedy: "Unmount it, detach it with `losetup --detach \(loop.path)`, then try again."))
            }
            if !setDisks.isDisjoint(with: loops.map(\.name)) { result.append(holdsSet(selected.path)) }
            for place in set {
                guard let path = scan.files.resolved(place),
                    selected.path == path || selected.path.hasPrefix(path.hasSuffix("/") ? path : path + "/")
                else { continue }
                result.append(
                    Fault(
                        .targetForbidden, what: "The target is a file of the image set \(place).", place: selected.path,
                        remedy: "Name a disk, or an image file outside the set."))
            }
        }
        return result
    }
}

extension AttachedDisk {
    /// What holds partition `number`, or the disk as a whole; its other partitions do not matter.
    fileprivate func uses(ofPartition number: Int) -> [String] {
        var alone = self
        alone.partitions = partitions.filter { $0.number == number }
        return alone.uses
    }
}

extension PlanRequest {
    /// Which of the point's disks, or volumes, goes to which target.
    func assignments(_ disks: [DiskModel], set: [String], scan: DiskScan) throws(Fault) -> [Planner.Assignment] {
        let assessor = TargetAssessor(scan: scan, set: set, fileSectorSize: fileSectorSize)
        var result: [Planner.Assignment] = []
        for target in targets {
            let (named, wanted) = PlanRequest.split(target)
            if let (name, number) = PlanRequest.part(named) {
                let (index, volume) = try source(of: wanted, for: target, disks)
                let found = try assessor.assess(name, part: number)
                let bytes = try FileSource(path: found.pin.path, fileSectorSize: found.pin.sectorSize)
                guard let table = try TableReader.read(bytes).table else {
                    throw Fault(
                        .missing, what: "It has no partition table, and so no partition \(number).",
                        place: found.pin.path, remedy: "Name the whole disk, or make the partition first.")
                }
                result.append(
                    Planner.Assignment(
                        sourceIndex: index, source: disks[index], target: found,
                        part: Planner.Part(source: volume, target: number, table: table)))
            } else {
                let (name, index) = try sourceIndex(of: target, disks)
                result.append(
                    Planner.Assignment(sourceIndex: index, source: disks[index], target: try assessor.assess(name)))
            }
        }
        return result
    }

    /// Takes `DISK=SOURCE` apart, unless a file has the sign in its name.
    private static func split(_ target: String) -> (String, String?) {
        guard let sign = target.lastIndex(of: "="), unsafe access(target, F_OK) != 0 else { return (target, nil) }
        return (String(target[..<sign]), String(target[target.index(after: sign)...]))
    }

    /// Takes `DISK:N` apart, unless a device or file is called that.
    private static func part(_ name: String) -> (disk: String, number: Int)? {
        guard unsafe access(name, F_OK) != 0 else { return nil }
        let (disk, number) = DiskSelector.splitPart(name)
        return number.map { (disk, $0) }
    }

    /// The volume that `wanted` (`N` or `DISK:N`) stands for; the only one there is when nothing is said.
    private func source(
        of wanted: String?, for target: String, _ disks: [DiskModel]
    ) throws(Fault) -> (disk: Int, volume: Int) {
        let all = disks.enumerated().flatMap { index, disk in disk.volumes.map { (disk: index, volume: $0) } }
        let list = all.map {
            "  \($0.disk + 1):\($0.volume.number): \($0.volume.kind.rawValue), \($0.volume.extent.length)"
        }
        .joined(separator: "\n")
        guard let wanted else {
            if all.count == 1, let only = all.first { return (only.disk, only.volume.number) }
            throw Fault(
                .usage, what: "The recovery point holds \(all.count) volumes; which one goes to \(target)?",
                remedy: "Write `--to \(target)=VOLUME`. Its volumes are:\n\(list)")
        }
        let name = PartName(wanted)
        let found = all.filter { item in
            guard let name, item.volume.number == name.number else { return false }
            guard let disk = name.disk else { return disks.count == 1 }
            return disk == "\(item.disk + 1)" || disk == disks[item.disk].path || disk == disks[item.disk].serial
        }
        guard let only = found.first, found.count == 1 else {
            throw Fault(
                .usage, what: "The recovery point holds no volume \(wanted), or several.",
                remedy: "Its volumes are:\n\(list)")
        }
        return (only.disk, only.volume.number)
    }

    /// Takes `DISK=SOURCE` apart; SOURCE is a number counted from 1, or the path the disk had.
    private func sourceIndex(of target: String, _ disks: [DiskModel]) throws(Fault) -> (String, Int) {
        let list = disks.enumerated().map { "  \($0.offset + 1): \($0.element.path), \($0.element.size)" }
            .joined(separator: "\n")
        if let equals = target.lastIndex(of: "=") {
            let wanted = String(target[target.index(after: equals)...])
            if let number = Int(wanted), number > 0, number <= disks.count {
                return (String(target[..<equals]), number - 1)
            }
            if let index = disks.firstIndex(where: { $0.path == wanted || $0.serial == wanted }) {
                return (String(target[..<equals]), index)
            }
            // A path may hold the sign itself.
            if disks.count == 1, unsafe access(target, F_OK) == 0 { return (target, 0) }
            throw Fault(
                .usage, what: "The recovery point holds no disk \(wanted).", remedy: "Its disks are:\n\(list)")
        }
        guard disks.count == 1 else {
            throw Fault(
                .usage, what: "The recovery point holds \(disks.count) disks; which one goes to \(target)?",
                remedy: "Write `--to \(target)=NUMBER`. Its disks are:\n\(list)")
        }
        return (target, 0)
    }
}

/// What identifies the disks of this machine.
enum VisibleIDs {
    /// Identifiers of every disk of `scan`, its partitions, and what lies in them; disks that cannot be read have none.
    static func all(_ scan: DiskScan) -> [VisibleID] {
        var result: [VisibleID] = []
        for disk in scan.disks where disk.size > .zero {
            let isVirtual = disk.bus == "loop"
            func add(_ id: String, _ what: String) {
                result.append(VisibleID(id: id, what: what, disk: disk.path, isVirtual: isVirtual))
            }
            guard let source = try? FileSource(path: disk.path), let table = try? TableReader.read(source).table else {
                continue
            }
            if let guid = table.gpt?.diskGUID { add(guid.description, "disk GUID") }
            if table.kind == .mbr, let signature = TableLayout.signature(table) { add(signature, "MBR disk signature") }
            for partition in table.partitions {
                if let guid = partition.guid { add(guid.description, "GUID of partition \(partition.number)") }
            }
        }
        for volume in scan.volumes(Identify.volume) {
            guard let uuid = volume.identity.uuid, let name = volume.disks.first, volume.disks.count == 1,
                let disk = scan.device(named: name)
            else { continue }
            result.append(
                VisibleID(
                    id: uuid, what: "\(volume.identity.kind) on \(volume.path)", disk: disk.path,
                    partition: disk.partitions.first { $0.path == volume.path }?.number,
                    isVirtual: disk.bus == "loop"))
        }
        return result
    }
}
