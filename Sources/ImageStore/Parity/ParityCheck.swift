// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings

/// A pack that may be damaged, cut short, or lie on a failing medium.
struct DamagedPack {
    let size: Int
    private let source: ParityRead

    init(size: Int, read: @escaping ParityRead) {
        self.size = size
        self.source = read
    }

    /// Reads `range` to `buffer`; false when the medium does not give it or the pack ends before.
    func read(_ range: Range<Int>, _ buffer: ByteBuffer, at place: Int) throws(Fault) -> Bool {
        guard range.upperBound <= size else { return false }
        var span = unsafe MutableRawSpan(_unsafeBytes: buffer.mutable(place..<place + range.count))
        do throws(Fault) {
            try source(range.lowerBound, &span)
            return true
        } catch {
            guard error.code == .storeFailed else { throw error }
            return false
        }
    }

    /// A copy of `range`; `nil` when it cannot be had.
    func bytes(_ range: Range<Int>) throws(Fault) -> [UInt8]? {
        guard range.upperBound <= size else { return nil }
        let buffer = ByteBuffer(range.count)
        guard try read(range, buffer, at: 0) else { return nil }
        return unsafe [UInt8](buffer.bytes(0..<range.count))
    }
}

/// What is left of a pack and its parity section.
struct ParityCheck {
    let header: ParityHeader
    /// Damaged blocks, rising; numbered as in ``ParityLayout/range(_:)``.
    let damaged: [Int]
    /// Groups that have lost more blocks than they have parity blocks, rising.
    let beyondRepair: [Int]
    /// Headers and tables of the section that are damaged: where they lie in the pack.
    let damagedParts: [Range<Int>]
    /// Checks of the blocks as they were read; of damaged ones without meaning.
    let checks: [UInt64]
    /// The checks the tables have: one table if one is whole, else what there is of both.
    let tables: [[UInt64]]
    /// Whether ``tables`` is one table whose hash is the one in the header.
    let tableIsWhole: Bool

    var layout: ParityLayout { header.layout }
    /// Nothing of body and section is damaged.
    var isSound: Bool { damaged.isEmpty && damagedParts.isEmpty }

    /// Whether block `index` with the check `check` is what it was. Where both tables are damaged, one of them is
    /// enough: damage does not make a check that fits.
    func confirms(_ index: Int, _ check: UInt64) -> Bool {
        tables.contains { $0[index] == check }
    }

    /// Checks body and section; `nil` when the pack has no section, or nothing tells where it is.
    static func run(_ pack: DamagedPack, id: ObjectID, hasher: Hasher256) throws(Fault) -> ParityCheck? {
        guard let found = try locate(pack, id: id) else { return nil }
        let layout = found.layout
        var candidates: [(header: ParityHeader?, range: Range<Int>)] = []
        for start in [layout.firstHeader, layout.secondHeader] {
            let range = start..<start + ParityHeader.size
            let bytes = try pack.bytes(range) ?? []
            let header = try? unsafe ParityHeader(bytes.span.bytes)
            candidates.append((header?.pack == id && header?.layout == layout ? header : nil, range))
        }
        let ranges = [layout.firstTable, layout.secondTable].map { $0..<$0 + layout.tableSize }
        var tables: [(bytes: [UInt8], hash: UnitID)?] = []
        for range in ranges {
            guard let bytes = try pack.bytes(range) else {
                tables.append(nil)
                continue
            }
            tables.append((bytes, try hasher.hash(bytes)))
        }
        let known = tables.compactMap { $0 }
        // Both headers are believed by a check of 32 bits; should they differ, a table that fits one decides.
        let fitting = candidates.first { candidate in known.contains { $0.hash == candidate.header?.table } }
        let header = fitting?.header ?? found
        var damagedParts = candidates.filter { $0.header != header }.map(\.range)
        let whole = known.first { $0.hash == header.table }
        for (table, range) in zip(tables, ranges) where table?.hash != header.table { damagedParts.append(range) }
        let believed = try (whole.map { [$0] } ?? known).map { table throws(Fault) in
            try numbers(table.bytes, layout.blocks)
        }
        let read = try checkBlocks(pack, layout, believed, hasher)
        var losses: [Int: Int] = [:]
        for index in read.damaged { losses[layout.group(index), default: 0] += 1 }
        return ParityCheck(
            header: header, damaged: read.damaged,
            beyondRepair: losses.filter { $0.value > layout.parityPerGroup }.keys.sorted(),
            damagedParts: damagedParts.sorted { $0.lowerBound < $1.lowerBound }, checks: read.checks,
            tables: believed, tableIsWhole: whole != nil)
    }

