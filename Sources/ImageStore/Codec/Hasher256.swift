// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CCrypto
import Findings

/// SHA-256 by OpenSSL, with a context that is used again and again. One per thread.
@safe final class Hasher256 {
    private let context: OpaquePointer
    /// The function is looked up once: OpenSSL 3 otherwise searches its providers at every start.
    nonisolated(unsafe) private static let function: OpaquePointer? = unsafe EVP_MD_fetch(nil, "SHA256", nil)

    init() throws(Fault) {
        guard unsafe Hasher256.function != nil, let context = unsafe EVP_MD_CTX_new() else { throw Hasher256.broken }
        unsafe self.context = context
    }

    deinit { unsafe EVP_MD_CTX_free(context) }

    /// The hash of `bytes`.
    func hash(_ bytes: UnsafeRawBufferPointer) throws(Fault) -> UnitID {
        var result = UnitID(a: 0, b: 0, c: 0, d: 0)
        let done = unsafe withUnsafeMutableBytes(of: &result) { target in
            unsafe EVP_DigestInit_ex2(context, Hasher256.function, nil) == 1
                && EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1
                && EVP_DigestFinal_ex(context, target.baseAddress, nil) == 1
        }
        guard done else { throw Hasher256.broken }
        // The words are little-endian views of the bytes, on any machine.
        return UnitID(
            a: UInt64(littleEndian: result.a), b: UInt64(littleEndian: result.b), c: UInt64(littleEndian: result.c),
            d: UInt64(littleEndian: result.d))
    }

    /// The hash of `bytes`.
    func hash(_ bytes: [UInt8]) throws(Fault) -> UnitID {
        let result: Result<UnitID, Fault> = unsafe bytes.withUnsafeBytes { pointer in
            do throws(Fault) { return .success(try unsafe hash(pointer)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    private static var broken: Fault {
        Fault(
            .system, what: "OpenSSL's SHA-256 does not work.", remedy: "This program is built wrong: please report it.")
    }
}
