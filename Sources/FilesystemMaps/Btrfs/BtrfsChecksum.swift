// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import CCrypto

/// The checksums that superblocks and tree blocks of Btrfs begin with: over everything behind the 32 bytes kept for
/// them. Linux, include/uapi/linux/btrfs_tree.h (`enum btrfs_csum_type`).
enum BtrfsChecksum: UInt16 {
    case crc32c = 0
    case xxhash64 = 1
    case sha256 = 2
    case blake2b = 3

    /// Bytes kept for it.
    static let room = 32

    /// Whether a structure begins with its checksum.
    func isRight(_ bytes: [UInt8]) -> Bool {
        guard bytes.count > BtrfsChecksum.room, let value = value(bytes) else { return false }
        return bytes.prefix(value.count).elementsEqual(value)
    }

    /// What a structure must begin with; `nil` where it cannot be computed.
    func value(_ bytes: [UInt8]) -> [UInt8]? {
        guard bytes.count > BtrfsChecksum.room else { return nil }
        let span = unsafe bytes.span.bytes
        let body = span.extracting(BtrfsChecksum.room..<bytes.count)
        var result: [UInt8] = []
        switch self {
        case .crc32c: result.appendLittleEndian(CRC32.castagnoli.checksum(body))
        case .xxhash64: result.appendLittleEndian(XXHash64.hash(body))
        case .sha256:
            result = [UInt8](repeating: 0, count: 32)
            let done = unsafe body.withUnsafeBytes {
                unsafe EVP_Digest($0.baseAddress, $0.count, &result, nil, EVP_sha256(), nil)
            }
            guard done == 1 else { return nil }
        case .blake2b: result = BLAKE2b.hash(body)
        }
        return result
    }
}
