// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CCrypto
import Findings
import Synchronization

/// OpenSSL's functions that are neither hash nor compression.
enum Crypto {
    static func broken(_ what: String) -> Fault {
        Fault(
            .system, what: "OpenSSL's \(what) does not work.",
            remedy: "This program is built wrong: please report it.")
    }

    /// HKDF with SHA-256 (RFC 5869): `count` bytes from `key`.
    static func derive(_ key: Secret, salt: [UInt8], info: [UInt8], count: Int) throws(Fault) -> Secret {
        guard let context = unsafe EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nil) else { throw broken("HKDF") }
        defer { unsafe EVP_PKEY_CTX_free(context) }
        var done = unsafe EVP_PKEY_derive_init(context) == 1 && EVP_PKEY_CTX_set_hkdf_md(context, EVP_sha256()) == 1
        let result = unsafe Secret(count: count) { target in
            var length = target.count
            unsafe key.withBytes { key in
                unsafe done =
                    done && EVP_PKEY_CTX_set1_hkdf_salt(context, salt, Int32(salt.count)) == 1
                    && EVP_PKEY_CTX_set1_hkdf_key(
                        context, key.baseAddress?.assumingMemoryBound(to: UInt8.self), Int32(key.count)) == 1
                    && EVP_PKEY_CTX_add1_hkdf_info(context, info, Int32(info.count)) == 1
                    && EVP_PKEY_derive(
                        context, target.baseAddress?.assumingMemoryBound(to: UInt8.self), &length) == 1
                    && length == target.count
            }
        }
        guard done else { throw broken("HKDF") }
        return result
    }

    /// scrypt (RFC 7914) with N = 2^`logN`. The caller has bounded the numbers.
    static func scrypt(_ secret: Secret, salt: [UInt8], logN: Int, r: Int, p: Int) throws(Fault) -> Secret {
        var done = false
        let memory = UInt64(128) << UInt64(logN) * UInt64(r)
        let result = unsafe Secret(count: 32) { target in
            unsafe secret.withBytes { secret in
                unsafe done =
                    EVP_PBE_scrypt(
                        secret.baseAddress?.assumingMemoryBound(to: CChar.self), secret.count, salt, salt.count,
                        UInt64(1) << UInt64(logN), UInt64(r), UInt64(p), memory + memory / 4 + (1 << 20),
                        target.baseAddress?.assumingMemoryBound(to: UInt8.self), target.count) == 1
            }
        }
        guard done else {
            throw Fault(
                .system, what: "Turning the passphrase into a key failed; it needs \(memory >> 20) MiB of memory.",
                remedy: "Free memory, or use a machine with more of it.")
        }
        return result
    }
}

/// AES-GCM (NIST SP 800-38D) with 96-bit nonces and 128-bit tags under one key. One per thread.
@safe final class GCM {
    private let context: OpaquePointer
    // Looked up once and never changed; OpenSSL's ciphers may be used by all threads.
    nonisolated(unsafe) private static let aes256: OpaquePointer? = unsafe EVP_CIPHER_fetch(nil, "AES-256-GCM", nil)
    nonisolated(unsafe) private static let aes128: OpaquePointer? = unsafe EVP_CIPHER_fetch(nil, "AES-128-GCM", nil)

    static let tagSize = 16

    /// For a key of 32 or 16 bytes.
    init(_ key: Secret) throws(Fault) {
        let cipher = unsafe key.count == 32 ? GCM.aes256 : GCM.aes128
        guard unsafe cipher != nil, key.count == 32 || key.count == 16, let context = unsafe EVP_CIPHER_CTX_new() else {
            throw Crypto.broken("AES-GCM")
        }
        unsafe self.context = context
        let done = unsafe key.withBytes { key in
            unsafe EVP_CipherInit_ex2(
                context, cipher, key.baseAddress?.assumingMemoryBound(to: UInt8.self), nil, 1, nil) == 1
        }
        guard done else { throw Crypto.broken("AES-GCM") }
    }

    deinit { unsafe EVP_CIPHER_CTX_free(context) }

