// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CUnpack
public import Findings

/// What lies in an initramfs: archives one after the other, each packed in its own way or not at all, later files over
/// earlier ones (kernel documentation, `driver-api/early-userspace/buffer-format.rst`).
public struct InitramfsImage: Sendable {
    /// How a part is packed.
    public enum Packing: String, Sendable, Codable {
        case none, gzip, xz, lzma, zstd, lz4, bzip2, lzo
    }

    /// A run of archives that are packed together.
    public struct Part: Hashable, Sendable {
        /// Where it begins in the file, bytes.
        public var offset: Int
        /// Its length in the file, bytes.
        public var length: Int
        /// How it is packed.
        public var packing: Packing
        /// Number of entries in it.
        public var entries: Int
    }

    /// A file, folder, link or device in it.
    public struct Entry: Hashable, Sendable {
        /// Type and permissions, as in stat(2).
        public var mode: UInt32
        /// Bytes.
        public var size: UInt32
        /// The content, where it was asked for; a link's target.
        public var content: [UInt8]?

        /// Whether it is a file with content.
        public var isFile: Bool { mode & 0o170000 == 0o100000 }
        /// Whether it is a symbolic link.
        public var isLink: Bool { mode & 0o170000 == 0o120000 }
    }

    /// The parts, in order.
    public private(set) var parts: [Part] = []
    /// All entries by path, without a leading `/`.
    public private(set) var entries: [String: Entry] = [:]
    /// Why what follows the last part is not read; `nil` when all was.
    public private(set) var unread: String?

    /// Largest sum of unpacked bytes that is read.
    static let largest: UInt64 = 16 << 30

    /// Reads an initramfs. Files whose paths `wants` asks for are kept with their content, up to 4 MiB each and 64 MiB in
    /// all; links always are. Throws `initramfs.damaged` where a part is cut off or is no archive.
    public init(_ file: [UInt8], place: String, wants: @escaping (String) -> Bool = { _ in false }) throws(Fault) {
        var at = 0
        while true {
            while at < file.count, file[at] == 0 { at += 1 }
            guard at < file.count else { break }
            guard let packing = InitramfsImage.packing(file[at...]) else {
                if parts.isEmpty { throw Self.damaged("It does not begin with an archive", place, at) }
                unread = "What begins at byte \(at) is no archive in a form the kernel reads."
                break
            }
            guard let format = packing.format else {
                if packing == .none {
                    at = try readPlain(file, at, place, wants)
                    continue
                }
                unread = "What begins at byte \(at) is packed by \(packing.rawValue), which is not read here."
                break
            }
            at = try readPacked(file, at, packing, format, place, wants)
        }
    }

    private static func packing(_ bytes: ArraySlice<UInt8>) -> Packing? {
        let known: [(Packing, [UInt8])] = [
            (.none, Array("070701".utf8)), (.none, Array("070702".utf8)), (.gzip, [0x1F, 0x8B]), (.gzip, [0x1F, 0x9E]),
            (.xz, [0xFD, 0x37, 0x7A, 0x58, 0x5A, 0]), (.zstd, [0x28, 0xB5, 0x2F, 0xFD]), (.lz4, [2, 0x21, 0x4C, 0x18]),
            (.bzip2, Array("BZh".utf8)), (.lzma, [0x5D, 0, 0]), (.lzo, [0x89, 0x4C, 0x5A]),
        ]
        return known.first { bytes.starts(with: $0.1) }?.0
    }

    private static func damaged(_ what: String, _ place: String, _ at: Int) -> Fault {
        Fault(
            .initramfsDamaged, what: "\(what), at byte \(at).", place: place,
            remedy: "The kernel could not use it either. Make it anew, or start another kernel.")
    }

    /// Takes entries of one part.
    private final class Collector {
        var reader: CpioReader
        var total: UInt64 = 0
        var found: [(CpioReader.Entry, [UInt8]?)] { box.entries }
        private final class Box { var entries: [(CpioReader.Entry, [UInt8]?)] = [] }
        private let box: Box

        init(_ wants: @escaping (String) -> Bool) {
            let box = Box()
            self.box = box
            reader = CpioReader(
                wants: { $0.mode & 0o170000 == 0o120000 || ($0.mode & 0o170000 == 0o100000 && wants($0.path)) },
                found: { box.entries.append(($0, $1)) })
        }

        func take(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
            total += UInt64(bytes.count)
            guard total <= InitramfsImage.largest else { return false }
            return unsafe reader.feed(bytes) != nil
        }
    }

    private mutating func add(_ collector: Collector, _ at: Int, _ length: Int, _ packing: Packing) {
        parts.append(Part(offset: at, length: length, packing: packing, entries: collector.found.count))
        for (entry, content) in collector.found {
            entries[entry.path] = Entry(mode: entry.mode, size: entry.size, content: content)
        }
    }

    private mutating func readPlain(
        _ file: [UInt8], _ at: Int, _ place: String, _ wants: @escaping (String) -> Bool
    ) throws(Fault) -> Int {
        let collector = Collector(wants)
        // To the trailer: what follows may be packed.
        collector.reader.stopsAtTrailer = true
        let taken = unsafe file.withUnsafeBufferPointer { bytes in
            unsafe collector.reader.feed(UnsafeBufferPointer(rebasing: bytes[at...]))
        }
        guard let taken else { throw Self.damaged("The archive contradicts itself", place, at) }
        guard collector.reader.isComplete else { throw Self.damaged("The archive has no end", place, at) }
        add(collector, at, taken, .none)
        return at + taken
    }

    private mutating func readPacked(
        _ file: [UInt8], _ at: Int, _ packing: Packing, _ format: relight_unpack_format, _ place: String,
        _ wants: @escaping (String) -> Bool
    ) throws(Fault) -> Int {
        let collector = Collector(wants)
        var taken = 0
        let outcome = unsafe file.withUnsafeBufferPointer { bytes in
            unsafe relight_unpack(
                format, bytes.baseAddress.map { unsafe $0 + at }, bytes.count - at, &taken,
                { context, bytes, count in
                    guard let context = unsafe context else { return 1 }
                    let collector = unsafe Unmanaged<Collector>.fromOpaque(context).takeUnretainedValue()
                    return unsafe collector.take(UnsafeBufferPointer(start: bytes, count: count)) ? 0 : 1
                }, Unmanaged.passUnretained(collector).toOpaque())
        }
        switch outcome {
        case 0 where collector.reader.isComplete: break
        case 0: throw Self.damaged("The archive in it has no end", place, at)
        case 2:
            throw Fault(
                .system, what: "There is no memory to unpack it.", place: place, remedy: "Give the machine more memory."
            )
        case 3: throw Self.damaged("What is packed in it is no archive", place, at)
        default: throw Self.damaged("It is damaged or cut off (packed by \(packing.rawValue))", place, at)
        }
        add(collector, at, max(1, taken), packing)
        return at + max(1, taken)
    }
}

extension InitramfsImage.Packing {
    fileprivate var format: relight_unpack_format? {
        switch self {
        case .gzip: relight_unpack_gzip
        case .xz: relight_unpack_xz
        case .lzma: relight_unpack_lzma
        case .zstd: relight_unpack_zstd
        case .lz4: relight_unpack_lz4
        case .none, .bzip2, .lzo: nil
        }
    }
}
