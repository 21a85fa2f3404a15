// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Synchronization

/// Appends records to packs, from any thread, and seals full packs.
///
/// Records are copied into pieces of 4 MiB; the thread that fills a piece writes and hashes it, outside of the lock.
final class PackWriter: Sendable {
    /// A pack that is finished and in its place.
    struct Sealed: Sendable {
        var number: UInt32
        var reference: PackReference
        var segments: [UnitID]
        var footerOffset: Int
    }

    private let store: any ObjectStore
    private let set: SetHeader
    private let kind: PackHeader.Kind
    private let limit: Int
    /// Write each pack twice, the second under ``ObjectName/copy(of:)``.
    private let twice: Bool
    private let packs: PackTable
    private let state = Mutex(State())
    /// Packs that are not sealed yet, by number.
    private let live = Mutex<[UInt32: OpenPack]>([:])

    /// Asked when the medium is full: whether it made room, so that the same is tried again.
    let makeRoom = Mutex<(@Sendable () -> Bool)?>(nil)

    private struct State {
        var pack: OpenPack?
        var segment: ByteBuffer?
        var fill = 0
        var spare: [ByteBuffer] = []
        var sealed: [Sealed] = []
    }

    init(
        store: any ObjectStore, set: SetHeader, kind: PackHeader.Kind, limit: Int, twice: Bool, packs: PackTable
    ) {
        self.store = store
        self.set = set
        self.kind = kind
        self.limit = limit
        self.twice = twice
        self.packs = packs
    }

    /// A pack being written.
    private final class OpenPack: Sendable {
        let id: ObjectID
        let number: UInt32
        let uploads: [any ObjectUpload]
        let parts = Mutex(Parts())

        struct Parts {
            var length = 0
            var records = 0
            var entries: [UInt8] = []
            /// Offset / 16 and size / 16 of each record, and where its entry begins.
            var offsets: [UInt32] = []
            var lengths: [UInt32] = []
            var positions: [UInt32] = []
            var segments: [UnitID?] = []
            /// Pieces handed to threads and not yet written.
            var pending = 0
            var failed = false
            /// No more records come; whoever finishes the last piece seals the pack.
            var closed = false
        }

        init(id: ObjectID, number: UInt32, uploads: [any ObjectUpload]) {
            self.id = id
            self.number = number
            self.uploads = uploads
        }
    }

    private struct Piece {
        var pack: OpenPack
        var index: Int
        var buffer: ByteBuffer
        var count: Int
    }

    /// Appends a record and returns its pack's number and its offset.
    func append(
        _ record: RecordHeader, _ payload: UnsafeRawBufferPointer, hasher: Hasher256
    ) throws(Fault) -> (number: UInt32, pack: ObjectID, offset: Int) {
        let head = record.bytes
        let total = record.totalSize
        let padding = [UInt8](repeating: 0, count: total - head.count - payload.count)
        var pieces: [Piece] = []
        var closing: OpenPack?
        let place = try state.withLock { (state: inout State) throws(Fault) -> (UInt32, ObjectID, Int) in
            if let pack = state.pack, pack.parts.withLock({ isFull($0, total, head.count) }) {
                closing = pack
                flush(&state, into: &pieces)
                state.pack = nil
            }
            let pack: OpenPack
            if let open = state.pack {
                pack = open
            } else {
                pack = try open()
                state.pack = pack
                let header = PackHeader(kind: kind, id: pack.id, set: set).bytes
                unsafe header.withUnsafeBytes { unsafe copy($0, &state, pack, &pieces) }
            }
            let offset = pack.parts.withLock { parts in
                parts.offsets.append(UInt32(truncatingIfNeeded: parts.length / RecordHeader.alignment))
                parts.lengths.append(UInt32(truncatingIfNeeded: total / RecordHeader.alignment))
                parts.positions.append(UInt32(truncatingIfNeeded: parts.entries.count))
                parts.entries += PackFooter.entry(offset: parts.length, head: head)
                parts.records += 1
                return parts.length
            }
            unsafe head.withUnsafeBytes { unsafe copy($0, &state, pack, &pieces) }
            unsafe copy(payload, &state, pack, &pieces)
            unsafe padding.withUnsafeBytes { unsafe copy($0, &state, pack, &pieces) }
            return (pack.number, pack.id, offset)
        }
        if let closing { closing.parts.withLock { $0.closed = true } }
        for piece in pieces { try write(piece, hasher) }
        if let closing { try sealIfDone(closing, hasher) }
        return place
    }

