// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import TestSupport
import Testing

@testable import ImageStore

/// The field, the matrix and the bit-sliced products under the parity section.
@Suite struct ParityFieldTests {
    /// Multiplication by the book: shift, add, reduce.
    static func slow(_ left: UInt8, _ right: UInt8) -> UInt8 {
        var result = 0
        for bit in 0..<8 where right >> bit & 1 == 1 { result ^= Int(left) << bit }
        for bit in stride(from: 14, through: 8, by: -1) where result >> bit & 1 == 1 { result ^= 0x11D << (bit - 8) }
        return UInt8(result)
    }

    @Test func productsAreThoseOfThePolynomial() {
        for left in 0...255 {
            for right in 0...255 {
                let product = GaloisField.product(UInt8(left), UInt8(right))
                #expect(product == Self.slow(UInt8(left), UInt8(right)))
            }
        }
    }

    @Test func everyElementButZeroHasAnInverse() throws {
        #expect(GaloisField.inverse(0 as UInt8) == nil)
        for value in UInt8(1)...255 {
            let inverse = try #require(GaloisField.inverse(value))
            #expect(Self.slow(value, inverse) == 1)
        }
    }

    @Test func coefficientsAreInversesOfDifferences() {
        for row in 0..<85 {
            for column in 0..<170 {
                let coefficient = GaloisField.coefficient(row: row, column: column)
                #expect(Self.slow(coefficient, UInt8(255 - row) ^ UInt8(column)) == 1)
            }
        }
    }

    @Test func squarePartsOfTheMatrixHaveInverses() throws {
        var random = Seeded(201)
        for round in 0..<200 {
            let size = 1 + round % 20
            let rows = Array((0..<32).shuffled(using: &random).prefix(size))
            let columns = Array((0..<220).shuffled(using: &random).prefix(size))
            let matrix = rows.map { row in columns.map { GaloisField.coefficient(row: row, column: $0) } }
            let inverse = try #require(GaloisField.inverse(matrix))
            for row in 0..<size {
                for column in 0..<size {
                    let sum = (0..<size).reduce(UInt8(0)) { $0 ^ Self.slow(matrix[row][$1], inverse[$1][column]) }
                    #expect(sum == (row == column ? 1 : 0))
                }
            }
        }
        #expect(GaloisField.inverse([[3, 5], [3, 5]]) == nil)
    }

    /// Element `index` of a block: bit s is bit `index` of strip s.
    static func element(_ block: [UInt8], _ index: Int) -> UInt8 {
        (0..<8).reduce(UInt8(0)) { $0 | (block[$1 * 512 + index / 8] >> UInt8(index % 8) & 1) << UInt8($1) }
    }

    @Test func stripsMultiplyEveryElement() {
        var random = Seeded(202)
        let code = StripCode()
        for coefficient in [0, 1, 2, 3, 0x1D, 0x80, 0xA7, 0xFF] as [UInt8] {
            let block = (0..<4096).map { _ in UInt8.random(in: 0...255, using: &random) }
            let before = (0..<4096).map { _ in UInt8.random(in: 0...255, using: &random) }
            let source = ByteBuffer(4096)
            let target = ByteBuffer(4096)
            unsafe source.mutable(0..<4096).copyBytes(from: block)
            unsafe target.mutable(0..<4096).copyBytes(from: before)
            unsafe code.load(source.base)
            unsafe code.add(coefficient, to: target.base)
            let after = unsafe [UInt8](target.bytes(0..<4096))
            for index in 0..<4096 {
                let expected = Self.element(before, index) ^ Self.slow(coefficient, Self.element(block, index))
                #expect(Self.element(after, index) == expected)
            }
        }
    }
}
