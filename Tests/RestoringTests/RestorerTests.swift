// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import DiskSurvey
import Findings
import Geometry
import Glibc
import ImageStore
import Imaging
import MachineModel
import PartitionTables
import RestorePlanning
import Synchronization
import Testing
import Tools

@testable import Restoring

/// Two disks imaged into memory, one with a GPT and one without a table, and files to restore them to.
private final class Bench: Sendable {
    let folder: String
    let point: RecoveryPoint
    static let size = ByteCount.mebibytes(8)
    /// Made once; removed when the tests end.
    private static let shared = Result { try Bench() }
    private static let removal: Void = {
        atexit {
            if case .success(let bench) = Bench.shared {
                _ = try? Tool("rm", package: "coreutils").run(["-rf", bench.folder])
            }
        }
    }()
    private let counter = Atomic<Int>(0)

    static func get() throws -> Bench {
        _ = removal
        return try shared.get()
    }

    static var isPossible: Bool { Tool("sfdisk", package: "fdisk").path != nil }

    private init() throws {
        var template = Array("/tmp/relight-restoring-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw Fault(.system, what: "no scratch folder", remedy: "") }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        // Random content is not recognised, and so imaged whole.
        try Tool("bash", package: "bash").check(
            [
                "-c",
                """
                set -e; cd "$1"
                head -c 8388608 /dev/urandom > table.img; head -c 8388608 /dev/urandom > plain.img
                printf 'label: gpt\\nstart=2048, size=4096\\nstart=8192, size=4096\\n' | sfdisk -q --wipe=never table.img
                """, "sh", folder,
            ])
        let store = MemoryStore()
        let writer = try SetWriter(store)
        var disks: [ImagedDisk] = []
        for name in ["table.img", "plain.img"] {
            let source = try FileSource(path: "\(folder)/\(name)")
            disks.append(ImagedDisk(source: source, survey: try DiskSurvey.look(at: source)))
        }
        _ = try Imager.image(disks, into: writer, onReadError: .fail, events: { _ in })
        let facts = PointFacts(
            name: "test", time: 0, tool: "test", machine: MachineFacts(relight: "test"),
            disks: disks.map(\.survey.model))
        point = try SetReader(store).point(try writer.commit(facts).id)
    }

    /// A file of the disks' size full of a pattern.
    func target(_ name: String) throws -> String {
        let path = "\(folder)/\(name)-\(counter.add(1, ordering: .relaxed).newValue)"
        try Tool("bash", package: "bash").check([
            "-c", "head -c 8388608 /dev/zero | tr '\\0' '\\245' > \"$1\"", "sh", path,
        ])
        return path
    }

    func plan(_ targets: [(Int, String)]) throws -> RestorePlan {
        try Planner.plan(
            Planner.Request(
                set: "memory", point: point.summary.id,
                assignments: targets.map { index, path in
                    Planner.Assignment(
                        sourceIndex: index, source: point.facts.disks[index],
                        target: Planner.Target(pin: TargetPin(path: path, size: Bench.size, sectorSize: .s512)))
                }))
    }

    func restorer(readBack: ReadBack = .full, _ layer: @escaping @Sendable (FileTarget) -> any BlockTarget = { $0 })
        -> Restorer
    {
        var restorer = Restorer(source: PointSource(point), readBack: readBack, events: { _ in })
        restorer.layer = layer
        return restorer
    }

    func sha256(_ path: String) throws -> String {
        try Tool("sha256sum", package: "coreutils").check([path]).standardOutput.split(separator: " ").first.map(
            String.init)
            ?? ""
    }

    /// Whether `count` bytes from byte `start` of two files are the same.
    func areEqual(_ one: String, _ other: String, from start: Int = 0, count: Int) throws -> Bool {
        try Tool("cmp", package: "diffutils").run(["-s", "-i", "\(start)", "-n", "\(count)", one, other]).status == 0
    }
}

/// What a ``Liar`` does to one of the writes.
private enum Lie: Sendable {
    case flipsABit, swallows, none
}

/// A disk that does something else with the write at or after a place, and remembers where it was written.
private final class Liar: BlockTarget {
    let base: FileTarget
    let lie: Lie
    let place: ByteCount
    let writes = Mutex<[Extent]>([])

    init(_ base: FileTarget, _ lie: Lie, from place: ByteCount) {
        (self.base, self.lie, self.place) = (base, lie, place)
    }

    var name: String { base.name }
    var sectorSize: SectorSize { base.sectorSize }
    var length: ByteCount { base.length }
    var file: FileWindow? { base.file }
    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try base.read(at: offset, into: &buffer)
    }
    func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
        let extent = Extent(from: offset, to: offset + ByteCount(UInt64(bytes.byteCount)))
        writes.withLock { $0.append(extent) }
        guard lie != .none, place >= extent.start, place < extent.end else { return try base.write(at: offset, bytes) }
        guard lie == .flipsABit else { return }
        var copy = unsafe bytes.withUnsafeBytes { unsafe Array($0) }
        copy[Int((place - extent.start).bytes)] ^= 0x10
        try base.write(at: offset, unsafe copy.span.bytes)
    }
    func zero(_ extent: Extent) throws(Fault) {
        writes.withLock { $0.append(extent) }
        try base.zero(extent)
    }
    func discard(_ extent: Extent) throws(Fault) { try base.discard(extent) }
    func flush() throws(Fault) { try base.flush() }
    func dropCaches() throws(Fault) { try base.dropCaches() }
}

