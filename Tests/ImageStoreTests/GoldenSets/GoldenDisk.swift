// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry
import ImageStore
import MachineModel

/// What the golden sets hold, made again from numbers. Nothing here may ever change: the sets were made from it once.
struct GoldenDisk {
    /// Bytes of the disk; not a whole number of blocks.
    static let size = 1_300_480
    private static let block = 4096

    /// Which content the blocks have: what differs between two disks is what differs in these numbers.
    var seeds: [UInt64]

    /// The disk of `machine` at time `round`: most blocks are the same at all times, some on all machines.
    init(machine: UInt64, round: UInt64) {
        seeds = (0..<UInt64((GoldenDisk.size + GoldenDisk.block - 1) / GoldenDisk.block)).map { number in
            // Whole units of the first volume.
            if (number + 11) / 16 % 3 == 0 { return number }
            if number % 23 == 7 { return 1_000_000 * machine + 10_000 * round + number }
            return 1_000_000 * machine + number
        }
    }

    /// SplitMix64, written out: `TestSupport` may change.
    private static func random(_ seed: UInt64, _ count: Int) -> [UInt8] {
        var state = seed
        var result: [UInt8] = []
        result.reserveCapacity(count + 8)
        while result.count < count {
            state &+= 0x9E37_79B9_7F4A_7C15
            var value = state
            value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
            value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
            value ^= value >> 31
            for shift in 0..<UInt64(8) { result.append(UInt8(truncatingIfNeeded: value >> (8 * shift))) }
        }
        return Array(result.prefix(count))
    }

    private static func content(_ seed: UInt64) -> [UInt8] {
        switch seed % 13 {
        case 0: return [UInt8](repeating: 0, count: block)
        case 5: return random(seed, block)
        default:
            let words = random(seed, 16).map { 97 + $0 % 26 }
            return (0..<block).map { words[($0 / 7 + $0) % 16] }
        }
    }

    /// Every byte of the disk, used or not.
    var content: [UInt8] { Array(seeds.flatMap { GoldenDisk.content($0) }.prefix(GoldenDisk.size)) }

    private static func extent(_ from: Int, _ to: Int) -> Extent {
        Extent(from: ByteCount(UInt64(from)), to: ByteCount(UInt64(to)))
    }

    /// A remainder, a volume that is used as a whole, and one with a map.
    static let streams = [
        StreamDescription(
            disk: 0, kind: .remainder, extent: extent(0, size),
            used: ExtentList([extent(0, 20_480), extent(720_896, 724_992), extent(size - 16_896, size)])),
        StreamDescription(
            disk: 0, kind: .volume(1), extent: extent(20_480, 720_896), used: ExtentList(extent(0, 700_416))),
        StreamDescription(
            disk: 0, kind: .volume(2), extent: extent(724_992, size - 16_896),
            used: ExtentList([extent(100, 70_000), extent(131_072, 131_073), extent(200_000, size - 16_896 - 724_992)])),
    ]

    /// What a restore must give: unused bytes are zero.
    var expected: [UInt8] {
        let all = content
        var result = [UInt8](repeating: 0, count: all.count)
        for stream in GoldenDisk.streams {
            for extent in stream.used.extents {
                let start = Int((stream.extent.start + extent.start).bytes)
                let range = start..<start + Int(extent.length.bytes)
                result.replaceSubrange(range, with: all[range])
            }
        }
        return result
    }

    /// Stores the disk as a point of the set `writer` writes.
    func backup(_ writer: SetWriter, name: String, time: UInt64, unreadable: [Extent] = []) throws -> String {
        let worker = try UnitWorker(writer)
        var all = content
        for extent in unreadable {
            let start = Int((GoldenDisk.streams[2].extent.start + extent.start).bytes)
            for place in start..<start + Int(extent.length.bytes) { all[place] = 0 }
        }
        for description in GoldenDisk.streams {
            let stream = try writer.beginStream(description)
            while let piece = stream.nextPiece() {
                let start = Int((description.extent.start + piece.extent.start).bytes)
                var bytes = Array(all[start..<start + Int(piece.extent.length.bytes)])
                var span = bytes.mutableSpan
                var raw = unsafe span.mutableBytes
                try worker.add(piece, of: stream, &raw)
            }
            if description.kind == .volume(2) { for extent in unreadable { stream.markUnreadable(extent) } }
        }
        let facts = PointFacts(
            name: name, time: time, tool: "golden", machine: MachineFacts(relight: "golden"),
            disks: [DiskModel(path: "/dev/golden", size: ByteCount(UInt64(GoldenDisk.size)), sectorSize: .s512)])
        return try writer.commit(facts, readBack: true, threads: 1).id
    }
}
