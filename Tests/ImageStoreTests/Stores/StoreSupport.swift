// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc

@testable import ImageStore

extension ObjectUpload {
    func write(_ bytes: [UInt8], at offset: Int = 0) throws(Fault) {
        try unsafe write(at: ByteCount(UInt64(offset)), bytes.span.bytes)
    }

    func bytes(at offset: Int, count: Int) throws(Fault) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: count)
        var span = result.mutableSpan
        var raw = unsafe span.mutableBytes
        try read(at: ByteCount(UInt64(offset)), into: &raw)
        return result
    }
}

extension ObjectStore {
    /// The content of an object; `nil` when there is none.
    func content(_ name: String) throws(Fault) -> [UInt8]? {
        guard let handle = try open(name) else { return nil }
        return try handle.bytes(at: .zero, count: Int(handle.size.bytes))
    }
}

/// Sets the time of a file's content to `seconds` before now.
func age(_ path: String, by seconds: Int) {
    let moment = timespec(tv_sec: time(nil) - seconds, tv_nsec: 0)
    let times = [moment, moment]
    _ = unsafe utimensat(AT_FDCWD, path, times, 0)
}

/// Makes an empty file.
func touch(_ path: String) { close(unsafe open(path, O_WRONLY | O_CREAT, 0o644)) }
