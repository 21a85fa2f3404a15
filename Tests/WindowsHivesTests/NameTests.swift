// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Testing

@testable import WindowsHives

@Suite struct NameTests {
    @Test func upperCaseIsThatOfWindows() {
        func upper(_ text: String) -> String { String(decoding: text.utf16.map(SoughtName.upper), as: UTF16.self) }
        #expect(upper("abcXYZ0_{}") == "ABCXYZ0_{}")
        #expect(upper("äöüéñøÿ") == "ÄÖÜÉÑØŸ")
        #expect(upper("ключ λόγος") == "КЛЮЧ ΛΌΓΟΣ")
        // One letter never becomes two, and some stay as they are.
        #expect(upper("ßµıſ÷×") == "ßµıſ÷×")
        #expect(upper("鍵🗝") == "鍵🗝")
    }

    /// Of real hash leaves.
    @Test func hashesAreThoseOfWindows() {
        #expect(SoughtName("").hash == 0)
        #expect(SoughtName("A").hash == 65)
        #expect(SoughtName("ab").hash == 2471)
        #expect(SoughtName("Ä").hash == nil)
    }

    @Test func namesMatchWhateverTheirForm() {
        let plain = HiveName(bytes: Array("System32".utf8), isCompressed: true)
        let wide = HiveName(bytes: HiveBuilder.wide("System32"), isCompressed: false)
        #expect(plain.text == "System32" && wide.text == "System32")
        for name in ["SYSTEM32", "system32", "sYsTeM32"] {
            #expect(SoughtName(name).matches(plain) && SoughtName(name).matches(wide))
        }
        for name in ["SYSTEM3", "SYSTEM321", "", "SYSTEM3\u{662}"] {
            #expect(!SoughtName(name).matches(plain) && !SoughtName(name).matches(wide))
        }
        // Latin letters of one byte: ÿ's upper case has none.
        #expect(SoughtName("Ÿ").matches(HiveName(bytes: [0xFF], isCompressed: true)))
        #expect(HiveName(bytes: [0xC4, 0x72], isCompressed: true).text == "Är")
        // An odd byte at the end, and half a character.
        #expect(HiveName(bytes: [0x41, 0, 0x42], isCompressed: false).text == "A")
        #expect(HiveName(bytes: [0, 0xD8], isCompressed: false).text == "\u{FFFD}")
    }

    @Test(
        arguments: [
            (0, "1601-01-01T00:00:00Z"), (116_444_736_000_000_000, "1970-01-01T00:00:00Z"),
            (125_911_584_000_000_000, "2000-01-01T00:00:00Z"), (125_963_423_990_000_000, "2000-02-29T23:59:59Z"),
            (131_331_178_057_586_683, "2017-03-04T16:16:45Z"), (133_537_104_000_000_000, "2024-02-29T20:00:00Z"),
            (157_783_968_000_000_000, "2100-12-31T08:00:00Z"),
        ] as [(UInt64, String)])
    func timesAreDates(ticks: UInt64, text: String) {
        #expect(FileTime(ticks: ticks).description == text)
    }

    @Test func theLargestTimeIsADateToo() {
        #expect(FileTime(ticks: .max).description.hasPrefix("60056-"))
        #expect(FileTime(ticks: 116_444_736_000_000_000).unixSeconds == 0)
        #expect(FileTime(ticks: 0).unixSeconds == -11_644_473_600)
    }

    /// Values published with the algorithm (the tests of .NET, System.Marvin).
    @Test(
        arguments: [
            ([], 0x30ED_35C1_00CD_3C7D), ([0xAF], 0x48E7_3FC7_7D75_DDC1), ([0xE7, 0x0F], 0xB5F6_E1FC_485D_BFF8),
            ([0x37, 0xF4, 0x95], 0xF0B0_7C78_9B8C_F7E8), ([0x86, 0x42, 0xDC, 0x59], 0x7008_F2E8_7E9C_F556),
        ] as [([UInt8], UInt64)])
    func marvinIsThatOfItsPublication(bytes: [UInt8], value: UInt64) {
        var hash = Marvin32(seed: 0x004F_B61A_001B_DBCC)
        for byte in bytes { hash.update([byte]) }
        #expect(hash.value() == value)
    }
}
