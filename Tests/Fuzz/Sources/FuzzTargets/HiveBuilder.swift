// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

@testable import WindowsHives

/// Makes registry hives and logs of them, for tests and fuzzers: every kind of list, name and data, one after the other
/// into bins that are never tidied.
struct HiveBuilder {
    /// A value.
    struct Value {
        var name: String
        var type: UInt32
        var data: [UInt8]

        init(_ name: String, _ type: UInt32, _ data: [UInt8]) {
            (self.name, self.type, self.data) = (name, type, data)
        }
        /// REG_SZ, or another type of text.
        init(_ name: String, _ text: String, type: UInt32 = 1) {
            self.init(name, type, HiveBuilder.wide(text + "\0"))
        }
        /// REG_DWORD.
        init(_ name: String, _ number: UInt32) {
            self.init(name, 4, (0..<4).map { UInt8(truncatingIfNeeded: number >> UInt32(8 * $0)) })
        }
        /// REG_MULTI_SZ.
        init(_ name: String, _ texts: [String]) {
            self.init(name, 7, HiveBuilder.wide(texts.map { $0 + "\0" }.joined() + "\0"))
        }
    }

    /// A key.
    struct Key {
        var name: String
        var values: [Value]
        var subkeys: [Key]
        var className: String?
        var flags: UInt16 = 0

        init(_ name: String, values: [Value] = [], className: String? = nil, _ subkeys: [Key] = []) {
            (self.name, self.values, self.subkeys, self.className) = (name, values, subkeys, className)
        }

        /// Puts a value at `path`, making keys on the way.
        mutating func set(_ path: String, _ value: Value) {
            guard let first = path.split(separator: "\\").first.map(String.init) else {
                values.append(value)
                return
            }
            let rest = String(path.dropFirst(first.count + 1))
            if !subkeys.contains(where: { $0.name == first }) { subkeys.append(Key(first)) }
            for index in subkeys.indices where subkeys[index].name == first { subkeys[index].set(rest, value) }
        }
    }

    /// The kinds of leaves.
    enum Leaf: String, CaseIterable { case lf, lh, li }

    var minorVersion: UInt32 = 5
    var leaf = Leaf.lh
    /// More subkeys than this are spread over leaves with an index root above.
    var leafLength = 500
    /// Whether all names are UTF-16.
    var isWide = false
    var sequences: (UInt32, UInt32) = (7, 7)
    var time: UInt64 = 133_000_000_000_000_000

    private static let security: [UInt8] = [
        1, 0, 4, 0x80, 0x14, 0, 0, 0, 0x24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20,
        2, 0, 0, 1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0,
    ]

    static func wide(_ text: String) -> [UInt8] {
        text.utf16.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
    }

    /// A hive with `root`.
    func build(_ root: Key) -> [UInt8] {
        var bins = Bins(time: time)
        // The root's cell comes first, where some readers look for it whatever the base block says.
        _ = bins.cell("nk", 76 + stored(root.name).bytes.count)
        let rootCell = bins.place
        var descriptor = bins.cell("sk", 20 + HiveBuilder.security.count)
        descriptor.poke(bins.place, at: 4)
        descriptor.poke(bins.place, at: 8)
        descriptor.poke(1 as UInt32, at: 12)
        descriptor.poke(UInt32(HiveBuilder.security.count), at: 16)
        descriptor.replaceSubrange(20..<20 + HiveBuilder.security.count, with: HiveBuilder.security)
        let security = bins.place
        bins.fill(security, descriptor)
        _ = add(root, at: rootCell, above: .max, security, &bins)
        bins.close()
        var block = [UInt8](repeating: 0, count: 4096)
        block.replaceSubrange(0..<4, with: "regf".utf8)
        for (offset, value) in [
            (4, sequences.0), (8, sequences.1), (20, 1), (24, minorVersion), (32, 1), (36, rootCell),
            (40, UInt32(bins.bytes.count)), (44, 1),
        ] { block.poke(value, at: offset) }
        block.poke(time, at: 12)
        block.replaceSubrange(48..<60, with: HiveBuilder.wide("tested"))
        block.poke(HiveHeader.checksum(block), at: 508)
        return block + bins.bytes
    }

    private func stored(_ name: String) -> (bytes: [UInt8], isCompressed: Bool) {
        if !isWide, name.utf16.allSatisfy({ $0 < 0x100 }) {
            return (name.utf16.map { UInt8(truncatingIfNeeded: $0) }, true)
        }
        return (HiveBuilder.wide(name), false)
    }

