// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings

/// Computes the damaged blocks of a pack from the others of their groups.
struct ParityRepair {
    /// Blocks that were computed and written.
    private(set) var repaired: [Int] = []
    /// Damaged blocks that could not be computed, rising. Nothing was written for them.
    private(set) var lost: [Int] = []
    /// Blocks among ``repaired`` whose check neither table has any more.
    private(set) var unconfirmed: [Int] = []
    /// Whether all blocks together are proven to be what they were, by the hash of all their checks.
    private(set) var isProven = false

    /// Whether everything written may be used. If not, it must all be thrown away.
    var isTrustworthy: Bool { isProven || unconfirmed.isEmpty }

    private let check: ParityCheck
    private let pack: DamagedPack
    private let hasher: Hasher256
    private let code = StripCode()
    private var checks: [UInt64]
    private var layout: ParityLayout { check.layout }
    private static let block = ParityLayout.blockSize
    /// Most groups between the first and the last of those repaired together.
    private static let mostGroups = 1024
    private static let memory = 32 << 20

    /// Computes what `check` found damaged and gives it to `write`: damaged blocks, tables and headers, each whole, in
    /// no order. What cannot be computed is left out. A block is written only if a table confirms it, or no table has
    /// its check any more; see ``isTrustworthy``.
    static func run(
        _ check: ParityCheck, _ pack: DamagedPack, hasher: Hasher256, write: ParityWrite
    ) throws(Fault) -> ParityRepair {
        var repair = ParityRepair(check, pack, hasher)
        try repair.run(write)
        return repair
    }

    private init(_ check: ParityCheck, _ pack: DamagedPack, _ hasher: Hasher256) {
        self.check = check
        self.pack = pack
        self.hasher = hasher
        self.checks = check.checks
    }

    /// A group to be repaired.
    private final class Group {
        let number: Int
        /// Columns of its lost data blocks.
        var data: [Int] = []
        /// Rows of its lost parity blocks.
        var parity: [Int] = []
        /// Sound rows the data is computed from, as many as there is data lost, then those in ``parity``.
        var rows: [Int] = []
        /// For each of ``rows``: first the sum of the products of all sound data blocks.
        var sums = ByteBuffer(0)

        init(_ number: Int) { self.number = number }

        func sum(_ index: Int) -> UnsafeMutableRawPointer { unsafe sums.base + index * ParityRepair.block }
    }

    private mutating func run(_ write: ParityWrite) throws(Fault) {
        var groups: [Int: Group] = [:]
        for index in check.damaged {
            let number = layout.group(index)
            let group = groups[number] ?? Group(number)
            groups[number] = group
            if index < layout.dataBlocks {
                group.data.append(index / layout.groups)
            } else {
                group.parity.append((index - layout.dataBlocks) / layout.groups)
            }
        }
        var window: [Group] = []
        for group in groups.values.sorted(by: { $0.number < $1.number }) {
            let sound = (0..<layout.parityPerGroup).filter { !group.parity.contains($0) }
            guard group.data.count <= sound.count else {
                lose(group)
                continue
            }
            group.rows = sound.prefix(group.data.count) + group.parity
            if let first = window.first, let last = window.last,
                group.number - last.number > 16 || group.number - first.number >= ParityRepair.mostGroups
                    || (window.count + 1) * layout.parityPerGroup * ParityRepair.block > ParityRepair.memory
            {
                try solve(window, write)
                window = []
            }
            window.append(group)
        }
        try solve(window, write)
        lost.sort()
        repaired.sort()
        try finish(write)
    }

    private mutating func lose(_ group: Group) {
        lost += group.data.map { layout.data(group.number, $0) } + group.parity.map { layout.parity(group.number, $0) }
    }

    /// Repairs neighbouring groups.
    private mutating func solve(_ window: [Group], _ write: ParityWrite) throws(Fault) {
        guard let first = window.first?.number, let last = window.last?.number else { return }
        for group in window {
            group.sums = ByteBuffer(group.rows.count * ParityRepair.block)
            let all = unsafe group.sums.mutable(0..<group.sums.count)
            unsafe all.initializeMemory(as: UInt8.self, repeating: 0)
        }
        let members = Dictionary(uniqueKeysWithValues: window.map { ($0.number, $0) })
        let buffer = ByteBuffer((last - first + 1) * ParityRepair.block)
        for column in 0..<layout.dataPerGroup {
            // Neighbouring blocks that are needed are read together.
            var run = 0..<0
            for number in first...last {
                let index = layout.data(number, column)
                guard let group = members[number], index < layout.dataBlocks, !group.data.contains(column) else {
                    continue
                }
                if run.upperBound == index, !run.isEmpty {
                    run = run.lowerBound..<index + 1
                } else {
                    try add(run, column, members, buffer)
                    run = index..<index + 1
                }
            }
            try add(run, column, members, buffer)
        }
        for group in window { try solve(group, buffer, write) }
    }

