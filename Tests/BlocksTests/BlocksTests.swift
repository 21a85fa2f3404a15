// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import Testing

/// A file in the temporary folder that goes away with the test.
final class TemporaryFile {
    let path: String
    init(_ bytes: [UInt8]) throws {
        path = "/tmp/relight-test-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let descriptor = unsafe open(path, O_CREAT | O_RDWR | O_EXCL, 0o600)
        try #require(descriptor >= 0)
        _ = unsafe write(descriptor, bytes, bytes.count)
        close(descriptor)
    }
    deinit { _ = unsafe unlink(path) }
}

@Suite struct BlockTests {
    let pattern = (0..<8192).map { UInt8(truncatingIfNeeded: $0 / 3) }

    func read(_ source: any BlockSource, _ offset: UInt64, _ count: Int) throws -> [UInt8] {
        try source.bytes(at: ByteCount(offset), count: count)
    }

    @Test func readsAFileAtAnyOffset() throws {
        let file = try TemporaryFile(pattern)
        let source = try FileSource(path: file.path)
        #expect(source.length == ByteCount(8192))
        #expect(try read(source, 1001, 77) == Array(pattern[1001..<1078]))
        #expect(throws: Fault.self) { try read(source, 8190, 3) }
        #expect(throws: Fault.self) { try read(source, .max, 1) }
    }

    @Test func refusesWhatIsNoDisk() throws {
        #expect { try FileSource(path: "/tmp") } throws: { ($0 as? Fault)?.code == .wrongKind }
        #expect { try FileSource(path: "/dev/null") } throws: { ($0 as? Fault)?.code == .wrongKind }
        #expect { try FileSource(path: "/no/such/disk") } throws: { ($0 as? Fault)?.code == .missing }
        let odd = try TemporaryFile([1, 2, 3])
        #expect { try FileSource(path: odd.path) } throws: { ($0 as? Fault)?.code == .wrongKind }
    }

    @Test func writesOnlyThroughAClaimedDisk() throws {
        let file = try TemporaryFile(pattern)
        let disk = try WritableDisk(claiming: file.path)
        try unsafe disk.blocks.write(at: ByteCount(100), ([1, 2, 3] as [UInt8]).span.bytes)
        try disk.blocks.zero(Extent(from: ByteCount(4096), to: ByteCount(8192)))
        try disk.finish()
        let source = try FileSource(path: file.path)
        #expect(try read(source, 99, 5) == [pattern[99], 1, 2, 3, pattern[103]])
        #expect(try read(source, 4096, 4096).allSatisfy { $0 == 0 })
        #expect(source.length == ByteCount(8192))
    }

    @Test func aWindowEndsWhereItShould() throws {
        let disk = MemoryDisk(pattern)
        let window = try Window(disk, Extent(from: ByteCount(512), to: ByteCount(1024)), name: "part")
        #expect(try read(window, 0, 512) == Array(pattern[512..<1024]))
        #expect(throws: Fault.self) { try read(window, 1, 512) }
        #expect(throws: Fault.self) { try Window(disk, Extent(from: .zero, to: ByteCount(8193)), name: "long") }
    }

    @Test func aBadSectorIsNamedByItsExtent() throws {
        let disk = Faulty(MemoryDisk(pattern), bad: ExtentList(Extent(from: ByteCount(1024), to: ByteCount(1536))))
        #expect(try read(disk, 0, 1024).count == 1024)
        #expect { try read(disk, 512, 2048) } throws: { error in
            (error as? Fault)?.code == .unreadable && (error as? Fault)?.extent?.start == ByteCount(1024)
        }
    }
}
