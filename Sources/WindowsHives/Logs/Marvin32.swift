// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Marvin32, the hash that guards entries of new logs. Specification, "Log entries", notes 1 to 3.
///
/// The hash was published by its makers as US patent 20130262421; the seed is the one Windows uses for hives.
struct Marvin32 {
    private var low: UInt32
    private var high: UInt32
    /// Bytes of a word that is not complete yet.
    private var rest: UInt32 = 0
    private var restCount: UInt32 = 0

    /// A hash that has seen nothing.
    init(seed: UInt64 = 0x82EF_4D88_7A4E_55C5) {
        low = UInt32(truncatingIfNeeded: seed)
        high = UInt32(truncatingIfNeeded: seed >> 32)
    }

    private mutating func mix(_ word: UInt32) {
        func turn(_ value: UInt32, _ bits: UInt32) -> UInt32 { value << bits | value >> (32 - bits) }
        low &+= word
        high ^= low
        low = turn(low, 20) &+ high
        high = turn(high, 9) ^ low
        low = turn(low, 27) &+ high
        high = turn(high, 19)
    }

    /// Takes in more bytes.
    mutating func update(_ bytes: some Sequence<UInt8>) {
        for byte in bytes {
            rest |= UInt32(byte) << (8 * restCount)
            restCount += 1
            if restCount == 4 {
                mix(rest)
                rest = 0
                restCount = 0
            }
        }
    }

    /// The hash of what was taken in.
    func value() -> UInt64 {
        var copy = self
        copy.mix(rest | 0x80 << (8 * restCount))
        copy.mix(0)
        return UInt64(copy.high) << 32 | UInt64(copy.low)
    }

    /// The hash of `bytes`.
    static func hash(_ bytes: some Sequence<UInt8>) -> UInt64 {
        var hash = Marvin32()
        hash.update(bytes)
        return hash.value()
    }
}