    /// Whether one more record of `total` bytes, with a head of `head` bytes, does not fit: into the pack, or into a footer
    /// of the size that is written.
    private func isFull(_ parts: OpenPack.Parts, _ total: Int, _ head: Int) -> Bool {
        var end = parts.length + total
        if set.parity > 0 {
            guard let layout = ParityLayout(bodyLength: end, percent: Int(set.parity)) else { return true }
            end = layout.end
        }
        let footer =
            PackFooter.fixedSize + PackFooter.trailerSize + parts.entries.count + 8 + head
            + (end / PackFooter.segmentSize + 1) * UnitID.size
        return end + footer > limit || footer > PackFooter.largestWritten
    }

    private func open() throws(Fault) -> OpenPack {
        let id = ObjectID.random()
        var uploads = [try withRoom { () throws(Fault) in try store.upload() }]
        if twice { uploads.append(try withRoom { () throws(Fault) in try store.upload() }) }
        let pack = OpenPack(id: id, number: packs.add(id, nil), uploads: uploads)
        live.withLock { $0[pack.number] = pack }
        return pack
    }

    private func withRoom<R>(_ work: () throws(Fault) -> R) throws(Fault) -> R {
        while true {
            do throws(Fault) {
                return try work()
            } catch {
                guard error.code == .storeFull, let make = makeRoom.withLock({ $0 }), make() else { throw error }
            }
        }
    }

