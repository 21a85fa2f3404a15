// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Synchronization
import Threads

/// Makes one recovery point: takes the units of its streams from any number of threads, stores what the set does not
/// hold yet, and seals the point as the last step.
///
///     let writer = try SetWriter(store, options: .init())
///     let stream = try writer.beginStream(description)
///     // on each of N threads:
///     let worker = try UnitWorker(writer)
///     while let piece = stream.nextPiece() { read its used areas; try worker.add(piece, of: stream, &bytes) }
///     // when all threads have ended:
///     let point = try writer.commit(facts, readBack: true, threads: N)
///
/// Until ``commit(_:readBack:threads:events:)`` returns there is no new point, whatever happens; points made before are
/// never touched.
public final class SetWriter: Sendable {
    /// How to write.
    public struct Options: Sendable {
        /// How hard to compress new data.
        public var compression: Compression
        /// Size no pack exceeds: 1 MiB ... 4 GiB − 1; the store may allow less.
        public var packSize: ByteCount
        /// Memory for the table of what the set holds: 16 bytes a unit, at most four fifths in use. Past it deduplication
        /// degrades.
        public var indexMemory: ByteCount
        /// Unit size of a set that is made now: 64 KiB or 16 KiB. A set that exists keeps its own.
        public var unitSize: ByteCount
        /// Seconds since 1970, noted in a set that is made now.
        public var time: UInt64
        /// Encrypts a set that is made now; `nil` does not. A set that exists stays as it is.
        public var encryption: NewEncryption?
        /// Parity that is added to each pack of a set that is made now: 0 ... 50 percent.
        public var parity = 0
        /// A clock nobody sets, in seconds; tests have their own.
        var seconds: @Sendable () -> Int = { Renewals.now }
        /// How many bits of an id the table keeps; tests keep few, so that they collide.
        var prefixBits = 64
        /// What a set that is made now is made of, instead of new constants and keys. A set that exists and is the same
        /// one is opened with its keys.
        var replica: SetReplica?
        /// Size no pack of lists exceeds, where that is less than ``packSize``.
        var listSize: ByteCount?

        /// The defaults: Zstandard level 1, packs of 1 GiB, 256 MiB of index, units of 64 KiB.
        public init(
            compression: Compression = .standard, packSize: ByteCount = .gibibytes(1),
            indexMemory: ByteCount = .mebibytes(256), unitSize: ByteCount = .kibibytes(64), time: UInt64 = 0,
            encryption: NewEncryption? = nil, parity: Int = 0
        ) {
            self.encryption = encryption
            self.parity = parity
            self.compression = compression
            self.packSize = packSize
            self.indexMemory = indexMemory
            self.unitSize = unitSize
            self.time = time
        }
    }

    /// What was done so far.
    public struct Statistics: Hashable, Sendable {
        /// Used bytes given to the writer.
        public var read = ByteCount.zero
        /// Used bytes that were taken over from an earlier point without being read.
        public var skipped = ByteCount.zero
        /// Bytes of units that hold only zeros, or no used byte; never stored.
        public var zero = ByteCount.zero
        /// Bytes of units that were new to the set.
        public var new = ByteCount.zero
        /// Bytes of units the set held already.
        public var shared = ByteCount.zero
        /// Bytes written for new units, compressed, with their heads.
        public var stored = ByteCount.zero
    }

    let options: Options
    let set: SetHeader
    let keys: SetKeys?
    let session = WriteSession()
    let index: UnitIndex
    let data: PackWriter
    let lists: PackWriter
    let pages: UnitIndex
    let packs: PackTable
    let contents: ContentsShelf
    private let store: any ObjectStore
    /// Tells those who reclaim space that packs may be referred to which no point refers to yet.
    private let announcement: HeldAnnouncement
    private let state = Mutex(State())
    private let statisticsState = Mutex(Statistics())
    private let failed = Mutex<Fault?>(nil)

