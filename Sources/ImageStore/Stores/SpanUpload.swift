// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Glibc
import Synchronization

/// An object on its way into one of several places. Where the place at hand is full, what was written so far moves to
/// the next one, and writing goes on there. Every piece that moves is compared with a check made when it was written:
/// after a failed flush a place may hold something else.
final class SpanUpload: ObjectUpload {
    private let span: SpanStore
    /// Shared by those who write, exclusive to the one who moves.
    private let gate = Gate()
    private let part: Mutex<Part>

    private struct Piece {
        var offset: UInt64
        var count: Int
        var check: UInt32
    }

    private struct Part {
        var place: Int
        var upload: any ObjectUpload
        /// Moves so far.
        var generation = 0
        var pieces: [Piece] = []
        /// Places that were full for this object.
        var tried: Set<Int> = []
        var end: UInt64 { pieces.reduce(0) { max($0, $1.offset + UInt64($1.count)) } }
    }

    init(_ span: SpanStore) throws(Fault) {
        self.span = span
        var failed: Fault?
        for place in span.candidates(size: 0) {
            do throws(Fault) {
                part = Mutex(Part(place: place, upload: try span.places[place].upload()))
                return
            } catch {
                guard error.code == .storeFull else { throw error }
                span.markFull(place)
                failed = failed ?? error
            }
        }
        throw failed ?? SpanUpload.noRoom(span)
    }

    private static func noRoom(_ span: SpanStore) -> Fault {
        Fault(
            .storeFull, what: "No place of the set has room left.", place: span.name,
            remedy: "Name one more place with `--also`, or make room in one of them.")
    }

