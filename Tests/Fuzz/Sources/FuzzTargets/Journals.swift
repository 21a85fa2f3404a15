// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// JBD2 journals for the seeds of ext, of blocks of 1 KiB: written here byte by byte.
enum JournalSeeds {
    private static let block = 1024
    private static let magic: UInt32 = 0xC03B_3998
    private static let checksum3: UInt32 = 0x10

    /// The checksum as JBD2 counts it: CRC-32C without the inversions.
    private static func crc(_ seed: UInt32, _ bytes: [UInt8]) -> UInt32 {
        ~(unsafe CRC32.castagnoli.checksum(bytes.span.bytes, continuing: ~seed))
    }

    /// A block of the journal.
    private static func begin(_ type: UInt32, _ sequence: UInt32) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: block)
        bytes.putBig(magic, at: 0)
        bytes.putBig(type, at: 4)
        bytes.putBig(sequence, at: 8)
        return bytes
    }

    /// Writes two transactions and the start of a third into the empty journal of `image`, whose blocks are `journal`, from
    /// its block `first` on, behind which a dozen lie in one piece; notes in both superblocks that they wait. The first
    /// block bitmap gets a block more, and the last blocks of the filesystem new contents, one of which is escaped and one
    /// revoked.
    static func fill(_ image: inout [UInt8], journal: [Int], from first: Int) {
        guard journal.count > first + 12, journal[first + 12] == journal[first] + 12 else { return }
        let start = journal[0] * block
        let features = image.big(UInt32.self, at: start + 40)
        let hasChecksums = features & checksum3 != 0
        // The first group descriptor names the block bitmap.
        let bitmap = Int(image.number(UInt32.self, at: 2 * block))
        let last = image.count / block - 1
        var next = journal[first] * block
        // What is not zero is said in an input, and can be mended there.
        let placeholder: UInt32 = hasChecksums ? .max : 0
        func write(_ bytes: [UInt8], checksum: Int? = nil) {
            var bytes = bytes
            if let checksum { bytes.putBig(placeholder, at: checksum) }
            image.replaceSubrange(next..<next + block, with: bytes)
            next += block
        }
        func describe(_ sequence: UInt32, _ blocks: [(target: Int, isEscaped: Bool, content: [UInt8])]) {
            var descriptor = begin(1, sequence)
            var position = 12
            for (index, item) in blocks.enumerated() {
                let flags = (item.isEscaped ? 1 : 0) | (index > 0 ? 2 : 0) | (index + 1 == blocks.count ? 8 : 0)
                descriptor.putBig(UInt32(item.target), at: position)
                if hasChecksums {
                    descriptor.putBig(UInt32(flags), at: position + 4)
                    descriptor.putBig(placeholder, at: position + 12)
                } else {
                    descriptor.putBig(UInt16(flags), at: position + 6)
                }
                position += (hasChecksums ? 16 : features & 2 != 0 ? 12 : 8) + (index == 0 ? 16 : 0)
            }
            write(descriptor, checksum: block - 4)
            for item in blocks { write(item.content) }
        }
        let text = { (byte: UInt8) in
            [UInt8](repeating: byte, count: 16) + [UInt8](repeating: 0, count: block - 16)
        }
        // A bitmap with another checksum than its descriptor's would be damage.
        var changed = Array(image[bitmap * block..<(bitmap + 1) * block])
        if !hasChecksums { changed[(last - 4) / 8] |= 1 << UInt8((last - 4) % 8 - 1) }
        describe(
            1,
            [(bitmap, false, changed), (last, true, [0, 0, 0, 0] + text(1).dropFirst(4)), (last - 1, false, text(2))])
        write(begin(2, 1), checksum: 16)
        var revoke = begin(5, 2)
        let width = features & 2 != 0 ? 8 : 4
        revoke.putBig(UInt32(16 + width), at: 12)
        revoke.putBig(UInt32(last - 1), at: 16 + width - 4)
        write(revoke, checksum: block - 4)
        describe(2, [(last - 2, false, text(3))])
        write(begin(2, 2), checksum: 16)
        describe(3, [(last - 3, false, text(4))])
        image.putBig(placeholder, at: start + 252)
        image.putBig(1 as UInt32, at: start + 24)
        image.putBig(UInt32(first), at: start + 28)
        image.put(image.number(UInt32.self, at: 1024 + 0x60) | 4, at: 1024 + 0x60)
    }

    /// The checksums of a journal in an input, where it has them; a journal that lies in one piece.
    static func mend(_ disk: inout SparseEditor) {
        let places = stride(from: 0, to: min(disk.length, 4 << 20), by: block).filter {
            disk.bytes($0, 4).big(UInt32.self, at: 0) == magic
        }
        guard let start = places.first(where: { disk.bytes($0, 8).big(UInt32.self, at: 4) == 4 }) else { return }
        var superblock = disk.bytes(start, block)
        guard superblock.big(UInt32.self, at: 40) & checksum3 != 0 else { return }
        superblock.putBig(0 as UInt32, at: 252)
        superblock.putBig(crc(.max, superblock), at: 252)
        disk.store(start, superblock)
        let seed = crc(.max, Array(superblock[48..<64]))
        for place in places where place != start {
            var bytes = disk.bytes(place, block)
            let number = Array(bytes[8..<12])
            func finish(_ field: Int) {
                bytes.putBig(0 as UInt32, at: field)
                bytes.putBig(crc(seed, bytes), at: field)
            }
            switch bytes.big(UInt32.self, at: 4) {
            case 1:
                var position = 12
                var content = place
                while position + 16 <= block - 4 {
                    let flags = bytes.big(UInt32.self, at: position + 4)
                    content += UInt64(block)
                    bytes.putBig(crc(crc(seed, number), disk.bytes(content, block)), at: position + 12)
                    position += 16 + (flags & 2 == 0 ? 16 : 0)
                    if flags & 8 != 0 { break }
                }
                finish(block - 4)
            case 2: finish(16)
            case 5: finish(block - 4)
            default: continue
            }
            disk.store(place, bytes)
        }
    }
}
