// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// What was laid over a dirty hive.
public struct HiveRecovery: Hashable, Sendable {
    /// The two kinds of logs.
    public enum LogFormat: String, Hashable, Sendable, Codable {
        /// A vector of dirty sectors, up to Windows 8.
        case dirtyVector = "dirty vector"
        /// Entries with hashes, Windows 8.1 and later.
        case entries
    }
    /// What kind of log it was.
    public var format: LogFormat
    /// The names of the logs used, in their order.
    public var logs: [String]
    /// Entries applied; 1 for a log with a dirty vector.
    public var entries: Int
    /// The number of the last change applied.
    public var lastSequence: UInt32
    /// Bytes of the hive that are taken from logs.
    public var replaced: UInt64
    /// Why a further entry could not be applied, as after a power cut while it was written; Windows stops there too.
    public var stoppedBecause: String?
}

/// Whether a hive's file is all there is to it.
public enum HiveState: Hashable, Sendable {
    /// It was written completely; logs do not count.
    case clean
    /// It was not, and is read as its logs make it.
    case recovered(HiveRecovery)
    /// It was not, and no log helps: it is read as it lies there, and may lack the last changes or contradict itself.
    case dirty(because: String)
}

/// Recovers a dirty hive in memory. Specification, "Dirty state of a hive" and "Multiple transaction log files".
struct Recovery {
    let source: HiveSource
    /// The base block as it lies there; `nil` when it does not begin like one.
    let stored: HiveHeader?
    /// All of it.
    let storedBytes: [UInt8]
    /// Why logs were not used.
    private var problems: [String] = []

    /// What is to be read, and why.
    struct Outcome {
        var image: HiveImage
        var state: HiveState
    }

    init(_ source: HiveSource, stored: HiveHeader?, storedBytes: [UInt8]) {
        self.source = source
        self.stored = stored
        self.storedBytes = storedBytes
    }

    /// The base block's, when its checksum can be believed.
    private var sound: HiveHeader? { stored.flatMap { $0.isSound ? $0 : nil } }

    /// Applies what can be applied of `logs`. `nil` when nothing can and there is no base block to read the hive by.
    mutating func run(_ logs: [HiveSource]) throws(Fault) -> Outcome? {
        var usable: [TransactionLog] = []
        for log in logs where log.length > 0 {
            do throws(TransactionLog.Problem) {
                usable.append(try TransactionLog(log))
            } catch {
                problems.append("\(log.name): \(error.what)")
            }
        }
        if let outcome = try applyEntries(usable.filter(\.hasEntries)) { return outcome }
        if let outcome = try applyVector(usable.filter { !$0.hasEntries }) { return outcome }
        guard let stored else { return nil }
        let cause =
            stored.isSound
            ? "its sequence numbers are \(stored.primarySequence) and \(stored.secondarySequence)"
            : "the checksum of its base block is wrong"
        let why = problems.isEmpty ? "no log was given" : "no log applies (\(problems.joined(separator: "; ")))"
        return Outcome(
            image: HiveImage(source: source, header: stored, baseBlock: storedBytes, overlay: nil),
            state: .dirty(because: "\(cause), and \(why)"))
    }

    // MARK: Logs with entries

    private mutating func applyEntries(_ logs: [TransactionLog]) throws(Fault) -> Outcome? {
        var waiting: [TransactionLog] = []
        for log in logs.sorted(by: { TransactionLog.precedes($0.sequence, $1.sequence) }) {
            // What such a log holds reached the hive before its sequence number was written.
            if let sound, TransactionLog.precedes(log.sequence, sound.secondarySequence) {
                problems.append(
                    "\(log.source.name): it begins with change \(log.sequence), and the hive has all before "
                        + "\(sound.secondarySequence)")
            } else {
                waiting.append(log)
            }
        }
        var overlay = LogOverlay()
        var recovery = HiveRecovery(
            format: .entries, logs: [], entries: 0, lastSequence: 0, replaced: 0, stoppedBecause: nil)
        var header: HiveHeader?
        for log in waiting {
            if recovery.entries > 0, log.sequence != recovery.lastSequence &+ 1 {
                // Without a base block nobody knows what reached the hive: then the later log counts, as in Windows.
                if sound != nil { break }
                overlay = LogOverlay()
                recovery.logs = []
                recovery.entries = 0
                recovery.stoppedBecause = nil
            }
            var effective = log.header
            overlay.begin(log.source)
            var place = UInt64(HiveHeader.length)
            var sequence = log.sequence
            var applied = 0
            reading: while true {
                switch try LogEntry.read(log.source, at: place, sequence: sequence) {
                case .end: break reading
                case .torn(let why):
                    recovery.stoppedBecause = "change \(sequence) in \(log.source.name): \(why)"
                    break reading
                case .entry(let entry):
                    for page in entry.pages { overlay.replace(page.offset, page.count, by: page.place) }
                    effective.binsLength = entry.binsLength
                    effective.flags = effective.flags & ~1 | entry.flags & 1
                    place = entry.end
                    recovery.lastSequence = sequence
                    sequence &+= 1
                    applied += 1
                }
            }
            guard applied > 0 else {
                problems.append(
                    "\(log.source.name): \(recovery.stoppedBecause ?? "its first entry is not the one it should be")")
                break
            }
            recovery.entries += applied
            recovery.logs.append(log.source.name)
            header = effective
            if recovery.stoppedBecause != nil { break }
        }
        guard recovery.entries > 0, let header else { return nil }
        recovery.replaced = overlay.length
        let image = mended(header, sequence: recovery.lastSequence, overlay)
        return Outcome(image: image, state: .recovered(recovery))
    }

