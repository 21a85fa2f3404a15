// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings
public import Geometry

/// Reads an image set. Never writes to it.
public final class SetReader: Sendable {
    let store: any ObjectStore
    let set: SetHeader
    /// The keys of an encrypted set; nil also when it was opened without them.
    let keys: SetKeys?
    let shelf: PackShelf
    /// What was noticed when the set was opened: copies of its header that are missing or damaged.
    public let findings: [Finding]

    /// Opens the set in `store`; `keys` are asked when it is encrypted.
    /// Throws `set.not-a-set`, `set.version`, `set.damaged`, `store.failed`, `key.needed`, `key.wrong`.
    public convenience init(_ store: any ObjectStore, keys: KeyRing = .none) throws(Fault) {
        try self.init(store) { (header) throws(Fault) in
            try SetKeys(master: KeySlots(store, header).unlock(keys, header, name: store.name), set: header)
        }
    }

    /// Opens a set as far as that goes without its key: files, structure and stored bytes can be checked, nothing be read.
    public convenience init(locked store: any ObjectStore) throws(Fault) {
        try self.init(store) { (_) throws(Fault) in nil }
    }

    /// Opens a set with keys that are known already.
    init(_ store: any ObjectStore, unlock: (SetHeader) throws(Fault) -> SetKeys?) throws(Fault) {
        let found = try SetAccess.require(store)
        guard let header = found.header else {
            throw Fault(.notASet, what: "There is no image set here.", place: store.name, remedy: "Check the name.")
        }
        self.store = store
        self.set = header
        self.keys = header.isEncrypted ? try unlock(header) : nil
        self.shelf = PackShelf(store: store, set: header)
        self.findings =
            store.openingFindings
            + found.lostCopies.map { name in
                Finding(
                    .warning, "set.lost-copy",
                    what: "This copy of the set's header is missing or damaged; the next backup writes it again.",
                    place: "\(store.name)/\(name)")
            }
    }

    /// The set's id: 32 hexadecimal digits.
    public var setID: String { self.set.id.text }
    /// Whether the set is encrypted.
    public var isEncrypted: Bool { self.set.isEncrypted }
    /// Parity in its packs, percent; 0 for none.
    public var parity: Int { Int(self.set.parity) }
    /// Bytes in a unit.
    public var unitSize: ByteCount { ByteCount(UInt64(self.set.unitSize)) }
    /// How it is encrypted; `nil` when it is not.
    public var cipher: NewEncryption.Cipher? {
        self.set.isEncrypted ? (self.set.cipher == StoredID.aes128 ? .aes128 : .aes256) : nil
    }
    /// The packs there are, second copies left out: their number and bytes.
    public func packs() throws(Fault) -> (count: Int, size: ByteCount) {
        let packs = try store.list(ObjectName.packs).filter { ObjectName.id($0.name, suffix: ".pack") != nil }
        return (packs.count, packs.reduce(.zero) { $0.adding($1.size) ?? $0 })
    }
    /// Whether what the set holds can be read: it is not encrypted, or was opened with its key.
    public var isOpen: Bool { !self.set.isEncrypted || keys != nil }

    /// What was noticed since while points were read: packs of which records had to be searched for, and records that
    /// were read right the second time only.
    public var laterFindings: [Finding] { shelf.findings }

    /// The points of the set.
    public struct Listing: Sendable {
        /// Readable points, oldest first.
        public var points: [PointSummary]
        /// Points of which a copy or all copies are damaged, named by their files.
        public var findings: [Finding]
        /// Ids of points of which no copy can be read. Each may be newer than those that can.
        public var unreadable: [String] = []
    }

    /// All recovery points. A damaged point does not hide the others: it is among the findings.
    public func points() throws(Fault) -> Listing {
        let (ids, faults) = try readableIDs()
        var listing = Listing(
            points: [],
            findings: findings + faults.map { Finding(.warning, $0.code.rawValue, what: $0.what, place: $0.place) })
        for id in ids {
            do throws(Fault) {
                let point = try load(id)
                listing.points.append(point.summary)
                listing.findings += point.findings
            } catch {
                guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
                listing.findings.append(Finding(.loss, error.code.rawValue, what: error.what, place: error.place))
                listing.unreadable.append(id.text)
            }
        }
        listing.points.sort { ($0.number, $0.facts.time, $0.id) < ($1.number, $1.facts.time, $1.id) }
        return listing
    }

