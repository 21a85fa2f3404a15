// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import ImageStore
import Synchronization

/// A store that stops working at a chosen call, as for a program that is killed there: from then on nothing reaches the
/// place, what was being written stays behind unfinished, and announcements are never taken back.
final class MortalStore: ObjectStore {
    /// What an upload held when the end came, in the order in which they began.
    struct Remains {
        var content: [UInt8]
    }

    let base: any ObjectStore
    private let state: Mutex<State>
    /// What an earlier run left behind.
    private let left: [any ObjectLeftover]

    private struct State {
        /// Changing calls that still work; nil for any number.
        var life: Int?
        var dead = false
        var calls = 0
        var uploads: [Upload] = []
        var announcements: [any Announcement] = []
    }

    /// Changing calls work `life` times; for ever when it is nil.
    init(_ base: any ObjectStore, life: Int?, left: [any ObjectLeftover] = []) {
        self.base = base
        self.left = left
        state = Mutex(State(life: life))
    }

    var isDead: Bool { state.withLock { $0.dead } }
    /// Changing calls so far.
    var calls: Int { state.withLock { $0.calls } }

    /// The uploads that were neither sealed nor given up when the end came.
    var remains: [Remains] {
        state.withLock { $0.uploads }.compactMap { upload in upload.unfinished.map { Remains(content: $0) } }
    }

    /// Announcements nobody will take back.
    var orphans: [any Announcement] { state.withLock { $0.announcements } }

    fileprivate func change(_ work: () throws(Fault) -> Void) throws(Fault) {
        let allowed = state.withLock { state in
            if state.dead { return false }
            state.calls += 1
            guard let life = state.life else { return true }
            if life == 0 {
                state.dead = true
                return false
            }
            state.life = life - 1
            return true
        }
        guard allowed else { throw gone }
        try work()
    }

    private func look() throws(Fault) { if isDead { throw gone } }

    private var gone: Fault {
        Fault(.storeFailed, what: "The program was killed.", place: base.name, remedy: "Start it again.")
    }

    var name: String { base.name }
    var maximumObjectSize: ByteCount? { base.maximumObjectSize }
    var listingDelay: UInt64 { base.listingDelay }

    func prepare() throws(Fault) { try change { () throws(Fault) in try base.prepare() } }
    func clock() throws(Fault) -> UInt64 {
        try look()
        return try base.clock()
    }
    func upload() throws(Fault) -> any ObjectUpload {
        var made: Upload?
        try change { () throws(Fault) in made = Upload(self, try base.upload()) }
        guard let made else { throw gone }
        state.withLock { $0.uploads.append(made) }
        return made
    }
    func open(_ name: String) throws(Fault) -> (any ObjectHandle)? {
        try look()
        return try base.open(name)
    }
    func list(_ folder: String) throws(Fault) -> [StoredObject] {
        try look()
        return try base.list(folder)
    }
    func topLevelNames(limit: Int) throws(Fault) -> [String] {
        try look()
        return try base.topLevelNames(limit: limit)
    }
    func delete(_ name: String) throws(Fault) { try change { () throws(Fault) in try base.delete(name) } }
    func leftovers() throws(Fault) -> [any ObjectLeftover] {
        try look()
        return try base.leftovers() + left
    }
    func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement {
        var made: (any Announcement)?
        try change { () throws(Fault) in made = try base.announce(kind, as: id) }
        guard let made else { throw gone }
        state.withLock { $0.announcements.append(made) }
        return Note(self, made)
    }
    func announcements() throws(Fault) -> [Announced] {
        try look()
        return try base.announcements()
    }

    private final class Note: Announcement {
        let store: MortalStore
        let base: any Announcement
        init(_ store: MortalStore, _ base: any Announcement) {
            self.store = store
            self.base = base
        }
        var id: String { base.id }
        func renew() throws(Fault) { try store.change { () throws(Fault) in try base.renew() } }
        func end() { try? store.change { () throws(Fault) in base.end() } }
    }

    final class Upload: ObjectUpload {
        private let store: MortalStore
        private let base: any ObjectUpload
        private let content = Mutex<[UInt8]?>([])

        init(_ store: MortalStore, _ base: any ObjectUpload) {
            self.store = store
            self.base = base
        }

        /// What was written; nil once it was sealed or given up.
        var unfinished: [UInt8]? { content.withLock { $0 } }

        func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
            let copy = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
            try store.change { () throws(Fault) in try unsafe base.write(at: offset, copy.span.bytes) }
            let start = Int(offset.bytes)
            content.withLock { content in
                let missing = start + copy.count - (content?.count ?? 0)
                if missing > 0 { content?.append(contentsOf: repeatElement(0, count: missing)) }
                content?.replaceSubrange(start..<start + copy.count, with: copy)
            }
        }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            try store.look()
            try base.read(at: offset, into: &buffer)
        }
        func seal(as name: String) throws(Fault) {
            try store.change { () throws(Fault) in try base.seal(as: name) }
            content.withLock { $0 = nil }
        }
        func seal(replacing name: String) throws(Fault) {
            try store.change { () throws(Fault) in try base.seal(replacing: name) }
            content.withLock { $0 = nil }
        }
        func abandon() {
            // A dead program removes nothing.
            guard !store.isDead else { return }
            base.abandon()
            content.withLock { $0 = nil }
        }
    }
}

/// What a killed program left in a store that has no folder for it.
final class MemoryLeftover: ObjectLeftover {
    let name: String
    private let content: [UInt8]
    private let gone = Mutex(false)

    init(_ name: String, _ content: [UInt8]) {
        self.name = name
        self.content = content
    }

    var isRemoved: Bool { gone.withLock { $0 } }
    var size: ByteCount { ByteCount(UInt64(content.count)) }
    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        let need = buffer.byteCount
        guard let start = offset.int, need <= content.count, start <= content.count - need else {
            throw Fault(.setDamaged, what: "The leftover ends early.", place: name, remedy: "None.")
        }
        unsafe content.withUnsafeBytes { source in
            unsafe buffer.withUnsafeMutableBytes { target in
                unsafe target.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[start..<start + need]))
            }
        }
    }
    func dropCaches() {}
    func remove() throws(Fault) { gone.withLock { $0 = true } }
}
