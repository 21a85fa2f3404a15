// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Makes HFS+ volumes as TN1150 describes them: Debian has no program that does. One catalog node holds a few files,
/// each in pieces with free blocks between them.
struct HFSPlusImage {
    var blockSize = 4096
    var blocks = 4096
    var isHFSX = false
    /// Whether there is a journal, and whether it waits to be replayed.
    var journal: Journal?
    var isUnmounted = true
    /// Names, in order, with contents.
    var files: [(name: String, bytes: [UInt8])] = []

    enum Journal { case empty, waiting, uninitialised, elsewhere, bigEndian }

    private static let nodeSize = 8192
    private static let date: UInt32 = 3_700_000_000

    /// The volume's bytes, and its blocks in use.
    func made() -> (bytes: [UInt8], used: Set<Int>) {
        var disk = [UInt8](repeating: 0, count: blocks * blockSize)
        var used: Set<Int> = []
        var next = 0
        func put(_ bytes: [UInt8], at offset: Int) { disk.replaceSubrange(offset..<offset + bytes.count, with: bytes) }
        func take(_ count: Int) -> Range<Int> {
            let range = next..<next + count
            used.formUnion(range)
            next += count
            return range
        }
        func blocksFor(_ bytes: Int) -> Int { (bytes + blockSize - 1) / blockSize }

        // Boot blocks and header; the copy of the header in the last 1024 bytes.
        _ = take(blocksFor(1536))
        used.formUnion((disk.count - 1024) / blockSize..<blocks)
        let bitmap = take(blocksFor((blocks + 7) / 8))
        let extents = take(blocksFor(HFSPlusImage.nodeSize))
        let catalog = take(blocksFor(4 * HFSPlusImage.nodeSize))
        var journalBlock = 0
        if let journal {
            journalBlock = take(1).lowerBound
            let place = take(blocksFor(65_536))
            var info: [UInt8] = []
            info.big(UInt32(journal == .uninitialised ? 5 : journal == .elsewhere ? 2 : 1))
            info += [UInt8](repeating: 0, count: 32)
            info.big(UInt64(place.lowerBound * blockSize))
            info.big(UInt64(65_536))
            put(info, at: journalBlock * blockSize)
            if journal != .uninitialised {
                var head: [UInt8] = []
                let values32: [UInt32] = [0x4A4E_4C78, 0x1234_5678]
                let values64: [UInt64] = [512, journal == .waiting ? 4096 : 512, 65_536]
                for value in values32 { head.big(journal == .bigEndian ? value : value.byteSwapped) }
                for value in values64 { head.big(journal == .bigEndian ? value : value.byteSwapped) }
                put(head, at: place.lowerBound * blockSize)
            }
        }

        var leaf = Leaf()
        let volumeName = Array("label".utf16)
        leaf.add(parent: 1, volumeName, folder(files.count))
        leaf.add(parent: 2, [], thread(3, parent: 1, volumeName))
        var threads: [(UInt32, [UInt8])] = []
        for (index, file) in files.enumerated() {
            let number = UInt32(16 + index)
            // Up to four pieces, every other run of blocks left free.
            let need = blocksFor(file.bytes.count)
            var pieces: [Range<Int>] = []
            var done = 0
            while done < need {
                let count = pieces.count == 3 ? need - done : min(need - done, max(1, need / 4))
                let piece = take(count)
                pieces.append(piece)
                let bytes = file.bytes.dropFirst(done * blockSize).prefix(count * blockSize)
                put(Array(bytes), at: piece.lowerBound * blockSize)
                done += count
                next += 1 + index % 3
            }
            let name = Array(file.name.utf16)
            leaf.add(parent: 2, name, record(number, fork(file.bytes.count, need, pieces)))
            threads.append((number, thread(4, parent: 2, name)))
        }
        for (number, thread) in threads { leaf.add(parent: number, [], thread) }

        put(tree(nodes: 1, leaf: nil), at: extents.lowerBound * blockSize)
        put(tree(nodes: 4, leaf: leaf), at: catalog.lowerBound * blockSize)
        put(leaf.node(), at: catalog.lowerBound * blockSize + HFSPlusImage.nodeSize)
        var map = [UInt8](repeating: 0, count: (blocks + 7) / 8)
        for block in used { map[block / 8] |= 0x80 >> UInt8(block % 8) }
        put(map, at: bitmap.lowerBound * blockSize)

        var header: [UInt8] = []
        header.big(isHFSX ? 0x4858 : 0x482B as UInt16)
        header.big(isHFSX ? 5 : 4 as UInt16)
        header.big((isUnmounted ? 0x100 : 0 as UInt32) | (journal == nil ? 0 : 0x2000))
        header += Array((journal == nil ? "10.0" : "HFSJ").utf8)
        header.big(UInt32(journalBlock))
        for _ in 0..<4 { header.big(HFSPlusImage.date) }
        let rest: [UInt32] = [
            UInt32(files.count), 0, UInt32(blockSize), UInt32(blocks), UInt32(blocks - used.count), UInt32(next),
            65_536,
            65_536, UInt32(16 + files.count), 1, 0, 1,
        ]
        for value in rest { header.big(value) }
        header += [UInt8](repeating: 0, count: 32)
        header += fork(bitmap.count * blockSize, bitmap.count, [bitmap])
        header += fork(extents.count * blockSize, extents.count, [extents])
        header += fork(catalog.count * blockSize, catalog.count, [catalog])
        header += fork(0, 0, []) + fork(0, 0, [])
        put(header, at: 1024)
        put(header, at: disk.count - 1024)
        return (disk, used)
    }

