// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings

/// Reads bytes of a pack from an offset on.
typealias ParityRead = (_ offset: Int, _ buffer: inout MutableRawSpan) throws(Fault) -> Void
/// Writes bytes of a pack at an offset.
typealias ParityWrite = (_ offset: Int, _ bytes: RawSpan) throws(Fault) -> Void

/// Makes the parity section of a pack.
enum ParityWriter {
    /// Most memory for parity blocks being summed up; larger sections are made in several passes, each over other
    /// parts of the body.
    static let sumLimit = 64 << 20
    /// Most memory for blocks of the body.
    static let readLimit = 16 << 20

    /// Makes the section of `pack`, whose body is read through `read`, every byte once; with up to
    /// ``sumLimit`` of parity in order. The section's bytes are given to `write`, every byte once, not in order. Takes
    /// ``sumLimit`` + ``readLimit`` + 20 MiB of memory at most, and less for small packs.
    static func write(
        _ layout: ParityLayout, pack: ObjectID, hasher: Hasher256, sumLimit: Int = sumLimit, read: ParityRead,
        write: ParityWrite
    ) throws(Fault) {
        var checks = [UInt64](repeating: 0, count: layout.blocks)
        let most = max(
            1, min(sumLimit / (layout.parityPerGroup * ParityLayout.blockSize), readLimit / ParityLayout.blockSize))
        var group = 0
        while group < layout.groups {
            let groups = group..<min(group + most, layout.groups)
            let sums = ParitySums(layout, groups, rows: Array(0..<layout.parityPerGroup))
            try sums.addData(hasher: hasher, checks: &checks, read: read)
            try sums.write(hasher: hasher, checks: &checks, write)
            group = groups.upperBound
        }
        let table = ParityTable.bytes(checks, layout)
        let header = ParityHeader(layout: layout, pack: pack, table: try hasher.hash(table)).bytes
        try unsafe write(layout.firstHeader, header.span.bytes)
        try unsafe write(layout.firstTable, table.span.bytes)
        try unsafe write(layout.secondTable, table.span.bytes)
        try unsafe write(layout.secondHeader, header.span.bytes)
    }
}

/// The table of checks: the first eight bytes of the SHA-256 of every block.
enum ParityTable {
    static func bytes(_ checks: [UInt64], _ layout: ParityLayout) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(layout.tableSize)
        for check in checks { result.appendLittleEndian(check) }
        return result + [UInt8](repeating: 0, count: layout.tableSize - result.count)
    }
}

/// Sums of products of data blocks: the parity blocks in some rows of neighbouring groups.
final class ParitySums {
    private let layout: ParityLayout
    private let groups: Range<Int>
    private let rows: [Int]
    private let sums: ByteBuffer
    private let code = StripCode()
    private static let block = ParityLayout.blockSize

    /// Sums for the parity blocks in `rows` of `groups`.
    init(_ layout: ParityLayout, _ groups: Range<Int>, rows: [Int]) {
        self.layout = layout
        self.groups = groups
        self.rows = rows
        self.sums = ByteBuffer(groups.count * rows.count * ParitySums.block)
        let all = unsafe sums.mutable(0..<sums.count)
        unsafe all.initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// Reads all data blocks of the groups, notes their checks and adds them.
    func addData(hasher: Hasher256, checks: inout [UInt64], read: ParityRead) throws(Fault) {
        let block = ParitySums.block
        // Several columns at once, so that the sums of a group stay in the processor's cache for some blocks.
        let columns = max(1, min(4, ParityWriter.readLimit / (groups.count * block), layout.dataPerGroup))
        let buffer = ByteBuffer(columns * groups.count * block)
        for first in stride(from: 0, to: layout.dataPerGroup, by: columns) {
            let part = first..<min(first + columns, layout.dataPerGroup)
            if groups.count == layout.groups {
                try load(layout.data(0, part.lowerBound)..<layout.data(0, part.upperBound), buffer, at: 0, read)
            } else {
                for column in part {
                    let start = layout.data(groups.lowerBound, column)
                    try load(
                        start..<start + groups.count, buffer, at: (column - first) * groups.count * block, read)
                }
            }
            for group in groups {
                for column in part where column < layout.dataBlocks(of: group) {
                    let place = ((column - first) * groups.count + group - groups.lowerBound) * block
                    let bytes = unsafe buffer.bytes(place..<place + block)
                    checks[layout.data(group, column)] = try unsafe hasher.hash(bytes).a
                    unsafe add(bytes, column: column, of: group)
                }
            }
        }
    }

    /// Adds a data block to all sums of its group.
    private func add(_ bytes: UnsafeRawBufferPointer, column: Int, of group: Int) {
        guard let base = bytes.baseAddress else { return }
        unsafe code.load(base)
        for (index, row) in rows.enumerated() {
            let target = unsafe sums.base + ((group - groups.lowerBound) * rows.count + index) * ParitySums.block
            unsafe code.add(GaloisField.coefficient(row: row, column: column), to: target)
        }
    }

    /// Reads data blocks; those that do not exist are left alone, and the last is filled up with zeros.
    private func load(_ blocks: Range<Int>, _ buffer: ByteBuffer, at place: Int, _ read: ParityRead) throws(Fault) {
        let block = ParitySums.block
        let start = blocks.lowerBound * block
        let end = min(blocks.upperBound * block, layout.bodyLength)
        guard start < end else { return }
        let count = end - start
        var span = unsafe MutableRawSpan(_unsafeBytes: buffer.mutable(place..<place + count))
        try read(start, &span)
        let full = (count + block - 1) / block * block
        let rest = unsafe buffer.mutable(place + count..<place + full)
        unsafe rest.initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// Notes the checks of the sums and writes them as parity blocks.
    func write(hasher: Hasher256, checks: inout [UInt64], _ write: ParityWrite) throws(Fault) {
        let block = ParitySums.block
        // Blocks of a row lie side by side in the section, blocks of a group in memory.
        let most = min(groups.count, 256)
        let buffer = ByteBuffer(most * block)
        for (index, row) in rows.enumerated() {
            for first in stride(from: groups.lowerBound, to: groups.upperBound, by: most) {
                let part = first..<min(first + most, groups.upperBound)
                for group in part {
                    let place = ((group - groups.lowerBound) * rows.count + index) * block
                    let bytes = unsafe sums.bytes(place..<place + block)
                    let target = unsafe buffer.mutable((group - first) * block..<(group - first + 1) * block)
                    unsafe target.copyMemory(from: bytes)
                    checks[layout.parity(group, row)] = try unsafe hasher.hash(bytes).a
                }
                let offset = layout.range(layout.parity(first, row)).lowerBound
                try unsafe write(offset, RawSpan(_unsafeBytes: buffer.bytes(0..<part.count * block)))
            }
        }
    }
}
