// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import Threads

/// A device of a Btrfs and the superblock on it.
struct BtrfsMember {
    let source: any BlockSource
    let superblock: BtrfsSuperblock
    /// Whether the first superblock is damaged and another copy was used.
    let isCopy: Bool

    /// The device in `source`. The first superblock counts where it is sound, since the kernel goes by it alone; else
    /// the newest of the other copies.
    init(_ source: any BlockSource) throws(MapProblem) {
        self.source = source
        var problem: MapProblem?
        var newest: BtrfsSuperblock?
        for place in BtrfsSuperblock.places where source.holds(BtrfsSuperblock.size, at: place) {
            let copy: BtrfsSuperblock
            do throws(MapProblem) { copy = try BtrfsMember.superblock(source, at: place) } catch {
                if case .fault(let fault) = error, fault.code == .interrupted { throw error }
                if problem == nil { problem = error }
                continue
            }
            guard let known = newest else {
                newest = copy
                continue
            }
            guard copy.filesystem == known.filesystem, copy.generation > known.generation else { continue }
            // A stop between two writes of one transaction: what both need is more than either tells.
            guard known.place != BtrfsSuperblock.places[0].bytes else {
                throw .whole(
                    "Its superblocks are of two transactions (\(known.generation) and \(copy.generation)), so that it is "
                        + "not certain which one counts.", .dirty)
            }
            newest = copy
        }
        guard let newest else { throw problem ?? .damaged("It is too small for a superblock.") }
        superblock = newest
        isCopy = newest.place != BtrfsSuperblock.places[0].bytes
    }

    private static func superblock(
        _ source: any BlockSource, at place: ByteCount
    ) throws(MapProblem) -> BtrfsSuperblock {
        let fields = try Fields("the superblock", of: source, at: place, count: BtrfsSuperblock.size)
        let result: BtrfsSuperblock
        do throws(FieldError) { result = try BtrfsSuperblock(parsing: fields.bytes) } catch {
            throw .damaged("Its superblock is damaged: \(error).")
        }
        guard result.place == place.bytes else { throw .damaged("Its superblock belongs elsewhere.") }
        return result
    }
}

/// A Btrfs with all its devices, as far as it must be understood to find its extents.
final class BtrfsVolume {
    /// Devices by devid.
    let members: [UInt64: BtrfsMember]
    let superblock: BtrfsSuperblock
    /// All chunks, by logical address.
    private(set) var chunks: [BtrfsChunk] = []
    /// Whether a tree block was damaged and another copy of it was used.
    private(set) var isMended = false

    /// More chunks are not believed: they are 1 GiB each as a rule, and 8 MiB at least.
    private static let mostChunks = 1 << 18
    private static let mostStripes = 1 << 20

    /// The filesystem that `members` are all devices of.
    init(_ given: [BtrfsMember]) throws(MapProblem) {
        guard let first = given.first else { throw .damaged("It has no device.") }
        let superblock = first.superblock
        try BtrfsVolume.requireKnown(superblock)
        var members: [UInt64: BtrfsMember] = [:]
        for member in given {
            let other = member.superblock
            guard other.filesystem == superblock.filesystem, other.metadata == superblock.metadata,
                members.updateValue(member, forKey: other.device) == nil
            else { throw .damaged("Its devices do not belong together.") }
            guard other.generation == superblock.generation, other.root == superblock.root,
                other.chunkRoot == superblock.chunkRoot, other.logRoot == superblock.logRoot,
                other.rootLevel == superblock.rootLevel, other.chunkRootLevel == superblock.chunkRootLevel,
                other.chunkRootGeneration == superblock.chunkRootGeneration,
                other.logRootLevel == superblock.logRootLevel, other.bytesUsed == superblock.bytesUsed,
                other.devices == superblock.devices
            else {
                throw .whole(
                    "Its devices are of several transactions (\(superblock.generation) and \(other.generation)): one was "
                        + "missing for a while, or it was stopped while it wrote.", .dirty)
            }
            guard other.deviceSize <= member.source.length else {
                throw .damaged(
                    "The filesystem (\(other.deviceSize)) is larger than the volume (\(member.source.length)): its end is "
                        + "missing.")
            }
        }
        self.members = members
        self.superblock = superblock
        guard UInt64(exactly: members.count) == superblock.devices else {
            throw .whole(
                "It is device \(superblock.device) of a Btrfs on \(superblock.devices) devices, whose used blocks can be "
                    + "told only with all of them.", nil)
        }
        try readChunks()
    }

