// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings

/// What is particular about a key. Specification, "Key node", "Flags".
public struct KeyFlags: OptionSet, Hashable, Sendable {
    /// The bits stored.
    public let rawValue: UInt16
    /// The flags `rawValue`.
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Exists only in memory.
    public static let volatile = KeyFlags(rawValue: 0x01)
    /// Another hive is mounted here.
    public static let hiveExit = KeyFlags(rawValue: 0x02)
    /// The hive's root.
    public static let hiveEntry = KeyFlags(rawValue: 0x04)
    /// Cannot be deleted.
    public static let noDelete = KeyFlags(rawValue: 0x08)
    /// A symbolic link; its value `SymbolicLinkValue` says where to.
    public static let symbolicLink = KeyFlags(rawValue: 0x10)
    /// The name has one byte for each character.
    public static let compressedName = KeyFlags(rawValue: 0x20)
    /// Stands for a predefined handle, which lies in the place of the number of values.
    public static let predefinedHandle = KeyFlags(rawValue: 0x40)
}

/// A key. Specification, "Key node".
public struct HiveKey: Sendable {
    let image: HiveImage
    let storedName: HiveName
    private let lineage: Lineage
    /// Where its cell lies, bytes from the start of the bins.
    public let offset: UInt32
    /// What is particular about it.
    public let flags: KeyFlags
    /// When it, its values or the list of its subkeys were changed last.
    public let lastWritten: FileTime
    /// The cell of the key whose list names it; without meaning for the root.
    let parent: UInt32
    /// How many subkeys it has.
    public let subkeyCount: Int
    private let subkeyList: UInt32
    /// How many values it has.
    public let valueCount: Int
    private let valueList: UInt32
    private let security: UInt32
    private let classCell: UInt32
    private let classLength: Int

    /// Windows allows no key deeper than this below a hive's root.
    public static let deepest = 512
    private static let head = 76
    private static let smallestValue = 24

    /// The way from the root: names of keys, shared by all that lie below.
    private final class Lineage: Sendable {
        let above: Lineage?
        let name: HiveName
        let depth: Int
        init(_ above: Lineage?, _ name: HiveName) {
            self.above = above
            self.name = name
            depth = above.map { $0.depth + 1 } ?? 0
        }
    }

    /// The root.
    init(root image: HiveImage) throws(Fault) { try self.init(image, at: image.header.rootCell, below: nil) }

    private init(_ image: HiveImage, at offset: UInt32, below above: HiveKey?) throws(Fault) {
        if let above, above.depth >= HiveKey.deepest {
            throw image.damaged("Keys lie more than \(HiveKey.deepest) levels deep.", cell: offset)
        }
        let cell = try image.cell(offset, most: HiveKey.head + 176, "A key")
        guard cell.signature == "nk" else { throw cell.damaged("A key should be there, but it is none.") }
        flags = KeyFlags(rawValue: try cell.number(UInt16.self, "Flags", at: 2))
        lastWritten = FileTime(ticks: try cell.number(UInt64.self, "Last written timestamp", at: 4))
        parent = try cell.number(UInt32.self, "Parent", at: 16)
        subkeyCount = Int(try cell.number(UInt32.self, "Number of subkeys", at: 20))
        subkeyList = try cell.number(UInt32.self, "Subkeys list offset", at: 28)
        let values = Int(try cell.number(UInt32.self, "Number of key values", at: 36))
        valueCount = flags.contains(.predefinedHandle) ? 0 : values
        valueList = try cell.number(UInt32.self, "Key values list offset", at: 40)
        security = try cell.number(UInt32.self, "Key security offset", at: 44)
        classCell = try cell.number(UInt32.self, "Class name offset", at: 48)
        let nameLength = Int(try cell.number(UInt16.self, "Key name length", at: 72))
        classLength = Int(try cell.number(UInt16.self, "Class name length", at: 74))
        let end = HiveKey.head + nameLength
        guard end <= cell.length else {
            throw cell.damaged("The key's name of \(nameLength) bytes passes the end of its cell.")
        }
        let content = end <= cell.bytes.count ? cell : try image.cell(offset, most: end, "A key")
        storedName = HiveName(
            bytes: Array(content.bytes[HiveKey.head..<end]), isCompressed: flags.contains(.compressedName))
        lineage = Lineage(above?.lineage, storedName)
        self.image = image
        self.offset = offset
    }

    /// Its name.
    public var name: String { storedName.text }
    /// Levels below the root, which has 0.
    public var depth: Int { lineage.depth }
    /// The names from the root to this key, without the root's own; empty for the root.
    public var components: [String] {
        var names: [String] = []
        var next = Optional(lineage)
        while let step = next, step.above != nil {
            names.append(step.name.text)
            next = step.above
        }
        return names.reversed()
    }
    /// The path from the root, `ControlSet001\Services`; empty for the root.
    public var path: String { components.joined(separator: "\\") }

    // MARK: Subkeys

    private var list: SubkeyList { SubkeyList(image: image, cell: subkeyList, count: subkeyCount) }

