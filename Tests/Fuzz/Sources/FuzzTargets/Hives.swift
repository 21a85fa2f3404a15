// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry

@testable import WindowsHives

extension FuzzTarget {
    /// A hive and two logs: recovered, walked, its values read, and asked which Windows it is of.
    static let hive = FuzzTarget(name: "hive", longest: 40_000, seeds: HiveSeeds.make, mend: HiveSeeds.mend) { input in
        let files = HiveSeeds.files(input)
        let sources = files.map { HiveSource($0) }
        guard let hive = try? Hive(sources[0], logs: Array(sources[1...])) else { return }
        let header = hive.header
        if case .dirty = hive.state {
            promise(hive.storedHeader?.isDirty == true, "only a dirty hive is called dirty")
        } else {
            promise(!header.isDirty && header.fileType == .primary, "a hive is clean in the end")
            promise(HiveHeader((try? hive.bytes(at: 0, count: 4096)) ?? []) == header, "its base block says so")
        }
        keep(hive.kind)
        // Far more than a seed has.
        var budget = 20_000
        var seen: Set<UInt32> = []
        func walk(_ key: HiveKey) {
            promise(seen.insert(key.offset).inserted, "a walk meets a key once")
            promise(key.depth <= HiveKey.deepest, "keys have a deepest level")
            keep(key.path)
            if let text = try? key.className() { keep(text) }
            if let bytes = try? key.securityDescriptor() { keep(bytes) }
            try? key.forEachValue { (value) throws(Fault) -> Bool in
                budget -= 1
                if let bytes = try? value.data(limit: 1 << 20) {
                    promise(bytes.count == value.length, "data have the length they say")
                    budget -= bytes.count / 1000
                }
                _ = try? value.string()
                _ = try? value.multiString()
                keep(value.name)
                return budget > 0
            }
            try? key.forEachSubkey { (subkey) throws(Fault) -> Bool in
                budget -= 1
                if budget > 0 { walk(subkey) }
                return budget > 0
            }
        }
        if let root = try? hive.root() { walk(root) }
        keep(WindowsIdentity(system: hive, software: hive).summary)
    }
}

/// An input is a sparse disk: the hive at its start, the logs at 1 and 2 MiB, and the lengths of the three at 3 MiB.
enum HiveSeeds {
    private static let place: UInt64 = 1 << 20

    static func files(_ input: [UInt8]) -> [[UInt8]] {
        let disk = SparseEditor(input)
        let lengths = disk.bytes(3 * place, 12)
        return (0..<3).map { index in
            let length = min(UInt64(lengths.number(UInt32.self, at: 4 * index)), place)
            return disk.bytes(UInt64(index) * place, Int(length))
        }
    }

    /// Checksums of base blocks, hashes of entries.
    static func mend(_ input: inout [UInt8]) {
        var disk = SparseEditor(input)
        for (index, file) in files(input).enumerated() {
            let start = UInt64(index) * place
            var block = Array(file.prefix(512))
            guard block.count == 512 else { continue }
            block.put(HiveHeader.checksum(block), at: 508)
            disk.store(start + 508, Array(block[508...]))
            var position = 512
            while index > 0, position + 40 <= file.count, file[position..<position + 4].elementsEqual("HvLE".utf8) {
                let size = Int(file.number(UInt32.self, at: position + 4))
                guard size >= 512, size % 512 == 0, size <= file.count - position else { break }
                var entry = Array(file[position..<position + size])
                LogBuilder.mend(&entry)
                disk.store(start + UInt64(position) + 24, Array(entry[24..<40]))
                position += size
            }
        }
        input = disk.input
    }

    private static func input(_ files: [[UInt8]]) -> [UInt8] {
        var content = [UInt8](repeating: 0, count: 3 * Int(place) + 12)
        for (index, file) in files.enumerated() {
            content.replaceSubrange(index * Int(place)..<index * Int(place) + file.count, with: file)
            content.put(UInt32(file.count), at: 3 * Int(place) + 4 * index)
        }
        return SparseDisk.input(content, length: UInt64(content.count), block: 64)
    }

    private typealias Key = HiveBuilder.Key
    private typealias Value = HiveBuilder.Value

    private static func system(_ version: UInt32) -> [UInt8] {
        var root = Key("ROOT")
        for (name, number) in [("Current", 1), ("Default", 1), ("Failed", 0), ("LastKnownGood", 2)]
            as [(String, UInt32)]
        {
            root.set("Select", Value(name, number))
        }
        root.set("ControlSet001\\Control\\ComputerName\\ComputerName", Value("ComputerName", "PC\(version)"))
        root.set(
            "ControlSet001\\Control\\Session Manager\\Environment", Value("PROCESSOR_ARCHITECTURE", "AMD64", type: 2))
        root.set("ControlSet001\\Services\\disk", Value("Start", version))
        root.set("Microsoft\\Windows NT\\CurrentVersion", Value("ProductName", "Windows 10 Pro"))
        root.set("Microsoft\\Windows NT\\CurrentVersion", Value("CurrentBuildNumber", "22631"))
        var builder = HiveBuilder()
        builder.sequences = (version, version)
        return builder.build(root)
    }

    private static func dirty(_ hive: [UInt8]) -> [UInt8] {
        var hive = hive
        hive.put(hive.number(UInt32.self, at: 8) &- 1, at: 8)
        hive.put(HiveHeader.checksum(hive), at: 508)
        return hive
    }

    /// Every list, every kind of data.
    private static func forms(_ leaf: HiveBuilder.Leaf, _ version: UInt32, isWide: Bool, length: Int) -> [UInt8] {
        var builder = HiveBuilder()
        (builder.leaf, builder.minorVersion, builder.isWide, builder.leafLength) = (leaf, version, isWide, length)
        return builder.build(
            Key(
                "r",
                values: [
                    Value("", "x"), Value("m", ["a", "b"]), Value("d", 7), Value("q", 11, [1, 2, 3, 4, 5, 6, 7, 8]),
                ],
                className: "class",
                [
                    Key("b", values: [Value("large", 3, [UInt8](repeating: 0, count: version > 3 ? 40_000 : 20))]),
                    Key("a", [Key("c", [Key("d")])]), Key("ü"), Key("Description"), Key("Objects"),
                ]))
    }

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        let states = [system(1), system(2), system(3)]
        func log(_ from: Int, _ to: Int, _ sequence: UInt32) -> [UInt8] {
            LogBuilder.head(states[from], type: 6, sequence: sequence)
                + LogBuilder.entry(
                    states[to], pages: LogBuilder.pages(states[from], states[to], size: 512), sequence: sequence,
                    size: 512)
        }
        return [
            ("system", input([states[0]])), ("entries", input([dirty(states[0]), log(1, 2, 2), log(0, 1, 1)])),
            ("vector", input([dirty(states[0]), LogBuilder.dirtyVector(states[0], states[1], sequence: 1)])),
            ("bcd", input([forms(.lf, 3, isWide: false, length: 100)])),
            ("roots", input([forms(.lh, 5, isWide: true, length: 2)])),
            ("lists", input([forms(.li, 6, isWide: false, length: 2)])),
        ]
    }
}
