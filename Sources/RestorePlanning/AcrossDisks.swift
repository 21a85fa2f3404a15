// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import MachineModel
import PartitionTables

/// What can only be seen with all targets together.
extension Planner {
    /// Layers that lie on several volumes of which not all are restored.
    static func layers(_ request: Request, _ disks: [DiskPlan], _ reasons: inout [Fault]) -> [Finding] {
        var findings: [Finding] = []
        /// What is restored, left out, and known of each layer.
        var seen: [LayerMember: (restored: Int, left: [String])] = [:]
        for assignment in request.assignments {
            let dropped = Set(disks.first { $0.sourceIndex == assignment.sourceIndex }?.dropped.map(\.number) ?? [])
            for volume in assignment.source.volumes {
                guard let member = volume.memberOf, member.members.count + member.missing > 1 else { continue }
                if dropped.contains(volume.number) {
                    seen[member, default: (0, [])].left.append("\(assignment.source.path):\(volume.number)")
                } else if assignment.part.map({ $0.source == volume.number }) ?? true {
                    seen[member, default: (0, [])].restored += 1
                }
            }
        }
        for (member, count) in seen.sorted(by: { $0.key.name < $1.key.name }) {
            let all = member.members.count + member.missing
            guard count.restored > 0, count.restored < all else { continue }
            let name = "\(member.format)\(member.name.isEmpty ? "" : " \(member.name)")"
            if let left = count.left.first, !member.format.hasPrefix("md raid1") {
                reasons.append(
                    Fault(
                        .containerPartial,
                        what: "\(name) lies on \(all) volumes, and \(left) of them is left out while others are "
                            + "restored.", place: left, remedy: "Leave out all of them with --drop, or none."))
            } else {
                findings.append(
                    Finding(
                        .warning, FaultCode.containerPartial.rawValue,
                        what: "\(name) lies on \(all) volumes, of which \(count.restored) "
                            + "\(count.restored == 1 ? "is" : "are") restored. It works when the others are attached or "
                            + "not needed."))
            }
        }
        return findings
    }

    /// Identifiers that an attached disk, or another target, would share with a target.
    static func collisions(
        _ request: Request, _ disks: [DiskPlan], _ reasons: inout [Fault], _ findings: inout [Finding]
    ) {
        let targets = Set(disks.filter { $0.keeps == nil }.map(\.target.path))
        var visible: [String: VisibleID] = [:]
        for id in request.visible where !targets.contains(id.disk) && visible[id.id]?.isVirtual != false {
            // What a volume is restored over goes away.
            let isReplaced = disks.contains { disk in
                disk.target.path == id.disk && id.partition != nil && disk.volumes.first?.number == id.partition
            }
            if !isReplaced { visible[id.id] = id }
        }
        var planned: [String: String] = [:]
        for (assignment, disk) in zip(request.assignments, disks) {
            if visible.isEmpty, disks.count == 1 { return }
            var same: [(what: String, other: VisibleID)] = []
            let own = identifiers(of: disk, assignment.source)
            for (id, what) in own {
                if let other = visible[id] { same.append((what, other)) }
                if let other = planned[id] {
                    same.append(
                        (what, VisibleID(id: id, what: what, disk: other, isVirtual: assignment.target.isVirtual)))
                }
            }
            for (id, _) in own { planned[id] = disk.target.path }
            guard let first = same.first(where: { !$0.other.isVirtual }) ?? same.first else { continue }
            let isReal = !assignment.target.isVirtual && !first.other.isVirtual
            let count = same.count == 1 ? "" : " and \(same.count - 1) more"
            let what =
                "It would have the same \(first.what)\(count) as \(first.other.disk), which is attached: firmware and "
                + "systems take one for the other."
            if isReal, request.wishes.ids == nil {
                reasons.append(
                    Fault(
                        .idCollision, what: what, place: disk.target.path,
                        remedy:
                            "Detach \(first.other.disk), or use `--ids new` (then look at what is left to change), or "
                            + "`--ids keep` when it is going to be detached before anything starts."))
            } else {
                findings.append(
                    Finding(
                        isReal ? .warning : .notice, FaultCode.idCollision.rawValue, what: what,
                        place: disk.target.path))
            }
        }
    }

    /// The identifiers a planned target will have.
    private static func identifiers(of disk: DiskPlan, _ source: DiskModel) -> [(id: String, what: String)] {
        var result: [(id: String, what: String)] = []
        if let table = disk.table {
            if let guid = table.gpt?.diskGUID { result.append((guid.description, "disk GUID")) }
            if table.kind == .mbr, let signature = TableLayout.signature(table) {
                result.append((signature, "MBR disk signature"))
            }
            for partition in table.partitions {
                if let guid = partition.guid {
                    result.append((guid.description, "GUID of partition \(partition.number)"))
                }
            }
        }
        for volume in disk.volumes {
            guard let model = source.volumes.first(where: { $0.number == volume.sourceNumber }),
                let uuid = model.uuid, !uuid.isEmpty,
                // All members of these share one.
                (model.memberOf?.members.count ?? 0) <= 1, model.kind.rawValue != "linux_raid_member"
            else { continue }
            result.append(
                (uuid.lowercased(), "\(model.kind.rawValue) identifier of partition \(volume.number)"))
        }
        return result
    }
}

extension ContentKind {
    /// The command that gives a filesystem at `DEVICE` a new identifier; `nil` where there is none.
    var newIdentifierCommand: String? {
        switch rawValue {
        case "ext2", "ext3", "ext4": "tune2fs -U random DEVICE"
        case "xfs": "xfs_admin -U generate DEVICE"
        case "btrfs": "btrfstune -u DEVICE"
        case "vfat": "fatlabel --volume-id --reset DEVICE"
        case "exfat": "tune.exfat -I 0xNUMBER DEVICE"
        case "ntfs": "ntfslabel --new-serial DEVICE"
        case "swap": "swaplabel -U \"$(uuidgen)\" DEVICE"
        case "crypto_LUKS": "cryptsetup luksUUID --uuid \"$(uuidgen)\" DEVICE"
        case "LVM2_member": "vgimportclone DEVICE"
        case "linux_raid_member": "mdadm --assemble --update=uuid"
        default: nil
        }
    }
}
