// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// A cyclic redundancy check of 32 bits, reflected, initial value and final exclusive-or 0xFFFFFFFF.
public struct CRC32: Sendable {
    private let tables: [UInt32]

    /// The check with the reversed polynomial `polynomial`; eight tables of 256 entries ("slicing by eight").
    private init(polynomial: UInt32) {
        var tables = [UInt32](repeating: 0, count: 8 * 256)
        for index in 0..<256 {
            var value = UInt32(index)
            for _ in 0..<8 { value = value & 1 == 1 ? value >> 1 ^ polynomial : value >> 1 }
            tables[index] = value
        }
        for slice in 1..<8 {
            for index in 0..<256 {
                let previous = tables[(slice - 1) * 256 + index]
                tables[slice * 256 + index] = previous >> 8 ^ tables[Int(previous & 0xFF)]
            }
        }
        self.tables = tables
    }

    /// CRC-32 of IEEE 802.3, used by GPT (UEFI 2.10, section 5.3.2).
    public static let ieee = CRC32(polynomial: 0xEDB8_8320)
    /// CRC-32C (Castagnoli), used by ext4 and by Relight's records (RFC 3720, appendix B.4).
    public static let castagnoli = CRC32(polynomial: 0x82F6_3B78)

    /// The check of `span`. `previous` continues a check over bytes that came before.
    public func checksum(_ span: RawSpan, continuing previous: UInt32 = 0) -> UInt32 {
        var value = ~previous
        var offset = 0
        let count = span.byteCount
        return unsafe tables.withUnsafeBufferPointer { table in
            while offset + 8 <= count {
                let low =
                    unsafe UInt32(
                        littleEndian: span.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt32.self))
                    ^ value
                let high = unsafe UInt32(
                    littleEndian: span.unsafeLoadUnaligned(fromUncheckedByteOffset: offset + 4, as: UInt32.self))
                value =
                    unsafe table[1792 + Int(low & 0xFF)] ^ table[1536 + Int(low >> 8 & 0xFF)]
                    ^ table[1280 + Int(low >> 16 & 0xFF)] ^ table[1024 + Int(low >> 24)]
                value =
                    unsafe value ^ table[768 + Int(high & 0xFF)] ^ table[512 + Int(high >> 8 & 0xFF)]
                    ^ table[256 + Int(high >> 16 & 0xFF)] ^ table[Int(high >> 24)]
                offset += 8
            }
            while offset < count {
                let byte = unsafe span.unsafeLoad(fromUncheckedByteOffset: offset, as: UInt8.self)
                value = unsafe value >> 8 ^ table[Int((value ^ UInt32(byte)) & 0xFF)]
                offset += 1
            }
            return ~value
        }
    }

    /// The check of `bytes`.
    public func checksum(_ bytes: [UInt8]) -> UInt32 { unsafe checksum(bytes.span.bytes) }
}