    /// Opens a point by a prefix of its id or of the id of the point it is a copy of, or by `latest`. Throws `set.no-such-point` with those there are.
    public func point(_ name: String = "latest") throws(Fault) -> RecoveryPoint {
        let ids = try readableIDs().ids
        if name == "latest" {
            let listing = try points()
            guard let last = listing.points.last, let id = ObjectID(last.id) else {
                throw Fault(
                    ids.isEmpty ? .noSuchPoint : .setDamaged,
                    what: ids.isEmpty
                        ? "The set holds no recovery point yet."
                        : ids.count == 1
                            ? "The set's one recovery point cannot be read."
                            : "None of the set's \(ids.count) recovery points can be read.",
                    place: store.name,
                    remedy: ids.isEmpty
                        ? "Make one with `relight backup DISK --to \(store.name)`."
                        : "Run `relight verify \(store.name)`.")
            }
            return try load(id)
        }
        let matches = ids.filter { !name.isEmpty && $0.text.hasPrefix(name.lowercased()) }
        if matches.count == 1 { return try load(matches[0]) }
        let points = try self.points().points
        let copies = points.filter { $0.facts.origin?.point.hasPrefix(name.lowercased()) ?? false }
        if matches.isEmpty, copies.count == 1, let id = ObjectID(copies[0].id) { return try load(id) }
        let known = points.suffix(10).map { point in
            let name = String(point.facts.name.map { $0.isNewline ? "?" : $0 })
            return name.isEmpty ? point.shortID : "\(point.shortID) (\(name))"
        }
        throw Fault(
            .noSuchPoint,
            what: (matches.isEmpty && copies.isEmpty
                ? "No recovery point's id begins with \"\(name)\"."
                : "\(max(matches.count, copies.count)) recovery points' ids begin with \"\(name)\".")
                + (known.isEmpty ? "" : " There are: \(known.joined(separator: ", "))."),
            place: store.name, remedy: "Use more digits of the id, or `latest`; `relight points` lists them.")
    }

    /// Throws `set.damaged` when a point cannot be read: it may be newer than the one that `latest` stands for.
    public func requireKnownLatest() throws(Fault) {
        let listing = try points()
        guard let lost = listing.unreadable.first, let last = listing.points.last else { return }
        let more = listing.unreadable.count - 1
        throw Fault(
            .setDamaged,
            what:
                "The recovery point \(lost)\(more > 0 ? " and \(more) more" : "") cannot be read, and may be newer than the "
                + "one that would be taken as latest (\(last.shortID)).",
            place: store.name,
            remedy:
                "Name the point by its id; `relight points` lists them, `relight repair` tells whether the damaged one can "
                + "be put back.")
    }

    /// Ids of all points of which a first or second copy exists, in order. Throws when a folder cannot be listed.
    func ids() throws(Fault) -> [ObjectID] {
        let (ids, faults) = try readableIDs()
        if let fault = faults.first { throw fault }
        return ids
    }

    /// Ids of all points that are listed in one of the two folders, in order, and why others may be missing. Throws when
    /// none is listed because of that.
    func readableIDs() throws(Fault) -> (ids: [ObjectID], faults: [Fault]) {
        var ids: Set<ObjectID> = []
        var faults: [Fault] = []
        for folder in [ObjectName.points, ObjectName.copy(of: ObjectName.points)] {
            let listing = store.listReadable(folder)
            faults += listing.faults
            for object in listing.objects {
                if let id = ObjectName.id(object.name, suffix: ".point") { ids.insert(id) }
            }
        }
        if ids.isEmpty, let fault = faults.first { throw fault }
        return (ids.sorted(), faults)
    }

