// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// The kernel's side of a filesystem in user space: `linux/fuse.h`, protocol 7.31, as far as one regular file needs it. All
/// numbers are in the machine's own order, which is little-endian on every machine Relight runs on.
enum Fuse {
    /// Version spoken. Kernels since 5.4 have it; newer ones fall back to it.
    static let major: UInt32 = 7
    static let minor: UInt32 = 31
    /// Largest read or write, bytes.
    static let largest: UInt32 = 256 << 10
    /// Bytes of `fuse_in_header` and `fuse_out_header`.
    static let requestHeader = 40
    static let replyHeader = 16
    /// Bytes to read from the kernel at once: `fuse_in_header`, `fuse_write_in` and the largest write, and room to spare.
    static let buffer = Int(largest) + 8192
    /// The number of the only file, which is the mount's root.
    static let root: UInt64 = 1

    /// Operations, `enum fuse_opcode`. Those that are not here are answered with ENOSYS, which the kernel takes for "not
    /// needed": it then does without, or tells the program that there is no such thing.
    enum Operation: UInt32 {
        case forget = 2
        case getAttributes = 3
        case setAttributes = 4
        case open = 14
        case read = 15
        case write = 16
        case statistics = 17
        case release = 18
        case sync = 20
        case flush = 25
        case start = 26
        case interrupt = 36
        case end = 38
        case forgetMany = 42
        case allocate = 43
    }

    /// Flags of `fuse_init_out`: reads in parallel, writes larger than a page, direct reads and writes in parallel, requests
    /// of more than 32 pages.
    static let startFlags: UInt32 = 1 << 0 | 1 << 5 | 1 << 15 | 1 << 22
    /// FOPEN_DIRECT_IO: the kernel keeps no copies of pages. What cannot be kept is told to the program at its write, and
    /// memory is not taken twice.
    static let openDirectly: UInt32 = 1 << 0
    /// FATTR_SIZE of `fuse_setattr_in`.
    static let setsSize: UInt32 = 1 << 3
    /// FALLOC_FL_PUNCH_HOLE and FALLOC_FL_ZERO_RANGE.
    static let allocateHole: UInt32 = 0x02
    static let allocateZeros: UInt32 = 0x10

    /// `fuse_in_header`.
    struct Request {
        var length: Int
        var operation: Operation?
        var unique: UInt64
        var node: UInt64

        init(_ bytes: RawSpan) throws(FieldError) {
            length = Int(try bytes.littleEndian(UInt32.self, "len", at: 0))
            operation = Operation(rawValue: try bytes.littleEndian(UInt32.self, "opcode", at: 4))
            unique = try bytes.littleEndian(UInt64.self, "unique", at: 8)
            node = try bytes.littleEndian(UInt64.self, "nodeid", at: 16)
            guard length >= Fuse.requestHeader, length <= bytes.byteCount else {
                throw .invalid(field: "len", at: 0, seen: "\(length)", expected: "40 ... \(bytes.byteCount)")
            }
        }
    }

    /// `fuse_init_out`.
    static var startReply: [UInt8] {
        var reply: [UInt8] = []
        reply.appendLittleEndian(major)
        reply.appendLittleEndian(minor)
        reply.appendLittleEndian(largest)  // max_readahead
        reply.appendLittleEndian(startFlags)
        reply.appendLittleEndian(UInt16(16))  // max_background
        reply.appendLittleEndian(UInt16(12))  // congestion_threshold
        reply.appendLittleEndian(largest)  // max_write
        reply.appendLittleEndian(UInt32(1))  // time_gran, nanoseconds
        reply.appendLittleEndian(UInt16(largest / 4096))  // max_pages
        reply.append(contentsOf: [UInt8](repeating: 0, count: 64 - reply.count))
        return reply
    }

    /// `fuse_attr_out` of a regular file of `size` bytes that root may read and write.
    static func attributes(size: UInt64) -> [UInt8] {
        var reply: [UInt8] = []
        reply.appendLittleEndian(UInt64(1))  // attr_valid, seconds
        reply.appendLittleEndian(UInt64(0))  // attr_valid_nsec, dummy
        reply.appendLittleEndian(root)  // ino
        reply.appendLittleEndian(size)
        reply.appendLittleEndian((size + 511) / 512)  // blocks
        for _ in 0..<3 { reply.appendLittleEndian(UInt64(0)) }  // atime, mtime, ctime
        for _ in 0..<3 { reply.appendLittleEndian(UInt32(0)) }  // their nanoseconds
        reply.appendLittleEndian(UInt32(0o100600))  // mode
        reply.appendLittleEndian(UInt32(1))  // nlink
        for _ in 0..<3 { reply.appendLittleEndian(UInt32(0)) }  // uid, gid, rdev
        reply.appendLittleEndian(UInt32(4096))  // blksize
        reply.appendLittleEndian(UInt32(0))  // flags
        return reply
    }

    /// `fuse_open_out`.
    static var openReply: [UInt8] {
        var reply: [UInt8] = []
        reply.appendLittleEndian(UInt64(0))  // fh
        reply.appendLittleEndian(openDirectly)
        reply.appendLittleEndian(UInt32(0))
        return reply
    }

    /// `fuse_write_out`.
    static func written(_ count: UInt32) -> [UInt8] {
        var reply: [UInt8] = []
        reply.appendLittleEndian(count)
        reply.appendLittleEndian(UInt32(0))
        return reply
    }

    /// `fuse_statfs_out` of a filesystem that is as large as its file.
    static func statistics(size: UInt64) -> [UInt8] {
        var reply: [UInt8] = []
        reply.appendLittleEndian(size / 4096)  // blocks
        for _ in 0..<4 { reply.appendLittleEndian(UInt64(0)) }  // bfree, bavail, files, ffree
        // bsize, namelen, frsize, padding
        for value: UInt32 in [4096, 255, 4096, 0] { reply.appendLittleEndian(value) }
        reply.append(contentsOf: [UInt8](repeating: 0, count: 80 - reply.count))
        return reply
    }
}
