// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import TestSupport

@testable import ImageStore

/// Packs with a parity section, made for tests: any bytes as the body, no footer.
struct ParitySample {
    static let id = ObjectID(high: 0x0001_0203_0405_0607, low: 0x0809_0A0B_0C0D_0E0F)
    let layout: ParityLayout
    let bytes: [UInt8]

    init(_ body: [UInt8], percent: Int, id: ObjectID = ParitySample.id, sumLimit: Int = ParityWriter.sumLimit) throws {
        guard let layout = ParityLayout(bodyLength: body.count, percent: percent) else {
            throw Fault(.usage, what: "No layout for \(body.count) bytes.", remedy: "")
        }
        var pack = body + [UInt8](repeating: 0xEE, count: layout.size)
        try ParityWriter.write(
            layout, pack: id, hasher: Hasher256(), sumLimit: sumLimit,
            read: { offset, span throws(Fault) in
                precondition(offset + span.byteCount <= body.count)
                for index in 0..<span.byteCount {
                    span.storeBytes(of: body[offset + index], toByteOffset: index, as: UInt8.self)
                }
            },
            write: { offset, span throws(Fault) in
                precondition(offset >= layout.bodyLength && offset + span.byteCount <= layout.end)
                unsafe span.withUnsafeBytes { pointer in
                    unsafe pack.replaceSubrange(offset..<offset + pointer.count, with: pointer)
                }
            })
        self.layout = layout
        self.bytes = pack
    }

    init(_ length: Int, percent: Int, seed: UInt64) throws {
        var random = Seeded(seed)
        var body: [UInt8] = []
        body.reserveCapacity(length)
        while body.count < length {
            let word = random.next()
            for shift in 0..<8 where body.count < length { body.append(UInt8(truncatingIfNeeded: word >> (8 * shift))) }
        }
        try self.init(body, percent: percent)
    }

    /// A pack in memory; bytes in `unreadable` cannot be read.
    static func damaged(_ bytes: [UInt8], unreadable: [Range<Int>] = []) -> DamagedPack {
        DamagedPack(size: bytes.count) { offset, span throws(Fault) in
            let range = offset..<offset + span.byteCount
            guard range.upperBound <= bytes.count else {
                throw Fault(.storeFailed, what: "The object ends before.", remedy: "")
            }
            guard !unreadable.contains(where: { $0.overlaps(range) }) else {
                throw Fault(.storeFailed, what: "Input/output error", remedy: "")
            }
            unsafe span.withUnsafeMutableBytes { target in
                unsafe bytes.withUnsafeBytes { source in
                    unsafe target.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[range]))
                }
            }
        }
    }

    /// What is made of a damaged pack: the repaired bytes and what the repair says of them; `nil` when no header of
    /// the section is found.
    static func repair(
        _ bytes: [UInt8], unreadable: [Range<Int>] = [], id: ObjectID = ParitySample.id
    ) throws -> (bytes: [UInt8], check: ParityCheck, repair: ParityRepair)? {
        let pack = damaged(bytes, unreadable: unreadable)
        let hasher = try Hasher256()
        guard let check = try ParityCheck.run(pack, id: id, hasher: hasher) else { return nil }
        var result = bytes + [UInt8](repeating: 0, count: max(0, check.layout.end - bytes.count))
        let repair = try ParityRepair.run(check, pack, hasher: hasher) { offset, span throws(Fault) in
            unsafe span.withUnsafeBytes { pointer in
                unsafe result.replaceSubrange(offset..<offset + pointer.count, with: pointer)
            }
        }
        return (result, check, repair)
    }

    /// `bytes` with other bytes in the blocks.
    func losing(_ blocks: some Sequence<Int>, in bytes: [UInt8]? = nil) -> [UInt8] {
        var result = bytes ?? self.bytes
        for index in blocks { for place in layout.range(index) { result[place] ^= UInt8(place % 251 + 1) } }
        return result
    }
}