    private static func numbers(_ bytes: [UInt8], _ count: Int) throws(Fault) -> [UInt64] {
        var result: [UInt64] = []
        result.reserveCapacity(count)
        let span = unsafe bytes.span.bytes
        for index in 0..<count {
            result.append((try? span.littleEndian(UInt64.self, "check", at: index * ParityLayout.checkSize)) ?? 0)
        }
        return result
    }

    /// Finds a header of the section from the end of the pack on: the second one is near it, the first one is found
    /// when the second is lost.
    static func locate(_ pack: DamagedPack, id: ObjectID) throws(Fault) -> ParityHeader? {
        let window = 1 << 20
        let step = ParityLayout.blockSize
        let buffer = ByteBuffer(window + ParityHeader.size)
        let magic = ParityHeader.magic.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        var start = (pack.size - 1) / window * window
        while start >= 0 {
            // A header may pass the end of the window.
            let end = min(start + window + ParityHeader.size, pack.size)
            if try !pack.read(start..<end, buffer, at: 0) {
                for piece in stride(from: start, to: end, by: step) {
                    let range = piece..<min(piece + step, end)
                    if try !pack.read(range, buffer, at: piece - start) {
                        let rest = unsafe buffer.mutable(piece - start..<range.upperBound - start)
                        unsafe rest.initializeMemory(as: UInt8.self, repeating: 0)
                    }
                }
            }
            let bytes = unsafe buffer.bytes(0..<end - start)
            var offset = (min(window, end - start) - 1) / 16 * 16
            while offset >= 0 {
                if offset + ParityHeader.size <= bytes.count,
                    unsafe UInt64(littleEndian: bytes.load(fromByteOffset: offset, as: UInt64.self)) == magic
                {
                    let span = unsafe RawSpan(_unsafeBytes: bytes).extracting(offset..<offset + ParityHeader.size)
                    if let header = try? ParityHeader(span), header.pack == id,
                        [header.layout.firstHeader, header.layout.secondHeader].contains(start + offset)
                    {
                        return header
                    }
                }
                offset -= 16
            }
            start -= window
        }
        return nil
    }

    /// Reads all blocks and compares them with `tables`.
    private static func checkBlocks(
        _ pack: DamagedPack, _ layout: ParityLayout, _ tables: [[UInt64]], _ hasher: Hasher256
    ) throws(Fault) -> (damaged: [Int], checks: [UInt64]) {
        let block = ParityLayout.blockSize
        let most = 256
        let buffer = ByteBuffer(most * block)
        var damaged: [Int] = []
        var checks = [UInt64](repeating: 0, count: layout.blocks)
        for kind in [0..<layout.dataBlocks, layout.dataBlocks..<layout.blocks] {
            for first in stride(from: kind.lowerBound, to: kind.upperBound, by: most) {
                let part = first..<min(first + most, kind.upperBound)
                let range = layout.range(first).lowerBound..<layout.range(part.upperBound - 1).upperBound
                let all = try pack.read(range, buffer, at: 0)
                for index in part {
                    let own = layout.range(index)
                    let place = (index - first) * block
                    if !all, try !pack.read(own, buffer, at: place) {
                        damaged.append(index)
                        continue
                    }
                    let rest = unsafe buffer.mutable(place + own.count..<place + block)
                    unsafe rest.initializeMemory(as: UInt8.self, repeating: 0)
                    let check = try unsafe hasher.hash(buffer.bytes(place..<place + block)).a
                    checks[index] = check
                    if !tables.contains(where: { $0[index] == check }) { damaged.append(index) }
                }
            }
        }
        return (damaged, checks)
    }
}
