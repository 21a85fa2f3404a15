// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings
import Geometry
import Threads

extension SetKeeper {
    /// Removes packs that no point needs, and moves what is needed out of packs that hold much that is not; see
    /// `docs/image-format.md`, section 11.
    ///
    /// Can be interrupted at any moment and run again. Needs free space for one pack at most, and none to remove packs
    /// nothing needs. While backups run nothing new is removed.
    /// Throws `set.busy` when somebody else does the same, `set.damaged` when a point or list cannot be read so that
    /// nobody knows what it needs, `set.incomplete` when something a point needs is not here, or there is no point at all
    /// (nobody knows then what is needed by points on other media), `key.needed`, `store.full`, `store.failed`,
    /// `interrupted`.
    public func prune(_ options: PruneOptions = PruneOptions(), events: EventHandler? = nil) throws(Fault)
        -> PruneReport
    {
        guard reader.isOpen else {
            throw Fault(
                .keyNeeded, what: "What the points need can only be told with the key of the set.", place: store.name,
                remedy: "Give the passphrase or key file.")
        }
        return try Pruner(store, reader.set, reader.keys, options, events).run()
    }
}

extension FaultCode {
    /// What is here of a set does not tell what of it is needed: a part of it lies elsewhere, or is lost.
    public static let setIncomplete = FaultCode("set.incomplete", exit: .refused)
}

/// One run of prune. Not shared between threads.
private final class Pruner {
    private let store: any ObjectStore
    private let set: SetHeader
    private let keys: SetKeys?
    private let options: PruneOptions
    private let events: EventHandler?
    private let hasher: Hasher256
    private var report = PruneReport()
    private var announcement: HeldAnnouncement?

    private var packs: [ObjectID: PackLiveness] = [:]
    /// Sizes of both copies together, and which packs are about to be removed, as listed.
    private var sizes: [ObjectID: UInt64] = [:]
    private var tombstones: Set<ObjectID> = []
    private var moves = MoveMap()
    /// Packs by number, those that are gone too.
    private var names: [ObjectID] = []
    private var numbers: [ObjectID: UInt32] = [:]
    /// Hints that are out of date, and where their records lie. Pack number and offset / 16 in one word.
    private var stale: [UInt64: UInt64] = [:]
    /// Something was found by searching, so no table says where it lies.
    private var foundBySearching = false
    private var points: Set<ObjectID> = []
    private var pages: Set<UnitID> = []
    private var search: RecordSearch?
    /// A pack with something needed that is nowhere, and the point that needs it.
    private var lost: (pack: ObjectID, point: ObjectID)?

    init(
        _ store: any ObjectStore, _ set: SetHeader, _ keys: SetKeys?, _ options: PruneOptions, _ events: EventHandler?
    ) throws(Fault) {
        self.store = store
        self.set = set
        self.keys = keys
        self.options = options
        self.events = events
        hasher = try Hasher256()
        report.isRehearsal = options.isRehearsal
    }

    func run() throws(Fault) -> PruneReport {
        announcement = options.isRehearsal ? nil : try announce()
        defer { announcement?.end() }
        // A place that was away must know all points before it is used alone again; see `SpanStore`.
        let full = options.isRehearsal ? nil : try completed()
        try look()
        classify()
        guard !options.isRehearsal else { return rehearsed() }

        report.writers = try writers().count
        let dead = packs.values.filter { !$0.isLive }.sorted { $0.id < $1.id }
        var condemned: [PackLiveness] = []
        for pack in dead {
            try stay()
            if report.writers > 0, !tombstones.contains(pack.id) {
                keep(pack, "a backup is running, which may build upon it")
                continue
            }
            if try condemn(pack) { condemned.append(pack) }
        }
        try remove(condemned) { self.report.removed.append($0) }
        if full != nil, let full = try completed() { throw full }
        if announcement == nil { announcement = try announce() }
        try rewriteAll(isAnnounced: announcement != nil)
        // Packs that were about to be removed and turned out to be needed.
        for pack in packs.values.sorted(by: { $0.id < $1.id })
        where pack.isLive && !pack.isRemoved && !pack.isMoved && tombstones.contains(pack.id) {
            try pardon(pack)
        }
        if report.writers == 0, announcement != nil { try consolidate() }
        for id in tombstones.sorted() where packs[id]?.isRemoved ?? true {
            if try store.open(ObjectName.pack(id)) == nil { try store.delete(ObjectName.tombstone(id)) }
        }
        report.findings.sort { ($0.place, $0.what) < ($1.place, $1.what) }
        return report
    }

