// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import MachineModel

/// Layers that are recognised and named, and imaged whole.
enum NamedLayers {
    /// libblkid's names, what to call them, and why they are whole.
    private static let known: [(kind: String, name: String, reason: String)] = [
        (
            "BitLocker", "BitLocker",
            "It is encrypted with BitLocker; which blocks are in use cannot be seen. The recovery key stays necessary."
        ),
        ("isw_raid_member", "Intel RST RAID", firmware), ("ddf_raid_member", "DDF RAID", firmware),
        ("lsi_mega_raid_member", "LSI MegaRAID", firmware), ("via_raid_member", "VIA RAID", firmware),
        ("nvidia_raid_member", "NVIDIA RAID", firmware), ("silicon_medley_raid_member", "Silicon Image RAID", firmware),
        ("promise_fasttrack_raid_member", "Promise FastTrak RAID", firmware),
        ("highpoint_raid_member", "HighPoint RAID", firmware), ("adaptec_raid_member", "Adaptec RAID", firmware),
        ("jmicron_raid_member", "JMicron RAID", firmware), ("pdc_raid_member", "Promise RAID", firmware),
        ("zfs_member", "ZFS", "It belongs to a ZFS pool; the used blocks of ZFS are not looked for."),
        ("drbd", "DRBD", "It is a DRBD volume, which keeps metadata at its end; its used blocks are not looked for."),
        ("bcache", "bcache", "It belongs to a bcache set: its content and its cache are one only together."),
        ("vdo", "VDO", "It is a VDO volume; which of its blocks are in use is known to VDO alone."),
        ("DM_integrity", "dm-integrity", "It keeps a checksum of every sector between its data."),
        ("DM_verity_hash", "dm-verity", "It holds the hash tree of another volume."),
        ("DM_snapshot_cow", "snapshot", "It holds what a snapshot saved of another volume."),
        ("stratis", "Stratis", "It belongs to a Stratis pool, whose used blocks are not looked for."),
        ("LVM1_member", "LVM1", "It belongs to a volume group of LVM1, which is not looked into."),
        ("LVM2_cache", "LVM2 cache", "It is a cache of LVM2, which is not looked into."),
        ("mpath_member", "multipath", "It is one path to a disk that has several."),
        ("VMFS_volume_member", "VMFS", "It belongs to a VMFS volume, whose used blocks are not looked for."),
        ("ceph_bluestore", "Ceph", "It belongs to a Ceph store, whose used blocks are not looked for."),
        ("cs_fvault2", "FileVault", "It is encrypted with FileVault; which blocks are in use cannot be seen."),
    ]
    private static let firmware =
        "It is a member of a RAID that the firmware or its driver puts together; its used blocks are not looked for. Image "
        + "all the disks of that RAID together."

    static let format = LayerFormat(
        kinds: known.map(\.kind), name: { kind in known.first { $0.kind == kind.rawValue }?.name ?? kind.rawValue },
        recognise: { (_, kind) throws(LayerProblem) in
            let row = known.first { $0.kind == kind.rawValue }
            return MemberDescriptor(
                format: row?.name ?? kind.rawValue, content: .named,
                wholeBecause: row?.reason ?? "It is a part of a container (\(kind.rawValue)) that is not looked into.")
        },
        owns: { if case .named = $0 { true } else { false } },
        assemble: { (members, _) throws(Fault) in
            members.map { Stack(whole: [$0], because: $0.descriptor.wholeBecause ?? "It is not looked into.") }
        })
}
