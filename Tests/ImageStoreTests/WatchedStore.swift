// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import ImageStore
import Synchronization

/// A store that counts what is open at once, and cannot read some of its objects.
final class WatchedStore: ObjectStore {
    let base: any ObjectStore
    /// Names of objects of which nothing can be read.
    let unreadable: Set<String>
    private let state = Mutex((open: 0, most: 0))

    init(_ base: any ObjectStore, unreadable: Set<String> = []) {
        self.base = base
        self.unreadable = unreadable
    }

    /// The most objects that were open for reading at once.
    var mostOpen: Int { state.withLock { $0.most } }

    private func opened() {
        state.withLock { state in
            state.open += 1
            state.most = max(state.most, state.open)
        }
    }
    private func closed() { state.withLock { $0.open -= 1 } }

    var name: String { base.name }
    var maximumObjectSize: ByteCount? { base.maximumObjectSize }
    var listingDelay: UInt64 { base.listingDelay }
    func prepare() throws(Fault) { try base.prepare() }
    func clock() throws(Fault) -> UInt64 { try base.clock() }
    func announcements() throws(Fault) -> [Announced] { try base.announcements() }
    func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement {
        try base.announce(kind, as: id)
    }
    func upload() throws(Fault) -> any ObjectUpload { try base.upload() }
    func open(_ name: String) throws(Fault) -> (any ObjectHandle)? {
        guard let handle = try base.open(name) else { return nil }
        return Handle(self, handle, isReadable: !unreadable.contains(name))
    }
    func list(_ folder: String) throws(Fault) -> [StoredObject] { try base.list(folder) }
    func topLevelNames(limit: Int) throws(Fault) -> [String] { try base.topLevelNames(limit: limit) }
    func delete(_ name: String) throws(Fault) { try base.delete(name) }
    func leftovers() throws(Fault) -> [any ObjectLeftover] { try base.leftovers() }

    private final class Handle: ObjectHandle {
        let store: WatchedStore
        let base: any ObjectHandle
        let isReadable: Bool
        init(_ store: WatchedStore, _ base: any ObjectHandle, isReadable: Bool) {
            self.store = store
            self.base = base
            self.isReadable = isReadable
            store.opened()
        }
        deinit { store.closed() }
        var size: ByteCount { base.size }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            guard isReadable else {
                throw Fault(
                    .storeFailed, what: "Reading failed: Input/output error.", place: store.name, remedy: "Look at it.")
            }
            try base.read(at: offset, into: &buffer)
        }
        func dropCaches() { base.dropCaches() }
    }
}
