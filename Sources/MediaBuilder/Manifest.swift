// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Findings

/// The list of every file of the environment, which PID 1 holds against what was unpacked.
///
/// The kernel unpacks the initramfs into a file system in memory; when that is full it logs one line and starts
/// `/init` all the same. Text: first line `relight-manifest 1 <file count> <total bytes> <needed memory in MiB>`, then
/// `<sha256> <size> <path>` for each regular file but the manifest itself, sorted by the bytes of the absolute path.
struct Manifest: Hashable, Sendable {
    /// Where it lies in the environment.
    static let path = "/etc/relight/manifest"

    /// A file: its digest in hexadecimal, its size in bytes, its absolute path.
    struct Line: Hashable, Sendable {
        var sha256: String
        var size: Int
        var path: String
    }
    var lines: [Line]

    /// Lines in any order.
    init(_ lines: [Line]) {
        self.lines = lines.sorted { $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }
    }

    /// The sum of all sizes, bytes.
    var totalBytes: Int { lines.reduce(0) { $0 + $1.size } }

    /// The text, with the memory a machine needs, MiB.
    func text(neededMemory: Int) -> String {
        var text = "relight-manifest 1 \(lines.count) \(totalBytes) \(neededMemory)\n"
        for line in lines { text += "\(line.sha256) \(line.size) \(line.path)\n" }
        return text
    }
}
