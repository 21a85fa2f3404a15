// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// Where everything lies in the parity section of a pack; see `docs/image-format.md`, section 5.4.
///
/// The *body* of a pack is all before the section: header and records. It is cut into blocks; block i belongs to group
/// i mod ``groups``, so that a stretch of damage is spread over all groups. Each group has ``parityPerGroup`` parity
/// blocks and survives the loss of as many of its blocks, of whichever kind.
struct ParityLayout: Hashable, Sendable {
    /// Bytes of the body, a multiple of 16.
    let bodyLength: Int
    /// Blocks of the body; the last is taken as filled up with zeros.
    let dataBlocks: Int
    let groups: Int
    /// Data blocks in the largest group; the others have one less.
    let dataPerGroup: Int
    let parityPerGroup: Int

    static let blockSize = 4096
    /// Most data and parity blocks of a group together.
    static let maximumGroup = 255
    /// Most parity blocks writers give a group: the work grows with their number, and above this the groups are strong
    /// enough.
    private static let mostParity = 32
    static let percents = 1...50
    /// Bytes of a block's check: of its SHA-256.
    static let checkSize = 8

    var parityBlocks: Int { groups * parityPerGroup }
    /// Data blocks, then parity blocks.
    var blocks: Int { dataBlocks + parityBlocks }
    /// Bytes of a table of checks.
    var tableSize: Int { (blocks * ParityLayout.checkSize + 15) / 16 * 16 }

    // From the start of the pack.
    var firstHeader: Int { bodyLength }
    var firstTable: Int { firstHeader + ParityHeader.size }
    var parity: Int { firstTable + tableSize }
    var secondTable: Int { parity + parityBlocks * ParityLayout.blockSize }
    var secondHeader: Int { secondTable + tableSize }
    /// Where the section ends.
    var end: Int { secondHeader + ParityHeader.size }
    /// Bytes of the section.
    var size: Int { end - bodyLength }

    /// The layout a writer uses for a body of `bodyLength` bytes. `nil` unless the body has a multiple of 16 bytes, the
    /// pack stays below 4 GiB, and `percent` is one of ``percents``.
    ///
    /// Groups are as large as they can be, since larger groups survive more patterns of damage. A group has two parity
    /// blocks at least (one, if it has one data block), so that damage across a border of blocks is survived in the
    /// smallest pack too.
    init?(bodyLength: Int, percent: Int) {
        guard bodyLength > 0, bodyLength <= Int(UInt32.max), bodyLength.isMultiple(of: 16),
            ParityLayout.percents.contains(percent)
        else { return nil }
        let full = max(2, min(ParityLayout.mostParity, ParityLayout.maximumGroup * percent / (100 + percent)))
        let largest = min(ParityLayout.maximumGroup - full, 100 * full / percent)
        let blocks = (bodyLength + ParityLayout.blockSize - 1) / ParityLayout.blockSize
        let groups = (blocks + largest - 1) / largest
        let data = (blocks + groups - 1) / groups
        self.init(bodyLength, blocks, groups, data, max((data * percent + 99) / 100, min(2, data)))
        guard end <= Int(UInt32.max) else { return nil }
    }

    private init(_ bodyLength: Int, _ blocks: Int, _ groups: Int, _ data: Int, _ parity: Int) {
        self.bodyLength = bodyLength
        self.dataBlocks = blocks
        self.groups = groups
        self.dataPerGroup = data
        self.parityPerGroup = parity
    }

    /// What a header says, if the numbers fit each other. Every size that follows from them is then below 4 GiB, and
    /// that of a table below 17 MiB.
    init(bodyLength: UInt64, dataBlocks: UInt32, groups: UInt32, dataPerGroup: UInt16, parityPerGroup: UInt16)
        throws(FieldError)
    {
        let block = UInt64(ParityLayout.blockSize)
        guard bodyLength > 0, bodyLength <= UInt64(UInt32.max), bodyLength.isMultiple(of: 16),
            UInt64(dataBlocks) == (bodyLength + block - 1) / block
        else {
            throw .invalid(
                field: "body length and data blocks", at: 32, seen: "\(bodyLength), \(dataBlocks)",
                expected: "a multiple of 16 below 4 GiB and the blocks it makes")
        }
        guard groups > 0, groups <= dataBlocks, parityPerGroup > 0,
            UInt64(dataPerGroup) == (UInt64(dataBlocks) + UInt64(groups) - 1) / UInt64(groups),
            Int(dataPerGroup) + Int(parityPerGroup) <= ParityLayout.maximumGroup
        else {
            throw .invalid(
                field: "groups, data and parity blocks of a group", at: 44,
                seen: "\(groups), \(dataPerGroup), \(parityPerGroup)",
                expected: "numbers that fit each other, at most \(ParityLayout.maximumGroup) blocks in a group")
        }
        self.init(Int(bodyLength), Int(dataBlocks), Int(groups), Int(dataPerGroup), Int(parityPerGroup))
        guard end <= Int(UInt32.max) else {
            throw .invalid(field: "parity section", at: 32, seen: "\(end)", expected: "an end below 4 GiB")
        }
    }

    /// Where block `index` lies in the pack: data blocks first, then parity blocks. The last data block ends with the
    /// body.
    func range(_ index: Int) -> Range<Int> {
        if index < dataBlocks {
            let start = index * ParityLayout.blockSize
            return start..<min(start + ParityLayout.blockSize, bodyLength)
        }
        let start = parity + (index - dataBlocks) * ParityLayout.blockSize
        return start..<start + ParityLayout.blockSize
    }

    /// The group of block `index`. Parity blocks are spread like data blocks.
    func group(_ index: Int) -> Int { (index < dataBlocks ? index : index - dataBlocks) % groups }

    /// The number of data blocks of `group`.
    func dataBlocks(of group: Int) -> Int { (dataBlocks - group + groups - 1) / groups }

    /// The data block in `column` of `group`.
    func data(_ group: Int, _ column: Int) -> Int { column * groups + group }

    /// The parity block in `row` of `group`.
    func parity(_ group: Int, _ row: Int) -> Int { dataBlocks + row * groups + group }
}
