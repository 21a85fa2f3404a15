// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import DiskSurvey
import FilesystemMaps
import Findings
import Geometry
import ImageStore
import Imaging
import MachineModel
import Testing
import Tools

private let shell = Tool("sh", package: "dash")
private let debugfs = Tool("debugfs", package: "e2fsprogs")

/// A disk with a filesystem on it that has bad sectors: the files that lost data are told.
@Suite(.enabled(if: debugfs.path != nil && Tool("mke2fs", package: "e2fsprogs").path != nil, "e2fsprogs is needed"))
struct LostFilesTests {
    /// An ext4 of 8 MiB with blocks of 1 KiB, and the blocks of `/etc/letter` in it.
    static func made() throws -> (bytes: [UInt8], blocks: [UInt64]) {
        let folder = try shell.check(["-c", "mktemp -d /tmp/relight-lost-XXXXXX"]).standardOutput.filter { $0 != "\n" }
        defer { _ = try? shell.run(["-c", "rm -rf \"$1\"", "x", folder]) }
        try shell.check(
            [
                "-c",
                """
                set -e; cd "$1"; mkdir -p tree/etc; head -c 20000 /dev/urandom > tree/etc/letter
                head -c 300000 /dev/urandom > tree/etc/other
                truncate -s 8M x.img; mke2fs -q -F -t ext4 -b 1024 -d tree x.img
                """, "x", folder,
            ])
        let blocks = try debugfs.check(["-R", "blocks /etc/letter", "\(folder)/x.img"]).standardOutput
            .split { $0 == " " || $0 == "\n" }.compactMap { UInt64($0) }
        return (try FileSource(path: "\(folder)/x.img").bytes(at: .zero, count: 8 << 20), blocks)
    }

    static func image(_ source: any BlockSource, effort: ReadEffort = ReadEffort()) throws -> PointFacts {
        let survey = try DiskSurvey.look(at: source)
        let store = MemoryStore()
        let writer = try SetWriter(store)
        let findings = try Imager.image(
            [ImagedDisk(source: source, survey: survey)], into: writer, onReadError: .skip, effort: effort,
            events: { _ in })
        let facts = PointFacts(
            name: "", time: 0, tool: "test", machine: MachineFacts(relight: "test"), disks: [survey.model],
            findings: findings)
        let point = try SetReader(store).point(try writer.commit(facts).id)
        #expect(point.facts.findings == findings)
        return point.facts
    }

    private static func block(_ number: UInt64) -> Extent {
        Extent(from: ByteCount(number * 1024), to: ByteCount((number + 1) * 1024))
    }

    @Test func theFileThatLostDataIsNamedInThePoint() throws {
        let (bytes, blocks) = try Self.made()
        let bad = [Self.block(blocks[3]), Self.block(blocks[11])]
        let disk = Flaky(MemoryDisk(bytes, name: "/dev/old"), bad.map { ($0, .always) })
        // The survey, too, reads the disk; what it needs is sound.
        let findings = try Self.image(disk).findings
        #expect(findings.count == 3)
        #expect(
            findings.allSatisfy { $0.code == "source.unreadable" && $0.severity == .loss && $0.place == "/dev/old" })
        #expect(findings.last?.what == "The file /etc/letter lost 2048 bytes.")
        // Looking for names did not try the bad places again.
        let tries = disk.reads.lastIndex { !$0.succeeded } ?? 0
        let looked = disk.reads[(tries + 1)...]
        #expect(looked.count > 5 && looked.allSatisfy { read in !bad.contains { $0.overlaps(read.extent) } })
    }

    @Test func placesGivenUpAreSaid() throws {
        let (bytes, blocks) = try Self.made()
        var effort = ReadEffort()
        effort.totalTime = .zero
        let disk = Flaky(MemoryDisk(bytes, name: "/dev/old"), [(Self.block(blocks[3]), .always)])
        let findings = try Self.image(disk, effort: effort).findings
        #expect(findings.contains { $0.what.contains("were not tried sector by sector") && $0.severity == .loss })
        #expect(findings.contains { $0.what.hasPrefix("The file /etc/letter lost ") })
    }

    @Test func aSoundDiskHasNoFindings() throws {
        let (bytes, blocks) = try Self.made()
        let disk = Flaky(MemoryDisk(bytes, name: "/dev/old"), [(Self.block(blocks[3]), .first(4))])
        #expect(try Self.image(disk).findings.isEmpty)
    }
}
