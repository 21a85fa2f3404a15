// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry

/// A superblock of Linux md, versions 0.90 and 1.0 ... 1.2 (kernel `include/uapi/linux/raid/md_p.h`).
struct MDSuperblock: Sendable {
    enum Role: Hashable, Sendable {
        case active(Int)
        case spare
        case faulty
        case journal
    }

    let version: String
    let setUUID: String
    let name: String
    let level: Int32
    let layout: UInt32
    let chunk: ByteCount
    let devices: Int
    /// What the array uses of each member, where the level needs equal ones.
    let size: ByteCount
    /// Where the member's data may lie.
    let data: Extent
    /// The member's number, and what it is; 1.x: the roles of all by number.
    let number: Int
    let role: Role
    let roles: [Role]
    let memberUUID: String?
    let events: UInt64
    /// Whether all copies were known to be equal.
    let isClean: Bool
    /// Why its content is not of the array or not where it seems: a reshape, a rebuild. A sentence.
    let unsettled: String?

    private static let magic: UInt32 = 0xA92B_4EFC

    /// Reads the superblock of `source`, wherever its version puts it.
    init(_ source: any BlockSource) throws(LayerProblem) {
        var found: [MDSuperblock] = []
        var problem: LayerProblem?
        func look(_ read: () throws(LayerProblem) -> MDSuperblock?) {
            do throws(LayerProblem) { if let superblock = try read() { found.append(superblock) } } catch {
                problem = error
            }
        }
        look { () throws(LayerProblem) in try MDSuperblock.one(source, at: ByteCount(4096), version: "1.2") }
        look { () throws(LayerProblem) in try MDSuperblock.one(source, at: .zero, version: "1.1") }
        if let start = ByteCount(source.length.bytes / 512 * 512).subtracting(ByteCount(16 * 512)) {
            let place = start.roundedDown(to: ByteCount(4096))
            look { () throws(LayerProblem) in try MDSuperblock.one(source, at: place, version: "1.0") }
        }
        if let start = source.length.roundedDown(to: .kibibytes(64)).subtracting(.kibibytes(64)) {
            look { () throws(LayerProblem) in try MDSuperblock.zero(source, at: start) }
        }
        guard found.count <= 1 else {
            throw .whole(
                "It has several md superblocks (\(found.map(\.version).joined(separator: ", "))); one of them is stale."
            )
        }
        guard let superblock = found.first else {
            throw problem ?? .whole("It has no sound md superblock.")
        }
        self = superblock
    }

    private static func bytes(
        _ source: any BlockSource, _ place: ByteCount, _ count: Int
    ) throws(LayerProblem) -> [UInt8]? {
        guard source.holds(count, at: place) else { return nil }
        do throws(Fault) { return try source.bytes(at: place, count: count) } catch { throw .fault(error) }
    }

    /// The sum of little-endian words, its carry added in.
    private static func sum(_ bytes: [UInt8], except field: Int) -> UInt32 {
        var sum: UInt64 = 0
        for offset in stride(from: 0, to: bytes.count, by: 2) where !(field..<field + 4).contains(offset) {
            let low = UInt64(bytes[offset])
            let high = offset + 1 < bytes.count ? UInt64(bytes[offset + 1]) : 0
            sum &+= (low | high << 8) << (offset % 4 == 0 ? 0 : 16)
        }
        return UInt32(truncatingIfNeeded: (sum & 0xFFFF_FFFF) &+ (sum >> 32))
    }

