// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import MachineModel

@testable import ImageStore

extension FuzzTarget {
    /// A whole tiny set in memory: opened, listed, each point read by pieces and here and there, verified both ways.
    ///
    /// Form: for each object its name's length u8, name, length u32, bytes. Objects of a point have the name that its root
    /// hash asks for, whatever the input says, so that changed points are found.
    static let set = FuzzTarget(name: "set", longest: 40_000, seeds: SetSeeds.make, mend: SetSeeds.mend) { input in
        let store = MemoryStore(objects: SetSeeds.unpacked(input))
        guard let reader = try? SetReader(store) else { return }
        guard let listing = try? reader.points() else { return }
        keep(listing.findings.count)
        for summary in listing.points.prefix(3) {
            guard let point = try? reader.point(summary.id) else { continue }
            keep((try? point.missingPacks()) ?? [])
            for stream in point.streams.prefix(4) { read(stream) }
        }
        for depth in [VerifyDepth.quick, .full] {
            guard let report = try? reader.verify(depth, threads: 1) else { continue }
            keep(report.damages.count)
        }
    }

    static func read(_ stream: PointStream) {
        var counted = 0
        if let decoder = try? PieceDecoder(stream.point), let cursor = try? stream.pieces() {
            var end = ByteCount.zero
            while counted < 200, let piece = cursor.next() {
                counted += 1
                promise(piece.extent.start >= end, "pieces rise")
                promise(piece.extent.end <= stream.length, "pieces lie in their stream")
                promise(!piece.used.isEmpty && piece.used.end <= piece.extent.end, "a piece has used bytes")
                end = piece.extent.end
                try? decoder.decode(piece) { bytes in
                    promise(UInt64(bytes.byteCount) == piece.extent.length.bytes, "a piece has its extent's bytes")
                    keep(bytes.isAllZero)
                }
            }
        }
        for offset in [0, stream.length.bytes / 2, stream.length.bytes - min(stream.length.bytes, 20_000)] {
            var buffer = [UInt8](repeating: 1, count: Int(min(20_000, stream.length.bytes - offset)))
            var span = buffer.mutableSpan
            var raw = unsafe span.mutableBytes
            try? stream.read(at: ByteCount(offset), into: &raw)
            keep(buffer.first)
        }
    }
}

enum SetSeeds {
    /// The objects of an input, points under the names their roots ask for.
    static func unpacked(_ input: [UInt8]) -> [String: [UInt8]] {
        var result: [String: [UInt8]] = [:]
        for object in objects(of: input) {
            let bytes = Array(input[object.range])
            var name = object.name
            if name.hasSuffix(".point"), let root = try? unsafe UnitID(bytes.span.bytes, "root", at: 32) {
                let point = ObjectName.point(PointFile.id(root))
                name = name.hasPrefix(ObjectName.copies) ? ObjectName.copy(of: point) : point
            }
            result[name] = bytes
        }
        return result
    }

    private static func objects(of input: [UInt8]) -> [(name: String, range: Range<Int>)] {
        var result: [(name: String, range: Range<Int>)] = []
        var position = 0
        while position < input.count, result.count < 64 {
            let name = position + 1..<position + 1 + Int(input[position])
            guard name.upperBound <= input.count - 4 else { break }
            let start = name.upperBound + 4
            let count = min(Int(input.number(UInt32.self, at: name.upperBound)), input.count - start)
            result.append((String(decoding: input[name], as: UTF8.self), start..<start + count))
            position = start + count
        }
        return result
    }

    /// Checks of headers, records, footers and trailers, and the roots of points whose body is not compressed. What a
    /// record holds keeps its hashes: those must be found wrong.
    static func mend(_ input: inout [UInt8]) {
        guard let hasher = try? Hasher256() else { return }
        for object in objects(of: input) {
            var bytes = Array(input[object.range])
            func seal(_ range: Range<Int>, at place: Int) {
                guard range.upperBound <= bytes.count, place <= bytes.count - 4 else { return }
                bytes.put(CRC32.castagnoli.checksum(Array(bytes[range])), at: place)
            }
            if object.name.hasSuffix(".pack"), bytes.count >= PackHeader.size + PackFooter.trailerSize {
                seal(64..<188, at: 188)
                seal(0..<60, at: 60)
                let tail = bytes.count - PackFooter.trailerSize
                let footer = bytes.number(UInt64.self, at: tail + 8)
                let end = footer <= UInt64(tail) ? Int(footer) : tail
                for offset in stride(from: PackHeader.size, to: max(PackHeader.size, end), by: RecordHeader.alignment)
                where bytes[offset...].starts(with: RecordHeader.magic) {
                    StructureSeeds.mendRecord(&bytes, at: offset)
                }
                for place in stride(
                    from: PackHeader.size, to: max(PackHeader.size, end - ParityHeader.size + 1), by: 16)
                where bytes[place...].starts(with: ParityHeader.magic) { seal(place..<place + 124, at: place + 124) }
                var position = end + PackFooter.fixedSize + 8
                while position < tail, bytes[position...].starts(with: RecordHeader.magic) {
                    StructureSeeds.mendRecord(&bytes, at: position)
                    position += RecordHeader.fixedSize + Int(bytes[position + 7]) * UnitID.size + 8
                }
                if let digest = try? hasher.hash(Array(bytes[end..<tail])) {
                    bytes.replaceSubrange(tail + 24..<tail + 56, with: digest.bytes)
                }
                seal(tail..<tail + 60, at: tail + 60)
            } else if object.name.hasSuffix(".point"), bytes.count > PointFile.headerSize {
                let body = Array(bytes[PointFile.headerSize...])
                if let stored = try? hasher.hash(body) { bytes.replaceSubrange(64..<96, with: stored.bytes) }
                if bytes[10] == StoredID.raw, bytes[11] == 0 {
                    bytes.put(UInt64(body.count), at: 16)
                    bytes.put(UInt64(body.count), at: 24)
                    if let root = try? hasher.hash(body) { bytes.replaceSubrange(32..<64, with: root.bytes) }
                }
                seal(0..<124, at: 124)
                seal(128..<252, at: 252)
            } else if ObjectName.headers.contains(object.name) {
                seal(0..<124, at: 124)
            } else if object.name.hasSuffix(".key") {
                seal(0..<252, at: 252)
                seal(256..<380, at: 380)
            } else if object.name.hasSuffix(".moves"), bytes.count > MovesFile.headerSize {
                StructureSeeds.mendMoves(&bytes)
            }
            input.replaceSubrange(object.range, with: bytes)
        }
    }

