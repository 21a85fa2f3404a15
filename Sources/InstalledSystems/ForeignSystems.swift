// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import MachineModel

/// Systems of which only the type of their partition is known.
enum ForeignSystems {
    /// What the partition's type says; `nil` where it says nothing of a system.
    static func system(_ volume: SeenVolume) -> InstalledSystem? {
        guard let type = volume.partition?.type else { return nil }
        let known: (InstalledSystem.Family, String)? =
            switch type {
            case .gpt(let guid): guids[guid.description]
            case .mbr(let byte): bytes[byte]
            }
        guard let (family, name) = known else { return nil }
        return InstalledSystem(
            family: family, name: "\(name) (by its partition's type)", volume: volume.name, root: "/")
    }

    /// Types that hold files of the system; those for its swap and its boot code are left out.
    private static let guids: [String: (InstalledSystem.Family, String)] = [
        "7c3457ef-0000-11aa-aa11-00306543ecac": (.macOS, "macOS (APFS)"),
        "48465300-0000-11aa-aa11-00306543ecac": (.macOS, "macOS (HFS+)"),
        "516e7cb6-6ecf-11d6-8ff8-00022d09712b": (.bsd, "FreeBSD (UFS)"),
        "516e7cba-6ecf-11d6-8ff8-00022d09712b": (.bsd, "FreeBSD (ZFS)"),
        "49f48d5a-b10e-11dc-b99b-0019d1879648": (.bsd, "NetBSD"),
        "824cc7a0-36a8-11e3-890a-952519ad3f61": (.bsd, "OpenBSD"),
    ]
    private static let bytes: [UInt8: (InstalledSystem.Family, String)] = [
        0xA5: (.bsd, "FreeBSD"), 0xA6: (.bsd, "OpenBSD"), 0xA9: (.bsd, "NetBSD"), 0xAF: (.macOS, "macOS (HFS+)"),
    ]
}
