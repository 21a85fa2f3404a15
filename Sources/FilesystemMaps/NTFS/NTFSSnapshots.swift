// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry

/// Whether a volume has shadow copies. Volume Shadow Snapshot (VSS) format, libvshadow's documentation, "The volume
/// header": 128 bytes at byte 0x1E00 of the volume.
///
/// A shadow copy keeps blocks that were overwritten since; what was freed and not overwritten it reads from the volume
/// itself, where $Bitmap calls it free.
enum NTFSSnapshots {
    /// 3808876b-c176-4e48-b7ae-04046e6cc752.
    private static let mark: [UInt8] = [
        0x6B, 0x87, 0x08, 0x38, 0x76, 0xC1, 0x48, 0x4E, 0xB7, 0xAE, 0x04, 0x04, 0x6E, 0x6C, 0xC7, 0x52,
    ]

    /// The warning for an image of used clusters; `nil` where there are none, or the header cannot be read.
    static func warning(_ volume: any BlockSource) -> VolumeMap.Warning? {
        guard let header = try? Fields("the snapshots' header", of: volume, at: ByteCount(0x1E00), count: 128),
            header.bytes.starts(with: mark),
            let catalogue = try? header.little(UInt64.self, "catalog offset", at: 48), catalogue != 0
        else { return nil }
        return VolumeMap.Warning(
            code: "volume.snapshots",
            what: "It has shadow copies (Previous Versions, restore points). What only they still show, such as files "
                + "deleted since, lies in clusters that count as free and is not in an image of used clusters; "
                + "`--whole` images all of it.")
    }
}
