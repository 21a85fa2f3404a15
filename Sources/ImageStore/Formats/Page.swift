// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// Where a record lies.
struct RecordPlace: Hashable, Sendable {
    /// The pack's name.
    var pack: ObjectID
    /// Offset of the record in the pack; a multiple of 16.
    var offset: Int
    /// Size of the record with head and padding.
    var length: Int

    /// The same record at another place.
    func moved(to start: RecordStart) -> RecordPlace {
        RecordPlace(pack: start.pack, offset: start.offset, length: length)
    }
}

/// Consecutive units of a stream that lie consecutively in one frame.
struct PageRun: Hashable, Sendable {
    /// First unit, counted from the page's start.
    var first: Int
    /// The units' ids.
    var ids: [UnitID]
    /// The frame.
    var place: RecordPlace
    /// The first unit's place in the frame.
    var firstInFrame: Int
}

/// The stored units of 512 consecutive units of a stream; see `docs/image-format.md`, section 6.
enum Page {
    /// The payload for a page of `units` units with `runs`, which are in order and do not overlap.
    static func bytes(units: Int, runs: [PageRun]) -> [UInt8] {
        var packs: [ObjectID] = []
        for run in runs where !packs.contains(run.place.pack) { packs.append(run.place.pack) }
        var result: [UInt8] = []
        result.reserveCapacity(64 + units * UnitID.size)
        result.appendVarint(UInt64(units))
        result.appendVarint(UInt64(packs.count))
        for pack in packs { result += pack.bytes }
        var position = 0
        for run in runs {
            if run.first > position { result.appendVarint(UInt64(run.first - position) << 1) }
            result.appendVarint(UInt64(run.ids.count) << 1 | 1)
            result.appendVarint(UInt64(packs.firstIndex(of: run.place.pack) ?? 0))
            result.appendVarint(UInt64(run.place.offset / RecordHeader.alignment))
            result.appendVarint(UInt64(run.place.length / RecordHeader.alignment))
            result.append(UInt8(truncatingIfNeeded: run.firstInFrame))
            for id in run.ids { id.append(to: &result) }
            position = run.first + run.ids.count
        }
        if position < units { result.appendVarint(UInt64(units - position) << 1) }
        return result
    }

    /// Reads a page that must cover `units` units.
    static func runs(_ bytes: [UInt8], units: Int, frameUnits: Int) throws(FieldError) -> [PageRun] {
        var cursor = FieldCursor(bytes)
        let covered = try cursor.varint("units")
        let count = try cursor.varint("number of packs")
        guard covered == UInt64(units), count <= UInt64(units) else {
            throw .invalid(
                field: "units, number of packs", at: 0, seen: "\(covered), \(count)",
                expected: "\(units), at most \(units)")
        }
        var packs: [ObjectID] = []
        for _ in 0..<count { packs.append(try cursor.objectID("pack")) }
        var result: [PageRun] = []
        var position = 0
        var afterGap = false
        while position < units {
            let place = cursor.position
            let word = try cursor.varint("run")
            let length = Int(word >> 1)
            guard length >= 1, length <= units - position else {
                throw .invalid(field: "run", at: place, seen: "\(length) units", expected: "1 to \(units - position)")
            }
            if word & 1 == 0 {
                guard !afterGap else {
                    throw .invalid(field: "run", at: place, seen: "a second gap", expected: "stored units")
                }
                afterGap = true
                position += length
                continue
            }
            afterGap = false
            let pack = try cursor.varint("pack index")
            let offset = try cursor.varint("record offset")
            let size = try cursor.varint("record length")
            let first = Int(try cursor.integer(UInt8.self, "first unit in frame"))
            guard pack < UInt64(packs.count), offset < 1 << 28, size >= 1,
                size <= UInt64(RecordHeader.maximumSize / RecordHeader.alignment), length + first <= frameUnits
            else {
                throw .invalid(
                    field: "run", at: place, seen: "pack \(pack), offset \(offset), length \(size), unit \(first)",
                    expected: "a frame of one of \(packs.count) packs")
            }
            var ids: [UnitID] = []
            ids.reserveCapacity(length)
            for _ in 0..<length { ids.append(try cursor.id("unit id")) }
            result.append(
                PageRun(
                    first: position, ids: ids,
                    place: RecordPlace(
                        pack: packs[Int(pack)], offset: Int(offset) * RecordHeader.alignment,
                        length: Int(size) * RecordHeader.alignment), firstInFrame: first))
            position += length
        }
        guard cursor.remaining == 0 else {
            throw .invalid(
                field: "page", at: cursor.position, seen: "\(cursor.remaining) more bytes", expected: "its end")
        }
        return result
    }
}
