// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings
import Geometry
import Synchronization
import Threads

extension SetReader {
    /// Checks the set, or the points whose ids are given and what they need.
    ///
    /// Damage is not thrown but reported: every damaged item by file and offset, with the points, streams and extents
    /// that are lost by it. Throws `store.failed`, `interrupted`, `set.no-such-point`.
    ///
    /// - Parameters:
    ///   - depth: how thoroughly. A reader opened without the key of an encrypted set checks structure or stored bytes;
    ///     ``VerifyReport/isOpen`` says so. Other depths throw `key.needed` then.
    ///   - share: which records a depth of ``VerifyDepth/share`` reads.
    ///   - points: ids or prefixes of the points to check; `nil` checks all points and all packs there are.
    ///   - threads: number of threads.
    public func verify(
        _ depth: VerifyDepth, share: VerifyShare? = nil, points: [String]? = nil, threads: Int = 2,
        events: EventHandler? = nil
    ) throws(Fault) -> VerifyReport {
        guard isOpen || depth == .quick || depth == .stored else {
            throw Fault(
                .keyNeeded, what: "The set is encrypted, and was opened without its key.", place: store.name,
                remedy: "Give the passphrase or key file, or check the stored bytes only: `relight verify --stored`.")
        }
        let verifier = Verifier(self, depth: depth, threads: threads, events: events)
        if depth == .share { verifier.take(share ?? VerifyShare(percent: 5, seed: .random(in: 0..<100))) }
        return try verifier.run(points)
    }
}

/// One verification. Not shared between threads, except for what its tasks share on purpose.
private final class Verifier {
    private let reader: SetReader
    private let depth: VerifyDepth
    private let threads: Int
    private let events: EventHandler?
    private var report: VerifyReport
    private var files: [String: PackFile] = [:]
    /// Pages whose both copies and all frames are sound.
    private var soundPages: Set<UnitID> = []
    private var places: [Place: Int] = [:]
    private var moves = MoveMap()

    private struct Place: Hashable {
        var file: String
        var offset: Int
        /// Of another kind than what is at the same place and costs data.
        var harmless = false
    }

    init(_ reader: SetReader, depth: VerifyDepth, threads: Int, events: EventHandler?) {
        self.reader = reader
        self.depth = depth
        self.threads = threads
        self.events = events
        self.report = VerifyReport(depth: depth)
        self.report.isOpen = reader.isOpen
    }

    func take(_ share: VerifyShare) { report.share = share }

    func run(_ names: [String]?) throws(Fault) -> VerifyReport {
        for finding in reader.findings {
            let file = String(finding.place.dropFirst(reader.store.name.utf8.count + 1))
            damage(file, -1, finding.what)
        }
        try inspectKeys()
        let points = try loadPoints(names)
        moves = try MoveMap(reader.store, reader.set)
        for copy in moves.damaged {
            damage(copy.name, copy.fault.extent.flatMap(\.start.int) ?? -1, copy.fault.what)
        }
        try inspectPacks(points, all: names == nil)
        if depth != .quick { try readPacks() }
        for point in points { try check(point) }
        report.damages.sort { ($0.file, $0.offset ?? .zero) < ($1.file, $1.offset ?? .zero) }
        return report
    }

    /// Notes a damage once, and returns its number.
    @discardableResult
    private func damage(_ file: String, _ offset: Int, _ what: String, harmless: Bool = false) -> Int {
        let place = Place(file: file, offset: offset, harmless: harmless)
        if let known = places[place] { return known }
        report.damages.append(
            VerifyReport.Damage(file: file, offset: offset < 0 ? nil : ByteCount(UInt64(offset)), what: what))
        places[place] = report.damages.count - 1
        return report.damages.count - 1
    }

    private func damage(_ file: String, _ fault: Fault) {
        damage(file, fault.extent.flatMap(\.start.int) ?? -1, fault.what)
    }

    // MARK: - Keys and marks

