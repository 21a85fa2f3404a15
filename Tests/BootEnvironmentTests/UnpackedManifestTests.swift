// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

@testable import BootEnvironment
import Findings
import FoundationEssentials
import LinuxDisks
import TestSupport
import Testing

@Suite struct UnpackedManifestTests {
    static let digest = String(repeating: "ab", count: 32)
    static let good = """
        relight-manifest 1 3 60 512
        \(digest) 10 /etc/a
        \(digest) 20 /usr/bin/b c
        \(digest) 30 /usr/lib/d

        """

    static func read(_ text: String) throws(Fault) -> UnpackedManifest {
        try UnpackedManifest(parsing: Array(text.utf8))
    }

    @Test func aListIsRead() throws {
        let manifest = try Self.read(Self.good)
        #expect(manifest.neededMemory == 512)
        #expect(manifest.totalBytes == 60)
        #expect(manifest.files.map(\.path) == ["/etc/a", "/usr/bin/b c", "/usr/lib/d"])
        #expect(manifest.files.map(\.size) == [10, 20, 30])
    }

    @Test(arguments: [
        "", "\n\n", "relight-manifest", "relight-manifest 2 0 0 1", "relight-manifest 1 1 0 1",
        "relight-manifest 1 -1 0 1",
        "relight-manifest 1 0 5 1", "relight-manifest 1 0 0 99999999999999999999",
        "relight-manifest 1 1 5 1\nABCD 5 /a", "relight-manifest 1 1 5 1\n\(digest.uppercased()) 5 /a",
        "relight-manifest 1 1 5 1\n\(digest) 5 a", "relight-manifest 1 1 5 1\n\(digest) x /a",
        "relight-manifest 1 1 5 1\n\(digest) 5", "relight-manifest 1 1 5 1\n\(digest) 5 /a\u{0}b",
        "relight-manifest 1 2 1 1\n\(digest) 18446744073709551615 /a\n\(digest) 2 /b",
        "relight-manifest 1 9223372036854775807 0 1\n\(digest) 0 /a",
    ])
    func hostileListsAreRefused(text: String) throws {
        let fault = try #require(throws: Fault.self) { try Self.read(text) }
        #expect(fault.code == .environmentIncomplete)
        #expect(fault.what.hasPrefix("Line "))
    }

    @Test func mutatedListsNeverTrap() {
        let seed = Array(Self.good.utf8)
        var random = Seeded(5)
        for _ in 0..<10_000 { _ = try? UnpackedManifest(parsing: random.mutated(seed)) }
    }

    @Test func missingAndCutFilesAreFound() throws {
        let root = FileManager.default.temporaryDirectory.path() + "/relight-manifest-\(UInt64.random(in: 0 ... .max))"
        defer { try? FileManager.default.removeItem(atPath: root) }
        for folder in ["etc", "usr/bin", "usr/lib/d"] {
            try FileManager.default.createDirectory(atPath: "\(root)/\(folder)", withIntermediateDirectories: true)
        }
        try Data(count: 10).write(to: URL(filePath: "\(root)/etc/a"))
        let manifest = try Self.read(Self.good)
        #expect(manifest.differences(KernelFiles(root: root)).map(\.path) == ["/usr/bin/b c", "/usr/lib/d"])
        try Data(count: 7).write(to: URL(filePath: "\(root)/usr/bin/b c"))
        let differences = manifest.differences(KernelFiles(root: root))
        #expect(differences.map(\.what) == ["7 of 20 bytes", "not a file"])
        let text = manifest.complaint(differences, memory: 300)
        #expect(text.contains("300 MB") && text.contains("512 MB") && text.contains("/usr/bin/b c"))
        #expect(text.split(separator: "\n").allSatisfy { $0.count <= 80 })
        #expect(!text.contains("RELIGHT-READY"))
        #expect(manifest.complaint(differences, memory: 900).contains("medium may be damaged"))
    }

    @Test func aCompleteSystemHasNoDifferences() throws {
        let root = FileManager.default.temporaryDirectory.path() + "/relight-manifest-\(UInt64.random(in: 0 ... .max))"
        defer { try? FileManager.default.removeItem(atPath: root) }
        try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
        try Data(count: 4).write(to: URL(filePath: "\(root)/a"))
        let manifest = try Self.read("relight-manifest 1 1 4 100\n\(Self.digest) 4 /a\n")
        #expect(manifest.differences(KernelFiles(root: root)) == [])
    }
}
