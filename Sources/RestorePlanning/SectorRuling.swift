// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import MachineModel

/// What becomes of a filesystem on a disk whose logical sectors have another size. Tried with Linux on loop and virtio
/// disks with 4096-byte sectors: a filesystem that counts in blocks of 4096 bytes and more does not notice; one made for
/// smaller sectors is refused by the kernel, or by Windows.
enum SectorRuling {
    /// It works as it is.
    case keeps
    /// It works as far as is known; a sentence says what does not.
    case keepsBut(String)
    /// It must be made anew; a sentence says why.
    case recreate(String)
    /// Nothing helps; a sentence says why, with the code.
    case refused(FaultCode, String)

    /// The ruling for content of `kind`, whose blocks have `blockSize` bytes, on a disk with sectors of `new` bytes.
    static func ruling(
        _ kind: ContentKind, blockSize: ByteCount?, role: PartitionRole, layers: [NestedVolume]?, from old: SectorSize,
        to new: SectorSize
    ) -> SectorRuling {
        if old == new || kind == .swap || kind == .empty { return .keeps }
        // Nothing in these is a filesystem.
        if [.biosBoot, .msr, .prep].contains(role) { return .keeps }
        if kind == .fat || kind == .exfat {
            return .recreate("\(kind == .fat ? "A FAT" : "An exFAT") counts in the disk's sectors")
        }
        guard new.bytes > old.bytes else {
            if kind == .ntfs {
                return .keepsBut(
                    "NTFS made for sectors of \(old.bytes) bytes can be read here, but Windows may not start from it.")
            }
            return kind == .unknown ? .keepsBut("Nothing is known of its content; it may not work here.") : .keeps
        }
        let isLarge = (blockSize?.bytes ?? 0) >= UInt64(new.bytes)
        switch kind {
        case .ext2, .ext3, .ext4:
            return isLarge
                ? .keeps : .recreate("Its blocks are smaller than the target's sectors of \(new.bytes) bytes")
        case .xfs: return .recreate("XFS cannot be mounted where the disk's sectors are larger than its own")
        case .btrfs, .f2fs:
            return isLarge || blockSize == nil
                ? .keeps : .refused(.sectorSizeMismatch, "Its blocks are smaller than the target's sectors.")
        case .ntfs:
            return .refused(
                .sectorSizeMismatch, "Windows does not accept NTFS made for sectors of \(old.bytes) bytes there.")
        case .unknown:
            return .refused(.unknownRaw, "Nothing is known of its content, so nobody can tell whether it works there.")
        default: break
        }
        guard ContentKind.containers.contains(kind) else {
            return .refused(.sectorSizeMismatch, "Nothing is known of \(kind.rawValue) on such sectors.")
        }
        guard let layers else {
            return kind == .physicalVolume
                ? .keepsBut("What lies in it was not looked at; a filesystem with small blocks will not mount here.")
                : .refused(.needsUnlock, "What lies in it is not known: it was not unlocked when it was imaged.")
        }
        for layer in layers {
            switch ruling(
                layer.kind, blockSize: layer.blockSize, role: .data, layers: layer.layers, from: old, to: new)
            {
            case .keeps, .keepsBut: continue
            case .recreate(let why), .refused(_, let why):
                return .refused(.sectorSizeMismatch, "\(layer.name) in it does not work there. \(why).")
            }
        }
        return .keeps
    }
}