    /// Key slots in both copies, and the marks of packs that are going.
    private func inspectKeys() throws(Fault) {
        if reader.set.isEncrypted {
            let slots = try KeySlots(reader.store, reader.set)
            report.keySlots = slots.slots.count
            report.lostKeySlots = slots.lost.count
            for copy in slots.damaged { damage(copy.name, -1, "The key slot is damaged: \(copy.what)") }
            for name in slots.missing { damage(name, -1, "This copy of a key slot is missing.") }
            if slots.slots.isEmpty {
                damage(ObjectName.keys, -1, "No key slot is sound: without one nobody can open the set.")
            }
        }
        for object in try reader.store.list(ObjectName.tombstones)
        where ObjectName.id(object.name, suffix: ".gone") == nil || object.size != .zero {
            damage(object.name, -1, "This is not an empty mark of a pack that is to be removed.")
        }
    }

    // MARK: - Points

    private func loadPoints(_ names: [String]?) throws(Fault) -> [RecoveryPoint] {
        var ids = try reader.ids()
        if let names {
            var chosen: [ObjectID] = []
            for name in names {
                guard let id = ObjectID(try reader.point(name).summary.id) else { continue }
                if !chosen.contains(id) { chosen.append(id) }
            }
            ids = chosen
        }
        var points: [RecoveryPoint] = []
        for id in ids {
            var sound: PointFile?
            var last: Int?
            var closed = false
            for name in [ObjectName.point(id), ObjectName.copy(of: ObjectName.point(id))] {
                do throws(Fault) {
                    let file = try reader.read(id, name)
                    sound = sound ?? file
                } catch {
                    // Its stored bytes match their hash; what they say is not known without the key.
                    if error.code == .keyNeeded, !reader.isOpen {
                        closed = true
                        continue
                    }
                    guard error.code == .setDamaged || error.code == .setVersion || error.code == .storeFailed else {
                        throw error
                    }
                    last = damage(name, error.extent.flatMap(\.start.int) ?? -1, error.what)
                }
            }
            if let sound {
                points.append(RecoveryPoint(reader, sound, id, findings: []))
            } else if closed {
                report.closedPoints += 1
            } else if let last {
                report.damages[last].pointLost = true
            }
        }
        points.sort { ($0.summary.number, $0.summary.id) < ($1.summary.number, $1.summary.id) }
        report.points = points.map(\.summary)
        return points
    }

    // MARK: - Packs

    /// What is known of one pack file, in little memory.
    private final class PackFile: Sendable {
        let name: String
        let id: ObjectID
        let isData: Bool
        /// Offsets of the records, rising.
        let offsets: [UInt32]
        /// Number of the first unit of each record in `marks`; one more at the end.
        let firsts: [UInt32]
        /// A word of each unit's id.
        let marks: [UInt32]
        /// Where the records end.
        let end: Int
        /// Where the footer begins: after the records and the parity.
        let footer: Int
        /// Bytes that are no records, where the footer did not help.
        let gaps: [Range<Int>]
        /// Hashes of the pack's segments; empty where the footer did not help.
        let segments: [UnitID]

        init(
            name: String, id: ObjectID, isData: Bool, offsets: [UInt32], firsts: [UInt32], marks: [UInt32],
            end: Int, footer: Int, gaps: [Range<Int>], segments: [UnitID]
        ) {
            self.segments = segments
            self.footer = footer
            self.name = name
            self.id = id
            self.isData = isData
            self.offsets = offsets
            self.firsts = firsts
            self.marks = marks
            self.end = end
            self.gaps = gaps
        }

        var isCopy: Bool { name.hasPrefix(ObjectName.copies + "/") }

        /// Index of the record at `offset`.
        func record(_ offset: Int) -> Int? {
            var low = 0
            var high = offsets.count
            while low < high {
                let middle = (low + high) / 2
                if Int(offsets[middle]) < offset { low = middle + 1 } else { high = middle }
            }
            return low < offsets.count && Int(offsets[low]) == offset ? low : nil
        }

        func length(_ record: Int) -> Int {
            (record + 1 < offsets.count ? Int(offsets[record + 1]) : end) - Int(offsets[record])
        }
    }

