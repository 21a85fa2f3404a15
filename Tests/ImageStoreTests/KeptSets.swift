// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import ImageStore
import Synchronization
import TestSupport
import Testing

/// Sets with points that are to be forgotten, and what every point must read as.
struct KeptSet {
    let store: MemoryStore
    var keys = KeyRing.none
    var options = SetWriter.Options(packSize: .mebibytes(1), unitSize: .kibibytes(64))
    /// What each point holds, by its id.
    var contents: [String: [UInt8]] = [:]
    var ids: [String] = []

    init(_ store: MemoryStore = MemoryStore()) { self.store = store }

    /// A copy whose store is another one with the same objects.
    func copy(lateness: MemoryStore.Lateness = .none) -> KeptSet {
        let objects = store.objects.filter { !$0.key.hasPrefix("writers/") }
        var result = KeptSet(MemoryStore(objects: objects, lateness: lateness))
        (result.keys, result.options, result.contents, result.ids) = (keys, options, contents, ids)
        return result
    }

    /// Backs `content` up through `other`, or the set's store.
    @discardableResult
    mutating func backup(_ content: [UInt8], name: String = "machine", through other: (any ObjectStore)? = nil) throws
        -> String
    {
        let (point, _) = try Sample.backup(
            [(content, nil)], to: other ?? store, name: name, options: options, keys: keys)
        contents[point.id] = content
        ids.append(point.id)
        return point.id
    }

    func forget(_ ids: [String], through other: (any ObjectStore)? = nil) throws {
        let keeper = try SetKeeper(other ?? store, keys: keys)
        try keeper.forget(keeper.plan(nil, named: ids))
    }

    static var thorough: PruneOptions {
        var options = PruneOptions()
        options.garbagePercent = 1
        options.leastGarbage = .zero
        options.packSize = .mebibytes(1)
        return options
    }

    @discardableResult
    func prune(
        _ options: PruneOptions = thorough, through other: (any ObjectStore)? = nil
    ) throws -> PruneReport {
        try SetKeeper(other ?? store, keys: keys).prune(options)
    }

    /// Every point that is listed is complete and reads as what was stored; these are they.
    @discardableResult
    func check(_ note: String = "", _ depth: VerifyDepth = .full, in place: SourceLocation = #_sourceLocation) throws
        -> [String]
    {
        let reader = try SetReader(store, keys: keys)
        let points = try reader.points().points
        for summary in points {
            let point = try reader.point(summary.id)
            let isSame = KeptSet.isSame(try Sample.restore(point.streams[0]), contents[summary.id] ?? [])
            #expect(isSame, "\(note): \(summary.shortID)", sourceLocation: place)
            #expect(try point.missingPacks().isEmpty, "\(note)", sourceLocation: place)
        }
        let report = try reader.verify(depth, threads: 1)
        #expect(report.isComplete, "\(note): \(report.damages)", sourceLocation: place)
        #expect(reader.laterFindings.isEmpty, "\(note)", sourceLocation: place)
        return points.map(\.id)
    }

    var packBytes: Int {
        store.objects.reduce(0) { $0 + ($1.key.contains("packs/") ? $1.value.count : 0) }
    }

    /// Many times faster than `==` in a build that is not optimised.
    private static func isSame(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        unsafe left.count == right.count && memcmp(left, right, left.count) == 0
    }

    private static let pieces = Mutex<[UInt64: [UInt8]]>([:])

    /// Random pieces of 64 KiB, the same for the same numbers.
    static func content(_ numbers: [UInt64]) -> [UInt8] {
        var result: [UInt8] = []
        for number in numbers { result += piece(number) }
        return result
    }

    private static func piece(_ number: UInt64) -> [UInt8] {
        if let known = pieces.withLock({ $0[number] }) { return known }
        var random = Seeded(number)
        let words = (0..<8192).map { _ in random.next() as UInt64 }
        let bytes = unsafe words.withUnsafeBytes { unsafe [UInt8]($0) }
        pieces.withLock { $0[number] = bytes }
        return bytes
    }

    private static let plain = Result { try made(encrypted: false) }
    private static let encrypted = Result { try made(encrypted: true) }

    /// Three points: the first and third share a little, the second shares some with both. Without the second, packs are
    /// partly needed; without the first, some are not needed at all.
    static func sample(encrypted: Bool = false) throws -> KeptSet {
        try (encrypted ? Self.encrypted : plain).get().copy()
    }

    /// As ``sample(encrypted:)`` with less in it.
    static func small() throws -> KeptSet {
        var result = KeptSet()
        try result.backup(content(Array(0..<8)))
        try result.backup(content([0, 100, 101, 102]))
        try result.backup(content([100, 3]))
        return result
    }

    private static func made(encrypted: Bool) throws -> KeptSet {
        var result = KeptSet()
        if encrypted {
            result.keys = KeyRing(.passphrase(Secret(Array("secret".utf8))))
            result.options.encryption = NewEncryption(cost: 10)
        }
        // Every sixth unit of the first is in the second; the third is new but for two.
        try result.backup(content(Array(0..<24)))
        try result.backup(content([0, 100, 101, 102, 6, 103, 104, 105, 12, 106, 107, 108, 18]))
        try result.backup(content([100, 3, 200, 201, 202, 203]))
        return result
    }
}
