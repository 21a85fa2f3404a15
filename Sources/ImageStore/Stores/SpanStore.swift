// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Glibc
import Synchronization

/// One set that lies in several places, for media that are too small to hold it alone.
///
/// Packs lie where there was room when they were written: the places are filled one after the other. Headers, key slots,
/// points and moves lie in every place, so that any medium can tell what the set needs; second copies and marks in every
/// place that had room for them. Reading looks in all places; one that is absent is simply not given, and its packs are
/// then the ones that are missing. What is removed while a place is absent comes back with it.
public final class SpanStore: ObjectStore {
    /// The places it lies in, in the order they were named.
    public let places: [any ObjectStore]
    private let state = Mutex(State())
    private let renewals = Renewals()

    private struct State {
        /// Places that had no room for a pack, by number.
        var full: Set<Int> = []
        var findings: [Finding] = []
        /// What to add to a place's times to have them by the first place's clock.
        var offsets: [Int: Int64] = [:]
    }

    /// Up to this size an object is also tried where a pack did not fit.
    static let small = 16 << 20

    /// The set in `places`, each of which holds the set or nothing yet. Writing starts in the first.
    ///
    /// Throws `set.different` when two places hold different sets, `usage` when none or the same one twice is named,
    /// and what opening one of them throws.
    public init(_ places: [any ObjectStore]) throws(Fault) {
        guard !places.isEmpty else {
            throw Fault(.usage, what: "No place is named.", remedy: "Name the folder of the set.")
        }
        for (index, place) in places.enumerated() {
            for earlier in places[..<index] where SpanStore.same(place, earlier) {
                throw Fault(
                    .usage, what: "The place is named twice.", place: place.name,
                    remedy: "Name each place of the set once.")
            }
        }
        var first: (set: SetHeader, place: String)?
        for place in places {
            guard let header = try SetAccess.look(at: place).header else { continue }
            if let first, first.set.id != header.id {
                throw Fault(
                    .differentSets,
                    what: "This place holds the set \(header.id.text), but \(first.place) holds \(first.set.id.text).",
                    place: place.name, remedy: "Name places of one set, or an empty folder for it to go on in.")
            }
            first = first ?? (header, place.name)
        }
        self.places = places
    }

    /// The places as they are, for tests of what is below a set.
    init(unchecked places: [any ObjectStore]) { self.places = places }

    static func same(_ one: any ObjectStore, _ other: any ObjectStore) -> Bool {
        if one === other { return true }
        guard let one = one as? FolderStore, let other = other as? FolderStore else { return false }
        var first = stat()
        var second = stat()
        guard unsafe stat(one.path, &first) == 0, unsafe stat(other.path, &second) == 0 else {
            return one.path == other.path
        }
        return first.st_dev == second.st_dev && first.st_ino == second.st_ino
    }

    /// The places' names, joined by " + ".
    public var name: String { places.map(\.name).joined(separator: " + ") }

    /// What all places can hold.
    public var maximumObjectSize: ByteCount? { places.compactMap(\.maximumObjectSize).min() }

    /// The longest of all.
    public var listingDelay: UInt64 { places.map(\.listingDelay).max() ?? 0 }

    /// What was noticed so far: places that are full, objects that are in some places only.
    public var findings: [Finding] { state.withLock { $0.findings } }

    func note(_ finding: Finding) {
        state.withLock { if !$0.findings.contains(finding) { $0.findings.append(finding) } }
    }

    // MARK: - Setting up

    /// Makes all places ready, gives those that are new everything but packs, and all others what was made while they were
    /// away: key slots, points and moves, with their second copies where there is room.
    ///
    /// Throws `store.full` with the name of a place that cannot take what every place must have; the others are completed
    /// all the same.
    public func prepare() throws(Fault) {
        for place in places { try place.prepare() }
        var offsets: [Int: Int64] = [:]
        let now = Int64(clamping: try places[0].clock())
        for (index, place) in places.enumerated().dropFirst() {
            let offset = now &- Int64(clamping: try place.clock())
            // Less is the time the asking takes.
            if abs(offset) > 2 { offsets[index] = offset }
        }
        let found = offsets
        state.withLock { $0.offsets = found }
        var full: Fault?
        for index in places.indices {
            do throws(Fault) { try complete(index) } catch {
                guard error.code == .storeFull else { throw error }
                full = full ?? error
            }
        }
        if let full { throw full }
    }

