// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Synchronization

/// A store in memory, for tests: like an object store on a network it knows only whole objects (no append, no rename,
/// no folders, no locks), has a clock of its own, and may show in its lists late what was put or removed.
public final class MemoryStore: ObjectStore {
    /// How late lists are.
    public enum Lateness: Hashable, Sendable {
        /// Lists are right at once.
        case none
        /// A change shows after so many further calls to the store.
        case operations(Int)
        /// A change shows after so many seconds of the store's clock.
        case seconds(UInt64)
    }

    /// A call to the store, for tests that let some fail.
    public enum Operation: Hashable, Sendable {
        /// An upload begins.
        case upload
        /// So many bytes are written.
        case write(Int)
        /// An upload becomes the object named.
        case seal(String)
        /// An upload takes the place of the object named.
        case replace(String)
        /// An object is opened.
        case open(String)
        /// An object is read: name, offset, count.
        case read(String, UInt64, Int)
        /// A folder is listed.
        case list(String)
        /// An object is removed.
        case delete(String)
        /// The clock is asked.
        case clock
        /// A writer or pruner announces itself.
        case announce(Announced.Kind)
    }

    /// What to call it in messages.
    public let name: String
    /// The largest object it takes.
    public let maximumObjectSize: ByteCount?
    private let state: Mutex<State>

    private struct Entry {
        var content: [UInt8]
        var modified: UInt64
    }

    /// A change that lists do not show yet; without an entry a removal.
    private struct Change {
        var name: String
        var entry: StoredObject?
        var operation: Int
        var time: UInt64
    }

    private struct State {
        var objects: [String: Entry] = [:]
        /// What lists show.
        var listed: [String: StoredObject] = [:]
        var pending: [Change] = []
        var capacity = Int.max
        var used: Int { objects.values.reduce(0) { $0 + $1.content.count } }
        var time: UInt64 = 1_700_000_000
        var operations = 0
        var lateness = Lateness.none
        var interceptor: (@Sendable (Operation) throws(Fault) -> Void)?

        mutating func put(_ name: String, _ content: [UInt8]) {
            objects[name] = Entry(content: content, modified: time)
            note(name, StoredObject(name: name, size: ByteCount(UInt64(content.count)), modified: time))
        }

        mutating func remove(_ name: String) {
            guard objects.removeValue(forKey: name) != nil else { return }
            note(name, nil)
        }

        private mutating func note(_ name: String, _ entry: StoredObject?) {
            pending.append(Change(name: name, entry: entry, operation: operations, time: time))
        }

        /// Lets lists show what is due.
        mutating func settle() {
            while let first = pending.first {
                switch lateness {
                case .none: break
                case .operations(let count): if operations - first.operation <= count { return }
                case .seconds(let seconds): if time < first.time &+ seconds { return }
                }
                listed[first.name] = first.entry
                pending.removeFirst()
            }
        }
    }

    /// A store holding `objects`; writes beyond `capacity` bytes in all fail with `store.full`.
    public init(
        name: String = "memory", objects: [String: [UInt8]] = [:], capacity: Int = .max,
        maximumObjectSize: ByteCount? = nil, lateness: Lateness = .none
    ) {
        self.name = name
        self.maximumObjectSize = maximumObjectSize
        self.state = Mutex(State(capacity: capacity, lateness: lateness))
        self.objects = objects
    }

    /// Everything it holds. Setting replaces it at once, in lists too, which tests use to do damage.
    public var objects: [String: [UInt8]] {
        get { state.withLock { $0.objects.mapValues(\.content) } }
        set {
            state.withLock { state in
                var objects: [String: Entry] = [:]
                for (name, content) in newValue {
                    objects[name] = Entry(content: content, modified: state.objects[name]?.modified ?? state.time)
                }
                state.objects = objects
                state.pending = []
                state.listed = objects.reduce(into: [:]) { listed, object in
                    listed[object.key] = StoredObject(
                        name: object.key, size: ByteCount(UInt64(object.value.content.count)),
                        modified: object.value.modified)
                }
            }
        }
    }

    /// The store's clock, in seconds since 1970. Stands still until it is set.
    public var time: UInt64 {
        get { state.withLock { $0.time } }
        set { state.withLock { $0.time = newValue } }
    }

    /// How late lists are; may be changed at any time.
    public var lateness: Lateness {
        get { state.withLock { $0.lateness } }
        set { state.withLock { $0.lateness = newValue } }
    }

    /// Is asked before every call; what it throws is the call's outcome.
    public var interceptor: (@Sendable (Operation) throws(Fault) -> Void)? {
        get { state.withLock { $0.interceptor } }
        set { state.withLock { $0.interceptor = newValue } }
    }

    /// How many bytes more it takes.
    public var capacity: Int {
        get { state.withLock { $0.capacity } }
        set { state.withLock { $0.capacity = newValue } }
    }

    /// Seconds lists are late; 1 when it is calls that are counted.
    public var listingDelay: UInt64 {
        switch lateness {
        case .none: 0
        case .operations(let count): count > 0 ? 1 : 0
        case .seconds(let seconds): seconds
        }
    }

    private func count(_ operation: Operation) throws(Fault) {
        let interceptor = state.withLock { state in
            state.operations += 1
            return state.interceptor
        }
        try interceptor?(operation)
    }

    /// Lets as many calls or seconds pass as lists are late.
    public func awaitListings() throws(Fault) {
        state.withLock { state in
            switch state.lateness {
            case .none: break
            case .operations(let count): state.operations += count + 1
            case .seconds(let seconds): state.time += seconds
            }
        }
    }

    /// Nothing to do.
    public func prepare() throws(Fault) {}

