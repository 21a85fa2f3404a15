// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import ImageStore
import MachineModel
import TestSupport

/// Volumes and sets made for tests.
enum Sample {
    /// `count` bytes: a mixture of zeros, text-like and random stretches, the same for the same seed.
    static func content(_ count: Int, seed: UInt64) -> [UInt8] {
        var random = Seeded(seed)
        var result: [UInt8] = []
        result.reserveCapacity(count + 65_536)
        while result.count < count {
            let stretch = Int.random(in: 1...40_000, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0: result += [UInt8](repeating: 0, count: stretch)
            case 1: for _ in 0..<stretch { result.append(UInt8.random(in: 0...255, using: &random)) }
            default:
                let words = (0..<8).map { _ in UInt8.random(in: 97...122, using: &random) }
                for index in 0..<stretch { result.append(words[(index / 3 + index * index) % 8]) }
            }
        }
        return Array(result[..<count])
    }

    static func facts(_ name: String, disks: Int = 1, time: UInt64 = 1_700_000_000) -> PointFacts {
        PointFacts(
            name: name, time: time, tool: "test", machine: MachineFacts(relight: "test"),
            disks: (0..<disks).map { DiskModel(path: "/dev/test\($0)", size: .gibibytes(1), sectorSize: .s512) })
    }

    static func stream(_ length: Int, disk: Int = 0, number: Int = 1, used: ExtentList? = nil) -> StreamDescription {
        let extent = Extent(from: .mebibytes(1), to: .mebibytes(1) + ByteCount(UInt64(length)))
        return StreamDescription(
            disk: disk, kind: .volume(number), extent: extent,
            used: used ?? ExtentList(Extent(from: .zero, to: ByteCount(UInt64(length)))))
    }

    /// Stores `volumes` as one point of the set in `store`.
    @discardableResult
    static func backup(
        _ volumes: [(content: [UInt8], used: ExtentList?)], to store: any ObjectStore, name: String = "sample",
        options: SetWriter.Options = .init(), keys: KeyRing = .none, readBack: Bool = true, unreadable: [Extent] = []
    ) throws -> (PointSummary, SetWriter.Statistics) {
        let writer = try SetWriter(store, options: options, keys: keys)
        try fill(writer, volumes, unreadable: unreadable)
        let point = try writer.commit(facts(name), readBack: readBack)
        return (point, writer.statistics)
    }

    /// Gives `volumes` to `writer`.
    static func fill(
        _ writer: SetWriter, _ volumes: [(content: [UInt8], used: ExtentList?)], unreadable: [Extent] = []
    ) throws {
        let worker = try UnitWorker(writer)
        for (number, volume) in volumes.enumerated() {
            let stream = try writer.beginStream(
                Sample.stream(volume.content.count, number: number + 1, used: volume.used))
            while let piece = stream.nextPiece() {
                var bytes = Array(volume.content[Sample.range(piece.extent)])
                var span = bytes.mutableSpan
                var raw = unsafe span.mutableBytes
                try worker.add(piece, of: stream, &raw)
            }
            for extent in unreadable { stream.markUnreadable(extent) }
        }
    }

    static func range(_ extent: Extent) -> Range<Int> { Int(extent.start.bytes)..<Int(extent.end.bytes) }

    /// What a stream must read as: its content with unused bytes zero.
    static func masked(_ content: [UInt8], _ used: ExtentList?) -> [UInt8] {
        guard let used else { return content }
        var result = [UInt8](repeating: 0, count: content.count)
        for extent in used.extents { result.replaceSubrange(range(extent), with: content[range(extent)]) }
        return result
    }

    /// All of a stream by the sequential path.
    static func restore(_ stream: PointStream) throws(Fault) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: Int(stream.length.bytes))
        let decoder = try PieceDecoder(stream.point)
        let cursor = try stream.pieces()
        while let piece = cursor.next() {
            try decoder.decode(piece) { bytes in
                let copy = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
                result.replaceSubrange(range(piece.extent), with: copy)
            }
        }
        return result
    }

    /// All of a stream by random reads of `step` bytes.
    static func restoreRandomly(_ stream: PointStream, step: Int) throws(Fault) -> [UInt8] {
        var result: [UInt8] = []
        let length = Int(stream.length.bytes)
        while result.count < length {
            var bytes = [UInt8](repeating: 7, count: min(step, length - result.count))
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try stream.read(at: ByteCount(UInt64(result.count)), into: &raw)
            result += bytes
        }
        return result
    }

    /// A fresh folder below the system's place for temporary files.
    static func folder() -> String {
        var random = SystemRandomNumberGenerator()
        let base = unsafe getenv("TMPDIR").map { unsafe String(cString: $0) } ?? "/tmp"
        let path = "\(base)/relight-test-\(String(random.next() as UInt64, radix: 16))"
        _ = unsafe mkdir(path, 0o755)
        return path
    }

    static func remove(_ folder: String) {
        guard let stream = unsafe opendir(folder) else { return }
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) {
                unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name == "." || name == ".." { continue }
            if unsafe unlink("\(folder)/\(name)") != 0 { remove("\(folder)/\(name)") }
        }
        unsafe closedir(stream)
        _ = unsafe rmdir(folder)
    }
}