    /// Brings all places of the set up to date; the fault where one of them has no room for that.
    private func completed() throws(Fault) -> Fault? {
        do throws(Fault) {
            try store.prepare()
            return nil
        } catch {
            guard error.code == .storeFull else { throw error }
            return error
        }
    }

    // MARK: - Who else is there

    /// Announces this run; `nil` where there is no room for that.
    private func announce() throws(Fault) -> HeldAnnouncement? {
        let own: HeldAnnouncement
        do throws(Fault) {
            own = HeldAnnouncement(try store.announce(.pruner), seconds: options.seconds)
        } catch {
            // Then nobody else can announce anything either; who is there already is seen.
            guard error.code == .storeFull else { throw error }
            try refuseOthers(nil)
            return nil
        }
        do throws(Fault) {
            try store.awaitListings()
            try refuseOthers(own.id)
            return own
        } catch {
            own.end()
            throw error
        }
    }

    /// Goes on unless the user wants an end, or somebody took this run for dead. Called all along.
    private func stay() throws(Fault) {
        try Interruption.check()
        try announcement?.keep()
    }

    private func refuseOthers(_ own: String?) throws(Fault) {
        let others = try store.announcements().filter { $0.kind == .pruner && $0.isAlive && $0.id != own }
        guard let other = others.first else { return }
        throw Fault(
            .setBusy,
            what: "Space is being reclaimed in this set already, since \(other.age / 60) minutes or longer.",
            place: store.name,
            remedy: "Wait until the other `relight prune` has ended; what it left undone is done by the next one.")
    }

    private func writers() throws(Fault) -> [Announced] {
        try store.announcements().filter { $0.kind == .writer && $0.isAlive }
    }

    // MARK: - What there is and what is needed

    private func look() throws(Fault) {
        events?(.step("finding out what the recovery points need"))
        for object in try store.list(ObjectName.tombstones) {
            if let id = ObjectName.id(object.name, suffix: ".gone") { tombstones.insert(id) }
        }
        // Packs before points: a pack that is listed is referred to by now, or by a writer that is seen.
        for folder in [ObjectName.packs, ObjectName.copy(of: ObjectName.packs)] {
            for object in try store.list(folder) {
                guard let id = ObjectName.id(object.name, suffix: ".pack") else { continue }
                // Lists may be late about what was removed.
                guard try store.open(object.name) != nil else { continue }
                sizes[id, default: 0] += object.size.bytes
            }
        }
        for id in sizes.keys.sorted() {
            try stay()
            _ = try pack(id)
        }
        moves = try MoveMap(store, set)
        try markPoints()
        guard !points.isEmpty || packs.isEmpty || options.allPointsForgotten else {
            throw Fault(
                .setIncomplete,
                what:
                    "There \(packs.count == 1 ? "is 1 pack" : "are \(packs.count) packs") here, but no recovery point. "
                    + "The points that need what is here may lie on another medium of the set, so nothing is removed.",
                place: store.name,
                remedy: "Attach the other medium and name it with --also PLACE. If all recovery points of the set were "
                    + "removed, or none was ever finished, add --all-points-forgotten.")
        }
    }

    /// What is known of the pack `id`; `nil` when it is gone.
    private func pack(_ id: ObjectID) throws(Fault) -> PackLiveness? {
        if let known = packs[id] { return known.isRemoved ? nil : known }
        var size = sizes[id] ?? 0
        if size == 0 {
            for name in [ObjectName.pack(id), ObjectName.copy(of: ObjectName.pack(id))] {
                size += try store.open(name)?.size.bytes ?? 0
            }
            guard size > 0 else { return nil }
        }
        let pack = try PackLiveness.read(store, id, set, size: size, hasher: hasher)
        packs[id] = pack
        return pack
    }