    private func add(
        _ key: Key, at reserved: UInt32? = nil, above: UInt32, _ security: UInt32, _ bins: inout Bins
    ) -> UInt32 {
        let name = stored(key.name)
        if reserved == nil { _ = bins.cell("nk", 76 + name.bytes.count) }
        let place = reserved ?? bins.place
        var node = Array("nk".utf8) + [UInt8](repeating: 0, count: 74 + name.bytes.count)
        node.poke(key.flags | (name.isCompressed ? 0x20 : 0) | (above == .max ? 0x0C : 0), at: 2)
        node.poke(time + UInt64(place), at: 4)
        node.poke(above == .max ? 0 : above, at: 16)
        node.poke(UInt32(key.subkeys.count), at: 20)
        for offset in [28, 32, 40, 48] { node.poke(UInt32.max, at: offset) }
        node.poke(UInt32(key.values.count), at: 36)
        node.poke(security, at: 44)
        node.poke(UInt16(name.bytes.count), at: 72)
        node.replaceSubrange(76..<76 + name.bytes.count, with: name.bytes)
        if let text = key.className {
            let bytes = HiveBuilder.wide(text)
            node.poke(bins.add(bytes), at: 48)
            node.poke(UInt16(bytes.count), at: 74)
        }
        if !key.values.isEmpty {
            node.poke(bins.add(HiveBuilder.words(key.values.map { add($0, &bins) })), at: 40)
        }
        if !key.subkeys.isEmpty {
            let sorted = key.subkeys.sorted {
                $0.name.utf16.map(SoughtName.upper).lexicographicallyPrecedes($1.name.utf16.map(SoughtName.upper))
            }
            node.poke(list(sorted.map { ($0, add($0, above: place, security, &bins)) }, &bins), at: 28)
        }
        bins.fill(place, node)
        return place
    }

    private func add(_ value: Value, _ bins: inout Bins) -> UInt32 {
        let name = stored(value.name)
        var data = [UInt8](repeating: 0, count: 4)
        var size = UInt32(value.data.count)
        if value.data.count <= 4 {
            data.replaceSubrange(0..<value.data.count, with: value.data)
            size |= 1 << 31
        } else if value.data.count > 16_344, minorVersion > 3 {
            let segments = stride(from: 0, to: value.data.count, by: 16_344).map {
                bins.add(Array(value.data[$0..<min($0 + 16_344, value.data.count)]) + [0, 0, 0, 0])
            }
            let list = bins.add(HiveBuilder.words(segments))
            var record = Array("db".utf8) + [0, 0, 0, 0, 0, 0]
            record.poke(UInt16(segments.count), at: 2)
            record.poke(list, at: 4)
            data.poke(bins.add(record), at: 0)
        } else {
            data.poke(bins.add(value.data), at: 0)
        }
        var record = bins.cell("vk", 20 + name.bytes.count)
        let place = bins.place
        record.poke(UInt16(name.bytes.count), at: 2)
        record.poke(size, at: 4)
        record.replaceSubrange(8..<12, with: data)
        record.poke(value.type, at: 12)
        record.poke(name.isCompressed && !name.bytes.isEmpty ? 1 : 0 as UInt16, at: 16)
        record.replaceSubrange(20..<20 + name.bytes.count, with: name.bytes)
        bins.fill(place, record)
        return place
    }

    private func list(_ keys: [(Key, UInt32)], _ bins: inout Bins) -> UInt32 {
        let leaves = stride(from: 0, to: keys.count, by: leafLength).map { start in
            let some = keys[start..<min(start + leafLength, keys.count)]
            var record = Array(leaf.rawValue.utf8) + [0, 0]
            record.poke(UInt16(some.count), at: 2)
            for (key, place) in some {
                record += HiveBuilder.words([place])
                switch leaf {
                case .li: break
                case .lh:
                    record += HiveBuilder.words([
                        key.name.utf16.map(SoughtName.upper).reduce(0) { $0 &* 37 &+ UInt32($1) }
                    ])
                case .lf:
                    let hint = key.name.utf16.prefix(4)
                    let isPlain = hint.allSatisfy { $0 < 0x80 }
                    record += (0..<4).map {
                        isPlain && $0 < hint.count ? UInt8(truncatingIfNeeded: Array(hint)[$0]) : 0
                    }
                }
            }
            return bins.add(record)
        }
        guard leaves.count > 1 else { return leaves[0] }
        var root = Array("ri".utf8) + [0, 0]
        root.poke(UInt16(leaves.count), at: 2)
        return bins.add(root + HiveBuilder.words(leaves))
    }