    /// `volume` in an HFS wrapper with allocation blocks of 4 KiB.
    static func wrapped(_ volume: [UInt8]) -> [UInt8] {
        var block: [UInt8] = Array("BD".utf8)
        block += [UInt8](repeating: 0, count: 16)
        block.big(UInt16(volume.count / 4096 + 4))
        block.big(4096 as UInt32)
        block += [UInt8](repeating: 0, count: 4)
        block.big(16 as UInt16)
        block += [UInt8](repeating: 0, count: 94)
        block += Array("H+".utf8)
        block.big(4 as UInt16)
        block.big(UInt16(volume.count / 4096))
        var disk = [UInt8](repeating: 0x11, count: 8192 + 4 * 4096)
        disk.replaceSubrange(1024..<1024 + block.count, with: block)
        return disk + volume + [UInt8](repeating: 0x22, count: 4096)
    }

    private func fork(_ size: Int, _ blocks: Int, _ pieces: [Range<Int>]) -> [UInt8] {
        var result: [UInt8] = []
        result.big(UInt64(size))
        result.big(UInt32(65_536))
        result.big(UInt32(blocks))
        for piece in pieces {
            result.big(UInt32(piece.lowerBound))
            result.big(UInt32(piece.count))
        }
        return result + [UInt8](repeating: 0, count: 80 - result.count)
    }

    /// Dates, permissions and Finder information of a file or folder.
    private func common(_ mode: UInt16) -> [UInt8] {
        var result: [UInt8] = []
        for _ in 0..<5 { result.big(HFSPlusImage.date) }
        result += [UInt8](repeating: 0, count: 10)
        result.big(mode)
        result.big(1 as UInt32)
        return result + [UInt8](repeating: 0, count: 32 + 8)
    }

    private func folder(_ items: Int) -> [UInt8] {
        var result: [UInt8] = []
        result.big(1 as UInt16)
        result.big(0 as UInt16)
        result.big(UInt32(items))
        result.big(2 as UInt32)
        return result + common(0o40755)
    }

    private func record(_ number: UInt32, _ data: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        result.big(2 as UInt16)
        result.big(2 as UInt16)
        result.big(0 as UInt32)
        result.big(number)
        return result + common(0o100644) + data + fork(0, 0, [])
    }

    private func thread(_ kind: UInt16, parent: UInt32, _ name: [UInt16]) -> [UInt8] {
        var result: [UInt8] = []
        result.big(kind)
        result.big(0 as UInt16)
        result.big(parent)
        result.big(UInt16(name.count))
        for letter in name { result.big(letter) }
        return result
    }

    /// A B-tree's header node.
    private func tree(nodes: Int, leaf: Leaf?) -> [UInt8] {
        let isCatalog = leaf != nil
        var node = [UInt8](repeating: 0, count: 8) + [1, 0, 0, 3, 0, 0]
        node.big(isCatalog ? 1 : 0 as UInt16)
        for value in [isCatalog ? 1 : 0, leaf?.records.count ?? 0, isCatalog ? 1 : 0, isCatalog ? 1 : 0] {
            node.big(UInt32(value))
        }
        node.big(UInt16(HFSPlusImage.nodeSize))
        node.big(isCatalog ? 516 : 10 as UInt16)
        node.big(UInt32(nodes))
        node.big(UInt32(nodes - (isCatalog ? 2 : 1)))
        node.big(0 as UInt16)
        node.big(65_536 as UInt32)
        node += [0, isCatalog && isHFSX ? 0xBC : isCatalog ? 0xCF : 0]
        node.big(isCatalog ? 6 : 2 as UInt32)
        node += [UInt8](repeating: 0, count: 64 + 128)
        node.append(isCatalog ? 0xC0 : 0x80)
        node += [UInt8](repeating: 0, count: HFSPlusImage.nodeSize - node.count - 8)
        for offset in [HFSPlusImage.nodeSize - 8, 248, 120, 14] { node.big(UInt16(offset)) }
        return node
    }

    private struct Leaf {
        var records: [[UInt8]] = []

        mutating func add(parent: UInt32, _ name: [UInt16], _ data: [UInt8]) {
            var record: [UInt8] = []
            record.big(UInt16(6 + 2 * name.count))
            record.big(parent)
            record.big(UInt16(name.count))
            for letter in name { record.big(letter) }
            records.append(record + data)
        }

        func node() -> [UInt8] {
            var node = [UInt8](repeating: 0, count: 8) + [0xFF, 1]
            node.big(UInt16(records.count))
            node += [0, 0]
            var offsets: [Int] = []
            for record in records {
                offsets.append(node.count)
                node += record
            }
            offsets.append(node.count)
            node += [UInt8](repeating: 0, count: HFSPlusImage.nodeSize - node.count - 2 * offsets.count)
            for offset in offsets.reversed() { node.big(UInt16(offset)) }
            return node
        }
    }
}

extension [UInt8] {
    /// Appends `value` big-endian.
    mutating func big<T: FixedWidthInteger>(_ value: T) {
        for shift in stride(from: T.bitWidth - 8, through: 0, by: -8) {
            append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }
}