    /// Gives a place what it lacks. The headers come last: a place with both is complete, or was.
    private func complete(_ index: Int) throws(Fault) {
        let place = places[index]
        let here = try SetAccess.look(at: place)
        guard here.header == nil || !here.lostCopies.isEmpty else { return try catchUp(index) }
        var header = here.header
        for other in places where header == nil { header = try SetAccess.look(at: other).header }
        guard let header else { return }
        for folder in SpanStore.everywhere {
            let has = Set(try place.list(folder).map(\.name))
            for object in try list(folder).sorted(by: { $0.name < $1.name }) where !has.contains(object.name) {
                guard let source = try open(object.name) else { continue }
                let target = try place.upload()
                do {
                    try ObjectCopy.copy(from: source.size, to: target, source.read)
                    try target.seal(as: object.name)
                } catch {
                    target.abandon()
                    throw error
                }
            }
        }
        if try place.open(ObjectName.text) == nil, let text = try open(ObjectName.text), text.size < .mebibytes(1),
            let size = text.size.int
        {
            try place.put(ObjectName.text, try text.bytes(at: .zero, count: size))
        }
        for name in here.lostCopies {
            try place.delete(name)
            try place.put(name, header.bytes)
        }
    }

    /// Folders a new place is given.
    private static let everywhere = [
        ObjectName.keys, ObjectName.points, ObjectName.copies, ObjectName.moves, ObjectName.tombstones,
    ]
    /// Folders whose objects no place may lack: without them a place, used alone, takes for dead what is needed.
    private static let needed = [ObjectName.keys, ObjectName.points, ObjectName.moves]

    /// Whether every place must have the object.
    static func isNeeded(_ name: String) -> Bool {
        ObjectName.headers.contains(name) || needed.contains { name.hasPrefix($0 + "/") }
    }

    /// Gives a place that was away what was made meanwhile.
    private func catchUp(_ index: Int) throws(Fault) {
        for folder in SpanStore.needed.flatMap({ [$0, ObjectName.copy(of: $0)] }) {
            let has = Set(try places[index].list(folder).map(\.name))
            for object in try list(folder).sorted(by: { $0.name < $1.name }) where !has.contains(object.name) {
                // Lists may be late.
                guard try places[index].open(object.name) == nil, let source = try open(object.name, from: 0) else {
                    continue
                }
                do throws(Fault) {
                    try put(object.name, in: index) { (target) throws(Fault) in
                        try ObjectCopy.copy(from: source.handle.size, to: target, source.handle.read)
                    }
                } catch {
                    guard error.code == .storeFull, !SpanStore.isNeeded(object.name) else { throw error }
                    noteLeftOut(object.name, index)
                    continue
                }
                // What somebody removes at this moment must not come back: whoever of the two is later removes it.
                if try places[source.place].open(object.name) == nil { try places[index].delete(object.name) }
            }
        }
    }

    // MARK: - Room for what every place must have

    /// Puts an object into one place. Where that is full and must have it, second copies of packs that other places have
    /// go until there is room. `fill` writes the object, each time from its beginning.
    func put(
        _ name: String, in index: Int, _ fill: (any ObjectUpload) throws(Fault) -> Void
    ) throws(Fault) {
        while true {
            do throws(Fault) {
                let upload = try places[index].upload()
                do throws(Fault) {
                    try fill(upload)
                    try upload.seal(as: name)
                } catch {
                    upload.abandon()
                    throw error
                }
                return
            } catch {
                try makeRoom(for: name, in: index, error)
            }
        }
    }

    /// Removes second copies from a full place that must have the object `name`: the largest that another place has too.
    /// Throws `fault` where it is another one or the object may be left out, and `store.full` where nothing can go.
    func makeRoom(for name: String, in index: Int, _ fault: Fault) throws(Fault) {
        guard fault.code == .storeFull, SpanStore.isNeeded(name) else { throw fault }
        let folder = ObjectName.copy(of: ObjectName.packs)
        for object in try places[index].list(folder).sorted(by: { ($1.size, $0.name) < ($0.size, $1.name) }) {
            let first = String(object.name.dropFirst(ObjectName.copies.utf8.count + 1))
            var isElsewhere = false
            for other in places.indices where other != index {
                for name in [object.name, first] where try places[other].open(name)?.size == object.size {
                    isElsewhere = true
                }
            }
            guard isElsewhere else { continue }
            return try places[index].delete(object.name)
        }
        throw Fault(
            .storeFull, what: "There is no room here for \(name), which every place of the set must have.",
            place: places[index].name, remedy: SpanStore.makeRoom)
    }

