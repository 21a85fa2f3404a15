// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry
import TestSupport

/// A small volume made of blocks from a fixed supply, so that volumes share content and cost nothing to make.
struct ModelVolume: Hashable {
    static let block = 4096
    /// Numbers of blocks in the supply.
    var blocks: [Int]
    /// Bytes of the last block that lie in the volume.
    var tail: Int
    /// Used bytes; nil for all.
    var used: ExtentList?

    /// Zeros, text that compresses, and random bytes.
    private static let supply: [[UInt8]] = {
        var random = Seeded(4711)
        return (0..<160).map { number in
            switch number % 8 {
            case 0: return [UInt8](repeating: 0, count: block)
            case 1...3:
                let words = (0..<9).map { _ in UInt8.random(in: 97...122, using: &random) }
                return (0..<block).map { words[($0 / 3 + $0 * number) % 9] }
            default:
                return (0..<block / 8).flatMap { _ in
                    let word = random.next()
                    return (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * UInt64($0))) }
                }
            }
        }
    }()

    init(_ random: inout Seeded) {
        let count = Int.random(in: 1...56, using: &random)
        blocks = (0..<count).map { _ in Int.random(in: 0..<160, using: &random) }
        tail = Bool.random(using: &random) ? ModelVolume.block : Int.random(in: 1...ModelVolume.block, using: &random)
        used = ModelVolume.map(count: length, &random)
    }

    var length: Int { (blocks.count - 1) * ModelVolume.block + tail }

    /// Everything, nothing, or some areas that begin and end anywhere.
    private static func map(count: Int, _ random: inout Seeded) -> ExtentList? {
        switch Int.random(in: 0..<6, using: &random) {
        case 0, 1: return nil
        case 2 where count > 1: return ExtentList()
        default:
            var extents: [Extent] = []
            var end = 0
            while end < count - 2, extents.count < 12 {
                let start = Int.random(in: end + 1..<count, using: &random)
                end = Int.random(in: start + 1...count, using: &random)
                extents.append(Extent(from: ByteCount(UInt64(start)), to: ByteCount(UInt64(end))))
            }
            return ExtentList(extents)
        }
    }

    /// Some blocks change; the map and the length may.
    mutating func change(_ random: inout Seeded) {
        for _ in 0..<Int.random(in: 0...6, using: &random) {
            let place = Int.random(in: 0..<blocks.count, using: &random)
            blocks[place] = Int.random(in: 0..<160, using: &random)
        }
        if Int.random(in: 0..<8, using: &random) == 0 {
            blocks.append(Int.random(in: 0..<160, using: &random))
            used = nil
        } else if Int.random(in: 0..<6, using: &random) == 0 {
            used = ModelVolume.map(count: length, &random)
        }
    }

    /// What the volume holds.
    var content: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(blocks.count * ModelVolume.block)
        for block in blocks { result += ModelVolume.supply[block] }
        result.removeLast(ModelVolume.block - tail)
        return result
    }

    /// What a restore must give: unused bytes are zero.
    var expected: [UInt8] { Sample.masked(content, used) }
}
