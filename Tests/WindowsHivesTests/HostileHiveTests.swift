// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Synchronization
import TestSupport
import Testing

@testable import WindowsHives

/// Hives that lie: nothing traps, nothing goes on for ever, and the place is named.
@Suite struct HostileHiveTests {
    typealias Key = HiveBuilder.Key
    typealias Value = HiveBuilder.Value

    static let sound = HiveBuilder().build(
        Key(
            "root", values: [Value("a", "text"), Value("large", 3, [UInt8](repeating: 1, count: 20_000))],
            className: "class", [Key("one", [Key("below", [Key("deep")])]), Key("two"), Key("three")]))

    /// Where key `path` lies in the file.
    func place(_ path: String, in bytes: [UInt8] = sound) throws -> Int {
        4096 + 4 + Int(try #require(try Hive(HiveSource(bytes)).key(path)).offset)
    }

    /// Reads everything there is of a hive, as the fuzzer does; the number of keys met.
    @discardableResult
    static func readAll(_ hive: Hive, budget: Int = 50_000) throws -> Int {
        var left = budget
        var seen: Set<UInt32> = []
        func walk(_ key: HiveKey) throws(Fault) {
            left -= 1
            #expect(seen.insert(key.offset).inserted)
            _ = try key.className()
            _ = try key.securityDescriptor()
            try key.forEachValue { (value) throws(Fault) -> Bool in
                left -= 1
                let data = try value.data(limit: 1 << 20)
                #expect(data.count == value.length)
                _ = try value.string()
                _ = try value.multiString()
                return left > 0
            }
            try key.forEachSubkey { (subkey) throws(Fault) -> Bool in
                if left > 0 { try walk(subkey) }
                return left > 0
            }
        }
        try walk(try hive.root())
        return seen.count
    }

    func expectFault(
        _ bytes: [UInt8], _ code: FaultCode = .hiveDamaged, saying words: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let fault = #expect(throws: Fault.self, sourceLocation: sourceLocation) {
            try Self.readAll(try Hive(HiveSource(bytes, name: "HIVE")))
        }
        #expect(fault?.code == code, sourceLocation: sourceLocation)
        #expect(fault?.what.contains(words) == true, "\(fault?.what ?? "")", sourceLocation: sourceLocation)
        #expect(
            fault?.place.hasPrefix("HIVE") == true && fault?.remedy.isEmpty == false, sourceLocation: sourceLocation)
    }

    @Test func whatIsNoHiveIsRefused() {
        expectFault([], .notAHive, saying: "no registry hive")
        expectFault(Array("regf".utf8), .notAHive, saying: "no registry hive")
        expectFault([UInt8](repeating: 0, count: 10_000), .notAHive, saying: "no registry hive")
        expectFault(Array("MZ".utf8) + [UInt8](repeating: 7, count: 10_000), .notAHive, saying: "no registry hive")
    }

    @Test(
        arguments: [
            (20, 2, "version 2.5"), (24, 2, "version 1.2"), (24, 7, "version 1.7"), (28, 1, "transaction log"),
            (28, 9, "not a hive"), (32, 0, "format 0"),
        ] as [(Int, UInt32, String)])
    func otherVersionsAreUnsupported(offset: Int, value: UInt32, words: String) {
        var bytes = Self.sound
        bytes.put(value, at: offset)
        bytes.mendBaseBlock()
        expectFault(bytes, .hiveUnsupported, saying: words)
    }

    @Test(arguments: [0, 100, 4097, 0x7FFF_F001, 0xFFFF_F000] as [UInt32])
    func impossibleSizesAreRefused(size: UInt32) {
        var bytes = Self.sound
        bytes.put(size, at: 40)
        bytes.mendBaseBlock()
        expectFault(bytes, saying: "bins have \(size) bytes")
    }

    @Test func aFileThatWasCutShortIsReadAsFarAsItGoes() throws {
        let whole = HiveBuilder().build(
            Key(
                "root",
                [
                    Key("one", values: [Value("a", "text")], [Key("below", [Key("deep")])]),
                    Key("two", values: [Value("large", 3, [UInt8](repeating: 1, count: 20_000))]),
                ]))
        // The lists of the root come last.
        let last = 4096 + Int(whole.word(at: 4100 + Int(whole.word(at: 36)) + 28))
        try #require(last > 20_000)
        var moved = whole
        moved.put(UInt32(try place("one", in: whole) - 4100), at: 36)
        moved.mendBaseBlock()
        let bytes = Array(moved[..<8192])
        let hive = try Hive(HiveSource(bytes, name: "HIVE"))
        #expect(try hive.key("below\\deep") != nil)
        #expect(try hive.root().string("a") == "text")
        expectFault(Array(whole[..<8192]), saying: "The file ends at byte 8192")
        // In the middle of a page, and in the first bin's head.
        expectFault(Array(Self.sound[..<6000]), saying: "The file ends at byte 6000")
        expectFault(Array(Self.sound[..<4100]), saying: "The file ends")
    }

    @Test(arguments: [0, 4, 31, 33, 36, 0x7FFF_FFF8, 0xFFFF_FFFF, 0xFFFF_FFF8] as [UInt32])
    func rootsThatCannotBeAreRefused(offset: UInt32) {
        var bytes = Self.sound
        bytes.put(offset, at: 36)
        bytes.mendBaseBlock()
        expectFault(bytes, saying: "no cell can be")
    }

    @Test func aKeyThatIsItsOwnDescendantIsRefused() throws {
        // The list of the deepest key's parent names the first key, whose parent is the root.
        var bytes = Self.sound
        let below = try place("one\\below")
        let list = 4096 + Int(bytes.word(at: below + 28))
        bytes.put(UInt32(try place("one") - 4100), at: list + 8)
        expectFault(bytes, saying: "belongs to another")
        // Even when it says that its parent is the one below it.
        bytes.put(UInt32(below - 4100), at: try place("one") + 16)
        expectFault(bytes, saying: "belongs to another")
        // The root below itself.
        bytes = Self.sound
        let root = Int(bytes.word(at: 36))
        bytes.put(UInt32(root), at: list + 8)
        bytes.put(UInt32(below - 4100), at: 4100 + root + 16)
        expectFault(bytes, saying: "belongs to another")
    }

    @Test func aKeyThatIsListedTwiceIsRefused() throws {
        var bytes = Self.sound
        let list = 4096 + Int(bytes.word(at: 4100 + Int(bytes.word(at: 36)) + 28))
        bytes.put(bytes.word(at: list + 8), at: list + 16)
        expectFault(bytes, saying: "twice")
    }

    @Test(arguments: [2, 4, 100_000, 0x7FFF_FFFF, 0xFFFF_FFFF] as [UInt32])
    func countsThatAreNotTrueAreRefused(count: UInt32) throws {
        var bytes = Self.sound
        let root = 4100 + Int(bytes.word(at: 36))
        bytes.put(count, at: root + 20)
        expectFault(bytes, saying: "subkeys")
        bytes = Self.sound
        bytes.put(count == 2 ? 3000 : count, at: root + 36)
        expectFault(bytes, saying: "values")
    }

    /// An index root with as many leaves as it can name, all of them the same.
    @Test func listsThatMultiplyAreRefusedAtOnce() throws {
        var builder = HiveBuilder()
        builder.leafLength = 1
        var bytes = builder.build(Key("root", (0..<5000).map { Key("k\($0)") }))
        let root = 4100 + Int(bytes.word(at: 36))
        let list = 4096 + Int(bytes.word(at: root + 28)) + 4
        try #require(bytes[list..<list + 2].elementsEqual("ri".utf8))
        for index in 1..<5000 { bytes.put(bytes.word(at: list + 4), at: list + 4 + 4 * index) }
        expectFault(bytes, saying: "twice")
        // The root of lists as a leaf of itself.
        bytes.put(UInt32(list - 4100), at: list + 4)
        expectFault(bytes, saying: "list of subkeys should be there")
        #expect(throws: Fault.self) { try Hive(HiveSource(bytes)).root().subkey("nowhere") }
    }

    @Test func keysBelowTheDeepestLevelAreRefused() throws {
        func chain(_ length: Int) -> [UInt8] {
            var key = Key("k")
            for _ in 0..<length { key = Key("k", [key]) }
            return HiveBuilder().build(key)
        }
        let deep = [String](repeating: "K", count: 512)
        #expect(try Self.readAll(try Hive(HiveSource(chain(512)))) == 513)
        #expect(try Hive(HiveSource(chain(512))).key(deep.joined(separator: "\\"))?.depth == 512)
        expectFault(chain(513), saying: "levels deep")
        #expect(throws: Fault.self) {
            try Hive(HiveSource(chain(513))).key((deep + ["k"]).joined(separator: "\\"))
        }
    }

    @Test func recordsThatAreOthersAreRefused() throws {
        let root = 4100 + Int(Self.sound.word(at: 36))
        for (offset, words) in [(28, "list of subkeys"), (40, "value"), (44, "security descriptor should")] {
            var bytes = Self.sound
            bytes.put(UInt32(try place("one") - 4100), at: root + offset)
            expectFault(bytes, saying: words)
        }
        // A name or a class longer than its cell.
        for (offset, words) in [(72, "name of 65535 bytes"), (74, "class name of 65535 bytes")] {
            var bytes = Self.sound
            bytes.put(0xFFFF as UInt16, at: root + offset)
            expectFault(bytes, saying: words)
        }
        // A free cell.
        var bytes = Self.sound
        let key = try place("two") - 4
        bytes.put(0 &- bytes.word(at: key), at: key)
        expectFault(bytes, saying: "the cell is free")
        for size in [0, -4, -12, -100_000, Int32.min] as [Int32] {
            bytes.put(size, at: key)
            expectFault(bytes, saying: size == 0 ? "free" : "not the size of a cell")
        }
    }

    @Test func valuesThatLieAreRefused() throws {
        let hive = try Hive(HiveSource(Self.sound))
        let large = 4100 + Int(try #require(try hive.root().value("large")).offset)
        let small = 4100 + Int(try #require(try hive.root().value("a")).offset)
        for (place, offset, value, words) in [
            (large, 4, 0x8000_0005, "keeps 5 bytes"), (large, 4, 40_000, "more than the hive"),
            (large, 4, 16_344, "the cell has"), (large, 4, 16_345 * 2, "more than the hive"),
            (large, 2, 0x4E20_FFFF, "name of 65535"), (small, 4, 20_000, "but the cell has"),
            (small, 8, 0x1000_0000, "no cell can be"), (small, 0, 0x0001_6B6E, "should be there, but it is none"),
        ] as [(Int, Int, UInt32, String)] {
            var bytes = Self.sound
            bytes.put(value, at: place + offset)
            expectFault(bytes, saying: words)
        }
        // Segments: their number, their list, one that is too short.
        let record = 4100 + Int(Self.sound.word(at: large + 8))
        try #require(Self.sound[record..<record + 2].elementsEqual("db".utf8))
        let list = 4100 + Int(Self.sound.word(at: record + 4))
        for (place, value, words) in [
            (record, 0x0003_6264, "in 3 segments"), (record, 0x0001_6264, "in 1 segments"),
            (record + 4, 7, "no cell can be"), (list, Self.sound.word(at: list + 4), "A segment of 16344"),
        ] as [(Int, UInt32, String)] {
            var bytes = Self.sound
            bytes.put(value, at: place)
            expectFault(bytes, saying: words)
        }
    }

    /// Thousands of changes; every one is read to its end, or refused with a fault.
    @Test(arguments: [1, 2, 3, 4] as [UInt64]) func mutationsEndInAFaultOrAHive(seed: UInt64) throws {
        var builder = HiveBuilder()
        builder.leaf = HiveBuilder.Leaf.allCases[Int(seed) % 3]
        builder.leafLength = 5
        let sound = builder.build(
            Key(
                "root",
                values: [
                    Value("text", "x"), Value("list", ["a", "b"]),
                    Value("large", 3, [UInt8](repeating: 5, count: 17_000)),
                ],
                className: "class", (0..<12).map { Key("k\($0)", values: [Value("v", UInt32($0))], [Key("s")]) }))
        let whole = try Self.readAll(try Hive(HiveSource(sound)))
        var random = Seeded(seed)
        let nasty: [UInt32] = [
            0, 1, 2, 7, 8, 0x20, 0xFF, 0x7FFF, 0xFFFF, 0x1000, 0x7FFF_FFFF, 0x8000_0000, .max, .max - 7,
        ]
        var read = 0
        for _ in 0..<1500 {
            var bytes = sound
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: 0..<bytes.count - 4, using: &random) & ~3
                // Records lie in the first bins, and are what matters.
                let near = Bool.random(using: &random) ? 4096 + place % 4096 : place
                bytes.put(
                    Bool.random(using: &random)
                        ? nasty.randomElement(using: &random) ?? 0 : UInt32.random(in: 0...UInt32.max, using: &random),
                    at: near)
            }
            if Int.random(in: 0..<20, using: &random) == 0 {
                bytes.removeLast(Int.random(in: 1..<bytes.count, using: &random))
            }
            if bytes.count >= 512 { bytes.mendBaseBlock() }
            do throws(Fault) {
                let hive = try Hive(HiveSource(bytes))
                _ = hive.kind
                _ = WindowsIdentity(system: hive, software: hive)
                do { if try Self.readAll(hive) == whole { read += 1 } } catch let fault as Fault { throw fault } catch {
                }
            } catch {
                #expect(
                    [.hiveDamaged, .notAHive, .hiveUnsupported, .hiveValueTooLarge].contains(error.code), "\(error)")
                #expect(!error.what.isEmpty && !error.remedy.isEmpty)
            }
        }
        // Some change only what does not matter.
        #expect(read > 100)
    }

    /// The same with logs.
    @Test(arguments: [5, 6] as [UInt64]) func mutatedLogsEndInAFaultOrAHive(seed: UInt64) throws {
        let states = LogTests.versions(4)
        let dirty = LogTests.dirty(states[0], (11, 10))
        let logs =
            seed == 5
            ? [LogTests.log(states[0...1], sequence: 10), LogTests.log(states[1...3], sequence: 11)]
            : [LogBuilder.dirtyVector(states[0], states[3], sequence: 11)]
        var random = Seeded(seed)
        var recovered = 0
        for _ in 0..<800 {
            var changed = logs
            for index in changed.indices where Bool.random(using: &random) {
                let place = Int.random(in: 0..<changed[index].count - 4, using: &random)
                let near = Bool.random(using: &random) ? place % 700 : place
                changed[index].put(UInt32.random(in: 0...UInt32.max, using: &random), at: near)
                changed[index].mendBaseBlock()
                var position = 512
                while seed == 5, position + 512 <= changed[index].count {
                    let size = Int(changed[index].word(at: position + 4))
                    guard size >= 512, size <= changed[index].count - position else { break }
                    var entry = Array(changed[index][position..<position + size])
                    LogBuilder.mend(&entry)
                    changed[index].replaceSubrange(position..<position + size, with: entry)
                    position += size
                }
            }
            do throws(Fault) {
                let hive = try Hive(HiveSource(dirty), logs: LogTests.sources(changed))
                if case .recovered = hive.state { recovered += 1 }
                do { try Self.readAll(hive) } catch let fault as Fault { throw fault } catch {}
            } catch {
                #expect([.hiveDamaged, .hiveUnsupported, .hiveValueTooLarge].contains(error.code), "\(error)")
            }
        }
        #expect(recovered > 100)
    }
}

