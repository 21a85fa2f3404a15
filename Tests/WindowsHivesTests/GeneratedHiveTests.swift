// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import TestSupport
import Testing

@testable import WindowsHives

/// Hives of our own making, with everything the format has.
@Suite struct GeneratedHiveTests {
    typealias Key = HiveBuilder.Key
    typealias Value = HiveBuilder.Value

    /// A tree with every type of value, odd names, many keys and large data.
    static func sample(subkeys: Int = 1300, values: Int = 40) -> Key {
        var random = Seeded(5)
        func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) } }
        var root = Key("ROOT")
        root.subkeys = [
            Key(
                "Types",
                values: [
                    Value("", "the default"), Value("sz", "Grüße aus 東京 🗝"),
                    Value("expand", "%SystemRoot%\\x", type: 2),
                    Value("binary", 3, bytes(100)), Value("dword", 0xDEAD_BEEF), Value("big", 5, [1, 2, 3, 4]),
                    Value("link", 6, HiveBuilder.wide("\\Registry\\Machine\\X")), Value("multi", ["one", "zwei", "三"]),
                    Value("resources", 8, bytes(24)), Value("qword", 11, [1, 2, 3, 4, 5, 6, 7, 0x80]),
                    Value("property", 0xFFFF_0012, bytes(17)), Value("empty", 1, []), Value("none", 0, []),
                    Value("one", 3, [9]), Value("two", 3, [9, 8]), Value("three", 3, [9, 8, 7]),
                    Value("five", 3, [5, 4, 3, 2, 1]), Value("Zürich", 7), Value("Москва", 8), Value("100%\t\\", 1),
                ]),
            Key(
                "Large",
                values: [16_343, 16_344, 16_345, 32_688, 32_689, 100_000].map { Value("of \($0)", 3, bytes($0)) }),
            Key("Class", values: [], className: "a class of ключи", [Key("below", className: "x")]),
            Key("Ärger"), Key("ключ"), Key("ÿ"), Key("鍵"), Key(String(repeating: "long", count: 60)),
            Key("Many", (0..<subkeys).map { Key("key \($0 * 7919 % subkeys)") }),
            Key("ManyValues", values: (0..<values).map { Value("value \($0)", UInt32($0)) }),
        ]
        var deep = Key("deepest", values: [Value("here", "yes")])
        for level in 0..<30 { deep = Key("level \(30 - level)", [deep]) }
        root.subkeys.append(deep)
        return root
    }

    static let builders: [HiveBuilder] = HiveBuilder.Leaf.allCases.flatMap { leaf in
        ([(3, 500, false), (5, 100, false), (6, 2000, true)] as [(UInt32, Int, Bool)]).map { version, length, isWide in
            var builder = HiveBuilder()
            (builder.minorVersion, builder.leaf, builder.leafLength, builder.isWide) = (version, leaf, length, isWide)
            return builder
        }
    }

    @Test(.enabled(if: hasHivex, "python3-hivex is needed"), arguments: builders.indices)
    func everyKindOfHiveIsReadAsHivexReadsIt(index: Int) throws {
        let scratch = try ScratchFolder()
        let bytes = Self.builders[index].build(Self.sample())
        expectSame(try Ours.dump(try Hive(HiveSource(bytes))), try Judge.hivex.dump(bytes, in: scratch))
    }

    @Test(.enabled(if: hasRegipy, "the Python module regipy is needed"), arguments: [0, 4])
    func numbersAndClassesAreReadAsRegipyReadsThem(index: Int) throws {
        let scratch = try ScratchFolder()
        let bytes = Self.builders[index].build(Self.sample(subkeys: 120))
        func plain(_ lines: [String]) -> [String] {
            // Names beyond ASCII, and numbers of 64 bits, are not its strength.
            lines.filter { line in !line.utf8.contains { $0 >= 0x80 } && !line.contains("\\Class\t") }
        }
        expectSame(
            plain(try Ours.dump(try Hive(HiveSource(bytes)), types: [3, 4, 11], hasClass: true)),
            plain(try Judge.regipy.dump(bytes, in: scratch)))
    }

    /// The same, without a judge: what was put in comes out.
    @Test(arguments: builders.indices) func whatWasPutInComesOut(index: Int) throws {
        let sample = Self.sample(subkeys: 300)
        let hive = try Hive(HiveSource(Self.builders[index].build(sample)))
        #expect(hive.state == .clean)
        #expect(hive.header.version == "1.\(Self.builders[index].minorVersion)")
        var count = 0
        func compare(_ ours: HiveKey, _ made: Key) throws {
            count += 1
            #expect(try ours.className() == made.className)
            #expect(try ours.values().map(\.name) == made.values.map(\.name))
            for (left, right) in zip(try ours.values(), made.values) {
                #expect(left.type.rawValue == right.type)
                #expect(try left.data() == right.data, "\(left.name)")
            }
            #expect(Set(try ours.subkeys().map(\.name)) == Set(made.subkeys.map(\.name)))
            for key in made.subkeys {
                let found = try #require(try ours.subkey(key.name.uppercased()))
                #expect(found.name == key.name)
                try compare(found, key)
            }
        }
        try compare(try hive.root(), sample)
        #expect(count > 340)
    }

    @Test func typedValuesAreWhatTheyAre() throws {
        let hive = try Hive(HiveSource(HiveBuilder().build(Self.sample(subkeys: 3))))
        let key = try #require(try hive.key("TYPES"))
        #expect(try key.string("") == "the default")
        #expect(try key.string("SZ") == "Grüße aus 東京 🗝")
        #expect(try key.string("expand") == "%SystemRoot%\\x")
        #expect(try key.string("link") == "\\Registry\\Machine\\X")
        #expect(try key.string("empty") == "")
        #expect(try key.string("dword") == nil)
        #expect(try key.dword("dword") == 0xDEAD_BEEF)
        #expect(try key.dword("big") == 0x0102_0304)
        #expect(try key.dword("qword") == nil)
        #expect(try key.qword("qword") == 0x8007_0605_0403_0201)
        #expect(try key.multiString("multi") == ["one", "zwei", "三"])
        #expect(try key.multiString("sz") == nil)
        #expect(try key.binary("three") == [9, 8, 7])
        #expect(try key.binary("resources") == nil)
        #expect(try key.value("property")?.type.description == "0xFFFF0012")
        #expect(try key.value("multi")?.type.description == "REG_MULTI_SZ")
        #expect(try key.value("missing") == nil)
        #expect(try key.dword("ДVORD") == nil)
        let deep = "level 1\\level 2\\LEVEL 3"
        #expect(try hive.key(deep)?.path == "level 1\\level 2\\level 3")
        #expect(try hive.key(deep)?.depth == 3)
        #expect(try hive.key("")?.path == "")
        #expect(try hive.root().securityDescriptor()?.count == 52)
        let large = try #require(try hive.key("Large")?.value("of 100000"))
        let fault = try #require(throws: Fault.self) { try large.data(limit: 99_999) }
        #expect(fault.code == .hiveValueTooLarge)
    }

    @Test func anImageIsTheFileItself() throws {
        let bytes = HiveBuilder().build(Self.sample(subkeys: 30))
        let hive = try Hive(HiveSource(bytes))
        #expect(hive.imageLength == UInt64(bytes.count))
        #expect(try hive.bytes(at: 0, count: bytes.count) == bytes)
        #expect(try hive.bytes(at: 4000, count: 200) == Array(bytes[4000..<4200]))
        #expect(try hive.bytes(at: 100, count: 0).isEmpty)
        #expect(throws: Fault.self) { try hive.bytes(at: 4096, count: bytes.count) }
    }

    @Test func aFileIsReadLikeMemory() throws {
        let scratch = try ScratchFolder()
        let bytes = HiveBuilder().build(Self.sample(subkeys: 30))
        let path = try scratch.write("SYSTEM", bytes)
        #expect(try Ours.dump(try Hive(HiveSource(path: path))) == Ours.dump(try Hive(HiveSource(bytes))))
        let missing = try #require(throws: Fault.self) { try HiveSource(path: "\(scratch.path)/none") }
        #expect(missing.code == .missing)
        let folder = try #require(throws: Fault.self) { try HiveSource(path: scratch.path) }
        #expect(folder.code == .wrongKind)
    }
}
