// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// The field GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 (11D), in which 2 generates all elements but 0, and
/// the coefficients of the parity section; see `docs/image-format.md`, section 5.4.
///
/// Addition and subtraction are exclusive or.
enum GaloisField {
    static let polynomial = 0x11D

    /// Powers of 2, twice in a row so that sums of two logarithms need no modulo.
    private static let powers: [UInt8] = {
        var result = [UInt8](repeating: 0, count: 510)
        var value = 1
        for exponent in 0..<255 {
            result[exponent] = UInt8(value)
            result[exponent + 255] = UInt8(value)
            value <<= 1
            if value > 0xFF { value ^= polynomial }
        }
        return result
    }()

    private static let logarithms: [Int] = {
        var result = [Int](repeating: 0, count: 256)
        for exponent in 0..<255 { result[Int(powers[exponent])] = exponent }
        return result
    }()

    static func product(_ left: UInt8, _ right: UInt8) -> UInt8 {
        guard left != 0, right != 0 else { return 0 }
        return powers[logarithms[Int(left)] + logarithms[Int(right)]]
    }

    /// The inverse of `value`; `nil` for 0, which has none.
    static func inverse(_ value: UInt8) -> UInt8? {
        value == 0 ? nil : powers[255 - logarithms[Int(value)]]
    }

    /// The Cauchy matrix: the coefficient of data block `column` of a group in its parity block `row`. Every square
    /// part of it has an inverse as long as rows and columns together stay below 256, and none of its elements is 0.
    static func coefficient(row: Int, column: Int) -> UInt8 {
        inverse(UInt8(truncatingIfNeeded: 255 - row) ^ UInt8(truncatingIfNeeded: column)) ?? 0
    }

    /// The inverse of a square matrix given by rows; `nil` when it has none.
    static func inverse(_ matrix: [[UInt8]]) -> [[UInt8]]? {
        let size = matrix.count
        var left = matrix
        var right = (0..<size).map { row in (0..<size).map { $0 == row ? UInt8(1) : 0 } }
        for column in 0..<size {
            guard let pivot = (column..<size).first(where: { left[$0][column] != 0 }) else { return nil }
            left.swapAt(column, pivot)
            right.swapAt(column, pivot)
            guard let factor = inverse(left[column][column]) else { return nil }
            left[column] = left[column].map { product($0, factor) }
            right[column] = right[column].map { product($0, factor) }
            for row in 0..<size where row != column && left[row][column] != 0 {
                let factor = left[row][column]
                for index in 0..<size {
                    left[row][index] ^= product(left[column][index], factor)
                    right[row][index] ^= product(right[column][index], factor)
                }
            }
        }
        return right
    }
}
