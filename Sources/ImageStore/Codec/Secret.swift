// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CCrypto
public import Findings
import Glibc

/// Bytes that must not be printed, logged or swapped out: a passphrase, the content of a key file, a key.
///
/// They lie in pages of their own that are locked into memory where the system allows it, and are wiped when the last
/// holder lets go. There is no description, no encoding and no comparison that ends early.
@safe public final class Secret: @unchecked Sendable {
    // Written while it is made, by one thread; only read after that.
    private let base: UnsafeMutableRawPointer
    /// Number of bytes.
    public let count: Int
    private let room: Int

    /// A secret of `count` bytes that `fill` writes.
    public init(count: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void) {
        self.count = max(0, count)
        room = (max(1, count) + 4095) / 4096 * 4096
        unsafe base = UnsafeMutableRawPointer.allocate(byteCount: room, alignment: 4096)
        unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: room)
        // Best effort: the limit for locked memory may be small.
        _ = unsafe mlock(base, room)
        _ = unsafe madvise(base, room, Int32(MADV_DONTDUMP))
        unsafe fill(UnsafeMutableRawBufferPointer(start: base, count: self.count))
    }

    /// A copy of `bytes`, which the caller should wipe.
    public convenience init(_ bytes: [UInt8]) {
        unsafe self.init(count: bytes.count) { target in
            unsafe bytes.withUnsafeBytes { unsafe target.copyMemory(from: $0) }
        }
    }

    /// What `descriptor` gives until its end, or with `line` until the first line end, which is left out; at most `most`
    /// bytes. A second value other than 0 is an errno; a secret longer than `most` comes back as `E2BIG`. Bytes after the
    /// line end of what is no terminal are read and dropped.
    public static func read(from descriptor: Int32, most: Int, line: Bool) -> (secret: Secret, problem: Int32) {
        var problem: Int32 = 0
        var count = 0
        let all = unsafe Secret(count: most + 1) { target in
            while count < target.count {
                let step = line ? 1 : target.count - count
                let got = unsafe Glibc.read(descriptor, target.baseAddress.unsafelyUnwrapped + count, step)
                if got == 0 { return }
                if got < 0 {
                    problem = errno
                    return
                }
                if line, unsafe target[count] == 10 {
                    if unsafe count > 0 && target[count - 1] == 13 { count -= 1 }
                    return
                }
                count += got
            }
            problem = E2BIG
        }
        return unsafe all.withBytes { bytes in
            unsafe (
                Secret(count: count) { unsafe $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<count])) },
                problem
            )
        }
    }

    /// Whether both hold the same bytes; takes as long whichever byte differs.
    public static func equal(_ left: Secret, _ right: Secret) -> Bool {
        unsafe left.count == right.count
            && left.withBytes { left in
                unsafe right.withBytes { right in
                    unsafe CRYPTO_memcmp(left.baseAddress, right.baseAddress, left.count) == 0
                }
            }
    }

    /// `count` random bytes.
    static func random(_ count: Int) throws(Fault) -> Secret {
        var done = false
        let secret = unsafe Secret(count: count) { target in
            done = unsafe RAND_priv_bytes(target.baseAddress, Int32(target.count)) == 1
        }
        guard done else { throw Crypto.broken("random numbers") }
        return secret
    }

    deinit {
        unsafe OPENSSL_cleanse(base, room)
        _ = unsafe munlock(base, room)
        unsafe base.deallocate()
    }

    /// Gives `body` the bytes. They must not be copied to where they stay.
    public func withBytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        try unsafe body(UnsafeRawBufferPointer(start: base, count: count))
    }
}

/// What opens an encrypted set.
public enum SetSecret: Sendable {
    /// What a person remembers, as UTF-8, without a line end.
    case passphrase(Secret)
    /// The content of a key file.
    case keyFile(Secret)
}

/// Where the secret of an encrypted set comes from when it is needed.
public struct KeyRing: Sendable {
    /// Whether somebody types what ``ask`` gives.
    public var isTyped = true
    /// Called with the set's name and the number of the attempt, from 1; `nil` when there is none (any more).
    public var ask: @Sendable (_ set: String, _ attempt: Int) throws(Fault) -> SetSecret?

    /// A key ring that asks.
    public init(_ ask: @escaping @Sendable (_ set: String, _ attempt: Int) throws(Fault) -> SetSecret?) {
        self.ask = ask
    }

    /// No secret at all.
    public static let none = KeyRing { (_, _) throws(Fault) in nil }

    /// One secret.
    public init(_ secret: SetSecret) {
        isTyped = false
        ask = { (_, attempt) throws(Fault) in attempt == 1 ? secret : nil }
    }
}
