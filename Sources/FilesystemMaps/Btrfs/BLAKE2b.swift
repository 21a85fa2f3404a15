// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// BLAKE2b with a digest of 32 bytes and no key. RFC 7693.
enum BLAKE2b {
    private static let start: [UInt64] = [
        0x6A09_E667_F3BC_C908, 0xBB67_AE85_84CA_A73B, 0x3C6E_F372_FE94_F82B, 0xA54F_F53A_5F1D_36F1,
        0x510E_527F_ADE6_82D1, 0x9B05_688C_2B3E_6C1F, 0x1F83_D9AB_FB41_BD6B, 0x5BE0_CD19_137E_2179,
    ]
    /// The order in which each round takes the words of a block (RFC 7693, section 2.7).
    private static let orders: [[Int]] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4], [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13], [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11], [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5], [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
    ]
    /// The words of the state that each step of a round mixes.
    private static let mixes: [(Int, Int, Int, Int)] = [
        (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13),
        (3, 4, 9, 14),
    ]

    static func hash(_ bytes: RawSpan) -> [UInt8] {
        var state = start
        // Digest length 32, no key, one leaf.
        state[0] ^= 0x0101_0020
        var offset = 0
        let count = bytes.byteCount
        var words = [UInt64](repeating: 0, count: 16)
        repeat {
            let length = min(128, count - offset)
            for index in 0..<16 {
                words[index] = 0
                for byte in 0..<8 where index * 8 + byte < length {
                    let value = unsafe bytes.unsafeLoad(
                        fromUncheckedByteOffset: offset + index * 8 + byte, as: UInt8.self)
                    words[index] |= UInt64(value) << UInt64(8 * byte)
                }
            }
            offset += length
            compress(&state, words, total: UInt64(offset), isLast: offset == count)
        } while offset < count
        var result: [UInt8] = []
        for word in state.prefix(4) {
            for byte in 0..<8 as Range<UInt64> { result.append(UInt8(word >> (8 * byte) & 0xFF)) }
        }
        return result
    }

    private static func compress(_ state: inout [UInt64], _ words: [UInt64], total: UInt64, isLast: Bool) {
        var work = state + start
        work[12] ^= total
        if isLast { work[14] = ~work[14] }
        for round in 0..<12 {
            let order = orders[round % 10]
            for (index, mix) in mixes.enumerated() {
                let (a, b, c, d) = mix
                work[a] = work[a] &+ work[b] &+ words[order[2 * index]]
                work[d] = rotate(work[d] ^ work[a], 32)
                work[c] = work[c] &+ work[d]
                work[b] = rotate(work[b] ^ work[c], 24)
                work[a] = work[a] &+ work[b] &+ words[order[2 * index + 1]]
                work[d] = rotate(work[d] ^ work[a], 16)
                work[c] = work[c] &+ work[d]
                work[b] = rotate(work[b] ^ work[c], 63)
            }
        }
        for index in 0..<8 { state[index] ^= work[index] ^ work[index + 8] }
    }

    private static func rotate(_ value: UInt64, _ bits: UInt64) -> UInt64 { value >> bits | value << (64 - bits) }
}
