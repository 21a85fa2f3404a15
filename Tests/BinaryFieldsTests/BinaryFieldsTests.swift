// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Testing

@Suite struct FieldTests {
    @Test func readsBothByteOrders() throws {
        let bytes: [UInt8] = [0x01, 0x02, 0x03, 0x04]
        #expect(try unsafe bytes.span.bytes.littleEndian(UInt32.self, "field", at: 0) == 0x0403_0201)
        #expect(try unsafe bytes.span.bytes.bigEndian(UInt16.self, "field", at: 1) == 0x0203)
    }

    @Test(arguments: [-1, 1, 4, Int.max, Int.min])
    func aReadOutsideIsAnErrorThatNamesTheField(offset: Int) {
        let bytes: [UInt8] = [1, 2, 3, 4]
        #expect(throws: FieldError.truncated(field: "MyLBA", at: offset, need: 4, have: 4)) {
            try unsafe bytes.span.bytes.littleEndian(UInt32.self, "MyLBA", at: offset)
        }
    }

    @Test func storesWhatItReads() throws {
        var bytes = [UInt8](repeating: 0, count: 16)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        try raw.storeLittleEndian(UInt64(0x1122_3344_5566_7788), "field", at: 3)
        #expect(throws: FieldError.self) { try raw.storeLittleEndian(UInt32(1), "field", at: 13) }
        #expect(try unsafe bytes.span.bytes.littleEndian(UInt64.self, "field", at: 3) == 0x1122_3344_5566_7788)
    }

    @Test func seesZeroBytesOnly() {
        for count in [0, 1, 7, 8, 9, 64] {
            var bytes = [UInt8](repeating: 0, count: count)
            #expect(unsafe bytes.span.bytes.isAllZero)
            if count > 0 {
                bytes[count - 1] = 1
                #expect(unsafe !bytes.span.bytes.isAllZero)
            }
        }
    }
}

@Suite struct GUIDTests {
    @Test func keepsTheMixedByteOrder() throws {
        let text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
        let guid = try #require(GUID(text.uppercased()))
        #expect(guid.bytes.prefix(4) == [0x28, 0x73, 0x2A, 0xC1])
        #expect(guid.description == text)
        #expect(GUID(bytes: guid.bytes) == guid)
    }

    @Test(arguments: ["", "c12a7328", "c12a7328-f81f-11d2-ba4b-00a0c93ec93", "g12a7328-f81f-11d2-ba4b-00a0c93ec93b"])
    func refusesOtherText(text: String) { #expect(GUID(text) == nil) }

    @Test func randomOnesSayTheirVersion() {
        let text = GUID.random().description
        #expect(text.dropFirst(14).first == "4")
        #expect(GUID.random() != GUID.random())
    }
}

@Suite struct CRCTests {
    /// The check value of the CRC catalogue for "123456789".
    @Test func matchesThePublishedCheckValues() {
        let digits = Array("123456789".utf8)
        #expect(CRC32.ieee.checksum(digits) == 0xCBF4_3926)
        #expect(CRC32.castagnoli.checksum(digits) == 0xE306_9283)
    }

    @Test func aCheckCanBeContinued() {
        let bytes = (0..<1000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let whole = CRC32.castagnoli.checksum(bytes)
        for cut in [0, 1, 8, 13, 999, 1000] {
            let first = unsafe CRC32.castagnoli.checksum(Array(bytes[..<cut]).span.bytes)
            let both = unsafe CRC32.castagnoli.checksum(Array(bytes[cut...]).span.bytes, continuing: first)
            #expect(both == whole)
        }
    }
}

@Suite struct TextTests {
    @Test func hexadecimalBothWays() {
        #expect(Hex.text([0x00, 0xAB, 0x7F]) == "00ab7f")
        #expect(Hex.bytes("00aB7f") == [0x00, 0xAB, 0x7F])
        #expect(Hex.bytes("0") == nil)
        #expect(Hex.bytes("zz") == nil)
    }

    @Test func utf16StopsAtNulAndSurvivesLoneSurrogates() {
        #expect(UTF16Text.decode(UTF16Text.encode("Größe") + [0, 0, 65, 0]) == "Größe")
        #expect(UTF16Text.decode([0x00, 0xD8, 0x41, 0x00]) == "\u{FFFD}A")
        #expect(UTF16Text.decode([0x41]) == "")
    }
}