    /// Encrypts `plain` into `target`, which is 16 bytes longer: the tag comes last.
    func seal(
        _ plain: UnsafeRawBufferPointer, nonce: [UInt8], additional: [UInt8], into target: UnsafeMutableRawBufferPointer
    ) throws(Fault) {
        precondition(nonce.count == 12 && target.count == plain.count + GCM.tagSize)
        var length: Int32 = 0
        var rest: Int32 = 0
        let out = unsafe target.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self)
        let source = unsafe plain.baseAddress?.assumingMemoryBound(to: UInt8.self)
        let done =
            unsafe EVP_CipherInit_ex2(context, nil, nil, nonce, 1, nil) == 1
            && EVP_CipherUpdate(context, nil, &length, additional, Int32(additional.count)) == 1
            && (plain.count == 0 || EVP_CipherUpdate(context, out, &length, source, Int32(plain.count)) == 1)
            && EVP_CipherFinal_ex(context, out + plain.count, &rest) == 1
            && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, Int32(GCM.tagSize), out + plain.count) == 1
        guard done else { throw Crypto.broken("AES-GCM") }
    }

    /// Decrypts `sealed` into `target`, which is 16 bytes shorter; false when it was not made with this key, nonce and
    /// additional data. `target` then holds nothing of use.
    func open(
        _ sealed: UnsafeRawBufferPointer, nonce: [UInt8], additional: [UInt8],
        into target: UnsafeMutableRawBufferPointer
    ) -> Bool {
        guard nonce.count == 12, sealed.count == target.count + GCM.tagSize else { return false }
        var length: Int32 = 0
        var rest: Int32 = 0
        let source = unsafe sealed.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self)
        let out = unsafe target.baseAddress?.assumingMemoryBound(to: UInt8.self)
        var spare: UInt8 = 0
        return unsafe withUnsafeMutablePointer(to: &spare) { end in
            unsafe EVP_CipherInit_ex2(context, nil, nil, nonce, 0, nil) == 1
                && EVP_CipherUpdate(context, nil, &length, additional, Int32(additional.count)) == 1
                && (target.count == 0 || EVP_CipherUpdate(context, out, &length, source, Int32(target.count)) == 1)
                && EVP_CIPHER_CTX_ctrl(
                    context, EVP_CTRL_AEAD_SET_TAG, Int32(GCM.tagSize),
                    UnsafeMutableRawPointer(mutating: source + target.count)) == 1
                && EVP_CipherFinal_ex(context, end, &rest) == 1
        }
    }
}

/// The keys of an encrypted set, all made from its master key; see `docs/image-format.md`, section 8.
final class SetKeys: Sendable {
    /// Keys the ids.
    let ids: Secret
    private let data: Secret
    /// Bytes of a session's key.
    private let keySize: Int

    /// Number of bytes of a master key.
    static let masterSize = 32

    init(master: Secret, set: SetHeader) throws(Fault) {
        func key(_ label: String) throws(Fault) -> Secret {
            try Crypto.derive(master, salt: set.id.bytes, info: Array(label.utf8), count: 32)
        }
        ids = try key("relight 1 ids")
        data = try key("relight 1 data")
        keySize = set.cipher == StoredID.aes128 ? 16 : 32
    }

    /// What the header of a set with this master key must hold: proof that key and header belong together.
    static func check(master: Secret, header: [UInt8], set: ObjectID) throws(Fault) -> UnitID {
        let value = try Crypto.derive(
            master, salt: set.bytes, info: Array("relight 1 check".utf8) + header.prefix(64), count: UnitID.size)
        let bytes = unsafe value.withBytes { unsafe Array($0) }
        guard let id = try? unsafe UnitID(bytes.span.bytes, "key check", at: 0) else { throw Crypto.broken("HKDF") }
        return id
    }

    /// The cipher of the run that chose `salt`.
    func session(_ salt: ObjectID) throws(Fault) -> GCM {
        try GCM(
            Crypto.derive(data, salt: salt.bytes, info: Array("relight 1 session".utf8), count: keySize))
    }
}

/// One run's encryption: a random salt, and a counter that gives each record a nonce no other has under the run's key.
final class WriteSession: Sendable {
    let salt = SafetyRules.keep(.freshSalt) ? ObjectID.random() : ObjectID(high: 1, low: 1)
    private let counter = Atomic<UInt64>(0)

    /// A number that was never given before.
    func next() -> UInt64 { counter.add(1, ordering: .relaxed).newValue }

    /// The nonce of record number `counter`.
    static func nonce(_ counter: UInt64) -> [UInt8] {
        [0, 0, 0, 0] + stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: counter >> UInt64($0)) }
    }
}
