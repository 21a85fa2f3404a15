// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Synchronization
import TestSupport

@testable import ImageStore

/// A model of a filesystem on a medium with a volatile cache: computes what a power cut may leave of what a folder store
/// did, and is no kinder than any real one.
///
/// What was written to a file is durable once that file was flushed; that a name was added to or taken from a folder, once
/// that folder was flushed; that what a renamed file holds is found under its new name, once the file was flushed under
/// that name (FAT is like that). A file may be left with both its names, of which removing one destroys what is found
/// under the other. Of everything else any part may be lost, in any combination: halves of writes, one end of a
/// rename without the other, a file's name without its content.
struct VolatileDisk {
    /// A change that is not durable yet.
    private enum Change {
        case write(node: Int, offset: Int, bytes: [UInt8], number: Int)
        case add(folder: Int, name: String, node: Int)
        case remove(folder: Int, name: String)
        /// What a file that was renamed holds is found under its new name, too.
        case attach(node: Int)
    }

    private struct File {
        var bytes: [UInt8] = []
        /// Numbers of the writes that are in it.
        var writes: [Int] = []
    }

    private struct Tree {
        var files: [Int: File] = [:]
        /// What lies where. The number of a file that was renamed is negative: see ``attached``.
        var folders: [Int: [String: Int]] = [0: [:]]
        /// Files whose new names lead to their content; other renamed files are empty.
        var attached: Set<Int> = []

        mutating func apply(_ change: Change) {
            switch change {
            case .write(let node, let offset, let bytes, let number):
                var file = files[node] ?? File()
                let missing = offset + bytes.count - file.bytes.count
                if missing > 0 { file.bytes += [UInt8](repeating: 0, count: missing) }
                file.bytes.replaceSubrange(offset..<offset + bytes.count, with: bytes)
                file.writes.append(number)
                files[node] = file
            case .add(let folder, let name, let node): folders[folder, default: [:]][name] = node
            case .remove(let folder, let name): folders[folder]?[name] = nil
            case .attach(let node): attached.insert(node)
            }
        }
    }

    /// What may be found after a power cut.
    struct Remains {
        /// Every file by its path below the base.
        var files: [String: [UInt8]]
        /// Paths that lead to the same content, where there is more than one.
        var shared: [Set<String>]
        /// Equal for equal remains, `tmp` left aside but for what shares its place with others.
        var signature: String
    }

    private let base: String
    private var durable = Tree()
    private var current = Tree()
    private var pending: [Change] = []
    private var nodes = 0
    private var writes = 0
    private var temporary: Set<Int> = []
    /// Every file that was ever made in such a folder.
    private var unfinished: [String: Int] = [:]

    /// A disk on which the folder `base` exists and is empty.
    init(base: String) { self.base = base }

    /// Folders of `path` below the base, and its last name.
    private func place(_ path: String) -> (folder: Int, name: String)? {
        guard path.hasPrefix(base + "/") else { return nil }
        let parts = path.dropFirst(base.utf8.count + 1).split(separator: "/").map(String.init)
        guard let name = parts.last else { return nil }
        var folder = 0
        for part in parts.dropLast() {
            guard let next = current.folders[folder]?[part] else { return nil }
            folder = next
        }
        return (folder, name)
    }

    private func node(_ path: String) -> Int? {
        if path == base { return 0 }
        return place(path).flatMap { current.folders[$0.folder]?[$0.name] }.map { abs($0) }
    }

    private mutating func change(_ change: Change) {
        current.apply(change)
        pending.append(change)
    }

    private mutating func settle(_ isDone: (Change) -> Bool) {
        for change in pending where isDone(change) { durable.apply(change) }
        pending.removeAll(where: isDone)
    }

