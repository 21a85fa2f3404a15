// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel

/// An XFS filesystem of version 5 as it will be once somebody has replayed its log, as far as its free space is concerned:
/// in memory, above the volume as it is.
///
/// Free space is written down in the headers and trees of the allocation groups, and these change by logged buffers
/// alone. So of the log's items only those are replayed, in the kernel's order: a buffer that a later item cancels is
/// left alone, and so is one that the disk holds in a newer version than the item's transaction. All other items change
/// inodes, quotas, or say what is still to be done; finishing that takes free blocks or gives blocks back, and never
/// needs what a free block held before. An item of a kind unknown here is a reason to give up.
struct XFSReplay {
    /// The volume after the replay.
    let volume: OverlaySource
    /// What the replay reads or changes, and what is to be freed after it: in use, whatever the trees say.
    let touched: ExtentList

    /// XFS_LI_…: the kinds of items that a log can have.
    private enum Kind {
        static let extentFree: UInt16 = 0x1236
        static let inode: UInt16 = 0x123B
        static let buffer: UInt16 = 0x123C
        /// Besides these: freed extents, unlinked inodes, quotas and their end, new inodes, and what was begun and done of
        /// reverse maps, reference counts, block maps, attributes and exchanged ranges.
        static let known: Set<UInt16> = Set(0x1236...0x1249).subtracting([0x1239, 0x123A])
    }

    /// blf_flags.
    private struct BufferFlags: OptionSet {
        let rawValue: UInt16
        static let inodes = BufferFlags(rawValue: 1)
        static let cancel = BufferFlags(rawValue: 2)
        static let quota = BufferFlags(rawValue: 4 | 8 | 16)
        /// XFS_BLFT_…: what the buffer holds; 0 is unknown.
        var type: UInt16 { rawValue >> 11 }
        /// Tree blocks, headers of groups, superblocks, and what does not say what it is.
        var concernsFreeSpace: Bool {
            isDisjoint(with: [.inodes, .quota]) && [0, 4, 5, 18].contains(type)
        }
    }

    /// A place of the volume that buffers have: their first 512-byte block, and how many they have.
    private struct Place: Hashable {
        var block: UInt64
        var blocks: UInt64
    }

    /// A logged buffer. Linux, fs/xfs/libxfs/xfs_log_format.h (`struct xfs_buf_log_format`); little-endian.
    private struct Buffer {
        var flags: BufferFlags
        var place: Place
        /// Which pieces of 128 bytes were logged.
        var map: [UInt32]

        init(_ format: Fields) throws(MapProblem) {
            flags = BufferFlags(rawValue: try format.little(UInt16.self, "blf_flags", at: 4))
            place = Place(
                block: try format.little(UInt64.self, "blf_blkno", at: 8),
                blocks: UInt64(try format.little(UInt16.self, "blf_len", at: 6)))
            let words = Int(try format.little(UInt32.self, "blf_map_size", at: 16))
            guard words <= 64 else { throw .damaged("A buffer in its log claims to have \(words << 12) bytes.") }
            map = []
            for index in 0..<words { map.append(try format.little(UInt32.self, "blf_data_map", at: 20 + 4 * index)) }
        }

        /// The runs of logged pieces.
        var runs: [Range<Int>] {
            var result: [Range<Int>] = []
            for bit in 0..<map.count * 32 where map[bit / 32] >> UInt32(bit % 32) & 1 == 1 {
                if let last = result.last, last.upperBound == bit {
                    result[result.count - 1] = last.lowerBound..<bit + 1
                } else {
                    result.append(bit..<bit + 1)
                }
            }
            return result
        }
    }

    private static let pieceSize = 128
    /// Buffers and places of which each takes some dozens of bytes.
    private static let mostPlaces = 1 << 18