    /// What helps where a place cannot take what every place must have: one more place does not.
    public static let makeRoom =
        "Finished recovery points are not harmed. Make room on this medium (a few MiB will do), then run the command again."

    func noteLeftOut(_ name: String, _ index: Int) {
        note(
            Finding(
                .notice, "store.full", what: "There was no room for a copy of \(name); other places have it.",
                place: places[index].name))
    }

    /// Whether an object lies in one place only.
    static func isPack(_ name: String) -> Bool { name.hasPrefix(ObjectName.packs + "/") }

    // MARK: - Objects

    /// The first place's clock.
    public func clock() throws(Fault) -> UInt64 { try places[0].clock() }

    /// Begins an object where there is room.
    public func upload() throws(Fault) -> any ObjectUpload {
        renewals.renewDue()
        return try SpanUpload(self)
    }

    /// Opens an object where it is found first; when reading there fails, it is read where it is found next.
    public func open(_ name: String) throws(Fault) -> (any ObjectHandle)? {
        try open(name, from: 0).map { SpanHandle(store: self, name: name, handle: $0.handle, place: $0.place) }
    }

    func open(_ name: String, from start: Int) throws(Fault) -> (handle: any ObjectHandle, place: Int)? {
        var failed: Fault?
        for index in places.indices.dropFirst(start) {
            do throws(Fault) {
                if let handle = try places[index].open(name) { return (handle, index) }
            } catch { failed = failed ?? error }
        }
        if let failed { throw failed }
        return nil
    }

    /// Objects of all places. One that is in several is as large as in the first, and as new as the newest.
    public func list(_ folder: String) throws(Fault) -> [StoredObject] {
        var lists: [[StoredObject]] = []
        for place in places { lists.append(try place.list(folder)) }
        return merged(lists)
    }

    /// Objects of all places, as far as they can be listed.
    public func listReadable(_ folder: String) -> PartialListing {
        let lists = places.map { $0.listReadable(folder) }
        var result = PartialListing()
        result.objects = merged(lists.map(\.objects))
        result.faults = lists.flatMap(\.faults)
        return result
    }

    /// What was noticed in any of them.
    public var openingFindings: [Finding] { places.flatMap(\.openingFindings) }

    private func merged(_ lists: [[StoredObject]]) -> [StoredObject] {
        let offsets = state.withLock { $0.offsets }
        var result: [String: StoredObject] = [:]
        for (index, objects) in lists.enumerated() {
            for var object in objects {
                if let offset = offsets[index] {
                    let (time, past) = Int64(clamping: object.modified).addingReportingOverflow(offset)
                    object.modified = past ? object.modified : UInt64(max(0, time))
                }
                if let known = result[object.name] {
                    object.size = known.size
                    object.modified = max(object.modified, known.modified)
                }
                result[object.name] = object
            }
        }
        return Array(result.values)
    }

    /// Names at the top of all places.
    public func topLevelNames(limit: Int) throws(Fault) -> [String] {
        var names: Set<String> = []
        for place in places { names.formUnion(try place.topLevelNames(limit: limit)) }
        return Array(names.sorted().prefix(limit))
    }

    /// Removes an object everywhere. A place where that fails keeps no other from it.
    public func delete(_ name: String) throws(Fault) {
        var failed: Fault?
        for place in places {
            do throws(Fault) { try place.delete(name) } catch { failed = failed ?? error }
        }
        // Somebody may have completed a place from another one meanwhile.
        for place in places where failed == nil {
            do throws(Fault) { if try place.open(name) != nil { try place.delete(name) } } catch { failed = error }
        }
        if let failed { throw failed }
    }

    /// Unfinished objects of all places.
    public func leftovers() throws(Fault) -> [any ObjectLeftover] {
        var result: [any ObjectLeftover] = []
        for place in places { result += try place.leftovers() }
        return result
    }

