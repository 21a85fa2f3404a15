// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Testing
import Tools

@testable import MediaBuilder

private let cpio = Tool("cpio", package: "cpio")
private let zstd = Tool("zstd", package: "zstd")

@Suite struct InitramfsTests {
    private func tree(_ relight: String) -> EnvironmentTree {
        var tree = EnvironmentTree(root: DownloadedRoot(folder: "/nonexistent"))
        tree.put("/usr/bin/relight", .file(.bytes(Data(relight.utf8)), mode: 0o755), group: "base")
        tree.put("/init", .link(target: "usr/bin/relight"), group: "base")
        tree.put("/etc/hosts", .file(.bytes(Data("localhost\n".utf8)), mode: 0o644), group: "base")
        tree.put("/tmp", .folder(mode: 0o1777), group: "base")
        tree.put("/usr/sbin/tool", .file(.bytes(Data("123".utf8)), mode: 0o755), group: "other")
        return tree
    }

    private func build(_ relight: String, _ cache: String) throws -> Initramfs {
        try Initramfs.build(
            tree(relight), first: ["/usr/bin/relight", "/init"], order: ["base", "other"], level: 3, time: 86_400,
            cache: cache, events: { _ in })
    }

    @Test(.enabled(if: cpio.path != nil, "cpio is not installed"))
    func cpioReadsTheArchive() throws {
        var archive = CpioArchive(time: 86_400)
        try archive.append("/etc", .folder(mode: 0o755))
        try archive.append("/etc/hosts", .file(.bytes(Data("localhost\n".utf8)), mode: 0o644))
        try archive.append("/init", .link(target: "usr/bin/relight"))
        let bytes = try archive.finish()
        let list = try cpio.check(
            ["-itv", "--quiet"], input: [UInt8](bytes), environment: ["TZ": "UTC"]
        ).standardOutput.split(separator: "\n").map { $0.split(separator: " ").joined(separator: " ") }
        #expect(
            list == [
                "drwxr-xr-x 2 root root 0 Jan 2 1970 etc", "-rw-r--r-- 1 root root 10 Jan 2 1970 etc/hosts",
                "lrwxrwxrwx 1 root root 15 Jan 2 1970 init -> usr/bin/relight",
            ])
    }

    @Test(.enabled(if: cpio.path != nil && zstd.path != nil, "cpio and zstd are not installed"))
    func theFirstPartHoldsRelightAndTheManifestAndStandsAlone() throws {
        let scratch = try Scratch()
        let image = try build("binary", scratch.folder)
        #expect(image.parts.map(\.group) == ["relight", "base", "other"])
        #expect(image.bytes.count % 4 == 0)
        try Files.write(Data(image.bytes.prefix(image.parts[0].compressed)), to: scratch.folder + "/first.zst")
        try zstd.check(["-dq", scratch.folder + "/first.zst", "-o", scratch.folder + "/first.cpio"])
        try Files.makeFolder(scratch.folder + "/out")
        try cpio.check(
            ["-idm", "--quiet", "-F", scratch.folder + "/first.cpio"], directory: scratch.folder + "/out")
        #expect(try Files.text(scratch.folder + "/out/init") == "binary")
        let lines = try Files.text(scratch.folder + "/out/etc/relight/manifest").split(separator: "\n")
        #expect(lines.first == "relight-manifest 1 3 19 \(image.neededMemory)")
        #expect(
            lines.dropFirst().map { $0.split(separator: " ")[2] } == [
                "/etc/hosts", "/usr/bin/relight", "/usr/sbin/tool",
            ])
        #expect(lines.last == "a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3 3 /usr/sbin/tool")
    }

    @Test func theSameContentGivesTheSameBytesWithAndWithoutTheCache() throws {
        let (one, two) = (try Scratch(), try Scratch())
        let first = try build("binary", one.folder)
        #expect(try build("binary", two.folder).bytes == first.bytes)
        #expect(try build("binary", one.folder).bytes == first.bytes)
        #expect(try Files.names(in: one.folder + "/parts").count == 3)
    }

    @Test func anotherRelightMakesOnlyTheFirstPartAnew() throws {
        let scratch = try Scratch()
        let before = try build("binary", scratch.folder)
        let parts = Set(try Files.names(in: scratch.folder + "/parts"))
        let after = try build("changed", scratch.folder)
        let fresh = Set(try Files.names(in: scratch.folder + "/parts")).subtracting(parts)
        #expect(fresh.count == 1)
        #expect(fresh.first?.hasPrefix("relight-") == true)
        #expect(after.bytes != before.bytes)
    }

    @Test func aFlippedBitInTheCacheIsNotPassedOn() throws {
        let scratch = try Scratch()
        let before = try build("binary", scratch.folder)
        let name = try #require(try Files.names(in: scratch.folder + "/parts").first { $0.hasPrefix("other") })
        var bytes = try Files.bytes(scratch.folder + "/parts/" + name)
        bytes[bytes.count / 2] ^= 1
        try Files.write(bytes, to: scratch.folder + "/parts/" + name)
        #expect(try build("binary", scratch.folder).bytes == before.bytes)
    }

    @Test func theIsoTimeIsInUTC() { #expect(BootImage.isoTime(1_763_202_291) == "2025111510245100") }
}
