// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Synchronization
import Threads

/// Reading the packs: segments and records against their hashes.
extension Verifier {
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

    func readPacks() throws(Fault) {
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
        var damaged = DamagedRanges()
        for item in records { damaged.add(item.file, item.range) }
        damaged.sort()
        let unreadableHeads = Set(report.damages.filter { $0.offset == .zero }.map(\.file))
        for item in found where item.isSegment {
            guard !damaged.overlaps(item.file, item.range),
                item.range.lowerBound > 0 || !unreadableHeads.contains(item.file)
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
                for record in Verifier.records(task, checks) {
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
                // What no record holds was not compared with anything, nor content that only a key opens.
                if try !isSegmentSound(task, shelf, decoder, buffer) {
                    let size = min(PackFooter.segmentSize, file.footer - task.start)
                    shared.note(
                        Found(
                            file: file.name, range: task.start..<task.start + size,
                            what: "\(size) bytes from here cannot be read as a whole: \(error.what)", isSegment: true))
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
            // Which of the records that lie in it are damaged.
            for record in Verifier.records(task, checks) {
                let start = Int(file.offsets[record])
                let end = start + min(file.length(record), RecordHeader.maximumSize)
                try read(
                    Task(file: file, start: start, end: end, records: record..<record + 1, segment: nil), shelf,
                    decoder,
                    buffer, shared, unitSize, checks)
            }
        }
    }

    /// The records to look into when a segment is damaged: those that begin in it, and where the task before has not read to
    /// its end the one that begins before it.
    private static func records(_ task: Task, _ checks: Checks) -> Range<Int> {
        let file = task.file
        var first = task.records.lowerBound
        if checks.segmentsFirst, first > 0, Int(file.offsets[first - 1]) + file.length(first - 1) > task.start {
            first -= 1
        }
        return first..<task.records.upperBound
    }

    /// Whether the segment a task begins with can be read after all, and is what was written.
    private static func isSegmentSound(
        _ task: Task, _ shelf: PackShelf, _ decoder: RecordDecoder, _ buffer: ByteBuffer
    ) throws(Fault) -> Bool {
        guard let segment = task.segment else { return true }
        let size = min(PackFooter.segmentSize, task.file.footer - task.start)
        do throws(Fault) {
            try shelf.pack(task.file.id, copy: task.file.isCopy).read(at: UInt64(task.start), size, into: buffer)
        } catch {
            if error.code == .interrupted { throw error }
            return false
        }
        return try unsafe decoder.hasher.segment(buffer.bytes(0..<size)) == task.file.segments[segment]
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
}

/// Ranges of files, to be asked quickly whether one meets another.
private struct DamagedRanges {
    private var files: [String: [Range<Int>]] = [:]
    /// The furthest end up to each range, in the order of starts.
    private var ends: [String: [Int]] = [:]

    mutating func add(_ file: String, _ range: Range<Int>) { files[file, default: []].append(range) }

    mutating func sort() {
        for file in files.keys.sorted() {
            files[file]?.sort { $0.lowerBound < $1.lowerBound }
            var last = 0
            ends[file] = (files[file] ?? []).map { range in
                last = max(last, range.upperBound)
                return last
            }
        }
    }

    func overlaps(_ file: String, _ range: Range<Int>) -> Bool {
        guard let ranges = files[file], let ends = ends[file] else { return false }
        var low = 0
        var high = ranges.count
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].lowerBound < range.upperBound { low = middle + 1 } else { high = middle }
        }
        return low > 0 && ends[low - 1] > range.lowerBound
    }
}
