// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import TestSupport
import Testing

@Suite struct OverlayTests {
    let pattern = (0..<64 * 1024).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }

    func write(_ overlay: OverlaySource, _ offset: UInt64, _ bytes: [UInt8]) throws {
        try overlay.write(at: ByteCount(offset), unsafe bytes.span.bytes)
    }

    /// Any sequence of changes reads as it would from a plain array, whatever is read; what lies below never changes.
    @Test func readsWhatWasChangedAndTheRestFromBelow() throws {
        var random = Seeded(5)
        for _ in 0..<40 {
            let disk = MemoryDisk(pattern)
            let size = [512, 1024, 4096].randomElement(using: &random) ?? 512
            let overlay = OverlaySource(disk, blockSize: ByteCount(UInt64(size)))
            var expected = pattern
            for _ in 0..<30 {
                if Bool.random(using: &random) {
                    let count = Int.random(in: 0...9000, using: &random)
                    let offset = Int.random(in: 0...pattern.count - count, using: &random)
                    let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
                    try write(overlay, UInt64(offset), bytes)
                    expected.replaceSubrange(offset..<offset + count, with: bytes)
                } else {
                    let from = Int.random(in: 0..<pattern.count / size, using: &random) * size
                    let to = Int.random(in: 0..<pattern.count / size, using: &random) * size
                    try overlay.redirect(ByteCount(UInt64(to)), to: ByteCount(UInt64(from)))
                    // The place named is one of the source below, not of the overlay.
                    expected.replaceSubrange(to..<to + size, with: pattern[from..<from + size])
                }
                let count = Int.random(in: 0...20_000, using: &random)
                let offset = Int.random(in: 0...pattern.count - count, using: &random)
                #expect(
                    try overlay.bytes(at: ByteCount(UInt64(offset)), count: count)
                        == Array(expected[offset..<offset + count]))
            }
            #expect(try overlay.bytes(at: .zero, count: pattern.count) == expected)
            #expect(disk.bytes == pattern)
        }
    }

    @Test func memoryIsBounded() throws {
        let overlay = OverlaySource(MemoryDisk(pattern), blockSize: ByteCount(1024), limit: ByteCount(3500))
        try write(overlay, 0, [1])
        try write(overlay, 1024, [1])
        try write(overlay, 5, [2])
        #expect(overlay.changedBlocks == 2)
        try write(overlay, 2048, [1])
        #expect { try write(overlay, 4096, [1]) } throws: { ($0 as? Fault)?.code == .unsupported }
        #expect(overlay.memory <= ByteCount(3500))
        // A block that is changed again needs no more, and one that is only named elsewhere hardly any.
        try write(overlay, 2049, [3])
        try overlay.redirect(ByteCount(4096), to: .zero)
        #expect(overlay.memory <= ByteCount(3500))
        #expect(try overlay.bytes(at: ByteCount(4096), count: 4) == Array(pattern[..<4]))
        #expect(try overlay.bytes(at: ByteCount(2048), count: 3) == [1, 3, pattern[2050]])
    }

    @Test func placesOutsideAreRefused() throws {
        let overlay = OverlaySource(MemoryDisk(Array(pattern[..<5000])), blockSize: ByteCount(1024))
        #expect(throws: Fault.self) { try write(overlay, 4999, [1, 2]) }
        #expect(throws: Fault.self) { try write(overlay, .max, [1]) }
        // The last block is not whole.
        #expect(throws: Fault.self) { try write(overlay, 4500, [1]) }
        #expect(throws: Fault.self) { try overlay.redirect(ByteCount(4096), to: .zero) }
        #expect(throws: Fault.self) { try overlay.redirect(.zero, to: ByteCount(4096)) }
        #expect(throws: Fault.self) { try overlay.redirect(ByteCount(512), to: .zero) }
        #expect(overlay.changedBlocks == 0)
        #expect(try overlay.bytes(at: .zero, count: 5000) == Array(pattern[..<5000]))
    }

    /// A sector that cannot be read does no harm where it was replaced.
    @Test func replacedBlocksAreNotReadBelow() throws {
        let bad = Faulty(MemoryDisk(pattern), bad: ExtentList(Extent(from: ByteCount(1024), to: ByteCount(1536))))
        let overlay = OverlaySource(bad, blockSize: ByteCount(1024))
        #expect(throws: Fault.self) { try overlay.bytes(at: .zero, count: 4096) }
        #expect(throws: Fault.self) { try write(overlay, 1030, [1]) }
        try write(overlay, 1024, [UInt8](repeating: 7, count: 1024))
        #expect(
            try overlay.bytes(at: ByteCount(1000), count: 50)
                == pattern[1000..<1024] + [UInt8](repeating: 7, count: 26))
        #expect(overlay.file == nil)
        #expect(overlay.hasChanges(in: Extent(from: .zero, to: ByteCount(1025))))
        #expect(!overlay.hasChanges(in: Extent(from: .zero, to: ByteCount(1024))))
        #expect(!overlay.hasChanges(in: Extent(from: ByteCount(2048), to: ByteCount(9000))))
    }
}
