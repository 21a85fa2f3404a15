// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel

/// The logical addresses that a Btrfs uses: the extents of its extent tree, and what its log tree adds.
struct BtrfsExtents {
    private let volume: BtrfsVolume
    /// Runs of logical addresses in use.
    private(set) var used = ExtentList()
    /// Bytes of the extents of each chunk.
    private var sums: [UInt64]
    /// What each chunk's block group item says of them.
    private var groups: [UInt64?]

    /// More pieces of what fsync wrote are not kept: the volume is then whole.
    private static let mostLogged = 1 << 20

    /// Reads all extents and checks that they are all: their sum in each block group and in all is what the block
    /// groups and the superblock say.
    init(_ volume: BtrfsVolume) throws(MapProblem) {
        self.volume = volume
        sums = Array(repeating: 0, count: volume.chunks.count)
        groups = Array(repeating: nil, count: volume.chunks.count)
        let trees = try volume.trees()
        try readExtents(trees.extents)
        let hasTree = volume.superblock.readOnlyCompatible.contains(.blockGroupTree)
        if hasTree {
            guard let tree = trees.blockGroups else { throw .damaged("It has no block group tree.") }
            try tree.walk(volume) { (key, node, index) throws(MapProblem) in
                if key.type == BtrfsItem.blockGroup { try takeGroup(key, try node.item(index)) }
            }
        }
        var total: UInt64 = 0
        for (index, chunk) in volume.chunks.enumerated() {
            guard let said = groups[index] else { throw .damaged("The chunk at \(chunk.start) has no block group.") }
            guard said == sums[index] else {
                throw .damaged(
                    "The block group at \(chunk.start) says that \(said) bytes are in use, its extents have \(sums[index])."
                )
            }
            total += said
        }
        guard total == volume.superblock.bytesUsed else {
            throw .damaged(
                "Its block groups say that \(total) bytes are in use, its superblock \(volume.superblock.bytesUsed).")
        }
        if volume.superblock.logRoot != 0 { used = used.union(try logged()) }
    }

    private mutating func readExtents(_ tree: BtrfsTree) throws(MapProblem) {
        var runs = RunCollector()
        var told: UInt64 = 0
        let superblock = volume.superblock
        let inTree = !superblock.readOnlyCompatible.contains(.blockGroupTree)
        try tree.walk(volume) { (key, node, index) throws(MapProblem) in
            switch key.type {
            case BtrfsItem.extent, BtrfsItem.metadata:
                let length = key.type == BtrfsItem.metadata ? superblock.nodeSize : key.offset
                guard length > 0, length.isMultiple(of: superblock.sectorSize),
                    key.object.isMultiple(of: superblock.sectorSize), key.object >= told,
                    let chunk = volume.chunk(of: key.object, count: length)
                else { throw .damaged("The extent tree has an impossible extent: \(length) bytes at \(key.object).") }
                told = key.object + length
                sums[chunk] += length
                runs.add(Extent(from: ByteCount(key.object), to: ByteCount(told)))
            case BtrfsItem.blockGroup where inTree: try takeGroup(key, try node.item(index))
            default: break
            }
        }
        used = runs.list
    }

    /// A block group's item: its bytes in use, and its type, which the chunk has too.
    private mutating func takeGroup(_ key: BtrfsKey, _ item: Fields) throws(MapProblem) {
        guard let index = volume.chunk(of: key.object, count: key.offset), volume.chunks[index].start == key.object,
            volume.chunks[index].length == key.offset,
            try item.little(UInt64.self, "block_group.flags", at: 16) == volume.chunks[index].profile.rawValue,
            groups[index] == nil
        else { throw .damaged("The block group at \(key.object) is no chunk's.") }
        groups[index] = try item.little(UInt64.self, "block_group.used", at: 0)
    }

