// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc

/// The folder tree that the main inputs hold: files of this machine, chosen by a hash of their folder's name, so that
/// the same machine gives the same tree every time.
struct InputTree {
    let shell: Shell
    /// Folder for it; `tree` and `churn` are made inside.
    let folder: String
    /// Where the files come from.
    let source: String
    /// Bytes that the tree is to take on a disk.
    let size: UInt64

    var tree: String { "\(folder)/tree" }
    /// Written to each filesystem first and deleted again: stale data in free blocks, and fragmentation.
    var churn: String { "\(folder)/churn" }

    private struct File {
        var path: String
        var size: UInt64
    }

    /// Makes the tree. Of its size about 66 % are files as they are, 6 % gzip packs of other files, 10 % incompressible
    /// files of 3 MiB, and up to 15 % copies of whole folders.
    func make() throws(Fault) {
        try shell.run("rm -rf '\(folder)' && mkdir -p '\(folder)/packed' '\(churn)' '\(tree)'/{packed,media,copies}")
        let folders = try list()
        var next = folders.startIndex
        func take(_ share: Double) -> [File] {
            var (taken, bytes) = ([File](), UInt64(0))
            while next < folders.endIndex, Double(bytes) < share * Double(size) {
                for file in folders[next] {
                    taken.append(file)
                    bytes += (file.size + 4095) / 4096 * 4096
                }
                next += 1
            }
            return taken
        }
        try copy(take(0.15), to: churn)
        try copy(take(0.13), to: "\(folder)/packed")
        let plain = take(0.66)
        try copy(plain, to: tree)
        try shell.run(
            """
            tar --sort=name --owner=0 --group=0 -cf - -C '\(folder)/packed' . \
              | split -b 12M --filter='gzip -1n > "$FILE.gz"' - '\(tree)/packed/part-'
            rm -rf '\(folder)/packed'
            """)
        try incompressible(in: "\(tree)/media", total: size / 10)
        try duplicate(plain)
    }

    /// The source's files by folder, in the order of the folders' hashes.
    private func list() throws(Fault) -> [[File]] {
        let text = try shell.run(
            "find '\(source)' -xdev -type f -size -64M -printf '%s\\t%h\\t%f\\n' | LC_ALL=C sort -t '\t' -k 2",
            limit: 256 << 20)
        var folders: [Substring: [File]] = [:]
        for line in text.utf8.split(separator: UInt8(ascii: "\n")) {
            let fields = Substring(line).split(separator: "\t", omittingEmptySubsequences: false)
            guard fields.count == 3, let size = UInt64(fields[0]) else { continue }
            folders[fields[1], default: []].append(File(path: "\(fields[1])/\(fields[2])", size: size))
        }
        return folders.map { (nameHash(String($0.key)), $0.value) }.sorted { $0.0 < $1.0 }.map(\.1)
    }

    private func copy(_ files: [File], to target: String) throws(Fault) {
        let names = "\(folder)/names"
        try Files.write(names, files.flatMap { Array($0.path.utf8) + [0] })
        // A file that vanished meanwhile is not worth stopping for: the tree is what was copied.
        try shell.run(
            "cd / && { tar --null --verbatim-files-from -T '\(names)' -cf - 2>/dev/null || true; } | tar -xf - -C '\(target)'; rm '\(names)'"
        )
    }

    private func incompressible(in target: String, total: UInt64) throws(Fault) {
        let piece = 3_300_000
        for number in 0..<Int(total) / piece {
            var generator = Generator(seed: UInt64(number))
            try Files.write("\(target)/\(number).bin", generator.bytes(piece))
        }
    }

    /// Copies folders of the tree, each second one, until 15 % are reached.
    private func duplicate(_ files: [File]) throws(Fault) {
        var bytes: UInt64 = 0
        var copied: [File] = []
        for file in files where bytes < size * 15 / 100 {
            guard let slash = file.path.lastIndex(of: "/"), nameHash("copy" + file.path[..<slash]) & 1 == 0 else {
                continue
            }
            bytes += (file.size + 4095) / 4096 * 4096
            copied.append(file)
        }
        try copy(copied, to: "\(tree)/copies")
    }
}