    func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
        let check = CRC32.castagnoli.checksum(bytes)
        while true {
            gate.share()
            let (upload, generation) = part.withLock { ($0.upload, $0.generation) }
            let fault: Fault?
            do throws(Fault) {
                try upload.write(at: offset, bytes)
                part.withLock {
                    $0.pieces.append(Piece(offset: offset.bytes, count: bytes.byteCount, check: check))
                }
                fault = nil
            } catch { fault = error }
            gate.open()
            guard let fault else { return }
            guard fault.code == .storeFull else { throw fault }
            gate.close()
            let outcome = Result { () throws(Fault) in
                if part.withLock({ $0.generation }) == generation { try move(fault) }
            }
            gate.open()
            try outcome.get()
        }
    }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try part.withLock { $0.upload }.read(at: offset, into: &buffer)
    }

    /// Goes on in the next place that takes what was written so far. The gate is closed.
    private func move(_ fault: Fault) throws(Fault) {
        let (old, place) = part.withLock { ($0.upload, $0.place) }
        span.markFull(place)
        part.withLock { _ = $0.tried.insert(place) }
        let (pieces, end, tried) = part.withLock { ($0.pieces, $0.end, $0.tried) }
        for next in span.candidates(size: Int(clamping: end)) where !tried.contains(next) {
            do throws(Fault) {
                let new = try span.places[next].upload()
                do throws(Fault) {
                    for piece in pieces { try carry(piece, from: old, to: new) }
                } catch {
                    new.abandon()
                    throw error
                }
                part.withLock {
                    $0.upload = new
                    $0.place = next
                    $0.generation += 1
                }
                old.abandon()
                return
            } catch {
                guard error.code == .storeFull else { throw error }
                span.markFull(next)
                part.withLock { _ = $0.tried.insert(next) }
            }
        }
        throw span.places.count > 1 ? SpanUpload.noRoom(span) : fault
    }

    private func carry(
        _ piece: Piece, from old: any ObjectUpload, to new: any ObjectUpload
    ) throws(Fault) {
        var check: UInt32 = 0
        var done = 0
        var buffer = [UInt8](repeating: 0, count: min(piece.count, 1 << 20))
        while done < piece.count {
            let count = min(piece.count - done, 1 << 20)
            if count < buffer.count { buffer.removeLast(buffer.count - count) }
            let offset = ByteCount(piece.offset + UInt64(done))
            var span = buffer.mutableSpan
            var raw = unsafe span.mutableBytes
            try old.read(at: offset, into: &raw)
            check = unsafe CRC32.castagnoli.checksum(buffer.span.bytes, continuing: check)
            try unsafe new.write(at: offset, buffer.span.bytes)
            done += count
        }
        guard check == piece.check else {
            throw Fault(
                .storeFailed, what: "What was written of an unfinished object reads back differently.",
                place: self.span.name,
                remedy: "Do not trust this medium; what was finished before is kept. Run the backup again elsewhere.")
        }
    }

    // MARK: - Sealing

    func seal(as name: String) throws(Fault) {
        guard SpanStore.isPack(name) else { return try sealEverywhere(name, replacing: false) }
        gate.close()
        defer { gate.open() }
        while true {
            do throws(Fault) {
                return try part.withLock { $0.upload }.seal(as: name)
            } catch {
                guard error.code == .storeFull else { throw error }
                try move(error)
            }
        }
    }

    func seal(replacing name: String) throws(Fault) {
        guard SpanStore.isPack(name) else { return try sealEverywhere(name, replacing: true) }
        guard let holder = try span.open(name, from: 0)?.place else { return try seal(as: name) }
        gate.close()
        defer { gate.open() }
        do throws(Fault) {
            if part.withLock({ $0.place }) != holder {
                let (old, pieces) = part.withLock { ($0.upload, $0.pieces) }
                let new = try span.places[holder].upload()
                do throws(Fault) {
                    for piece in pieces { try carry(piece, from: old, to: new) }
                    try new.seal(replacing: name)
                } catch {
                    new.abandon()
                    throw error
                }
                old.abandon()
            } else {
                try part.withLock { $0.upload }.seal(replacing: name)
            }
        } catch {
            guard error.code == .storeFull else { throw error }
            // No room beside the damaged one: the good one goes elsewhere, then the damaged one can go.
            if part.withLock({ $0.place }) == holder { try move(error) }
            try part.withLock { $0.upload }.seal(replacing: name)
            try span.places[holder].delete(name)
        }
    }

    /// Puts the object into every place; one that need not have it may be left out where it is full.
    private func sealEverywhere(_ name: String, replacing: Bool) throws(Fault) {
        gate.close()
        defer { gate.open() }
        let (upload, home, end) = part.withLock { ($0.upload, $0.place, $0.end) }
        var staged: [(place: Int, upload: any ObjectUpload)] = [(home, upload)]
        var sealed: [Int] = []
        var failed: Fault?
        /// Where the object is already, whole.
        var present = 0
        do throws(Fault) {
            for place in span.places.indices where place != home {
                if !replacing, let there = try span.places[place].open(name) {
                    guard try isSame(there, upload, end) else { throw SpanUpload.taken(name, span.places[place]) }
                    present += 1
                    continue
                }
                do throws(Fault) {
                    staged.append((place, try copied(end, name, place, upload.read)))
                } catch {
                    guard error.code == .storeFull, !SpanStore.isNeeded(name) else { throw error }
                    span.noteLeftOut(name, place)
                    failed = failed ?? error
                }
            }
            for index in staged.indices {
                let place = staged[index].place
                while true {
                    do throws(Fault) {
                        let copy = staged[index].upload
                        try replacing ? copy.seal(replacing: name) : copy.seal(as: name)
                        sealed.append(place)
                        break
                    } catch {
                        guard error.code == .storeFull else { throw error }
                        guard SpanStore.isNeeded(name) else {
                            staged[index].upload.abandon()
                            span.noteLeftOut(name, place)
                            failed = failed ?? error
                            break
                        }
                        try span.makeRoom(for: name, in: place, error)
                        // What failed to seal can still be read, what is sealed only under its name.
                        let whole = try sealed.first.map { (first) throws(Fault) in
                            guard let handle = try span.places[first].open(name) else {
                                throw span.places[first].notKept(name)
                            }
                            return handle
                        }
                        let again = try copied(end, name, place, whole?.read ?? upload.read)
                        if place != home { staged[index].upload.abandon() }
                        staged[index].upload = again
                    }
                }
            }
            if sealed.isEmpty, present == 0 { throw failed ?? SpanUpload.noRoom(span) }
            // Whoever reads back what it put sees the first copy only: the others are compared with it here.
            for place in sealed.dropFirst() { try compare(name, sealed[0], place) }
            upload.abandon()
        } catch {
            for (_, copy) in staged { copy.abandon() }
            upload.abandon()
            // After a fault nothing is visible. A replacement is better than what was there.
            if !replacing { for place in sealed { try? span.places[place].delete(name) } }
            throw error
        }
    }

    /// An unfinished copy of what was written, in another place.
    private func copied(
        _ end: UInt64, _ name: String, _ place: Int, _ read: (ByteCount, inout MutableRawSpan) throws(Fault) -> Void
    ) throws(Fault) -> any ObjectUpload {
        while true {
            do throws(Fault) {
                let copy = try span.places[place].upload()
                do throws(Fault) {
                    try ObjectCopy.copy(from: ByteCount(end), to: copy, read)
                } catch {
                    copy.abandon()
                    throw error
                }
                return copy
            } catch {
                try span.makeRoom(for: name, in: place, error)
            }
        }
    }

    private func compare(_ name: String, _ first: Int, _ place: Int) throws(Fault) {
        let store = span.places[place]
        guard let one = try span.places[first].open(name), let other = try store.open(name), one.size == other.size
        else { throw store.notKept(name) }
        one.dropCaches()
        other.dropCaches()
        var offset: UInt64 = 0
        while offset < one.size.bytes {
            let count = Int(min(one.size.bytes - offset, 1 << 20))
            guard
                try one.bytes(at: ByteCount(offset), count: count) == other.bytes(at: ByteCount(offset), count: count)
            else { throw store.notKept(name) }
            offset += UInt64(count)
        }
    }

    private func isSame(_ there: any ObjectHandle, _ upload: any ObjectUpload, _ end: UInt64) throws(Fault) -> Bool {
        guard there.size.bytes == end else { return false }
        var offset: UInt64 = 0
        while offset < end {
            let count = Int(min(end - offset, 1 << 20))
            var mine = [UInt8](repeating: 0, count: count)
            var span = mine.mutableSpan
            var raw = unsafe span.mutableBytes
            try upload.read(at: ByteCount(offset), into: &raw)
            if try there.bytes(at: ByteCount(offset), count: count) != mine { return false }
            offset += UInt64(count)
        }
        return true
    }

    private static func taken(_ name: String, _ place: any ObjectStore) -> Fault {
        Fault(
            .storeTaken, what: "There is another object \(name) already.", place: place.name,
            remedy: "See who else works on the set, then run the command again.")
    }

    func abandon() { part.withLock { $0.upload }.abandon() }

    /// A lock that many may share or one may have alone: a POSIX lock, made to be used by all threads, at an address that
    /// does not change.
    @safe private final class Gate: @unchecked Sendable {
        private let lock = UnsafeMutablePointer<pthread_rwlock_t>.allocate(capacity: 1)
        init() { _ = unsafe pthread_rwlock_init(lock, nil) }
        deinit {
            _ = unsafe pthread_rwlock_destroy(lock)
            unsafe lock.deallocate()
        }
        func share() { _ = unsafe pthread_rwlock_rdlock(lock) }
        func close() { _ = unsafe pthread_rwlock_wrlock(lock) }
        func open() { _ = unsafe pthread_rwlock_unlock(lock) }
    }
}
