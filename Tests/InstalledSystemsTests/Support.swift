// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FileTrees
import Findings
import Geometry
import MachineModel

@testable import InstalledSystems

/// Files in memory: paths and what is there. A value that begins with `->` is a link.
final class MemoryTree: FileTree {
    var files: [String: [UInt8]] = [:]
    var links: [String: String] = [:]
    var folders: Set<String> = [""]
    let isCaseSensitive: Bool
    /// Paths whose reads fail.
    var broken: Set<String> = []
    /// Reads so far.
    private(set) var reads = 0

    init(_ content: [String: String] = [:], isCaseSensitive: Bool = true) {
        self.isCaseSensitive = isCaseSensitive
        for (path, text) in content { put(path, text) }
    }

    func put(_ path: String, _ text: String) {
        if text.hasPrefix("->") {
            addFolders(path)
            links[key(path)] = String(text.dropFirst(2))
        } else {
            put(path, Array(text.utf8))
        }
    }

    func put(_ path: String, _ bytes: [UInt8]) {
        addFolders(path)
        files[key(path)] = bytes
        names[key(path)] = path.split(separator: "/").last.map(String.init)
    }

    private var names: [String: String] = [:]
    private func key(_ path: String) -> String { isCaseSensitive ? path : path.lowercased() }
    private func key(_ path: [String]) -> String { key(path.joined(separator: "/")) }
    private func addFolders(_ path: String) {
        var parts = path.split(separator: "/").map(String.init)
        while parts.popLast() != nil {
            folders.insert(key(parts))
            if let last = parts.last { names[key(parts)] = last }
        }
    }

    func step(_ path: [String]) throws(Fault) -> TreeStep {
        for depth in 0..<path.count {
            if let target = links[key(Array(path.prefix(depth + 1)))] { return .link(depth: depth + 1, target: target) }
        }
        guard let entry = entry(key(path)) else { return .missing }
        return .found(entry)
    }

    private func entry(_ key: String) -> TreeEntry? {
        let name = names[key] ?? key.split(separator: "/").last.map(String.init) ?? ""
        if folders.contains(key) { return TreeEntry(name: name, kind: .folder) }
        if links[key] != nil { return TreeEntry(name: name, kind: .link) }
        return files[key].map { TreeEntry(name: name, kind: .file, size: UInt64($0.count)) }
    }

    func list(_ path: [String], most: Int) throws(Fault) -> [TreeEntry] {
        let folder = key(path)
        let prefix = folder.isEmpty ? "" : folder + "/"
        let all = Set(files.keys).union(links.keys).union(folders)
        return all.filter { $0 != folder && $0.hasPrefix(prefix) && !$0.dropFirst(prefix.count).contains("/") }.sorted()
            .compactMap { entry($0) }
    }

    func read(_ path: [String], stream: String?, from offset: UInt64, count: Int) throws(Fault) -> [UInt8] {
        reads += 1
        guard !broken.contains(key(path)) else {
            throw Fault(.treeDamaged, what: "It is torn.", place: key(path), remedy: "")
        }
        return Array((files[key(path)] ?? []).dropFirst(Int(offset)).prefix(count))
    }

    func streams(_ path: [String]) throws(Fault) -> [TreeStream] { [] }
}

/// Volumes with trees in memory.
struct Machine {
    var volumes: [SeenVolume] = []
    var trees: [String: MemoryTree] = [:]
    /// Volumes that cannot be opened, and why.
    var faults: [String: Fault] = [:]

    mutating func add(
        _ name: String, _ kind: String, _ tree: MemoryTree?, uuid: String? = nil, label: String? = nil, disk: Int = 0,
        partition: Partition? = nil, signature: UInt32? = nil, states: [VolumeState] = []
    ) {
        volumes.append(
            SeenVolume(
                name: name, disk: disk, source: MemoryDisk([UInt8](repeating: 0, count: 1 << 20), name: name),
                kind: ContentKind(rawValue: kind), label: label, uuid: uuid, states: states, partition: partition,
                signature: signature))
        trees[name] = tree
    }

    func look() throws -> SystemsSeen {
        try InstalledSystems.look(at: volumes) { (volume, source) throws(Fault) in
            if let fault = faults[volume.name] { throw fault }
            guard let tree = trees[volume.name] else {
                throw Fault(.unsupported, what: "Files of \(volume.kind.rawValue) are not read here.", remedy: "")
            }
            return tree
        }
    }
}

