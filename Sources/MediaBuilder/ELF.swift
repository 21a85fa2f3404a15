// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials

/// The little of the ELF format (System V ABI, chapters 4 and 5) that tells programs from other files.
enum ELF {
    /// Whether a file is a 64-bit x86 program or shared library that names libraries in a dynamic section; not a static
    /// program, not an object file such as a GRUB or kernel module. `head` are the file's first 4 KiB.
    static func needsLibraries(_ head: Data) -> Bool {
        let bytes = [UInt8](head)
        // e_ident: magic, ELFCLASS64, little endian; e_type 2 (program) or 3 (shared object); e_machine 62 (x86-64).
        guard bytes.starts(with: [0x7F, 0x45, 0x4C, 0x46, 2, 1]), let type = value(bytes, at: 16, count: 2),
            type == 2 || type == 3, value(bytes, at: 18, count: 2) == 62,
            let table = value(bytes, at: 32, count: 8), let size = value(bytes, at: 54, count: 2),
            let count = value(bytes, at: 56, count: 2)
        else { return false }
        for index in 0..<count {
            let (offset, overflow) = table.addingReportingOverflow(index &* size)
            guard !overflow, let offset = Int(exactly: offset) else { return false }
            // p_type 2: PT_DYNAMIC.
            if value(bytes, at: offset, count: 4) == 2 { return true }
        }
        return false
    }

    /// A little-endian number; `nil` outside the bytes.
    private static func value(_ bytes: [UInt8], at offset: Int, count: Int) -> UInt64? {
        guard offset >= 0, offset <= bytes.count, bytes.count - offset >= count else { return nil }
        return bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}
