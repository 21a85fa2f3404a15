// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings

/// Where a record begins: what a hint says without the record's size, which never changes.
struct RecordStart: Hashable, Sendable {
    var pack: ObjectID
    /// A multiple of 16.
    var offset: Int
}

/// Where records went when their packs were removed; see `docs/image-format.md`, section 11.3. Says nothing about
/// content and is never encrypted.
struct MovesFile: Hashable, Sendable {
    /// A record that moved. 12 bytes.
    struct Entry: Hashable, Sendable, BitwiseCopyable {
        /// Offset before / 16.
        var old: UInt32
        /// Index of the pack it lies in now.
        var pack: UInt32
        /// Offset now / 16.
        var new: UInt32
    }
    /// The records that lay in one pack.
    struct Group: Hashable, Sendable {
        /// Index of the pack.
        var pack: UInt32
        /// Its records in ``MovesFile/entries``, in the order of their old offsets.
        var range: Range<Int>
    }
    /// Every pack that is named, rising.
    private(set) var packs: [ObjectID]
    /// One for each pack records left, rising.
    private(set) var groups: [Group]
    private(set) var entries: [Entry]

    static let magic = Array("RLGTMOVE".utf8)
    static let headerSize = 256
    /// Longest body believed, compressed or not.
    static let maximumBody = 64 << 20
    /// Most records in one object.
    static let maximumEntries = 1 << 22
    /// Record offsets / 16 are below this; none is below ``firstOffset``.
    static let offsetLimit: UInt64 = 1 << 28
    static let firstOffset = UInt64(PackHeader.size / RecordHeader.alignment)

    /// A record that moved, with packs by their numbers in a list of the caller. 16 bytes.
    struct Move: Hashable, Sendable, BitwiseCopyable, Comparable {
        var oldPack: UInt32
        var old: UInt32
        var newPack: UInt32
        var new: UInt32

        static func < (left: Move, right: Move) -> Bool {
            (left.oldPack, left.old, left.newPack, left.new) < (right.oldPack, right.old, right.newPack, right.new)
        }
    }

    /// A table of `moves`, at most ``maximumEntries``, each old place once. The numbers in them count `names`.
    init(_ moves: some Sequence<Move>, names: [ObjectID]) {
        var sorted = Array(moves)
        var used: Set<UInt32> = []
        for move in sorted {
            used.insert(move.oldPack)
            used.insert(move.newPack)
        }
        let numbers = used.sorted { names[Int($0)] < names[Int($1)] }
        var places: [UInt32: UInt32] = [:]
        for (place, number) in numbers.enumerated() { places[number] = UInt32(place) }
        for index in sorted.indices {
            sorted[index].oldPack = places[sorted[index].oldPack] ?? 0
            sorted[index].newPack = places[sorted[index].newPack] ?? 0
        }
        sorted.sort()
        packs = numbers.map { names[Int($0)] }
        groups = []
        entries = []
        for move in sorted {
            if groups.last?.pack != move.oldPack {
                groups.append(Group(pack: move.oldPack, range: entries.count..<entries.count))
            } else if entries.last?.old == move.old {
                continue
            }
            entries.append(Entry(old: move.old, pack: move.newPack, new: move.new))
            groups[groups.count - 1].range = groups[groups.count - 1].range.lowerBound..<entries.count
        }
    }

