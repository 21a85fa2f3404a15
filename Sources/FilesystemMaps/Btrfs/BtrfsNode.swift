// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import MachineModel

/// What an item is found by: sorted by object, then type, then offset.
struct BtrfsKey: Hashable, Comparable {
    var object: UInt64
    var type: UInt8
    var offset: UInt64

    static let least = BtrfsKey(object: 0, type: 0, offset: 0)
    static let most = BtrfsKey(object: .max, type: .max, offset: .max)
    static let size = 17

    static func < (left: BtrfsKey, right: BtrfsKey) -> Bool {
        (left.object, left.type, left.offset) < (right.object, right.type, right.offset)
    }
}

/// Types of items that are looked at.
enum BtrfsItem {
    static let extentData: UInt8 = 108
    static let root: UInt8 = 132
    static let extent: UInt8 = 168
    static let metadata: UInt8 = 169
    static let blockGroup: UInt8 = 192
    static let device: UInt8 = 216
    static let chunk: UInt8 = 228
}

/// A block of a tree whose checksum, place and age are right. Linux, include/uapi/linux/btrfs_tree.h
/// (`struct btrfs_header`, `btrfs_leaf`, `btrfs_node`).
struct BtrfsNode {
    let fields: Fields
    /// 0 for a leaf.
    let level: UInt8
    /// Number of items or children.
    let count: Int

    static let head = 101
    private static let itemSize = 25
    private static let childSize = 33

    /// The block in `fields`; its level and number of items must be possible.
    init(_ fields: Fields) throws(MapProblem) {
        self.fields = fields
        level = try fields.little(UInt8.self, "level", at: 100)
        let count = try fields.little(UInt32.self, "nritems", at: 96)
        let most = (fields.bytes.count - BtrfsNode.head) / (level == 0 ? BtrfsNode.itemSize : BtrfsNode.childSize)
        guard level < BtrfsSuperblock.levels, let number = Int(exactly: count), number <= most else {
            throw .damaged("\(fields.name.capitalizedFirst) has \(count) items on level \(level).")
        }
        self.count = number
    }

    /// The key of item or child `index`.
    func key(_ index: Int) throws(MapProblem) -> BtrfsKey {
        try BtrfsNode.key(
            fields, at: BtrfsNode.head + index * (level == 0 ? BtrfsNode.itemSize : BtrfsNode.childSize))
    }

    static func key(_ fields: Fields, at offset: Int) throws(MapProblem) -> BtrfsKey {
        BtrfsKey(
            object: try fields.little(UInt64.self, "objectid", at: offset),
            type: try fields.little(UInt8.self, "type", at: offset + 8),
            offset: try fields.little(UInt64.self, "offset", at: offset + 9))
    }

    /// The logical address of child `index`, and the transaction that wrote it.
    func child(_ index: Int) throws(MapProblem) -> (address: UInt64, generation: UInt64) {
        let at = BtrfsNode.head + index * BtrfsNode.childSize + BtrfsKey.size
        return (
            try fields.little(UInt64.self, "blockptr", at: at),
            try fields.little(UInt64.self, "generation", at: at + 8)
        )
    }

    /// The content of item `index` of a leaf.
    func item(_ index: Int) throws(MapProblem) -> Fields {
        let at = BtrfsNode.head + index * BtrfsNode.itemSize + BtrfsKey.size
        let offset = try fields.little(UInt32.self, "item.offset", at: at)
        let size = try fields.little(UInt32.self, "item.size", at: at + 4)
        return Fields(
            "an item of \(fields.name)",
            try fields.bytes("item", at: BtrfsNode.head + Int(offset), count: Int(size)))
    }
}

/// A tree, by its root.
struct BtrfsTree {
    /// What the owner field of its blocks has.
    let owner: UInt64
    /// What to call it, in the middle of a sentence.
    let name: String
    let root: UInt64
    let level: UInt8
    let generation: UInt64

    static let roots: UInt64 = 1
    static let extents: UInt64 = 2
    static let chunks: UInt64 = 3
    static let blockGroups: UInt64 = 11
    static let log = UInt64(bitPattern: -6)

    /// Receives an item: its key, its leaf, its index there.
    typealias Visitor = (BtrfsKey, BtrfsNode, Int) throws(MapProblem) -> Void

    /// Visits the items between two keys in rising order. `block` receives the address of each block met.
    ///
    /// Keys rise from leaf to leaf and no leaf but a root is empty, so that a block met twice is found at once; levels
    /// fall, which bounds the depth.
    func walk(
        _ volume: BtrfsVolume, from first: BtrfsKey = .least, through last: BtrfsKey = .most,
        block: (UInt64) throws(MapProblem) -> Void = { _ throws(MapProblem) in }, _ visit: Visitor
    ) throws(MapProblem) {
        var walk = Walk(first: first, last: last)
        try step(volume, root, level, generation, lowest: nil, &walk, block, visit)
    }

    private struct Walk {
        let first: BtrfsKey
        let last: BtrfsKey
        /// The last key seen in a leaf.
        var told: BtrfsKey?
    }

    private func step(
        _ volume: BtrfsVolume, _ address: UInt64, _ level: UInt8, _ generation: UInt64, lowest: BtrfsKey?,
        _ walk: inout Walk, _ block: (UInt64) throws(MapProblem) -> Void, _ visit: Visitor
    ) throws(MapProblem) {
        let node = try volume.node(address, level: level, generation: generation, of: self)
        let name = node.fields.name
        try block(address)
        guard node.count > 0 || lowest == nil && level == 0 else {
            throw .damaged("\(name.capitalizedFirst) is empty.")
        }
        if let lowest, try node.key(0) != lowest { throw .damaged("\(name.capitalizedFirst) is not the one meant.") }
        if level == 0 {
            for index in 0..<node.count {
                let key = try node.key(index)
                if let told = walk.told, key <= told { throw .damaged("The items of \(name) are not in order.") }
                walk.told = key
                if key >= walk.first, key <= walk.last { try visit(key, node, index) }
            }
            return
        }
        var key = try node.key(0)
        for index in 0..<node.count {
            let next = index + 1 < node.count ? try node.key(index + 1) : nil
            if let next, next <= key { throw .damaged("The children of \(name) are not in order.") }
            if key <= walk.last, next.map({ $0 > walk.first }) ?? true {
                let child = try node.child(index)
                try step(volume, child.address, level - 1, child.generation, lowest: key, &walk, block, visit)
            }
            if let next { key = next }
        }
    }
}