    /// Throws where the superblock has something that is unknown here.
    private static func requireKnown(_ superblock: BtrfsSuperblock) throws(MapProblem) {
        if superblock.incompatible.contains(.zoned) {
            throw .whole("It is made for zoned devices, whose write pointers are not looked into.", .unknownFeatures)
        }
        let unknown =
            superblock.incompatible.rawValue & ~BtrfsSuperblock.Incompatible.known.rawValue
            | superblock.readOnlyCompatible.rawValue & ~BtrfsSuperblock.ReadOnlyCompatible.known.rawValue
        guard unknown == 0 else {
            throw .whole(
                "It has features unknown here (bits \(Hex.number(unknown)) of one of its feature fields).",
                .unknownFeatures)
        }
        guard superblock.flags & ~(1 | BtrfsSuperblock.seeding) == 0 else {
            throw .whole(
                "It is marked as damaged or under conversion (flags \(Hex.number(superblock.flags))).", .dirty)
        }
        guard superblock.device != 0 else {
            throw .whole("It is the target of a device replacement that was not finished.", .dirty)
        }
    }

    // MARK: - Chunks

    private func readChunks() throws(MapProblem) {
        var uuids: [UInt64: [UInt8]] = [:]
        for (id, member) in members { uuids[id] = member.superblock.deviceUUID }
        // The chunks of the superblock lead to the chunk tree, which has all of them.
        let array = Fields("the superblock's array of chunks", superblock.systemChunks)
        var at = 0
        while at < array.bytes.count {
            let key = try BtrfsNode.key(array, at: at)
            guard key.type == BtrfsItem.chunk else { throw .damaged("\(array.name.capitalizedFirst) is damaged.") }
            let chunk = try BtrfsChunk(
                array, at: at + BtrfsKey.size, start: key.offset, superblock, uuids: uuids)
            chunks.append(chunk)
            at += BtrfsKey.size + BtrfsChunk.head + chunk.stripes.count * BtrfsChunk.stripeSize
        }
        chunks.sort { $0.start < $1.start }
        try requireApart(chunks)

        var found: [BtrfsChunk] = []
        var stripes = 0
        var devices: UInt64 = 0
        let tree = BtrfsTree(
            owner: BtrfsTree.chunks, name: "the chunk tree", root: superblock.chunkRoot,
            level: superblock.chunkRootLevel, generation: superblock.chunkRootGeneration)
        try tree.walk(self) { (key, node, index) throws(MapProblem) in
            switch key.type {
            case BtrfsItem.device:
                devices += 1
                guard self.members[key.offset] != nil else {
                    throw .damaged(
                        "The chunk tree tells of a device \(key.offset) that the superblocks know nothing of.")
                }
            case BtrfsItem.chunk:
                let item = try node.item(index)
                let chunk = try BtrfsChunk(item, at: 0, start: key.offset, self.superblock, uuids: uuids)
                stripes += chunk.stripes.count
                guard found.count < BtrfsVolume.mostChunks, stripes < BtrfsVolume.mostStripes else {
                    throw .damaged("It has more chunks than are believed.")
                }
                found.append(chunk)
            default: break
            }
        }
        guard devices == superblock.devices else {
            throw .damaged("The chunk tree tells of \(devices) devices, the superblock of \(superblock.devices).")
        }
        try requireApart(found)
        // The array's chunks must be the tree's, or else the tree was read from elsewhere.
        for chunk in chunks where !found.contains(where: { $0.start == chunk.start && $0.length == chunk.length }) {
            throw .damaged("The chunk tree does not know the chunk at \(chunk.start) that it lies in.")
        }
        chunks = found
    }

    private func requireApart(_ chunks: [BtrfsChunk]) throws(MapProblem) {
        var end: UInt64 = 0
        for chunk in chunks {
            guard chunk.start >= end else { throw .damaged("Two of its chunks lie over each other.") }
            end = chunk.end
            for stripe in chunk.stripes {
                guard let member = members[stripe.device],
                    stripe.offset + chunk.stripeBytes <= member.superblock.deviceSize.bytes
                else { throw .damaged("The chunk at \(chunk.start) lies outside of device \(stripe.device).") }
            }
        }
    }

