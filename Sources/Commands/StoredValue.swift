// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import Blocks

/// Values that people store in files: plans, profiles, what undoes a change.
enum StoredValue {
    /// Writes `value` as JSON, whole or not at all. `what` begins the sentence when that fails: "The plan".
    static func write(_ value: some Encodable, to path: String, _ what: String) throws(Fault) {
        func failed(_ problem: Int32) -> Fault {
            Fault(
                .system, what: "\(what) cannot be stored: \(errorText(problem)).", place: path,
                remedy: "Name a file in a folder that exists and may be written to.")
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { throw failed(EINVAL) }
        // A disk named by mistake must not be overwritten with a text.
        var status = stat()
        if unsafe stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            throw Fault(
                .wrongKind, what: "\(what) cannot be stored there: it is not a file.", place: path,
                remedy: "Name a file.")
        }
        do {
            try data.write(to: URL(filePath: path), options: .atomic)
        } catch {
            throw failed(errno)
        }
    }

    /// The content of a file of at most `limit` bytes; `nil` when there is none.
    static func bytes(_ path: String, limit: Int) -> [UInt8]? {
        var status = stat()
        guard unsafe stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_size <= limit,
            let data = try? Data(contentsOf: URL(filePath: path))
        else { return nil }
        return Array(data)
    }
}
