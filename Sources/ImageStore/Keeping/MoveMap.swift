// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Threads

/// All the moves of a set: where to look for records whose packs were removed.
struct MoveMap: Sendable {
    /// Sound tables, by the order of their names.
    private(set) var tables: [(id: ObjectID, file: MovesFile)] = []
    /// Copies that are missing or damaged, by name.
    private(set) var damaged: [(name: String, fault: Fault, place: String?)] = []

    /// Most objects looked at. One is usual; a prune that was interrupted leaves a few.
    static let mostTables = 64
    /// Most records held. Writers stay below half of it.
    static let mostEntries = 1 << 24
    /// Most places looked at on the way of one record.
    private static let mostHops = 64

    init() {}

    /// Reads all moves of the set, each from its first or second copy. `forReading`, a folder that cannot be listed is
    /// among what is damaged; else it is a fault: what is not listed must not be taken for absent.
    init(_ store: any ObjectStore, _ set: SetHeader, forReading: Bool = false) throws(Fault) {
        // A prune puts the new table before it removes the old one: who finds a listed table gone looks again.
        for _ in 0..<5 {
            if try load(store, set, forReading) { return }
        }
    }

    /// False when an object vanished after it was listed.
    private mutating func load(
        _ store: any ObjectStore, _ set: SetHeader, _ forReading: Bool
    ) throws(Fault) -> Bool {
        tables = []
        damaged = []
        var ids: Set<ObjectID> = []
        for folder in [ObjectName.moves, ObjectName.copy(of: ObjectName.moves)] {
            let listing = store.listReadable(folder)
            if !forReading, let fault = listing.faults.first { throw fault }
            damaged += listing.faults.map { (folder, $0, nil) }
            for object in listing.objects {
                if let id = ObjectName.id(object.name, suffix: ".moves") { ids.insert(id) }
            }
        }
        var total = 0
        var complete = true
        for id in ids.sorted().prefix(MoveMap.mostTables) where total < MoveMap.mostEntries {
            try Interruption.check()
            var sound: MovesFile?
            var faults: [(name: String, fault: Fault, place: String?)] = []
            var there = 0
            for name in [ObjectName.moves(id), ObjectName.copy(of: ObjectName.moves(id))] {
                let before = there
                var absent: Fault?
                for place in store.places {
                    do throws(Fault) {
                        let file = try MoveMap.read(place, name, id, set)
                        there += 1
                        sound = sound ?? file
                    } catch {
                        guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
                        // The fault for a file that is missing has no extent.
                        if error.extent == nil, error.code == .setDamaged {
                            absent = absent ?? error
                        } else {
                            there += 1
                            faults.append((name, error, place.name))
                        }
                    }
                }
                if there == before, let absent { faults.append((name, absent, nil)) }
            }
            if there == 0 {
                complete = false
                continue
            }
            damaged += faults
            guard let sound, total + sound.entries.count <= MoveMap.mostEntries else { continue }
            total += sound.entries.count
            tables.append((id, sound))
        }
        return complete
    }

    /// Reads one copy of a table. The fault for a missing one has no extent.
    static func read(
        _ store: any ObjectStore, _ name: String, _ id: ObjectID, _ set: SetHeader
    ) throws(Fault) -> MovesFile {
        let place = "\(store.name)/\(name)"
        guard let handle = try store.open(name) else {
            throw Fault(
                .setDamaged, what: "The file is missing.", place: place,
                remedy: "Put the file back from a copy of the set.")
        }
        let size = handle.size.bytes
        guard size >= UInt64(MovesFile.headerSize) else {
            throw PackStructure.damaged(
                place, at: 0, .truncated(field: "moves header", at: 0, need: MovesFile.headerSize, have: Int(size)))
        }
        let head = try handle.bytes(at: .zero, count: MovesFile.headerSize)
        let header: MovesFile.Header
        do throws(FieldError) {
            header = try unsafe MovesFile.Header(head.span.bytes, fileSize: size)
            guard header.set == set, header.id == id else {
                throw FieldError.invalid(
                    field: "moves id", at: 32, seen: "\(header.id.text) of set \(header.set.id.text)",
                    expected: "\(id.text) of set \(set.id.text)")
            }
        } catch {
            throw PackStructure.damaged(place, at: 0, error)
        }
        let stored = try handle.bytes(at: ByteCount(UInt64(MovesFile.headerSize)), count: header.storedLength)
        guard try Hasher256().hash(stored) == header.stored else {
            throw PackStructure.damaged(
                place, at: UInt64(MovesFile.headerSize),
                .invalid(field: "body", at: 0, seen: "another hash", expected: header.stored.text))
        }
        let body = try Decompressor.body(
            stored, compression: header.compression, plainLength: header.plainLength, place: place,
            at: UInt64(MovesFile.headerSize))
        do throws(FieldError) {
            return try MovesFile(body: body)
        } catch {
            throw PackStructure.damaged(place, at: UInt64(MovesFile.headerSize), error)
        }
    }

    /// Adds tables that were just put.
    mutating func add(_ more: [(id: ObjectID, file: MovesFile)]) { tables += more }
    /// Leaves out a table that was removed.
    mutating func remove(_ id: ObjectID) { tables.removeAll { $0.id == id } }

    /// Whether nothing was ever moved.
    var isEmpty: Bool { tables.isEmpty }

    /// Packs that records of `pack` went to, through any number of moves.
    func targets(of pack: ObjectID) -> Set<ObjectID> {
        var result: Set<ObjectID> = []
        var queue = [pack]
        while let next = queue.popLast() {
            for (_, file) in tables {
                for target in file.targets(of: next) where result.insert(target).inserted { queue.append(target) }
            }
        }
        return result
    }

    /// The place among those the record at `start` went to that `find` accepts; it is asked for each, nearest first.
    /// Tables may contradict each other, or lead in circles: the number of places is bounded.
    func follow<R>(_ start: RecordStart, _ find: (RecordStart) throws(Fault) -> R?) throws(Fault) -> R? {
        var seen: Set<RecordStart> = [start]
        var queue = [start]
        var next = 0
        while next < queue.count {
            for (_, file) in tables {
                guard let target = file.target(of: queue[next]), seen.count <= MoveMap.mostHops,
                    seen.insert(target).inserted
                else { continue }
                if let found = try find(target) { return found }
                queue.append(target)
            }
            next += 1
        }
        return nil
    }
}
