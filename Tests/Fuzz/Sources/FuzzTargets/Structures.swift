// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import MachineModel

@testable import ImageStore

extension FuzzTarget {
    /// The fixed structures of an image set. The input's first byte says which; the second's lowest bit is the unit size.
    static let structures = FuzzTarget(
        name: "structures", longest: 20_000, seeds: StructureSeeds.make, mend: StructureSeeds.mend
    ) { input in
        guard input.count >= 2 else { return }
        let bytes = Array(input.dropFirst(2))
        let unit = input[1] & 1 == 0 ? 65_536 : 16_384
        let span = unsafe bytes.span.bytes
        switch input[0] % 16 {
        case 0:
            guard let header = try? SetHeader(span) else { return }
            keep(header.forbidsWriting)
            promise(SetHeader.claim(span) == .known, "a header that can be read is known")
            promise(
                (try? unsafe SetHeader(header.bytes.span.bytes)) == header, "a set header is written as it was read")
        case 1:
            guard let header = try? PackHeader(span) else { return }
            promise(
                (try? unsafe PackHeader(header.bytes.span.bytes)) == header, "a pack header is written as it was read")
        case 2:
            guard let record = try? RecordHeader(span, at: 0, unitSize: unit) else { return }
            promise(record.totalSize <= RecordHeader.maximumSize, "a record has a largest size")
            promise(record.totalSize % RecordHeader.alignment == 0, "records are aligned")
            for index in record.ids.indices where record.kind == .frame {
                let range = record.unitRange(index, unitSize: unit)
                promise(!range.isEmpty && range.upperBound <= record.plainLength, "units lie in their frame")
            }
            promise(
                (try? unsafe RecordHeader(record.bytes.span.bytes, at: 0, unitSize: unit)) == record,
                "a record is written as it was read")
        case 3:
            guard bytes.count >= PackFooter.trailerSize else { return }
            // A pack of which only footer and trailer are there, at the place the trailer says.
            let tail = Array(bytes.suffix(PackFooter.trailerSize))
            let footer = Array(bytes.dropLast(PackFooter.trailerSize))
            let size = tail.number(UInt64.self, at: 8).addingReportingOverflow(UInt64(bytes.count))
            guard !size.overflow,
                let trailer = try? unsafe PackFooter.Trailer(tail.span.bytes, packSize: size.partialValue)
            else { return }
            guard let read = try? unsafe PackFooter(footer.span.bytes, trailer: trailer, unitSize: unit) else { return }
            var end = PackHeader.size
            for entry in read.entries {
                promise(entry.offset == end, "records follow each other")
                end += entry.record.totalSize
            }
            promise(end == read.recordsEnd && end <= read.offset, "records end before the footer")
        case 4:
            let units = Int(input[1] >> 1) * 4 + 4
            guard let runs = try? Page.runs(bytes, units: units, frameUnits: SetHeader.frameSize / unit) else { return }
            var end = 0
            for run in runs {
                promise(run.first >= end && !run.ids.isEmpty, "runs are in order")
                end = run.first + run.ids.count
            }
            promise(end <= units, "runs lie in their page")
            let again = Page.bytes(units: units, runs: runs)
            promise(
                (try? Page.runs(again, units: units, frameUnits: SetHeader.frameSize / unit)) == runs,
                "a page is written as it was read")
        case 6:
            guard let slot = try? KeySlot(span) else { return }
            promise(slot.cost.memory <= 1 << 30 && slot.cost.p <= 16, "no key derivation is without bounds")
            promise(slot.label.utf8.count <= 3 * KeySlot.labelSize, "a label is short")
        case 7:
            keep(try? MovesFile.Header(span, fileSize: UInt64(bytes.count)))
            guard let moves = try? MovesFile(body: Array(bytes.dropFirst(MovesFile.headerSize))) else { return }
            var records = 0
            for group in moves.groups {
                for entry in moves.entries[group.range] {
                    let start = RecordStart(
                        pack: moves.packs[Int(group.pack)], offset: Int(entry.old) * RecordHeader.alignment)
                    promise(
                        moves.target(of: start)?.pack == moves.packs[Int(entry.pack)], "a record that moved is found")
                    records += 1
                }
                promise(!moves.targets(of: moves.packs[Int(group.pack)]).isEmpty, "a pack's records went somewhere")
            }
            promise(records == moves.entries.count, "every record is in a group")
            let names = moves.packs
            let again = MovesFile(
                moves.groups.flatMap { group in
                    moves.entries[group.range].map {
                        MovesFile.Move(oldPack: group.pack, old: $0.old, newPack: $0.pack, new: $0.new)
                    }
                }, names: names)
            promise(again.entries.count == moves.entries.count, "moves are written as they were read")
        default:
            var cursor = FieldCursor(bytes)
            guard let list = try? RunList.read(&cursor, limit: ByteCount(1 << 60), "runs") else { return }
            var again: [UInt8] = []
            RunList.append(list, to: &again)
            var second = FieldCursor(again)
            promise((try? RunList.read(&second, limit: ByteCount(1 << 60), "runs")) == list, "runs are written as read")
        }
    }

