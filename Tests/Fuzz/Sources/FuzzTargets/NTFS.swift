// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel

@testable import FilesystemMaps

extension FuzzTarget {
    /// NTFS: boot sectors, file records, runs, attribute lists, the log's restart pages, the root directory's index.
    static let ntfs = FuzzTarget(name: "ntfs", longest: 40_000, seeds: NTFSSeeds.make, mend: NTFSSeeds.mend) { input in
        let disk = SparseDisk(input, limit: .mebibytes(64))
        guard let map = try? NTFSReader.map(disk, Identity(kind: .ntfs, usage: .filesystem)) else { return }
        check(map, on: disk)
        guard map.wholeBecause == nil else { return }
        promise(map.used.covers(Extent(from: .zero, to: ByteCount(512))), "the boot sector is used")
        promise(map.used.contains(disk.length - ByteCount(1)), "the last sector is used")
        promise(map.states == [.clean] || map.states == [.damaged], "no other state has a map")
    }
}

/// Tiny volumes, made here byte by byte: mkntfs cannot spread $Bitmap over several records.
enum NTFSSeeds {
    static let cluster = 512
    static let record = 1024
    /// First cluster of $MFT, of its second run, of $MFTMirr.
    private static let table: UInt64 = 8
    private static let tableRest: UInt64 = 64
    private static let mirror: UInt64 = 1024
    private static let log: UInt64 = 100
    private static let index: UInt64 = 200

    /// Puts the ends of the pieces of file records and index blocks right, and copies the first records to the mirror.
    static func mend(_ input: inout [UInt8]) {
        var disk = SparseEditor(input)
        guard let boot = try? NTFSBootSector(parsing: disk.bytes(0, 512)), boot.recordSize <= 4096 else { return }
        let size = UInt64(boot.recordSize)
        let cluster = boot.clusterSize.bytes
        let places =
            (0..<16).map { boot.mft * cluster + $0 * size } + (0..<16).map { tableRest * 512 + $0 * size }
            + [index * 512, log * 512, log * 512 + 4096]
        for place in places {
            var bytes = disk.bytes(place, 4096)
            let at = Int(bytes.number(UInt16.self, at: 4))
            let count = Int(bytes.number(UInt16.self, at: 6))
            guard [0x454C_4946, 0x5844_4E49, 0x5254_5352].contains(bytes.number(UInt32.self, at: 0)),
                (2...9).contains(count)
            else { continue }
            for end in 1..<count { bytes.put(bytes.number(UInt16.self, at: at), at: end * 512 - 2) }
            disk.store(place, Array(bytes.prefix((count - 1) * 512)))
        }
        disk.store(boot.mirror * cluster, disk.bytes(boot.mft * cluster, Int(4 * size)))
        input = disk.input
    }

    // MARK: - Building

    private static func little(_ value: UInt64, _ width: Int) -> [UInt8] {
        (0..<width).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
    }

    private static func wide(_ text: String) -> [UInt8] { text.utf16.flatMap { little(UInt64($0), 2) } }

    /// An attribute whose value lies in the record.
    private static func attribute(_ type: UInt64, _ name: String = "", instance: UInt64, value: [UInt8]) -> [UInt8] {
        let offset = (24 + 2 * name.utf16.count + 7) / 8 * 8
        let length = (offset + value.count + 7) / 8 * 8
        var bytes = little(type, 4) + little(UInt64(length), 4) + [0, UInt8(name.utf16.count)] + little(24, 2)
        bytes +=
            little(0, 2) + little(instance, 2) + little(UInt64(value.count), 4) + little(UInt64(offset), 2) + [0, 0]
        bytes += wide(name)
        bytes += [UInt8](repeating: 0, count: offset - bytes.count) + value
        return bytes + [UInt8](repeating: 0, count: length - bytes.count)
    }

    /// A run: where (`nil`: nowhere) and how many clusters.
    typealias Run = (lcn: UInt64?, count: UInt64)

    /// An attribute whose value lies in clusters, from cluster `first` of the stream; `size` is the stream's.
    private static func attribute(
        _ type: UInt64, _ name: String = "", instance: UInt64, first: UInt64 = 0, size: UInt64, runs: [Run]
    ) -> [UInt8] {
        var pairs: [UInt8] = []
        var last: UInt64 = 0
        for run in runs {
            pairs += [run.lcn == nil ? 0x04 : 0x44] + little(run.count, 4)
            if let lcn = run.lcn {
                pairs += little(lcn &- last, 4)
                last = lcn
            }
        }
        let count = runs.reduce(0) { $0 + $1.count }
        let offset = (64 + 2 * name.utf16.count + 7) / 8 * 8
        let length = (offset + pairs.count + 1 + 7) / 8 * 8
        var bytes = little(type, 4) + little(UInt64(length), 4) + [1, UInt8(name.utf16.count)] + little(64, 2)
        bytes += little(0, 2) + little(instance, 2) + little(first, 8) + little(first + count &- 1, 8)
        bytes += little(UInt64(offset), 2) + [UInt8](repeating: 0, count: 6)
        bytes += little((size + 511) / 512 * 512, 8) + little(size, 8) + little(size, 8)
        bytes += wide(name)
        bytes += [UInt8](repeating: 0, count: offset - bytes.count) + pairs
        return bytes + [UInt8](repeating: 0, count: length - bytes.count)
    }