    private struct State {
        var streams: [StreamWriter] = []
        /// Packs the point refers to, by number.
        var referenced: Set<UInt32> = []
        var committed = false
        var findings: [Finding] = []
    }

    /// Opens the set in `store` for a new point, or makes a set there when the place is empty or missing.
    ///
    /// Reads the lists of all packs into memory. What an interrupted backup left unfinished is taken over where its
    /// records are sound. `ring` is asked for the secret of an encrypted set,
    /// `newKeys` (or else `ring`) for that of one that is made now.
    /// Throws `set.not-a-set`, `set.version`, `set.damaged`, `store.full`, `store.failed`, `key.needed`, `key.wrong`.
    public init(
        _ store: any ObjectStore, options: Options = Options(), keys ring: KeyRing = .none, newKeys: KeyRing? = nil,
        events: EventHandler = { _ in }
    ) throws(Fault) {
        let found = try SetWriter.look(store, options)
        try store.prepare()
        // Before the first look at what the set holds.
        announcement = HeldAnnouncement(try store.announce(.writer), seconds: options.seconds)
        // Announcements of runs that were killed go away by being looked at.
        _ = try? store.announcements()
        (set, keys) = try SetWriter.openOrMake(store, found, options, ring, newKeys ?? ring)
        let least = ByteCount.mebibytes(1)
        let most = min(store.maximumObjectSize ?? ByteCount(0xFFFF_FFFF), ByteCount(0xFFFF_FFFF))
        let limit = min(max(options.packSize, least), most).int ?? 1 << 30

        self.store = store
        self.options = options
        let memory = options.indexMemory.int ?? 256 << 20
        let packs = PackTable()
        self.packs = packs
        index = UnitIndex(memory: memory, prefixBits: options.prefixBits)
        pages = UnitIndex(memory: memory / 16, prefixBits: options.prefixBits)
        contents = ContentsShelf(store: store, set: set)
        data = PackWriter(store: store, set: set, kind: .data, limit: limit, twice: false, packs: packs)
        lists = PackWriter(
            store: store, set: set, kind: .lists, limit: min(limit, options.listSize?.int ?? limit),
            twice: SafetyRules.keep(.secondCopies), packs: packs)
        // Before the packs: one whose place another file has too is not built upon.
        var shared: Set<String> = []
        var left: [any ObjectLeftover] = []
        for leftover in try store.leftovers() {
            let names = try leftover.sharers()
            guard !names.isEmpty else {
                left.append(leftover)
                continue
            }
            shared.formUnion(names)
            events(.finding(SetWriter.sharedPlace(leftover.name, names, "\(store.name)/\(leftover.name)")))
        }
        for finding in try SetWriter.load(store, set, packs, index, pages, shared) { events(.finding(finding)) }
        try SetWriter.mendPoints(store, keys)
        if set.isEncrypted { try KeySlots(store, set).mend(store) }
        try SetWriter.mendMoves(store, set)
        try takeOver(left, events)
    }

    /// The set's id: 32 hexadecimal digits.
    public var setID: String { self.set.id.text }

    /// What was done so far.
    public var statistics: Statistics { statisticsState.withLock { $0 } }

    /// What was noticed since the set was opened: packs that can no longer be read, a look-up table that is full.
    public var findings: [Finding] {
        state.withLock { $0.findings }
            + (index.isFull || pages.isFull ? [SetWriter.indexFull(options.indexMemory)] : [])
    }

    /// A reader of the set that is written to.
    public func reader() throws(Fault) -> SetReader { try SetReader(store) { (_) in keys } }

