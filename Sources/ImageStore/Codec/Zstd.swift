// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import CZstd
import Findings

/// How hard to compress new data. A set may mix all of them.
public enum Compression: Hashable, Sendable {
    /// Not at all.
    case off
    /// Zstandard level −5: for slow processors; about a third larger than the default.
    case fast
    /// Zstandard level 1.
    case standard
    /// Zstandard level 12: a tenth smaller, several times slower.
    case best
    /// A Zstandard level, 1 ... 19.
    case level(Int)

    /// Parses `fast`, `default`, `best`, `off` or `1` … `19`; `nil` for anything else.
    public init?(parsing text: String) {
        switch text {
        case "off": self = .off
        case "fast": self = .fast
        case "default": self = .standard
        case "best": self = .best
        default:
            guard let level = Int(text), (1...19).contains(level) else { return nil }
            self = .level(level)
        }
    }

    /// Zstandard's number; `nil` for none at all.
    var zstandard: Int32? {
        switch self {
        case .off: nil
        case .fast: -5
        case .standard: 1
        case .best: 12
        case .level(let level): Int32(clamping: min(max(level, 1), 19))
        }
    }
}

/// A Zstandard compressor whose working memory is used again and again. One per thread.
@safe final class Compressor {
    private let context: OpaquePointer
    private let level: Int32?

    init(_ compression: Compression) throws(Fault) {
        guard let context = unsafe ZSTD_createCCtx() else { throw outOfMemory("the compressor") }
        unsafe self.context = context
        self.level = compression.zstandard
        if let level {
            unsafe ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
            if level == 1 {
                // For frames of 256 KiB: nearly 1 % smaller than level 1 chooses for itself, at 4 % more time.
                unsafe ZSTD_CCtx_setParameter(context, ZSTD_c_hashLog, 15)
                unsafe ZSTD_CCtx_setParameter(context, ZSTD_c_minMatch, 5)
            }
        }
    }

    deinit { unsafe _ = ZSTD_freeCCtx(context) }

    /// Compresses `plain` into `target` and returns the number of bytes; `nil` when that does not make it smaller than
    /// `target` is.
    func compress(_ plain: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Int? {
        guard level != nil else { return nil }
        let count = unsafe ZSTD_compress2(context, target.baseAddress, target.count, plain.baseAddress, plain.count)
        return ZSTD_isError(count) != 0 ? nil : count
    }
}

/// A Zstandard decompressor. One per thread.
@safe final class Decompressor {
    private let context: OpaquePointer

    init() throws(Fault) {
        guard let context = unsafe ZSTD_createDCtx() else { throw outOfMemory("the decompressor") }
        unsafe self.context = context
    }

    deinit { unsafe _ = ZSTD_freeDCtx(context) }

    /// Fills `plain` exactly; false when `stored` is damaged or does not hold that many bytes.
    func decompress(_ stored: UnsafeRawBufferPointer, into plain: UnsafeMutableRawBufferPointer) -> Bool {
        let count = unsafe ZSTD_decompressDCtx(
            context, plain.baseAddress, plain.count, stored.baseAddress, stored.count)
        return ZSTD_isError(count) == 0 && count == plain.count
    }
}

extension Decompressor {
    /// The plain body of an object as it was stored, of which `plainLength` was bounded by its header. Throws
    /// `set.damaged` naming byte `offset` of `place`.
    static func body(
        _ stored: [UInt8], compression: UInt8, plainLength: Int, place: String, at offset: UInt64
    ) throws(Fault) -> [UInt8] {
        guard compression == StoredID.zstandard else { return stored }
        var body = [UInt8](repeating: 0, count: plainLength)
        let decompressor = try Decompressor()
        let sound = unsafe stored.withUnsafeBytes { source in
            unsafe body.withUnsafeMutableBytes { unsafe decompressor.decompress(source, into: $0) }
        }
        guard sound else {
            throw PackStructure.damaged(
                place, at: offset,
                .invalid(field: "body", at: 0, seen: "damaged data", expected: "\(plainLength) bytes, compressed"))
        }
        return body
    }
}

/// The fault for memory that cannot be had.
func outOfMemory(_ what: String) -> Fault {
    Fault(.system, what: "There is no memory for \(what).", remedy: "Give the machine more memory.")
}
