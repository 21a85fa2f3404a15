// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CZstd
import FoundationEssentials
import Findings

/// Compression by libzstd.
enum Zstandard {
    /// Part of every cache key: another library may write other bytes.
    static var version: String { unsafe String(cString: ZSTD_versionString()) }

    /// One zstd frame of `data`. The same level gives the same bytes on every machine: Debian's static library knows no
    /// threads, so none are asked of the dynamic one either.
    static func compress(_ data: Data, level: Int32) throws(Fault) -> Data {
        guard let context = unsafe ZSTD_createCCtx() else { throw failure("no memory") }
        defer { unsafe ZSTD_freeCCtx(context) }
        let result = unsafe ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
        guard ZSTD_isError(result) == 0 else { throw failure(unsafe String(cString: ZSTD_getErrorName(result))) }
        var output = [UInt8](repeating: 0, count: ZSTD_compressBound(data.count))
        let written = unsafe output.withUnsafeMutableBytes { target in
            unsafe data.withUnsafeBytes { source in
                unsafe ZSTD_compress2(context, target.baseAddress, target.count, source.baseAddress, source.count)
            }
        }
        guard ZSTD_isError(written) == 0 else { throw failure(unsafe String(cString: ZSTD_getErrorName(written))) }
        return Data(output.prefix(written))
    }

    private static func failure(_ reason: String) -> Fault {
        Fault(.system, what: "libzstd cannot compress: \(reason).", remedy: "Free memory and build again.")
    }
}
