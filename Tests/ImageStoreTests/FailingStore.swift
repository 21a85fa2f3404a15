// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import ImageStore
import Synchronization

/// A store in memory that fails or lies at a chosen moment.
final class FailingStore: ObjectStore {
    let base: MemoryStore
    /// Counts the calls that change the store.
    let changes = Atomic<Int>(0)
    /// The call that fails; -1: none. All calls after it fail too, as on a medium that is gone.
    let failing: Int
    /// Name of the object whose content is stored with one bit turned.
    let lying: String?
    /// Whether a failing call may have done its work all the same, as when a connection breaks before the answer.
    let afterwards: Bool
    /// What ``leftovers()`` gives.
    let left = Mutex<[any ObjectLeftover]>([])

    init(_ base: MemoryStore, failing: Int = -1, lying: String? = nil, afterwards: Bool = false) {
        self.base = base
        self.failing = failing
        self.lying = lying
        self.afterwards = afterwards
    }

    var name: String { base.name }
    var maximumObjectSize: ByteCount? { nil }
    var listingDelay: UInt64 { base.listingDelay }

    fileprivate func count(_ work: () throws(Fault) -> Void) throws(Fault) {
        let number = changes.add(1, ordering: .relaxed).oldValue
        guard failing >= 0, number >= failing else { return try work() }
        if afterwards, number == failing { try work() }
        throw Fault(.storeFailed, what: "The medium is gone.", place: name, remedy: "Plug it in again.")
    }

    func prepare() throws(Fault) {}
    func upload() throws(Fault) -> any ObjectUpload { Upload(self, try base.upload()) }
    func open(_ name: String) throws(Fault) -> (any ObjectHandle)? { try base.open(name) }
    func list(_ folder: String) throws(Fault) -> [StoredObject] { try base.list(folder) }
    func topLevelNames(limit: Int) throws(Fault) -> [String] { try base.topLevelNames(limit: limit) }
    func delete(_ name: String) throws(Fault) { try count { () throws(Fault) in try base.delete(name) } }
    func leftovers() throws(Fault) -> [any ObjectLeftover] { left.withLock { $0 } }
    func clock() throws(Fault) -> UInt64 { try base.clock() }
    func announcements() throws(Fault) -> [Announced] { try base.announcements() }
    func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement {
        var made: (any Announcement)?
        try count { () throws(Fault) in made = try base.announce(kind, as: id) }
        guard let made else { fatalError("count() neither worked nor threw") }
        return Note(self, made)
    }

    /// An announcement whose end may be lost with the medium.
    private final class Note: Announcement {
        let store: FailingStore
        let base: any Announcement
        init(_ store: FailingStore, _ base: any Announcement) {
            self.store = store
            self.base = base
        }
        var id: String { base.id }
        func renew() throws(Fault) { try store.count { () throws(Fault) in try base.renew() } }
        func end() { try? store.count { () throws(Fault) in base.end() } }
    }

    private final class Upload: ObjectUpload {
        let store: FailingStore
        let base: any ObjectUpload
        init(_ store: FailingStore, _ base: any ObjectUpload) {
            self.store = store
            self.base = base
        }
        func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
            let copy = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
            try store.count { () throws(Fault) in try unsafe base.write(at: offset, copy.span.bytes) }
        }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            try base.read(at: offset, into: &buffer)
        }
        func seal(as name: String) throws(Fault) {
            try store.count { () throws(Fault) in try base.seal(as: name) }
            lie(name)
        }
        func seal(replacing name: String) throws(Fault) {
            try store.count { () throws(Fault) in try base.seal(replacing: name) }
            lie(name)
        }
        private func lie(_ name: String) {
            if let lying = store.lying, name.hasPrefix(lying), var bytes = store.base.objects[name] {
                bytes[bytes.count / 2] ^= 4
                store.base.objects[name] = bytes
            }
        }
        func abandon() { base.abandon() }
    }
}
