// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import Testing
import Tools

private let isPossible: Bool =
    Program.path != nil && ["mke2fs", "mkntfs"].allSatisfy { Tool($0, package: "").path != nil }

/// Systems as `relight disks` and `relight show` tell them.
@Suite(.enabled(if: isPossible, "needs the built program, e2fsprogs and ntfs-3g"))
struct SystemsTests {
    private struct Listing: Decodable {
        var systems: [System]
        var disks: [Disk]
        struct Disk: Decodable {
            var systems: [System]?
            var efiPrograms: [Program]?
            var findings: [Finding]?
        }
        struct System: Decodable, Equatable {
            var family: String
            var name: String
            var volume: String
        }
        struct Program: Decodable {}
    }
    private struct Point: Decodable {
        var disks: [Listing.Disk]
    }

    private func disk(_ scratch: Scratch) throws {
        try scratch.sh(
            """
            mkdir -p tree/etc; printf 'ID=seed\nPRETTY_NAME="Seed OS 7"\n' > tree/etc/os-release
            truncate -s 32M disk.img; mke2fs -q -F -t ext4 -d tree disk.img
            """)
    }

    @Test func aSystemIsListedAndKeptByTheRecoveryPoint() throws {
        let scratch = try Scratch()
        try disk(scratch)
        let image = "\(scratch.path)/disk.img"
        let expected = Listing.System(family: "linux", name: "Seed OS 7", volume: image)
        let plain = try Program.run("disks", image)
        #expect(plain.out.contains("system: Seed OS 7 on \(image), no kernel found, no boot loader found"), "\(plain)")
        let listing = try JSONDecoder().decode(
            Listing.self, from: Data(try Program.run("--json", "disks", image).out.utf8))
        #expect(listing.systems == [expected] && listing.disks[0].systems == [expected])
        #expect(listing.disks[0].efiPrograms?.isEmpty == true)
        #expect(try Program.run("backup", image, "--to", "\(scratch.path)/set").status == 0)
        #expect(try Program.run("show", "\(scratch.path)/set").out.contains("system: Seed OS 7 on \(image)"))
        let point = try JSONDecoder().decode(
            Point.self, from: Data(try Program.run("--json", "show", "\(scratch.path)/set").out.utf8))
        #expect(point.disks[0].systems == [expected])
    }

    /// A filesystem whose files cannot be read is shown, with what is wrong and where.
    @Test func aBrokenFilesystemIsAWarningAndNoFailure() throws {
        let scratch = try Scratch()
        // The file records, but for those that tell what it is.
        try scratch.sh(
            """
            truncate -s 16M disk.img; mkntfs -F -Q -q -c 4096 disk.img 2>/dev/null
            dd if=/dev/urandom of=disk.img bs=1024 seek=21 count=3 conv=notrunc status=none
            """)
        let run = try Program.run("disks", "\(scratch.path)/disk.img")
        #expect(run.status == 0 && run.out.contains("ntfs"), "\(run)")
        #expect(
            run.out.contains("warning: \(scratch.path)/disk.img: It cannot be looked into for systems: "), "\(run)")
    }
}