    // MARK: - Who is at work

    /// Announces itself in all places under one id; at least one must take it.
    public func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement {
        var made: [any Announcement] = []
        var failed: Fault?
        for place in places {
            do throws(Fault) { made.append(try place.announce(kind, as: id)) } catch {
                failed = failed ?? error
                note(
                    Finding(
                        .notice, "store.not-announced",
                        what: "Others who use only this place cannot see that something is at work: \(error.what)",
                        place: place.name))
            }
        }
        if made.isEmpty, let failed { throw failed }
        let announcement = SpanAnnouncement(id: id, parts: made)
        renewals.add(announcement)
        return announcement
    }

    /// Who is at work in any place: at work when one place says so.
    public func announcements() throws(Fault) -> [Announced] {
        var result: [String: Announced] = [:]
        for place in places {
            for seen in try place.announcements() {
                guard let known = result[seen.id] else {
                    result[seen.id] = seen
                    continue
                }
                result[seen.id]?.age = min(seen.age, known.age)
                result[seen.id]?.isAlive = seen.isAlive || known.isAlive
            }
        }
        return Array(result.values)
    }

    private final class SpanAnnouncement: Announcement {
        let id: String
        let parts: [any Announcement]
        init(id: String, parts: [any Announcement]) {
            self.id = id
            self.parts = parts
        }
        func renew() throws(Fault) {
            var failed: Fault?
            for part in parts {
                do throws(Fault) { try part.renew() } catch {
                    if failed == nil || error.code == .leftForDead { failed = error }
                }
            }
            if let failed { throw failed }
        }
        func end() { for part in parts { part.end() } }
    }

    // MARK: - Room

    /// Marks a place as having no room for a pack.
    func markFull(_ index: Int) {
        state.withLock { _ = $0.full.insert(index) }
        note(
            Finding(
                .notice, "store.full", what: "The place is full; the set goes on in the next one.",
                place: places[index].name))
    }

    /// Where an object of `size` bytes so far may go: places with room first, then, for a small one, the others.
    func candidates(size: Int) -> [Int] {
        let full = state.withLock { $0.full }
        let roomy = places.indices.filter { !full.contains($0) }
        return size <= SpanStore.small ? roomy + places.indices.filter { full.contains($0) } : roomy
    }
}

extension FaultCode {
    /// Places that are to hold one set hold different ones.
    public static let differentSets = FaultCode("set.different", exit: .refused)
}

/// An object in one of several places.
private final class SpanHandle: ObjectHandle {
    let store: SpanStore
    let name: String
    let size: ByteCount
    private let present: Mutex<(handle: any ObjectHandle, place: Int)>

    init(store: SpanStore, name: String, handle: any ObjectHandle, place: Int) {
        self.store = store
        self.name = name
        size = handle.size
        present = Mutex((handle, place))
    }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        var (handle, place) = present.withLock { $0 }
        while true {
            do throws(Fault) {
                return try handle.read(at: offset, into: &buffer)
            } catch {
                // Another place's object of another size is not this one.
                guard let next = try? store.open(name, from: place + 1), next.handle.size == size else { throw error }
                (handle, place) = next
                present.withLock { $0 = next }
            }
        }
    }

    func dropCaches() { present.withLock { $0.handle }.dropCaches() }
}

/// Copies of objects, in pieces of 1 MiB.
enum ObjectCopy {
    /// Copies `size` bytes that `read` gives into `target`.
    static func copy(
        from size: ByteCount, to target: any ObjectUpload,
        _ read: (ByteCount, inout MutableRawSpan) throws(Fault) -> Void
    ) throws(Fault) {
        var buffer = [UInt8](repeating: 0, count: Int(min(size.bytes, 1 << 20)))
        var offset: UInt64 = 0
        while offset < size.bytes {
            let count = Int(min(size.bytes - offset, 1 << 20))
            if count < buffer.count { buffer.removeLast(buffer.count - count) }
            var span = buffer.mutableSpan
            var raw = unsafe span.mutableBytes
            try read(ByteCount(offset), &raw)
            try unsafe target.write(at: ByteCount(offset), buffer.span.bytes)
            offset += UInt64(count)
        }
    }
}
