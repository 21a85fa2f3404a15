// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// Turns plain bytes into records: compresses, then encrypts where the set asks for it. One per thread.
final class RecordSealer {
    private let set: SetHeader
    private let session: WriteSession
    private let cipher: GCM?
    private let compressor: Compressor
    private let packed = ByteBuffer(SetHeader.frameSize)
    private let sealed: ByteBuffer

    /// A sealer for the run `session`. `keys` are needed in an encrypted set.
    init(_ set: SetHeader, _ keys: SetKeys?, _ session: WriteSession, _ compression: Compression) throws(Fault) {
        self.set = set
        self.session = session
        self.compressor = try Compressor(compression)
        if set.isEncrypted {
            guard let keys else { throw Crypto.broken("key") }
            cipher = try keys.session(session.salt)
        } else {
            cipher = nil
        }
        sealed = ByteBuffer(set.isEncrypted ? SetHeader.frameSize + GCM.tagSize : 0)
    }

    /// Calls `body` with the record that holds `plain`, at most a frame, and its payload, valid during the call.
    func record<R>(
        _ kind: RecordHeader.Kind, ids: [UnitID], _ plain: UnsafeRawBufferPointer,
        _ body: (RecordHeader, UnsafeRawBufferPointer) throws(Fault) -> R
    ) throws(Fault) -> R {
        var smaller: Int?
        // Lists hold ids, which do not compress.
        if kind == .frame { smaller = unsafe compressor.compress(plain, into: packed.mutable(0..<plain.count - 1)) }
        let content = unsafe smaller.map { unsafe packed.bytes(0..<$0) } ?? plain
        var record = RecordHeader(
            kind: kind, compression: smaller == nil ? StoredID.raw : StoredID.zstandard, plainLength: plain.count,
            storedLength: content.count, ids: ids)
        guard let cipher else { return try unsafe body(record, content) }
        record.cipher = set.cipher
        record.storedLength += GCM.tagSize
        record.salt = session.salt
        record.counter = session.next()
        try unsafe cipher.seal(
            content, nonce: WriteSession.nonce(record.counter), additional: record.additional(set.id),
            into: sealed.mutable(0..<record.storedLength))
        return try unsafe body(record, sealed.bytes(0..<record.storedLength))
    }

    /// `plain` encrypted, and the numbers needed to decrypt it.
    func sealed(
        _ plain: [UInt8], additional: [UInt8]
    ) throws(Fault) -> ([UInt8], (salt: ObjectID, counter: UInt64)) {
        guard let cipher else { throw Crypto.broken("key") }
        var result = [UInt8](repeating: 0, count: plain.count + GCM.tagSize)
        let counter = session.next()
        try unsafe plain.withRawBytes { plain throws(Fault) in
            try unsafe result.withMutableRawBytes { target throws(Fault) in
                try unsafe cipher.seal(
                    plain, nonce: WriteSession.nonce(counter), additional: additional, into: target)
            }
        }
        return (result, (session.salt, counter))
    }
}
