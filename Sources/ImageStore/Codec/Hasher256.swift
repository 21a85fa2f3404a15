// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CCrypto
import Findings

/// SHA-256 by OpenSSL, and ids: the same, or HMAC-SHA-256 (RFC 2104) in an encrypted set. Contexts are used again and
/// again. One per thread.
@safe final class Hasher256 {
    private let context: OpaquePointer
    /// HMAC's two hashes with the key already in; nil without a key.
    private let keyed: (inner: OpaquePointer, outer: OpaquePointer)?
    /// The function is looked up once: OpenSSL 3 otherwise searches its providers at every start.
    nonisolated(unsafe) private static let function: OpaquePointer? = unsafe EVP_MD_fetch(nil, "SHA256", nil)

    /// Without keys, ids are plain SHA-256.
    init(_ keys: SetKeys? = nil) throws(Fault) {
        guard unsafe Hasher256.function != nil, let context = unsafe EVP_MD_CTX_new() else { throw Hasher256.broken }
        unsafe self.context = context
        guard let keys else {
            unsafe keyed = nil
            return
        }
        guard let inner = unsafe EVP_MD_CTX_new(), let outer = unsafe EVP_MD_CTX_new() else { throw Hasher256.broken }
        unsafe keyed = (inner, outer)
        var done = true
        for pad in [UInt8(0x36), 0x5C] {
            let context = unsafe pad == 0x36 ? inner : outer
            let block = unsafe Secret(count: 64) { target in
                unsafe target.initializeMemory(as: UInt8.self, repeating: pad)
                unsafe keys.ids.withBytes { key in
                    for index in 0..<key.count { unsafe target[index] ^= key[index] }
                }
            }
            unsafe block.withBytes { block in
                unsafe done =
                    done && EVP_DigestInit_ex2(context, Hasher256.function, nil) == 1
                    && EVP_DigestUpdate(context, block.baseAddress, block.count) == 1
            }
        }
        guard done else { throw Hasher256.broken }
    }

    deinit {
        unsafe EVP_MD_CTX_free(context)
        if let keyed = unsafe keyed {
            unsafe EVP_MD_CTX_free(keyed.inner)
            unsafe EVP_MD_CTX_free(keyed.outer)
        }
    }

    /// The SHA-256 of `bytes`.
    func hash(_ bytes: UnsafeRawBufferPointer) throws(Fault) -> UnitID {
        try unsafe finish { target in
            unsafe EVP_DigestInit_ex2(context, Hasher256.function, nil) == 1
                && EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1
                && EVP_DigestFinal_ex(context, target, nil) == 1
        }
    }

    /// The id of `bytes`: of a unit, a page, or a point's body.
    func id(_ bytes: UnsafeRawBufferPointer) throws(Fault) -> UnitID {
        guard let keyed = unsafe keyed else { return try unsafe hash(bytes) }
        let inner = try unsafe finish { target in
            unsafe EVP_MD_CTX_copy_ex(context, keyed.inner) == 1
                && EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1
                && EVP_DigestFinal_ex(context, target, nil) == 1
        }
        let middle = inner.bytes
        return try unsafe middle.withRawBytes { middle throws(Fault) in
            try unsafe finish { target in
                unsafe EVP_MD_CTX_copy_ex(context, keyed.outer) == 1
                    && EVP_DigestUpdate(context, middle.baseAddress, middle.count) == 1
                    && EVP_DigestFinal_ex(context, target, nil) == 1
            }
        }
    }

    /// The SHA-256 of `bytes`.
    func hash(_ bytes: [UInt8]) throws(Fault) -> UnitID {
        try unsafe bytes.withRawBytes { pointer throws(Fault) in try unsafe hash(pointer) }
    }

    /// The id of `bytes`.
    func id(_ bytes: [UInt8]) throws(Fault) -> UnitID {
        try unsafe bytes.withRawBytes { pointer throws(Fault) in try unsafe id(pointer) }
    }

    private func finish(_ body: (UnsafeMutablePointer<UInt8>?) -> Bool) throws(Fault) -> UnitID {
        var result = UnitID(a: 0, b: 0, c: 0, d: 0)
        let done = unsafe withUnsafeMutableBytes(of: &result) { target in
            unsafe body(target.baseAddress?.assumingMemoryBound(to: UInt8.self))
        }
        guard done else { throw Hasher256.broken }
        // The words are little-endian views of the bytes, on any machine.
        return UnitID(
            a: UInt64(littleEndian: result.a), b: UInt64(littleEndian: result.b), c: UInt64(littleEndian: result.c),
            d: UInt64(littleEndian: result.d))
    }

    private static var broken: Fault { Crypto.broken("SHA-256") }
}
