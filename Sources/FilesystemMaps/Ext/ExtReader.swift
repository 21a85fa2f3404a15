// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import CExt2Glue
import Findings
import Geometry
import Threads
import Glibc
import MachineModel

/// ext2, ext3 and ext4: libext2fs reads group descriptors and bitmaps (groups without an initialised bitmap, bigalloc,
/// meta_bg, flex_bg and 64bit included) through a channel that can only read this volume.
///
/// Where the journal is not empty, the bitmaps on the disk are of another moment than the rest. Then what is in use is
/// what they say, together with what they say after the journal was replayed in memory (``JournalReplay``): whoever
/// mounts or checks the restored filesystem replays the same journal and finds every block it then needs.
///
/// Where the superblock is damaged, a copy of it is used (``ExtBackup``). Where descriptors of groups are, which only
/// their checksums can tell, those groups count as in use; their copies are out of date by nature.
enum ExtReader {
    /// Descriptors of a 16 TiB filesystem with 4 KiB blocks take 8 MiB; far more is a lie.
    static let mostDescriptorBytes = ByteCount.mebibytes(256)

    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        try VolumeMap.made(of: volume, identity) { (result) throws(MapProblem) in
            try map(volume, identity, into: &result)
        }
    }

    private static func map(
        _ volume: any BlockSource, _ identity: Identity, into result: inout VolumeMap
    ) throws(MapProblem) {
        let superblock: ExtSuperblock
        do throws(MapProblem) {
            superblock = try ExtReader.superblock(volume)
            result.blockSize = superblock.blockSize
            result.filesystemSize = superblock.size
            guard !identity.badChecksum else { throw .damaged("Its superblock's checksum is wrong.") }
        } catch {
            guard case .whole(_, .damaged) = error else { throw error }
            return try map(volume, into: &result, without: error)
        }
        try mapReplayed(volume, superblock, into: &result)
    }

    /// The map by `superblock`, which is a copy of the damaged one where that `isCopy`.
    static func mapReplayed(
        _ volume: any BlockSource, _ superblock: ExtSuperblock, into result: inout VolumeMap, isCopy: Bool = false
    ) throws(MapProblem) {
        try requireReadable(superblock, on: volume)
        if superblock.incompatible.contains(.recover) { result.states.append(.journalToReplay) }
        let replay = try replay(volume, superblock, isCopy: isCopy)
        try requireWithoutErrors(superblock, isCopy: isCopy)
        guard let replay else {
            let (used, summary) = try used(volume, superblock)
            result.used = used
            guard summary.broken_groups == 0 else { return note(summary, in: &result) }
            result.states = [.clean]
            result.minimum = result.filesystemSize.map { estimate(used.byteCount, summary, of: $0) }
            result.minimumIs = "estimated"
            return
        }
        result.states = [.journalToReplay]
        let after = try ExtReader.superblock(replay.volume)
        guard after.blockSize == superblock.blockSize, after.uuid == superblock.uuid else {
            throw .damaged("Its journal makes another filesystem of it.")
        }
        // An online resize may wait in the journal too: the filesystem may then be larger than it says now.
        result.filesystemSize = [superblock.size, after.size].compactMap { $0 }.max()
        try requireReadable(after, on: volume)
        try requireWithoutErrors(after, isCopy: isCopy)
        let (final, summary) = try used(replay.volume, after)
        if summary.broken_groups > 0 { note(summary, in: &result) }
        for extent in replay.journal.extents where !final.covers(extent) {
            throw .damaged("After its journal is replayed, a part of the journal would be free.")
        }
        result.used = final.union(try used(volume, superblock, isInFlux: true).list)
    }

    /// Says which groups count as in use since their descriptors are damaged.
    private static func note(_ summary: relight_ext_summary, in result: inout VolumeMap) {
        result.damage =
            "\(summary.broken_groups) of its \(summary.groups) group descriptors are damaged, the first that of group "
            + "\(summary.group): all of those groups count as in use. Run `e2fsck` on it, or on what is restored from its "
            + "image."
        result.states.append(.damaged)
    }

    /// What waits in the journal, or `nil`.
    private static func replay(
        _ volume: any BlockSource, _ superblock: ExtSuperblock, isCopy: Bool
    ) throws(MapProblem) -> JournalReplay? {
        let isPending = superblock.incompatible.contains(.recover)
        guard superblock.compatible.contains(.journal) else {
            if isPending { throw .damaged("It says that a journal waits to be replayed, but has none.") }
            return nil
        }
        guard !superblock.hasExternalJournal else {
            guard isPending else { return nil }
            let name =
                superblock.journalUUID.contains { $0 != 0 }
                ? " with UUID \(PlainUUID.text(superblock.journalUUID))" : ""
            throw .whole(
                "It was not unmounted, and its journal is on another device\(name): until that is replayed its bitmaps do "
                    + "not tell what is in use.", .journalToReplay)
        }
        do throws(MapProblem) { return try JournalReplay(volume, blocks: superblock.blocks) } catch {
            switch error {
            case .whole(let reason, let state) where isPending:
                throw .whole(
                    "It was not unmounted: its journal waits to be replayed, and until then its bitmaps do not tell what "
                        + "is in use. \(reason)", state)
            case .whole(_, .damaged) where !isCopy:
                // Nothing is said to wait, so that nobody would replay a journal in which this cannot be read.
                return nil
            default: throw error
            }
        }
    }

    /// The superblock of what lies in `volume`.
    private static func superblock(_ volume: any BlockSource) throws(MapProblem) -> ExtSuperblock {
        let fields = try Fields("its superblock", of: volume, at: ExtSuperblock.offset, count: ExtSuperblock.size)
        let superblock: ExtSuperblock
        do throws(FieldError) { superblock = try ExtSuperblock(parsing: fields.bytes) } catch {
            throw .damaged("Its superblock is damaged: \(error).")
        }
        guard superblock.isSound(fields.bytes) else { throw .damaged("Its superblock's checksum is wrong.") }
        return superblock
    }

    /// The bytes in use by the bitmaps in `volume`, which are not compared with anything where they are `isInFlux`.
    private static func used(
        _ volume: any BlockSource, _ superblock: ExtSuperblock, isInFlux: Bool = false
    ) throws(MapProblem) -> (list: ExtentList, summary: relight_ext_summary) {
        let reader = Reader(volume, blockSize: superblock.blockSize)
        var summary = relight_ext_summary()
        let status = withExtendedLifetime(reader) {
            unsafe relight_ext_map(
                { context, offset, buffer, length in
                    guard let context = unsafe context, let buffer = unsafe buffer else { return EINVAL }
                    return unsafe Unmanaged<Reader>.fromOpaque(context).takeUnretainedValue()
                        .read(offset, buffer, length)
                },
                { context, first, count in
                    guard let context = unsafe context else { return }
                    unsafe Unmanaged<Reader>.fromOpaque(context).takeUnretainedValue().add(first, count)
                }, Unmanaged.passUnretained(reader).toOpaque(), isInFlux ? 1 : 0, &summary)
        }
        if let fault = reader.fault { throw .fault(fault) }
        if status != 0 {
            let text = unsafe relight_ext_error(status).map { unsafe String(cString: $0) } ?? "error \(status)"
            guard relight_ext_is_unsupported(status) == 0 else {
                throw .whole("It has features unknown here: \(text).", .unknownFeatures)
            }
            throw .damaged("Its metadata are damaged: \(text).")
        }
        if let (reason, state) = complaint(summary) { throw .whole(reason, state) }
        guard ByteCount(UInt64(summary.block_size)) == superblock.blockSize, summary.blocks == superblock.blocks,
            let size = superblock.size
        else { throw .damaged("Its superblock is read in two ways.") }
        // The boot sector lies before the first block of a 1 KiB filesystem and in no bitmap.
        var used = RunCollector()
        used.add(Extent(from: .zero, to: max(.kibibytes(2), superblock.blockSize)))
        for run in reader.runs.list.extents { used.add(run) }
        return (used.list.intersection(Extent(from: .zero, to: size)), summary)
    }

    /// Throws where libext2fs is not to be asked at all.
    private static func requireReadable(
        _ superblock: ExtSuperblock, on volume: any BlockSource
    ) throws(MapProblem) {
        guard !superblock.incompatible.contains(.journalDevice) else {
            throw .whole("It is the external journal of another filesystem.", nil)
        }
        guard let size = superblock.size, size <= volume.length else {
            throw .damaged(
                "The filesystem (\(superblock.size.map(String.init(describing:)) ?? "more than 16 EiB")) is larger than "
                    + "the volume (\(volume.length)): its end is missing.")
        }
        guard let descriptors = superblock.descriptorBytes, descriptors <= mostDescriptorBytes else {
            throw .damaged("Its group descriptors would take more than \(mostDescriptorBytes).")
        }
    }

    /// Throws where the filesystem itself says that its bitmaps are not to be trusted.
    private static func requireWithoutErrors(_ superblock: ExtSuperblock, isCopy: Bool) throws(MapProblem) {
        // resize2fs sets this mark too while it works, so that a resize that was interrupted bears it.
        if superblock.state.contains(.errors) {
            throw .whole(
                "It is marked as having errors, or as being resized: run e2fsck on it before its bitmaps can be relied on.",
                .dirty)
        }
        // In copies it is never said to be valid; the journal tells.
        if !superblock.state.contains(.valid), !isCopy {
            throw .whole(
                superblock.compatible.contains(.journal)
                    ? "It was not cleanly unmounted, so its bitmaps may be out of date."
                    : "It was not cleanly unmounted and has no journal, so its bitmaps may be out of date.", .dirty)
        }
    }

    private static func complaint(_ summary: relight_ext_summary) -> (String, VolumeState)? {
        switch UInt32(bitPattern: summary.problem) {
        case RELIGHT_EXT_OK.rawValue: return nil
        case RELIGHT_EXT_DESCRIPTOR_CHECKSUM.rawValue:
            return ("The checksum of group descriptor \(summary.group) is wrong.", .damaged)
        case RELIGHT_EXT_OUTSIDE.rawValue:
            return ("Group \(summary.group) has its metadata outside the filesystem.", .damaged)
        case RELIGHT_EXT_METADATA_FREE.rawValue:
            return ("The bitmap of group \(summary.group) calls the group's own metadata free.", .damaged)
        case RELIGHT_EXT_FREE_COUNT.rawValue:
            return (
                "Its bitmaps have \(summary.free_in_bitmaps) free blocks, its group descriptors "
                    + "\(summary.free_in_descriptors).", .damaged
            )
        case RELIGHT_EXT_GROUP_FREE_COUNT.rawValue:
            return (
                "The bitmap of group \(summary.group) has more free blocks than the group's descriptor says.", .damaged
            )
        case RELIGHT_EXT_UNKNOWN_FEATURES.rawValue:
            return ("It has read-only compatible features unknown here.", .unknownFeatures)
        default: return ("Its metadata are damaged.", .damaged)
        }
    }

    /// Not less than resize2fs needs: what is in use and room to move it, and as many groups as hold the inodes in use,
    /// for a group's inodes go with it.
    private static func estimate(_ used: ByteCount, _ summary: relight_ext_summary, of size: ByteCount) -> ByteCount {
        let room = ByteCount(used.bytes / 20) + .mebibytes(4)
        let blocks = used.adding(room)?.roundedUp(to: .mebibytes(1)) ?? size
        guard summary.inodes_per_group > 0 else { return size }
        let groups = (summary.inodes_in_use + UInt64(summary.inodes_per_group) - 1) / UInt64(summary.inodes_per_group)
        let inodes = ByteCount(UInt64(summary.block_size)).multiplied(by: UInt64(summary.blocks_per_group))?
            .multiplied(by: groups)
        return min(max(blocks, inodes ?? size), size)
    }

    /// What libext2fs is given instead of a file.
    private final class Reader {
        let volume: any BlockSource
        let blockSize: ByteCount
        var runs = RunCollector()
        var fault: Fault?

        init(_ volume: any BlockSource, blockSize: ByteCount) {
            self.volume = volume
            self.blockSize = blockSize
        }

        func read(_ offset: UInt64, _ buffer: UnsafeMutableRawPointer, _ length: UInt64) -> Int32 {
            // A place outside the volume is damage in the metadata, not a failing disk.
            guard let count = Int(exactly: length), volume.holds(count, at: ByteCount(offset)) else { return EIO }
            do throws(Fault) {
                try Interruption.check()
                var span = unsafe MutableRawSpan(_unsafeStart: buffer, byteCount: count)
                try volume.read(at: ByteCount(offset), into: &span)
                return 0
            } catch {
                fault = error
                return EIO
            }
        }

        func add(_ first: UInt64, _ count: UInt64) {
            guard let start = blockSize.multiplied(by: first), let length = blockSize.multiplied(by: count),
                let run = Extent(start: start, length: length)
            else { return }
            runs.add(run)
        }
    }
}
