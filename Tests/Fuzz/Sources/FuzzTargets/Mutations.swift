// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// Mutations that go for arithmetic. The sequence depends on the seed alone (SplitMix64).
public struct Mutations: RandomNumberGenerator {
    private var state: UInt64

    /// A generator.
    public init(seed: UInt64) { state = seed }

    /// The next number.
    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }

    /// Values at which arithmetic goes wrong.
    private static let extremes: [UInt64] = [
        0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0xFFF, 0x1000, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFF_FFFF, 0x8000_0000,
        0xFFFF_FFFF, 0x1_0000_0000, 1 << 55, 1 << 60, (1 << 63) - 1, 1 << 63, .max - 1, .max,
    ]

    /// Stores an extreme value somewhere, in one, two, four or eight bytes.
    public mutating func changeField(_ input: inout [UInt8]) {
        guard let value = Mutations.extremes.randomElement(using: &self) else { return }
        let width = 1 << Int(next() % 4)
        guard input.count >= width else { return }
        let offset = Int(next() % UInt64(input.count - width + 1))
        for index in 0..<width { input[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index))) }
    }

    /// Puts an extreme value in the place of a decimal number.
    public mutating func changeNumber(_ input: inout [UInt8]) {
        let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
        var numbers: [Range<Int>] = []
        var start: Int?
        for (index, byte) in (input + [0]).enumerated() {
            if digits.contains(byte) {
                start = start ?? index
            } else if let first = start {
                numbers.append(first..<index)
                start = nil
            }
        }
        guard let place = numbers.randomElement(using: &self),
            let value = Mutations.extremes.randomElement(using: &self)
        else { return }
        input.replaceSubrange(place, with: String(value).utf8)
    }
}
