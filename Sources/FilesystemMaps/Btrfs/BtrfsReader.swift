// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel

/// Btrfs: the extents of its extent tree, pushed through its chunks onto the devices; the first MiB of each device and
/// all copies of the superblock.
///
/// The extent tree of the last transaction is the whole truth, however the system was stopped, but for what fsync wrote
/// since: where the log tree is not empty, its blocks and the extents that it names are used too. It is believed when
/// each block on the way has the right checksum, place, owner and transaction, and when the extents' sum is what each
/// block group and the superblock say. The older trees that the superblock keeps for `usebackuproot` are not
/// kept: nothing guards them from being written over.
///
/// A filesystem on several devices can be told only from all of them: one alone is whole.
enum BtrfsReader {
    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        try VolumeMap.made(of: volume, identity) { (result) throws(MapProblem) in
            let member = try BtrfsMember(volume)
            begin(&result, member)
            let filesystem = try BtrfsVolume([member])
            try fill(&result, member, try BtrfsExtents(filesystem), isMended: filesystem.isMended)
        }
    }

    /// The maps of all `volumes`, which are the devices of one filesystem, in the same order. They are all whole, for
    /// the same reason, where it cannot be told from them.
    static func maps(_ volumes: [(source: any BlockSource, identity: Identity)]) throws(Fault) -> [VolumeMap] {
        var results: [VolumeMap] = []
        var together: Result<(BtrfsExtents, Bool), MapProblem>?
        for volume in volumes {
            let map = try VolumeMap.made(of: volume.source, volume.identity) { (result) throws(MapProblem) in
                let member = try BtrfsMember(volume.source)
                begin(&result, member)
                let extents = together ?? read(volumes.map(\.source))
                together = extents
                let (found, isMended) = try extents.get()
                try fill(&result, member, found, isMended: isMended)
            }
            results.append(map)
        }
        return results
    }

    private static func read(_ sources: [any BlockSource]) -> Result<(BtrfsExtents, Bool), MapProblem> {
        do throws(MapProblem) {
            var members: [BtrfsMember] = []
            for source in sources { members.append(try BtrfsMember(source)) }
            let filesystem = try BtrfsVolume(members)
            let extents = try BtrfsExtents(filesystem)
            return .success((extents, filesystem.isMended))
        } catch {
            return .failure(error)
        }
    }

    /// What libblkid does not recognise: a volume with Btrfs's magic where the first superblock lies, and a sound copy of
    /// that elsewhere. Where nothing is left of the first, the copies may be those of an older filesystem.
    @Sendable static func recognise(_ volume: any BlockSource) throws(Fault) -> Identity? {
        let place = BtrfsSuperblock.places[0]
        guard volume.holds(BtrfsSuperblock.size, at: place) else { return nil }
        let first = Fields("the superblock", try volume.bytes(at: place, count: BtrfsSuperblock.size))
        guard first.matches("_BHRfS_M", at: 64), let member = try? BtrfsMember(volume) else { return nil }
        let label = member.superblock.label
        return Identity(
            kind: .btrfs, usage: .filesystem, label: label.isEmpty ? nil : label, uuid: member.superblock.uuidText)
    }

    private static func begin(_ result: inout VolumeMap, _ member: BtrfsMember) {
        result.blockSize = ByteCount(member.superblock.sectorSize)
        result.filesystemSize = member.superblock.deviceSize
        if member.isCopy {
            // libblkid read what is left of the first superblock.
            let label = member.superblock.label
            result.identity.uuid = member.superblock.uuidText
            result.identity.label = label.isEmpty ? nil : label
        }
    }

    private static func fill(
        _ result: inout VolumeMap, _ member: BtrfsMember, _ extents: BtrfsExtents, isMended: Bool
    ) throws(MapProblem) {
        result.used = try extents.used(on: member.superblock.device)
        result.minimum = extents.minimum(of: member.superblock.device)
        result.minimumIs = result.minimum == nil ? nil : "estimated"
        if member.isCopy || isMended {
            let what =
                member.isCopy
                ? "Its first superblock (byte 65536) is damaged; the copy at byte \(member.superblock.place) was used."
                : "A block of its trees is damaged; another copy was used."
            result.damage =
                what + " Run `btrfs rescue super-recover` or `btrfs scrub` on it, or on what is restored from "
                + "its image."
            result.states.append(.damaged)
        }
        // What fsync wrote since the last transaction waits to be replayed.
        if member.superblock.logRoot != 0 { result.states.append(.journalToReplay) }
        if result.states.isEmpty { result.states = [.clean] }
    }
}