    private func inspectPacks(_ points: [RecoveryPoint], all: Bool) throws(Fault) {
        var needed: [ObjectID: PackReference] = [:]
        for point in points { for pack in point.file.packs { needed[pack.id] = pack } }
        var names: [String: ObjectID] = [:]
        var sizes: [String: ByteCount] = [:]
        // Where records of a pack went that was removed. Whether all went is found out record by record.
        var targets: Set<ObjectID> = []
        for id in needed.keys {
            let moved = try reader.store.open(ObjectName.pack(id)) == nil ? moves.targets(of: id) : []
            if moved.isEmpty { names[ObjectName.pack(id)] = id } else { targets.formUnion(moved) }
        }
        for folder in [ObjectName.packs, ObjectName.copy(of: ObjectName.packs)] {
            for object in try reader.store.list(folder) {
                guard let id = ObjectName.id(object.name, suffix: ".pack") else { continue }
                if all || needed[id] != nil || targets.contains(id) {
                    names[object.name] = id
                    sizes[object.name] = object.size
                }
            }
        }
        let hasher = try Hasher256()
        let total = sizes.values.reduce(ByteCount.zero) { $0.adding($1) ?? $0 }
        var done = ByteCount.zero
        for (name, id) in names.sorted(by: { $0.key < $1.key }) {
            try Interruption.check()
            events?(.progress(Progress(phase: "checking structure", done: done, total: total)))
            done = done.adding(sizes[name] ?? .zero) ?? done
            report.packs += 1
            let isCopy = name.hasPrefix(ObjectName.copies + "/")
            guard let handle = try reader.store.open(name) else {
                report.damages[damage(name, -1, "The file is missing.")].isMissing = true
                // A pack of lists is there twice.
                if needed[id] != nil, !isCopy, sizes[ObjectName.copy(of: name)] == nil {
                    report.missingPacks.append(name)
                }
                continue
            }
            if !isCopy { report.packBytes = report.packBytes.adding(handle.size) ?? report.packBytes }
            if let reference = needed[id], handle.size.bytes != reference.size {
                damage(name, -1, "The file has \(handle.size.bytes) bytes; \(reference.size) are expected.")
            }
            let file = try inspect(handle, name, id, needed[id], hasher)
            files[name] = file
            if !file.isData, !isCopy { report.listPacks += 1 }
            if !file.isData, !isCopy, needed[id] != nil {
                // The second copy of a pack of lists must be there; when it is, it is looked at in its turn. A pack no
                // point refers to is what an interrupted backup left.
                let copy = ObjectName.copy(of: name)
                if names[copy] == nil { damage(copy, -1, "The second copy of a pack of lists is missing.") }
            }
        }
    }

    private func inspect(
        _ handle: any ObjectHandle, _ name: String, _ id: ObjectID, _ reference: PackReference?, _ hasher: Hasher256
    ) throws(Fault) -> PackFile {
        var offsets: [UInt32] = []
        var firsts: [UInt32] = [0]
        var marks: [UInt32] = []
        func add(_ offset: Int, _ record: RecordHeader) {
            offsets.append(UInt32(truncatingIfNeeded: offset))
            for id in record.ids { marks.append(UInt32(truncatingIfNeeded: id.b)) }
            firsts.append(UInt32(truncatingIfNeeded: marks.count))
        }
        do throws(Fault) {
            let structure = try PackStructure.read(
                handle, name: "\(reader.store.name)/\(name)", id: id, set: reader.set, hasher: hasher)
            if let reference, structure.footer.digest != reference.footer {
                damage(name, structure.footer.offset, "The pack is not the one the recovery point was made with.")
            }
            // Kept for all packs until the end: no more room than they need. 4 bytes a unit and 8 a record.
            let entries = structure.footer.entries
            offsets.reserveCapacity(entries.count)
            firsts.reserveCapacity(entries.count + 1)
            marks.reserveCapacity(entries.reduce(0) { $0 + $1.record.ids.count })
            for entry in entries { add(entry.offset, entry.record) }
            return PackFile(
                name: name, id: id, isData: structure.header.kind == .data, offsets: offsets, firsts: firsts,
                marks: marks, end: structure.footer.recordsEnd, footer: structure.footer.offset, gaps: [],
                segments: structure.footer.segments)
        } catch {
            guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
            damage(name, error)
        }
        // Without its footer the pack is read from front to back; what is sound is found by itself. The footer's own
        // bytes are no records and no loss.
        var gaps: [Range<Int>] = []
        var end = PackHeader.size
        var isData = !name.hasPrefix(ObjectName.copies + "/")
        // What is longer than any pack has been is looked at as far as it once went, not to an end somebody invented.
        let limit = handle.size.bytes > 0xFFFF_FFFF ? reference?.size ?? UInt64(PackHeader.size) : 0xFFFF_FFFF
        var size = Int(clamping: min(handle.size.bytes, limit))
        do throws(Fault) {
            // Parity tells where the records end, too.
            if reader.set.parity > 0 {
                let pack = DamagedPack(size: size) { (offset, span) throws(Fault) in
                    try handle.read(at: ByteCount(UInt64(offset)), into: &span)
                }
                if let header = try ParityCheck.locate(pack, id: id) { size = min(size, header.layout.bodyLength) }
            }
            var scanner = PackScanner(handle, unitSize: reader.set.unitSize, from: PackHeader.size, to: size)
            while let item = try scanner.next() {
                try Interruption.check()
                switch item {
                case .record(let offset, let record):
                    add(offset, record)
                    end = offset + record.totalSize
                    if record.kind == .page { isData = false }
                case .gap(let range): gaps.append(range)
                }
            }
        } catch {
            guard error.code == .storeFailed || error.code == .setDamaged else { throw error }
            damage(name, error)
        }
        return PackFile(
            name: name, id: id, isData: isData, offsets: offsets, firsts: firsts, marks: marks, end: end,
            footer: end, gaps: gaps, segments: [])
    }

