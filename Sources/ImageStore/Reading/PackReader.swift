// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Synchronization

/// Opens packs, keeps the last ones open, and knows where records went whose packs were removed.
final class PackShelf: Sendable {
    let store: any ObjectStore
    let set: SetHeader
    private let open = Mutex<[String: (handle: any ObjectHandle, turn: UInt64)]>([:])
    private let turn = Atomic<UInt64>(0)
    private let relocations = Mutex(Relocations())
    private static let most = 24

    private struct Relocations {
        var map: MoveMap?
        /// Packs for which the moves were read again.
        var asked: Set<ObjectID> = []
        var search: RecordSearch?
        /// Packs of which records were found by searching.
        var searched: Set<ObjectID> = []
        /// Places that were read right the second time only, and their number.
        var readTwice: [(pack: ObjectID, offset: Int)] = []
        var readTwiceCount = 0
    }
    /// Most places listed that were read right the second time only.
    private static let mostReadTwice = 20

    init(store: any ObjectStore, set: SetHeader) {
        self.store = store
        self.set = set
    }

    /// The pack `id` (or its second copy).
    func pack(_ id: ObjectID, copy: Bool = false) throws(Fault) -> any ObjectHandle {
        guard let handle = try find(id, copy: copy) else { throw missing(id, copy: copy) }
        return handle
    }

    /// The pack `id` (or its second copy), if it is there.
    private func find(_ id: ObjectID, copy: Bool) throws(Fault) -> (any ObjectHandle)? {
        let name = copy ? ObjectName.copy(of: ObjectName.pack(id)) : ObjectName.pack(id)
        let now = turn.add(1, ordering: .relaxed).newValue
        let known: (any ObjectHandle)? = open.withLock { open in
            open[name]?.turn = now
            return open[name]?.handle
        }
        if let known { return known }
        guard let handle = try store.open(name) else { return nil }
        open.withLock { open in
            if open.count >= PackShelf.most, let oldest = open.min(by: { $0.value.turn < $1.value.turn }) {
                open[oldest.key] = nil
            }
            open[name] = (handle, now)
        }
        return handle
    }

    /// The pack that holds the record at `place` (or its second copy), and where in it: there, or where it was moved to.
    /// The record's first id at `index`, `id`, finds it when nothing says where it went.
    func locate(
        _ place: RecordPlace, copy: Bool, id: UnitID, index: Int
    ) throws(Fault) -> (handle: any ObjectHandle, place: RecordPlace) {
        if let handle = try find(place.pack, copy: copy) { return (handle, place) }
        let start = RecordStart(pack: place.pack, offset: place.offset)
        if let found = try follow(start, try moves(), copy) { return (found.0, place.moved(to: found.1)) }
        // A second copy that is missing beside its first was not moved.
        let first = copy ? try find(place.pack, copy: false) : nil
        if first == nil {
            // Space may have been reclaimed since the moves were read, which is looked for once for each pack.
            if relocations.withLock({ $0.asked.insert(place.pack).inserted }) {
                try store.awaitListings()
                let map = try MoveMap(store, set, forReading: true)
                relocations.withLock { $0.map = map }
                if let found = try follow(start, map, copy) { return (found.0, place.moved(to: found.1)) }
            }
            if let found = try search(id, index: index, copy: copy, size: place.length) {
                relocations.withLock { _ = $0.searched.insert(place.pack) }
                return (found.0, place.moved(to: found.1))
            }
        }
        throw missing(place.pack, copy: copy)
    }

    private func missing(_ id: ObjectID, copy: Bool) -> Fault {
        Fault(
            .setDamaged, what: "The file is missing.", place: place(id, copy: copy),
            remedy: "Put the file back from a copy of the set; `relight verify` lists what is lost without it.")
    }

    /// The moves as they were when they were last read.
    func moves() throws(Fault) -> MoveMap {
        if let known = relocations.withLock({ $0.map }) { return known }
        let map = try MoveMap(store, set, forReading: true)
        relocations.withLock { $0.map = $0.map ?? map }
        return map
    }

    private func follow(
        _ start: RecordStart, _ map: MoveMap, _ copy: Bool
    ) throws(Fault) -> (any ObjectHandle, RecordStart)? {
        try map.follow(start) { (start) throws(Fault) in try find(start.pack, copy: copy).map { ($0, start) } }
    }

    /// Looks for a record in the footers of all packs.
    func search(
        _ id: UnitID, index: Int, copy: Bool, size: Int
    ) throws(Fault) -> (any ObjectHandle, RecordStart)? {
        let search: RecordSearch
        if let known = relocations.withLock({ $0.search }) {
            search = known
        } else {
            search = try RecordSearch(store, set)
            relocations.withLock { $0.search = $0.search ?? search }
        }
        for start in search.candidates(id, index: index) {
            guard let handle = try find(start.pack, copy: copy),
                let head = try? handle.bytes(
                    at: ByteCount(UInt64(start.offset)),
                    count: min(size, RecordHeader.fixedSize + RecordHeader.maximumIDs * UnitID.size)),
                let record = try? unsafe RecordHeader(head.span.bytes, at: 0, unitSize: set.unitSize),
                record.totalSize == size, index < record.ids.count, record.ids[index] == id
            else { continue }
            return (handle, start)
        }
        return nil
    }

    /// Notes a record that was damaged when it was read first, and sound when it was read again.
    func noteSecondReading(_ pack: ObjectID, _ offset: Int) {
        relocations.withLock { state in
            state.readTwiceCount += 1
            if state.readTwice.count < PackShelf.mostReadTwice { state.readTwice.append((pack, offset)) }
        }
    }

