// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import PointDisk
import TestSupport
import Testing

/// A volume of blocks that differ from each other, but for every seventh, which is zero.
private func sample(_ count: Int, _ seed: inout Seeded) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    for start in stride(from: 0, to: count, by: 512) where start / 512 % 7 != 0 {
        for index in stride(from: start, to: min(start + 512, count), by: 8) {
            bytes[index] = UInt8.random(in: 1...255, using: &seed)
        }
    }
    return bytes
}

private func write(_ volume: OverlayVolume, _ offset: Int, _ bytes: [UInt8]) throws {
    try volume.write(at: ByteCount(UInt64(offset)), unsafe bytes.span.bytes)
}

private func read(_ volume: OverlayVolume, _ offset: Int, _ count: Int) throws -> [UInt8] {
    try volume.bytes(at: ByteCount(UInt64(offset)), count: count)
}

struct OverlayVolumeTests {
    private static let ample = ScratchRoom(memory: .mebibytes(64))

    /// Everything a program may do, at random, against a plain array.
    @Test(arguments: [(512, 1), (1024, 2), (4096, 3), (4096, 4), (65_536, 5)])
    func behavesAsAnArray(_ blockSize: Int, _ number: UInt64) throws {
        var seed = Seeded(number)
        // Not a whole number of blocks.
        var model = sample((4 << 20) + 512 * 5, &seed)
        let below = MemoryDisk(model)
        let original = model
        // With little memory most of it goes to the file.
        let room =
            number == 4 ? ScratchRoom(memory: .kibibytes(640), folder: "/tmp") : OverlayVolumeTests.ample
        let volume = OverlayVolume(below, blockSize: ByteCount(UInt64(blockSize)), room: room)
        for step in 0..<1500 {
            let offset = Int.random(in: 0..<model.count, using: &seed)
            let most = min(model.count - offset, step % 50 == 0 ? 1 << 20 : 20_000)
            let count = Int.random(in: 1...most, using: &seed)
            switch Int.random(in: 0..<6, using: &seed) {
            case 0, 1: #expect(try read(volume, offset, count) == Array(model[offset..<offset + count]))
            case 2:
                let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &seed) }
                try write(volume, offset, bytes)
                model.replaceSubrange(offset..<offset + count, with: bytes)
            case 3:
                // What a resizer does: read here, write there.
                let grain = min(blockSize, 4096)
                let from = Int.random(in: 0..<model.count - count, using: &seed) / grain * grain
                let to = offset / grain * grain
                let moved = try read(volume, from, min(count, model.count - max(from, to)))
                try write(volume, to, moved)
                model.replaceSubrange(to..<to + moved.count, with: moved)
            default:
                let extent = try #require(
                    Extent(start: ByteCount(UInt64(offset)), length: ByteCount(UInt64(count))))
                if step % 2 == 0 { try volume.zero(extent) } else { try volume.discard(extent) }
                model.replaceSubrange(offset..<offset + count, with: repeatElement(0, count: count))
            }
        }
        #expect(try read(volume, 0, model.count) == model)
        #expect(below.bytes == original, "the volume below was changed")
        let figures = volume.figures
        #expect(figures.memory <= room.memory)
        if room.folder == nil { #expect(figures.file == .zero) } else { #expect(figures.file > .mebibytes(1)) }
    }

    @Test func movedDataTakeAlmostNothing() throws {
        var seed = Seeded(7)
        let content = sample(32 << 20, &seed)
        let volume = OverlayVolume(MemoryDisk(content), blockSize: .kibibytes(4), room: OverlayVolumeTests.ample)
        // The upper half goes where the lower one lay, as a resizer does it: some blocks at a time.
        for start in stride(from: 16 << 20, to: 32 << 20, by: 64 << 10) {
            try write(volume, start - (16 << 20) + 8192, try read(volume, start, 64 << 10).dropLast(8192) + [])
        }
        let figures = volume.figures
        #expect(figures.moved + figures.zeros == figures.written)
        #expect(figures.kept == .zero)
        #expect(figures.memory < .kibibytes(512), "16 MiB moved took \(figures.memory)")
        let lower = try read(volume, 8192, 56 << 10)
        #expect(lower == Array(content[(16 << 20)..<(16 << 20) + (56 << 10)]))
    }

    @Test func whatIsPutBackIsNoChange() throws {
        var seed = Seeded(8)
        let content = sample(1 << 20, &seed)
        let volume = OverlayVolume(MemoryDisk(content), blockSize: .kibibytes(4), room: OverlayVolumeTests.ample)
        let before = try read(volume, 0, 1 << 20)
        try write(volume, 4096, [UInt8](repeating: 9, count: 4096))
        #expect(volume.isChanged)
        try write(volume, 4096, Array(before[4096..<8192]))
        #expect(!volume.isChanged)
    }

    @Test func zerosTakeNothing() throws {
        var seed = Seeded(9)
        let volume = OverlayVolume(
            MemoryDisk(sample(16 << 20, &seed)), blockSize: .kibibytes(4), room: OverlayVolumeTests.ample)
        let random = (0..<8 << 20).map { UInt8(truncatingIfNeeded: $0 % 251 + 1) }
        try write(volume, 0, random)
        let kept = volume.figures.kept
        #expect(kept == .mebibytes(8))
        // What is let go makes room for what comes.
        try volume.discard(Extent(from: .zero, to: .mebibytes(8)))
        try write(volume, 8 << 20, random)
        #expect(volume.figures.kept == kept)
        #expect(try read(volume, 0, 8 << 20).allSatisfy { $0 == 0 })
        try write(volume, 8 << 20, [UInt8](repeating: 0, count: 8 << 20))
        #expect(volume.figures.kept == kept)
        #expect(try read(volume, 8 << 20, 8 << 20).allSatisfy { $0 == 0 })
    }

    @Test func theBoundHoldsAndNothingIsHarmed() throws {
        var seed = Seeded(10)
        let content = sample(8 << 20, &seed)
        let room = ScratchRoom(memory: .mebibytes(2))
        let volume = OverlayVolume(MemoryDisk(content), blockSize: .kibibytes(4), room: room)
        var written = 0
        #expect {
            while written < 8 << 20 {
                let block = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ written >> 12) | 1 }
                try write(volume, written, block)
                written += 4096
            }
        } throws: { error in
            guard let fault = error as? Fault else { return false }
            return fault.code == .noScratchRoom && fault.code.exit == .refused && fault.remedy.contains("--scratch")
        }
        #expect(written > 1 << 20)
        #expect(volume.figures.memory <= room.memory)
        // What had room is there, the rest is as it was.
        #expect(try read(volume, 4096, 1)[0] == UInt8(truncatingIfNeeded: 1) | 1)
        #expect(try read(volume, written, content.count - written) == Array(content[written...]))
    }

    @Test func aFileThatCannotBeMadeIsNamed() throws {
        var seed = Seeded(11)
        let volume = OverlayVolume(
            MemoryDisk(sample(4 << 20, &seed)), blockSize: .kibibytes(4),
            room: ScratchRoom(memory: .kibibytes(64), folder: "/nowhere/at/all"))
        #expect {
            try write(volume, 0, (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0) | 1 })
        } throws: { error in
            (error as? Fault)?.code == .noScratchRoom && (error as? Fault)?.place == "/nowhere/at/all"
        }
    }

    /// What is copied from one volume to another, as files are from an old filesystem to a new one.
    @Test func whatIsCopiedFromAnotherVolumeIsAReference() throws {
        var seed = Seeded(12)
        let content = sample(16 << 20, &seed)
        let old = OverlayVolume(MemoryDisk(content), blockSize: .kibibytes(4), room: OverlayVolumeTests.ample)
        let empty = MemoryDisk([UInt8](repeating: 0, count: 8 << 20))
        let new = OverlayVolume(empty, copiedFrom: old, room: OverlayVolumeTests.ample)
        for start in stride(from: 0, to: 8 << 20, by: 128 << 10) {
            try write(new, start, try read(old, start * 2, 128 << 10))
        }
        #expect(new.figures.kept == .zero)
        for start in stride(from: 0, to: 8 << 20, by: 128 << 10) {
            #expect(try read(new, start, 4096) == Array(content[start * 2..<start * 2 + 4096]))
        }
        #expect(empty.bytes.allSatisfy { $0 == 0 })
    }
}