    /// Replays the log of what lies in `volume`, which ends at `head`.
    init(
        _ volume: any BlockSource, _ superblock: XFSSuperblock, _ log: XFSLog, _ head: XFSLog.Head
    ) throws(MapProblem) {
        guard superblock.isVersion5 else {
            throw XFSLog.pending("it is of version 4, whose blocks do not tell how old they are")
        }
        var cancelled: [Place: Int] = [:]
        _ = try XFSLogTransactions(
            log, head,
            keep: { (_) throws(MapProblem) in false },
            found: { (item) throws(MapProblem) in
                try XFSReplay.requireKnown(item.format)
                guard try item.format.little(UInt16.self, "type", at: 0) == Kind.buffer else { return }
                let buffer = try Buffer(item.format)
                guard buffer.flags.contains(.cancel) else { return }
                cancelled[buffer.place, default: 0] += 1
                guard cancelled.count <= XFSReplay.mostPlaces else { throw XFSReplay.tooMuch }
            })

        let overlay = OverlaySource(volume, blockSize: superblock.sectorSize)
        var touched: Set<Place> = []
        var freed: [Extent] = []
        var ages: [Place: UInt64?] = [:]
        _ = try XFSLogTransactions(
            log, head,
            keep: { (format) throws(MapProblem) in
                guard try format.little(UInt16.self, "type", at: 0) == Kind.buffer else { return false }
                let flags = BufferFlags(rawValue: try format.little(UInt16.self, "blf_flags", at: 4))
                return !flags.contains(.cancel) && flags.concernsFreeSpace
            },
            found: { (item) throws(MapProblem) in
                switch try item.format.little(UInt16.self, "type", at: 0) {
                case Kind.inode:
                    // A format of 56 bytes, or of 52 where it was written by a 32-bit machine.
                    let at = item.format.bytes.count >= 56 ? 40 : 36
                    let place = Place(
                        block: try item.format.little(UInt64.self, "ilf_blkno", at: at),
                        blocks: UInt64(try item.format.little(UInt32.self, "ilf_len", at: at + 8)))
                    if cancelled[place] == nil { touched.insert(place) }
                case Kind.extentFree:
                    freed += try XFSReplay.extents(item.format, superblock)
                case Kind.buffer:
                    let buffer = try Buffer(item.format)
                    if buffer.flags.contains(.cancel) {
                        let left = (cancelled[buffer.place] ?? 0) - 1
                        cancelled[buffer.place] = left > 0 ? left : nil
                        return
                    }
                    guard cancelled[buffer.place] == nil else { return }
                    touched.insert(buffer.place)
                    guard buffer.flags.concernsFreeSpace else { return }
                    let start = try XFSReplay.start(buffer.place, superblock)
                    let age: UInt64?
                    if let known = ages[buffer.place] {
                        age = known
                    } else {
                        age = try XFSReplay.age(volume, start, superblock)
                        ages[buffer.place] = .some(age)
                    }
                    if let age {
                        guard age <= head.last.sequence else {
                            throw .damaged("A block at byte \(start.bytes) is newer than its log.")
                        }
                        if age >= item.sequence { return }
                    }
                    try XFSReplay.apply(buffer, item.regions, to: overlay, at: start)
                default: break
                }
                guard touched.count + freed.count <= XFSReplay.mostPlaces else { throw XFSReplay.tooMuch }
            })
        self.volume = overlay
        self.touched = ExtentList(
            freed
                + touched.compactMap { place in
                    guard let start = ByteCount(512).multiplied(by: place.block),
                        let length = ByteCount(512).multiplied(by: place.blocks)
                    else { return nil }
                    return Extent(start: start, length: length)
                })
    }

    private static var tooMuch: MapProblem {
        .whole("More than \(mostPlaces) places are named in its log.", nil)
    }

    private static func requireKnown(_ format: Fields) throws(MapProblem) {
        let kind = try format.little(UInt16.self, "type", at: 0)
        guard Kind.known.contains(kind) else {
            throw .whole("Its log has items of kind \(Hex.number(kind)), which are unknown here.", .unknownFeatures)
        }
    }

    /// Where a buffer lies; throws where that is not within the filesystem.
    private static func start(_ place: Place, _ superblock: XFSSuperblock) throws(MapProblem) -> ByteCount {
        guard let start = ByteCount(512).multiplied(by: place.block), place.blocks > 0,
            let extent = Extent(start: start, length: ByteCount(512 * place.blocks)), extent.end <= superblock.size,
            start.isMultiple(of: superblock.sectorSize), extent.length.isMultiple(of: superblock.sectorSize)
        else { throw .damaged("A buffer in its log lies outside the filesystem.") }
        return start
    }

