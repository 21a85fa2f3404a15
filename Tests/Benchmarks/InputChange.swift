// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc

/// The second version of an input: about 5 % of the files changed, added or removed, chosen by a hash of their names.
struct InputChange {
    let shell: Shell

    /// Counts of what was done.
    struct Done {
        var rewritten = 0
        var edited = 0
        var added = 0
        var removed = 0
    }

    /// Changes the tree under `root`.
    func apply(to root: String) throws(Fault) -> Done {
        let names = try shell.run("cd '\(root)' && find . -type f -print0 | LC_ALL=C sort -z", limit: 256 << 20)
        var done = Done()
        for name in names.utf8.split(separator: 0) {
            let name = String(decoding: Array(name), as: UTF8.self)
            let path = "\(root)/\(name)"
            let hash = nameHash(name)
            var generator = Generator(seed: hash)
            switch hash >> 56 {
            case 0..<6:
                // Saved again, as editors do: a new file with a line in the middle takes the old one's place.
                var bytes = try Files.read(path)
                bytes.insert(contentsOf: "edited \(hash)\n".utf8, at: bytes.count / 2)
                try Files.write(path + ".new", bytes)
                guard unsafe rename(path + ".new", path) == 0 else {
                    throw Fault(.system, what: "\(path) cannot be replaced.", remedy: "Check the folder's rights.")
                }
                done.rewritten += 1
            case 6..<8:
                // Edited in place, as databases do: 64 bytes in each MiB.
                let size = try Files.read(path).count
                for offset in stride(from: 0, to: size, by: 1 << 20) {
                    try Files.write(path, generator.bytes(min(64, size - offset)), at: offset, empty: false)
                }
                done.edited += 1
            case 8..<10:
                unsafe unlink(path)
                done.removed += 1
            case 10..<13:
                try Files.write(path + ".added", try Files.read(path) + "added \(hash)\n".utf8)
                done.added += 1
            default: break
            }
        }
        return done
    }
}