    /// Index of the chunk that all `count` bytes from logical address `address` lie in.
    func chunk(of address: UInt64, count: UInt64) -> Int? {
        var low = 0
        var high = chunks.count
        while low < high {
            let middle = (low + high) / 2
            if chunks[middle].end > address { high = middle } else { low = middle + 1 }
        }
        guard low < chunks.count, chunks[low].start <= address, count <= chunks[low].end - address else { return nil }
        return low
    }

    // MARK: - Trees

    /// A block of `tree`, from the first copy that is sound.
    func node(
        _ address: UInt64, level: UInt8, generation: UInt64, of tree: BtrfsTree
    ) throws(MapProblem) -> BtrfsNode {
        do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
        let name = "block \(address) of \(tree.name)"
        let size = superblock.nodeSize
        guard address.isMultiple(of: superblock.sectorSize), let index = chunk(of: address, count: size) else {
            throw .damaged("\(name.capitalizedFirst) lies in no chunk.")
        }
        var problem: MapProblem?
        for stripe in chunks[index].places(of: address, count: size) {
            do throws(MapProblem) {
                guard let source = members[stripe.device]?.source else { continue }
                let fields = try Fields(name, of: source, at: ByteCount(stripe.offset), count: Int(size))
                let node = try checked(fields, address, level: level, generation: generation, of: tree)
                if problem != nil { isMended = true }
                return node
            } catch {
                if case .fault(let fault) = error, fault.code == .interrupted { throw error }
                if problem == nil { problem = error }
            }
        }
        throw problem ?? .damaged("\(name.capitalizedFirst) lies across stripes.")
    }

    private func checked(
        _ fields: Fields, _ address: UInt64, level: UInt8, generation: UInt64, of tree: BtrfsTree
    ) throws(MapProblem) -> BtrfsNode {
        let name = fields.name
        guard superblock.checksum.isRight(fields.bytes) else { throw .damaged("The checksum of \(name) is wrong.") }
        let node = try BtrfsNode(fields)
        guard fields.bytes[32..<48].elementsEqual(superblock.metadata),
            try fields.little(UInt64.self, "bytenr", at: 48) == address, node.level == level,
            try fields.little(UInt64.self, "owner", at: 88) == tree.owner
        else { throw .damaged("\(name.capitalizedFirst) belongs elsewhere.") }
        let stored = try fields.little(UInt64.self, "generation", at: 80)
        guard stored == generation else {
            throw .damaged("\(name.capitalizedFirst) is of transaction \(stored), not of \(generation).")
        }
        return node
    }

    /// The tree `owner` by its root item in `fields`. `struct btrfs_root_item`.
    func tree(_ owner: UInt64, _ name: String, _ fields: Fields) throws(MapProblem) -> BtrfsTree {
        BtrfsTree(
            owner: owner, name: name, root: try fields.little(UInt64.self, "bytenr", at: 176),
            level: try fields.little(UInt8.self, "level", at: 238),
            generation: try fields.little(UInt64.self, "generation", at: 160))
    }

    /// The trees that the tree of trees names.
    func trees() throws(MapProblem) -> (extents: BtrfsTree, blockGroups: BtrfsTree?) {
        let roots = BtrfsTree(
            owner: BtrfsTree.roots, name: "the tree of trees", root: superblock.root, level: superblock.rootLevel,
            generation: superblock.generation)
        var extents: BtrfsTree?
        var blockGroups: BtrfsTree?
        try roots.walk(
            self, from: BtrfsKey(object: BtrfsTree.extents, type: 0, offset: 0),
            through: BtrfsKey(object: BtrfsTree.blockGroups, type: .max, offset: .max)
        ) { (key, node, index) throws(MapProblem) in
            guard key.type == BtrfsItem.root, key.offset == 0 else { return }
            switch key.object {
            case BtrfsTree.extents: extents = try self.tree(key.object, "the extent tree", try node.item(index))
            case BtrfsTree.blockGroups:
                blockGroups = try self.tree(key.object, "the block group tree", try node.item(index))
            default: break
            }
        }
        guard let extents else { throw .damaged("It has no extent tree.") }
        return (extents, blockGroups)
    }
}