    static func words(_ values: [UInt32]) -> [UInt8] {
        values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) } }
    }

    /// Bins that fill up.
    private struct Bins {
        let time: UInt64
        var bytes: [UInt8] = []
        /// Where the present bin's free room begins.
        private var next = 0
        /// Where the cell lies that was made last.
        private(set) var place: UInt32 = 0

        init(time: UInt64) { self.time = time }

        /// Room for a cell of `count` bytes; its content so far, `signature` and zeros.
        mutating func cell(_ signature: String, _ count: Int) -> [UInt8] {
            let size = (count + 4 + 7) / 8 * 8
            if next + size > bytes.count {
                close()
                next = bytes.count
                let length = (size + 32 + 4095) / 4096 * 4096
                bytes += [UInt8](repeating: 0, count: length)
                bytes.replaceSubrange(next..<next + 4, with: "hbin".utf8)
                bytes.poke(UInt32(next), at: next + 4)
                bytes.poke(UInt32(length), at: next + 8)
                if next == 0 { bytes.poke(time, at: 20) }
                next += 32
            }
            place = UInt32(next)
            bytes.poke(Int32(-size), at: next)
            next += size
            return Array(signature.utf8) + [UInt8](repeating: 0, count: count - signature.utf8.count)
        }

        mutating func fill(_ place: UInt32, _ content: [UInt8]) {
            bytes.replaceSubrange(Int(place) + 4..<Int(place) + 4 + content.count, with: content)
        }

        /// A cell with `content`.
        mutating func add(_ content: [UInt8]) -> UInt32 {
            _ = cell("", content.count)
            fill(place, content)
            return place
        }

        /// What is left of the present bin is a free cell.
        mutating func close() {
            if next < bytes.count { bytes.poke(Int32(bytes.count - next), at: next) }
            next = bytes.count
        }
    }
}

/// Makes logs that turn one hive into another.
enum LogBuilder {
    /// The pages of `size` bytes in which the bins of `new` differ from those of `old`.
    static func pages(_ old: [UInt8], _ new: [UInt8], size: Int = 4096) -> [Int] {
        stride(from: 4096, to: new.count, by: size).filter {
            $0 + size > old.count || old[$0..<$0 + size] != new[$0..<$0 + size]
        }.map { $0 - 4096 }
    }

    /// The base block of a log of type `type`, of the hive `hive`.
    static func head(_ hive: [UInt8], type: UInt32, sequence: UInt32) -> [UInt8] {
        var block = Array(hive[..<512])
        block.poke(sequence, at: 4)
        block.poke(sequence, at: 8)
        block.poke(type, at: 28)
        block.poke(HiveHeader.checksum(block), at: 508)
        return block
    }

    /// An entry with the pages of `hive` at `pages`.
    static func entry(_ hive: [UInt8], pages: [Int], sequence: UInt32, size: Int = 4096, flags: UInt32 = 0) -> [UInt8] {
        var bytes = Array("HvLE".utf8) + [UInt8](repeating: 0, count: 36)
        bytes.poke(flags, at: 8)
        bytes.poke(sequence, at: 12)
        bytes.poke(UInt32(hive.count - 4096), at: 16)
        bytes.poke(UInt32(pages.count), at: 20)
        for page in pages { bytes += HiveBuilder.words([UInt32(page), UInt32(size)]) }
        for page in pages { bytes += hive[4096 + page..<4096 + page + size] }
        bytes += [UInt8](repeating: 0, count: (512 - bytes.count % 512) % 512)
        bytes.poke(UInt32(bytes.count), at: 4)
        mend(&bytes)
        return bytes
    }

    /// The hashes of an entry.
    static func mend(_ entry: inout [UInt8]) {
        guard entry.count >= 40 else { return }
        entry.poke(Marvin32.hash(entry[40...]), at: 24)
        entry.poke(Marvin32.hash(entry[..<32]), at: 32)
    }

    /// A log of the old format that turns `old` into `new`, both of the same size.
    static func dirtyVector(_ old: [UInt8], _ new: [UInt8], sequence: UInt32) -> [UInt8] {
        let pages = pages(old, new, size: 512)
        let bits = (new.count - 4096) / 512
        var vector = Array("DIRT".utf8) + [UInt8](repeating: 0, count: (bits + 7) / 8)
        for page in pages { vector[4 + page / 512 / 8] |= 1 << UInt8(page / 512 % 8) }
        vector += [UInt8](repeating: 0xFF, count: (512 - vector.count % 512) % 512)
        var log = head(new, type: 1, sequence: sequence) + vector
        for page in pages { log += new[4096 + page..<4096 + page + 512] }
        return log
    }
}

extension [UInt8] {
    /// Stores `value` little-endian at `offset`.
    fileprivate mutating func poke<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        for index in 0..<T.bitWidth / 8 { self[offset + index] = UInt8(truncatingIfNeeded: value >> T(8 * index)) }
    }
}
