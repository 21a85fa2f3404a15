// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// The entries of a FAT directory, read in order. Microsoft, FAT32 File System Specification 1.03, pages 22 to 33.
package struct FATDirectory {
    /// A file or directory.
    package struct Entry {
        /// Its long name where it has one, safe to print.
        package var name: String
        package var isDirectory: Bool
        /// DIR_FstClusHI and LO; 0 for an empty file.
        package var cluster: UInt32
        /// DIR_FileSize, bytes.
        package var size: UInt32
        /// DIR_Attr.
        package var attributes: UInt8

        /// An entry.
        package init(name: String, isDirectory: Bool, cluster: UInt32, size: UInt32, attributes: UInt8 = 0) {
            self.name = name
            self.isDirectory = isDirectory
            self.cluster = cluster
            self.size = size
            self.attributes = attributes
        }
    }

    private var long: [[UInt16]] = []
    private var longSum: UInt8 = 0
    /// Whether the entry that ends the directory was met.
    package private(set) var hasEnded = false

    /// A directory of which nothing was read.
    package init() {}

    /// Hands the entries in `bytes` (the directory's next cluster) to `body` until that returns false.
    package mutating func read(_ bytes: [UInt8], is32: Bool, _ body: (Entry) -> Bool) {
        var offset = 0
        while offset + 32 <= bytes.count, !hasEnded {
            let raw = Array(bytes[offset..<offset + 32])
            offset += 32
            switch raw[0] {
            case 0:
                hasEnded = true
                return
            case 0xE5:
                long = []
                continue
            default: break
            }
            let attributes = raw[11] & 0x3F
            if attributes == 0x0F {
                takeLong(raw)
                continue
            }
            defer { long = [] }
            // A volume's label; and the directory's own and its parent's entry.
            if attributes & 0x08 != 0 || raw[0] == UInt8(ascii: ".") { continue }
            let span = unsafe raw.span.bytes
            guard let high = try? span.littleEndian(UInt16.self, "DIR_FstClusHI", at: 20),
                let low = try? span.littleEndian(UInt16.self, "DIR_FstClusLO", at: 26),
                let size = try? span.littleEndian(UInt32.self, "DIR_FileSize", at: 28)
            else { continue }
            let entry = Entry(
                name: name(raw), isDirectory: attributes & 0x10 != 0,
                cluster: UInt32(low) | (is32 ? UInt32(high & 0x0FFF) << 16 : 0), size: size, attributes: attributes)
            if !body(entry) { return }
        }
    }

    /// Keeps a part of a long name; the last part comes first.
    private mutating func takeLong(_ raw: [UInt8]) {
        let number = Int(raw[0] & 0x3F)
        if raw[0] & 0x40 != 0 {
            long = []
            longSum = raw[13]
        } else if long.isEmpty {
            return
        }
        guard number > 0, number <= 20, raw[13] == longSum else {
            long = []
            return
        }
        let places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]
        long.append(places.map { UInt16(raw[$0]) | UInt16(raw[$0 + 1]) << 8 })
    }

    private func name(_ raw: [UInt8]) -> String {
        var sum: UInt8 = 0
        for byte in raw[0..<11] { sum = (sum >> 1 | sum << 7) &+ byte }
        if !long.isEmpty, sum == longSum {
            let units = long.reversed().joined().prefix { $0 != 0 }
            if !units.isEmpty { return SafeText.name(String(decoding: units, as: UTF16.self)) }
        }
        func part(_ bytes: ArraySlice<UInt8>, _ isLower: Bool) -> [UInt8] {
            var kept = Array(bytes)
            while kept.last == 0x20 { kept.removeLast() }
            return isLower ? kept.map { (0x41...0x5A).contains($0) ? $0 + 0x20 : $0 } : kept
        }
        var base = raw[0..<8]
        // The first byte of a name may be E5 in itself; 05 stands for it.
        if base[0] == 0x05 { base[0] = 0xE5 }
        let tail = part(raw[8..<11], raw[12] & 0x10 != 0)
        return SafeText.name(part(base, raw[12] & 0x08 != 0) + (tail.isEmpty ? [] : [UInt8(ascii: ".")] + tail))
    }
}
