// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Glibc
import MachineModel

@testable import ImageStore

extension FuzzTarget {
    /// A tiny encrypted set, as ``set``, opened with its passphrase.
    static let locked = FuzzTarget(name: "locked", longest: 60_000, seeds: StoreSeeds.locked, mend: SetSeeds.mend) {
        input in
        StoreSeeds.use(input, KeyRing(.passphrase(Secret(StoreSeeds.passphrase))), repair: true)
        guard let reader = try? SetReader(locked: MemoryStore(objects: SetSeeds.unpacked(input))) else { return }
        for depth in [VerifyDepth.quick, .stored] {
            guard let report = try? reader.verify(depth, threads: 1) else { continue }
            keep(report.damages.count)
        }
    }

    /// A tiny set with parity, read, verified and repaired.
    static let protected = FuzzTarget(
        name: "protected", longest: 60_000, seeds: StoreSeeds.protected, mend: SetSeeds.mend
    ) { input in StoreSeeds.use(input, .none, repair: true) }

    /// A tiny set with moved records: listed, read, verified, pruned.
    static let moved = FuzzTarget(name: "moved", longest: 60_000, seeds: StoreSeeds.moved, mend: SetSeeds.mend) {
        input in
        StoreSeeds.use(input, .none, repair: false)
        let store = MemoryStore(objects: SetSeeds.unpacked(input))
        guard let keeper = try? SetKeeper(store) else { return }
        var options = PruneOptions()
        options.garbagePercent = 1
        options.leastGarbage = .zero
        options.packSize = .mebibytes(1)
        guard let report = try? keeper.prune(options) else { return }
        keep(report.freed)
    }

    /// A tar file with a set in it, read in place, sound or damaged.
    static let archive = FuzzTarget(
        name: "archive", longest: 60_000, seeds: StoreSeeds.archive, mend: StoreSeeds.mendArchive
    ) { input in
        let path = StoreSeeds.scratch
        guard StoreSeeds.write(input, to: path) else { return }
        defer { unsafe unlink(path) }
        for allowed in [false, true] {
            guard let archive = try? ArchiveStore(path, allowDamage: allowed) else { continue }
            keep(archive.findings.count)
            for object in (try? archive.list(ObjectName.points)) ?? [] {
                promise(object.size.bytes <= UInt64(input.count), "a member lies in its file")
                promise(!object.name.split(separator: "/").contains(".."), "no name leads out of the set")
            }
            guard let reader = try? SetReader(archive), let listing = try? reader.points() else { continue }
            keep(listing.points.count)
            guard let report = try? reader.verify(.full, threads: 1) else { continue }
            keep(report.damages.count)
        }
    }

    /// A catalogue; and as text the names of announcements, marks and other objects.
    static let catalogue = FuzzTarget(
        name: "catalogue", longest: 4_000, isText: true, seeds: StoreSeeds.catalogues, mend: StoreSeeds.mendCatalogue
    ) { input in
        if let catalogue = try? Catalogue(parsing: input) {
            for object in catalogue.objects {
                promise(!object.name.hasPrefix("/") && !object.name.contains(".."), "no name leads out of the set")
            }
            promise((try? catalogue.bytes()) == input, "a catalogue is written as it was read")
        }
        for line in input.split(separator: 10).prefix(40) {
            let name = String(decoding: line, as: UTF8.self)
            if let note = AnnouncementName(name) {
                promise(
                    AnnouncementName(String(note.text.dropFirst(8))) == note,
                    "an announcement's name is written as read")
            }
            for suffix in [".pack", ".point", ".key", ".moves", ".gone"] {
                guard let id = ObjectName.id(name, suffix: suffix) else { continue }
                promise(name.hasSuffix(id.text + suffix), "an object's id is written as read")
            }
        }
    }
}

enum StoreSeeds {
    static let passphrase = Array("fuzz".utf8)
    /// A file of this process.
    static let scratch = "/dev/shm/relight-fuzz-\(getpid()).tar"

    static func write(_ bytes: [UInt8], to path: String) -> Bool {
        let file = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard file >= 0 else { return false }
        defer { close(file) }
        return unsafe bytes.withUnsafeBytes { unsafe Glibc.write(file, $0.baseAddress, $0.count) } == bytes.count
    }

    /// Reads, verifies and repairs the set in `input`.
    static func use(_ input: [UInt8], _ ring: KeyRing, repair: Bool) {
        let objects = SetSeeds.unpacked(input)
        let store = MemoryStore(objects: objects)
        guard let reader = try? SetReader(store, keys: ring), let listing = try? reader.points() else { return }
        for summary in listing.points.prefix(3) {
            guard let point = try? reader.point(summary.id) else { continue }
            for stream in point.streams.prefix(4) { FuzzTarget.read(stream) }
        }
        guard let before = try? reader.verify(.full, threads: 1) else { return }
        keep(before.damages.count)
        guard repair else { return }
        let mender = SetRepair(reader)
        guard let plan = try? mender.plan(), let report = try? mender.apply(plan) else { return }
        keep(report.repaired)
        // Whatever was there and could be restored still can.
        if before.isComplete, let after = try? SetReader(store, keys: ring).verify(.full, threads: 1) {
            promise(after.isComplete, "a repair loses nothing")
        }
    }