    /// A stretch of a pack read at once: a segment and the rest of its last record, or one record by itself.
    private struct Task {
        var file: PackFile
        var start: Int
        var end: Int
        /// The records that begin in it.
        var records: Range<Int>
        /// The segment it begins with; `nil` where the pack's footer was lost.
        var segment: Int?
    }

    private struct Found {
        var file: String
        var range: Range<Int>
        var what: String
        /// Whether it is a segment that differs, which says nothing new when a record in it is damaged.
        var isSegment = false
    }

    private struct Checks {
        /// Whether content can be decoded.
        var content: Bool
        /// Whether records in segments that match their hash are taken for sound.
        var segmentsFirst: Bool
    }

    private final class Shared: Sendable {
        let healed = Mutex<[VerifyReport.SecondReading]>([])
        let next = Atomic<Int>(0)
        let read = Atomic<UInt64>(0)
        let content = Atomic<UInt64>(0)
        let records = Atomic<Int>(0)
        let found = Mutex<[Found]>([])
        func note(_ found: Found) { self.found.withLock { $0.append(found) } }
        func heal(_ file: PackFile, _ offset: Int) {
            healed.withLock {
                $0.append(VerifyReport.SecondReading(file: file.name, offset: ByteCount(UInt64(offset))))
            }
        }
    }

    private func tasks() -> [Task] {
        var tasks: [Task] = []
        for file in files.values.sorted(by: { $0.name < $1.name }) {
            report.total = report.total.adding(ByteCount(UInt64(max(0, file.footer)))) ?? report.total
            let share = report.share
            guard !file.segments.isEmpty, share == nil else {
                for record in file.offsets.indices {
                    if let share, !share.includes(file.id.high, file.id.low, file.offsets[record]) { continue }
                    let start = Int(file.offsets[record])
                    let end = start + min(file.length(record), RecordHeader.maximumSize)
                    tasks.append(Task(file: file, start: start, end: end, records: record..<record + 1, segment: nil))
                }
                continue
            }
            var record = 0
            for segment in file.segments.indices {
                let start = segment * PackFooter.segmentSize
                var end = min(start + PackFooter.segmentSize, file.footer)
                let first = record
                let limit = end
                while record < file.offsets.count, Int(file.offsets[record]) < limit {
                    // Where records are not looked into, each byte is read once.
                    if depth != .stored { end = max(end, Int(file.offsets[record]) + file.length(record)) }
                    record += 1
                }
                tasks.append(Task(file: file, start: start, end: end, records: first..<record, segment: segment))
            }
        }
        return tasks
    }

