// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// Decompresses records and checks what comes out against the ids. One per thread.
final class RecordDecoder {
    let hasher: Hasher256
    private let decompressor: Decompressor
    private let plain: ByteBuffer

    init() throws(Fault) {
        hasher = try Hasher256()
        decompressor = try Decompressor()
        plain = ByteBuffer(SetHeader.frameSize)
    }

    /// Decompresses a payload; `nil` when it is damaged. The bytes are valid until the next call.
    func plain(_ record: RecordHeader, _ payload: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        if record.compression == StoredID.raw { return unsafe payload.count == record.plainLength ? payload : nil }
        guard record.plainLength <= plain.count,
            unsafe decompressor.decompress(payload, into: plain.mutable(0..<record.plainLength))
        else { return nil }
        return unsafe plain.bytes(0..<record.plainLength)
    }

    /// The bytes of the last record that was decompressed.
    func plainBytes(_ count: Int) -> UnsafeRawBufferPointer { unsafe plain.bytes(0..<count) }

    /// Whether a payload decompresses to exactly what the record's ids say.
    func isSound(_ record: RecordHeader, _ payload: UnsafeRawBufferPointer, unitSize: Int) throws(Fault) -> Bool {
        guard let bytes = unsafe plain(record, payload) else { return false }
        switch record.kind {
        case .page: return try unsafe hasher.hash(bytes) == record.ids[0]
        case .frame:
            for (index, id) in record.ids.enumerated() {
                let range = record.unitRange(index, unitSize: unitSize)
                if try unsafe hasher.hash(UnsafeRawBufferPointer(rebasing: bytes[range])) != id { return false }
            }
            return true
        }
    }
}
