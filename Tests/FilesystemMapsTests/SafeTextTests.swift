// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Testing

@testable import FilesystemMaps

struct SafeTextTests {
    @Test(arguments: [
        ("plain.txt", "plain.txt"), ("ümläut 日本", "ümläut 日本"), ("a\nb\u{7F}", "a\\u{A}b\\u{7F}"),
        ("\u{1B}[31m", "\\u{1B}[31m"), ("back\\slash", "back\\\\slash"), ("\u{202E}txt.exe", "\\u{202E}txt.exe"),
        ("\u{85}\u{9B}", "\\u{85}\\u{9B}"), ("\u{2028}", "\\u{2028}"),
    ])
    func whatHarmsATerminalIsEscaped(given: String, safe: String) {
        #expect(SafeText.name(given.utf8) == safe)
        #expect(SafeText.name(given) == safe)
    }

    @Test(
        arguments: [
            ([0xFF, 0x41], "\\xFFA"), ([0xC3], "\\xC3"), ([0xC0, 0x80], "\\xC0\\x80"),
            ([0xED, 0xA0, 0x80], "\\xED\\xA0\\x80"),
            ([0xF0, 0x9F, 0x98], "\\xF0\\x9F\\x98"), ([0x61, 0xE2, 0x82, 0x61], "a\\xE2\\x82a"),
        ] as [([UInt8], String)])
    func whatIsNoUTF8IsShownByteByByte(given: [UInt8], safe: String) {
        #expect(SafeText.name(given) == safe)
    }

    @Test func longPathsKeepTheirEnd() {
        let path = SafeText.path(Array(repeating: "0123456789", count: 500))
        #expect(path.count == 1024 && path.hasPrefix("…") && path.hasSuffix("/0123456789"))
    }
}
