// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Findings

/// A cpio archive in the "new ASCII" format the kernel unpacks into its root (kernel documentation,
/// `driver-api/early-userspace/buffer-format.rst`): for each entry a header of `070701` and thirteen numbers of eight
/// hexadecimal digits, the name with a zero byte padded to 4, the content padded to 4.
///
/// Owner and group are always 0, inode numbers count from 1, and every entry has the same time: the same entries give
/// the same bytes.
struct CpioArchive {
    /// The archive so far.
    private(set) var bytes = Data()
    private let time: UInt32
    private var inode: UInt32 = 0

    /// Largest file the format can hold: its sizes have 32 bits.
    static let largestFile = Int(UInt32.max)

    /// `time` in seconds since 1970.
    init(time: Int) { self.time = UInt32(clamping: time) }

    /// Appends an entry. `path` is absolute; the archive holds it without the leading `/`.
    mutating func append(_ path: String, _ node: Node) throws(Fault) {
        switch node {
        case .folder(let mode): try append(path, mode: 0o040000 | mode, links: 2, Data())
        case .file(let content, let mode): try append(path, mode: 0o100000 | mode, links: 1, try content.load())
        case .link(let target): try append(path, mode: 0o120777, links: 1, Data(target.utf8))
        }
    }

    /// Ends the archive.
    mutating func finish() throws(Fault) -> Data {
        inode = 0
        write(name: "TRAILER!!!", mode: 0, links: 1, size: 0, time: 0, inode: 0)
        return bytes
    }

    private mutating func append(_ path: String, mode: UInt32, links: UInt32, _ content: Data) throws(Fault) {
        guard content.count <= Self.largestFile else {
            throw Fault(
                .mediaContent,
                what: "The file has \(content.count) bytes; a cpio archive holds at most 4 GiB for each.",
                place: path, remedy: "Leave it out.")
        }
        inode += 1
        let name = path.hasPrefix("/") ? String(path.dropFirst()) : path
        write(name: name, mode: mode, links: links, size: UInt32(content.count), time: time, inode: inode)
        bytes.append(content)
        pad()
    }

    private mutating func write(name: String, mode: UInt32, links: UInt32, size: UInt32, time: UInt32, inode: UInt32) {
        bytes.append(contentsOf: Array("070701".utf8))
        let nameSize = UInt32(clamping: name.utf8.count + 1)
        // c_ino c_mode c_uid c_gid c_nlink c_mtime c_filesize c_maj c_min c_rmaj c_rmin c_namesize c_chksum
        for value in [inode, mode, 0, 0, links, time, size, 0, 0, 0, 0, nameSize, 0] {
            bytes.append(contentsOf: Self.hexadecimal(value))
        }
        bytes.append(contentsOf: Array(name.utf8))
        bytes.append(0)
        pad()
    }

    private mutating func pad() { while bytes.count % 4 != 0 { bytes.append(0) } }

    private static func hexadecimal(_ value: UInt32) -> [UInt8] {
        let digits = Array("0123456789abcdef".utf8)
        return (0..<8).map { digits[Int(value >> UInt32(28 - 4 * $0) & 15)] }
    }
}
