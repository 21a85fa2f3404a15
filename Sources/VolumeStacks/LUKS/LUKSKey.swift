// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import CLinux
import Findings
import Geometry
import Glibc
import Tools

/// Finds the volume key of a LUKS volume by cryptsetup, which knows all ways of deriving keys.
///
/// cryptsetup gets a copy of the header and the key slots in a file in memory, so that nothing opens the source for writing
/// (cryptsetup does), and a volume inside another layer needs no device. The passphrase goes through a pipe, and the key
/// comes back through one: neither is ever in a file.
enum LUKSKey {
    private static let cryptsetup = Tool("cryptsetup", package: "cryptsetup-bin")
    /// A memory-hard derivation takes seconds, and many key slots are tried.
    private static let patience = 600.0

    /// The volume key. Throws `key.wrong`, `tool.missing`, `tool.failed`, `interrupted`, and what reading throws.
    static func find(_ header: LUKSHeader, of source: any BlockSource, name: String, secret: [UInt8]) throws(Fault)
        -> VolumeKey
    {
        let file = try HeaderCopy(header, of: source)
        var tries = [secret]
        // A passphrase file made with an editor ends with a line end that is no part of the passphrase.
        if secret.last == UInt8(ascii: "\n") { tries.append(Array(secret.dropLast())) }
        for secret in tries {
            let output = try cryptsetup.run(
                ["luksDump", "--batch-mode", "--dump-volume-key", "--key-file", "-", file.path], input: secret,
                seconds: patience)
            // 2: no key slot opens with this passphrase.
            if output.status == 2 { continue }
            guard output.status == 0 else {
                throw Fault(
                    .toolFailed, what: "cryptsetup failed with status \(output.status): \(output.lastLine)",
                    place: name,
                    remedy: "Leave out --unlock for this volume: it is then imaged whole.")
            }
            if let key = VolumeKey(parse(output.standardOutput)) { return key }
            throw Fault(
                .toolFailed, what: "cryptsetup gave no volume key of 256 or 512 bits.", place: name,
                remedy: "Leave out --unlock for this volume: it is then imaged whole.")
        }
        throw Fault(
            .wrongKey, what: "The passphrase or key file does not open this encrypted volume.", place: name,
            remedy: "Give another file with --unlock, or leave it out: the volume is then imaged whole.")
    }

    /// The bytes behind `dump:` in cryptsetup's output, in hexadecimal over several lines.
    static func parse(_ text: String) -> [UInt8] {
        let words = text.split(whereSeparator: \.isWhitespace)
        guard let mark = words.firstIndex(where: { $0.hasSuffix("dump:") }) else { return [] }
        var result: [UInt8] = []
        for word in words[(mark + 1)...] {
            guard word.utf8.count == 2, let byte = Hex.bytes(word) else { break }
            result += byte
        }
        return result
    }
}

/// Header and key slots of a LUKS volume in a file in memory.
private final class HeaderCopy {
    private let descriptor: Int32

    /// The path other programs open it by.
    var path: String { "/proc/\(getpid())/fd/\(descriptor)" }

    init(_ header: LUKSHeader, of source: any BlockSource) throws(Fault) {
        descriptor = unsafe relight_memory_file("relight-luks-header")
        // Room for a payload behind it: cryptsetup checks that there is some.
        let size = (header.payload.start + .mebibytes(1)).roundedUp(to: .mebibytes(1))?.bytes ?? 0
        guard descriptor >= 0, let length = off_t(exactly: size), ftruncate(descriptor, length) == 0 else {
            throw Fault(
                .system, what: "No file in memory can be made.", place: source.name, remedy: "Free some memory.")
        }
        var position = ByteCount.zero
        while position < header.headerSize {
            let count = min((header.headerSize - position).int ?? 0, 1 << 20)
            let bytes = try source.bytes(at: position, count: count)
            let written = unsafe bytes.withUnsafeBytes {
                unsafe pwrite(descriptor, $0.baseAddress, $0.count, off_t(position.bytes))
            }
            guard written == count else {
                throw Fault(
                    .system, what: "The header cannot be copied to memory.", place: source.name,
                    remedy: "Free some memory.")
            }
            position += ByteCount(UInt64(count))
        }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }
}
