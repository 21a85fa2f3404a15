// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization
import Threads

/// Copies one recovery point into a writer, which then commits it.
struct PointCopy {
    let source: RecoveryPoint
    let writer: SetWriter
    /// Whether records can be taken over as they are: units have the same ids in both sets, and nothing encrypted has to be
    /// encrypted with other keys.
    let isVerbatim: Bool

    init(_ source: RecoveryPoint, into writer: SetWriter) {
        self.source = source
        self.writer = writer
        isVerbatim = PointCopy.isVerbatim(from: source.reader.set, to: writer.set)
    }

    static func isVerbatim(from source: SetHeader, to target: SetHeader) -> Bool {
        if source.isEncrypted || target.isEncrypted { return source == target }
        return source.unitSize == target.unitSize
    }

    /// The facts of the copy.
    static func facts(of point: RecoveryPoint) -> PointFacts {
        var facts = point.facts
        facts.origin = facts.origin ?? .init(set: point.reader.setID, point: point.summary.id)
        return facts
    }

    /// Copies all streams. `earlier` is a point of the target whose streams are compared with first.
    /// Throws `set.damaged` where the source is, `store.full`, `store.failed`, `interrupted`.
    func run(earlier: RecoveryPoint?, threads: Int, events: @escaping EventHandler) throws(Fault) {
        let total = source.summary.used
        let done = Counter()
        for index in source.file.streams.indices {
            let stream = PointStream(source, index: index, source.file.streams[index])
            let description = stream.description
            let before = earlier?.streams.first {
                $0.description.disk == description.disk && $0.description.kind == description.kind
                    && $0.length == description.length
            }
            let target = try writer.beginStream(description, parent: before)
            target.markUnreadable(stream.unreadable)
            let (source, writer, isVerbatim) = (self.source, self.writer, self.isVerbatim)
            try Workers.run(max(1, threads)) { (_, stop) throws(Fault) in
                let worker = try UnitWorker(writer)
                // Each thread has a reader of its own: one is used by one at a time.
                let own = PointStream(source, index: index, source.file.streams[index])
                let units = try SourceUnits(own)
                var bytes: [UInt8] = []
                while !stop.isSet, let piece = target.nextPiece() {
                    try Interruption.check()
                    if isVerbatim {
                        try worker.copy(piece, of: target, from: units)
                    } else {
                        let count = Int(piece.extent.length.bytes)
                        if bytes.count != count { bytes = [UInt8](repeating: 0, count: count) }
                        var span = bytes.mutableSpan
                        var raw = unsafe span.mutableBytes
                        try own.read(at: piece.extent.start, into: &raw)
                        try worker.add(piece, of: target, &raw)
                    }
                    let sum = done.add(piece.used.byteCount.bytes)
                    events(.progress(Progress(phase: "copying", done: ByteCount(sum), total: total)))
                }
            }
        }
    }

    private final class Counter: Sendable {
        private let sum = Atomic<UInt64>(0)
        func add(_ count: UInt64) -> UInt64 { sum.add(count, ordering: .relaxed).newValue }
    }
}
