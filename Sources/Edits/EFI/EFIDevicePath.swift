// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import BinaryFields

/// Where the firmware finds something: nodes from the machine's root to a device, a partition, a file (UEFI
/// Specification 2.10, section 10.3). Nodes that are not understood are kept as they are.
public struct EFIDevicePath: Hashable, Sendable {
    /// One node.
    public struct Node: Hashable, Sendable {
        /// Its type: 1 hardware, 2 ACPI, 3 messaging, 4 media, 5 BIOS boot, 127 end.
        public var type: UInt8
        /// Its subtype.
        public var subtype: UInt8
        /// What follows its four bytes of head.
        public var data: [UInt8]

        /// A node. `data` has at most 65,531 bytes.
        public init(_ type: UInt8, _ subtype: UInt8, _ data: [UInt8]) {
            self.type = type
            self.subtype = subtype
            self.data = data
        }

        var bytes: [UInt8] {
            var result = [type, subtype]
            result.appendLittleEndian(UInt16(clamping: data.count + 4))
            return result + data
        }

        /// Whether it ends the path, or one of several paths in it.
        var isEnd: Bool { type == 0x7F }
    }

    /// Its nodes, without the one that ends it all.
    public var nodes: [Node]

    /// A path of `nodes`.
    public init(_ nodes: [Node]) { self.nodes = nodes }

    /// Reads the path at the start of `bytes`; how many bytes it has is added to `length`. Throws where a node's length
    /// cannot be, or no node ends the path.
    init(_ bytes: ArraySlice<UInt8>, length: inout Int) throws(EFIFormatError) {
        nodes = []
        var at = bytes.startIndex
        while true {
            guard bytes.endIndex - at >= 4 else { throw EFIFormatError("the device path has no end") }
            let size = Int(bytes[at + 2]) | Int(bytes[at + 3]) << 8
            guard size >= 4, size <= bytes.endIndex - at else {
                throw EFIFormatError("a node of the device path has the length \(size)")
            }
            let node = Node(bytes[at], bytes[at + 1], Array(bytes[at + 4..<at + size]))
            at += size
            if node.isEnd, node.subtype == 0xFF { break }
            nodes.append(node)
        }
        length += at - bytes.startIndex
    }

    /// As it is stored, its end included.
    public var bytes: [UInt8] { nodes.flatMap(\.bytes) + [0x7F, 0xFF, 4, 0] }
}

/// What is wrong with a structure of the firmware; the caller says where.
struct EFIFormatError: Error {
    var what: String
    init(_ what: String) { self.what = what }
}

extension EFIDevicePath {
    /// A partition as the firmware names it (UEFI Specification 2.10, section 10.3.5.1).
    public struct Partition: Hashable, Sendable {
        /// How the disk it lies on is known.
        public enum Signature: Hashable, Sendable {
            /// The partition's own GUID.
            case gpt(GUID)
            /// The MBR's disk signature.
            case mbr(UInt32)
            /// None, or of a kind nobody knows: type of table and of signature.
            case other(UInt8, UInt8)
        }
        /// Its number; 0 stands for the whole disk.
        public var number: UInt32
        /// Its first sector, in logical sectors of the disk.
        public var start: UInt64
        /// Its length, in logical sectors of the disk.
        public var length: UInt64
        /// Whose it is.
        public var signature: Signature

        /// A partition.
        public init(number: UInt32, start: UInt64, length: UInt64, signature: Signature) {
            self.number = number
            self.start = start
            self.length = length
            self.signature = signature
        }
    }

    /// A path to a file on a partition, in the short form that does not name the controller: the firmware looks for the
    /// partition on every disk, so that the entry outlives a move to another port. `file` is a path with either kind of
    /// slash.
    public init(_ partition: Partition, file: String) {
        self.init([Node(partition), Node(file: file)])
    }

    /// The partition it leads to, if it does.
    public var partition: Partition? { nodes.lazy.compactMap(\.partition).first }

    /// The file it leads to, with backslashes; `nil` where it leads to none.
    public var file: String? {
        let parts = nodes.compactMap(\.file)
        guard let first = parts.first else { return nil }
        return parts.dropFirst().reduce(first) { path, part in
            path.hasSuffix("\\") || part.hasPrefix("\\") ? path + part : path + "\\" + part
        }
    }
}

extension EFIDevicePath.Node {
    init(_ partition: EFIDevicePath.Partition) {
        var data: [UInt8] = []
        data.appendLittleEndian(partition.number)
        data.appendLittleEndian(partition.start)
        data.appendLittleEndian(partition.length)
        switch partition.signature {
        case .gpt(let guid): data += guid.bytes + [2, 2]
        case .mbr(let signature):
            data.appendLittleEndian(signature)
            data += [UInt8](repeating: 0, count: 12) + [1, 1]
        case .other(let table, let kind): data += [UInt8](repeating: 0, count: 16) + [table, kind]
        }
        self.init(4, 1, data)
    }

    init(file: String) {
        let path = String(file.map { $0 == "/" ? "\\" : $0 })
        self.init(4, 4, UTF16Text.encode(path.hasPrefix("\\") ? path : "\\" + path) + [0, 0])
    }

    var partition: EFIDevicePath.Partition? {
        guard type == 4, subtype == 1, data.count == 38, let guid = GUID(bytes: Array(data[20..<36])) else {
            return nil
        }
        let signature: EFIDevicePath.Partition.Signature =
            switch (data[36], data[37]) {
            case (2, 2): .gpt(guid)
            case (1, 1): .mbr(UInt32(truncatingIfNeeded: number(20, 4)))
            case (let table, let kind): .other(table, kind)
            }
        return EFIDevicePath.Partition(
            number: UInt32(truncatingIfNeeded: number(0, 4)), start: number(4, 8), length: number(12, 8),
            signature: signature)
    }

    var file: String? {
        guard type == 4, subtype == 4 else { return nil }
        return UTF16Text.decode(data)
    }

    /// `count` bytes at `offset` as a little-endian number; what is missing reads as zero.
    func number(_ offset: Int, _ count: Int) -> UInt64 {
        data.dropFirst(offset).prefix(count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}