/// Time and memory are bounded by what is asked for, not by the hive.
@Suite struct LargeHiveTests {
    /// A hive of 512 MiB, nearly all of it one cell of data: what is read of it is counted.
    @Test func openingReadsLittleOfALargeHive() throws {
        let front = HiveBuilder().build(
            HiveBuilder.Key(
                "root", (0..<200).map { HiveBuilder.Key("k\($0)", values: [HiveBuilder.Value("v", UInt32($0))]) }))
        var block = front
        let bins: UInt32 = 512 << 20
        block.put(bins, at: 40)
        block.mendBaseBlock()
        let bytes = block
        final class Counter: Sendable {
            let bytes = Mutex(0)
        }
        let counter = Counter()
        let source = HiveSource(name: "LARGE", length: UInt64(bins) + 4096) {
            (offset: UInt64, count: Int) throws(Fault) -> [UInt8] in
            counter.bytes.withLock { $0 += count }
            let start = Int(offset)
            let part = start < bytes.count ? Array(bytes[start..<min(bytes.count, start + count)]) : []
            return part + [UInt8](repeating: 0, count: count - part.count)
        }
        let hive = try Hive(source)
        #expect(counter.bytes.withLock { $0 } == 4096)
        #expect(try hive.key("k150")?.dword("v") == 150)
        #expect(counter.bytes.withLock { $0 } < 200_000)
        // Reading all of it keeps no more than the cache.
        for offset in stride(from: UInt64(0), to: 64 << 20, by: 1 << 20) {
            _ = try hive.bytes(at: offset, count: 1 << 20)
        }
        #expect(try hive.key("K7")?.dword("V") == 7)
    }

    @Test func theCacheForgetsWhatIsOldest() {
        var cache = PageCache()
        for page in 0..<PageCache.most { cache.keep(page, [UInt8(truncatingIfNeeded: page)]) }
        #expect(cache.bytes(0) == [0] && cache.bytes(255) == [255])
        for page in 1000..<3000 {
            #expect(cache.bytes(page) == nil)
            cache.keep(page, [1])
            #expect(cache.bytes(page) == [1])
        }
        #expect((0..<3000).count { cache.bytes($0) != nil } == PageCache.most)
    }

    /// Keys without number are counted, not kept.
    @Test func manyKeysAreHandedOverInTurn() throws {
        let hive = try Hive(
            HiveSource(HiveBuilder().build(HiveBuilder.Key("root", (0..<30_000).map { HiveBuilder.Key("\($0)") }))))
        var count = 0
        try hive.root().forEachSubkey { (_) throws(Fault) -> Bool in
            count += 1
            return count < 20_000
        }
        #expect(count == 20_000)
        #expect(try hive.key("29999") != nil)
        #expect(try hive.key("30000") == nil)
    }
}