    private func copy(
        _ bytes: UnsafeRawBufferPointer, _ state: inout State, _ pack: OpenPack, _ pieces: inout [Piece]
    ) {
        var done = 0
        while done < bytes.count {
            let buffer = state.segment ?? state.spare.popLast() ?? ByteBuffer(PackFooter.segmentSize)
            state.segment = buffer
            let count = min(bytes.count - done, PackFooter.segmentSize - state.fill)
            unsafe buffer.mutable(state.fill..<state.fill + count).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: bytes[done..<done + count]))
            state.fill += count
            done += count
            pack.parts.withLock { $0.length += count }
            if state.fill == PackFooter.segmentSize { flush(&state, into: &pieces) }
        }
    }

    private func flush(_ state: inout State, into pieces: inout [Piece]) {
        guard let pack = state.pack, let buffer = state.segment, state.fill > 0 else { return }
        let index = pack.parts.withLock { parts in
            parts.segments.append(nil)
            parts.pending += 1
            return parts.segments.count - 1
        }
        pieces.append(Piece(pack: pack, index: index, buffer: buffer, count: state.fill))
        state.segment = nil
        state.fill = 0
    }

    private func write(_ piece: Piece, _ hasher: Hasher256) throws(Fault) {
        do {
            let bytes = unsafe piece.buffer.bytes(0..<piece.count)
            let hash = try unsafe hasher.segment(bytes)
            for upload in piece.pack.uploads {
                try withRoom { () throws(Fault) in
                    try unsafe upload.write(
                        at: ByteCount(UInt64(piece.index * PackFooter.segmentSize)), RawSpan(_unsafeBytes: bytes))
                }
            }
            piece.pack.parts.withLock { parts in
                parts.segments[piece.index] = hash
                parts.pending -= 1
            }
        } catch {
            piece.pack.parts.withLock { parts in
                parts.failed = true
                parts.pending -= 1
            }
            throw error
        }
        state.withLock { state in
            if state.spare.count < 2 { state.spare.append(piece.buffer) }
        }
        try sealIfDone(piece.pack, hasher)
    }

    /// Seals a closed pack whose last piece is written; exactly one thread gets to do it.
    private func sealIfDone(_ pack: OpenPack, _ hasher: Hasher256) throws(Fault) {
        let parts: OpenPack.Parts? = pack.parts.withLock { parts in
            guard parts.closed, parts.pending == 0, !parts.failed else { return nil }
            parts.closed = false
            return parts
        }
        guard let parts else { return }
        var segments = parts.segments.compactMap { $0 }
        let end = try protect(pack, parts.length, &segments, hasher)
        let (footer, digest) = try PackFooter.bytes(
            records: parts.records, entries: parts.entries, recordsEnd: parts.length, offset: end, segments: segments,
            hasher: hasher)
        let name = ObjectName.pack(pack.id)
        for (index, upload) in pack.uploads.enumerated() {
            try withRoom { () throws(Fault) in
                try unsafe upload.write(at: ByteCount(UInt64(end)), footer.span.bytes)
            }
            if index == 0 {
                try upload.seal(as: name)
            } else {
                try store.sealCopy(
                    upload, as: ObjectName.copy(of: name), size: ByteCount(UInt64(end + footer.count)))
            }
        }
        let sealed = Sealed(
            number: pack.number,
            reference: PackReference(id: pack.id, size: UInt64(end + footer.count), footer: digest),
            segments: segments, footerOffset: end)
        state.withLock { $0.sealed.append(sealed) }
        // From here on whoever asks what is in the pack reads its footer.
        packs.set(pack.number, sealed.reference)
        live.withLock { $0[pack.number] = nil }
    }

    /// The id of a unit, and its record's size, in a pack that is being written; `nil` when there is none in such a pack.
    func unit(_ candidate: UnitCandidate) -> (id: UnitID, length: Int)? {
        guard let pack = live.withLock({ $0[candidate.pack] }) else { return nil }
        return pack.parts.withLock { parts in
            guard let record = parts.offsets.position(of: candidate.packed >> 4) else { return nil }
            // The entry: 8 bytes of offset, then the record's head, which ends with the ids.
            let start = Int(parts.positions[record])
            let end = record + 1 < parts.positions.count ? Int(parts.positions[record + 1]) : parts.entries.count
            let ids = start + 8 + RecordHeader.fixedSize
            guard candidate.index < (end - ids) / UnitID.size,
                let id = try? unsafe UnitID(
                    parts.entries.span.bytes, "unit id", at: ids + candidate.index * UnitID.size)
            else { return nil }
            return (id, Int(parts.lengths[record]) * RecordHeader.alignment)
        }
    }

    /// Adds the parity section where the set asks for it, and the hashes of the segments it lies in. Returns where the
    /// footer begins.
    private func protect(
        _ pack: OpenPack, _ length: Int, _ segments: inout [UnitID], _ hasher: Hasher256
    ) throws(Fault) -> Int {
        guard set.parity > 0 else { return length }
        guard let layout = ParityLayout(bodyLength: length, percent: Int(set.parity)), let source = pack.uploads.first
        else {
            throw Fault(
                .system, what: "A pack of \(length) bytes has no room for \(set.parity) percent of parity.",
                remedy: "This is an error in the program: please report it.")
        }
        try ParityWriter.write(
            layout, pack: pack.id, hasher: hasher,
            read: { offset, buffer throws(Fault) in
                try source.read(at: ByteCount(UInt64(offset)), into: &buffer)
            },
            write: { offset, bytes throws(Fault) in
                for upload in pack.uploads { try upload.write(at: ByteCount(UInt64(offset)), bytes) }
            })
        let size = PackFooter.segmentSize
        let buffer = ByteBuffer(size)
        segments.removeLast(segments.count - length / size)
        for start in stride(from: segments.count * size, to: layout.end, by: size) {
            let count = min(size, layout.end - start)
            var span = unsafe MutableRawSpan(_unsafeBytes: buffer.mutable(0..<count))
            try source.read(at: ByteCount(UInt64(start)), into: &span)
            segments.append(try unsafe hasher.segment(buffer.bytes(0..<count)))
        }
        return layout.end
    }

    /// Seals the pack at hand. All threads must have returned from ``append(_:_:hasher:)``.
    func finish(_ hasher: Hasher256) throws(Fault) -> [Sealed] {
        var pieces: [Piece] = []
        let closing = state.withLock { state in
            let pack = state.pack
            flush(&state, into: &pieces)
            state.pack = nil
            state.spare = []
            return pack
        }
        if let closing { closing.parts.withLock { $0.closed = true } }
        for piece in pieces { try write(piece, hasher) }
        if let closing { try sealIfDone(closing, hasher) }
        return state.withLock { $0.sealed }
    }

    /// Throws the pack at hand away.
    func abandon() {
        let pack = state.withLock { state in
            let pack = state.pack
            state.pack = nil
            state.segment = nil
            state.fill = 0
            return pack
        }
        for upload in pack?.uploads ?? [] { upload.abandon() }
    }
}
