// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import MachineModel

/// What is known of how a disk was started, and what certainly cannot start it any more.
struct BootFacts {
    /// Boot code that a BIOS would run, with something for it to find.
    var startsByBIOS: Bool
    /// Whether that code is GRUB's.
    var isGRUB: Bool
    /// An EFI system partition.
    var hasESP: Bool
    /// A BIOS boot partition.
    var hasBIOSBoot: Bool
    /// An NTFS on the active partition of an MBR.
    var isBIOSWindows: Bool
    /// An EFI system partition beside NTFS.
    var isUEFIWindows: Bool

    init(_ disk: DiskModel, _ roles: [(role: PartitionRole, partition: Partition, content: ContentKind?)]) {
        let sector0 = disk.table?.sector0.bytes ?? []
        // Code begins with a jump; what begins with zeros is no code.
        let hasCode = sector0.count >= 512 && (sector0[0] != 0 || sector0[1] != 0 || sector0[2] != 0)
        isGRUB = sector0.count >= 512 && sector0[0x180..<0x185].elementsEqual("GRUB ".utf8)
        hasESP = roles.contains { $0.role == .esp }
        hasBIOSBoot = roles.contains { $0.role == .biosBoot }
        let isMBR = disk.table?.kind == .mbr
        let active = roles.filter { isMBR && $0.partition.attributes & 0x80 != 0 }
        isBIOSWindows = hasCode && active.contains { $0.content == .ntfs }
        isUEFIWindows = hasESP && roles.contains { $0.content == .ntfs }
        let legacy = !isMBR && roles.contains { $0.partition.attributes & 4 != 0 }
        startsByBIOS = hasCode && (isMBR ? isGRUB || !active.isEmpty : (isGRUB && hasBIOSBoot) || legacy)
    }

    /// What speaks against starting the restored disk. `sectorChanges`: the target has larger sectors than the source.
    func objections(
        to table: TableKind, from old: TableKind, largerSectors: Bool, sectorSize: SectorSize, wish: FirmwareWish,
        place: String
    ) -> [Fault] {
        func fault(_ what: String, _ remedy: String) -> Fault {
            Fault(.notBootable, what: what, place: place, remedy: remedy)
        }
        var result: [Fault] = []
        let wantsBIOS = wish == .bios || (wish == .auto && startsByBIOS && !hasESP)
        if sectorSize.bytes > 512, wantsBIOS, largerSectors || wish == .bios {
            result.append(
                fault(
                    "A BIOS does not start systems from disks with sectors of \(sectorSize.bytes) bytes.",
                    "Use a target with 512-byte sectors, or `--firmware uefi` when it is to be started that way."))
        }
        if table != old, table == .gpt, isBIOSWindows {
            result.append(
                fault("Windows does not start from a GPT on a machine with a BIOS.", "Use `--table mbr` or `auto`."))
        }
        if table != old, table == .mbr, isUEFIWindows {
            result.append(fault("Windows does not start by UEFI from an MBR.", "Use `--table gpt` or `auto`."))
        }
        switch wish {
        case .auto: break
        case .bios:
            if table == .gpt, old == .gpt, isUEFIWindows, !hasBIOSBoot {
                result.append(
                    fault("Windows does not start from a GPT on a machine with a BIOS.", "Use `--firmware uefi`."))
            } else if table == .gpt, old == .gpt, !hasBIOSBoot, !startsByBIOS {
                result.append(
                    fault(
                        "It has a GPT without a BIOS boot partition, so that a BIOS finds no boot loader.",
                        "Start it by UEFI: `--firmware uefi`."))
            }
        case .uefi:
            if isBIOSWindows, table == .mbr {
                result.append(
                    fault("Windows does not start by UEFI from an MBR.", "Use `--firmware bios` or `auto`."))
            }
        }
        return result
    }
}
