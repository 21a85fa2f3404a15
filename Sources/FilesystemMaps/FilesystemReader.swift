// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import MachineModel

/// A row of the table of formats whose used blocks can be read. A new format is one file and one row.
struct FilesystemReader: Sendable {
    /// The kinds it reads, by libblkid's names.
    let kinds: [ContentKind]
    /// Gives the used map. A content it cannot prove anything about is returned whole with the reason; a fault means
    /// that the volume could not be read, and makes it whole too.
    let read: @Sendable (_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap
    /// Says what a volume is that libblkid does not recognise because the first of several copies is damaged; `nil`
    /// where it is not certain.
    var recognise: @Sendable (_ volume: any BlockSource) throws(Fault) -> Identity? = { _ throws(Fault) in nil }

    /// All rows.
    static let all = [
        FilesystemReader(
            kinds: [.ext2, .ext3, .ext4, ContentKind(rawValue: "ext4dev")], read: ExtReader.map,
            recognise: ExtReader.recognise),
        FilesystemReader(kinds: [.fat], read: FATReader.map, recognise: FATReader.recognise),
        FilesystemReader(kinds: [.ntfs], read: NTFSReader.map, recognise: NTFSReader.recognise),
        FilesystemReader(kinds: [.xfs], read: XFSReader.map, recognise: XFSReader.recognise),
        FilesystemReader(kinds: [.btrfs], read: BtrfsReader.map, recognise: BtrfsReader.recognise),
        FilesystemReader(kinds: [.exFAT], read: ExFATReader.map, recognise: ExFATReader.recognise),
        FilesystemReader(kinds: [.f2fs], read: F2FSReader.map, recognise: F2FSReader.recognise),
        FilesystemReader(kinds: [.hfsPlus], read: HFSPlusReader.map, recognise: HFSPlusReader.recognise),
        FilesystemReader(kinds: [.swap, ContentKind(rawValue: "swsuspend")], read: SwapReader.map),
        FilesystemReader(kinds: WholeReader.kinds, read: WholeReader.map),
    ]
}

/// Kinds by libblkid's names.
extension ContentKind {
    static let btrfs = ContentKind(rawValue: "btrfs")
    static let hfsPlus = ContentKind(rawValue: "hfsplus")
    static let f2fs = ContentKind(rawValue: "f2fs")
    static let exFAT = ContentKind(rawValue: "exfat")
}