    /// The clock set by ``time``.
    public func clock() throws(Fault) -> UInt64 {
        try count(.clock)
        return time
    }

    /// Begins an object.
    public func upload() throws(Fault) -> any ObjectUpload {
        try count(.upload)
        return Upload(self)
    }

    /// Opens an object.
    public func open(_ name: String) throws(Fault) -> (any ObjectHandle)? {
        try count(.open(name))
        guard let content = state.withLock({ $0.objects[name]?.content }) else { return nil }
        return Handle(store: self, name: name, content: content)
    }

    /// Objects below `folder`.
    public func list(_ folder: String) throws(Fault) -> [StoredObject] {
        try count(.list(folder))
        return state.withLock { state in
            state.settle()
            return state.listed.values.filter { $0.name.hasPrefix(folder + "/") }
        }
    }

    /// Names up to the first slash.
    public func topLevelNames(limit: Int) throws(Fault) -> [String] {
        try count(.list(""))
        let names = state.withLock { state in
            state.settle()
            return Set(state.listed.keys.map { String($0.prefix { $0 != "/" }) })
        }
        return Array(names.sorted().prefix(limit))
    }

    /// Removes an object.
    public func delete(_ name: String) throws(Fault) {
        try count(.delete(name))
        state.withLock { $0.remove(name) }
    }

    /// A store in memory keeps nothing unfinished.
    public func leftovers() throws(Fault) -> [any ObjectLeftover] { [] }

    /// Puts an empty object. Without locks age alone tells whether its owner still runs: one that is let go of without
    /// an end stays for 24 hours of the store's clock.
    public func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement {
        try count(.announce(kind))
        let name = AnnouncementName(kind: kind, id: id, host: HostMark.own).text
        state.withLock { $0.put(name, []) }
        return Note(store: self, id: id, name: name)
    }

    /// Announcements that lists show and that were not removed.
    public func announcements() throws(Fault) -> [Announced] {
        var result: [Announced] = []
        for object in try list(AnnouncementName.folder) {
            let found = state.withLock { state in state.objects[object.name].map { ($0.modified, state.time) } }
            guard let (modified, now) = found,
                let name = AnnouncementName(String(object.name.dropFirst(AnnouncementName.folder.utf8.count + 1)))
            else { continue }
            let age = now > modified ? now - modified : 0
            let alive = age < Announced.grace
            if !alive { state.withLock { $0.remove(object.name) } }
            result.append(Announced(kind: name.kind, id: name.id, age: age, isAlive: alive))
        }
        return result
    }

    private final class Note: Announcement {
        let store: MemoryStore
        let id: String
        let name: String
        init(store: MemoryStore, id: String, name: String) {
            self.store = store
            self.id = id
            self.name = name
        }
        func renew() throws(Fault) {
            let isThere = store.state.withLock { state in
                guard state.objects[name] != nil else { return false }
                state.put(name, [])
                return true
            }
            if !isThere { throw .leftForDead(store.name) }
        }
        func end() { store.state.withLock { $0.remove(name) } }
    }

    private final class Upload: ObjectUpload {
        let store: MemoryStore
        let content = Mutex<[UInt8]>([])
        init(_ store: MemoryStore) { self.store = store }

        func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
            try store.count(.write(bytes.byteCount))
            let capacity = store.state.withLock { $0.capacity - $0.used }
            guard let start = offset.int, start <= capacity - bytes.byteCount else { throw store.full }
            let copy = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
            content.withLock { content in
                if content.count < start + copy.count {
                    content.append(contentsOf: repeatElement(0, count: start + copy.count - content.count))
                }
                content.replaceSubrange(start..<start + copy.count, with: copy)
            }
        }

        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            try MemoryStore.copy(content.withLock { $0 }, at: offset, into: &buffer, place: store.name)
        }

        func seal(as name: String) throws(Fault) {
            try store.count(.seal(name))
            let bytes = content.withLock { $0 }
            let taken = store.state.withLock { state in
                if state.objects[name] != nil { return true }
                state.put(name, bytes)
                return false
            }
            if taken {
                throw Fault(
                    .storeTaken, what: "There is an object \(name) already.", place: store.name,
                    remedy: "Run the command again.")
            }
        }

        func seal(replacing name: String) throws(Fault) {
            try store.count(.replace(name))
            let bytes = content.withLock { $0 }
            store.state.withLock { $0.put(name, bytes) }
        }

        func abandon() {}
    }

    private var full: Fault {
        Fault(.storeFull, what: "The store is full.", place: name, remedy: "Give it more room.")
    }

    private static func copy(
        _ content: [UInt8], at offset: ByteCount, into buffer: inout MutableRawSpan, place: String
    ) throws(Fault) {
        let need = buffer.byteCount
        guard let start = offset.int, need <= content.count, start <= content.count - need else {
            throw endsEarly(place, offset: offset, size: ByteCount(UInt64(content.count)))
        }
        unsafe content.withUnsafeBytes { source in
            unsafe buffer.withUnsafeMutableBytes { target in
                unsafe target.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[start..<start + need]))
            }
        }
    }

    private final class Handle: ObjectHandle {
        let store: MemoryStore
        let name: String
        let content: [UInt8]
        init(store: MemoryStore, name: String, content: [UInt8]) {
            self.store = store
            self.name = name
            self.content = content
        }
        var size: ByteCount { ByteCount(UInt64(content.count)) }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            try store.count(.read(name, offset.bytes, buffer.byteCount))
            try MemoryStore.copy(content, at: offset, into: &buffer, place: "\(store.name)/\(name)")
        }
        func dropCaches() {}
    }
}