    // MARK: Logs with a dirty vector

    private mutating func applyVector(_ logs: [TransactionLog]) throws(Fault) -> Outcome? {
        // One that was made when the hive was written to last; the newest first.
        for log in logs.sorted(by: { TransactionLog.precedes($1.sequence, $0.sequence) }) {
            let time: FileTime?
            if let sound { time = sound.lastWritten } else { time = try timeOfFirstBin() }
            guard log.header.lastWritten == time else {
                problems.append(
                    "\(log.source.name): it was made at \(log.header.lastWritten), the hive at "
                        + (time.map { "\($0)" } ?? "an unknown time"))
                continue
            }
            var overlay = LogOverlay()
            do throws(TransactionLog.Problem) {
                try DirtyVector.apply(log, to: &overlay)
            } catch {
                problems.append("\(log.source.name): \(error.what)")
                continue
            }
            let image = mended(log.header, sequence: log.sequence, overlay)
            // These logs have no hashes: what they make of the hive must at least be one.
            do throws(Fault) {
                try image.checkBins()
            } catch {
                guard error.code == .hiveDamaged else { throw error }
                problems.append("\(log.source.name): with it the hive would be damaged (\(error.what))")
                continue
            }
            return Outcome(
                image: image,
                state: .recovered(
                    HiveRecovery(
                        format: .dirtyVector, logs: [log.source.name], entries: 1, lastSequence: log.sequence,
                        replaced: overlay.length, stoppedBecause: nil)))
        }
        return nil
    }

    /// A copy of the base block's time. Specification, "Hive bin", note 3.
    private func timeOfFirstBin() throws(Fault) -> FileTime? {
        guard source.length >= HiveImage.binsStart + 32 else { return nil }
        let head = try source.read(at: HiveImage.binsStart, count: 32)
        guard head.starts(with: "hbin".utf8) else { return nil }
        return FileTime(ticks: UInt64(head.word(at: 24)) << 32 | UInt64(head.word(at: 20)))
    }

    /// The hive as a log's base block describes it, with a base block that says it is clean.
    private func mended(_ log: HiveHeader, sequence: UInt32, _ overlay: LogOverlay) -> HiveImage {
        var block = storedBytes
        block += [UInt8](repeating: 0, count: Int(HiveImage.binsStart) - block.count)
        if sound == nil {
            block.replaceSubrange(0..<4, with: "regf".utf8)
            block.store(1, at: 32)
            block.store(1, at: 44)
        }
        block.store(sequence, at: 4)
        block.store(sequence, at: 8)
        block.store(UInt32(truncatingIfNeeded: log.lastWritten.ticks), at: 12)
        block.store(UInt32(truncatingIfNeeded: log.lastWritten.ticks >> 32), at: 16)
        block.store(log.majorVersion, at: 20)
        block.store(log.minorVersion, at: 24)
        block.store(0, at: 28)
        block.store(log.rootCell, at: 36)
        block.store(log.binsLength, at: 40)
        block.store(log.flags, at: 144)
        block.store(HiveHeader.checksum(block), at: 508)
        let header = HiveHeader(block) ?? log
        return HiveImage(source: source, header: header, baseBlock: block, overlay: overlay)
    }
}