    /// Adds a stream to the point. Throws `unsupported` for a description that cannot be stored.
    ///
    /// - Parameter parent: a stream of an earlier point of this set, of the same volume as far as is known. What has not
    ///   changed is then found without a look-up. A wrong choice costs time, nothing else.
    public func beginStream(
        _ description: StreamDescription, parent: PointStream? = nil
    ) throws(Fault) -> StreamWriter {
        guard description.length <= PointFile.maximumLength, description.extent.start <= PointFile.maximumLength,
            description.used.end <= description.length, description.disk >= 0, description.disk < 65_536
        else {
            throw Fault(
                .unsupported,
                what: "A stream of \(description.length) with a used map that ends at "
                    + "\(description.used.end.bytes) cannot be stored.",
                remedy: "This is an error in the program: please report it.")
        }
        var description = description
        // Half of what is left, so that there is always room for the next.
        let used = state.withLock { $0.streams.reduce(0) { $0 + $1.description.used.extents.count } }
        description.used = SetWriter.coarser(
            description.used, runs: min(RunList.maximum, max(1, (PointFile.maximumUsedRuns - used) / 2)),
            description.length)
        var compared: ParentStream?
        if let parent {
            compared = try ParentStream(parent, for: description, set: set, packs: packs) { [weak self] in
                self?.note($0)
            }
        }
        let stream = StreamWriter(description, writer: self, parent: compared)
        return try state.withLock { (state: inout State) throws(Fault) -> StreamWriter in
            guard state.streams.count < PointFile.maximumStreams else {
                throw Fault(
                    .unsupported, what: "A recovery point holds at most \(PointFile.maximumStreams) volumes.",
                    remedy: "Image fewer disks into one point.")
            }
            state.streams.append(stream)
            return stream
        }
    }

    /// The list widened until it has at most `runs` runs.
    static func coarser(_ list: ExtentList, runs: Int, _ length: ByteCount) -> ExtentList {
        var result = list
        var grain = ByteCount.kibibytes(4)
        while result.extents.count > runs {
            result = result.widened(to: grain, limit: length)
            grain = ByteCount(grain.bytes * 4)
        }
        return result
    }

    /// Seals the packs, reads them back from the medium when asked, and seals the point: the only moment it begins to
    /// exist. All workers must have ended.
    ///
    /// - Parameters:
    ///   - facts: what the point tells about the machine.
    ///   - number: the point's number in its set; `nil` for the next.
    ///   - readBack: compare everything this run wrote with its hashes, with caches dropped.
    ///   - threads: how many threads read back.
    /// - Throws: `store.full`, `store.failed`, `interrupted`; the point then does not exist.
    public func commit(
        _ facts: PointFacts, number: UInt64? = nil, readBack: Bool = true, threads: Int = 2,
        events: EventHandler? = nil
    ) throws(Fault) -> PointSummary {
        try requireHealthy()
        let streams = try state.withLock { (state: inout State) throws(Fault) -> [StreamWriter] in
            guard !state.committed else { throw SetWriter.misuse }
            state.committed = true
            return state.streams
        }
        do throws(Fault) {
            let hasher = try Hasher256()
            var stored: [StoredStream] = []
            for stream in streams {
                stored.append(
                    try stream.stored(unreadableRuns: PointFile.maximumUnreadableRuns / max(1, streams.count)))
                guard stream.description.disk < facts.disks.count else { throw SetWriter.misuse }
            }
            let finished = try data.finish(hasher) + lists.finish(hasher)
            if readBack, SafetyRules.keep(.readBack) {
                let outcome = try self.readBack(finished, threads: threads, events: events)
                if let fault = outcome.fault {
                    condemn(outcome.wrong)
                    throw fault
                }
            }
            let references = try self.references()
            let given: UInt64
            if let number { given = number } else { given = try nextNumber() }
            let file = PointFile(
                set: set, number: given, facts: facts, packs: references, streams: stored)
            let (bytes, id) = try file.sealed(
                Hasher256(keys), RecordSealer(set, keys, session, options.compression))
            // This makes the point exist; its second copy follows.
            try store.put(ObjectName.point(id), bytes)
            if SafetyRules.keep(.secondCopies) {
                do throws(Fault) {
                    try store.putCopy(ObjectName.copy(of: ObjectName.point(id)), bytes)
                } catch {
                    // The point exists and is complete: whoever was told otherwise would be told wrong.
                    note(SetWriter.noSecondCopy(error, "\(store.name)/\(ObjectName.copy(of: ObjectName.point(id)))"))
                }
            }
            try requireKept(references, id)
            announcement.end()
            for finding in findings { events?(.finding(finding)) }
            return file.summary(id)
        } catch {
            announcement.end()
            markFailed(error)
            throw error
        }
    }