    /// Marks what points need that were not looked at before.
    private func markPoints() throws(Fault) {
        // A reader of its own: what it holds open is let go of before anything is removed.
        let reader = try SetReader(store) { (_) in keys }
        for id in try reader.ids() where !points.contains(id) {
            try stay()
            let point: RecoveryPoint
            do throws(Fault) {
                point = try reader.load(id)
            } catch {
                let name = ObjectName.point(id)
                if try store.open(name) == nil, try store.open(ObjectName.copy(of: name)) == nil { continue }
                throw unknown(error, id)
            }
            do throws(Fault) {
                let decoder = try PieceDecoder(point)
                for stream in point.streams {
                    for (number, reference) in stream.stored.pages {
                        try mark(reference.place, reference.hash, 0, id)
                        // Its page is lost: what that names is not known.
                        if lost != nil { throw incomplete() }
                        guard pages.insert(reference.hash).inserted else { continue }
                        try stay()
                        for run in try decoder.page(reference, number: number, of: stream) {
                            guard let unit = run.ids.first else { continue }
                            try mark(run.place, unit, run.firstInFrame, id)
                        }
                    }
                }
            } catch {
                throw unknown(error, id)
            }
            points.insert(id)
        }
        report.points = points.count
        if lost != nil { throw incomplete() }
    }

    private func incomplete() -> Fault {
        let (pack, point) = (lost?.pack.text ?? "", lost?.point.text ?? "")
        return Fault(
            .setIncomplete,
            what:
                "The recovery point \(point) needs the pack \(pack), which is neither here nor in any other pack. It may "
                + "lie on another medium of the set, so nothing is removed.", place: store.name,
            remedy:
                "Attach the other medium and name it with --also PLACE. If the pack is lost for good, put it back from a "
                + "copy of the set, or remove the points that need it (`relight verify` names them): `relight forget`.")
    }

    private func unknown(_ fault: Fault, _ point: ObjectID) -> Fault {
        guard fault.code == .setDamaged else { return fault }
        return Fault(
            .setDamaged,
            what: "What the recovery point \(point.text) needs cannot be told, so nothing is removed: \(fault.what)",
            place: fault.place,
            remedy: "Run `relight repair`, or put the file back from a copy of the set; or remove the point: "
                + "`relight forget` with its full id.")
    }

    /// Marks the record a hint means, wherever it lies now.
    private func mark(_ hint: RecordPlace, _ id: UnitID, _ index: Int, _ point: ObjectID) throws(Fault) {
        let start = RecordStart(pack: hint.pack, offset: hint.offset)
        var place: RecordStart?
        if let pack = try pack(hint.pack), pack.holds(hint.offset, length: hint.length) { place = start }
        if !moves.isEmpty {
            // The last place there is: a prune that was interrupted leaves records in both.
            var seen: Set<RecordStart> = [start]
            var from = start
            while let next = try moves.follow(
                from,
                { (target) throws(Fault) -> RecordStart? in
                    guard !seen.contains(target), let pack = try self.pack(target.pack),
                        pack.holds(target.offset, length: hint.length)
                    else { return nil }
                    return target
                }), seen.insert(next).inserted
            {
                place = next
                from = next
            }
        }
        if place == nil, let pack = try pack(hint.pack) {
            // Something else lies there than the point means: it is damaged, and left alone.
            pack.mark(hint.offset)
            return
        }
        if place == nil {
            place = try searched(hint, id, index)
            if place != nil { foundBySearching = true }
        }
        guard let place, let pack = try pack(place.pack) else {
            lost = lost ?? (hint.pack, point)
            return
        }
        pack.mark(place.offset)
        if place != start { stale[key(start)] = key(place) }
    }

    private func searched(_ hint: RecordPlace, _ id: UnitID, _ index: Int) throws(Fault) -> RecordStart? {
        if search == nil { search = try RecordSearch(store, set) }
        for start in search?.candidates(id, index: index) ?? [] {
            guard let pack = try pack(start.pack), pack.holds(start.offset, length: hint.length),
                let handle = try open(start.pack),
                let head = try? handle.bytes(
                    at: ByteCount(UInt64(start.offset)),
                    count: min(hint.length, RecordHeader.fixedSize + RecordHeader.maximumIDs * UnitID.size)),
                let record = try? unsafe RecordHeader(head.span.bytes, at: 0, unitSize: set.unitSize),
                index < record.ids.count, record.ids[index] == id
            else { continue }
            return start
        }
        return nil
    }

    private func open(_ id: ObjectID) throws(Fault) -> (any ObjectHandle)? {
        let name = ObjectName.pack(id)
        if let first = try store.open(name) { return first }
        return try store.open(ObjectName.copy(of: name))
    }

    private func number(_ id: ObjectID) -> UInt32 {
        if let known = numbers[id] { return known }
        let new = UInt32(truncatingIfNeeded: names.count)
        names.append(id)
        numbers[id] = new
        return new
    }

