// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import BinaryFields

/// A disk of which only some pieces are not zero, so that a small input can be a large disk.
///
/// Form, little-endian: length u64, sector shift u8 (9 or 12; anything else counts as 9), 7 bytes unused, then pieces of
/// offset u64, count u32, bytes. Whatever an input says is made possible: lengths are cut, a last piece may be short.
final class SparseDisk: BlockSource {
    let name = "sparse"
    let sectorSize: SectorSize
    let length: ByteCount
    var file: FileWindow? { nil }
    private let pieces: [Piece]

    private struct Piece {
        /// Offset on the disk.
        var offset: UInt64
        var bytes: ArraySlice<UInt8>
    }

    static let headSize = 16
    static let pieceHead = 12

    /// The disk an input describes, at most `limit` bytes long.
    init(_ input: [UInt8], limit: ByteCount) {
        let shift = input.number(UInt8.self, at: 8)
        sectorSize = shift == 12 ? .s4096 : .s512
        length = ByteCount(min(input.number(UInt64.self, at: 0), limit.bytes))
        var pieces: [Piece] = []
        for place in SparseDisk.places(input) {
            pieces.append(Piece(offset: place.offset, bytes: input[place.range]))
        }
        self.pieces = pieces
    }

    /// Where the pieces lie in an input and on the disk.
    static func places(_ input: [UInt8]) -> [(offset: UInt64, range: Range<Int>)] {
        var result: [(offset: UInt64, range: Range<Int>)] = []
        var position = headSize
        while position <= input.count - pieceHead, result.count < 256 {
            let offset = input.number(UInt64.self, at: position)
            let start = position + pieceHead
            let count = min(Int(input.number(UInt32.self, at: position + 8)), input.count - start)
            if offset.addingReportingOverflow(UInt64(count)).overflow { break }
            result.append((offset, start..<start + count))
            position = start + count
        }
        return result
    }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        let first = offset.bytes
        let end = first + UInt64(buffer.byteCount)
        unsafe buffer.withUnsafeMutableBytes { target in
            unsafe target.initializeMemory(as: UInt8.self, repeating: 0)
            for piece in pieces {
                let from = max(first, piece.offset)
                let to = min(end, piece.offset + UInt64(piece.bytes.count))
                guard from < to else { continue }
                let start = piece.bytes.startIndex + Int(from - piece.offset)
                unsafe UnsafeMutableRawBufferPointer(rebasing: target[Int(from - first)..<Int(to - first)])
                    .copyBytes(from: piece.bytes[start..<start + Int(to - from)])
            }
        }
    }

    /// The input for a disk of `length` bytes that holds `content` at its start, without its zero blocks.
    static func input(_ content: [UInt8], length: UInt64, sectorShift: UInt8 = 9, block: Int = 512) -> [UInt8] {
        var result: [UInt8] = []
        result.appendLittleEndian(length)
        result.append(sectorShift)
        result += [UInt8](repeating: 0, count: 7)
        var start: Int?
        func close(_ end: Int) {
            guard let first = start else { return }
            // The last block's own trailing zeros need not be said.
            var last = min(end, content.count)
            while last > first, content[last - 1] == 0 { last -= 1 }
            result.appendLittleEndian(UInt64(first))
            result.appendLittleEndian(UInt32(last - first))
            result += content[first..<last]
            start = nil
        }
        for position in stride(from: 0, to: content.count, by: block) {
            let isZero = content[position..<min(position + block, content.count)].allSatisfy { $0 == 0 }
            if isZero { close(position) } else if start == nil { start = position }
        }
        close(content.count)
        return result
    }
}

/// Reads and changes an input by places on the disk it describes.
struct SparseEditor {
    var input: [UInt8]
    private let places: [(offset: UInt64, range: Range<Int>)]

    init(_ input: [UInt8]) {
        self.input = input
        places = SparseDisk.places(input)
    }

    var length: UInt64 { input.number(UInt64.self, at: 0) }
    var sector: UInt64 { input.number(UInt8.self, at: 8) == 12 ? 4096 : 512 }

    func bytes(_ offset: UInt64, _ count: Int) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: count)
        let (end, overflow) = offset.addingReportingOverflow(UInt64(count))
        guard !overflow else { return result }
        for place in places {
            let from = max(offset, place.offset)
            let to = min(end, place.offset + UInt64(place.range.count))
            guard from < to else { continue }
            let start = place.range.lowerBound + Int(from - place.offset)
            result.replaceSubrange(Int(from - offset)..<Int(to - offset), with: input[start..<start + Int(to - from)])
        }
        return result
    }

    /// Stores bytes where a piece holds the place; elsewhere they are dropped.
    mutating func store(_ offset: UInt64, _ bytes: [UInt8]) {
        let (end, overflow) = offset.addingReportingOverflow(UInt64(bytes.count))
        guard !overflow else { return }
        for place in places {
            let from = max(offset, place.offset)
            let to = min(end, place.offset + UInt64(place.range.count))
            guard from < to else { continue }
            let start = place.range.lowerBound + Int(from - place.offset)
            input.replaceSubrange(start..<start + Int(to - from), with: bytes[Int(from - offset)..<Int(to - offset)])
        }
    }
}
