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
enum ExtReader {
    /// Descriptors of a 16 TiB filesystem with 4 KiB blocks take 8 MiB; far more is a lie.
    static let mostDescriptorBytes = ByteCount.mebibytes(256)

    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        var result = VolumeMap(identity: identity, whole: volume.length)
        let superblock: ExtSuperblock
        do {
            superblock = try ExtSuperblock(
                parsing: try volume.bytes(at: ExtSuperblock.offset, count: ExtSuperblock.size))
        } catch let error as FieldError {
            return result.whole(because: "Its superblock is damaged: \(error).", .damaged)
        } catch let error as Fault {
            throw error
        } catch {
            return result.whole(because: "Its superblock is damaged.", .damaged)
        }
        result.blockSize = superblock.blockSize
        result.filesystemSize = superblock.size
        if let reason = refusal(superblock, identity, volume, &result.states) { return result.whole(because: reason) }

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
                }, Unmanaged.passUnretained(reader).toOpaque(), &summary)
        }
        if let fault = reader.fault { throw fault }
        if status != 0 {
            let text = unsafe relight_ext_error(status).map { unsafe String(cString: $0) } ?? "error \(status)"
            return relight_ext_is_unsupported(status) != 0
                ? result.whole(because: "It has features unknown here: \(text).", .unknownFeatures)
                : result.whole(because: "Its metadata are damaged: \(text).", .damaged)
        }
        if let (reason, state) = complaint(summary) { return result.whole(because: reason, state) }
        guard ByteCount(UInt64(summary.block_size)) == superblock.blockSize, summary.blocks == superblock.blocks,
            let size = superblock.size
        else { return result.whole(because: "Its superblock is read in two ways.", .damaged) }

        // The boot sector lies before the first block of a 1 KiB filesystem and in no bitmap.
        var used = RunCollector()
        used.add(Extent(from: .zero, to: max(.kibibytes(2), superblock.blockSize)))
        for run in reader.runs.list.extents { used.add(run) }
        result.used = used.list.intersection(Extent(from: .zero, to: size))
        result.states = [.clean]
        result.minimum = estimate(result.used.byteCount, summary, of: size)
        result.minimumIs = "estimated"
        return result
    }

    /// Why the bitmaps are not to be trusted, or not to be read at all, going by the superblock; `nil` when they are.
    private static func refusal(
        _ superblock: ExtSuperblock, _ identity: Identity, _ volume: any BlockSource, _ states: inout [VolumeState]
    ) -> String? {
        if superblock.incompatible.contains(.journalDevice) {
            return "It is the external journal of another filesystem."
        }
        guard let size = superblock.size, size <= volume.length else {
            states.append(.damaged)
            return
                "The filesystem (\(superblock.size.map(String.init(describing:)) ?? "more than 16 EiB")) is larger than "
                + "the volume (\(volume.length)): its end is missing."
        }
        guard let descriptors = superblock.descriptorBytes, descriptors <= mostDescriptorBytes else {
            states.append(.damaged)
            return "Its group descriptors would take more than \(mostDescriptorBytes)."
        }
        if identity.badChecksum {
            states.append(.damaged)
            return "Its superblock's checksum is wrong."
        }
        if superblock.incompatible.contains(.recover) {
            states.append(.journalToReplay)
            return superblock.journalDevice == 0
                ? "It was not unmounted: its journal waits to be replayed, and until then its bitmaps do not tell what is in "
                    + "use."
                : "It was not unmounted, and its journal is on another device."
        }
        if superblock.state.contains(.errors) {
            states.append(.dirty)
            return "It is marked as having errors: run e2fsck on it before its bitmaps can be relied on."
        }
        if !superblock.state.contains(.valid) {
            states.append(.dirty)
            return "It was not cleanly unmounted and has no journal, so its bitmaps may be out of date."
        }
        return nil
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
