// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry

/// The volume header of HFS+ and HFSX. Apple, Technical Note TN1150, "HFS Plus Volume Format". All numbers are
/// big-endian.
struct HFSPlusHeader: Hashable {
    /// attributes.
    var attributes: Attributes
    /// journalInfoBlock: an allocation block; means something with `journaled` only.
    var journalInfo: UInt64
    /// blockSize: bytes of an allocation block.
    var blockSize: UInt64
    /// totalBlocks, freeBlocks.
    var blocks: UInt64
    var freeBlocks: UInt64
    /// The special files: allocation, extents overflow, catalog, attributes, startup.
    var files: [Fork]

    struct Attributes: OptionSet, Hashable {
        let rawValue: UInt32
        static let unmounted = Attributes(rawValue: 1 << 8)
        static let inconsistent = Attributes(rawValue: 1 << 11)
        static let journaled = Attributes(rawValue: 1 << 13)
    }

    /// A fork: its size, and where its first eight extents lie (HFSPlusForkData).
    struct Fork: Hashable {
        var size: UInt64
        /// totalBlocks.
        var blocks: UInt64
        /// Runs of allocation blocks.
        var extents: [Range<UInt64>]
        /// Blocks of the runs: fewer than ``blocks`` when more runs are in the extents overflow file.
        var listed: UInt64 { extents.reduce(0) { $0 + UInt64($1.count) } }
    }

    static let names = [
        "the allocation file", "the extents overflow file", "the catalog file", "the attributes file",
        "the startup file",
    ]
    /// Where it lies from the volume's start, and its copy from the volume's end.
    static let place: UInt64 = 1024
    static let size = 512

    /// Reads a volume header.
    init(parsing bytes: [UInt8]) throws(FieldError) {
        let span = unsafe bytes.span.bytes
        let signature = try span.bigEndian(UInt16.self, "signature", at: 0)
        let version = try span.bigEndian(UInt16.self, "version", at: 2)
        // "H+" and "HX".
        guard signature == 0x482B && version == 4 || signature == 0x4858 && version == 5 else {
            throw .invalid(
                field: "signature", at: 0, seen: "\(Hex.number(signature)), version \(version)",
                expected: "482B, version 4, or 4858, version 5")
        }
        func word(_ field: StaticString, at offset: Int) throws(FieldError) -> UInt64 {
            UInt64(try span.bigEndian(UInt32.self, field, at: offset))
        }
        attributes = Attributes(rawValue: UInt32(try word("attributes", at: 4)))
        journalInfo = try word("journalInfoBlock", at: 12)
        blockSize = try word("blockSize", at: 40)
        blocks = try word("totalBlocks", at: 44)
        freeBlocks = try word("freeBlocks", at: 48)
        guard blockSize >= 512, blockSize <= 1 << 26, blockSize & (blockSize - 1) == 0 else {
            throw .invalid(field: "blockSize", at: 40, seen: "\(blockSize)", expected: "a power of two from 512")
        }
        guard blocks > 0, freeBlocks <= blocks, blocks * blockSize >= 4096 else {
            throw .invalid(
                field: "totalBlocks", at: 44, seen: "\(blocks), \(freeBlocks) of them free",
                expected: "no more free ones than all")
        }
        files = []
        for index in 0..<HFSPlusHeader.names.count {
            let at = 112 + 80 * index
            var fork = Fork(
                size: try span.bigEndian(UInt64.self, "logicalSize", at: at),
                blocks: try word("totalBlocks", at: at + 12), extents: [])
            for extent in 0..<8 {
                let start = try word("startBlock", at: at + 16 + 8 * extent)
                let count = try word("blockCount", at: at + 20 + 8 * extent)
                if count == 0 { break }
                guard start < blocks, count <= blocks - start else {
                    throw .invalid(
                        field: "startBlock", at: at + 16 + 8 * extent, seen: "\(count) blocks from \(start)",
                        expected: "blocks below \(blocks)")
                }
                fork.extents.append(start..<start + count)
            }
            files.append(fork)
        }
    }

    /// The filesystem's size.
    var volumeSize: ByteCount { ByteCount(blocks * blockSize) }
}

/// The HFS wrapper around some HFS+ volumes: TN1150, "HFS Wrapper", and "Inside Macintosh: Files", chapter 2.
struct HFSWrapper {
    /// Where the embedded volume lies.
    let embedded: Extent

    /// The wrapper whose master directory block begins with `bytes`; `nil` where there is none.
    init?(parsing bytes: [UInt8]) {
        let span = unsafe bytes.span.bytes
        guard span.matches("BD".utf8, at: 0), span.matches("H+".utf8, at: 124),
            let size = try? span.bigEndian(UInt32.self, "drAlBlkSiz", at: 20), size >= 512, size.isMultiple(of: 512),
            let first = try? span.bigEndian(UInt16.self, "drAlBlSt", at: 28),
            let start = try? span.bigEndian(UInt16.self, "drEmbedExtent.startBlock", at: 126),
            let count = try? span.bigEndian(UInt16.self, "drEmbedExtent.blockCount", at: 128), count > 0
        else { return nil }
        let from = UInt64(first) * 512 + UInt64(start) * UInt64(size)
        embedded = Extent(from: ByteCount(from), to: ByteCount(from + UInt64(count) * UInt64(size)))
    }
}
