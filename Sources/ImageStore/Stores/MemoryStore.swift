// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Synchronization

/// A store in memory, for tests: like an object store on a network it has no rename, no append and no folders.
public final class MemoryStore: ObjectStore {
    /// What to call it in messages.
    public let name: String
    /// The largest object it takes.
    public let maximumObjectSize: ByteCount?
    private let state: Mutex<State>

    private struct State {
        var objects: [String: [UInt8]] = [:]
        var capacity = Int.max
        var used: Int { objects.values.reduce(0) { $0 + $1.count } }
    }

    /// A store holding `objects`; writes beyond `capacity` bytes in all fail with `store.full`.
    public init(
        name: String = "memory", objects: [String: [UInt8]] = [:], capacity: Int = .max,
        maximumObjectSize: ByteCount? = nil
    ) {
        self.name = name
        self.maximumObjectSize = maximumObjectSize
        self.state = Mutex(State(objects: objects, capacity: capacity))
    }

    /// Everything it holds. Setting replaces it, which tests use to do damage.
    public var objects: [String: [UInt8]] {
        get { state.withLock { $0.objects } }
        set { state.withLock { $0.objects = newValue } }
    }

    /// Nothing to do.
    public func prepare() throws(Fault) {}

    /// Begins an object.
    public func upload() throws(Fault) -> any ObjectUpload { Upload(self) }

    /// Opens an object.
    public func open(_ name: String) throws(Fault) -> (any ObjectHandle)? {
        guard let bytes = state.withLock({ $0.objects[name] }) else { return nil }
        return Handle(place: "\(self.name)/\(name)", content: bytes)
    }

    /// Objects below `folder`.
    public func list(_ folder: String) throws(Fault) -> [StoredObject] {
        state.withLock { state in
            state.objects.filter { $0.key.hasPrefix(folder + "/") }.map {
                StoredObject(name: $0.key, size: ByteCount(UInt64($0.value.count)))
            }
        }
    }

    /// Names up to the first slash.
    public func topLevelNames(limit: Int) throws(Fault) -> [String] {
        let names = state.withLock { Set($0.objects.keys.map { String($0.prefix { $0 != "/" }) }) }
        return Array(names.sorted().prefix(limit))
    }

    /// Removes an object.
    public func delete(_ name: String) throws(Fault) { state.withLock { $0.objects[name] = nil } }

    /// A store in memory keeps nothing unfinished.
    public func leftovers() throws(Fault) -> [any ObjectLeftover] { [] }

    private final class Upload: ObjectUpload {
        let store: MemoryStore
        let content = Mutex<[UInt8]>([])
        init(_ store: MemoryStore) { self.store = store }

        func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
            let capacity = store.state.withLock { $0.capacity - $0.used }
            guard let start = offset.int, start <= capacity - bytes.byteCount else {
                throw Fault(
                    .storeFull, what: "The store is full.", place: store.name, remedy: "Give it more room.")
            }
            let copy = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
            content.withLock { content in
                if content.count < start + copy.count {
                    content.append(contentsOf: repeatElement(0, count: start + copy.count - content.count))
                }
                content.replaceSubrange(start..<start + copy.count, with: copy)
            }
        }

        func seal(as name: String) throws(Fault) {
            let bytes = content.withLock { $0 }
            let taken = store.state.withLock { state in
                if state.objects[name] != nil { return true }
                state.objects[name] = bytes
                return false
            }
            if taken {
                throw Fault(
                    .storeFailed, what: "There is an object \(name) already.", place: store.name,
                    remedy: "Run the command again.")
            }
        }

        func abandon() {}
    }

    private final class Handle: ObjectHandle {
        let place: String
        let content: [UInt8]
        init(place: String, content: [UInt8]) {
            self.place = place
            self.content = content
        }
        var size: ByteCount { ByteCount(UInt64(content.count)) }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            let need = buffer.byteCount
            guard let start = offset.int, need <= content.count, start <= content.count - need else {
                throw endsEarly(place, offset: offset, size: size)
            }
            unsafe content.withUnsafeBytes { source in
                unsafe buffer.withUnsafeMutableBytes { target in
                    unsafe target.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[start..<start + need]))
                }
            }
        }
        func dropCaches() {}
    }
}

/// The fault for a read past an object's end.
func endsEarly(_ place: String, offset: ByteCount, size: ByteCount) -> Fault {
    Fault(
        .setDamaged, what: "The file is cut off: bytes at \(offset.bytes) are needed, but it ends at \(size.bytes).",
        place: place,
        remedy: "Run `relight verify` to see what is lost, and copy the file again if you have another copy.")
}