    /// Reads a point: its first copy, or its second when the first is damaged.
    func load(_ id: ObjectID) throws(Fault) -> RecoveryPoint {
        let name = ObjectName.point(id)
        let second = ObjectName.copy(of: name)
        var findings: [Finding] = []
        var first: Fault?
        for copy in [name, second] {
            var passed: Fault?
            do throws(Fault) {
                let file = try read(id, copy, passed: &passed)
                if let fault = first ?? passed {
                    findings.append(
                        Finding(
                            .warning, "set.lost-copy", what: "\(fault.what) Another copy is sound and is used.",
                            place: fault.place))
                } else if ((try? store.open(second)) ?? nil) == nil {
                    findings.append(
                        Finding(
                            .warning, "set.lost-copy", what: "The point's second copy is missing.",
                            place: "\(store.name)/\(second)"))
                }
                return RecoveryPoint(self, file, id, findings: findings)
            } catch {
                guard error.code == .setDamaged || error.code == .storeFailed, first == nil else {
                    throw first ?? error
                }
                first = error
            }
        }
        throw first ?? Fault(.setDamaged, what: "The point cannot be read.", place: store.name, remedy: "")
    }

    /// Reads one copy of a point, from the first place where it is sound.
    func read(_ id: ObjectID, _ name: String) throws(Fault) -> PointFile {
        var passed: Fault?
        return try read(id, name, passed: &passed)
    }

    /// As ``read(_:_:)``; tells what was wrong with the copy in a place that was passed over.
    private func read(_ id: ObjectID, _ name: String, passed: inout Fault?) throws(Fault) -> PointFile {
        for place in store.places {
            do throws(Fault) {
                if let file = try read(id, name, in: place) { return file }
            } catch {
                guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
                passed = passed ?? error
            }
        }
        throw passed
            ?? Fault(
                .setDamaged, what: "The recovery point's file is missing.", place: "\(store.name)/\(name)",
                remedy: "Put the file back from a copy of the set.")
    }

    /// Reads the copy of a point that lies in one of the set's places; `nil` when there is none.
    func read(_ id: ObjectID, _ name: String, in store: any ObjectStore) throws(Fault) -> PointFile? {
        let place = "\(store.name)/\(name)"
        guard let handle = try store.open(name) else { return nil }
        let size = handle.size.bytes
        guard size >= UInt64(PointFile.headerSize) else {
            throw PackStructure.damaged(
                place, at: 0,
                .truncated(field: "point header", at: 0, need: PointFile.headerSize, have: Int(size)))
        }
        let head = try handle.bytes(at: .zero, count: PointFile.headerSize)
        let header: PointFile.Header
        do throws(FieldError) {
            header = try unsafe PointFile.Header(head.span.bytes, fileSize: size)
            guard header.set == set, header.cipher == set.cipher else {
                throw FieldError.invalid(
                    field: "set header", at: 128, seen: "set \(header.set.id.text)", expected: "set \(set.id.text)")
            }
            guard PointFile.id(header.root) == id else {
                throw FieldError.invalid(
                    field: "root hash", at: 32, seen: PointFile.id(header.root).text,
                    expected: "\(id.text), as its name says")
            }
        } catch {
            throw PackStructure.damaged(place, at: 0, error)
        }
        var stored = try handle.bytes(at: ByteCount(UInt64(PointFile.headerSize)), count: header.storedLength)
        guard try Hasher256().hash(stored) == header.stored else {
            throw PackStructure.damaged(
                place, at: UInt64(PointFile.headerSize),
                .invalid(field: "body", at: 0, seen: "another hash", expected: header.stored.text))
        }
        if set.isEncrypted {
            guard keys != nil else {
                throw Fault(
                    .keyNeeded, what: "The set is encrypted, and was opened without its key.", place: place,
                    remedy: "Give the passphrase or key file.")
            }
            let decoder = try RecordDecoder(set, keys)
            guard
                let opened = decoder.opened(
                    stored, salt: header.salt, counter: header.counter, additional: set.id.bytes + header.bound)
            else {
                throw PackStructure.damaged(
                    place, at: UInt64(PointFile.headerSize),
                    .invalid(field: "body", at: 0, seen: "data that do not decrypt", expected: "the point's body"))
            }
            stored = opened
        }
        let body = try Decompressor.body(
            stored, compression: header.compression, plainLength: header.plainLength, place: place,
            at: UInt64(PointFile.headerSize))
        let hash = try Hasher256(keys).id(body)
        do throws(FieldError) {
            guard hash == header.root else {
                throw FieldError.invalid(field: "body", at: 0, seen: "hash \(hash.text)", expected: header.root.text)
            }
            return try PointFile(body: body, set: set)
        } catch {
            throw PackStructure.damaged(place, at: UInt64(PointFile.headerSize), error)
        }
    }
}