    /// The body of a recovery point, its hash taken as right.
    static let point = FuzzTarget(name: "point", longest: 20_000, isText: true, seeds: StructureSeeds.points) { input in
        let set = SetHeader(id: ObjectID(high: 1, low: 2), created: 3, unitSize: 65_536)
        guard let file = try? PointFile(body: input, set: set) else { return }
        keep(file.number)
        for stream in file.streams {
            promise(file.facts.disks.indices.contains(stream.description.disk), "a stream is of a disk there is")
            promise(stream.description.used.end <= stream.description.length, "used bytes lie in their stream")
            promise(stream.unreadable.end <= stream.description.length, "unreadable bytes lie in their stream")
            for (left, right) in zip(stream.pages, stream.pages.dropFirst()) {
                promise(left.number < right.number, "pages rise")
            }
        }
        let summary = file.summary(ObjectID(high: 1, low: 2))
        keep(summary)
        Planning.check(file.facts.disks)
    }
}

enum StructureSeeds {
    /// The CRC-32C of whatever structure the input holds.
    static func mend(_ input: inout [UInt8]) {
        guard input.count >= 2 else { return }
        var bytes = Array(input.dropFirst(2))
        func seal(_ range: Range<Int>, at place: Int) {
            guard range.upperBound <= bytes.count, place <= bytes.count - 4 else { return }
            bytes.put(CRC32.castagnoli.checksum(Array(bytes[range])), at: place)
        }
        switch input[0] % 16 {
        case 0: seal(0..<124, at: 124)
        case 1:
            seal(0..<60, at: 60)
            seal(64..<188, at: 188)
        case 2: mendRecord(&bytes, at: 0)
        case 3:
            // Entries lie behind the footer's head, each after its offset.
            var position = PackFooter.fixedSize + 8
            while position < bytes.count - PackFooter.trailerSize,
                bytes[position...].starts(with: RecordHeader.magic)
            {
                mendRecord(&bytes, at: position)
                position += RecordHeader.fixedSize + Int(bytes[position + 7]) * UnitID.size + 8
            }
            let tail = bytes.count - PackFooter.trailerSize
            if tail >= 0 { seal(tail..<tail + 60, at: tail + 60) }
        case 6:
            seal(0..<252, at: 252)
            seal(256..<380, at: 380)
        case 7:
            seal(0..<124, at: 124)
            seal(128..<252, at: 252)
        default: return
        }
        input.replaceSubrange(2..., with: bytes)
    }

    /// The checks of a moves object's header.
    static func mendMoves(_ bytes: inout [UInt8]) {
        if let hash = try? Hasher256().hash(Array(bytes.dropFirst(MovesFile.headerSize))) {
            bytes.replaceSubrange(64..<96, with: hash.bytes)
        }
        bytes.put(CRC32.castagnoli.checksum(Array(bytes[0..<124])), at: 124)
        bytes.put(CRC32.castagnoli.checksum(Array(bytes[128..<252])), at: 252)
    }

    /// The check of the record head at `offset`.
    static func mendRecord(_ bytes: inout [UInt8], at offset: Int) {
        guard offset <= bytes.count - RecordHeader.fixedSize else { return }
        let ids = Int(bytes[offset + 7]) * UnitID.size
        let end = offset + RecordHeader.fixedSize + ids
        guard end <= bytes.count else { return }
        let covered = Array(bytes[offset..<offset + 44]) + bytes[offset + RecordHeader.fixedSize..<end]
        bytes.put(CRC32.castagnoli.checksum(covered), at: offset + 44)
    }