    private func readPacks() throws(Fault) {
        let work = tasks()
        let all = ByteCount(work.reduce(0) { $0 + UInt64($1.end - $1.start) })
        let shared = Shared()
        let (set, keys, unitSize) = (reader.set, reader.keys, reader.set.unitSize)
        let checks = Checks(content: reader.isOpen, segmentsFirst: depth == .stored)
        // Only a few packs are open at a time, however many there are.
        let shelf = reader.shelf
        let events = self.events
        try Workers.run(min(max(1, threads), max(1, work.count))) { (_, stop) throws(Fault) in
            let decoder = try RecordDecoder(set, keys)
            let buffer = ByteBuffer(PackFooter.segmentSize + RecordHeader.maximumSize)
            while !stop.isSet {
                try Interruption.check()
                let number = shared.next.add(1, ordering: .relaxed).oldValue
                guard number < work.count else { return }
                try Verifier.read(work[number], shelf, decoder, buffer, shared, unitSize, checks)
                let read = ByteCount(shared.read.load(ordering: .relaxed))
                events?(.progress(Progress(phase: "verifying", done: read, total: all)))
            }
        }
        let found = shared.found.withLock { $0 }
        let records = found.filter { !$0.isSegment }
        for item in records { damage(item.file, item.range.lowerBound, item.what) }
        for item in found where item.isSegment {
            guard !records.contains(where: { $0.file == item.file && $0.range.overlaps(item.range) }),
                item.range.lowerBound > 0
                    || !report.damages.contains(where: { $0.file == item.file && $0.offset == .zero })
            else { continue }
            damage(item.file, item.range.lowerBound, item.what, harmless: true)
        }
        report.read = ByteCount(shared.read.load(ordering: .relaxed))
        report.content = ByteCount(shared.content.load(ordering: .relaxed))
        report.records = shared.records.load(ordering: .relaxed)
        report.secondReadings = shared.healed.withLock { $0 }.sorted { ($0.file, $0.offset) < ($1.file, $1.offset) }
    }

    private static func read(
        _ task: Task, _ shelf: PackShelf, _ decoder: RecordDecoder, _ buffer: ByteBuffer, _ shared: Shared,
        _ unitSize: Int, _ checks: Checks
    ) throws(Fault) {
        let file = task.file
        let count = task.end - task.start
        guard count <= buffer.count else {
            shared.note(
                Found(file: file.name, range: task.start..<task.end, what: "The pack's footer lists a record too long.")
            )
            return
        }
        do throws(Fault) {
            try shelf.pack(file.id, copy: file.isCopy).read(at: UInt64(task.start), count, into: buffer)
        } catch {
            if again(file, task.start, count, shelf, buffer) {
                shared.heal(file, task.start)
            } else {
                guard task.segment != nil else {
                    shared.note(
                        Found(file: file.name, range: task.start..<task.end, what: "It cannot be read: \(error.what)"))
                    return
                }
                // One unreadable sector must not hide the records around it.
                for record in task.records {
                    let start = Int(file.offsets[record])
                    try read(
                        Task(
                            file: file, start: start, end: start + file.length(record), records: record..<record + 1,
                            segment: nil), shelf, decoder, buffer, shared, unitSize, checks)
                }
                let parity = max(task.start, file.end)..<max(task.start, file.end, task.end)
                if (try? shelf.pack(file.id, copy: file.isCopy).read(
                    at: UInt64(parity.lowerBound), parity.count, into: buffer)) == nil
                {
                    shared.note(
                        Found(file: file.name, range: parity, what: "The parity here cannot be read: \(error.what)"))
                }
                return
            }
        }
        let size = min(PackFooter.segmentSize, file.footer - task.start)
        var differs = false
        if let segment = task.segment {
            differs = try unsafe decoder.hasher.segment(buffer.bytes(0..<size)) != file.segments[segment]
            if differs, again(file, task.start, count, shelf, buffer),
                try unsafe decoder.hasher.segment(buffer.bytes(0..<size)) == file.segments[segment]
            {
                shared.heal(file, task.start)
                differs = false
            }
        }
        if !checks.segmentsFirst || task.segment == nil {
            for number in task.records {
                let offset = Int(file.offsets[number])
                let at = offset - task.start
                var problem = try check(file, number, count, at, buffer, decoder, shared, unitSize, checks)
                if problem != nil {
                    // A fault of a cable or of memory may be gone the second time; damage on the medium is not.
                    let other = ByteBuffer(RecordHeader.maximumSize)
                    let length = min(file.length(number), RecordHeader.maximumSize)
                    if again(file, offset, length, shelf, other),
                        try check(file, number, length, 0, other, decoder, shared, unitSize, checks) == nil
                    {
                        shared.heal(file, offset)
                        problem = nil
                    }
                }
                if let problem {
                    shared.note(Found(file: file.name, range: offset..<offset + file.length(number), what: problem))
                }
            }
        }
        if differs {
            let records =
                checks.content
                ? (file.footer > file.end && task.start + size > file.end
                    ? ", though their records are sound; the parity may be what is damaged"
                    : ", though their content is sound")
                : ": what lies there can be told with the key only"
            shared.note(
                Found(
                    file: file.name, range: task.start..<task.start + size,
                    what: "\(size) bytes from here differ from what was written\(records).", isSegment: true))
        }
        shared.read.add(UInt64(count), ordering: .relaxed)
        if !checks.segmentsFirst || task.segment == nil {
            shared.records.add(task.records.count, ordering: .relaxed)
        } else if differs {
            // Which of the records that lie in it are damaged; the first may begin before it.
            var first = task.records.lowerBound
            if first > 0, Int(file.offsets[first - 1]) + file.length(first - 1) > task.start { first -= 1 }
            for record in first..<task.records.upperBound {
                let start = Int(file.offsets[record])
                let end = start + min(file.length(record), RecordHeader.maximumSize)
                try read(
                    Task(file: file, start: start, end: end, records: record..<record + 1, segment: nil), shelf,
                    decoder,
                    buffer, shared, unitSize, checks)
            }
        }
    }

