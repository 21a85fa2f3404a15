// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CCrypto
import FoundationEssentials
import Findings

/// SHA-256 by libcrypto (FIPS 180-4).
@safe
struct SHA256: ~Copyable {
    private let context: OpaquePointer

    init() throws(Fault) {
        guard let context = unsafe EVP_MD_CTX_new(), unsafe EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else {
            throw Self.failure
        }
        unsafe self.context = context
    }
    deinit { unsafe EVP_MD_CTX_free(context) }

    /// Takes more bytes in.
    func update(_ bytes: some ContiguousBytes) {
        unsafe bytes.withUnsafeBytes { bytes in _ = unsafe EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) }
    }
    /// Takes a text in, as UTF-8.
    func update(_ text: String) { update(Data(text.utf8)) }

    /// The digest of all bytes taken in, as 64 lower-case hexadecimal digits. Ends the computation.
    consuming func finish() throws(Fault) -> String {
        var digest = [UInt8](repeating: 0, count: 32)
        let done = unsafe digest.withUnsafeMutableBufferPointer { digest in
            unsafe EVP_DigestFinal_ex(context, digest.baseAddress, nil)
        }
        guard done == 1 else { throw Self.failure }
        return Self.hexadecimal(digest)
    }

    /// The digest of `bytes`, as 64 lower-case hexadecimal digits.
    static func hex(_ bytes: some ContiguousBytes) throws(Fault) -> String {
        let hash = try SHA256()
        hash.update(bytes)
        return try hash.finish()
    }

    private static let failure = Fault(
        .system, what: "libcrypto cannot compute SHA-256.",
        remedy: "Check that OpenSSL's configuration does not forbid it.")

    private static func hexadecimal(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count * 2)
        for byte in bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}