    /// A structure of whole pieces, with its update sequence at `at`.
    private static func torn(_ bytes: [UInt8], at: Int) -> [UInt8] {
        var bytes = bytes
        let pieces = bytes.count / 512
        bytes.put(UInt16(at), at: 4)
        bytes.put(UInt16(pieces + 1), at: 6)
        bytes.put(UInt16(7), at: at)
        for end in 1...pieces {
            bytes.put(bytes.number(UInt16.self, at: end * 512 - 2), at: at + 2 * end)
            bytes.put(UInt16(7), at: end * 512 - 2)
        }
        return bytes
    }

    /// A file record.
    private static func file(base: UInt64 = 0, _ attributes: [[UInt8]]) -> [UInt8] {
        let body = attributes.joined() + little(0xFFFF_FFFF, 8)
        var bytes = Array("FILE".utf8) + little(0, 12) + little(1, 2) + little(1, 2) + little(56, 2) + little(1, 2)
        bytes += little(UInt64(56 + body.count), 4) + little(1024, 4) + little(base == 0 ? 0 : base | 1 << 48, 8)
        bytes += [UInt8](repeating: 0, count: 56 - bytes.count) + body
        return torn(bytes + [UInt8](repeating: 0, count: record - bytes.count), at: 48)
    }

    /// An entry of an attribute list, 32 bytes.
    private static func listed(_ type: UInt64, first: UInt64, record: UInt64, instance: UInt64) -> [UInt8] {
        little(type, 4) + little(32, 2) + [0, 26] + little(first, 8) + little(record | 1 << 48, 8)
            + little(instance, 2) + little(0, 6)
    }

    /// An entry of a directory.
    private static func entry(_ name: String, record: UInt64) -> [UInt8] {
        let key = little(5, 8) + [UInt8](repeating: 0, count: 56) + [UInt8(name.utf16.count), 1] + wide(name)
        let length = (16 + key.count + 7) / 8 * 8
        let bytes =
            little(record | 1 << 48, 8) + little(UInt64(length), 2) + little(UInt64(key.count), 2) + little(0, 4) + key
        return bytes + [UInt8](repeating: 0, count: length - bytes.count)
    }
    private static let lastEntry: [UInt8] = little(0, 8) + little(16, 2) + little(0, 2) + little(2, 4)