    /// Ends without a point. What was stored completely is kept, so that the next backup need not store it again.
    public func abandon() {
        defer { announcement.end() }
        let open = state.withLock { state in
            defer { state.committed = true }
            return !state.committed
        }
        if open, failed.withLock({ $0 }) == nil, let hasher = try? Hasher256(), (try? data.finish(hasher)) != nil {
            lists.abandon()
            return
        }
        data.abandon()
        lists.abandon()
    }

    // MARK: - For workers

    /// Throws the fault that ended the backup on another thread: every thread then names the same cause. Called for each
    /// piece, it also tells others that the backup still runs.
    func requireHealthy() throws(Fault) {
        if let first = failed.withLock({ $0 }) { throw first }
        do throws(Fault) { try announcement.keep() } catch {
            markFailed(error)
            throw error
        }
    }

    /// Notes the first fault; the writer is of no more use.
    func markFailed(_ fault: Fault) { failed.withLock { if $0 == nil { $0 = fault } } }

    /// Notes what is worth telling and does not end the backup.
    func note(_ finding: Finding) { state.withLock { $0.findings.append(finding) } }

    func count(read: UInt64, skipped: UInt64, zero: UInt64, new: UInt64, shared: UInt64, stored: UInt64) {
        statisticsState.withLock { sums in
            sums.read += ByteCount(read)
            sums.skipped += ByteCount(skipped)
            sums.zero += ByteCount(zero)
            sums.new += ByteCount(new)
            sums.shared += ByteCount(shared)
            sums.stored += ByteCount(stored)
        }
    }

    /// Stores a page, unless the set holds the same one already; `nil` when nothing in it is stored. `before` is the page
    /// of the stream's parent at the same place.
    func store(
        page units: [StoredUnit?], before: PageReference?, worker: UnitWorker
    ) throws(Fault) -> PageReference? {
        var runs: [PageRun] = []
        var last: UnitPlace?
        var used: Set<UInt32> = []
        for (position, unit) in units.enumerated() {
            guard let unit else {
                last = nil
                continue
            }
            if let before = last, before.pack == unit.place.pack, before.offset == unit.place.offset,
                before.index + 1 == unit.place.index
            {
                runs[runs.count - 1].ids.append(unit.id)
            } else {
                runs.append(
                    PageRun(
                        first: position, ids: [unit.id],
                        place: RecordPlace(
                            pack: packs.id(unit.place.pack), offset: unit.place.offset, length: unit.place.size),
                        firstInFrame: unit.place.index))
                used.insert(unit.place.pack)
            }
            last = unit.place
        }
        guard !runs.isEmpty else { return nil }
        let bytes = Page.bytes(units: units.count, runs: runs)
        let hash = try worker.hasher.id(bytes)
        var place: UnitPlace?
        if let before, before.hash == hash, let pack = packs.number(of: before.place.pack) {
            place = UnitPlace(pack: pack, offset: before.place.offset, length: before.place.length, index: 0)
        } else {
            place = try pagePlace(of: hash)
        }
        if place == nil {
            let new = try unsafe bytes.withRawBytes { pointer throws(Fault) in
                try unsafe worker.sealer.record(.page, ids: [hash], pointer) { (record, payload) throws(Fault) in
                    let put = try unsafe lists.append(record, payload, hasher: worker.hasher)
                    return UnitPlace(pack: put.number, offset: put.offset, length: record.totalSize, index: 0)
                }
            }
            pages.insert(hash, pack: new.pack, offset: new.offset, index: 0)
            place = new
        }
        guard let place else { return nil }
        used.insert(place.pack)
        state.withLock { $0.referenced.formUnion(used) }
        return PageReference(
            hash: hash, place: RecordPlace(pack: packs.id(place.pack), offset: place.offset, length: place.size))
    }