    /// Takes part in what the store does.
    mutating func apply(_ event: FolderEvent) {
        switch event {
        case .made(let file):
            guard let place = place(file) else { return }
            nodes += 1
            if temporary.contains(place.folder) { unfinished[place.name] = nodes }
            change(.add(folder: place.folder, name: place.name, node: nodes))
        case .madeFolder(let path):
            guard let place = place(path) else { return }
            nodes += 1
            (current.folders[nodes], durable.folders[nodes]) = ([:], [:])
            if place.name == "tmp" { temporary.insert(nodes) }
            change(.add(folder: place.folder, name: place.name, node: nodes))
        case .wrote(let file, let offset, let bytes):
            guard let node = node(file) else { return }
            // Two halves, of which one alone may be there.
            let half = bytes.count < 8192 ? bytes.count : bytes.count / 2 / 4096 * 4096
            for (start, end) in [(0, half), (half, bytes.count)] where start < end {
                writes += 1
                change(
                    .write(node: node, offset: Int(offset) + start, bytes: Array(bytes[start..<end]), number: writes))
            }
        case .flushed(let file):
            guard let node = node(file) else { return }
            settle {
                switch $0 {
                case .write(node, _, _, _), .attach(node): true
                default: false
                }
            }
        case .renamed(let from, let to):
            guard let node = node(from), let source = place(from), let target = place(to) else { return }
            change(.add(folder: target.folder, name: target.name, node: -node))
            change(.attach(node: node))
            change(.remove(folder: source.folder, name: source.name))
        case .removed(let file):
            guard let place = place(file) else { return }
            change(.remove(folder: place.folder, name: place.name))
        case .flushedFolder(let path):
            guard let folder = node(path) else { return }
            settle {
                switch $0 {
                case .add(folder, _, _), .remove(folder, _): true
                default: false
                }
            }
        }
    }

    /// What a power cut now may leave: every combination of the changes that matter while they are at most `bound`, and
    /// else none, all, every beginning, each alone, each missing, and some at random. Changes to unfinished files are lost
    /// or kept at random.
    func remains(bound: Int = 8, random: inout Seeded) -> [Remains] {
        var named: Set<Int> = []
        for (folder, names) in current.folders where !temporary.contains(folder) {
            named.formUnion(names.values.map { abs($0) })
        }
        for (folder, names) in durable.folders where !temporary.contains(folder) {
            named.formUnion(names.values.map { abs($0) })
        }
        let matters = pending.map { change in
            switch change {
            case .write(let node, _, _, _), .attach(let node): named.contains(node)
            case .add(let folder, let name, _), .remove(let folder, let name):
                !temporary.contains(folder) || unfinished[name].map { named.contains($0) } ?? false
            }
        }
        let places = matters.indices.filter { matters[$0] }
        let count = places.count
        var choices: [Set<Int>] = []
        if count <= bound {
            choices = (0..<1 << count).map { bits in Set(places.indices.filter { bits >> $0 & 1 == 1 }) }
        } else {
            let all = Set(0..<count)
            choices =
                [[], all] + (1..<count).map { Set(0..<$0) } + all.map { [$0] } + all.map { all.subtracting([$0]) }
            for _ in 0..<64 { choices.append(all.filter { _ in Bool.random(using: &random) }) }
        }
        return choices.map { choice in
            var tree = durable
            let kept = Set(choice.map { places[$0] })
            for (index, change) in pending.enumerated()
            where matters[index] ? kept.contains(index) : Bool.random(using: &random) { tree.apply(change) }
            return remains(of: tree)
        }
    }

    private func remains(of tree: Tree) -> Remains {
        var files: [String: [UInt8]] = [:]
        var signature: [String] = []
        var names: [Int: Set<String>] = [:]
        func walk(_ folder: Int, _ path: String) {
            for (name, node) in tree.folders[folder] ?? [:] {
                if tree.folders[node] != nil {
                    walk(node, path + name + "/")
                } else {
                    let isFound = node > 0 || tree.attached.contains(-node)
                    let file = (isFound ? tree.files[abs(node)] : nil) ?? File()
                    files[path + name] = file.bytes
                    if isFound, !file.bytes.isEmpty { names[abs(node), default: []].insert(path + name) }
                    if !temporary.contains(folder) { signature.append("\(path)\(name)=\(abs(node))\(file.writes)") }
                }
            }
        }
        walk(0, "")
        let shared = names.values.filter { $0.count > 1 }
        signature += shared.map { $0.sorted().joined(separator: "=") }
        return Remains(files: files, shared: shared, signature: signature.sorted().joined(separator: ";"))
    }
}

/// Notes what folder stores do, and what their user was told.
final class DiskRecorder: Sendable {
    enum Step: Sendable {
        case event(FolderEvent)
        /// Success was reported: from now on the points of these names, and no others, must be there.
        case acknowledged([String])
    }
    private let noted = Mutex<[Step]>([])
    var steps: [Step] { noted.withLock { $0 } }

    func acknowledge(_ names: [String]) { noted.withLock { $0.append(.acknowledged(names)) } }

    /// Runs `body`, noting what folder stores do on this thread.
    func record<R>(_ body: () throws -> R) rethrows -> R {
        try FolderEvent.$observer.withValue(
            { [self] event in noted.withLock { $0.append(.event(event)) } }, operation: body)
    }
}
