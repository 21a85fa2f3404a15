// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import TestSupport
import Testing
import Tools

@testable import PartitionTables

/// Hostile tables: whatever the bytes say, reading ends, and what was read can be handed to the writer.
@Suite(.enabled(if: sfdisk.path != nil, "fdisk is needed"))
struct MutationTests {
    /// A disk in memory that is shorter than it says, with zeros in the middle.
    final class Sparse: BlockSource {
        let name = "sparse"
        let sectorSize: SectorSize
        let length: ByteCount
        let head: [UInt8]
        let tail: [UInt8]
        init(head: [UInt8], tail: [UInt8], length: ByteCount, sectorSize: SectorSize) {
            (self.head, self.tail, self.length, self.sectorSize) = (head, tail, length, sectorSize)
        }
        var file: FileWindow? { nil }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            try requireInside(buffer.byteCount, at: offset)
            let start = Int(offset.bytes)
            let tailStart = Int(length.bytes) - tail.count
            for index in 0..<buffer.byteCount {
                let place = start + index
                let byte = place < head.count ? head[place] : place >= tailStart ? tail[place - tailStart] : 0
                unsafe buffer.storeBytes(of: byte, toUncheckedByteOffset: index, as: UInt8.self)
            }
        }
    }

    static func exercise(_ source: any BlockSource) {
        guard let reading = try? TableReader.read(source), let table = reading.table else { return }
        for sectors in [table.diskSectors, table.diskSectors * 2, 4000] {
            if let moved = try? TableLayout.relocated(table, toSectors: sectors),
                let image = try? TableWriter.image(of: moved)
            {
                #expect(image.extents.end.bytes <= sectors * UInt64(table.sectorSize.bytes))
            }
        }
        _ = TableLayout.usable(table, onSectors: 5000)
        _ = try? TableLayout.replacing(
            table,
            partitions: table.partitions.map {
                var moved = $0
                moved.first = LBA($0.first.value &+ 1)
                return moved
            })
        #expect(reading.regions.end <= source.length)
    }

    /// Values that are often where arithmetic goes wrong.
    static let nasty: [UInt64] = [
        0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 55, 1 << 63, .max, .max - 1,
    ]

    @Test func mutatedGPTs() throws {
        let file = try partitioned(gptScript)
        let head = try file.bytes(0, 40 * 512)
        let tail = try file.bytes((64 << 20) - 40 * 512, 40 * 512)
        var generator = Seeded(1)
        for round in 0..<3000 {
            var (head, tail) = (head, tail)
            let changes = Int.random(in: 1...4, using: &generator)
            for _ in 0..<changes {
                let value = Self.nasty.randomElement(using: &generator) ?? 0
                let width = [1, 4, 8].randomElement(using: &generator) ?? 1
                let bytes = (0..<width).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
                // Sector 0's entries, the header, the first entries.
                let range = [446..<502, 512..<596, 1024..<1400].randomElement(using: &generator) ?? 446..<502
                let at = Int.random(in: range, using: &generator)
                head.replaceSubrange(at..<at + width, with: bytes)
                if round % 3 == 0 {
                    let back = tail.count - 512 + Int.random(in: 0..<92, using: &generator)
                    tail.replaceSubrange(back..<back + width, with: bytes)
                }
            }
            // With sound checks the parser gets past them.
            if round % 4 != 0 { Self.mendChecks(&head) }
            Self.exercise(Sparse(head: head, tail: tail, length: .mebibytes(64), sectorSize: .s512))
        }
    }

    static func mendChecks(_ head: inout [UInt8]) {
        let count = Int(head[592]) | Int(head[593]) << 8
        let size = Int(head[596]) | Int(head[597]) << 8
        let end = min(head.count, 1024 + count * size)
        var check: [UInt8] = []
        check.appendLittleEndian(CRC32.ieee.checksum(Array(head[1024..<end])))
        head.replaceSubrange(600..<604, with: check)
        head.replaceSubrange(528..<532, with: [0, 0, 0, 0])
        let covered = max(0, min(512, Int(head[524]) | Int(head[525]) << 8))
        check = []
        check.appendLittleEndian(CRC32.ieee.checksum(Array(head[512..<512 + covered])))
        head.replaceSubrange(528..<532, with: check)
    }

    @Test func mutatedMBRs() throws {
        let file = try partitioned(mbrScript)
        let whole = try file.bytes(0, 32768 * 512)
        let records = try #require(try file.reading().table).partitions.compactMap(\.describedAt?.value)
        var generator = Seeded(2)
        let disk = MemoryDisk(whole)
        for _ in 0..<5000 {
            var touched: [Int] = []
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let sector = Int(([0] + records).randomElement(using: &generator) ?? 0)
                let at = sector * 512 + Int.random(in: 446..<508, using: &generator)
                let value =
                    Bool.random(using: &generator)
                    ? Self.nasty.randomElement(using: &generator) ?? 0
                    : UInt64.random(in: 0...0xFFFF, using: &generator)
                let bytes = (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
                try disk.write(at: ByteCount(UInt64(at)), unsafe bytes.span.bytes)
                touched.append(at)
            }
            Self.exercise(disk)
            for at in touched {
                let original = Array(whole[at..<at + 4])
                try disk.write(at: ByteCount(UInt64(at)), unsafe original.span.bytes)
            }
        }
    }

    @Test func bootSectorsOfNoise() throws {
        var generator = Seeded(3)
        for _ in 0..<3000 {
            var bytes = (0..<2048).map { _ in UInt8.random(in: 0...255, using: &generator) }
            for slot in 0..<4 { bytes[446 + slot * 16] = 0 }
            bytes.replaceSubrange(510..<512, with: [0x55, 0xAA])
            Self.exercise(Sparse(head: bytes, tail: [], length: .mebibytes(4), sectorSize: .s512))
        }
    }
}