/// A kernel's image whose head says `release`.
func kernelImage(_ release: String) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 0x1000)
    bytes.replaceSubrange(0x202..<0x206, with: "HdrS".utf8)
    bytes[0x20F] = 0x08
    let text = Array("\(release) (builder@host) #1 SMP".utf8)
    bytes.replaceSubrange(0xA00..<0xA00 + text.count, with: text)
    return bytes
}

/// The head of a program for x86-64.
let elf: [UInt8] =
    [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9) + [3, 0, 62, 0]
    + [UInt8](repeating: 0, count: 44)

/// An EFI program with sections of the names and contents given.
func efiProgram(_ sections: [(String, String)], isSigned: Bool = false, machine: UInt16 = 0x8664) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 0x400)
    func put<T: FixedWidthInteger>(_ value: T, _ at: Int) {
        for shift in 0..<T.bitWidth / 8 { bytes[at + shift] = UInt8(truncatingIfNeeded: value >> (8 * T(shift))) }
    }
    bytes.replaceSubrange(0..<2, with: "MZ".utf8)
    put(UInt32(0x80), 0x3C)
    bytes.replaceSubrange(0x80..<0x84, with: [0x50, 0x45, 0, 0])
    put(machine, 0x84)
    put(UInt16(sections.count), 0x86)
    put(UInt16(240), 0x94)
    put(UInt16(0x20B), 0x98)
    if isSigned { put(UInt32(1234), 0x98 + 112 + 36) }
    for (index, (name, content)) in sections.enumerated() {
        let at = 0x98 + 240 + index * 40
        let text = Array(content.utf8)
        bytes.replaceSubrange(at..<at + name.utf8.count, with: name.utf8)
        put(UInt32(text.count), at + 8)
        put(UInt32(text.count), at + 16)
        put(UInt32(bytes.count), at + 20)
        bytes += text
    }
    return bytes
}

/// A registry hive with the keys and values given, from the format alone.
struct HiveMaker {
    struct Key {
        var values: [(name: String, type: UInt32, data: [UInt8])] = []
        var keys: [(name: String, key: Key)] = []

        mutating func set(_ path: String, _ name: String, _ text: String) {
            at(path.split(separator: "\\").map(String.init)) {
                $0.values.append((name, 1, (Array(text.utf16) + [0]).flatMap { [UInt8($0 & 0xFF), UInt8($0 >> 8)] }))
            }
        }
        mutating func set(_ path: String, _ name: String, _ number: UInt32) {
            at(path.split(separator: "\\").map(String.init)) {
                $0.values.append((name, 4, (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }))
            }
        }
        private mutating func at(_ path: [String], _ body: (inout Key) -> Void) {
            guard let first = path.first else { return body(&self) }
            if !keys.contains(where: { $0.name == first }) { keys.append((first, Key())) }
            keys.sort { $0.name.uppercased() < $1.name.uppercased() }
            guard let index = keys.firstIndex(where: { $0.name == first }) else { return }
            keys[index].key.at(Array(path.dropFirst()), body)
        }
    }

    private var cells: [UInt8] = []

