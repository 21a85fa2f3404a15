// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc

/// Bytes that no compressor shrinks, the same on every run: splitmix64 (Steele, Lea, Flood: "Fast splittable
/// pseudorandom number generators", 2014).
struct Generator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }

    /// `count` bytes.
    mutating func bytes(_ count: Int) -> [UInt8] {
        var words = [UInt64](repeating: 0, count: (count + 7) / 8)
        for index in words.indices { words[index] = next() }
        return unsafe words.withUnsafeBytes { unsafe Array($0.prefix(count)) }
    }
}

/// FNV-1a, 64 bits, mixed at the end: chooses files by their names, the same on every run.
func nameHash(_ text: String) -> UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    var mixer = Generator(seed: hash)
    return mixer.next()
}

/// Small files written and read whole.
enum Files {
    static func read(_ path: String) throws(Fault) -> [UInt8] {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failed("read", path) }
        defer { close(descriptor) }
        let size = lseek(descriptor, 0, SEEK_END)
        guard size >= 0 else { throw failed("read", path) }
        var bytes = [UInt8](repeating: 0, count: Int(size))
        var done = 0
        while done < bytes.count {
            let got = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe pread(descriptor, buffer.baseAddress.unsafelyUnwrapped + done, buffer.count - done, off_t(done))
            }
            guard got > 0 else { throw failed("read", path) }
            done += got
        }
        return bytes
    }

    /// Writes `bytes` at `offset`; makes the file when it is missing, and empties it first when asked.
    static func write(_ path: String, _ bytes: [UInt8], at offset: Int = 0, empty: Bool = true) throws(Fault) {
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (empty ? O_TRUNC : 0), 0o644)
        guard descriptor >= 0 else { throw failed("written", path) }
        defer { close(descriptor) }
        var done = 0
        while done < bytes.count {
            let got = unsafe bytes.withUnsafeBytes { buffer in
                unsafe pwrite(
                    descriptor, buffer.baseAddress.unsafelyUnwrapped + done, buffer.count - done, off_t(offset + done))
            }
            guard got > 0 else { throw failed("written", path) }
            done += got
        }
    }

    private static func failed(_ verb: String, _ path: String) -> Fault {
        Fault(
            .system, what: "\(path) cannot be \(verb): \(unsafe String(cString: strerror(errno))).",
            remedy: "Check room and rights of the folder.")
    }
}
