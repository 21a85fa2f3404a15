// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel

/// XFS, versions 4 and 5: everything that no free space tree calls free.
///
/// The blocks of a group's free list (AGFL) hold nothing, but count as used: they are some dozens in a group, and the
/// trees alone say what is free. The trees are believed only when the log ends with an unmount, and when their sum is
/// what each group's header and the superblock say. A broken superblock is replaced by the copy of the second group;
/// the volume then counts as damaged, and the superblock's free blocks are not compared, since copies are not kept up
/// to date.
enum XFSReader {
    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        try VolumeMap.made(of: volume, identity) { (result) throws(MapProblem) in try map(volume, into: &result) }
    }

    /// What libblkid does not recognise: a volume that begins with XFS's magic and has a sound copy of the superblock.
    @Sendable static func recognise(_ volume: any BlockSource) throws(Fault) -> Identity? {
        guard volume.holds(XFSSuperblock.size, at: .zero) else { return nil }
        let first = Fields("the superblock", try volume.bytes(at: .zero, count: XFSSuperblock.size))
        guard first.matches("XFSB", at: 0), let (superblock, _) = try? superblock(volume) else { return nil }
        return Identity(
            kind: .xfs, usage: .filesystem, label: superblock.label.isEmpty ? nil : superblock.label,
            uuid: superblock.uuidText)
    }

    private static func map(_ volume: any BlockSource, into result: inout VolumeMap) throws(MapProblem) {
        let (superblock, isCopy) = try superblock(volume)
        result.blockSize = superblock.blockSize
        result.filesystemSize = superblock.size
        if isCopy {
            result.damage =
                "Its superblock is damaged; the copy of the second allocation group was used. Run xfs_repair on it, or on "
                + "what is restored from its image."
            result.states.append(.damaged)
        }
        try requireKnown(superblock, isCopy: isCopy)
        guard superblock.size <= volume.length else {
            throw .damaged(
                "The filesystem (\(superblock.size)) is larger than the volume (\(volume.length)): its end is missing.")
        }
        guard superblock.logStart != 0 else {
            throw .whole(
                "Its log is on another device, so that nobody can tell whether something waits to be replayed.", nil)
        }
        let log = try XFSLog(volume, superblock)
        try log.requireClean()

        var used = RunCollector()
        var free: UInt64 = 0
        for group in 0..<superblock.groups {
            let space = try XFSFreeSpace(volume, superblock, group: group)
            let start = superblock.start(of: group)
            let block = superblock.blockSize.bytes
            try space.used { run in
                used.add(
                    Extent(
                        from: start + ByteCount(run.lowerBound * block), to: start + ByteCount(run.upperBound * block)))
            }
            free += space.freeBlocks + space.reserved + space.treeBlocks
        }
        guard isCopy || free == superblock.freeBlocks else {
            throw .damaged(
                "Its allocation groups have \(free) free blocks, its superblock says \(superblock.freeBlocks).")
        }
        let list = used.list
        for group in 0..<superblock.groups {
            let start = superblock.start(of: group)
            guard list.covers(Extent(from: start, to: start + ByteCount(4 * superblock.sectorSize.bytes))) else {
                throw .damaged("The headers of allocation group \(group) are called free.")
            }
        }
        guard list.covers(log.place) else { throw .damaged("A part of its log is called free.") }
        result.used = list
        if result.states.isEmpty { result.states = [.clean] }
    }

    /// The superblock, or else its copy in the second allocation group, and whether it is that.
    private static func superblock(_ volume: any BlockSource) throws(MapProblem) -> (XFSSuperblock, isCopy: Bool) {
        let problem: MapProblem
        do throws(MapProblem) { return (try superblock(volume, at: .zero), false) } catch { problem = error }
        guard case .whole = problem else { throw problem }
        for place in copies(volume) {
            guard let copy = try? superblock(volume, at: place), copy.start(of: 1) == place, copy.groups > 1 else {
                continue
            }
            return (copy, true)
        }
        throw problem
    }

    /// A superblock with a sound checksum.
    private static func superblock(_ volume: any BlockSource, at place: ByteCount) throws(MapProblem) -> XFSSuperblock {
        let fields = try Fields("the superblock", of: volume, at: place, count: XFSSuperblock.size)
        let result: XFSSuperblock
        do throws(FieldError) { result = try XFSSuperblock(parsing: fields.bytes) } catch {
            throw .damaged("Its superblock is damaged: \(error).")
        }
        guard result.isVersion5 else { return result }
        let sector = try Fields("the superblock", of: volume, at: place, count: Int(result.sectorSize.bytes))
        guard XFSChecksum.isRight(sector.bytes, at: 224) else {
            throw .damaged("The checksum of its superblock is wrong.")
        }
        return result
    }

    /// Where the second group may begin: where the broken superblock says, and where mkfs.xfs puts it when it makes four
    /// groups or groups of 1 TiB.
    private static func copies(_ volume: any BlockSource) -> [ByteCount] {
        var result: [ByteCount] = [.gibibytes(1024)]
        if let first = try? Fields("the superblock", of: volume, at: .zero, count: XFSSuperblock.size),
            let block = try? first.big(UInt32.self, "sb_blocksize", at: 4),
            let group = try? first.big(UInt32.self, "sb_agblocks", at: 84)
        {
            for block in [block, 4096] {
                if let place = ByteCount(UInt64(block)).multiplied(by: UInt64(group)) { result.append(place) }
            }
        }
        for log in 9...16 as ClosedRange<UInt64> {
            let blocks = volume.length.bytes >> log
            result.append(ByteCount(((blocks + 3) / 4) << log))
        }
        return result.filter { $0 > .zero }
    }

    /// Throws where the superblock has something that is unknown here.
    private static func requireKnown(_ superblock: XFSSuperblock, isCopy: Bool) throws(MapProblem) {
        guard [4, 5].contains(superblock.version.number), !superblock.version.contains(.shared) else {
            throw .whole("It is of XFS version \(superblock.version.number), which is unknown here.", .unknownFeatures)
        }
        let unknown =
            superblock.incompatible.rawValue & ~XFSSuperblock.Incompatible.known.rawValue
            | superblock.readOnlyCompatible.rawValue & ~XFSSuperblock.ReadOnlyCompatible.known.rawValue
            | superblock.features2 & ~XFSSuperblock.knownFeatures2
            | superblock.logIncompatible & ~XFSSuperblock.knownLogIncompatible
        guard unknown == 0 else {
            throw .whole(
                "It has features unknown here (bits \(Hex.number(unknown)) of one of its feature fields).",
                .unknownFeatures)
        }
        if superblock.incompatible.contains(.needsRepair) {
            throw .damaged("It is marked as needing repair: run xfs_repair on it.")
        }
        // In copies it is always set.
        if superblock.isInProgress, !isCopy {
            throw .damaged("mkfs.xfs or a copy of it was not finished.")
        }
        if superblock.hasRealTimeDevice {
            throw .whole("It has a real-time device, on which part of its files lies.", nil)
        }
    }
}
