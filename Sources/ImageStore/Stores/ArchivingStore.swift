// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import Synchronization
import Threads

/// A set on its way into an archive: the store a ``SetWriter`` writes to, so that an archive is made as any other set is.
///
/// A tar file takes one member after the other. Packs of frames go straight into it, one at a time: who would begin a
/// second one waits until the first is sealed. All other objects are small, are kept in memory until they are sealed, and
/// follow when no pack is being written. Nothing is ever removed or replaced.
final class ArchivingStore: ObjectStore {
    private let state: Mutex<State>
    /// The archive's path.
    let name: String

    private struct State: @unchecked Sendable {
        // Used under the lock only.
        var archive: ArchiveWriter
        var members: [String: Member] = [:]
        /// Sealed while a pack was being written.
        var waiting: [(name: String, bytes: [UInt8])] = []
        /// Whose pack is being written.
        weak var owner: Upload?
        var isTaken = false
        var failed: Fault?
    }

    private struct Member {
        var start: UInt64
        var size: UInt64
    }

    /// Objects go into `archive`, which nobody else uses from here on.
    init(_ archive: consuming ArchiveWriter) {
        name = archive.path
        state = Mutex(State(archive: archive))
    }

    /// Ends the archive; see ``ArchiveWriter/finish(_:)``.
    func finish(_ look: (String) throws(Fault) -> Void) throws(Fault) {
        try state.withLock { (state: inout State) throws(Fault) in
            if let failed = state.failed { throw failed }
            try state.archive.finish(look)
        }
    }

    /// Throws everything away.
    func abandon() { state.withLock { $0.archive.abandon() } }

    /// Bytes written so far.
    var size: ByteCount { state.withLock { $0.archive.size } }

    // MARK: - The store

    var maximumObjectSize: ByteCount? { ByteCount(TarHeader.maximumSize) }
    var listingDelay: UInt64 { 0 }
    func prepare() throws(Fault) {}
    func clock() throws(Fault) -> UInt64 { UInt64(max(0, time(nil))) }
    func upload() throws(Fault) -> any ObjectUpload { Upload(self) }
    func leftovers() throws(Fault) -> [any ObjectLeftover] { [] }
    func announcements() throws(Fault) -> [Announced] { [] }

    func open(_ name: String) throws(Fault) -> (any ObjectHandle)? {
        state.withLock { state in
            if let object = state.waiting.first(where: { $0.name == name }) {
                return Handle(store: self, name: name, size: UInt64(object.bytes.count))
            }
            return state.members[name].map { Handle(store: self, name: name, size: $0.size) }
        }
    }

    func list(_ folder: String) throws(Fault) -> [StoredObject] {
        state.withLock { state in
            (state.members.map { ($0.key, $0.value.size) } + state.waiting.map { ($0.name, UInt64($0.bytes.count)) })
                .filter { $0.0.hasPrefix(folder + "/") }.map { StoredObject(name: $0.0, size: ByteCount($0.1)) }
        }
    }

    func topLevelNames(limit: Int) throws(Fault) -> [String] {
        state.withLock { state in
            let names = Set((state.members.keys + state.waiting.map(\.name)).map { String($0.prefix { $0 != "/" }) })
            return Array(names.sorted().prefix(limit))
        }
    }

    /// Refused: what is in the archive stays.
    func delete(_ name: String) throws(Fault) { throw readOnly(self.name) }

    /// Nobody else can see the archive, so there is nobody to tell.
    func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement { Silent(id: id) }

    private final class Silent: Announcement {
        let id: String
        init(id: String) { self.id = id }
        func renew() throws(Fault) {}
        func end() {}
    }

    // MARK: - Reading

