// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import MachineModel

/// Contents that are known by name and imaged whole, with a plain sentence why.
enum WholeReader {
    private static let sentences: [(kind: ContentKind, sentence: String)] = [
        (
            ContentKind(rawValue: "ReFS"),
            "It is ReFS, whose allocation Microsoft does not document: all of it is imaged, and it can be restored to the "
                + "same or a larger size only."
        ),
        (
            ContentKind(rawValue: "zfs_member"),
            "It belongs to a ZFS pool, whose used blocks are not looked into: all of it is imaged, and it can be restored "
                + "to the same size only."
        ),
        (
            ContentKind(rawValue: "apfs"),
            "It is an APFS container, whose used blocks are not looked into: all of it is imaged, and it can be restored "
                + "to the same or a larger size only."
        ),
        (
            ContentKind(rawValue: "BitLocker"),
            "It is encrypted with BitLocker and locked: all of it is imaged as it is, and the recovery key is needed "
                + "afterwards as before."
        ),
        (
            ContentKind(rawValue: "hfs"),
            "It is HFS, the format before HFS+, whose used blocks are not looked into: all of it is imaged."
        ),
        (
            ContentKind(rawValue: "bcachefs"),
            "It is bcachefs, whose used blocks are not looked into: all of it is imaged."
        ),
    ]

    static let kinds = sentences.map(\.kind)

    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        let sentence = sentences.first { $0.kind == identity.kind }?.sentence
        return VolumeMap(identity: identity, whole: volume.length).whole(
            because: sentence ?? "There is no reader for the used blocks of \(identity.kind.rawValue).")
    }
}
