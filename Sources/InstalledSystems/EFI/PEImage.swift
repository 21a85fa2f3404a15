// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// The head of an EFI program. Microsoft, PE Format: COFF header, optional header, section table.
struct PEImage {
    /// A piece of the file with a name.
    struct Section {
        var name: String
        /// Byte of the file, and bytes there.
        var offset: UInt64
        var length: Int
    }
    /// The processor it is for, as `uname -m` calls it; `nil` for others.
    var architecture: String?
    /// Whether there is a table of certificates.
    var isSigned: Bool
    /// Its pieces.
    var sections: [Section]

    /// Bytes of a file that hold all of its head in practice.
    static let headBytes = 4096

    /// Reads the head in `bytes`. Throws for what is no such program.
    init(parsing bytes: [UInt8]) throws(FieldError) {
        let span = unsafe bytes.span.bytes
        guard span.matches("MZ".utf8, at: 0) else {
            throw .invalid(field: "e_magic", at: 0, seen: "something else", expected: "MZ")
        }
        let head = Int(try span.littleEndian(UInt32.self, "e_lfanew", at: 0x3C))
        guard head <= bytes.count - 24, span.matches([0x50, 0x45, 0, 0], at: head) else {
            throw .invalid(field: "e_lfanew", at: 0x3C, seen: "\(head)", expected: "the place of PE")
        }
        switch try span.littleEndian(UInt16.self, "Machine", at: head + 4) {
        case 0x8664: architecture = "x86_64"
        case 0x014C: architecture = "i686"
        case 0xAA64: architecture = "aarch64"
        case 0x01C0, 0x01C2, 0x01C4: architecture = "armv7l"
        case 0x5064: architecture = "riscv64"
        case 0x6264: architecture = "loongarch64"
        default: architecture = nil
        }
        let count = Int(try span.littleEndian(UInt16.self, "NumberOfSections", at: head + 6))
        let optionalSize = Int(try span.littleEndian(UInt16.self, "SizeOfOptionalHeader", at: head + 20))
        let optional = head + 24
        let isWide = try span.littleEndian(UInt16.self, "Magic", at: optional) == 0x20B
        // Entry 4 of the data directories: the certificate table.
        let directories = optional + (isWide ? 112 : 96)
        isSigned = false
        if directories + 40 <= optional + optionalSize {
            isSigned = try span.littleEndian(UInt32.self, "Certificate Table", at: directories + 36) > 0
        }
        sections = []
        for index in 0..<min(count, 96) {
            let at = optional + optionalSize + index * 40
            guard at + 40 <= bytes.count else { break }
            let name = try span.bytes("Name", at: at, count: 8).prefix { $0 != 0 }
            let virtual = try span.littleEndian(UInt32.self, "VirtualSize", at: at + 8)
            let raw = try span.littleEndian(UInt32.self, "SizeOfRawData", at: at + 16)
            let offset = try span.littleEndian(UInt32.self, "PointerToRawData", at: at + 20)
            sections.append(
                Section(
                    name: String(decoding: name, as: UTF8.self), offset: UInt64(offset), length: Int(min(virtual, raw)))
            )
        }
    }
}
