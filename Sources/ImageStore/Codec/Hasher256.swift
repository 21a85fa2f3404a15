// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CCrypto
import CSHA256
import Findings

/// SHA-256 by OpenSSL, and ids: the same, or HMAC-SHA-256 (RFC 2104) in an encrypted set. Contexts are used again and
/// again. One per thread.
@safe final class Hasher256 {
    private let context: OpaquePointer
    /// HMAC's two hashes with the key already in; nil without a key.
    private let keyed: (inner: OpaquePointer, outer: OpaquePointer)?
    /// HMAC's inner key, a block of 64 bytes; nil without a key.
    private let innerKey: Secret?
    /// The function is looked up once: OpenSSL 3 otherwise searches its providers at every start. It never
    /// changes, and may be used by all threads.
    nonisolated(unsafe) private static let function: OpaquePointer? = unsafe EVP_MD_fetch(nil, "SHA256", nil)

    /// Without keys, ids are plain SHA-256.
    init(_ keys: SetKeys? = nil) throws(Fault) {
        guard unsafe Hasher256.function != nil, let context = unsafe EVP_MD_CTX_new() else { throw Hasher256.broken }
        unsafe self.context = context
        guard let keys else {
            unsafe keyed = nil
            innerKey = nil
            return
        }
        guard let inner = unsafe EVP_MD_CTX_new(), let outer = unsafe EVP_MD_CTX_new() else { throw Hasher256.broken }
        unsafe keyed = (inner, outer)
        var done = true
        var kept: Secret?
        for pad in [UInt8(0x36), 0x5C] {
            let context = unsafe pad == 0x36 ? inner : outer
            let block = unsafe Secret(count: 64) { target in
                unsafe target.initializeMemory(as: UInt8.self, repeating: pad)
                unsafe keys.ids.withBytes { key in
                    for index in 0..<key.count { unsafe target[index] ^= key[index] }
                }
            }
            if pad == 0x36 { kept = block }
            unsafe block.withBytes { block in
                unsafe done =
                    done && EVP_DigestInit_ex2(context, Hasher256.function, nil) == 1
                    && EVP_DigestUpdate(context, block.baseAddress, block.count) == 1
            }
        }
        innerKey = kept
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

    /// The ids of two units. Where the processor can, equally long ones are hashed together, in two thirds of the time.
    func ids(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) throws(Fault) -> (UnitID, UnitID) {
        guard Hasher256.hasPairs, first.count == second.count,
            let left = unsafe first.baseAddress?.assumingMemoryBound(to: UInt8.self),
            let right = unsafe second.baseAddress?.assumingMemoryBound(to: UInt8.self)
        else { return (try unsafe id(first), try unsafe id(second)) }
        var digests = [UInt8](repeating: 0, count: 2 * UnitID.size)
        let count = first.count
        if let innerKey {
            unsafe innerKey.withBytes { key in
                unsafe relight_sha256_pair(
                    key.baseAddress?.assumingMemoryBound(to: UInt8.self), left, right, count, &digests)
            }
        } else {
            unsafe relight_sha256_pair(nil, left, right, count, &digests)
        }
        return (try outer(digests[..<UnitID.size]), try outer(digests[UnitID.size...]))
    }

    /// The ids of the parts `ranges` of `bytes`.
    func ids(_ ranges: [Range<Int>], of bytes: UnsafeRawBufferPointer) throws(Fault) -> [UnitID] {
        var result: [UnitID] = []
        result.reserveCapacity(ranges.count)
        var index = 0
        while index < ranges.count {
            let first = unsafe UnsafeRawBufferPointer(rebasing: bytes[ranges[index]])
            if index + 1 < ranges.count {
                let both = try unsafe ids(first, UnsafeRawBufferPointer(rebasing: bytes[ranges[index + 1]]))
                result.append(both.0)
                result.append(both.1)
                index += 2
            } else {
                result.append(try unsafe id(first))
                index += 1
            }
        }
        return result
    }

    /// The hash of a pack's segment, at most 4 MiB: the SHA-256 of the SHA-256s of its pieces of 65,536 bytes, the last of
    /// which may be shorter. Never keyed. Two pieces at a time are hashed where the processor can.
    func segment(_ bytes: UnsafeRawBufferPointer) throws(Fault) -> UnitID {
        var list: [UInt8] = []
        list.reserveCapacity((bytes.count / Hasher256.part + 1) * UnitID.size)
        var start = 0
        var digests = [UInt8](repeating: 0, count: 2 * UnitID.size)
        while start < bytes.count {
            if Hasher256.hasPairs, bytes.count - start >= 2 * Hasher256.part,
                let left = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
            {
                unsafe relight_sha256_pair(
                    nil, left + start, left + start + Hasher256.part, Hasher256.part, &digests)
                list += digests
                start += 2 * Hasher256.part
            } else {
                let end = min(start + Hasher256.part, bytes.count)
                try unsafe hash(UnsafeRawBufferPointer(rebasing: bytes[start..<end])).append(to: &list)
                start = end
            }
        }
        return try hash(list)
    }

    private static let part = 65_536

    /// HMAC's outer hash of an inner one; an inner one without keys.
    private func outer(_ inner: ArraySlice<UInt8>) throws(Fault) -> UnitID {
        let done: Result<UnitID, Fault> = unsafe inner.withUnsafeBytes { middle in
            do throws(Fault) {
                return .success(
                    try unsafe finish { target in
                        guard let target = unsafe target else { return false }
                        guard let keyed = unsafe keyed else {
                            unsafe UnsafeMutableRawBufferPointer(start: target, count: UnitID.size).copyMemory(
                                from: middle)
                            return true
                        }
                        return unsafe EVP_MD_CTX_copy_ex(context, keyed.outer) == 1
                            && EVP_DigestUpdate(context, middle.baseAddress, middle.count) == 1
                            && EVP_DigestFinal_ex(context, target, nil) == 1
                    })
            } catch {
                return .failure(error)
            }
        }
        return try done.get()
    }

    private static let hasPairs = relight_sha256_pair_available() != 0

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