@Suite(.enabled(if: Bench.isPossible, "needs sfdisk"))
struct RestorerTests {
    private let bench: Bench
    init() throws { bench = try Bench.get() }

    private func expectReadBack(_ run: () throws -> Void, _ path: String) throws {
        #expect {
            try run()
        } throws: { error in
            guard let fault = error as? Fault else { return false }
            return fault.code == .readBack && fault.code.exit == .damaged && fault.place == path
                && fault.what.contains("not finished") && fault.remedy.contains("cable")
        }
    }

    @Test func bothDisksComeBackEqual() throws {
        let (table, plain) = (try bench.target("a"), try bench.target("b"))
        let reports = try bench.restorer().run(try bench.plan([(0, table), (1, plain)]))
        #expect(reports.map(\.target) == [table, plain])
        #expect(try bench.sha256(plain) == bench.sha256("\(bench.folder)/plain.img"))
        for range in [2048 * 512..<6144 * 512, 8192 * 512..<12288 * 512, 34 * 512..<2048 * 512, 0..<440] {
            let from = range.lowerBound
            #expect(try bench.areEqual(table, "\(bench.folder)/table.img", from: from, count: range.count))
        }
    }

    @Test(arguments: [1 << 20, 3_000_000, 6_000_000]) func aFlippedBitIsFound(_ place: UInt64) throws {
        let path = try bench.target("t")
        let run = bench.restorer { Liar($0, .flipsABit, from: ByteCount(place)) }
        try expectReadBack({ _ = try run.run(try bench.plan([(0, path)])) }, path)
        // Nothing that could be taken for a table was left.
        #expect(try TableReader.read(try FileSource(path: path)).table == nil)
    }

    @Test(arguments: [0, 5000, (1 << 20) - 1, 1 << 20, 8_388_607])
    func aSwallowedWriteIsFound(_ place: UInt64) throws {
        let path = try bench.target("t")
        let run = bench.restorer { Liar($0, .swallows, from: ByteCount(place)) }
        try expectReadBack({ _ = try run.run(try bench.plan([(1, path)])) }, path)
        #expect(
            try bench.areEqual(path, "/dev/zero", count: 1 << 20), "the first MiB of a failed restore is not empty"
        )
    }

    @Test func aSwallowedTableIsFound() throws {
        let path = try bench.target("t")
        let run = bench.restorer { Liar($0, .swallows, from: ByteCount(512)) }
        #expect {
            try run.run(try bench.plan([(0, path)]))
        } throws: {
            ($0 as? Fault)?.code == .readBack
        }
        #expect(try TableReader.read(try FileSource(path: path)).table == nil)
    }

    @Test func withoutReadBackNothingIsClaimed() throws {
        let path = try bench.target("t")
        let run = bench.restorer(readBack: .off) { Liar($0, .flipsABit, from: .mebibytes(5)) }
        let reports = try run.run(try bench.plan([(1, path)]))
        #expect(reports.first?.volumes.first?.compared == .zero)
    }

    @Test(arguments: [0, 1]) func whatMakesTheDiskReadableIsWrittenLast(_ index: Int) throws {
        let path = try bench.target("t")
        let layers = Mutex<[Liar]>([])
        let run = bench.restorer { target in
            let layer = Liar(target, .none, from: .zero)
            layers.withLock { $0.append(layer) }
            return layer
        }
        _ = try run.run(try bench.plan([(index, path)]))
        let writes = try #require(layers.withLock { $0.first }).writes.withLock { $0 }
        let head = Extent(from: .zero, to: .mebibytes(1))
        let first = try #require(writes.first)
        #expect(first == head, "the first write takes the old table away")
        if index == 0 {
            // Sector 0 is touched by that write and by the last one only.
            let sector = Extent(from: .zero, to: ByteCount(512))
            #expect(writes.indices.filter { writes[$0].overlaps(sector) }.count == 2)
            #expect(writes.last?.overlaps(sector) == true)
        } else {
            #expect(writes.dropLast().allSatisfy { $0 == head || !$0.overlaps(head) })
            #expect(writes.last == head)
        }
    }

    /// Whatever is wrong with any target, none is written to.
    @Test(arguments: ["stream", "pin", "missing", "length", "overlap"])
    func allIsCheckedBeforeTheFirstWrite(_ what: String) throws {
        let (first, second) = (try bench.target("a"), try bench.target("b"))
        var plan = try bench.plan([(1, first), (0, second)])
        switch what {
        case "stream": plan.disks[1].sourceIndex = 7
        case "pin": plan.disks[1].target.size = .mebibytes(9)
        case "missing": plan.disks[1].target.path = "\(bench.folder)/missing"
        case "length": plan.disks[1].volumes[0].source = Extent(from: .zero, to: .mebibytes(1))
        default: plan.disks[1].volumes[1].target = plan.disks[1].volumes[0].target
        }
        let before = try bench.sha256(first)
        #expect {
            try bench.restorer().run(plan)
        } throws: { error in
            guard let code = (error as? Fault)?.code else { return false }
            return [.planRefused, .targetChanged, .missing].contains(code)
        }
        #expect(try bench.sha256(first) == before)
        #expect(try bench.sha256(second) == before)
    }
}
