// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import CExt2Glue
import Findings
import Geometry
import MachineModel
import Threads

/// The copies of ext's superblock that some groups begin with, for a volume whose own is damaged.
///
/// Copies are written by mke2fs, resize2fs and e2fsck, and by the kernel when features or the size change; whether the
/// filesystem was unmounted, or found to have errors, they do not tell. The first is told by the journal. Against the
/// second, every inode's blocks are looked up in the bitmaps (``proved``).
struct ExtBackup {
    /// The volume with the copy in the place of the superblock, in memory.
    let volume: OverlaySource
    /// The group whose copy it is, and where that lies.
    let group: UInt64
    let place: ByteCount
    let superblock: ExtSuperblock
    /// The copy's 1024 bytes.
    let bytes: [UInt8]

    /// Groups that have a copy in every layout but sparse_super2, which names its two.
    private static let groups: [UInt64] = [1, 3, 5, 7, 9, 25, 27, 49]

    /// The first sound copy; `nil` where there is none.
    init?(_ volume: any BlockSource) throws(MapProblem) {
        for (size, blocks) in try ExtBackup.layouts(volume) {
            // With blocks of 1 KiB the first is the boot sector's, but for bigalloc.
            let first: UInt64 = size == 1024 && blocks <= 8 * size ? 1 : 0
            for group in ExtBackup.groups {
                let place = ByteCount((first + group * blocks) * size)
                guard blocks > 0, volume.holds(ExtSuperblock.size, at: place) else { break }
                guard let bytes = try ExtBackup.copy(volume, at: place, of: group, size: size, blocks: blocks),
                    let superblock = try? ExtSuperblock(parsing: bytes), let whole = superblock.size,
                    whole <= volume.length
                else { continue }
                self.volume = OverlaySource(volume, blockSize: ByteCount(1024))
                do throws(Fault) {
                    try self.volume.write(at: ExtSuperblock.offset, unsafe bytes.span.bytes)
                } catch { throw .fault(error) }
                self.group = group
                self.place = place
                self.superblock = superblock
                self.bytes = bytes
                return
            }
        }
        return nil
    }

    /// Bytes of a block and blocks of a group that the filesystem may have: what is left of its superblock says, and
    /// what mke2fs chooses. 4 KiB first, which nearly all have.
    private static func layouts(_ volume: any BlockSource) throws(MapProblem) -> [(size: UInt64, blocks: UInt64)] {
        var result: [(size: UInt64, blocks: UInt64)] = []
        for log in [2, 0, 1, 3, 4, 5, 6] as [UInt64] {
            let size: UInt64 = 1024 << log
            // With bigalloc a group has a bit for each cluster, of 16 blocks by default.
            result += [(size, 8 * size), (size, 16 * 8 * size)]
        }
        do throws(MapProblem) {
            let rest = try Fields("its superblock", of: volume, at: ExtSuperblock.offset, count: ExtSuperblock.size)
            let log = try rest.little(UInt32.self, "s_log_block_size", at: 0x18)
            let blocks = UInt64(try rest.little(UInt32.self, "s_blocks_per_group", at: 0x20))
            if log <= 6, blocks >= 8 { result.insert((1024 << UInt64(log), blocks), at: 0) }
        } catch {
            if case .fault(let fault) = error, fault.code == .interrupted { throw error }
        }
        return result
    }

    /// The bytes of a copy at `place` that says that it is the one of `group`; `nil` where there is none.
    private static func copy(
        _ volume: any BlockSource, at place: ByteCount, of group: UInt64, size: UInt64, blocks: UInt64
    ) throws(MapProblem) -> [UInt8]? {
        let fields: Fields
        do throws(MapProblem) {
            fields = try Fields("a copy of the superblock", of: volume, at: place, count: ExtSuperblock.size)
        } catch {
            if case .fault(let fault) = error, fault.code == .interrupted { throw error }
            return nil
        }
        guard let superblock = try? ExtSuperblock(parsing: fields.bytes), superblock.blockSize.bytes == size,
            UInt64(superblock.blocksPerGroup) == blocks, place.bytes / size / blocks == group,
            try fields.little(UInt16.self, "s_block_group_nr", at: 0x5A) == UInt16(truncatingIfNeeded: group)
        else { return nil }
        return superblock.isSound(fields.bytes) ? fields.bytes : nil
    }