    /// A text for people, without what terminals might obey.
    private static func text(_ bytes: [UInt8]) -> String {
        String(
            decoding: bytes.prefix { $0 != 0 }.map { $0 > 0x20 && $0 < 0x7F ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
    }

    private static func uuid(_ bytes: [UInt8]) -> String {
        stride(from: 0, to: 16, by: 4).map { Hex.text(bytes[$0..<$0 + 4]) }.joined(separator: ":")
    }

    /// Version 1.x at `place`; `nil` where there is none.
    private static func one(
        _ source: any BlockSource, at place: ByteCount, version: String
    ) throws(LayerProblem) -> MDSuperblock? {
        guard let head = try bytes(source, place, 256) else { return nil }
        let span = unsafe head.span.bytes
        do {
            guard try span.littleEndian(UInt32.self, "magic", at: 0) == magic,
                try span.littleEndian(UInt32.self, "major_version", at: 4) == 1,
                try span.littleEndian(UInt64.self, "super_offset", at: 144) == place.bytes / 512
            else { return nil }
            let count = Int(try span.littleEndian(UInt32.self, "max_dev", at: 220))
            guard count <= 1920, let whole = try bytes(source, place, 256 + 2 * count) else {
                throw LayerProblem.whole("Its md superblock has an impossible size.")
            }
            guard sum(whole, except: 216) == (try span.littleEndian(UInt32.self, "sb_csum", at: 216)) else {
                throw LayerProblem.whole("Its md superblock has a wrong checksum.")
            }
            return try MDSuperblock(one: unsafe whole.span.bytes, count, source.length, version)
        } catch let problem as LayerProblem {
            throw problem
        } catch {
            throw .whole("Its md superblock is damaged: \(error).")
        }
    }

    private init(one span: RawSpan, _ count: Int, _ length: ByteCount, _ version: String) throws {
        self.version = version
        let features = try span.littleEndian(UInt32.self, "feature_map", at: 8)
        setUUID = MDSuperblock.uuid(try span.bytes("set_uuid", at: 16, count: 16))
        name = MDSuperblock.text(try span.bytes("set_name", at: 32, count: 32))
        level = try span.littleEndian(Int32.self, "level", at: 72)
        layout = try span.littleEndian(UInt32.self, "layout", at: 76)
        let size = try span.littleEndian(UInt64.self, "size", at: 80)
        chunk = ByteCount(UInt64(try span.littleEndian(UInt32.self, "chunksize", at: 88)) * 512)
        devices = Int(try span.littleEndian(UInt32.self, "raid_disks", at: 92))
        let dataOffset = try span.littleEndian(UInt64.self, "data_offset", at: 128)
        let dataSize = try span.littleEndian(UInt64.self, "data_size", at: 136)
        memberUUID = MDSuperblock.uuid(try span.bytes("device_uuid", at: 168, count: 16))
        let number = try span.littleEndian(UInt32.self, "dev_number", at: 160)
        events = try span.littleEndian(UInt64.self, "events", at: 200)
        isClean = try span.littleEndian(UInt64.self, "resync_offset", at: 208) == .max
        guard let start = ByteCount(512).multiplied(by: dataOffset), let room = ByteCount(512).multiplied(by: dataSize),
            let data = Extent(start: start, length: room), data.end <= length,
            let used = ByteCount(512).multiplied(by: size), used <= room, devices > 0, devices <= 1920
        else { throw LayerProblem.whole("Its md superblock says that the data pass the end of what is there.") }
        self.data = data
        self.size = used
        var roles: [Role] = []
        for index in 0..<count {
            switch try span.littleEndian(UInt16.self, "dev_roles", at: 256 + 2 * index) {
            case 0xFFFF: roles.append(.spare)
            case 0xFFFE: roles.append(.faulty)
            case 0xFFFD: roles.append(.journal)
            case let role: roles.append(.active(Int(role)))
            }
        }
        self.roles = roles
        self.number = Int(number)
        role = Int(number) < roles.count ? roles[Int(number)] : .spare
        // md_p.h, MD_FEATURE_*: reshape, a rebuild in several forms, clusters.
        if features & 4 != 0 {
            unsettled = "Its array is being reshaped."
        } else if features & (2 | 16 | 128) != 0 {
            unsettled = "It is being rebuilt, or is to replace another member."
        } else if features & ~0x1FFF != 0 || features & 256 != 0 {
            unsettled = "Its array has features that are not known here (\(Hex.number(features)))."
        } else {
            unsettled = nil
        }
    }

    /// Version 0.90 at `place`; `nil` where there is none.
    private static func zero(_ source: any BlockSource, at place: ByteCount) throws(LayerProblem) -> MDSuperblock? {
        guard let block = try bytes(source, place, 4096) else { return nil }
        let span = unsafe block.span.bytes
        func word(_ index: Int) throws(FieldError) -> UInt32 {
            try span.littleEndian(UInt32.self, "word of the superblock", at: 4 * index)
        }
        do {
            guard try word(0) == magic, try word(1) == 0 else { return nil }
            guard try [90, 91].contains(word(2)), sum(block, except: 152) == (try word(38)) else {
                throw LayerProblem.whole("Its md superblock has a wrong checksum, or a version that is not known here.")
            }
            return try MDSuperblock(zero: span, place)
        } catch let problem as LayerProblem {
            throw problem
        } catch {
            throw .whole("Its md superblock is damaged: \(error).")
        }
    }

    private init(zero span: RawSpan, _ place: ByteCount) throws {
        func word(_ index: Int) throws(FieldError) -> UInt32 {
            try span.littleEndian(UInt32.self, "word of the superblock", at: 4 * index)
        }
        version = "0.90"
        setUUID = try [5, 13, 14, 15].map { (index: Int) throws(FieldError) -> String in
            let text = String(try word(index), radix: 16)
            return String(repeating: "0", count: 8 - text.count) + text
        }.joined(separator: ":")
        level = Int32(bitPattern: try word(7))
        let used = ByteCount(UInt64(try word(8)) * 1024)
        devices = Int(try word(10))
        name = String(try word(11))
        layout = try word(64)
        chunk = ByteCount(UInt64(try word(65)))
        // The state's bit 0: stopped cleanly.
        isClean = try word(33) & 1 == 1
        events = try UInt64(word(39)) | UInt64(word(40)) << 32
        guard used <= place, devices > 0, devices <= 27 else {
            throw LayerProblem.whole("Its md superblock says that the data pass their end.")
        }
        size = used
        data = Extent(from: .zero, to: place)
        number = Int(try word(992))
        roles = []
        memberUUID = nil
        let slot = Int(try word(992 + 3))
        let state = try word(992 + 4)
        // Descriptor state, md_p.h: faulty, active, in sync, removed.
        if state & 1 != 0 || state & 8 != 0 {
            role = .faulty
        } else if state & 6 == 6, slot < devices {
            role = .active(slot)
        } else {
            role = .spare
        }
        unsettled = try word(2) == 91 ? "Its array is being reshaped." : nil
    }
}