    /// What is reachable from the log's root: its blocks and the extents of files that fsync wrote. They lie in space
    /// that the extent tree still calls free.
    private func logged() throws(MapProblem) -> ExtentList {
        let superblock = volume.superblock
        var pieces: [Extent] = []
        func take(_ address: UInt64, _ length: UInt64) throws(MapProblem) {
            guard length > 0, volume.chunk(of: address, count: length) != nil, pieces.count < BtrfsExtents.mostLogged
            else { throw .damaged("The log tree has an impossible extent: \(length) bytes at \(address).") }
            pieces.append(Extent(from: ByteCount(address), to: ByteCount(address + length)))
        }
        func block(_ address: UInt64) throws(MapProblem) { try take(address, superblock.nodeSize) }
        let (generation, overflow) = superblock.generation.addingReportingOverflow(1)
        guard !overflow else { throw .damaged("Its transactions have come to an end.") }
        var logs: [BtrfsTree] = []
        let roots = BtrfsTree(
            owner: BtrfsTree.log, name: "the tree of logs", root: superblock.logRoot, level: superblock.logRootLevel,
            generation: generation)
        try roots.walk(volume, block: block) { (key, node, index) throws(MapProblem) in
            guard key.type == BtrfsItem.root else { return }
            guard logs.count < 1 << 16 else { throw .damaged("It has more logs than are believed.") }
            logs.append(
                try volume.tree(BtrfsTree.log, "the log of subvolume \(key.offset)", try node.item(index)))
        }
        for log in logs {
            try log.walk(volume, block: block) { (key, node, index) throws(MapProblem) in
                guard key.type == BtrfsItem.extentData else { return }
                // `struct btrfs_file_extent_item`: 0 is inline, 1 written, 2 set aside; an address of 0 is a hole.
                let item = try node.item(index)
                let kind = try item.little(UInt8.self, "type", at: 20)
                guard kind != 0 else { return }
                guard kind <= 2 else { throw .damaged("The log tree has an extent of a kind unknown here.") }
                let address = try item.little(UInt64.self, "disk_bytenr", at: 21)
                if address != 0 { try take(address, try item.little(UInt64.self, "disk_num_bytes", at: 29)) }
            }
        }
        return ExtentList(pieces)
    }

    /// What is in use on device `id`: its first MiB, the superblocks, and the extents.
    func used(on id: UInt64) throws(MapProblem) -> ExtentList {
        guard let member = volume.members[id] else { throw .damaged("It has no device \(id).") }
        var stripes: [(offset: UInt64, chunk: Int, index: Int)] = []
        for (number, chunk) in volume.chunks.enumerated() {
            for (index, stripe) in chunk.stripes.enumerated() where stripe.device == id {
                stripes.append((stripe.offset, number, index))
            }
        }
        stripes.sort { $0.offset < $1.offset }
        var runs = RunCollector()
        var end: UInt64 = 0
        for stripe in stripes {
            let chunk = volume.chunks[stripe.chunk]
            guard stripe.offset >= end else { throw .damaged("Two of its chunks lie over each other.") }
            end = stripe.offset + chunk.stripeBytes
            let inside = used.intersection(Extent(from: ByteCount(chunk.start), to: ByteCount(chunk.end)))
            for run in inside.extents {
                let first = stripe.offset + chunk.share(of: run.start.bytes - chunk.start, on: stripe.index)
                let last = stripe.offset + chunk.share(of: run.end.bytes - chunk.start, on: stripe.index)
                runs.add(Extent(from: ByteCount(first), to: ByteCount(last)))
            }
        }
        let size = member.source.length
        var fixed = [Extent(from: .zero, to: min(.mebibytes(1), size))]
        for place in BtrfsSuperblock.places where member.source.holds(BtrfsSuperblock.size, at: place) {
            fixed.append(Extent(from: place, to: place + ByteCount(UInt64(BtrfsSuperblock.size))))
        }
        return runs.list.union(ExtentList(fixed))
    }

    /// The kernel makes no device smaller.
    private static let smallest = ByteCount.mebibytes(256)

    /// About how small device `id` could be made: its first MiB, its chunks that hold something, and room for a copy of
    /// the largest, since whole chunks are moved.
    func minimum(of id: UInt64) -> ByteCount? {
        guard let member = volume.members[id] else { return nil }
        var sum: UInt64 = 1 << 20
        var largest: UInt64 = 0
        for (index, chunk) in volume.chunks.enumerated() where sums[index] > 0 {
            for stripe in chunk.stripes where stripe.device == id {
                let (next, overflow) = sum.addingReportingOverflow(chunk.stripeBytes)
                guard !overflow else { return nil }
                sum = next
                largest = max(largest, chunk.stripeBytes)
            }
        }
        let (room, overflow) = sum.addingReportingOverflow(largest)
        return overflow ? nil : min(max(ByteCount(room), BtrfsExtents.smallest), member.superblock.deviceSize)
    }
}