    /// Reads `count` bytes at `offset` once more, from the medium where the place can do that. False when that fails.
    private static func again(
        _ file: PackFile, _ offset: Int, _ count: Int, _ shelf: PackShelf, _ buffer: ByteBuffer
    ) -> Bool {
        do throws(Fault) {
            let handle = try shelf.pack(file.id, copy: file.isCopy)
            handle.dropCaches()
            try handle.read(at: UInt64(offset), count, into: buffer)
            return true
        } catch {
            return false
        }
    }

    /// Checks one record in the first `count` bytes of the buffer; the problem as a sentence, or `nil`.
    private static func check(
        _ file: PackFile, _ number: Int, _ count: Int, _ at: Int, _ buffer: ByteBuffer, _ decoder: RecordDecoder,
        _ shared: Shared, _ unitSize: Int, _ checks: Checks
    ) throws(Fault) -> String? {
        let span = unsafe RawSpan(_unsafeBytes: buffer.bytes(0..<count))
        let record: RecordHeader
        do throws(FieldError) {
            record = try RecordHeader(span, at: at, unitSize: unitSize)
        } catch {
            return "The record's head is damaged: \(error)."
        }
        let marks = file.marks[Int(file.firsts[number])..<Int(file.firsts[number + 1])]
        guard record.totalSize <= span.byteCount - at,
            file.gaps.isEmpty ? record.totalSize == file.length(number) : true,
            record.ids.map({ UInt32(truncatingIfNeeded: $0.b) }).elementsEqual(marks)
        else { return "The record is not the one the pack's footer lists here." }
        let payload = at + record.headSize..<at + record.headSize + record.storedLength
        guard checks.content else { return nil }
        guard try unsafe decoder.isSound(record, buffer.bytes(payload)) else {
            return "The record's content does not match its hash."
        }
        if unsafe !buffer.bytes(payload.upperBound..<at + record.totalSize).allSatisfy({ $0 == 0 }) {
            // Noted at its own place: no content is lost by it.
            let place = Int(file.offsets[number]) + record.headSize + record.storedLength
            let end = Int(file.offsets[number]) + record.totalSize
            shared.note(Found(file: file.name, range: place..<end, what: "The padding after a record is not zero."))
        }
        shared.content.add(UInt64(record.plainLength), ordering: .relaxed)
        return nil
    }

    // MARK: - What points refer to

    private func check(_ point: RecoveryPoint) throws(Fault) {
        let decoder = try PieceDecoder(point)
        for stream in point.streams {
            for (number, reference) in stream.stored.pages where !soundPages.contains(reference.hash) {
                try Interruption.check()
                try check(point, stream, number, reference, decoder)
            }
        }
    }