    /// Where the record that lay at `start` lies now; `nil` when the table does not say.
    func target(of start: RecordStart) -> RecordStart? {
        guard let group = group(start.pack), start.offset >= 0, start.offset % RecordHeader.alignment == 0,
            let old = UInt32(exactly: start.offset / RecordHeader.alignment)
        else { return nil }
        var low = group.range.lowerBound
        var high = group.range.upperBound
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].old < old { low = middle + 1 } else { high = middle }
        }
        guard low < group.range.upperBound, entries[low].old == old else { return nil }
        let entry = entries[low]
        return RecordStart(pack: packs[Int(entry.pack)], offset: Int(entry.new) * RecordHeader.alignment)
    }

    /// The packs that records of `pack` went to.
    func targets(of pack: ObjectID) -> Set<ObjectID> {
        guard let group = group(pack) else { return [] }
        return Set(Set(entries[group.range].map(\.pack)).map { packs[Int($0)] })
    }

    private func group(_ pack: ObjectID) -> Group? {
        var low = 0
        var high = groups.count
        while low < high {
            let middle = (low + high) / 2
            if packs[Int(groups[middle].pack)] < pack { low = middle + 1 } else { high = middle }
        }
        guard low < groups.count, packs[Int(groups[low].pack)] == pack else { return nil }
        return groups[low]
    }

    // MARK: - Bytes

    private var body: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(16 + packs.count * 17 + entries.count * 7)
        result.appendVarint(UInt64(packs.count))
        for pack in packs { result += pack.bytes }
        result.appendVarint(UInt64(groups.count))
        for group in groups {
            result.appendVarint(UInt64(group.pack))
            result.appendVarint(UInt64(group.range.count))
            var last: UInt32 = 0
            for entry in entries[group.range] {
                result.appendVarint(UInt64(entry.old - last))
                result.appendVarint(UInt64(entry.pack))
                result.appendVarint(UInt64(entry.new))
                last = entry.old
            }
        }
        return result
    }

    /// The object's bytes under the name `id`.
    func bytes(_ set: SetHeader, id: ObjectID) throws(Fault) -> [UInt8] {
        let body = self.body
        let compressor = try Compressor(.level(3))
        var packed = [UInt8](repeating: 0, count: body.count)
        let smaller: Int? = unsafe body.withUnsafeBytes { source in
            unsafe packed.withUnsafeMutableBytes { target in
                unsafe compressor.compress(source, into: UnsafeMutableRawBufferPointer(rebasing: target.dropLast(1)))
            }
        }
        let stored = smaller.map { Array(packed[..<$0]) } ?? body
        var header = MovesFile.magic
        header.appendLittleEndian(SetHeader.version)
        header += [smaller == nil ? StoredID.raw : StoredID.zstandard, 0]
        header.appendLittleEndian(UInt32(MovesFile.headerSize))
        header.appendLittleEndian(UInt64(body.count))
        header.appendLittleEndian(UInt64(stored.count))
        header += id.bytes
        header += [UInt8](repeating: 0, count: 16)
        try Hasher256().hash(stored).append(to: &header)
        header += [UInt8](repeating: 0, count: 28)
        header.appendLittleEndian(CRC32.castagnoli.checksum(header))
        return header + set.bytes + stored
    }

    /// What an object says about itself before its body is read.
    struct Header: Hashable, Sendable {
        var set: SetHeader
        var id: ObjectID
        var compression: UInt8
        var plainLength: Int
        var storedLength: Int
        var stored: UnitID

        init(_ span: RawSpan, fileSize: UInt64) throws(FieldError) {
            guard span.matches(MovesFile.magic, at: 0), span.byteCount >= MovesFile.headerSize else {
                throw .invalid(field: "magic", at: 0, seen: "something else", expected: "RLGTMOVE")
            }
            let check = try span.littleEndian(UInt32.self, "check", at: 124)
            guard check == CRC32.castagnoli.checksum(span.extracting(0..<124)) else {
                throw .invalid(field: "check", at: 124, seen: Hex.number(check), expected: "the check of the header")
            }
            let version = try span.littleEndian(UInt16.self, "version", at: 8)
            let compression = try span.littleEndian(UInt8.self, "compression", at: 10)
            let plain = try span.littleEndian(UInt64.self, "plain length", at: 16)
            let stored = try span.littleEndian(UInt64.self, "stored length", at: 24)
            guard version == SetHeader.version, compression <= StoredID.zstandard, plain >= 1,
                plain <= UInt64(MovesFile.maximumBody), stored >= 1,
                compression == StoredID.zstandard ? stored < plain : stored == plain,
                fileSize == UInt64(MovesFile.headerSize) + stored
            else {
                throw .invalid(
                    field: "version, compression, lengths", at: 8,
                    seen: "\(version), \(compression), \(plain), \(stored) in a file of \(fileSize) bytes",
                    expected: "version 1 and lengths that fit the file")
            }
            self.compression = compression
            self.plainLength = Int(plain)
            self.storedLength = Int(stored)
            self.id = try ObjectID(span, "moves id", at: 32)
            self.stored = try UnitID(span, "hash of the stored body", at: 64)
            self.set = try SetHeader(span.extracting(128..<MovesFile.headerSize))
        }
    }

    /// Reads a plain body.
    init(body: [UInt8]) throws(FieldError) {
        var cursor = FieldCursor(body)
        let count = try cursor.varint("number of packs")
        guard count <= UInt64(cursor.remaining / ObjectID.size) else {
            throw .invalid(field: "number of packs", at: 0, seen: "\(count)", expected: "as many as the body holds")
        }
        var packs: [ObjectID] = []
        packs.reserveCapacity(Int(count))
        for _ in 0..<count {
            let place = cursor.position
            let pack = try cursor.objectID("pack")
            if let last = packs.last, last >= pack {
                throw .invalid(field: "pack", at: place, seen: pack.text, expected: "packs in rising order")
            }
            packs.append(pack)
        }
        let all = try cursor.varint("number of groups")
        guard all <= count else {
            throw .invalid(field: "number of groups", at: cursor.position, seen: "\(all)", expected: "at most \(count)")
        }
        var groups: [Group] = []
        var entries: [Entry] = []
        groups.reserveCapacity(Int(all))
        // Once: to reserve in each group would copy all that came before, each time.
        entries.reserveCapacity(min(MovesFile.maximumEntries, cursor.remaining / 3))
        for _ in 0..<all {
            let place = cursor.position
            let pack = try cursor.varint("old pack")
            let records = try cursor.varint("number of records")
            // Each record takes three bytes at least.
            guard pack < count, groups.last.map({ UInt64($0.pack) < pack }) ?? true, records >= 1,
                records <= UInt64(max(0, cursor.remaining)) / 3,
                records <= UInt64(MovesFile.maximumEntries - entries.count)
            else {
                throw .invalid(
                    field: "old pack, number of records", at: place, seen: "\(pack), \(records)",
                    expected: "packs in rising order and as many records as the body holds")
            }
            let start = entries.count
            var old: UInt64 = 0
            for index in 0..<records {
                let place = cursor.position
                let gap = try cursor.varint("old offset")
                let target = try cursor.varint("new pack")
                let new = try cursor.varint("new offset")
                guard gap >= (index == 0 ? MovesFile.firstOffset : 1), gap < MovesFile.offsetLimit,
                    old + gap < MovesFile.offsetLimit, target < count, target != pack,
                    new >= MovesFile.firstOffset, new < MovesFile.offsetLimit
                else {
                    throw .invalid(
                        field: "record", at: place, seen: "gap \(gap), pack \(target), offset \(new)",
                        expected: "offsets inside of packs, in rising order, and another pack")
                }
                old += gap
                entries.append(Entry(old: UInt32(old), pack: UInt32(target), new: UInt32(new)))
            }
            groups.append(Group(pack: UInt32(pack), range: start..<entries.count))
        }
        guard cursor.remaining == 0 else {
            throw .invalid(
                field: "moves", at: cursor.position, seen: "\(cursor.remaining) more bytes", expected: "its end")
        }
        self.packs = packs
        self.groups = groups
        self.entries = entries
    }
}
