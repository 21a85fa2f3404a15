// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// The entries of a directory's block. Linux, Documentation/filesystems/ext4/directory.rst: linear directories, and hash
/// trees too, whose inner nodes look like one empty entry.
package enum ExtDirectory {
    /// Hands each entry in use to `body` until that returns false. Damage ends the block.
    package static func entries(
        _ bytes: [UInt8], from start: Int = 0, _ body: (_ inode: UInt32, _ name: ArraySlice<UInt8>) -> Bool
    ) {
        let span = unsafe bytes.span.bytes
        var offset = start
        while offset + 8 <= bytes.count {
            guard let inode = try? span.littleEndian(UInt32.self, "inode", at: offset),
                let stored = try? span.littleEndian(UInt16.self, "rec_len", at: offset + 4),
                let nameLength = try? span.littleEndian(UInt8.self, "name_len", at: offset + 6)
            else { return }
            // Blocks of 64 KiB do not fit the field: the two lowest bits hold what is above.
            var length = Int(stored)
            if bytes.count >= 65536 {
                length = stored == 0 || stored == 65535 ? 65536 : Int(stored & 0xFFFC) | Int(stored & 3) << 16
            }
            guard length >= 8, length <= bytes.count - offset else { return }
            let name = offset + 8..<offset + 8 + Int(nameLength)
            if inode != 0, nameLength > 0, name.upperBound <= offset + length {
                if !body(inode, bytes[name]) { return }
            }
            offset += length
        }
    }

    /// The same for a directory kept in its inode: its parent's number, then entries in what lies in the block map, then
    /// in the extended attribute.
    package static func inlineEntries(
        _ bytes: [UInt8], _ body: (_ inode: UInt32, _ name: ArraySlice<UInt8>) -> Bool
    ) {
        let inMap = 60
        var goOn = true
        func each(_ part: [UInt8], _ start: Int) {
            entries(part, from: start) { inode, name in
                goOn = body(inode, name)
                return goOn
            }
        }
        each(Array(bytes.prefix(inMap)), 4)
        if goOn, bytes.count > inMap { each(Array(bytes.dropFirst(inMap)), 0) }
    }

    /// The parent's number of a directory kept in its inode.
    static func inlineParent(_ bytes: [UInt8]) -> UInt32? {
        let span = unsafe bytes.span.bytes
        return try? span.littleEndian(UInt32.self, "parent", at: 0)
    }
}