    private func check(
        _ point: RecoveryPoint, _ stream: PointStream, _ number: UInt64, _ reference: PageReference,
        _ decoder: PieceDecoder
    ) throws(Fault) {
        var runs: [PageRun]?
        var first: Int?
        let place = try actual(reference.place)
        let name = ObjectName.pack(place.pack)
        for (copy, name) in [(false, name), (true, ObjectName.copy(of: name))] {
            do throws(Fault) {
                let read = try decoder.page(reference, number: number, of: stream, copy: copy)
                runs = runs ?? read
            } catch {
                guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
                let known =
                    places[Place(file: name, offset: -1)].flatMap { files[name] == nil ? $0 : nil }
                    ?? damage(name, place.offset, error.what)
                first = first ?? known
            }
        }
        guard let runs else {
            if let first { lose(first, point, stream, stream.extent(ofPage: number)) }
            return
        }
        var sound = first == nil
        for run in runs {
            let extent = stream.extent(run, page: number)
            if let damage = try problem(run) {
                lose(damage, point, stream, extent)
                sound = false
            } else if stream.description.used.intersection(extent).isEmpty {
                lose(
                    damage(name, place.offset, "A list names units where nothing is in use."), point, stream,
                    extent)
                sound = false
            }
        }
        if sound { soundPages.insert(reference.hash) }
    }

    /// Where a record lies, as far as moves tell.
    private func actual(_ hint: RecordPlace) throws(Fault) -> RecordPlace {
        if files[ObjectName.pack(hint.pack)] != nil || moves.isEmpty { return hint }
        let start = try moves.follow(RecordStart(pack: hint.pack, offset: hint.offset)) { (start) throws(Fault) in
            files[ObjectName.pack(start.pack)] == nil ? nil : start
        }
        return start.map { hint.moved(to: $0) } ?? hint
    }

    /// The damage that hits a run; `nil` when its frame is sound.
    private func problem(_ run: PageRun) throws(Fault) -> Int? {
        let place = try actual(run.place)
        let name = ObjectName.pack(place.pack)
        guard let file = files[name] else {
            if let id = run.ids.first,
                let found = try reader.shelf.search(id, index: run.firstInFrame, copy: false, size: place.length)
            {
                damage(
                    name, -1,
                    "The file is gone and nothing says where its records went. Some were found by searching: they can "
                        + "be restored, and `relight prune` notes where they are.", harmless: true)
                if try isHeld(run, at: found.1) { return nil }
            }
            return damage(name, -1, "The file is missing.")
        }
        if let gap = file.gaps.first(where: { $0.contains(place.offset) }) {
            return damage(name, gap.lowerBound, "\(gap.count) bytes hold no sound record.")
        }
        guard let record = file.record(place.offset) else {
            if place.offset >= file.end {
                return damage(name, file.end, "The records after this place are missing.")
            }
            return damage(name, place.offset, "There is no record where a recovery point refers to one.")
        }
        if let known = places[Place(file: name, offset: place.offset)] { return known }
        let marks = file.marks[Int(file.firsts[record])..<Int(file.firsts[record + 1])].dropFirst(run.firstInFrame)
        guard marks.count >= run.ids.count,
            zip(run.ids, marks).allSatisfy({ UInt32(truncatingIfNeeded: $0.b) == $1 })
        else {
            return damage(name, place.offset, "The record holds other units than a recovery point refers to.")
        }
        // Without the footer the end of a record is not told by where the next one begins.
        guard !file.gaps.isEmpty || run.place.length == file.length(record) else {
            return damage(
                name, run.place.offset,
                "The record has \(file.length(record)) bytes; a recovery point refers to \(run.place.length).")
        }
        return nil
    }

    /// Whether a record that was searched for holds the run's units, and was not found damaged.
    private func isHeld(_ run: PageRun, at start: RecordStart) throws(Fault) -> Bool {
        let name = ObjectName.pack(start.pack)
        guard let file = files[name], let record = file.record(start.offset),
            places[Place(file: name, offset: start.offset)] == nil
        else { return false }
        let marks = file.marks[Int(file.firsts[record])..<Int(file.firsts[record + 1])].dropFirst(run.firstInFrame)
        return marks.count >= run.ids.count && zip(run.ids, marks).allSatisfy { UInt32(truncatingIfNeeded: $0.b) == $1 }
    }

    private func lose(_ damage: Int, _ point: RecoveryPoint, _ stream: PointStream, _ extent: Extent) {
        let lost = stream.description.used.intersection(extent)
        guard !lost.isEmpty else { return }
        let losses = report.damages[damage].losses
        if let index = losses.lastIndex(where: { $0.point == point.summary.id && $0.stream == stream.index }) {
            report.damages[damage].losses[index].extents = losses[index].extents.union(lost)
        } else {
            report.damages[damage].losses.append(
                VerifyReport.Loss(
                    point: point.summary.id, stream: stream.index, disk: stream.description.disk,
                    kind: stream.description.kind, extents: lost))
        }
    }
}