    private func key(_ start: RecordStart) -> UInt64 {
        UInt64(number(start.pack)) << 32 | UInt64(start.offset / RecordHeader.alignment)
    }

    // MARK: - What is to be done

    private func classify() {
        report.packs = packs.count
        for pack in packs.values {
            report.stored += ByteCount(pack.size)
            report.garbage += ByteCount(pack.garbage)
        }
    }

    /// Packs whose rewriting is worth it, those with the largest share of garbage first.
    private func candidates() -> [PackLiveness] {
        let percent = UInt64(min(max(options.garbagePercent, 1), 100))
        return packs.values.filter { pack in
            guard pack.isLive, !pack.mustStay, !pack.isRemoved, !pack.isMoved else { return false }
            let garbage = pack.recordBytes - min(pack.recordBytes, pack.liveBytes)
            return garbage > 0 && garbage >= options.leastGarbage.bytes
                && garbage * 100 >= pack.recordBytes * percent
        }.sorted { left, right in
            let shares = (Double(left.garbage) / Double(left.size), Double(right.garbage) / Double(right.size))
            return shares.0 != shares.1 ? shares.0 > shares.1 : left.id < right.id
        }
    }

    private func describe(_ pack: PackLiveness, _ reason: String = "") -> PruneReport.Pack {
        PruneReport.Pack(
            name: ObjectName.pack(pack.id), size: ByteCount(pack.size), garbage: ByteCount(pack.garbage), reason: reason
        )
    }

    private func keep(_ pack: PackLiveness, _ reason: String) { report.kept.append(describe(pack, reason)) }

    private func rehearsed() -> PruneReport {
        // Who is at work is not asked: that removes what the dead left behind.
        for pack in packs.values.sorted(by: { $0.id < $1.id }) where !pack.isLive {
            report.removed.append(describe(pack))
            report.freed += ByteCount(pack.size)
        }
        for pack in candidates() {
            report.rewritten.append(describe(pack))
            report.moved += ByteCount(pack.liveBytes)
            report.freed += ByteCount(pack.garbage)
        }
        noteSpoiled()
        return report
    }

    private func noteSpoiled() {
        for pack in packs.values.sorted(by: { $0.id < $1.id })
        where pack.isLive && pack.mustStay && pack.garbage > 0 && !pack.isRemoved
            && !report.kept.contains(where: { $0.name == ObjectName.pack(pack.id) })
        {
            keep(pack, "it is damaged; run `relight verify`")
        }
    }

    // MARK: - Removing

    /// Puts the tombstone of a pack. False when the pack was removed at once, or stays.
    private func condemn(_ pack: PackLiveness) throws(Fault) -> Bool {
        guard !tombstones.contains(pack.id) else { return true }
        do throws(Fault) {
            try store.put(ObjectName.tombstone(pack.id), [])
            tombstones.insert(pack.id)
            return true
        } catch {
            guard error.code == .storeFull else { throw error }
        }
        // There is no room for an empty object, so none for a recovery point: what no point refers to when all are
        // listed once more, with nobody at work, cannot be referred to before something is removed.
        guard try writers().isEmpty else {
            keep(pack, "the medium is full, and a backup is running, which may build upon it")
            return false
        }
        try store.awaitListings()
        try markPoints()
        guard !pack.isLive else { return false }
        try delete(pack)
        report.removed.append(describe(pack))
        return false
    }

    /// Takes the tombstone of a pack that is needed away; of a damaged one it stays, so that no backup builds upon it.
    private func pardon(_ pack: PackLiveness) throws(Fault) {
        if try isDamaged(pack.id) {
            keep(pack, "points need what is sound in it, and it is damaged: no backup builds upon it")
            return
        }
        try store.delete(ObjectName.tombstone(pack.id))
        tombstones.remove(pack.id)
    }

