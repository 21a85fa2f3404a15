// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization

@testable import ImageStore

/// Breaks the order of a commit: packs are only shown to be there, and in truth sealed after the point.
final class LateStore: ObjectStore {
    private let base: any ObjectStore
    private let late = Mutex<[String: Upload]>([:])

    init(_ base: any ObjectStore) { self.base = base }

    var name: String { base.name }
    var maximumObjectSize: ByteCount? { base.maximumObjectSize }
    var listingDelay: UInt64 { base.listingDelay }
    func prepare() throws(Fault) { try base.prepare() }
    func clock() throws(Fault) -> UInt64 { try base.clock() }
    func upload() throws(Fault) -> any ObjectUpload { Upload(self, try base.upload()) }
    func open(_ name: String) throws(Fault) -> (any ObjectHandle)? {
        if let upload = late.withLock({ $0[name] }) { return Handle(upload) }
        return try base.open(name)
    }
    func list(_ folder: String) throws(Fault) -> [StoredObject] {
        let more = late.withLock { late in
            late.filter { $0.key.hasPrefix(folder + "/") }.map { StoredObject(name: $0.key, size: $0.value.size) }
        }
        return try base.list(folder) + more
    }
    func topLevelNames(limit: Int) throws(Fault) -> [String] { try base.topLevelNames(limit: limit) }
    func delete(_ name: String) throws(Fault) { try base.delete(name) }
    func leftovers() throws(Fault) -> [any ObjectLeftover] { try base.leftovers() }
    func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement {
        try base.announce(kind, as: id)
    }
    func announcements() throws(Fault) -> [Announced] { try base.announcements() }

    final class Upload: ObjectUpload {
        private let store: LateStore
        private let base: any ObjectUpload
        private let end = Mutex<UInt64>(0)
        var size: ByteCount { ByteCount(end.withLock { $0 }) }

        init(_ store: LateStore, _ base: any ObjectUpload) {
            self.store = store
            self.base = base
        }
        func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
            try base.write(at: offset, bytes)
            end.withLock { $0 = max($0, offset.bytes + UInt64(bytes.byteCount)) }
        }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            try base.read(at: offset, into: &buffer)
        }
        func seal(as name: String) throws(Fault) {
            if name.contains("packs/") {
                store.late.withLock { $0[name] = self }
                return
            }
            try base.seal(as: name)
            guard name.hasPrefix("points/") else { return }
            for (name, upload) in store.late.withLock({ $0 }) { try upload.base.seal(as: name) }
            store.late.withLock { $0 = [:] }
        }
        func seal(replacing name: String) throws(Fault) { try base.seal(replacing: name) }
        func abandon() { base.abandon() }
    }

    private final class Handle: ObjectHandle {
        let upload: Upload
        init(_ upload: Upload) { self.upload = upload }
        var size: ByteCount { upload.size }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            try upload.read(at: offset, into: &buffer)
        }
        func dropCaches() {}
    }
}