    @Sendable static func locked() throws -> [(name: String, bytes: [UInt8])] {
        let objects = try SetSeeds.objects(
            options: .init(
                compression: .off, unitSize: .kibibytes(16), time: 1, encryption: NewEncryption(.aes256, cost: 10)),
            keys: KeyRing(.passphrase(Secret(passphrase))), lengths: [20_000])
        return [("whole", SetSeeds.packed(objects, objects.keys.sorted()))]
    }

    @Sendable static func protected() throws -> [(name: String, bytes: [UInt8])] {
        let objects = try SetSeeds.objects(
            options: .init(unitSize: .kibibytes(16), time: 1, parity: 5), lengths: [60_000])
        let names = objects.keys.sorted()
        return [
            ("whole", SetSeeds.packed(objects, names)),
            ("first-copies", SetSeeds.packed(objects, names.filter { !$0.hasPrefix("copies/") && $0 != "set.b" })),
        ]
    }

    /// Two points that share units; the first was removed and its space reclaimed.
    @Sendable static func moved() throws -> [(name: String, bytes: [UInt8])] {
        let store = MemoryStore()
        let options = SetWriter.Options(unitSize: .kibibytes(16), time: 1)
        let first = try SetSeeds.backup(to: store, options: options, keys: .none, lengths: [700_000])
        _ = try SetSeeds.backup(to: store, options: options, keys: .none, lengths: [80_000, 10_000])
        let keeper = try SetKeeper(store)
        try keeper.forget(keeper.plan(nil, named: [first]))
        var pruning = PruneOptions()
        pruning.garbagePercent = 1
        pruning.leastGarbage = .zero
        pruning.packSize = .mebibytes(1)
        _ = try keeper.prune(pruning)
        let objects = try SetSeeds.plain(store.objects.filter { $0.key != ObjectName.text })
        let names = objects.keys.sorted()
        promise(names.contains { $0.hasPrefix("moves/") }, "records were moved")
        return [("whole", SetSeeds.packed(objects, names))]
    }

    @Sendable static func archive() throws -> [(name: String, bytes: [UInt8])] {
        let objects = try SetSeeds.objects()
        let folder = "/dev/shm/relight-fuzz-\(getpid())-seed"
        _ = unsafe mkdir(folder, 0o700)
        defer {
            unsafe unlink(folder + "/archive")
            unsafe rmdir(folder)
        }
        let writer = try ArchiveWriter(folder + "/archive", folder: "set", time: 1)
        for name in objects.keys.sorted() { try writer.add(name, objects[name] ?? []) }
        try writer.finish()
        return [("whole", SeedFolder.content(folder + "/archive") ?? [])]
    }

    /// The checksums of what look like headers; what is inside keeps its own.
    @Sendable static func mendArchive(_ input: inout [UInt8]) {
        for start in stride(from: 0, through: input.count - 512, by: 512)
        where input[start + 257..<start + 262].elementsEqual("ustar".utf8) {
            var sum = 8 * 32
            for place in start..<start + 512 where !(start + 148..<start + 156).contains(place) {
                sum += Int(input[place])
            }
            let digits = String(sum, radix: 8)
            let text = String(repeating: "0", count: max(0, 6 - digits.count)) + digits
            input.replaceSubrange(start + 148..<start + 156, with: Array(text.utf8.prefix(6)) + [0, 32])
        }
    }

    @Sendable static func catalogues() throws -> [(name: String, bytes: [UInt8])] {
        let store = MemoryStore(objects: try SetSeeds.objects())
        let id = String(repeating: "0123456789abcdef", count: 2)
        let names = [
            "\(id)-w-0123456789abcdef.writer", "\(id)-p-0123456789abcdef.writer", "gone/\(id).gone",
            "packs/01/\(id).pack", "moves/\(id).moves",
        ]
        return [
            ("whole", try Catalogue(of: store).bytes()), ("names", Array(names.joined(separator: "\n").utf8)),
        ]
    }

    /// The hash in the last line.
    @Sendable static func mendCatalogue(_ input: inout [UInt8]) {
        guard input.count > 72, let hash = try? Hasher256().hash(Array(input.dropLast(72))) else { return }
        input.replaceSubrange((input.count - 72)..., with: Array("sha256 \(hash.text)\n".utf8))
    }
}