    /// A set of 16 KiB units with two small volumes; its point is not compressed.
    static func objects(
        options: SetWriter.Options = .init(unitSize: .kibibytes(16), time: 1_700_000_000), keys: KeyRing = .none,
        lengths: [Int] = [150_000, 40_000]
    ) throws -> [String: [UInt8]] {
        let store = MemoryStore()
        _ = try backup(to: store, options: options, keys: keys, lengths: lengths)
        return try plain(store.objects.filter { $0.key != ObjectName.text })
    }

    /// Stores a volume of each length; the point's id.
    static func backup(
        to store: MemoryStore, options: SetWriter.Options, keys: KeyRing, lengths: [Int]
    ) throws -> String {
        let writer = try SetWriter(store, options: options, keys: keys)
        let worker = try UnitWorker(writer)
        for (index, length) in lengths.enumerated() {
            let stream = try writer.beginStream(
                StreamDescription(
                    disk: 0, kind: .volume(index + 1),
                    extent: Extent(from: .mebibytes(1), to: .mebibytes(1) + ByteCount(UInt64(length))),
                    used: length > 40_000
                        ? ExtentList([
                            Extent(from: .zero, to: ByteCount(30_000)),
                            Extent(from: ByteCount(35_000), to: ByteCount(UInt64(length))),
                        ]) : ExtentList(Extent(from: .zero, to: ByteCount(UInt64(length))))))
            while let piece = stream.nextPiece() {
                let first = Int(piece.extent.start.bytes)
                var bytes = (0..<Int(piece.extent.length.bytes)).map {
                    UInt8(truncatingIfNeeded: (first + $0) / 9000 * 3)
                }
                var span = bytes.mutableSpan
                var raw = unsafe span.mutableBytes
                try worker.add(piece, of: stream, &raw)
            }
            if length > 100_000 { stream.markUnreadable(Extent(from: ByteCount(40_000), to: ByteCount(41_000))) }
        }
        let facts = PointFacts(
            name: "fuzz", time: 1_700_000_000, tool: "fuzz", machine: MachineFacts(relight: "fuzz"),
            disks: [DiskModel(path: "/dev/fuzz", size: .gibibytes(1), sectorSize: .s512)])
        return try writer.commit(facts, readBack: true).id
    }

    /// `objects` with the bodies of points uncompressed, where they can be read.
    static func plain(_ objects: [String: [UInt8]]) throws -> [String: [UInt8]] {
        var result: [String: [UInt8]] = [:]
        for (name, bytes) in objects {
            guard name.hasSuffix(".point") else {
                result[name] = bytes
                continue
            }
            let header = try unsafe PointFile.Header(bytes.span.bytes, fileSize: UInt64(bytes.count))
            guard header.cipher == 0 else {
                result[name] = bytes
                continue
            }
            var plain = Array(bytes.prefix(PointFile.headerSize)) + (try plainBody(bytes, header))
            plain[10] = StoredID.raw
            plain.put(UInt64(header.plainLength), at: 24)
            plain.replaceSubrange(64..<96, with: header.root.bytes)
            plain.put(CRC32.castagnoli.checksum(Array(plain[..<124])), at: 124)
            result[name] = plain
        }
        return result
    }

    /// The body of a point file, decompressed.
    static func plainBody(_ file: [UInt8], _ header: PointFile.Header) throws -> [UInt8] {
        let stored = Array(file[PointFile.headerSize...])
        guard header.compression == StoredID.zstandard else { return stored }
        var body = [UInt8](repeating: 0, count: header.plainLength)
        let decompressor = try Decompressor()
        let sound = unsafe stored.withUnsafeBytes { source in
            unsafe body.withUnsafeMutableBytes { unsafe decompressor.decompress(source, into: $0) }
        }
        promise(sound, "a point just made can be decompressed")
        return body
    }

    @Sendable static func make() throws -> [(name: String, bytes: [UInt8])] {
        let all = try objects()
        let names = all.keys.sorted()
        return [
            ("whole", packed(all, names)),
            ("first-copies", packed(all, names.filter { !$0.hasPrefix("copies/") && $0 != "set.b" })),
        ]
    }

    /// The objects `names` as an input.
    static func packed(_ objects: [String: [UInt8]], _ names: [String]) -> [UInt8] {
        var result: [UInt8] = []
        for name in names {
            let bytes = objects[name] ?? []
            result.append(UInt8(truncatingIfNeeded: name.utf8.count))
            result += name.utf8
            result.appendLittleEndian(UInt32(bytes.count))
            result += bytes
        }
        return result
    }
}
