// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// The header of a member of a tar file in the ustar format: one block of 512 bytes. POSIX.1-1988 and later, "pax",
/// section "ustar Interchange Format".
struct TarHeader: Hashable {
    /// Size of a block; everything in a tar file begins at a multiple of it.
    static let block = 512
    /// The largest member Relight writes: no object of a set is larger.
    static let maximumSize: UInt64 = 0xFFFF_FFFF

    /// What a member is.
    enum Kind: Hashable {
        case file
        /// Folders, links, devices and what other formats put between members.
        case other
    }
    /// Path, with the prefix field.
    var name: String
    /// Content in bytes; 0 for members that have none whatever the field says.
    var size: UInt64
    var kind: Kind

    init(name: String, size: UInt64, kind: Kind = .file) {
        self.name = name
        self.size = size
        self.kind = kind
    }

    /// Bytes of content with the padding to whole blocks.
    var paddedSize: UInt64 { (size &+ 511) / 512 &* 512 }

    /// Whether a block has the magic of a ustar or GNU header, whatever else is wrong with it.
    static func hasMagic(_ block: [UInt8]) -> Bool {
        block.count == TarHeader.block && block[257..<262] == Array("ustar".utf8)[...]
    }

    /// Whether a block holds nothing but zeros: two of them end a tar file.
    static func isZero(_ block: RawSpan) -> Bool {
        (0..<block.byteCount).allSatisfy { unsafe block.unsafeLoad(fromUncheckedByteOffset: $0, as: UInt8.self) == 0 }
    }

    /// Parses and checks a block of 512 bytes.
    init(_ block: RawSpan) throws(FieldError) {
        let bytes = try block.bytes("header", at: 0, count: TarHeader.block)
        // The sum of all bytes, those of the checksum itself taken as spaces. Some old programs summed signed bytes.
        var sum = 8 * 32
        var signed = 8 * 32
        for (index, byte) in bytes.enumerated() where !(148..<156).contains(index) {
            sum += Int(byte)
            signed += Int(Int8(bitPattern: byte))
        }
        guard let stored = TarHeader.octal(bytes[148..<156]), stored == sum || Int(exactly: stored) == signed else {
            throw .invalid(
                field: "chksum", at: 148, seen: Hex.text(bytes[148..<156]), expected: String(sum, radix: 8))
        }
        guard let size = TarHeader.octal(bytes[124..<136]) else {
            throw .invalid(
                field: "size", at: 124, seen: Hex.text(bytes[124..<136]), expected: "octal digits")
        }
        var name = TarHeader.text(bytes[0..<100])
        // "ustar", zero, "00"; the older GNU format has spaces there and other fields in the prefix's place.
        if bytes[257..<263] == Array("ustar\0".utf8)[...], bytes[345] != 0 {
            name = TarHeader.text(bytes[345..<500]) + "/" + name
        }
        switch bytes[156] {
        // A name that ends in a slash was a folder before there was a type for it.
        case UInt8(ascii: "0"), 0, UInt8(ascii: "7"): self.kind = name.hasSuffix("/") ? .other : .file
        default: self.kind = .other
        }
        self.name = name
        // Links, devices, folders and fifos have no content whatever their size says (types 1 to 6).
        self.size = (UInt8(ascii: "1")...UInt8(ascii: "6")).contains(bytes[156]) ? 0 : size
    }

    /// Octal digits with leading spaces, ended by a space or a zero; `nil` for anything else.
    private static func octal(_ field: ArraySlice<UInt8>) -> UInt64? {
        let digits = field.drop { $0 == 32 }.prefix { $0 != 32 && $0 != 0 }
        guard !digits.isEmpty else { return nil }
        var value: UInt64 = 0
        for digit in digits {
            guard (UInt8(ascii: "0")...UInt8(ascii: "7")).contains(digit), value >> 60 == 0 else { return nil }
            value = value << 3 | UInt64(digit - UInt8(ascii: "0"))
        }
        return value
    }

    private static func text(_ field: ArraySlice<UInt8>) -> String {
        String(decoding: field.prefix { $0 != 0 }, as: UTF8.self)
    }

    /// The block for this member: mode 0644, owner and group 0 without names, modified at `time` (seconds since 1970).
    /// `nil` when the name does not fit or the size is too large.
    func bytes(time: UInt64) -> [UInt8]? {
        guard let (prefix, name) = TarHeader.split(name), size <= TarHeader.maximumSize else { return nil }
        var block = [UInt8](repeating: 0, count: TarHeader.block)
        func put(_ text: String, _ offset: Int) {
            block.replaceSubrange(offset..<offset + text.utf8.count, with: text.utf8)
        }
        func octal(_ value: UInt64, _ offset: Int, digits: Int) {
            let text = String(value, radix: 8)
            put(String(repeating: "0", count: max(0, digits - text.utf8.count)) + text, offset)
        }
        put(name, 0)
        octal(0o644, 100, digits: 7)
        octal(0, 108, digits: 7)
        octal(0, 116, digits: 7)
        octal(size, 124, digits: 11)
        // Eleven digits reach to the year 2242.
        octal(min(time, 0o77_777_777_777), 136, digits: 11)
        put("        ", 148)
        put("0", 156)
        put("ustar", 257)
        put("00", 263)
        octal(0, 329, digits: 7)
        octal(0, 337, digits: 7)
        put(prefix, 345)
        octal(block.reduce(0) { $0 + UInt64($1) }, 148, digits: 6)
        block[154] = 0
        block[155] = 32
        return block
    }

    /// Prefix and name of a path: 100 bytes of name, or a slash at which at most 155 bytes go before it.
    private static func split(_ path: String) -> (prefix: String, name: String)? {
        guard !path.isEmpty else { return nil }
        if path.utf8.count <= 100 { return ("", path) }
        for slash in path.utf8.indices where path.utf8[slash] == UInt8(ascii: "/") {
            let prefix = String(path[..<slash])
            let name = String(path[path.utf8.index(after: slash)...])
            if prefix.utf8.count <= 155, !prefix.isEmpty, !name.isEmpty, name.utf8.count <= 100 {
                return (prefix, name)
            }
        }
        return nil
    }
}
