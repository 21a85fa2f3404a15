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
/// trees alone say what is free. The trees are believed only when their sum is what each group's header and the
/// superblock say, and when the log ends with an unmount.
///
/// Where it does not, what is in use is what the trees say after the log was replayed in memory (``XFSReplay``), together
/// with what they say on the disk, in the groups in which they are of one piece there, and with everything that the
/// replay touches. After the replay both trees of each group must have the same extents.
///
/// A broken superblock is replaced by the copy of the second group; the volume then counts as damaged, and the
/// superblock's free blocks are not compared, since copies are not kept up to date.
enum XFSReader {
    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        try VolumeMap.made(of: volume, identity) { (result) throws(MapProblem) in try map(volume, into: &result) }
    }

    /// What libblkid does not recognise: a volume that begins with XFS's magic, or with a blank sector, and has a sound copy of
    /// the superblock.
    @Sendable static func recognise(_ volume: any BlockSource) throws(Fault) -> Identity? {
        guard volume.holds(XFSSuperblock.size, at: .zero) else { return nil }
        let first = Fields("the superblock", try volume.bytes(at: .zero, count: XFSSuperblock.size))
        guard first.matches("XFSB", at: 0) || Lost.isBlank(first.bytes), let (superblock, _) = try? superblock(volume)
        else { return nil }
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
                "Its superblock (byte 0) is damaged; the copy of the second allocation group was used. Run xfs_repair on it, or on "
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
        let head = try log.head()
        guard try log.isClean(head) else {
            guard !isCopy else { throw XFSLog.pending("and its superblock is damaged") }
            result.states.append(.journalToReplay)
            do throws(MapProblem) { result.used = try replayed(volume, superblock, log, head) } catch {
                guard case .whole(let reason, let state) = error else { throw error }
                throw .whole(
                    "It was not unmounted: its log waits to be replayed, and until then its free space does not tell what "
                        + "is in use. \(reason)", state)
            }
            return
        }

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
        try requireUsed(list, superblock, log)
        result.used = list
        if result.states.isEmpty { result.states = [.clean] }
    }

    /// What is in use where the log waits to be replayed.
    private static func replayed(
        _ volume: any BlockSource, _ superblock: XFSSuperblock, _ log: XFSLog, _ head: XFSLog.Head
    ) throws(MapProblem) -> ExtentList {
        let replay = try XFSReplay(volume, superblock, log, head)
        let fields = try Fields("the superblock", of: replay.volume, at: .zero, count: XFSSuperblock.size)
        var after: XFSSuperblock
        do throws(FieldError) { after = try XFSSuperblock(parsing: fields.bytes) } catch {
            throw .damaged("Its superblock would be damaged after the replay: \(error).")
        }
        try requireKnown(after, isCopy: false)
        // The count of free blocks is not kept up to date before an unmount; that attributes are used is noted with the
        // first of them.
        after.freeBlocks = superblock.freeBlocks
        after.label = superblock.label
        after.version = superblock.version
        after.features2 = superblock.features2
        after.logIncompatible = superblock.logIncompatible
        guard after == superblock else { throw .whole("A change of its size or features waits in its log.", nil) }
        var final = RunCollector()
        var before = RunCollector()
        for group in 0..<superblock.groups {
            let start = superblock.start(of: group)
            let block = superblock.blockSize.bytes
            func bytes(_ run: Range<UInt64>) -> Extent {
                Extent(from: start + ByteCount(run.lowerBound * block), to: start + ByteCount(run.upperBound * block))
            }
            try XFSFreeSpace(replay.volume, superblock, group: group).used(bothTrees: true) { final.add(bytes($0)) }
            // What the trees on the disk are part of may have been written only half.
            var runs = RunCollector()
            do throws(MapProblem) {
                try XFSFreeSpace(volume, superblock, group: group).used { runs.add(bytes($0)) }
                for run in runs.list.extents { before.add(run) }
            } catch { if case .fault(let fault) = error, fault.code == .interrupted { throw error } }
        }
        try requireUsed(final.list, superblock, log)
        return final.list.union(before.list).union(
            replay.touched.intersection(Extent(from: .zero, to: superblock.size)))
    }

    /// Throws where what is always in use is called free.
    private static func requireUsed(
        _ list: ExtentList, _ superblock: XFSSuperblock, _ log: XFSLog
    ) throws(MapProblem) {
        for group in 0..<superblock.groups {
            let start = superblock.start(of: group)
            guard list.covers(Extent(from: start, to: start + ByteCount(4 * superblock.sectorSize.bytes))) else {
                throw .damaged("The headers of allocation group \(group) are called free.")
            }
        }
        guard list.covers(log.place) else { throw .damaged("A part of its log is called free.") }
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
