// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import TestSupport
import Testing

@testable import ImageStore

/// The layout of the parity section, its header, and the example in `docs/image-format.md`.
@Suite struct ParityFormatTests {
    static func hex(_ text: String) -> [UInt8] { Hex.bytes(text) ?? [] }

    @Test func theExampleOfTheFormatPageIsByteForByteRight() throws {
        var body = [UInt8](repeating: 0, count: 8208)
        body[0] = 0x01
        body[4096 + 512] = 0x80
        body[8192] = 0xFF
        let sample = try ParitySample(body, percent: 5)
        let section = Array(sample.bytes[8208...])
        #expect(section.count == 8544)
        let header = Self.hex(
            "524c4754504152490100800000100000" + "000102030405060708090a0b0c0d0e0f"
                + "10200000000000000300000001000000" + "03000200000000000000000000000000"
                + "0301f817dc96e85e568503b98de82975" + "07a9dcd3da73b7a8301a172527b989cb"
                + "00000000000000000000000000000000" + "000000000000000000000000543f6f1d")
        let table = Self.hex(
            "f0c500e2401e1aee" + "c34e2f902f90031d" + "ac0f563e14490d98" + "ae0ea59824264698" + "b02b17f4c0115483"
                + "0000000000000000")
        #expect(Array(section[0..<128]) == header)
        #expect(Array(section[128..<176]) == table)
        #expect(Array(section[8368..<8416]) == table)
        #expect(Array(section[8416...]) == header)
        var parity = [UInt8](repeating: 0, count: 8192)
        for (row, bytes) in ["feff7e7e7e7e7e7e", "7f7e7efefe7e7e80"].enumerated() {
            for (strip, byte) in Self.hex(bytes).enumerated() { parity[row * 4096 + strip * 512] = byte }
        }
        #expect(Array(section[176..<8368]) == parity)
        #expect(
            try Hasher256().hash(section).text == "1f05c42840ea1323230a3f2e90ccf709ecd0c8cf5abdc9241c97ae784ca592db")
    }

    @Test func layoutsKeepTheirPromises() throws {
        var random = Seeded(211)
        var lengths = [16, 192, 4096, 4112, 8192, 12_304, 64 << 10, 1 << 20, 1 << 30, 2 << 30]
        for _ in 0..<400 { lengths.append(Int.random(in: 1...(1 << 26), using: &random) * 16) }
        for length in lengths {
            for percent in [1, 2, 3, 5, 7, 10, 20, 33, 50] {
                let layout = try #require(ParityLayout(bodyLength: length, percent: percent))
                let (data, parity) = (layout.dataPerGroup, layout.parityPerGroup)
                #expect(data + parity <= 255)
                #expect(parity * 100 >= data * percent)
                #expect(parity >= min(2, data))
                #expect(layout.groups * data >= layout.dataBlocks && layout.groups * (data - 1) < layout.dataBlocks)
                #expect(layout.size.isMultiple(of: 16) && layout.end == length + layout.size)
                // What it costs: the percentage, the rounding of one block per group, and two tables.
                let most =
                    layout.dataBlocks * percent / 100 + layout.groups + 2 + layout.blocks * 16 / 4096 + 1
                #expect(layout.size <= most * 4096 || layout.dataBlocks < 4)
                let total = (0..<layout.groups).reduce(0) { $0 + layout.dataBlocks(of: $1) }
                #expect(total == layout.dataBlocks)
                let header = ParityHeader(layout: layout, pack: .random(), table: UnitID(a: 1, b: 2, c: 3, d: 4))
                let bytes = header.bytes
                #expect(bytes.count == ParityHeader.size)
                #expect(try unsafe ParityHeader(bytes.span.bytes) == header)
            }
        }
    }

    @Test func largePacksCostLittleMoreThanThePercentage() throws {
        for percent in [1, 5, 10, 50] {
            let layout = try #require(ParityLayout(bodyLength: 1 << 30, percent: percent))
            let overhead = Double(layout.size) / Double(1 << 30) * 100
            #expect(overhead >= Double(percent) && overhead < Double(percent) * 1.05 + 0.5)
        }
    }

    @Test func impossibleRequestsHaveNoLayout() {
        #expect(ParityLayout(bodyLength: 0, percent: 5) == nil)
        #expect(ParityLayout(bodyLength: 4097, percent: 5) == nil)
        #expect(ParityLayout(bodyLength: 4096, percent: 0) == nil)
        #expect(ParityLayout(bodyLength: 4096, percent: 51) == nil)
        #expect(ParityLayout(bodyLength: 4 << 30, percent: 5) == nil)
        #expect(ParityLayout(bodyLength: (4 << 30) - 4096, percent: 5) == nil)
    }

    @Test func headersWithRightChecksAndHostileNumbersAreRefusedOrBounded() throws {
        var random = Seeded(212)
        let layout = try #require(ParityLayout(bodyLength: 3 << 20, percent: 5))
        let bytes = ParityHeader(layout: layout, pack: .random(), table: UnitID(a: 1, b: 2, c: 3, d: 4)).bytes
        var sound = 0
        for _ in 0..<50_000 {
            let mutated = HostileTests.sealed(HostileTests.mutated(bytes, &random), checkAt: 124)
            guard let header = try? unsafe ParityHeader(mutated.span.bytes) else { continue }
            sound += 1
            let layout = header.layout
            #expect(layout.end <= Int(UInt32.max) && layout.tableSize < 17 << 20)
            #expect(layout.dataPerGroup + layout.parityPerGroup <= 255 && layout.groups > 0)
            #expect(layout.range(layout.blocks - 1).upperBound <= layout.end)
        }
        #expect(sound > 1000)
    }

    @Test func severalPassesMakeTheSameSection() throws {
        var random = Seeded(213)
        let body = (0..<16 * 17_000).map { _ in UInt8.random(in: 0...255, using: &random) }
        let whole = try ParitySample(body, percent: 50)
        #expect(whole.layout.groups == 2)
        #expect(try ParitySample(body, percent: 50, sumLimit: 1).bytes == whole.bytes)
    }
}