    // MARK: - Opening

    /// Reads the footers of all packs. A pack whose structure is damaged or cannot be read is not built upon: what it holds
    /// is stored again, which heals the set for new points.
    private static func load(
        _ store: any ObjectStore, _ set: SetHeader, _ packs: PackTable, _ index: UnitIndex, _ pages: UnitIndex,
        _ shared: Set<String>
    ) throws(Fault) -> [Finding] {
        let hasher = try Hasher256()
        var findings: [Finding] = []
        let gone = Set(
            try store.list(ObjectName.tombstones).compactMap { ObjectName.id($0.name, suffix: ".gone") })
        for object in try store.list(ObjectName.packs).sorted(by: { $0.name < $1.name }) {
            // A pack that is about to be removed is not built upon.
            guard let id = ObjectName.id(object.name, suffix: ".pack"), !shared.contains(object.name),
                !gone.contains(id) || !SafetyRules.keep(.tombstones)
            else { continue }
            do throws(Fault) {
                guard let handle = try store.open(object.name) else { continue }
                // A footer whose hash is wrong is found out before its first record is looked at.
                let number = packs.add(id, nil)
                let pack = try PackStructure.scan(
                    handle, name: "\(store.name)/\(object.name)", id: id, set: set, hasher: hasher
                ) { offset, record in
                    let table = record.kind == .frame ? index : pages
                    for (unit, id) in record.ids.enumerated() {
                        table.insert(id, pack: number, offset: offset, index: unit)
                    }
                }
                let reference = PackReference(id: id, size: handle.size.bytes, footer: pack.footer.digest)
                // Asked for by its name, and only now: whoever wrote the pack may be about to write the copy.
                if pack.header.kind == .lists, try store.open(ObjectName.copy(of: object.name)) == nil {
                    try mendPack(store, object.name, handle, pack.footer, hasher)
                }
                packs.set(number, reference)
            } catch {
                guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
                findings.append(notBuiltUpon(error))
            }
        }
        return findings
    }

    /// Moves the sound frames of unfinished packs into this run's packs. Where the medium has no room for both, what was not
    /// moved yet makes way.
    private func takeOver(_ leftovers: [any ObjectLeftover], _ events: EventHandler) throws(Fault) {
        let room = LeftoverRoom(leftovers)
        data.makeRoom.withLock { $0 = { room.make() } }
        defer { data.makeRoom.withLock { $0 = nil } }
        for (number, leftover) in leftovers.enumerated() where room.begin(number) {
            if leftover.size.bytes > UInt64(PackHeader.size), leftover.size.bytes <= 0xFFFF_FFFF,
                let head = try? leftover.bytes(at: .zero, count: PackHeader.size),
                let header = try? unsafe PackHeader(head.span.bytes), header.set == set, header.kind == .data
            {
                events(.step("taking over what an interrupted backup stored (\(leftover.size))"))
                do throws(Fault) {
                    try takeOver(leftover) { room.has(number) }
                } catch {
                    guard error.code == .unreadable else { throw error }
                    // What was read before the bad place is taken over; the rest is stored again from the source.
                    events(
                        .finding(
                            Finding(
                                .warning, "set.leftover-unreadable",
                                what: "What an interrupted backup left cannot be read to its end and is removed: "
                                    + error.what, place: error.place)))
                }
            }
            if room.has(number) { try leftover.remove() }
        }
        if room.wasMade {
            events(
                .finding(
                    Finding(
                        .notice, "set.leftover-cut",
                        what:
                            "There was no room to take over all that an interrupted backup left: the rest was removed, "
                            + "and is stored again from the source.", place: store.name)))
        }
    }