    @Sendable static func make() throws -> [(name: String, bytes: [UInt8])] {
        let objects = try SetSeeds.objects()
        guard let header = objects["set.a"] else { return [] }
        var result: [(name: String, bytes: [UInt8])] = [("set-header", [0, 1] + header)]
        for (name, bytes) in objects.sorted(by: { $0.key < $1.key }) where name.hasSuffix(".pack") {
            if name.hasPrefix("copies/") { continue }
            let kind = bytes[10] == PackHeader.Kind.data.rawValue ? "data" : "lists"
            result.append(("pack-header-\(kind)", [1, 1] + bytes.prefix(PackHeader.size)))
            let record = try unsafe RecordHeader(bytes.span.bytes, at: PackHeader.size, unitSize: 16_384)
            result.append(("record-\(kind)", [2, 1] + bytes[PackHeader.size..<PackHeader.size + record.headSize]))
            let footer = Int(bytes.number(UInt64.self, at: bytes.count - 56))
            result.append(("footer-\(kind)", [3, 1] + bytes[footer...]))
        }
        let run = PageRun(
            first: 1, ids: [UnitID(a: 1, b: 2, c: 3, d: 4), UnitID(a: 5, b: 6, c: 7, d: 8)],
            place: RecordPlace(pack: ObjectID(high: 1, low: 2), offset: 192, length: 4096), firstInFrame: 1)
        result.append(("page", [4, 3] + Page.bytes(units: 8, runs: [run])))
        var runs: [UInt8] = []
        RunList.append(
            ExtentList([
                Extent(from: ByteCount(5), to: ByteCount(1000)), Extent(from: ByteCount(5000), to: ByteCount(9000)),
            ]), to: &runs)
        result.append(("runs", [5, 0] + runs))
        let locked = SetHeader(id: ObjectID(high: 1, low: 2), created: 3, unitSize: 16_384, cipher: StoredID.aes256)
        let slot = try KeySlot(
            Secret([UInt8](repeating: 5, count: 32)), for: .passphrase(Secret([6])), label: "fuzz", created: 4,
            cost: .init(logN: 10, r: 8, p: 1), set: locked)
        result.append(("key-slot", [6, 0] + slot.bytes))
        result.append(("moves", [7, 0] + (try moves())))
        return result
    }

    /// A table of moves whose body is not compressed.
    private static func moves() throws -> [UInt8] {
        let set = SetHeader(id: ObjectID(high: 1, low: 2), created: 3, unitSize: 65_536)
        // Ids that do not compress.
        let names = (1...3).map {
            ObjectID(high: $0 &* 0x9E37_79B9_7F4A_7C15, low: $0 &* 0xD134_2543_DE82_EF95)
        }
        let file = MovesFile(
            [
                MovesFile.Move(oldPack: 0, old: 12, newPack: 2, new: 12),
                MovesFile.Move(oldPack: 0, old: 400, newPack: 1, new: 77),
                MovesFile.Move(oldPack: 1, old: 77, newPack: 2, new: 123_456),
            ], names: names)
        let bytes = try file.bytes(set, id: ObjectID(high: 8, low: 9))
        promise(bytes[10] == StoredID.raw, "the seed's body is not compressed")
        return bytes
    }

    /// Bodies of two points: one of a set, one with a partition table.
    @Sendable static func points() throws -> [(name: String, bytes: [UInt8])] {
        let set = SetHeader(id: ObjectID(high: 1, low: 2), created: 3, unitSize: 65_536)
        let pack = ObjectID(high: 5, low: 6)
        let stream = StoredStream(
            description: StreamDescription(
                disk: 0, kind: .volume(1), extent: Extent(from: .mebibytes(1), to: .mebibytes(101)),
                used: ExtentList(Extent(from: .zero, to: .mebibytes(50)))),
            unreadable: ExtentList(Extent(from: .mebibytes(1), to: .mebibytes(2))),
            pages: [
                (
                    0,
                    PageReference(
                        hash: UnitID(a: 1, b: 2, c: 3, d: 4), place: RecordPlace(pack: pack, offset: 192, length: 4096))
                )
            ])
        let file = PointFile(
            set: set, number: 1,
            facts: PointFacts(
                name: "fuzz", time: 1_700_000_000, tool: "fuzz", machine: MachineFacts(relight: "fuzz"),
                disks: [Planning.gpt]),
            packs: [PackReference(id: pack, size: 1 << 20, footer: UnitID(a: 9, b: 9, c: 9, d: 9))], streams: [stream])
        let sealed = try file.sealed(
            Hasher256(), RecordSealer(set, nil, WriteSession(), .standard)
        ).bytes
        let header = try unsafe PointFile.Header(sealed.span.bytes, fileSize: UInt64(sealed.count))
        return [("gpt", try SetSeeds.plainBody(sealed, header))]
    }
}