    /// The extents that an item says are to be freed. (`struct xfs_efi_log_format`)
    private static func extents(_ format: Fields, _ superblock: XFSSuperblock) throws(MapProblem) -> [Extent] {
        let count = Int(try format.little(UInt32.self, "efi_nextents", at: 4))
        // An extent has 16 bytes, or 12 where it was written by a 32-bit machine.
        let size = count > 0 ? (format.bytes.count - 16) / count : 16
        guard size == 16 || size == 12 else { throw .damaged("An item of its log that frees extents is damaged.") }
        var result: [Extent] = []
        for index in 0..<count {
            let number = try format.little(UInt64.self, "ext_start", at: 16 + index * size)
            let length = UInt64(try format.little(UInt32.self, "ext_len", at: 16 + index * size + 8))
            let group = number >> superblock.groupBits
            let block = number & ((1 << superblock.groupBits) - 1)
            guard group < superblock.groups, block <= superblock.blocks(of: group),
                length <= superblock.blocks(of: group) - block
            else { throw .damaged("An item of its log frees blocks outside the filesystem.") }
            let start = superblock.start(of: group) + ByteCount(block * superblock.blockSize.bytes)
            result.append(Extent(from: start, to: start + ByteCount(length * superblock.blockSize.bytes)))
        }
        return result
    }

    /// Copies the logged pieces of a buffer to its place. A run of pieces may have been logged in several regions.
    private static func apply(
        _ buffer: Buffer, _ regions: [[UInt8]], to overlay: OverlaySource, at start: ByteCount
    ) throws(MapProblem) {
        let damaged = MapProblem.damaged("A buffer in its log does not fit what was logged of it.")
        var next = 0
        for run in buffer.runs {
            var piece = run.lowerBound
            while piece < run.upperBound {
                guard next < regions.count else { throw damaged }
                let bytes = regions[next]
                next += 1
                let pieces = min(bytes.count / pieceSize, run.upperBound - piece)
                guard pieces > 0, UInt64((piece + pieces) * pieceSize) <= buffer.place.blocks * 512 else {
                    throw damaged
                }
                do throws(Fault) {
                    try overlay.write(
                        at: start + ByteCount(UInt64(piece * pieceSize)),
                        unsafe bytes.span.bytes.extracting(0..<pieces * pieceSize))
                } catch {
                    throw error.code == .unsupported ? .whole(error.what, nil) : .fault(error)
                }
                piece += pieces
            }
        }
        guard next == regions.count else { throw damaged }
    }

    // MARK: - Age of what is on the disk

    /// Where a kind of block keeps the sequence number of its last change, and the UUID of its filesystem.
    private struct Stamp {
        var sequence: Int
        var uuid: Int
    }

    /// When the block at `start` was last changed, by its own word; `nil` where it does not say, or belongs to another
    /// filesystem.
    private static func age(
        _ volume: any BlockSource, _ start: ByteCount, _ superblock: XFSSuperblock
    ) throws(MapProblem) -> UInt64? {
        let block = try Fields("a block that its log changes", of: volume, at: start, count: 512)
        let magic = String(decoding: block.bytes.prefix(4), as: UTF8.self)
        var stamp: Stamp?
        switch magic {
        // Trees within a group.
        case "AB3B", "AB3C", "ABTB", "ABTC", "RMB3", "R3FC", "IAB3", "IABT": stamp = Stamp(sequence: 24, uuid: 32)
        // Maps of the blocks of a file.
        case "BMA3", "BMAP": stamp = Stamp(sequence: 32, uuid: 40)
        case "XAGF": stamp = Stamp(sequence: 208, uuid: 64)
        case "XAFL": stamp = Stamp(sequence: 24, uuid: 8)
        case "XAGI": stamp = Stamp(sequence: 320, uuid: 296)
        case "XSLM": stamp = Stamp(sequence: 48, uuid: 16)
        // Blocks of directories.
        case "XDB3", "XDD3", "XDF3": stamp = Stamp(sequence: 16, uuid: 24)
        case "XFSB": stamp = Stamp(sequence: 240, uuid: superblock.incompatible.contains(.metadataUUID) ? 248 : 32)
        default:
            // Leaves and nodes of directories and attributes have their magic further on.
            if [0x3DF1, 0x3DFF, 0x3EBE].contains(try block.big(UInt16.self, "magic", at: 8)) {
                stamp = Stamp(sequence: 24, uuid: 32)
            }
        }
        guard let stamp else { return nil }
        let uuid =
            magic == "XFSB" && !superblock.incompatible.contains(.metadataUUID)
            ? superblock.uuid : superblock.metadataUUID
        guard block.bytes[stamp.uuid..<stamp.uuid + 16].elementsEqual(uuid) else { return nil }
        let value = try block.big(UInt64.self, "lsn", at: stamp.sequence)
        return value == 0 || value == .max ? nil : value
    }
}