    /// Removes packs that have a tombstone and nothing needs.
    private func remove(_ condemned: [PackLiveness], _ done: (PruneReport.Pack) -> Void) throws(Fault) {
        guard !condemned.isEmpty else { return }
        try store.awaitListings()
        let writers = try self.writers().count
        report.writers = max(report.writers, writers)
        var old: Set<ObjectID> = []
        if writers > 0 {
            let now = try store.clock()
            for object in try store.list(ObjectName.tombstones) {
                guard let id = ObjectName.id(object.name, suffix: ".gone"), object.modified > 0,
                    now > object.modified, now - object.modified > options.grace
                else { continue }
                old.insert(id)
            }
        }
        // Who ended before the look above has put its point before that: after this it is in the lists.
        try store.awaitListings()
        try markPoints()
        for pack in condemned {
            try stay()
            if pack.isLive {
                try pardon(pack)
                keep(pack, "a backup that ended meanwhile needs it")
            } else if writers > 0, !old.contains(pack.id) {
                keep(pack, "a backup is running, which may refer to it; a later run removes it")
            } else {
                let description = describe(pack)
                try delete(pack)
                done(description)
            }
        }
    }

    /// Whether every copy of the pack is damaged. Reads all of it.
    private func isDamaged(_ id: ObjectID) throws(Fault) -> Bool {
        events?(.step("reading \(ObjectName.pack(id)), which is marked and needed"))
        for name in [ObjectName.pack(id), ObjectName.copy(of: ObjectName.pack(id))] {
            guard let handle = try store.open(name) else { continue }
            if try PackRepair(store, set, name: name, id: id, reference: nil).problem(handle) == nil { return false }
        }
        return true
    }

    private func delete(_ pack: PackLiveness) throws(Fault) {
        let name = ObjectName.pack(pack.id)
        events?(.step("removing \(name)"))
        try store.delete(ObjectName.copy(of: name))
        try store.delete(name)
        pack.isRemoved = true
        report.freed += ByteCount(pack.size)
        try store.delete(ObjectName.tombstone(pack.id))
        tombstones.remove(pack.id)
    }

    // MARK: - Rewriting

    private func rewriteAll(isAnnounced: Bool) throws(Fault) {
        let most = min(store.maximumObjectSize?.bytes ?? .max, 0xFFFF_FFFF)
        let limit = min(max(options.packSize.bytes, 1 << 20), most)
        var written: UInt64 = 0
        /// With less room than for one pack, packs go one by one: each that went makes room for the next. One with as
        /// much as this in it did not fit.
        var tooMuch = UInt64.max
        var isCleared = false
        while true {
            try stay()
            let all = self.candidates()
            guard isAnnounced else {
                // Somebody else who reclaims space would take the new packs for dead.
                for pack in all { keep(pack, "there is no room to announce that records are moved") }
                break
            }
            let candidates = all.filter { $0.liveBytes < tooMuch }
            guard let first = candidates.first else {
                for pack in all {
                    keep(
                        pack,
                        "there is no room for \(ByteCount(pack.liveBytes)) of records that have to be moved first")
                }
                break
            }
            report.writers = try writers().count
            guard report.writers == 0 else {
                for pack in candidates { keep(pack, "a backup is running, which may build upon it") }
                break
            }
            guard stale.count < MoveMap.mostEntries / 4 else {
                report.findings.append(
                    Finding(
                        .warning, "set.moves-full",
                        what:
                            "So many records were moved already that no more are; a new backup of each machine helps.",
                        place: store.name))
                for pack in candidates { keep(pack, "too many records were moved already") }
                break
            }
            // What fits into one pack, with its footer and parity, is rewritten together.
            var batch: [PackLiveness] = []
            var total: UInt64 = 0
            let room = limit / 100 * UInt64(max(40, 95 - Int(set.parity)))
            for pack in candidates where pack.kind == first.kind {
                guard batch.isEmpty || tooMuch == .max && total + pack.liveBytes <= room else { continue }
                batch.append(pack)
                total += pack.liveBytes
            }
            do throws(Fault) {
                try rewrite(batch, limit: Int(limit), &written)
                // There is more room than before, if less than the batch had.
                if tooMuch != .max { tooMuch = .max - 1 }
            } catch {
                guard error.code == .storeFull else { throw error }
                if !isCleared {
                    isCleared = true
                    if try removeLeftovers() { continue }
                }
                tooMuch = batch.count > 1 ? .max - 1 : total
            }
        }
        report.freed = ByteCount(report.freed.bytes - min(report.freed.bytes, written))
        noteSpoiled()
    }

    /// Removes what killed runs left unfinished; false when there is nothing. A backup would take over what is sound in it,
    /// and has to store that again.
    private func removeLeftovers() throws(Fault) -> Bool {
        guard try writers().isEmpty else { return false }
        var isAny = false
        for leftover in try store.leftovers() {
            guard try leftover.sharers().isEmpty else { continue }
            isAny = true
            events?(.step("removing \(leftover.name), which a killed run left unfinished (\(leftover.size))"))
            try leftover.remove()
        }
        return isAny
    }