    /// What had to be searched for, or read twice, so far.
    var findings: [Finding] { searchFindings + secondReadings }

    private var secondReadings: [Finding] {
        let (places, count) = relocations.withLock { ($0.readTwice, $0.readTwiceCount) }
        var result = places.map { item in
            Finding(
                .warning, "set.second-reading",
                what: "The record at byte \(item.offset): \(VerifyReport.SecondReading.what)", place: place(item.pack))
        }
        if count > places.count {
            result.append(
                Finding(
                    .warning, "set.second-reading",
                    what: "\(count - places.count) more records. \(VerifyReport.SecondReading.what)", place: store.name)
            )
        }
        return result
    }

    private var searchFindings: [Finding] {
        relocations.withLock { $0.searched }.sorted().map { pack in
            Finding(
                .warning, "set.moves-lost",
                what: "The pack is gone and nothing says where its records went; some were found by searching. "
                    + "`relight prune` notes where they are.", place: place(pack))
        }
    }

    /// The full name of a pack, for messages.
    func place(_ id: ObjectID, copy: Bool = false) -> String {
        "\(store.name)/\(copy ? ObjectName.copy(of: ObjectName.pack(id)) : ObjectName.pack(id))"
    }
}

/// Reads what is around the records of one pack: header, trailer, footer.
struct PackStructure: Sendable {
    var header: PackHeader
    var footer: PackFooter

    /// Reads and checks header, trailer and footer of a sealed pack.
    static func read(
        _ handle: any ObjectHandle, name: String, id: ObjectID, set: SetHeader, hasher: Hasher256
    ) throws(Fault) -> PackStructure {
        var entries: [PackFooter.Entry] = []
        var structure = try scan(handle, name: name, id: id, set: set, hasher: hasher) { offset, record in
            entries.append(PackFooter.Entry(offset: offset, record: record))
        }
        structure.footer.entries = entries
        return structure
    }

    /// Reads as ``read(_:name:id:set:hasher:)`` does, but gives the footer's records to `each` one after the other instead
    /// of listing them. When it throws, what `each` was given must not be used.
    static func scan(
        _ handle: any ObjectHandle, name: String, id: ObjectID, set: SetHeader, hasher: Hasher256,
        _ each: (Int, RecordHeader) -> Void
    ) throws(Fault) -> PackStructure {
        let header = try self.header(handle, name: name, id: id, set: set)
        let size = handle.size.bytes
        let least = UInt64(PackHeader.size + PackFooter.fixedSize + PackFooter.trailerSize)
        guard size >= least else {
            throw damaged(name, at: 0, FieldError.truncated(field: "pack", at: 0, need: Int(least), have: Int(size)))
        }
        guard size <= UInt64(UInt32.max) else {
            throw damaged(
                name, at: 0,
                FieldError.invalid(field: "pack", at: 0, seen: "\(size) bytes", expected: "less than 4 GiB"))
        }
        let end = size - UInt64(PackFooter.trailerSize)
        let tail = try handle.bytes(at: ByteCount(end), count: PackFooter.trailerSize)
        let trailer: PackFooter.Trailer
        do throws(FieldError) {
            trailer = try unsafe PackFooter.Trailer(tail.span.bytes, packSize: size)
        } catch {
            throw damaged(name, at: end, error)
        }
        let bytes = try handle.bytes(at: ByteCount(UInt64(trailer.offset)), count: trailer.length)
        do throws(FieldError) {
            guard try hasherResult(hasher, bytes) == trailer.digest else {
                throw FieldError.invalid(
                    field: "footer hash", at: 0, seen: "another hash", expected: "the one in the trailer")
            }
            let footer = try unsafe PackFooter(
                scanning: bytes.span.bytes, trailer: trailer, unitSize: set.unitSize, each)
            return PackStructure(header: header, footer: footer)
        } catch {
            throw damaged(name, at: UInt64(trailer.offset), error)
        }
    }

    private static func hasherResult(_ hasher: Hasher256, _ bytes: [UInt8]) throws(FieldError) -> UnitID {
        do throws(Fault) {
            return try hasher.hash(bytes)
        } catch {
            throw .invalid(field: "SHA-256", at: 0, seen: error.what, expected: "a hash")
        }
    }

    /// Reads and checks a pack's header.
    static func header(
        _ handle: any ObjectHandle, name: String, id: ObjectID, set: SetHeader
    ) throws(Fault) -> PackHeader {
        guard handle.size.bytes >= UInt64(PackHeader.size) else {
            throw damaged(
                name, at: 0,
                .truncated(field: "pack header", at: 0, need: PackHeader.size, have: Int(handle.size.bytes)))
        }
        let head = try handle.bytes(at: .zero, count: PackHeader.size)
        do throws(FieldError) {
            let header = try unsafe PackHeader(head.span.bytes)
            guard header.id == id, header.set == set else {
                throw FieldError.invalid(
                    field: "pack id", at: 16, seen: "\(header.id.text) of set \(header.set.id.text)",
                    expected: "\(id.text) of set \(set.id.text)")
            }
            return header
        } catch {
            throw damaged(name, at: 0, error)
        }
    }

    static func damaged(_ name: String, at offset: UInt64, _ error: FieldError) -> Fault {
        Fault(
            .setDamaged, what: "Damaged at byte \(offset): \(error).", place: name,
            remedy: "Run `relight verify` to see what is lost; put the file back if you have another copy.",
            extent: Extent(start: ByteCount(offset), length: .zero))
    }
}
