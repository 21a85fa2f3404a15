// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry
import MachineModel

/// A chunk: a run of logical addresses and the places on devices that hold it. Linux,
/// include/uapi/linux/btrfs_tree.h (`struct btrfs_chunk`) and fs/btrfs/tree-checker.c (`btrfs_check_chunk_valid`).
struct BtrfsChunk {
    /// First logical address.
    let start: UInt64
    /// Bytes of logical addresses.
    let length: UInt64
    let profile: Profile
    let stripes: [Stripe]
    /// How many stripes that follow each other hold the same bytes.
    let copies: Int

    /// A place on a device, of ``stripeBytes`` bytes.
    struct Stripe {
        let device: UInt64
        let offset: UInt64
    }

    struct Profile: OptionSet {
        let rawValue: UInt64
        static let data = Profile(rawValue: 1)
        static let system = Profile(rawValue: 2)
        static let metadata = Profile(rawValue: 4)
        static let raid0 = Profile(rawValue: 8)
        static let raid1 = Profile(rawValue: 16)
        static let dup = Profile(rawValue: 32)
        static let raid10 = Profile(rawValue: 64)
        static let raid5 = Profile(rawValue: 128)
        static let raid6 = Profile(rawValue: 256)
        static let raid1c3 = Profile(rawValue: 512)
        static let raid1c4 = Profile(rawValue: 1024)
        static let contents: Profile = [.data, .system, .metadata]
        static let known = Profile(rawValue: 2047)
    }

    /// Bytes of a stripe before the next one's turn (BTRFS_STRIPE_LEN).
    static let turn: UInt64 = 65_536
    /// Bytes of a chunk item without its stripes, and of each of these.
    static let head = 48
    static let stripeSize = 32

    /// First logical address behind it.
    var end: UInt64 { start + length }
    /// How many stripes share the bytes out among them.
    var width: UInt64 { UInt64(stripes.count / copies) }
    /// Bytes on each stripe.
    var stripeBytes: UInt64 { length / width }

    /// The chunk from logical address `start` that the item at `offset` of `fields` describes. `uuids` has the UUIDs of
    /// devices that are known.
    init(
        _ fields: Fields, at offset: Int, start: UInt64, _ superblock: BtrfsSuperblock, uuids: [UInt64: [UInt8]]
    ) throws(MapProblem) {
        let name = "the chunk at \(start)"
        length = try fields.little(UInt64.self, "length", at: offset)
        let stripeLength = try fields.little(UInt64.self, "stripe_len", at: offset + 16)
        profile = Profile(rawValue: try fields.little(UInt64.self, "type", at: offset + 24))
        let count = Int(try fields.little(UInt16.self, "num_stripes", at: offset + 44))
        let subStripes = try fields.little(UInt16.self, "sub_stripes", at: offset + 46)
        self.start = start
        guard profile.subtracting(.known).isEmpty else {
            throw .whole("\(name.capitalizedFirst) is of a kind unknown here.", .unknownFeatures)
        }
        guard profile.isDisjoint(with: [.raid5, .raid6]) else {
            throw .whole("It keeps RAID5 or RAID6 chunks, whose parity is not looked into.", nil)
        }
        let place = profile.subtracting(.contents)
        let copies: Int? =
            switch place {
            case []: count == 1 ? 1 : nil
            case .raid0: 1
            case .raid1, .dup: count == 2 ? 2 : nil
            case .raid1c3: count == 3 ? 3 : nil
            case .raid1c4: count == 4 ? 4 : nil
            case .raid10: count % 2 == 0 && subStripes == 2 ? 2 : nil
            default: nil
            }
        guard let copies, count > 0, length > 0, stripeLength == BtrfsChunk.turn,
            !profile.isDisjoint(with: .contents), !start.addingReportingOverflow(length).overflow,
            start.isMultiple(of: superblock.sectorSize), length.isMultiple(of: superblock.sectorSize)
        else { throw .damaged("\(name.capitalizedFirst) is damaged.") }
        self.copies = copies
        let width = UInt64(count / copies)
        guard width == 1 || length.isMultiple(of: width * BtrfsChunk.turn) else {
            throw .damaged("\(name.capitalizedFirst) cannot be shared out among \(width) stripes.")
        }
        var stripes: [Stripe] = []
        stripes.reserveCapacity(count)
        for index in 0..<count {
            let at = offset + BtrfsChunk.head + index * BtrfsChunk.stripeSize
            let stripe = Stripe(
                device: try fields.little(UInt64.self, "stripe.devid", at: at),
                offset: try fields.little(UInt64.self, "stripe.offset", at: at + 8))
            let uuid = try fields.bytes("stripe.dev_uuid", at: at + 16, count: 16)
            if let known = uuids[stripe.device], known != uuid {
                throw .damaged("\(name.capitalizedFirst) lies on another device of the number \(stripe.device).")
            }
            guard !stripe.offset.addingReportingOverflow(length / width).overflow,
                stripe.offset.isMultiple(of: superblock.sectorSize)
            else { throw .damaged("\(name.capitalizedFirst) lies outside of its device.") }
            stripes.append(stripe)
        }
        self.stripes = stripes
    }

    /// How many of the chunk's first `count` bytes lie on stripe `index`: since its bytes follow each other, also where
    /// on the stripe the next of them is.
    func share(of count: UInt64, on index: Int) -> UInt64 {
        guard width > 1 else { return count }
        let row = width * BtrfsChunk.turn
        let before = UInt64(index / copies) * BtrfsChunk.turn
        let rest = count % row
        return count / row * BtrfsChunk.turn + (rest > before ? min(rest - before, BtrfsChunk.turn) : 0)
    }

    /// Where the copies of `count` bytes at logical address `address` lie; none where they are not in one piece or not
    /// in the chunk.
    func places(of address: UInt64, count: UInt64) -> [Stripe] {
        guard address >= start, address < end, count <= end - address else { return [] }
        let inside = address - start
        let first: UInt64 = width > 1 ? inside / BtrfsChunk.turn % width : 0
        guard width == 1 || inside % BtrfsChunk.turn + count <= BtrfsChunk.turn else { return [] }
        return (0..<copies).map { copy in
            let index = Int(first) * copies + copy
            return Stripe(device: stripes[index].device, offset: stripes[index].offset + share(of: inside, on: index))
        }
    }
}