    /// What the volume holds, by the copy.
    var identity: Identity {
        let fields = Fields("a copy of the superblock", bytes)
        func word(_ offset: Int) -> UInt32 { (try? fields.little(UInt32.self, "a feature field", at: offset)) ?? 0 }
        // Extents, 64bit, flex_bg …; huge files, checksums of descriptors, large inodes ….
        let isExt4 = word(0x60) & ~0x16 != 0 || word(0x64) & ~0x7 != 0
        let label = bytes[0x78..<0x88].prefix { $0 != 0 }
        return Identity(
            kind: isExt4 ? .ext4 : superblock.compatible.contains(.journal) ? .ext3 : .ext2, usage: .filesystem,
            label: label.isEmpty ? nil : String(decoding: label, as: UTF8.self), uuid: PlainUUID.text(superblock.uuid))
    }

    /// Throws unless all blocks of all inodes in use lie in `used`.
    func requireAllInodes(in used: ExtentList) throws(MapProblem) {
        let ext: ExtVolume
        do throws(ExtVolume.Problem) { ext = try ExtVolume(volume) } catch {
            throw .damaged("Its inodes cannot be read: \(error.text).")
        }
        let facts = ext.facts
        for group in 0..<facts.groups {
            do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
            let known = ext.group(group)?.inodes ?? facts.inodes_per_group
            for index in 0..<known {
                let (number, overflow) = (group &* facts.inodes_per_group).addingReportingOverflow(index + 1)
                guard !overflow, number <= facts.inodes else { break }
                let inode: relight_ext_inode
                do throws(ExtVolume.Problem) { inode = try ext.inode(number) } catch {
                    throw .damaged("Inode \(number) cannot be read: \(error.text).")
                }
                guard inode.isLive else { continue }
                let seen = Seen(used)
                if inode.xattr_block != 0, let block = ext.extent(inode.xattr_block, 1) { seen.look(block) }
                if inode.has_blocks != 0, !inode.isInline {
                    let problem = ext.pieces(most: 1 << 24) { piece in
                        seen.look(piece.extent)
                        return !seen.isMissing
                    }
                    if problem != nil, !seen.isMissing {
                        throw .damaged("The blocks of inode \(number) cannot be told.")
                    }
                }
                if seen.isMissing { throw .damaged("Its bitmaps call a block of inode \(number) free.") }
            }
        }
        do throws(Fault) { try ext.checkInterruption() } catch { throw .fault(error) }
    }

    private final class Seen {
        private let used: ExtentList
        private(set) var isMissing = false

        init(_ used: ExtentList) { self.used = used }

        func look(_ extent: Extent) { if !used.covers(extent) { isMissing = true } }
    }
}

extension ExtReader {
    /// What libblkid does not recognise: a volume whose superblock is blank, or still has its magic, with a sound copy.
    @Sendable static func recognise(_ volume: any BlockSource) throws(Fault) -> Identity? {
        guard volume.holds(ExtSuperblock.size, at: ExtSuperblock.offset) else { return nil }
        let bytes = try volume.bytes(at: ExtSuperblock.offset, count: ExtSuperblock.size)
        let magic = Fields("the superblock", bytes)
        if (try? magic.little(UInt16.self, "s_magic", at: 0x38)) != 0xEF53 {
            guard Lost.isBlank(bytes), Lost.isBlank(try volume.bytes(at: .zero, count: 512)) else { return nil }
        }
        guard let backup = try? ExtBackup(volume) else { return nil }
        return backup.identity
    }

    /// The map of a volume whose superblock is damaged, as `problem` says, by a copy of it.
    static func map(
        _ volume: any BlockSource, into result: inout VolumeMap, without problem: MapProblem
    ) throws(MapProblem) {
        guard let backup = try ExtBackup(volume) else { throw problem }
        result.blockSize = backup.superblock.blockSize
        result.filesystemSize = backup.superblock.size
        let lost =
            "Its superblock (byte 1024) is damaged; the copy in group \(backup.group) (byte \(backup.place.bytes)) is sound"
        guard backup.superblock.compatible.contains(.journal), !backup.superblock.hasExternalJournal else {
            throw .damaged(
                "\(lost), but does not tell whether it was cleanly unmounted, and there is no journal that would. Run "
                    + "`e2fsck` on it.")
        }
        try mapReplayed(backup.volume, backup.superblock, into: &result, isCopy: true)
        guard !result.states.contains(.journalToReplay) else {
            // Inodes that only the journal has are not among those that are looked at.
            throw .damaged("\(lost), but its journal waits to be replayed. Run `e2fsck` on it.")
        }
        try backup.requireAllInodes(in: result.used)
        result.minimum = nil
        result.minimumIs = nil
        result.states.removeAll { $0 == .clean }
        if !result.states.contains(.damaged) { result.states.append(.damaged) }
        let what = "\(lost) and was used. Run `e2fsck` on it, or on what is restored from its image."
        result.damage = result.damage.map { "\(what) \($0)" } ?? what
    }
}
