// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// Decrypts and decompresses records and checks what comes out against the ids. One per thread.
final class RecordDecoder {
    let hasher: Hasher256
    private let set: SetHeader
    private let keys: SetKeys?
    private var sessions: [ObjectID: GCM] = [:]
    private let decompressor: Decompressor
    private let packed: ByteBuffer
    private let buffer: ByteBuffer

    /// Most runs whose ciphers are kept.
    private static let mostSessions = 64

    /// A decoder for the set's records. Without `keys`, nothing of an encrypted set can be decoded.
    init(_ set: SetHeader, _ keys: SetKeys?) throws(Fault) {
        self.set = set
        self.keys = keys
        hasher = try Hasher256(keys)
        decompressor = try Decompressor()
        packed = ByteBuffer(set.isEncrypted ? SetHeader.frameSize : 0)
        buffer = ByteBuffer(SetHeader.frameSize)
    }

    /// The plain bytes of a payload; `nil` when it is damaged. They are valid until the next call, and as long as the
    /// payload is.
    func plain(_ record: RecordHeader, _ payload: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard record.cipher == set.cipher, payload.count == record.storedLength else { return nil }
        var content = unsafe payload
        if set.isEncrypted {
            let count = record.storedLength - GCM.tagSize
            guard count <= packed.count, let cipher = cipher(record.salt),
                unsafe cipher.open(
                    payload, nonce: WriteSession.nonce(record.counter), additional: record.additional(set.id),
                    into: packed.mutable(0..<count))
            else { return nil }
            unsafe content = packed.bytes(0..<count)
        }
        if record.compression == StoredID.raw { return unsafe content.count == record.plainLength ? content : nil }
        guard record.plainLength <= buffer.count,
            unsafe decompressor.decompress(content, into: buffer.mutable(0..<record.plainLength))
        else { return nil }
        return unsafe buffer.bytes(0..<record.plainLength)
    }

    /// Decrypts the body of a point; `nil` when it is damaged.
    func opened(_ sealed: [UInt8], salt: ObjectID, counter: UInt64, additional: [UInt8]) -> [UInt8]? {
        guard sealed.count >= GCM.tagSize, let cipher = cipher(salt) else { return nil }
        var result = [UInt8](repeating: 0, count: sealed.count - GCM.tagSize)
        let sound = unsafe sealed.withUnsafeBytes { sealed in
            unsafe result.withUnsafeMutableBytes { target in
                unsafe cipher.open(sealed, nonce: WriteSession.nonce(counter), additional: additional, into: target)
            }
        }
        return sound ? result : nil
    }

    private func cipher(_ salt: ObjectID) -> GCM? {
        if let known = sessions[salt] { return known }
        guard let new = try? keys?.session(salt) else { return nil }
        if sessions.count >= RecordDecoder.mostSessions { sessions.removeAll() }
        sessions[salt] = new
        return new
    }

    /// Whether a payload decodes to exactly what the record's ids say.
    func isSound(_ record: RecordHeader, _ payload: UnsafeRawBufferPointer) throws(Fault) -> Bool {
        guard let bytes = unsafe plain(record, payload) else { return false }
        switch record.kind {
        case .page: return try unsafe hasher.id(bytes) == record.ids[0]
        case .frame:
            return try unsafe hasher.ids(
                record.ids.indices.map { record.unitRange($0, unitSize: set.unitSize) }, of: bytes)
                == record.ids
        }
    }
}
