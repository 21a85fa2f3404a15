// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import TestSupport
import Testing

@testable import ImageStore

/// Sets with very many units, made of footers: the units' content is not looked at when a set is opened for writing.
///
/// With `RELIGHT_SCALE_SET=FOLDER` a set of `RELIGHT_SCALE_UNITS` units (5 million) is left in that folder, to measure a
/// whole process with.
@Suite struct ManyUnitsTests {
    static func fabricate(_ units: Int, in store: any ObjectStore) throws {
        var options = SetWriter.Options(unitSize: .kibibytes(16))
        options.packSize = .gibibytes(1)
        let writer = try SetWriter(store, options: options)
        let hasher = try Hasher256()
        var random = Seeded(4)
        let payload = [UInt8](repeating: 1, count: 160)
        for _ in 0..<units / 16 {
            let ids = (0..<16).map { _ in
                UnitID(a: random.next(), b: random.next(), c: random.next(), d: random.next())
            }
            let record = RecordHeader(
                kind: .frame, compression: StoredID.zstandard, plainLength: 262_144, storedLength: payload.count,
                ids: ids)
            try unsafe payload.withUnsafeBytes { _ = try unsafe writer.data.append(record, $0, hasher: hasher) }
        }
        writer.abandon()
    }

    @Test func footersStaySmallAndTheTableTakesWhatItShould() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let store = FolderStore(path: folder)
        let units = 640_000
        try Self.fabricate(units, in: store)
        let set = try SetReader(store).set
        var listed = 0
        let packs = try store.list("packs")
        // One pack would hold them all, but its footer would be of 22 MiB.
        #expect(packs.count == 2)
        for pack in packs {
            let handle = try #require(try store.open(pack.name))
            let structure = try PackStructure.scan(
                handle, name: pack.name, id: #require(ObjectName.id(pack.name, suffix: ".pack")), set: set,
                hasher: Hasher256()
            ) { listed += $1.ids.count }
            #expect(
                handle.size.bytes - UInt64(structure.footer.offset)
                    <= UInt64(PackFooter.largestWritten + PackFooter.trailerSize))
        }
        #expect(listed == units)
        let writer = try SetWriter(store)
        #expect(writer.index.count == units && !writer.index.isFull)
        #expect(writer.index.memory <= units * 16 * 5 / 4 * 3 / 2 + (1 << 20))
    }

    @Test(.enabled(if: unsafe getenv("RELIGHT_SCALE_SET") != nil, "only to measure with"))
    func leaveASetToMeasureWith() throws {
        let folder = unsafe String(cString: try #require(getenv("RELIGHT_SCALE_SET")))
        let units = unsafe getenv("RELIGHT_SCALE_UNITS").flatMap { unsafe Int(String(cString: $0)) } ?? 5_000_000
        try Self.fabricate(units, in: FolderStore(path: folder))
    }
}