    /// Adds sound data blocks to the sums of their groups.
    private func add(
        _ run: Range<Int>, _ column: Int, _ members: [Int: Group], _ buffer: ByteBuffer
    ) throws(Fault) {
        guard !run.isEmpty else { return }
        let range = layout.range(run.lowerBound).lowerBound..<layout.range(run.upperBound - 1).upperBound
        guard try pack.read(range, buffer, at: 0) else { throw unsteady }
        let rest = unsafe buffer.mutable(range.count..<run.count * ParityRepair.block)
        unsafe rest.initializeMemory(as: UInt8.self, repeating: 0)
        for index in run {
            guard let group = members[layout.group(index)] else { continue }
            unsafe code.load(UnsafeRawPointer(buffer.base + (index - run.lowerBound) * ParityRepair.block))
            for (place, row) in group.rows.enumerated() {
                unsafe code.add(GaloisField.coefficient(row: row, column: column), to: group.sum(place))
            }
        }
    }

    /// Computes the lost blocks of a group whose sums are complete.
    private mutating func solve(_ group: Group, _ buffer: ByteBuffer, _ write: ParityWrite) throws(Fault) {
        let block = ParityRepair.block
        let count = group.data.count
        // What is missing in the sums of sound rows is what the lost blocks contributed.
        for place in 0..<count {
            let range = layout.range(layout.parity(group.number, group.rows[place]))
            guard try pack.read(range, buffer, at: 0) else { throw unsteady }
            unsafe code.load(UnsafeRawPointer(buffer.base))
            unsafe code.add(1, to: group.sum(place))
        }
        let matrix = group.rows.prefix(count).map { row in
            group.data.map { GaloisField.coefficient(row: row, column: $0) }
        }
        guard let inverse = GaloisField.inverse(matrix) else {
            lose(group)
            return
        }
        let data = ByteBuffer(count * block)
        let all = unsafe data.mutable(0..<data.count)
        unsafe all.initializeMemory(as: UInt8.self, repeating: 0)
        for place in 0..<count {
            unsafe code.load(UnsafeRawPointer(group.sum(place)))
            for index in 0..<count { unsafe code.add(inverse[index][place], to: data.base + index * block) }
        }
        for (index, column) in group.data.enumerated() {
            unsafe code.load(UnsafeRawPointer(data.base + index * block))
            for (place, row) in group.parity.enumerated() {
                unsafe code.add(GaloisField.coefficient(row: row, column: column), to: group.sum(count + place))
            }
        }
        var results: [(index: Int, bytes: UnsafeRawBufferPointer)] = unsafe []
        for (index, column) in group.data.enumerated() {
            unsafe results.append(
                (layout.data(group.number, column), data.bytes(index * block..<(index + 1) * block)))
        }
        for (place, row) in group.parity.enumerated() {
            let start = (count + place) * block
            unsafe results.append((layout.parity(group.number, row), group.sums.bytes(start..<start + block)))
        }
        try unsafe finish(group, results, write)
    }

    /// Writes the blocks of a group unless one of them is known to be wrong: then a block taken for sound is not.
    private mutating func finish(
        _ group: Group, _ results: [(index: Int, bytes: UnsafeRawBufferPointer)], _ write: ParityWrite
    ) throws(Fault) {
        var doubtful: [Int] = []
        for place in unsafe results.indices {
            let result = unsafe results[place]
            let sum = try unsafe hasher.hash(result.bytes).a
            unsafe checks[result.index] = sum
            if unsafe check.confirms(result.index, sum) { continue }
            if check.tableIsWhole {
                lose(group)
                return
            }
            unsafe doubtful.append(result.index)
        }
        for place in unsafe results.indices {
            let result = unsafe results[place]
            let range = unsafe layout.range(result.index)
            let bytes = unsafe UnsafeRawBufferPointer(rebasing: result.bytes[0..<range.count])
            try unsafe write(range.lowerBound, RawSpan(_unsafeBytes: bytes))
            unsafe repaired.append(result.index)
        }
        unconfirmed += doubtful
    }

    /// Compares all checks with the header and writes damaged tables and headers anew.
    private mutating func finish(_ write: ParityWrite) throws(Fault) {
        let table = ParityTable.bytes(checks, layout)
        let sum = try hasher.hash(table)
        isProven = lost.isEmpty && sum == check.header.table
        let header = check.header.bytes
        for range in check.damagedParts {
            if range.lowerBound == layout.firstHeader || range.lowerBound == layout.secondHeader {
                try unsafe write(range.lowerBound, header.span.bytes)
            } else if isProven {
                try unsafe write(range.lowerBound, table.span.bytes)
            } else if check.tableIsWhole, let whole = check.tables.first {
                let table = ParityTable.bytes(whole, layout)
                try unsafe write(range.lowerBound, table.span.bytes)
            }
        }
    }

    private var unsteady: Fault {
        Fault(
            .storeFailed, what: "A part of the pack that could be read a moment ago cannot be read any more.",
            remedy: "Copy the set to another medium as far as it can be read, and repair the copy.")
    }
}
