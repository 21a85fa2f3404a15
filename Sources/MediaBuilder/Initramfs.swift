// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Findings
import Synchronization
import Threads

/// The environment as the kernel gets it: zstd-compressed cpio archives one after the other, one for each group.
///
/// The first holds `relight` and the manifest, so that PID 1 starts and can tell what is missing even where memory is
/// too small for the rest. Each archive is kept in the cache under a key of its content: after a change of `relight`
/// alone only the first is made again.
struct Initramfs {
    /// A part of it.
    struct Part: Hashable, Sendable {
        var group: String
        var files: Int
        var bytes: Int
        var compressed: Int
    }
    var bytes: Data
    var parts: [Part]
    var neededMemory: Int

    /// Memory a machine needs to hold all files, MiB: the kernel lets them fill three quarters of what is left beside the
    /// compressed image (`initramfs_options` in `bootenv/grub.cfg`), and takes some for itself. Measured: see
    /// `bootenv/README.md`.
    static func neededMemory(files: Int, compressed: Int) -> Int {
        (files / 3 * 4 + compressed) / 1_048_576 + 64
    }

    /// Builds it from a tree. `first` are the paths of the first part.
    static func build(
        _ tree: EnvironmentTree, first: Set<String>, order: [String], level: Int32, time: Int, cache: String,
        events: @escaping EventHandler
    ) throws(Fault) -> Initramfs {
        var digests: [String: Manifest.Line] = [:]
        let sorted = tree.entries.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
        for (path, entry) in sorted {
            guard case .file(let content, _) = entry.node else { continue }
            let data = try content.load()
            digests[path] = Manifest.Line(sha256: try SHA256.hex(data), size: data.count, path: path)
        }
        let manifest = Manifest(Array(digests.values))
        // A folder that a later part makes again gets that part's mode.
        var folders: [String: UInt32] = [:]
        for (path, entry) in sorted {
            if case .folder(let mode) = entry.node { folders[path] = mode }
        }

        // Groups are packed side by side, the largest first: libzstd works on one thread in Debian's static library, and
        // archives may only be joined whole.
        let groups = order.map { group in
            Group(
                name: group,
                entries: sorted.filter { $0.value.group == group && !first.contains($0.key) }.map {
                    ($0.key, $0.value.node)
                })
        }.filter { !$0.entries.isEmpty }
        let (known, modes) = (digests, folders)
        let queue = Mutex(
            groups.indices.sorted { groups[$0].bytes(known) > groups[$1].bytes(known) }[...])
        let packedGroups = Mutex<[Int: (part: Part, data: Data)]>([:])
        try Workers.run(min(Workers.processors, groups.count)) { (_, stop) throws(Fault) in
            while !stop.isSet, let index = queue.withLock({ $0.popFirst() }) {
                events(.step("Packing \(groups[index].name)"))
                let packed = try part(groups[index].name, groups[index].entries, known, modes, level, time, cache)
                packedGroups.withLock { $0[index] = packed }
            }
        }
        var image = Data()
        var parts: [Part] = []
        for index in groups.indices {
            guard let packed = packedGroups.withLock({ $0[index] }) else { continue }
            parts.append(packed.part)
            append(packed.data, to: &image)
        }

        events(.step("Packing relight"))
        var head = sorted.filter { first.contains($0.key) }.map { ($0.key, $0.value.node) }
        // The first part is not packed yet: it holds the figure. A third of its size is what it comes to.
        let headBytes = head.reduce(0) { $0 + (digests[$1.0]?.size ?? 0) }
        let needed = neededMemory(files: manifest.totalBytes, compressed: image.count + headBytes / 3)
        head.append((Manifest.path, .file(.bytes(Data(manifest.text(neededMemory: needed).utf8)), mode: 0o644)))
        head.sort { $0.0.utf8.lexicographicallyPrecedes($1.0.utf8) }
        let packed = try part("relight", head, digests, folders, min(level, 12), time, cache)
        var whole = Data()
        append(packed.data, to: &whole)
        whole.append(image)
        return Initramfs(bytes: whole, parts: [packed.part] + parts, neededMemory: needed)
    }

    /// The entries of one group.
    private struct Group: Sendable {
        var name: String
        var entries: [(String, Node)]

        func bytes(_ digests: [String: Manifest.Line]) -> Int {
            entries.reduce(0) { $0 + (digests[$1.0]?.size ?? 0) }
        }
    }

    /// A part that follows another must start at a multiple of 4.
    private static func append(_ data: Data, to image: inout Data) {
        image.append(data)
        while image.count % 4 != 0 { image.append(0) }
    }

    private static func part(
        _ group: String, _ entries: [(String, Node)], _ digests: [String: Manifest.Line], _ folders: [String: UInt32],
        _ level: Int32, _ time: Int, _ cache: String
    ) throws(Fault) -> (part: Part, data: Data) {
        let hash = try SHA256()
        hash.update("cpio 1 zstd \(Zstandard.version) level \(level) time \(time)\n")
        var files = 0
        var bytes = 0
        for (path, node) in entries {
            switch node {
            case .folder(let mode): hash.update("d \(mode) \(path)\n")
            case .link(let target): hash.update("l \(path) \(target)\n")
            case .file(let content, let mode):
                let digest: String
                if let known = digests[path] {
                    digest = known.sha256
                    bytes += known.size
                } else {
                    let data = try content.load()
                    digest = try SHA256.hex(data)
                    bytes += data.count
                }
                files += 1
                hash.update("f \(mode) \(digest) \(path)\n")
            }
        }
        let key = try hash.finish()
        let place = "\(cache)/parts"
        let name = "\(group)-\(level)-\(key.prefix(24))"
        let data: Data
        if let known = try cached("\(place)/\(name)") {
            data = known
        } else {
            var archive = CpioArchive(time: time)
            var made: Set<String> = []
            for (path, node) in entries {
                // Every archive makes the folders it needs; making one twice is no error.
                var above = ""
                for name in path.split(separator: "/").dropLast() {
                    above += "/" + name
                    if made.insert(above).inserted {
                        try archive.append(above, .folder(mode: folders[above] ?? 0o755))
                    }
                }
                if case .folder = node { made.insert(path) }
                try archive.append(path, node)
            }
            data = try Zstandard.compress(try archive.finish(), level: level)
            // Older content of the group is not needed again.
            for old in Files.exists(place) ? try Files.names(in: place) : [] where old.hasPrefix("\(group)-\(level)-") {
                try Files.remove("\(place)/\(old)")
            }
            try Files.write(Data((try SHA256.hex(data) + "\n").utf8) + data, to: "\(place)/\(name)")
        }
        return (Part(group: group, files: files, bytes: bytes, compressed: data.count), data)
    }

    /// A kept part: its own SHA-256 in a line of its own, then the bytes. `nil` when there is none or it is damaged.
    private static func cached(_ path: String) throws(Fault) -> Data? {
        guard case .file? = Files.kind(path) else { return nil }
        let kept = try Files.bytes(path)
        guard kept.count > 65 else { return nil }
        let data = Data(kept.dropFirst(65))
        return try SHA256.hex(data) == String(decoding: kept.prefix(64), as: UTF8.self) ? data : nil
    }
}