    private static func restartPage(_ lsn: UInt64, clean: Bool) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: 4096)
        page.replaceSubrange(0..<4, with: "RSTR".utf8)
        page.replaceSubrange(
            16..<30, with: little(4096, 4) + little(4096, 4) + little(48, 2) + little(1, 2) + little(1, 2))
        page.replaceSubrange(
            48..<64, with: little(lsn, 8) + little(1, 2) + little(0xFFFF, 2) + little(0, 2) + little(clean ? 2 : 0, 2))
        return torn(page, at: 30)
    }

    /// What a volume has besides the plain.
    struct Kind: OptionSet, Sendable {
        let rawValue: Int
        /// $Bitmap's runs lie in two records of their own.
        static let spilled = Kind(rawValue: 1)
        /// $MFT has a second run, known from a record in the first.
        static let fragmented = Kind(rawValue: 2)
        /// The root directory has an index block that names a hiberfil.sys.
        static let hibernation = Kind(rawValue: 4)
        static let badClusters = Kind(rawValue: 8)
        static let dirty = Kind(rawValue: 16)
    }

    /// A volume of 8192 clusters of 512 bytes, of which the bitmap has two clusters.
    static func volume(_ kind: Kind) -> [UInt8] {
        let clusters: UInt64 = 8192
        var disk = [UInt8](repeating: 0, count: Int(clusters + 1) * 512)
        func put(_ bytes: [UInt8], _ lcn: UInt64) {
            disk.replaceSubrange(Int(lcn) * 512..<Int(lcn) * 512 + bytes.count, with: bytes)
        }
        var boot: [UInt8] = [0xEB, 0x52, 0x90] + Array("NTFS    ".utf8) + little(512, 2) + [1]
        boot += [UInt8](repeating: 0, count: 40 - boot.count) + little(clusters, 8) + little(table, 8)
        boot += little(mirror, 8) + [0xF6, 0, 0, 0, 1, 0, 0, 0] + little(0x1234_5678_9ABC_DEF0, 8)
        boot += [UInt8](repeating: 0, count: 510 - boot.count) + [0x55, 0xAA]
        put(boot, 0)
        put(boot, clusters)

        let bitmapRuns: [Run] = kind.contains(.spilled) ? [(300, 1), (310, 1)] : [(300, 2)]
        var tableRuns: [Run] = [(table, 32)]
        if kind.contains(.fragmented) { tableRuns.append((tableRest, 16)) }
        var used: [Run] = [(0, 1), (mirror, 8), (log, 16), (index, 2), (400, 8), (clusters - 5, 5)]
        used += bitmapRuns + tableRuns
        let bad: [Run] = kind.contains(.badClusters) ? [(5000, 3)] : []
        used += bad

        var records: [UInt64: [UInt8]] = [:]
        let tableSize = tableRuns.reduce(0) { $0 + $1.count } * 512
        let first = attribute(0x80, instance: 1, size: tableSize, runs: [tableRuns[0]])
        if kind.contains(.fragmented) {
            let list = listed(0x80, first: 0, record: 0, instance: 1) + listed(0x80, first: 32, record: 15, instance: 2)
            records[0] = file([attribute(0x20, instance: 3, value: list), first])
            // Record 0 is the base here, which a reference of 0 cannot say: only the sequence number tells.
            var rest = file([attribute(0x80, instance: 2, first: 32, size: 0, runs: [tableRuns[1]])])
            rest.put(UInt64(1) << 48, at: 32)
            records[15] = rest
        } else {
            records[0] = file([first])
        }
        records[1] = file([attribute(0x80, instance: 1, size: 4096, runs: [(mirror, 8)])])
        records[2] = file([attribute(0x80, instance: 1, size: 8192, runs: [(log, 16)])])
        records[3] = file([
            attribute(0x60, instance: 1, value: wide("label")),
            attribute(0x70, instance: 2, value: little(0, 8) + [3, 1, kind.contains(.dirty) ? 1 : 0, 0]),
            attribute(0x80, instance: 3, value: []),
        ])
        var rootValue = little(0x30, 4) + little(1, 4) + little(1024, 4) + little(2, 4)
        rootValue += little(16, 4) + little(32, 4) + little(32, 4) + little(1, 4) + lastEntry
        var root = [attribute(0x90, "$I30", instance: 1, value: rootValue)]
        if kind.contains(.hibernation) {
            root.append(attribute(0xA0, "$I30", instance: 2, size: 1024, runs: [(index, 2)]))
            root.append(attribute(0xB0, "$I30", instance: 3, value: [1, 0, 0, 0, 0, 0, 0, 0]))
            let entries = entry("Bootmgr", record: 9) + entry("HiberFil.sys", record: 10) + lastEntry
            var block = Array("INDX".utf8) + little(0, 20) + little(40, 4) + little(UInt64(40 + entries.count), 4)
            block += little(1000, 4) + little(0, 4)
            block += [UInt8](repeating: 0, count: 64 - block.count) + entries
            put(torn(block + [UInt8](repeating: 0, count: 1024 - block.count), at: 40), index)
            records[9] = file([attribute(0x80, instance: 1, value: [1])])
            records[10] = file([attribute(0x80, instance: 1, size: 4096, runs: [(400, 8)])])
            put(Array("wake".utf8), 400)
        }
        records[5] = file(root)
        if kind.contains(.spilled) {
            let list = listed(0x80, first: 0, record: 13, instance: 1) + listed(0x80, first: 1, record: 14, instance: 4)
            records[6] = file([attribute(0x20, instance: 3, value: list)])
            records[13] = file(base: 6, [attribute(0x80, instance: 1, size: 1024, runs: [bitmapRuns[0]])])
            records[14] = file(base: 6, [attribute(0x80, instance: 4, first: 1, size: 0, runs: [bitmapRuns[1]])])
        } else {
            records[6] = file([attribute(0x80, instance: 1, size: 1024, runs: bitmapRuns)])
        }
        let hole: [Run] = bad.isEmpty ? [(nil, clusters)] : [(nil, 5000), bad[0], (nil, clusters - 5003)]
        records[8] = file([attribute(0x80, "$Bad", instance: 1, size: clusters * 512, runs: hole)])
        for (number, bytes) in records {
            put(bytes, table + 2 * number)
            if number < 4 { put(bytes, mirror + 2 * number) }
        }
        put(restartPage(5, clean: false) + restartPage(6, clean: true), log)

        var bitmap = [UInt8](repeating: 0, count: 1024)
        for run in used {
            for bit in 0..<run.count {
                bitmap[Int(((run.lcn ?? 0) + bit) / 8)] |= 1 << UInt8(((run.lcn ?? 0) + bit) % 8)
            }
        }
        for (half, run) in bitmapRuns.enumerated() {
            put(Array(bitmap[half * 512..<(bitmapRuns.count == 1 ? 1024 : half * 512 + 512)]), run.lcn ?? 0)
        }
        return disk
    }

    static let kinds: [(name: String, kind: Kind)] = [
        ("plain", []), ("spilled", [.spilled, .fragmented]), ("hibernation", [.hibernation, .badClusters]),
        ("dirty", [.dirty]),
    ]

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        kinds.map { name, kind in
            let disk = volume(kind)
            return (name, SparseDisk.input(disk, length: UInt64(disk.count), block: 64))
        }
    }
}
