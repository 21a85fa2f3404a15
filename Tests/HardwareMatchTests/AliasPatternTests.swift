// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Glibc
import TestSupport
import Testing

@testable import HardwareMatch

/// Patterns of device names, compared with the C library's own.
@Suite struct AliasPatternTests {
    @Test(arguments: [
        ("virtio:d00000002v*", "virtio:d00000002v00001AF4", true), ("virtio:d00000002v*", "virtio:d00000001v0", false),
        ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", true),
        ("usb:v046Dp08C[1-3]d*", "usb:v046Dp08C2d0100", true), ("usb:v046Dp08C[!1-3]d*", "usb:v046Dp08C2d0100", false),
        ("a\\*", "a*", true), ("a\\*", "ab", false), ("*", "", true), ("", "", true), ("", "a", false),
        ("?", "", false),
        ("[", "[", true), ("[]]", "]", true), ("a**b", "ab", true), ("*a*a*a*b", "aaaaaaaaaa", false),
    ])
    func aPatternMatchesAsModprobeDoes(pattern: String, name: String, expected: Bool) {
        #expect(AliasPattern(pattern).matches(Array(name.utf8)) == expected)
    }

    @Test func randomPatternsMatchAsTheCLibrarySays() {
        var random = Seeded(3)
        var matched = 0
        for _ in 0..<50_000 {
            let pattern = String(
                (0..<Int.random(in: 0...6, using: &random)).map { _ in "ab*?c".randomElement(using: &random) ?? "a" })
            let name = String(
                (0..<Int.random(in: 0...6, using: &random)).map { _ in "abc".randomElement(using: &random) ?? "a" })
            let expected = unsafe fnmatch(pattern, name, 0) == 0
            #expect(AliasPattern(pattern).matches(Array(name.utf8)) == expected, "\(pattern) \(name)")
            if expected { matched += 1 }
        }
        #expect(matched > 1000)
    }

    /// A pattern made to be slow takes time that grows with the product of the lengths.
    @Test func aHostilePatternEnds() {
        let pattern = AliasPattern(String(repeating: "*a", count: 400) + "b")
        #expect(!pattern.matches([UInt8](repeating: UInt8(ascii: "a"), count: 4000)))
    }
}
