// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import ImageStore
import Testing

/// Sets of format 1 that were made once are read for ever, by this program and by the independent reader.
@Suite(.enabled(if: GoldenSet.canUnpack, "needs tar")) struct GoldenTests {
    @Test(arguments: GoldenSet.all) func aSetMadeOnceIsReadForEver(golden: GoldenSet) throws {
        let scratch = Sample.folder()
        defer { Sample.remove(scratch) }
        let store = try golden.unpack(scratch)
        for ring in golden.rings {
            let reader = try SetReader(store, keys: ring)
            let listing = try reader.points()
            #expect(listing.points.map(\.facts.name) == golden.points.map(\.name))
            #expect(listing.findings.isEmpty, "\(listing.findings)")
            let report = try reader.verify(.full, threads: 1)
            #expect(report.isSound && report.content.bytes > 0, "\(report.damages)")
            for (summary, expected) in zip(listing.points, golden.points) {
                let point = try reader.point(summary.id)
                #expect(try Self.disk(point) == golden.expected(expected), "\(expected.name)")
                #expect(
                    point.streams.flatMap(\.unreadable.extents) == golden.unreadable, "\(expected.name)")
            }
        }
        if golden.passphrase != nil {
            let fault = #expect(throws: Fault.self) { try SetReader(store) }
            #expect(fault?.code == .keyNeeded)
        }
    }

    /// The disk of a point as a restore would write it on zeros.
    static func disk(_ point: RecoveryPoint) throws -> [UInt8] {
        var result = [UInt8](repeating: 0, count: GoldenDisk.size)
        for stream in point.streams {
            let bytes = try Sample.restore(stream)
            for extent in stream.description.used.extents {
                let start = Int((stream.description.extent.start + extent.start).bytes)
                result.replaceSubrange(start..<start + Int(extent.length.bytes), with: bytes[Sample.range(extent)])
            }
        }
        return result
    }

    @Test(
        .enabled(if: Judge.canRun, "needs python3, and zstandard, libzstd.so.1 or zstd"), arguments: GoldenSet.all)
    func theIndependentReaderReadsIt(golden: GoldenSet) throws {
        if golden.passphrase != nil, !Judge.canDecrypt { try Test.cancel("needs Python's module cryptography") }
        let scratch = Sample.folder()
        defer { Sample.remove(scratch) }
        _ = try golden.unpack(scratch)
        // The reader knows folders: places of a set are laid over each other, the parts of an archive joined and unpacked.
        switch golden.form {
        case .folder: break
        case .places: #expect(Judge.run("cd '\(scratch)' && cp -r a set && cp -r b/. set") == 0)
        case .archive:
            #expect(Judge.run("cd '\(scratch)' && mkdir x && cat archive.??? | tar -C x -xf - && mv x/* set") == 0)
        }
        var keys = [""]
        if let passphrase = golden.passphrase {
            try JudgeTests.write(Array(passphrase.utf8) + [10], to: scratch + "/passphrase")
            keys = ["--passphrase-file '\(scratch)/passphrase'"]
        }
        if golden.hasKeyFile {
            try JudgeTests.write(GoldenSet.keyFile, to: scratch + "/key")
            keys.append("--key-file '\(scratch)/key'")
        }
        #expect(Judge.run("/usr/bin/python3 '\(Judge.script)' check '\(scratch)/set'") == 0)
        let reader = try SetReader(FolderStore(path: scratch + "/set"), keys: golden.rings[0])
        let points = try reader.points().points
        #expect(points.count == golden.points.count)
        for (summary, point) in zip(points, golden.points) {
            for key in keys {
                let out = "\(scratch)/out"
                #expect(Judge.run("mkdir -p '\(out)'") == 0)
                #expect(
                    Judge.run(
                        "/usr/bin/python3 '\(Judge.script)' \(key) restore '\(scratch)/set' \(summary.id) '\(out)'")
                        == 0)
                #expect(try JudgeTests.file(out + "/disk0.img") == golden.expected(point), "\(point.name)")
            }
        }
    }

    @Test func theGoldenSetsAreSmall() throws {
        var all = 0
        for golden in GoldenSet.all {
            let size = try JudgeTests.file(golden.file).count
            #expect(size > 10_000 && size <= 280_000, "\(golden.name): \(size)")
            all += size
        }
        #expect(all <= 3 << 19)
    }
}