    private func read(_ name: String, at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        let count = UInt64(buffer.byteCount)
        let copy: [UInt8] = try state.withLock { (state: inout State) throws(Fault) in
            if let object = state.waiting.first(where: { $0.name == name }) {
                guard offset.bytes <= UInt64(object.bytes.count), count <= UInt64(object.bytes.count) - offset.bytes
                else { throw endsEarly(name, offset: offset, size: ByteCount(UInt64(object.bytes.count))) }
                return Array(object.bytes[Int(offset.bytes)..<Int(offset.bytes + count)])
            }
            guard let member = state.members[name], offset.bytes <= member.size, count <= member.size - offset.bytes
            else { throw endsEarly(name, offset: offset, size: ByteCount(state.members[name]?.size ?? 0)) }
            var bytes = [UInt8](repeating: 0, count: Int(count))
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            try state.archive.read(at: member.start + offset.bytes, into: &raw)
            return bytes
        }
        unsafe buffer.withUnsafeMutableBytes { unsafe $0.copyBytes(from: copy) }
    }

    private final class Handle: ObjectHandle {
        let store: ArchivingStore
        let name: String
        let size: ByteCount
        init(store: ArchivingStore, name: String, size: UInt64) {
            self.store = store
            self.name = name
            self.size = ByteCount(size)
        }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            try store.read(name, at: offset, into: &buffer)
        }
        /// Does nothing: the finished archive is read back as a whole.
        func dropCaches() {}
    }

    // MARK: - Writing

    /// Waits until no pack is being written, then begins one.
    private func begin(_ name: String, _ owner: Upload) throws(Fault) {
        while true {
            let begun = try state.withLock { (state: inout State) throws(Fault) -> Bool in
                if let failed = state.failed { throw failed }
                // An owner that is gone without sealing its pack has failed.
                guard !state.isTaken else {
                    if state.owner == nil { throw ArchivingStore.unfinished(self.name) }
                    return false
                }
                try ArchivingStore.noting(&state) { (state) throws(Fault) in try state.archive.begin(name) }
                state.isTaken = true
                state.owner = owner
                return true
            }
            if begun { return }
            try Interruption.check()
            usleep(1000)
        }
    }

    /// Does `work`, whose fault makes the archive worthless: who waits for the end of a pack ends with it.
    private static func noting<R>(
        _ state: inout State, _ work: (inout State) throws(Fault) -> R
    ) throws(Fault) -> R {
        do throws(Fault) { return try work(&state) } catch {
            state.failed = state.failed ?? error
            throw error
        }
    }

    private func write(_ offset: UInt64, _ bytes: RawSpan) throws(Fault) {
        try state.withLock { (state: inout State) throws(Fault) in
            do throws(Fault) { try state.archive.write(inMember: offset, bytes) } catch {
                state.failed = state.failed ?? error
                throw error
            }
        }
    }

    private func readMember(_ offset: UInt64, into buffer: inout MutableRawSpan) throws(Fault) {
        let count = buffer.byteCount
        let copy: [UInt8] = try state.withLock { (state: inout State) throws(Fault) in
            guard let start = state.archive.memberStart else { throw ArchivingStore.unfinished(name) }
            var bytes = [UInt8](repeating: 0, count: count)
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            do throws(Fault) { try state.archive.read(at: start + offset, into: &raw) } catch {
                state.failed = state.failed ?? error
                throw error
            }
            return bytes
        }
        unsafe buffer.withUnsafeMutableBytes { unsafe $0.copyBytes(from: copy) }
    }

    /// Ends the pack that is being written; what waited for it follows.
    private func end(_ name: String, size: UInt64) throws(Fault) {
        try state.withLock { (state: inout State) throws(Fault) in
            guard let start = state.archive.memberStart else { throw ArchivingStore.unfinished(self.name) }
            try ArchivingStore.noting(&state) { (state) throws(Fault) in
                try state.archive.endMember()
                state.members[name] = Member(start: start, size: size)
                state.isTaken = false
                state.owner = nil
                let waiting = state.waiting
                state.waiting = []
                for object in waiting { try ArchivingStore.add(object.name, object.bytes, &state) }
            }
        }
    }

    private func add(_ name: String, _ bytes: [UInt8]) throws(Fault) {
        try state.withLock { (state: inout State) throws(Fault) in
            if let failed = state.failed { throw failed }
            guard state.members[name] == nil, !state.waiting.contains(where: { $0.name == name }) else {
                throw Fault(
                    .system, what: "The object \(name) was written twice.", place: self.name,
                    remedy: "This is an error in the program: please report it.")
            }
            if state.isTaken { return state.waiting.append((name, bytes)) }
            try ArchivingStore.noting(&state) { (state) throws(Fault) in
                try ArchivingStore.add(name, bytes, &state)
            }
        }
    }

    private static func add(_ name: String, _ bytes: [UInt8], _ state: inout State) throws(Fault) {
        let start = state.archive.size.bytes + UInt64(TarHeader.block)
        try state.archive.add(name, bytes)
        state.members[name] = Member(start: start, size: UInt64(bytes.count))
    }

    /// A pack that was begun and not sealed makes the archive worthless.
    private func fail() {
        state.withLock { state in
            state.failed = state.failed ?? ArchivingStore.unfinished(name)
            state.isTaken = false
        }
    }

    private static func unfinished(_ place: String) -> Fault {
        Fault(
            .storeFailed, what: "The archive was not finished.", place: place,
            remedy: "Nothing of it is kept. Look for an earlier message, and run the command again.")
    }

    /// An object being written: in memory until it shows that it is a pack of frames.
    private final class Upload: ObjectUpload {
        private let store: ArchivingStore
        private let part = Mutex(Part())

        private struct Part {
            var pieces: [(offset: UInt64, bytes: [UInt8])] = []
            /// The pack's name, once it is written to the archive.
            var pack: String?
            var end: UInt64 = 0
            var isOpen = true
        }

        init(_ store: ArchivingStore) { self.store = store }
        deinit { abandon() }

        func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
            let copy = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
            try part.withLock { (part: inout Part) throws(Fault) in
                part.end = max(part.end, offset.bytes + UInt64(copy.count))
                if part.pack == nil {
                    part.pieces.append((offset.bytes, copy))
                    guard offset == .zero, copy.count >= PackHeader.size,
                        let header = try? unsafe PackHeader(copy.span.bytes), header.kind == .data
                    else { return }
                    let name = ObjectName.pack(header.id)
                    try store.begin(name, self)
                    part.pack = name
                    for piece in part.pieces { try unsafe store.write(piece.offset, piece.bytes.span.bytes) }
                    part.pieces = []
                } else {
                    try unsafe store.write(offset.bytes, copy.span.bytes)
                }
            }
        }

        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            let count = buffer.byteCount
            let copy: [UInt8] = try part.withLock { (part: inout Part) throws(Fault) in
                guard offset.bytes <= part.end, UInt64(count) <= part.end - offset.bytes else {
                    throw endsEarly(store.name, offset: offset, size: ByteCount(part.end))
                }
                if part.pack == nil {
                    return Array(try Upload.joined(part, store.name)[Int(offset.bytes)..<Int(offset.bytes) + count])
                }
                var bytes = [UInt8](repeating: 0, count: count)
                var span = bytes.mutableSpan
                var raw = unsafe span.mutableBytes
                try store.readMember(offset.bytes, into: &raw)
                return bytes
            }
            unsafe buffer.withUnsafeMutableBytes { unsafe $0.copyBytes(from: copy) }
        }

        func seal(as name: String) throws(Fault) {
            try part.withLock { (part: inout Part) throws(Fault) in
                if let pack = part.pack {
                    guard pack == name else { throw ArchivingStore.unfinished(store.name) }
                    try store.end(name, size: part.end)
                } else {
                    try store.add(name, try Upload.joined(part, store.name))
                    part.pieces = []
                }
                part.isOpen = false
            }
        }

        /// Refused: nothing in an archive is replaced.
        func seal(replacing name: String) throws(Fault) { throw readOnly(store.name) }

        func abandon() {
            let pack = part.withLock { part in
                defer {
                    part.isOpen = false
                    part.pieces = []
                }
                return part.isOpen ? part.pack : nil
            }
            if pack != nil { store.fail() }
        }

        private static func joined(_ part: Part, _ place: String) throws(Fault) -> [UInt8] {
            var result: [UInt8] = []
            result.reserveCapacity(Int(part.end))
            for piece in part.pieces.sorted(by: { $0.offset < $1.offset }) {
                guard piece.offset == UInt64(result.count) else { throw ArchivingStore.unfinished(place) }
                result += piece.bytes
            }
            return result
        }
    }
}
