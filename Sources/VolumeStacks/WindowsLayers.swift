// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Blocks
public import Findings
import Geometry
public import MachineModel

/// What Windows puts together out of disks, and libblkid does not know: recognised by partition types, named, and imaged
/// whole. What is not looked into: the database of a dynamic disk (in the disk's last MiB, or in a partition of its own), and
/// the slabs of a storage pool.
public enum WindowsLayers {
    /// A dynamic disk: its partition types say so, or ``isDynamic(_:)``.
    public static let dynamicDisk = ContentKind(rawValue: "windows_ldm")
    /// A partition of Storage Spaces, which its type tells.
    public static let storageSpaces = ContentKind(rawValue: "windows_storage_spaces")

    static let format = LayerFormat(
        kinds: [dynamicDisk.rawValue, storageSpaces.rawValue],
        name: { $0 == dynamicDisk ? "Windows dynamic disk" : "Storage Spaces" },
        recognise: { (source, kind) throws(LayerProblem) in
            guard kind == dynamicDisk else {
                return MemberDescriptor(
                    format: "Storage Spaces", content: .named,
                    wholeBecause:
                        "It belongs to Windows Storage Spaces, whose used blocks are not looked for. Image all the "
                        + "disks of its pool together.")
            }
            let header = try privateHeader(source)
            return MemberDescriptor(
                format: "Windows dynamic disk", name: header?.group ?? "", setUUID: header?.groupID, content: .named,
                wholeBecause:
                    "It is a Windows dynamic disk, whose volumes are not described by its partition table. Image all "
                    + "the disks of its group together.")
        },
        // They are named like the others.
        owns: { _ in false }, assemble: { (_, _) throws(Fault) in [] })

    /// Whether `disk`, which has no partition table that says so, has the private header of a dynamic disk. Throws
    /// `interrupted` only.
    public static func isDynamic(_ disk: any BlockSource) throws(Fault) -> Bool {
        do throws(LayerProblem) { return try privateHeader(disk) != nil } catch {
            if case .fault(let fault) = error, fault.code == .interrupted { throw fault }
            return false
        }
    }

    /// What a private header says: the group of disks that it belongs to.
    private struct PrivateHeader {
        let group: String
        let groupID: String?
    }

    /// The first sound private header: in sector 6, and in two places of the database in the last MiB. Linux,
    /// block/partitions/ldm.c (`ldm_parse_privhead`); all numbers are big-endian.
    private static func privateHeader(_ disk: any BlockSource) throws(LayerProblem) -> PrivateHeader? {
        let sectors = disk.length.bytes / 512
        guard sectors > 4096 else { return nil }
        for sector in [6, sectors - 1, sectors - 2048 + 1856] {
            let bytes: [UInt8]
            do throws(Fault) { bytes = try disk.bytes(at: ByteCount(sector * 512), count: 512) } catch {
                if error.code == .interrupted { throw .fault(error) }
                continue
            }
            if let header = parsed(bytes) { return header }
        }
        return nil
    }

    private static func parsed(_ bytes: [UInt8]) -> PrivateHeader? {
        let span = unsafe bytes.span.bytes
        guard span.matches("PRIVHEAD".utf8, at: 0),
            let version = try? span.bigEndian(UInt16.self, "major version", at: 12), version == 2,
            let size = try? span.bigEndian(UInt64.self, "size of the database", at: 0x133), size > 0,
            let name = try? span.bytes("disk group's name", at: 0xF0, count: 31),
            let id = try? span.bytes("disk group's UUID", at: 0xB0, count: 36)
        else { return nil }
        let text = id.map { Character(UnicodeScalar($0)) }
        let isUUID = text.allSatisfy { $0.isHexDigit || $0 == "-" }
        return PrivateHeader(
            group: String(decoding: name.prefix { $0 > 0x20 && $0 < 0x7F }, as: UTF8.self),
            groupID: isUUID ? String(text).lowercased() : nil)
    }
}
