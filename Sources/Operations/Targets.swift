// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import DiskSurvey
import Findings
public import Geometry
import Glibc
import LinuxDisks
import FilesystemResize
import MachineModel
public import RestorePlanning

/// What is asked of a plan, beyond the recovery point.
public struct PlanRequest: Hashable, Sendable {
    /// Where the point's disks go, each as written: `DISK` or `DISK=SOURCE`.
    public var targets: [String]
    /// The layout; `nil` chooses `keep`.
    public var layout: LayoutMode?
    /// Sector size of targets that are image files.
    public var fileSectorSize: SectorSize

    /// A request.
    public init(targets: [String], layout: LayoutMode? = nil, fileSectorSize: SectorSize = .s512) {
        self.targets = targets
        self.layout = layout
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

    func assess(_ name: String, growing: Bool) throws(Fault) -> Planner.Target {
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
            throw Fault(
                .unsupported, what: "It is a part of a disk; this version restores whole disks.", place: selected.path,
                remedy: "Name the whole disk\(selected.disk.map { ", \($0.path)" } ?? "").")
        }
        let source = try FileSource(path: selected.path, fileSectorSize: fileSectorSize)
        let pin = TargetPin(
            path: selected.path, serial: selected.disk?.serial, wwn: selected.disk?.wwn, model: selected.disk?.model,
            size: source.length, sectorSize: source.sectorSize)
        return Planner.Target(
            pin: pin, holds: holds(source, selected), objections: objections(selected, growing: growing))
    }

    /// What will be lost, one fragment for each thing found.
    private func holds(_ source: FileSource, _ selected: SelectedDisk) -> [String] {
        do {
            let found = try DiskSurvey.look(
                at: source, path: selected.path, model: nil, serial: nil, wwn: nil, bus: nil
            ).model
            let volumes = found.volumes.filter { $0.kind != .empty && ($0.number != 0 || $0.kind != .unknown) }
            var result = volumes.map { volume in
                let label = volume.label.map { " \"\($0)\"" } ?? ""
                let place = volume.number == 0 ? "" : "partition \(volume.number): "
                return "\(place)\(volume.kind.rawValue)\(label), \(volume.extent.length)"
            }
            if result.isEmpty, let table = found.table {
                result.append("an empty \(table.kind.rawValue) partition table")
            }
            return result
        } catch {
            return ["something that cannot be read (\(error.what))"]
        }
    }

    private func objections(_ selected: SelectedDisk, growing: Bool) -> [Fault] {
        var result: [Fault] = []
        if let disk = selected.disk {
            for use in disk.uses {
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
            if !below.isDisjoint(with: setDisks) { result.append(holdsSet(disk.path)) }
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
        if growing, selected.isFile, !LoopDevice.isAvailable {
            result.append(
                Fault(
                    .planRefused, what: "Growing a filesystem inside an image file needs a loop device.",
                    place: selected.path, remedy: "Run relight as root, or use `--layout keep`."))
        }
        return result
    }
}

extension PlanRequest {
    /// Which of the point's disks goes to which target.
    func assignments(_ disks: [DiskModel], set: [String], scan: DiskScan) throws(Fault) -> [Planner.Assignment] {
        let assessor = TargetAssessor(scan: scan, set: set, fileSectorSize: fileSectorSize)
        var result: [Planner.Assignment] = []
        for target in targets {
            let (name, index) = try sourceIndex(of: target, disks)
            result.append(
                Planner.Assignment(
                    sourceIndex: index, source: disks[index],
                    target: try assessor.assess(name, growing: layout == .fill)))
        }
        return result
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
