// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # FilesystemMaps
///
/// Which bytes of a volume hold data. libblkid says what lies in it (``Identification``); one reader for each format,
/// a row in ``FilesystemReader/all``, then checks that and gives the used map. Nothing is mounted and nothing is written:
/// readers have a `BlockSource` and nothing else.
///
/// The rule of the room: what a reader cannot prove to be unused is used. A filesystem that was not cleanly unmounted,
/// that has features unknown here, or whose metadata contradict each other is imaged whole, and
/// ``VolumeMap/wholeBecause`` says why. FAT, which is hardly ever unmounted cleanly, is mapped all the same where every
/// directory and file has its clusters in the allocation table; so is NTFS after a driver that keeps no log, with the
/// clusters of all file records besides those of the bitmap. What lies between a filesystem's end and its volume's end is
/// used. No content, however damaged, is an error.
///
/// Where the journal of ext or the log of XFS version 5 waits to be replayed, it is replayed in memory, on an
/// `OverlaySource`; used is then what is used before or after the replay, and the state is `journalToReplay`. The image
/// holds the volume as it is, its journal included: whoever mounts the restored volume replays it.
///
/// Where a format keeps a structure twice, the sound copy is used and the volume counts as damaged, with a sentence that says
/// which one is not sound and where it lies: boot sectors of NTFS, FAT32 and exFAT, NTFS's first file records, FAT's allocation
/// tables, superblocks of ext, XFS, Btrfs and F2FS, tree blocks of Btrfs, the volume header of HFS+. What a copy does not tell,
/// since it is not kept up to date, must be told by something else (ext: the journal and all inodes) or the volume is whole
/// (exFAT and HFS+ without their first flags; ext2). A checkpoint of F2FS is not a copy of the other one. A copy is
/// looked for only where the first structure is blank or still bears the format's name: something else may have been laid over
/// an old filesystem, an encrypted volume for one, and would be imaged by that one's map.
///
/// What the room does not promise: it does not check a filesystem as its own checker does, and its smallest sizes are
/// estimates. A file or device is identified by libblkid reading the file itself; other sources by a copy of the places
/// where superblocks lie, so that a label kept elsewhere (HFS+) may be missing.
public import Blocks
public import Findings
public import Geometry
import Threads
import MachineModel

/// Used maps of volumes.
public enum FilesystemMaps {
    /// What lies in `volume` and which of its bytes are in use. Throws `interrupted` only.
    public static func map(_ volume: any BlockSource) throws(Fault) -> VolumeMap {
        try Interruption.check()
        let identity: Identity
        do throws(Fault) {
            identity = try Identification.identify(volume)
        } catch {
            var whole = VolumeMap(identity: Identity(kind: .unknown), whole: volume.length)
            whole.states = [.damaged]
            whole.wholeBecause = "What lies in it cannot be told: \(error.what)"
            return whole
        }
        return try map(volume, identified: identity)
    }

    /// The used map of `volume`, which holds what `identity` says.
    public static func map(_ volume: any BlockSource, identified identity: Identity) throws(Fault) -> VolumeMap {
        let whole = VolumeMap(identity: identity, whole: volume.length)
        guard let reader = FilesystemReader.all.first(where: { $0.kinds.contains(identity.kind) }) else {
            return whole.whole(because: reason(identity))
        }
        do throws(Fault) {
            var map = try reader.read(volume, identity)
            try Interruption.check()
            // A reader proves something about its filesystem only. Behind its end others may keep something: hash trees
            // of dm-verity, a RAID's metadata, what a shrunk filesystem left. Zeros there cost nothing.
            if let end = map.filesystemSize, end < volume.length {
                map.used = map.used.union(ExtentList(Extent(from: end, to: volume.length)))
            }
            // Whatever a reader says, the map ends where the volume does.
            map.used = map.used.intersection(Extent(from: .zero, to: volume.length))
            return map
        } catch {
            if error.code == .interrupted { throw error }
            return whole.whole(because: "Its metadata cannot be read: \(error.what)", .damaged)
        }
    }

    /// A volume of `length` bytes of which every byte counts as used, for the reason given (a sentence).
    public static func whole(_ identity: Identity, length: ByteCount, because reason: String) -> VolumeMap {
        VolumeMap(identity: identity, whole: length).whole(because: reason)
    }

    /// Why a volume without a reader is imaged whole.
    private static func reason(_ identity: Identity) -> String {
        if !identity.ambivalent.isEmpty {
            return "It bears the signatures of several contents (\(identity.ambivalent.joined(separator: ", ")))."
        }
        switch identity.kind {
        case .unknown: return "Nothing known was recognised in it."
        case .empty: return "Nothing was recognised in it; its first MiB is zero."
        default: break
        }
        switch identity.usage {
        case .encrypted: return "It is encrypted (\(identity.kind.rawValue)); which blocks are in use cannot be seen."
        case .container: return "It is part of a container (\(identity.kind.rawValue)) that is not looked into."
        case .filesystem, .other: return "There is no reader for the used blocks of \(identity.kind.rawValue)."
        }
    }
}