    private func takeOver(_ leftover: any ObjectLeftover, while isThere: () -> Bool) throws(Fault) {
        let decoder = try RecordDecoder(set, keys)
        var scanner = PackScanner(
            leftover, unitSize: set.unitSize, from: PackHeader.size, to: Int(leftover.size.bytes))
        while isThere(), let item = try scanner.next() {
            try Interruption.check()
            guard case .record(let offset, let record) = item, record.kind == .frame,
                try isAnyNew(record.ids)
            else { continue }
            let payload = unsafe scanner.payload(record, at: offset)
            guard try unsafe decoder.isSound(record, payload) else { continue }
            let place = try unsafe data.append(record, payload, hasher: decoder.hasher)
            for (unit, id) in record.ids.enumerated() {
                index.insert(id, pack: place.number, offset: place.offset, index: unit)
            }
        }
    }

    private func isAnyNew(_ ids: [UnitID]) throws(Fault) -> Bool {
        for id in ids where try place(of: id) == nil { return true }
        return false
    }

    // MARK: - Committing

    /// Every pack the point refers to, checked again to be there and not about to be removed. Each is asked for by its
    /// name: lists may be late.
    private func references() throws(Fault) -> [PackReference] {
        let referenced = state.withLock { $0.referenced }
        var result: [PackReference] = []
        for number in referenced.sorted() {
            let id = packs.id(number)
            guard !packs.isLost(number) else { throw lost(id) }
            let isGone = try SafetyRules.keep(.tombstones) ? store.open(ObjectName.tombstone(id)) != nil : false
            guard !isGone, let reference = packs.reference(number), try isKept(reference) else { throw changed(id) }
            result.append(reference)
        }
        return result
    }

    private func isKept(_ pack: PackReference) throws(Fault) -> Bool {
        try store.open(ObjectName.pack(pack.id))?.size.bytes == pack.size
    }

    /// Looks once more whether all packs are there, now that the point exists: whoever reclaims space either saw the
    /// point, or removed a pack before this. Then the point is taken back.
    private func requireKept(_ references: [PackReference], _ point: ObjectID) throws(Fault) {
        // Where the medium cannot even be asked the point stays: it is complete as far as anybody knows.
        for pack in references where (try? isKept(pack)) == false {
            try? store.delete(ObjectName.copy(of: ObjectName.point(point)))
            try store.delete(ObjectName.point(point))
            throw changed(pack.id)
        }
    }

    private func lost(_ pack: ObjectID) -> Fault {
        Fault(
            .storeFailed,
            what:
                "A pack could no longer be read while the backup ran, after the backup had built upon it, so there is no "
                + "recovery point.",
            place: "\(store.name)/\(ObjectName.pack(pack))",
            remedy:
                "Check the medium, its cable or network, then run the backup again: what that pack held is then stored "
                + "anew, and everything else is used.")
    }

    private func changed(_ pack: ObjectID) -> Fault {
        Fault(
            .storeFailed, what: "The pack was removed or changed while the backup ran, so there is no recovery point.",
            place: "\(store.name)/\(ObjectName.pack(pack))",
            remedy:
                "Run the backup again: what it stored is used. Space should not be reclaimed while backups run.")
    }

    private func nextNumber() throws(Fault) -> UInt64 {
        return (try reader().points().points.map { $0.number }.max() ?? 0) + 1
    }

    /// Marks packs that this medium, or this machine's memory, got wrong: no later run builds upon them. They are not
    /// removed, since others saw them as soon as they were sealed and may refer to them; that is left to who reclaims space.
    private func condemn(_ packs: Set<ObjectID>) {
        for id in packs.sorted() { try? store.put(ObjectName.tombstone(id), []) }
    }

    private struct ReadBack {
        /// The first thing that was wrong.
        var fault: Fault?
        /// Packs that are not what was written, or cannot be read.
        var wrong: Set<ObjectID> = []

        mutating func note(_ fault: Fault, _ pack: ObjectID) {
            self.fault = self.fault ?? fault
            wrong.insert(pack)
        }
    }

