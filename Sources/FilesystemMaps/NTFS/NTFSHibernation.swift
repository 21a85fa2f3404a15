// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import MachineModel

/// Whether a Windows sleeps on the volume: hiberfil.sys in the root directory begins with a mark while it does.
enum NTFSHibernation {
    /// Marks of a hibernation that is over: after a resume, and before the first time.
    private static let over = ["wake", "WAKE", "rstr", "RSTR", "\0\0\0\0"]
    /// A root directory whose index is larger is not searched.
    private static let largestIndex: UInt64 = 64 << 20

    /// Throws where a hibernated system lies on the volume or nothing can be said about that.
    static func requireNone(_ volume: NTFSVolume) throws(MapProblem) {
        let root = try volume.record(NTFSVolume.SystemFile.root.rawValue)
        for reference in try find("hiberfil.sys", in: root, volume) {
            let file = try volume.record(reference.record)
            guard file.sequence == reference.sequence,
                let data = try volume.stream(file, type: NTFSAttribute.data, named: "", "hiberfil.sys")
            else { throw .damaged("The root directory's entry of hiberfil.sys leads nowhere.") }
            // Nothing was ever written: nobody sleeps in it.
            if data.initializedSize < 4096, data.resident == nil { continue }
            let mark = try volume.read(data, at: 0, count: Int(min(4, data.initializedSize)))
            guard over.contains(where: { mark.elementsEqual($0.utf8) }) else {
                throw .whole(
                    "It holds a hibernated Windows, which keeps part of the metadata in memory. Shut it down fully "
                        + "(`shutdown /s /t 0`) to image used clusters only.", .hibernated)
            }
        }
    }

    /// The files of a directory with a name, in ASCII, whatever its case. The whole index is read: its order depends
    /// on the volume's own table of upper-case letters.
    private static func find(
        _ name: String, in directory: NTFSRecord, _ volume: NTFSVolume
    ) throws(MapProblem) -> [NTFSReference] {
        let what = "the root directory's index"
        guard let root = try volume.stream(directory, type: NTFSAttribute.indexRoot, named: "$I30", what),
            let value = root.resident
        else { throw .damaged("The root directory has no index.") }
        var found: [NTFSReference] = []
        let head = Fields(what, value)
        try search(head, header: 16, for: name, &found)
        guard let blocks = try volume.stream(directory, type: NTFSAttribute.indexAllocation, named: "$I30", what) else {
            return found
        }
        let size = Int(try head.little(UInt32.self, "index_block_size", at: 8))
        guard size >= 512, size <= 65_536, size & (size - 1) == 0, blocks.size <= largestIndex else {
            throw .damaged("The root directory's index is too large.")
        }
        let map = try volume.stream(directory, type: NTFSAttribute.bitmap, named: "$I30", what)
        let taken = try map.map { map throws(MapProblem) in
            try volume.read(map, at: 0, count: Int(min(map.initializedSize, 1 << 20)))
        }
        for index in 0..<Int(blocks.size) / size {
            guard let taken, index / 8 < taken.count else {
                throw .damaged("The root directory's index has no bitmap.")
            }
            if taken[index / 8] >> UInt8(index % 8) & 1 == 0 { continue }
            let raw = Fields(
                "block \(index) of the root directory's index",
                try volume.read(blocks, at: UInt64(index) * UInt64(size), count: size))
            guard raw.matches("INDX", at: 0) else { throw .damaged("\(raw.name.capitalizedFirst) is not one.") }
            try search(try NTFSFixup.applied(to: raw), header: 24, for: name, &found)
        }
        return found
    }

    /// Looks through the entries of one node, whose index header begins at `header`.
    private static func search(
        _ node: Fields, header: Int, for name: String, _ found: inout [NTFSReference]
    ) throws(MapProblem) {
        var at = header + Int(try node.little(UInt32.self, "entries_offset", at: header))
        while true {
            let length = Int(try node.little(UInt16.self, "length", at: at + 8))
            if try node.little(UInt16.self, "flags", at: at + 12) & 2 != 0 { return }
            guard length >= 16 + 66 else { throw .damaged("\(node.name.capitalizedFirst) has a damaged entry.") }
            let count = Int(try node.little(UInt8.self, "file_name_length", at: at + 16 + 64))
            if count == name.utf8.count {
                let text = UTF16Text.decode(try node.bytes("file_name", at: at + 16 + 66, count: 2 * count))
                if text.lowercased() == name {
                    found.append(NTFSReference(try node.little(UInt64.self, "indexed_file", at: at)))
                }
            }
            at += length
        }
    }
}
