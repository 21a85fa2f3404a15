// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import DiskSurvey
import FilesystemMaps
import Findings
import Geometry
import Glibc
import ImageStore
import Imaging
import MachineModel
import Synchronization
import Testing

/// A disk of 1 MiB, in use from 64 KiB to 960 KiB, with sectors that cannot be read.
private struct FaultyDisk {
    static let length = 1 << 20
    static let used = ExtentList(Extent(from: .kibibytes(64), to: .kibibytes(960)))
    /// Made once: a loop over a MiB is slow without optimization.
    static let bytes: [UInt8] = {
        var bytes = [UInt8](repeating: 0, count: length)
        var state: UInt64 = 7
        for word in 0..<length / 8 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            for index in 0..<8 { bytes[word * 8 + index] = UInt8(truncatingIfNeeded: state >> (8 * UInt64(index))) }
        }
        return bytes
    }()
    let disk: ImagedDisk
    let store = MemoryStore()

    init(bad: [Extent]) {
        let source = Faulty(MemoryDisk(FaultyDisk.bytes, name: "/dev/old"), bad: ExtentList(bad))
        let whole = Extent(from: .zero, to: source.length)
        var map = VolumeMap(identity: Identity(kind: .unknown), whole: source.length)
        map.used = FaultyDisk.used
        let volume = SurveyedVolume(number: 0, extent: whole, map: map)
        let model = DiskModel(
            path: "/dev/old", size: source.length, sectorSize: .s512, volumes: [volume.model])
        disk = ImagedDisk(
            source: source, survey: SurveyedDisk(model: model, volumes: [volume], remainder: ExtentList()))
    }

    func image(_ policy: ReadErrorPolicy) throws -> (point: RecoveryPoint, findings: [Finding]) {
        let writer = try SetWriter(store)
        let findings: [Finding]
        do {
            findings = try Imager.image([disk], into: writer, onReadError: policy, events: { _ in })
        } catch {
            writer.abandon()
            throw error
        }
        let facts = PointFacts(
            name: "test", time: 0, tool: "test", machine: MachineFacts(relight: "test"), disks: [disk.survey.model],
            findings: findings)
        let summary = try writer.commit(facts)
        return (try SetReader(store).point(summary.id), findings)
    }

    private static func areEqual(_ one: [UInt8], _ other: [UInt8], _ extent: Extent) -> Bool {
        unsafe one.withUnsafeBytes { one in
            unsafe other.withUnsafeBytes { other in
                guard let left = one.baseAddress, let right = other.baseAddress else { return false }
                let start = Int(extent.start.bytes)
                return unsafe memcmp(left + start, right + start, Int(extent.length.bytes)) == 0
            }
        }
    }

    /// Compares everything in use but `bad` with what the point holds; `bad` must be zeros there.
    func expect(_ point: RecoveryPoint, zerosIn bad: ExtentList) throws {
        let stream = try #require(point.streams.first { $0.description.kind == .volume(0) })
        var seen = [UInt8](repeating: 0xFF, count: FaultyDisk.length)
        var span = seen.mutableSpan
        var raw = unsafe span.mutableBytes
        try stream.read(at: .zero, into: &raw)
        let zeros = [UInt8](repeating: 0, count: FaultyDisk.length)
        for extent in FaultyDisk.used.subtracting(bad).extents {
            #expect(FaultyDisk.areEqual(seen, FaultyDisk.bytes, extent))
        }
        for extent in bad.extents {
            #expect(FaultyDisk.areEqual(seen, zeros, extent))
        }
        #expect(stream.unreadable == bad)
    }
}

private func sectors(_ first: UInt64, _ count: UInt64) -> Extent {
    Extent(from: ByteCount(first * 512), to: ByteCount((first + count) * 512))
}

struct ReadErrorTests {
    @Test func failNamesThePlaceAndMakesNoPoint() throws {
        let disk = FaultyDisk(bad: [sectors(1000, 3)])
        #expect {
            try disk.image(.fail)
        } throws: { error in
            guard let fault = error as? Fault else { return false }
            return fault.code == .unreadable && fault.code.exit == .failed && fault.what.contains("\(1000 * 512)")
                && fault.place.contains("/dev/old") && fault.remedy.contains("--on-read-error skip")
        }
        #expect(try SetReader(disk.store).points().points.isEmpty)
    }

    @Test func skipLosesExactlyTheSectorsThatCannotBeRead() throws {
        let bad = [sectors(128, 1), sectors(1000, 3), sectors(1500, 1)]
        let disk = FaultyDisk(bad: bad)
        let (point, findings) = try disk.image(.skip)
        try disk.expect(point, zerosIn: ExtentList(bad))
        #expect(point.summary.unreadable == ByteCount(5 * 512))
        #expect(findings.count == 3)
        #expect(
            findings.allSatisfy { $0.severity == .loss && $0.code == "source.unreadable" && $0.place == "/dev/old" })
        #expect(findings.first?.what.contains("512 bytes at byte 65536") == true)
        #expect(point.facts.findings == findings)
    }

    @Test(arguments: ReadErrorPolicy.allCases) func sectorsNotInUseNeedNotBeReadable(_ policy: ReadErrorPolicy) throws {
        // Before, behind, and right beside what is in use.
        let disk = FaultyDisk(bad: [sectors(0, 4), sectors(127, 1), sectors(1920, 128)])
        let (point, findings) = try disk.image(policy)
        try disk.expect(point, zerosIn: ExtentList())
        #expect(findings.isEmpty)
    }

    @Test func thousandsOfBadSectorsAreSummedUp() throws {
        let bad = stride(from: 200 as UInt64, to: 1800, by: 2).map { sectors($0, 1) }
        let disk = FaultyDisk(bad: bad)
        let (point, findings) = try disk.image(.skip)
        try disk.expect(point, zerosIn: ExtentList(bad))
        #expect(findings.count == 17)
        #expect(findings.last?.what.contains("784 places") == true)
    }

    /// A later point of a disk that reads again shares what was stored and has the missing sectors.
    @Test func theNextPointIsWhole() throws {
        let bad = [sectors(1000, 3)]
        let disk = FaultyDisk(bad: bad)
        _ = try disk.image(.skip)
        var mended = FaultyDisk(bad: []).disk
        mended.survey.model.path = "/dev/old"
        let writer = try SetWriter(disk.store)
        _ = try Imager.image([mended], into: writer, onReadError: .fail, events: { _ in })
        let facts = PointFacts(
            name: "again", time: 1, tool: "test", machine: MachineFacts(relight: "test"), disks: [mended.survey.model])
        let summary = try writer.commit(facts)
        #expect(writer.statistics.new == .kibibytes(64))
        try disk.expect(try SetReader(disk.store).point(summary.id), zerosIn: ExtentList())
    }
}
