// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Glibc
import Testing

@testable import ImageStore

/// Makes golden sets that are not there yet: `RELIGHT_GOLDEN_MAKE=1 swift test --filter GoldenMaking`. Those that are
/// there are never made again.
@Suite(.enabled(if: unsafe getenv("RELIGHT_GOLDEN_MAKE") != nil, "makes files that are made once"))
struct GoldenMaking {
    @Test(arguments: GoldenSet.all) func make(golden: GoldenSet) throws {
        guard unsafe access(golden.file, F_OK) != 0 else { try Test.cancel("\(golden.file) is there, and stays") }
        let scratch = Sample.folder()
        defer { Sample.remove(scratch) }
        switch golden.name {
        case "pruned": try pruned(golden, scratch)
        case "archive": try archive(golden, scratch)
        case "spanned": try spanned(golden, scratch)
        case "unreadable": try unreadable(golden, scratch)
        default: try plain(golden, FolderStore(path: scratch + "/set"))
        }
        let tar = "tar -C '\(scratch)' --sort=name --owner=0 --group=0 --numeric-owner --format=ustar -b 1"
        let what = golden.form == .archive ? "archive.*" : golden.form == .places ? "a b" : "set"
        // Empty folders and the text for people are no part of the format.
        #expect(
            Judge.run("cd '\(scratch)' && find . -type d -empty -delete && \(tar) -cf '\(golden.file)' \(what)") == 0)
    }

    private func options(_ golden: GoldenSet) -> SetWriter.Options {
        var options = SetWriter.Options(compression: .best, unitSize: .kibibytes(64), time: 1_790_000_000)
        switch golden.name {
        case "plain-16k": options.unitSize = .kibibytes(16)
        case "aes256": options.encryption = NewEncryption(.aes256, cost: 12)
        case "aes128": options.encryption = NewEncryption(.aes128, cost: 12)
        case "protected": options.parity = 5
        default: break
        }
        return options
    }

    private func plain(_ golden: GoldenSet, _ store: any ObjectStore) throws {
        for (index, point) in golden.points.enumerated() {
            let writer = try SetWriter(store, options: options(golden), keys: golden.rings[0])
            _ = try point.disk.backup(writer, name: point.name, time: 1_790_000_000 + UInt64(index) * 3600)
        }
        if golden.hasKeyFile {
            _ = try SetKeyring(store, keys: golden.rings[0]).add(
                .keyFile(Secret(GoldenSet.keyFile)), label: "the key file", time: 1_790_000_000, cost: 12)
        }
    }

    /// Three points of which the first was removed and its space reclaimed, so that what the others share with it was
    /// moved.
    private func pruned(_ golden: GoldenSet, _ scratch: String) throws {
        let store = FolderStore(path: scratch + "/set")
        let first = try GoldenDisk(machine: 1, round: 0).backup(
            SetWriter(store, options: options(golden)), name: "removed", time: 1_789_000_000)
        try plain(golden, store)
        let keeper = try SetKeeper(store)
        try keeper.forget(keeper.plan(nil, named: [first]))
        var options = PruneOptions()
        options.garbagePercent = 1
        options.leastGarbage = .zero
        let report = try keeper.prune(options)
        #expect(!report.rewritten.isEmpty)
        #expect(try !store.list("moves").isEmpty)
    }

    /// The first place is full before the second point is done.
    private func spanned(_ golden: GoldenSet, _ scratch: String) throws {
        let first = MemoryStore(name: "a")
        let second = MemoryStore(name: "b")
        let one = GoldenSet(name: golden.name, points: [golden.points[0]])
        try plain(one, SpanStore([first, second]))
        first.capacity = first.objects.values.reduce(0) { $0 + $1.count } + 20_000
        let writer = try SetWriter(SpanStore([first, second]), options: options(golden))
        _ = try golden.points[1].disk.backup(writer, name: golden.points[1].name, time: 1_790_003_600)
        for (place, store) in [("a", first), ("b", second)] {
            #expect(store.objects.keys.contains { $0.hasPrefix("packs/") })
            for (name, bytes) in store.objects where !name.hasPrefix("writers/") {
                let folder = name.split(separator: "/").dropLast().joined(separator: "/")
                #expect(Judge.run("mkdir -p '\(scratch)/\(place)/\(folder)'") == 0)
                try JudgeTests.write(bytes, to: "\(scratch)/\(place)/\(name)")
            }
        }
    }

    /// The second of two points, in parts.
    private func archive(_ golden: GoldenSet, _ scratch: String) throws {
        let store = MemoryStore()
        try plain(GoldenSet(name: golden.name, points: GoldenSet.all[0].points), store)
        var options = PointArchive.Options(time: 1_790_007_200)
        options.partSize = .kibibytes(40)
        options.folder = "set"
        let report = try PointArchive.write(
            SetReader(store).point("latest"), to: scratch + "/archive", options: options)
        #expect(report.files.count > 2)
    }

    /// Unreadable areas, and a section of a type nobody knows that may be skipped.
    private func unreadable(_ golden: GoldenSet, _ scratch: String) throws {
        let store = MemoryStore()
        let writer = try SetWriter(store, options: options(golden))
        let id = try golden.points[0].disk.backup(
            writer, name: golden.points[0].name, time: 1_790_000_000, unreadable: golden.unreadable)
        let old = try #require(store.objects["points/\(id).point"])
        var body = try HostileTests.body(old)
        var section: [UInt8] = []
        section.appendLittleEndian(UInt32(0x0123_4567))
        section.appendLittleEndian(UInt32(0))
        section.appendLittleEndian(UInt64(21))
        body += section + Array("a section of the future".utf8.prefix(21))
        let (name, bytes) = try HostileTests.pointFile(body, like: old)
        store.objects["points/\(id).point"] = nil
        store.objects["copies/points/\(id).point"] = nil
        store.objects[name] = bytes
        store.objects["copies/" + name] = bytes
        for (name, bytes) in store.objects where !name.hasPrefix("writers/") {
            let folder = name.split(separator: "/").dropLast().joined(separator: "/")
            #expect(Judge.run("mkdir -p '\(scratch)/set/\(folder)'") == 0)
            try JudgeTests.write(bytes, to: "\(scratch)/set/\(name)")
        }
    }
}
