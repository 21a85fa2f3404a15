// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Multiplies blocks of 4096 bytes by elements of GF(2^8) and adds the products up.
///
/// A block is 4096 elements, *bit-sliced*: eight strips of 512 bytes, where strip s holds bit s of all elements. A
/// product is then nothing but exclusive ors of whole strips, chosen by the bits of the coefficient, and any compiler
/// makes vector code of it: no tables are looked up per byte. (Blömer and others, "An XOR-Based Erasure-Resilient Coding
/// Scheme", 1995.) The sixteen sums of strips 0 … 3 and the sixteen of strips 4 … 7 are made once for each block and
/// used for all its parity blocks, so that a strip of a product costs two exclusive ors.
@safe final class StripCode {
    static let strips = 8
    /// Words in a strip.
    private static let words = ParityLayout.blockSize / strips / MemoryLayout<UInt64>.size
    /// The 32 sums; those with number 0 and 16 stay zero.
    private let sums: UnsafeMutablePointer<UInt64>

    init() {
        let count = 32 * StripCode.words
        unsafe sums = UnsafeMutableRawPointer.allocate(byteCount: count * MemoryLayout<UInt64>.size, alignment: 64)
            .bindMemory(to: UInt64.self, capacity: count)
        unsafe sums.initialize(repeating: 0, count: count)
    }

    deinit { unsafe UnsafeMutableRawPointer(sums).deallocate() }

    /// For each coefficient eight bytes: bit s of byte r tells whether strip s of a block goes into strip r of the
    /// product, which is bit r of coefficient · 2^s.
    private static let choices: [UInt8] = (0..<256).flatMap { coefficient in
        (0..<strips).map { row in
            (0..<strips).reduce(UInt8(0)) { choice, strip in
                let column = GaloisField.product(UInt8(coefficient), 1 << UInt8(strip))
                return choice | (column >> UInt8(row) & 1) << UInt8(strip)
            }
        }
    }

    /// Takes the block at `block`, aligned to 8 bytes, as the one to be multiplied.
    func load(_ block: UnsafeRawPointer) {
        let source = unsafe block.assumingMemoryBound(to: UInt64.self)
        for half in 0..<2 {
            for bit in 0..<4 {
                let strip = unsafe source + (half * 4 + bit) * StripCode.words
                for low in 0..<1 << bit {
                    let known = unsafe sums + (half * 16 + low) * StripCode.words
                    let sum = unsafe sums + (half * 16 + low + 1 << bit) * StripCode.words
                    for word in 0..<StripCode.words { unsafe sum[word] = known[word] ^ strip[word] }
                }
            }
        }
    }

    /// Adds `coefficient` times the loaded block to the block at `target`, aligned to 8 bytes.
    func add(_ coefficient: UInt8, to target: UnsafeMutableRawPointer) {
        let words = unsafe target.assumingMemoryBound(to: UInt64.self)
        unsafe StripCode.choices.withUnsafeBufferPointer { choices in
            for row in 0..<StripCode.strips {
                let choice = unsafe Int(choices[Int(coefficient) * StripCode.strips + row])
                let low = unsafe sums + (choice & 15) * StripCode.words
                let high = unsafe sums + (16 + choice >> 4) * StripCode.words
                let strip = unsafe words + row * StripCode.words
                for word in 0..<StripCode.words { unsafe strip[word] ^= low[word] ^ high[word] }
            }
        }
    }
}