    /// The subkey `name`; `nil` when there is none. Upper and lower case are the same.
    ///
    /// As in Windows a hash leaf finds a name by its hash.
    public func subkey(_ name: String) throws(Fault) -> HiveKey? {
        let sought = SoughtName(name)
        var found: HiveKey?
        try list.forEach { (element) throws(Fault) -> Bool in
            if let hash = element.hash, let wanted = sought.hash, hash != wanted { return true }
            let key = try HiveKey(image, at: element.key, below: self)
            guard sought.matches(key.storedName) else { return true }
            found = key
            return false
        }
        return found
    }

    /// The key at `path` below this one, names separated by backslashes; `nil` when there is none. An empty path is this key.
    public func key(_ path: String) throws(Fault) -> HiveKey? {
        var key = self
        for name in path.split(separator: "\\") {
            guard let next = try key.subkey(String(name)) else { return nil }
            key = next
        }
        return key
    }

    /// All subkeys, in stored order: rising by the upper case of their names.
    public func subkeys() throws(Fault) -> [HiveKey] {
        var result: [HiveKey] = []
        try forEachSubkey { (key) throws(Fault) -> Bool in
            result.append(key)
            return true
        }
        return result
    }

    /// Hands over the subkeys in turn, until `body` says `false`. For keys with very many.
    public func forEachSubkey(_ body: (HiveKey) throws(Fault) -> Bool) throws(Fault) {
        for place in try list.keys() {
            let key = try HiveKey(image, at: place, below: self)
            // What makes every walk end: a key has one parent, and the root has none.
            guard key.parent == offset, place != image.header.rootCell else {
                throw image.damaged(
                    "The key \(key.name) is listed by the key at 0x\(String(offset, radix: 16)), "
                        + "but belongs to another.", cell: place)
            }
            guard try body(key) else { return }
        }
    }

    // MARK: Values

    /// The value `name`, "" for the default value; `nil` when there is none. Upper and lower case are the same.
    public func value(_ name: String) throws(Fault) -> HiveValue? {
        let sought = SoughtName(name)
        var found: HiveValue?
        try forEachValue { (value) throws(Fault) -> Bool in
            guard sought.matches(value.storedName) else { return true }
            found = value
            return false
        }
        return found
    }

    /// All values, in stored order.
    public func values() throws(Fault) -> [HiveValue] {
        var result: [HiveValue] = []
        try forEachValue { (value) throws(Fault) -> Bool in
            result.append(value)
            return true
        }
        return result
    }

    /// Hands over the values in turn, until `body` says `false`. Specification, "Key values list".
    public func forEachValue(_ body: (HiveValue) throws(Fault) -> Bool) throws(Fault) {
        guard valueCount > 0 else { return }
        let list = try image.cell(valueList, most: 0, "A list of values")
        guard valueCount <= image.length / HiveKey.smallestValue, 4 * valueCount <= list.length else {
            throw list.damaged("A key is said to have \(valueCount) values, but the list has \(list.length) bytes.")
        }
        let step = 1024
        for start in stride(from: 0, to: valueCount, by: step) {
            let count = min(step, valueCount - start)
            let places = try image.read(at: Int(valueList) + Cell.head + 4 * start, count: 4 * count)
            for index in 0..<count {
                guard try body(try HiveValue(image, at: places.word(at: 4 * index))) else { return }
            }
        }
    }

    /// The value `name` as text: REG_SZ, REG_EXPAND_SZ (not expanded) or REG_LINK; `nil` when there is none of these types.
    public func string(_ name: String) throws(Fault) -> String? { try value(name)?.string() }
    /// The value `name` as a number of 32 bits; `nil` when there is none of that type.
    public func dword(_ name: String) throws(Fault) -> UInt32? { try value(name)?.dword() }
    /// The value `name` as a number of 64 bits; `nil` when there is none of that type.
    public func qword(_ name: String) throws(Fault) -> UInt64? { try value(name)?.qword() }
    /// The value `name` as texts; `nil` when there is none of that type.
    public func multiString(_ name: String) throws(Fault) -> [String]? { try value(name)?.multiString() }
    /// The value `name` as bytes, REG_BINARY only; `nil` when there is none of that type.
    public func binary(_ name: String) throws(Fault) -> [UInt8]? { try value(name)?.binary() }

    // MARK: Class and security

    /// The class it was made with; `nil` when there is none.
    public func className() throws(Fault) -> String? {
        guard classLength > 0, classCell != Cell.none else { return nil }
        let cell = try image.cell(classCell, most: classLength, "The class of a key")
        guard cell.bytes.count == classLength else {
            throw cell.damaged("A class name of \(classLength) bytes should be there, but the cell has \(cell.length).")
        }
        return UTF16Text.decode(cell.bytes)
    }

    /// Its security descriptor, self-relative, as it lies there; `nil` when there is none. Specification, "Key security".
    public func securityDescriptor() throws(Fault) -> [UInt8]? {
        guard security != Cell.none else { return nil }
        let head = try image.cell(security, most: 20, "The security descriptor of a key")
        guard head.signature == "sk" else {
            throw head.damaged("A security descriptor should be there, but it is none.")
        }
        let size = Int(try head.number(UInt32.self, "Security descriptor size", at: 16))
        // The longest an access list of 64 KiB allows, twice, and owner and group.
        guard size <= 1 << 18, 20 + size <= head.length else {
            throw head.damaged(
                "A security descriptor of \(size) bytes should be there, but the cell has \(head.length).")
        }
        return Array(try image.cell(security, most: 20 + size, "The security descriptor of a key").bytes[20...])
    }
}