    /// Copies what is needed of `batch` into new packs, and removes the old ones.
    private func rewrite(_ batch: [PackLiveness], limit: Int, _ written: inout UInt64) throws(Fault) {
        let kind = batch[0].kind
        let total = ByteCount(batch.reduce(0) { $0 + $1.liveBytes })
        events?(.step("moving \(total) out of \(batch.count) \(batch.count == 1 ? "pack" : "packs")"))
        let writer = PackWriter(
            store: store, set: set, kind: kind, limit: limit, twice: kind == .lists, packs: PackTable())
        var moved: [(old: RecordStart, new: RecordStart)] = []
        var finished: [PackWriter.Sealed] = []
        do throws(Fault) {
            let decoder = try RecordDecoder(set, keys)
            let buffer = ByteBuffer(RecordHeader.maximumSize)
            var done = ByteCount.zero
            for pack in batch {
                guard try copy(pack, to: writer, decoder, buffer, &moved, &done, total) else {
                    pack.isSpoiled = true
                    writer.abandon()
                    try takeBack(writer.finish(hasher), &written)
                    return
                }
            }
            finished = try writer.finish(hasher)
            try readBack(finished)
        } catch {
            writer.abandon()
            if error.code != .interrupted { discard(finished) }
            throw error
        }
        for sealed in finished {
            written += sealed.reference.size * (kind == .lists ? 2 : 1)
            _ = try self.pack(sealed.reference.id)
        }
        // All that is said now, with these on top.
        var table = stale
        var targets: [UInt64: UInt64] = [:]
        for (old, new) in moved { targets[key(old)] = key(new) }
        for (hint, place) in table { if let target = targets[place] { table[hint] = target } }
        table.merge(targets) { (_, new) in new }
        let before = moves.tables.map(\.id)
        let put: [(id: ObjectID, file: MovesFile)]
        do throws(Fault) {
            put = try putMoves(table)
        } catch {
            // Nothing says where the records went, so the new packs only take room.
            if error.code == .storeFull { try takeBack(finished, &written) }
            throw error
        }
        stale = table
        for (_, new) in moved { try self.pack(new.pack)?.mark(new.offset) }
        for pack in batch {
            pack.isMoved = true
            pack.clear()
        }
        moves.add(put)
        report.moved += total
        report.writers = try writers().count
        guard report.writers == 0 else {
            // With the records in both places the backup may build upon either. Nothing needs the old packs after it.
            for pack in batch { keep(pack, "a backup began meanwhile, which may build upon it") }
            return
        }
        // Whoever took this run for dead took its packs for dead too.
        for sealed in finished
        where try store.open(ObjectName.pack(sealed.reference.id))?.size.bytes != sealed.reference.size {
            throw .leftForDead(store.name)
        }
        var condemned: [PackLiveness] = []
        for pack in batch where try condemn(pack) { condemned.append(pack) }
        try remove(condemned) { self.report.rewritten.append($0) }
        // A point that came meanwhile may need a hint the new table does not have.
        if stale.count == table.count { try removeMoves(before) }
    }

    /// Copies the needed records of `pack`; false when one of them is damaged.
    private func copy(
        _ pack: PackLiveness, to writer: PackWriter, _ decoder: RecordDecoder, _ buffer: ByteBuffer,
        _ moved: inout [(old: RecordStart, new: RecordStart)], _ done: inout ByteCount, _ total: ByteCount
    ) throws(Fault) -> Bool {
        let name = ObjectName.pack(pack.id)
        let handles = [try store.open(name), try store.open(ObjectName.copy(of: name))].compactMap { $0 }
        for (offset, length) in pack.records {
            try stay()
            guard length <= buffer.count else { return false }
            var place: RecordStart?
            for handle in handles where place == nil {
                guard (try? handle.read(at: UInt64(offset), length, into: buffer)) != nil else { continue }
                let span = unsafe RawSpan(_unsafeBytes: buffer.bytes(0..<length))
                guard let record = try? RecordHeader(span, at: 0, unitSize: set.unitSize), record.totalSize == length,
                    record.kind == (pack.kind == .data ? .frame : .page)
                else { continue }
                let payload = unsafe buffer.bytes(record.headSize..<record.headSize + record.storedLength)
                guard try unsafe decoder.isSound(record, payload) else { continue }
                let new = try unsafe writer.append(record, payload, hasher: hasher)
                place = RecordStart(pack: new.pack, offset: new.offset)
            }
            guard let place else { return false }
            moved.append((RecordStart(pack: pack.id, offset: offset), place))
            done += ByteCount(UInt64(length))
            events?(.progress(Progress(phase: "moving", done: done, total: total)))
        }
        return true
    }

