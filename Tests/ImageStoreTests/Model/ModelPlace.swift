// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc

@testable import ImageStore

/// Where a set of the model lies, with a way past its store: damage is done here, and what is there is looked at.
protocol ModelPlace: AnyObject {
    var store: any ObjectStore { get }
    /// Everything there is.
    func objects() throws -> [String: [UInt8]]
    /// Puts `bytes` in the place of an object, or removes it.
    func set(_ name: String, _ bytes: [UInt8]?) throws
    /// Leaves behind what a killed program had begun.
    func leave(_ dead: MortalStore) throws
    /// What killed programs left, where the store does not know.
    var leftovers: [any ObjectLeftover] { get }
    /// Lets hours pass.
    func pass(hours: UInt64)
}

/// Like an object store on a network: nothing unfinished is ever seen, lists may be late, time is the test's.
final class MemoryPlace: ModelPlace {
    let memory = MemoryStore()
    private var left: [MemoryLeftover] = []
    var store: any ObjectStore { memory }
    func objects() -> [String: [UInt8]] { memory.objects }
    func set(_ name: String, _ bytes: [UInt8]?) {
        var objects = memory.objects
        objects[name] = bytes
        memory.objects = objects
    }
    func leave(_ dead: MortalStore) {
        for (number, remains) in dead.remains.enumerated() {
            left.append(MemoryLeftover("left-\(number)", remains.content))
        }
    }
    var leftovers: [any ObjectLeftover] { left.filter { !$0.isRemoved } }
    func pass(hours: UInt64) { memory.time += hours * 3600 }
}

/// A folder.
final class FolderPlace: ModelPlace {
    private let folder = Sample.folder()
    private var path: String { folder + "/set" }
    let store: any ObjectStore
    init() { store = FolderStore(path: folder + "/set") }
    deinit { Sample.remove(folder) }

    func objects() throws -> [String: [UInt8]] {
        var result: [String: [UInt8]] = [:]
        try collect("", &result)
        return result
    }

    private func collect(_ prefix: String, _ result: inout [String: [UInt8]]) throws {
        guard let stream = unsafe opendir(path + "/" + prefix) else { return }
        defer { unsafe closedir(stream) }
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) {
                unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name == "." || name == ".." { continue }
            if unsafe entry.pointee.d_type == UInt8(DT_DIR) {
                try collect(prefix + name + "/", &result)
            } else {
                result[prefix + name] = try JudgeTests.file("\(path)/\(prefix)\(name)")
            }
        }
    }

    func set(_ name: String, _ bytes: [UInt8]?) throws {
        _ = unsafe unlink("\(path)/\(name)")
        if let bytes { try JudgeTests.write(bytes, to: "\(path)/\(name)") }
    }

    /// Files whose locks are free, as the kernel leaves them.
    func leave(_ dead: MortalStore) throws {
        let own = HostMark.own
        let notes = try objects().keys.filter { $0.hasPrefix("writers/") }
        for orphan in dead.orphans { orphan.end() }
        for note in notes { touch("\(path)/\(note)") }
        for (number, remains) in dead.remains.enumerated() {
            try JudgeTests.write(remains.content, to: "\(path)/tmp/dead\(number)-1-\(own).part")
        }
    }
    var leftovers: [any ObjectLeftover] { [] }
    func pass(hours: UInt64) {}
}