    private static func little<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
        (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * T($0))) }
    }

    private mutating func cell(_ data: [UInt8]) -> UInt32 {
        let offset = UInt32(32 + cells.count)
        let size = (data.count + 4 + 7) / 8 * 8
        cells += HiveMaker.little(Int32(-size)) + data + [UInt8](repeating: 0, count: size - data.count - 4)
        return offset
    }

    private mutating func key(_ name: String, _ key: Key, isRoot: Bool) -> UInt32 {
        let none = UInt32.max
        var values: [UInt8] = []
        for value in key.values {
            let isInside = value.data.count <= 4
            let data = isInside ? 0 : cell(value.data)
            let place =
                isInside ? value.data + [UInt8](repeating: 0, count: 4 - value.data.count) : HiveMaker.little(data)
            let size = UInt32(value.data.count) | (isInside ? 0x8000_0000 : 0)
            values += HiveMaker.little(
                cell(
                    Array("vk".utf8) + HiveMaker.little(UInt16(value.name.utf8.count)) + HiveMaker.little(size) + place
                        + HiveMaker.little(value.type) + HiveMaker.little(UInt16(1)) + [0, 0] + Array(value.name.utf8)))
        }
        let valueList = values.isEmpty ? none : cell(values)
        var list: [UInt8] = []
        var children: [UInt32] = []
        for child in key.keys {
            let place = self.key(child.name, child.key, isRoot: false)
            children.append(place)
            list += HiveMaker.little(place) + Array((Array(child.name.utf8) + [0, 0, 0, 0]).prefix(4))
        }
        let keyList =
            list.isEmpty ? none : cell(Array("lf".utf8) + HiveMaker.little(UInt16(key.keys.count)) + list)
        var data = Array("nk".utf8) + HiveMaker.little(UInt16(isRoot ? 0x2C : 0x20)) + HiveMaker.little(UInt64(0))
        data += HiveMaker.little(UInt32(0)) + HiveMaker.little(none) + HiveMaker.little(UInt32(key.keys.count))
        data += HiveMaker.little(UInt32(0)) + HiveMaker.little(keyList) + HiveMaker.little(none)
        data += HiveMaker.little(UInt32(key.values.count)) + HiveMaker.little(valueList) + HiveMaker.little(none)
        data += HiveMaker.little(none) + [UInt8](repeating: 0, count: 20)
        data += HiveMaker.little(UInt16(name.utf8.count)) + HiveMaker.little(UInt16(0)) + Array(name.utf8)
        let own = cell(data)
        // The parent is known now.
        for child in children {
            cells.replaceSubrange(Int(child) - 32 + 20..<Int(child) - 32 + 24, with: HiveMaker.little(own))
        }
        return own
    }

    static func bytes(_ root: Key) -> [UInt8] {
        var maker = HiveMaker()
        let place = maker.key("ROOT", root, isRoot: true)
        let used = 32 + maker.cells.count
        let size = (used + 8 + 4095) / 4096 * 4096
        var bin = Array("hbin".utf8) + little(UInt32(0)) + little(UInt32(size)) + [UInt8](repeating: 0, count: 20)
        bin += maker.cells + little(Int32(size - used))
        bin += [UInt8](repeating: 0, count: size - bin.count)
        var base = Array("regf".utf8) + little(UInt32(1)) + little(UInt32(1)) + little(UInt64(0)) + little(UInt32(1))
        base += little(UInt32(5)) + little(UInt32(0)) + little(UInt32(1)) + little(place) + little(UInt32(size))
        base += little(UInt32(1))
        base += [UInt8](repeating: 0, count: 4096 - base.count)
        var sum: UInt32 = 0
        for index in 0..<127 {
            sum ^= (0..<4).reduce(0) { $0 | UInt32(base[index * 4 + $1]) << UInt32(8 * $1) }
        }
        base.replaceSubrange(508..<512, with: little(sum))
        return base + bin
    }

    /// The SOFTWARE hive of a Windows 10 that calls itself `build`.
    static func software(build: String = "19045") -> [UInt8] {
        var root = Key()
        let key = "Microsoft\\Windows NT\\CurrentVersion"
        root.set(key, "ProductName", "Windows 10 Pro")
        root.set(key, "EditionID", "Professional")
        root.set(key, "InstallationType", "Client")
        root.set(key, "CurrentBuildNumber", build)
        root.set(key, "UBR", 3803)
        root.set(key, "DisplayVersion", "22H2")
        root.set(key, "CurrentMajorVersionNumber", 10)
        root.set(key, "CurrentMinorVersionNumber", 0)
        root.set(key, "SystemRoot", "C:\\Windows")
        return bytes(root)
    }

    /// The SYSTEM hive that belongs to it.
    static func system() -> [UInt8] {
        var root = Key()
        for name in ["Current", "Default"] { root.set("Select", name, 1) }
        root.set("ControlSet001\\Control\\ComputerName\\ComputerName", "ComputerName", "OFFICE-7")
        root.set("ControlSet001\\Control\\Session Manager\\Environment", "PROCESSOR_ARCHITECTURE", "AMD64")
        root.set("ControlSet001\\Control\\Session Manager\\Power", "HiberbootEnabled", 1)
        return bytes(root)
    }
}