    /// Marks new packs that are not to be used. A backup may refer to them already: a later run looks whether one does.
    private func discard(_ packs: [PackWriter.Sealed]) {
        for pack in packs { try? store.put(ObjectName.tombstone(pack.reference.id), []) }
    }

    /// Removes new packs that are of no use, as all others are removed.
    private func takeBack(_ packs: [PackWriter.Sealed], _ written: inout UInt64) throws(Fault) {
        var condemned: [PackLiveness] = []
        for sealed in packs {
            guard let pack = try pack(sealed.reference.id) else { continue }
            written += pack.size
            if try condemn(pack) { condemned.append(pack) }
        }
        try remove(condemned) { (_) in }
    }

    /// Compares new packs, as the medium gives them back, with the hashes made before they were written.
    private func readBack(_ finished: [PackWriter.Sealed]) throws(Fault) {
        let buffer = ByteBuffer(PackFooter.segmentSize)
        for pack in finished {
            let first = ObjectName.pack(pack.reference.id)
            let second = ObjectName.copy(of: first)
            for name in try store.open(second) == nil ? [first] : [first, second] {
                guard let handle = try store.open(name), handle.size.bytes == pack.reference.size else {
                    throw store.notKept(name)
                }
                handle.dropCaches()
                guard
                    let structure = try? PackStructure.read(
                        handle, name: name, id: pack.reference.id, set: set, hasher: hasher),
                    structure.footer.digest == pack.reference.footer
                else { throw store.notKept(name) }
                for (index, hash) in structure.footer.segments.enumerated() {
                    try stay()
                    let offset = index * PackFooter.segmentSize
                    let count = min(PackFooter.segmentSize, structure.footer.offset - offset)
                    try handle.read(at: UInt64(offset), count, into: buffer)
                    guard try unsafe hasher.segment(buffer.bytes(0..<count)) == hash else { throw store.notKept(name) }
                }
            }
        }
    }

    // MARK: - Moves

    /// Puts tables that say all of `table`.
    private func putMoves(_ table: [UInt64: UInt64]) throws(Fault) -> [(id: ObjectID, file: MovesFile)] {
        var all = table.map { old, new in
            MovesFile.Move(
                oldPack: UInt32(truncatingIfNeeded: old >> 32), old: UInt32(truncatingIfNeeded: old),
                newPack: UInt32(truncatingIfNeeded: new >> 32), new: UInt32(truncatingIfNeeded: new))
        }[...]
        var result: [(id: ObjectID, file: MovesFile)] = []
        while !all.isEmpty {
            let file = MovesFile(all.prefix(MovesFile.maximumEntries), names: names)
            all = all.dropFirst(MovesFile.maximumEntries)
            let id = ObjectID.random()
            let bytes = try file.bytes(set, id: id)
            try store.put(ObjectName.moves(id), bytes)
            try store.putCopy(ObjectName.copy(of: ObjectName.moves(id)), bytes)
            result.append((id, file))
        }
        return result
    }

    private func removeMoves(_ ids: [ObjectID]) throws(Fault) {
        for id in ids {
            try store.delete(ObjectName.copy(of: ObjectName.moves(id)))
            try store.delete(ObjectName.moves(id))
            moves.remove(id)
        }
    }

    /// Leaves one table, of what points need.
    private func consolidate() throws(Fault) {
        let said = moves.tables.reduce(0) { $0 + $1.file.entries.count }
        let isTidy =
            moves.tables.count <= 1 + stale.count / MovesFile.maximumEntries && said == stale.count
            && !foundBySearching
        guard !isTidy else { return }
        let before = moves.tables.map(\.id)
        do throws(Fault) {
            moves.add(try putMoves(stale))
        } catch {
            guard error.code == .storeFull else { throw error }
            return
        }
        if !before.isEmpty { try store.awaitListings() }
        try removeMoves(before)
    }
}