    /// Reads all that was written from the medium and compares it with the hashes made before writing. Throws
    /// `interrupted`.
    private func readBack(
        _ finished: [PackWriter.Sealed], threads: Int, events: EventHandler?
    ) throws(Fault) -> ReadBack {
        struct Task {
            var id: ObjectID
            var isCopy: Bool
            var name: String
            var offset: UInt64
            var count: Int
            var hash: UnitID
        }
        // A run may write hundreds of packs: only a few are open at a time.
        let shelf = PackShelf(store: store, set: set)
        var tasks: [Task] = []
        var total: UInt64 = 0
        let outcome = Mutex(ReadBack())
        for pack in finished {
            let name = ObjectName.pack(pack.reference.id)
            do throws(Fault) {
                // Lists are written twice.
                let known =
                    try store.open(ObjectName.copy(of: name)) == nil ? [name] : [name, ObjectName.copy(of: name)]
                for (index, name) in known.enumerated() {
                    let isCopy = index > 0
                    // The footer is small: it is checked here, with the trailer.
                    try checkStructure(pack.reference, name)
                    for (index, hash) in pack.segments.enumerated() {
                        let offset = index * PackFooter.segmentSize
                        let count = min(PackFooter.segmentSize, pack.footerOffset - offset)
                        tasks.append(
                            Task(
                                id: pack.reference.id, isCopy: isCopy, name: name, offset: UInt64(offset),
                                count: count, hash: hash))
                        total += UInt64(count)
                    }
                }
            } catch {
                guard error.code != .interrupted else { throw error }
                outcome.withLock { $0.note(error, pack.reference.id) }
            }
        }
        let work = tasks
        let all = ByteCount(total)
        let store = self.store
        let share = Counters()
        try Workers.run(min(max(1, threads), max(1, work.count))) { (_, stop) throws(Fault) in
            let hasher = try Hasher256()
            let buffer = ByteBuffer(PackFooter.segmentSize)
            while !stop.isSet {
                try Interruption.check()
                try self.announcement.keep()
                let number = share.next.add(1, ordering: .relaxed).oldValue
                guard number < work.count else { return }
                let task = work[number]
                guard !outcome.withLock({ $0.wrong.contains(task.id) }) else { continue }
                do throws(Fault) {
                    try shelf.pack(task.id, copy: task.isCopy).read(at: task.offset, task.count, into: buffer)
                    guard try unsafe hasher.segment(buffer.bytes(0..<task.count)) == task.hash else {
                        throw store.notKept(task.name)
                    }
                } catch {
                    guard error.code != .interrupted else { throw error }
                    outcome.withLock { $0.note(error, task.id) }
                }
                let sum = share.done.add(UInt64(task.count), ordering: .relaxed).newValue
                events?(.progress(Progress(phase: "reading back", done: ByteCount(sum), total: all)))
            }
        }
        return outcome.withLock { $0 }
    }

    private func checkStructure(_ pack: PackReference, _ name: String) throws(Fault) {
        guard let handle = try store.open(name), handle.size.bytes == pack.size else { throw store.notKept(name) }
        handle.dropCaches()
        do throws(Fault) {
            let structure = try PackStructure.read(handle, name: name, id: pack.id, set: set, hasher: Hasher256())
            guard structure.footer.digest == pack.footer else { throw store.notKept(name) }
        } catch {
            throw error.code == .storeFailed ? error : store.notKept(name)
        }
    }

    private final class Counters: Sendable {
        let next = Atomic<Int>(0)
        let done = Atomic<UInt64>(0)
    }

    private static var misuse: Fault {
        Fault(
            .system, what: "A recovery point was sealed twice or refers to a disk that is not described.",
            remedy: "This is an error in the program: please report it.")
    }
}

extension PointFile {
    func summary(_ id: ObjectID) -> PointSummary {
        PointSummary(
            id: id.text, number: number, facts: facts,
            used: streams.reduce(.zero) { $0.adding($1.description.used.byteCount) ?? $0 },
            unreadable: streams.reduce(.zero) { $0.adding($1.unreadable.byteCount) ?? $0 })
    }
}
