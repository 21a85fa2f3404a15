// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CCrypto
import Findings
import Synchronization

/// Hashes of headers.
enum Digest {
    /// The digest of `bytes` by an algorithm as cryptsetup names it; `nil` for one that is not known.
    static func value(_ bytes: [UInt8], _ algorithm: String) -> [UInt8]? {
        guard ["sha1", "sha224", "sha256", "sha384", "sha512"].contains(algorithm),
            let method = unsafe EVP_get_digestbyname(algorithm)
        else { return nil }
        var result = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var length: UInt32 = 0
        guard unsafe EVP_Digest(bytes, bytes.count, &result, &length, method, nil) == 1 else { return nil }
        return Array(result.prefix(Int(length)))
    }
}

/// The key of an encrypted volume; wiped when the last holder lets go.
final class VolumeKey: Sendable {
    private let bytes: Mutex<[UInt8]>
    /// 32 or 64: AES-128 or AES-256 in XTS takes two keys.
    let count: Int

    /// `nil` unless there are 32 or 64 bytes.
    init?(_ bytes: [UInt8]) {
        guard bytes.count == 32 || bytes.count == 64 else { return nil }
        self.count = bytes.count
        self.bytes = Mutex(bytes)
    }

    deinit { bytes.withLock { wipe(&$0) } }

    /// Decrypts whole sectors of `size` bytes in place by AES-XTS; the tweak of each is its number in sectors of 512 bytes,
    /// little-endian (`plain64`), counted from `first` on. False when libcrypto fails.
    func decrypt(_ sectors: UnsafeMutableRawBufferPointer, size: Int, first: UInt64) -> Bool {
        bytes.withLock { key in
            guard let context = unsafe EVP_CIPHER_CTX_new() else { return false }
            defer { unsafe EVP_CIPHER_CTX_free(context) }
            let cipher = unsafe count == 64 ? EVP_aes_256_xts() : EVP_aes_128_xts()
            guard unsafe EVP_DecryptInit_ex(context, cipher, nil, key, nil) == 1,
                let base = unsafe sectors.baseAddress?.assumingMemoryBound(to: UInt8.self)
            else { return false }
            var tweak = [UInt8](repeating: 0, count: 16)
            var number = first
            var done = 0
            while done + size <= sectors.count {
                for index in 0..<8 { tweak[index] = UInt8(truncatingIfNeeded: number >> UInt64(8 * index)) }
                var length: Int32 = 0
                guard unsafe EVP_DecryptInit_ex(context, nil, nil, nil, tweak) == 1,
                    unsafe EVP_DecryptUpdate(context, base + done, &length, base + done, Int32(size)) == 1,
                    Int(length) == size
                else { return false }
                done += size
                number &+= UInt64(size / 512)
            }
            return true
        }
    }
}
