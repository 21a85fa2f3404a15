// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings

/// The beginning of an allocated cell's content. Specification, "Cell".
struct Cell {
    /// Where the cell lies, bytes from the start of the bins; its size comes first.
    let offset: UInt32
    /// Bytes of content, all of them.
    let length: Int
    /// The content, as much of it as was asked for.
    let bytes: [UInt8]
    let image: HiveImage

    /// "No cell" where an offset is expected.
    static let none: UInt32 = 0xFFFF_FFFF
    /// Bytes before the content.
    static let head = 4

    /// The little-endian number at `offset` of the content.
    func number<T: FixedWidthInteger & BitwiseCopyable>(
        _ type: T.Type, _ field: StaticString, at offset: Int
    ) throws(Fault) -> T {
        do {
            let content = bytes
            return try unsafe content.span.bytes.littleEndian(type, field, at: offset)
        } catch {
            throw image.damaged("The cell has \(length) bytes; \(error).", cell: self.offset)
        }
    }

    /// Two letters that say what the cell holds.
    var signature: String {
        guard bytes.count >= 2, bytes[..<2].allSatisfy({ (0x21...0x7E).contains($0) }) else { return "" }
        return String(decoding: bytes[..<2], as: UTF8.self)
    }

    /// A fault that names the cell.
    func damaged(_ what: String) -> Fault { image.damaged(what, cell: offset) }
}

extension HiveImage {
    /// The cell at `offset`, with at most `most` bytes of its content. `use` says in a message whose cell it is.
    func cell(_ offset: UInt32, most: Int, _ use: @autoclosure () -> String) throws(Fault) -> Cell {
        guard offset % 8 == 0, offset >= 32, Int(offset) <= length - 8 else {
            throw damaged(
                "\(use()) would lie at 0x\(String(offset, radix: 16)), where no cell can be; "
                    + "the bins have \(length) bytes.")
        }
        // Nearly every record is read with its head at once.
        let first = min(Cell.head + min(most, 252), length - Int(offset))
        var bytes = try read(at: Int(offset), count: first)
        let size = Int(Int32(bitPattern: bytes.word(at: 0)))
        guard size < 0 else {
            throw damaged("\(use()) should be there, but the cell is free.", cell: offset)
        }
        guard -size >= 8, -size % 8 == 0, -size <= length - Int(offset) else {
            throw damaged(
                "\(use()) is said to have \(-size) bytes, which is not the size of a cell there.", cell: offset)
        }
        let wanted = min(-size - Cell.head, most)
        if wanted + Cell.head > bytes.count { bytes = try read(at: Int(offset), count: wanted + Cell.head) }
        return Cell(
            offset: offset, length: -size - Cell.head, bytes: Array(bytes[Cell.head..<Cell.head + wanted]), image: self)
    }
}
