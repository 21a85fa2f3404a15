// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry

/// What came of writing a point into an archive.
public struct ArchiveReport: Sendable {
    /// The point that was archived.
    public var source: PointSummary
    /// The point in the archive: the same content under an id of its own.
    public var point: PointSummary
    /// The archive's files, in order.
    public var files: [String]
    /// Bytes in all files.
    public var size: ByteCount
    /// What was read, new, shared and stored.
    public var statistics: SetWriter.Statistics
}

/// Writes one recovery point into one file that holds everything it needs and is read wherever a set is.
///
/// The archive is a replica of the set with this point only (`relight copy --like` into a tar file): the same set id, keys
/// and key slots; frames as they are stored, in new packs, and only those the point needs; lists and the point made anew
/// for the new places. So it is a complete set in itself and any reader of the format reads it; the point has an id of its
/// own and its facts name the one it was made from. Packs are written straight into the file: no copy of the data lies
/// anywhere else, and memory does not grow with the point.
public enum PointArchive {
    /// How to write an archive.
    public struct Options: Sendable {
        /// The most bytes of a file; `nil` for one file.
        public var partSize: ByteCount?
        /// The folder that unpacking makes; empty for none.
        public var folder = ""
        /// Seconds since 1970, the time of all members.
        public var time: UInt64
        /// Whether the archive is read back from the medium before it gets its name.
        public var readBack = true
        /// Number of threads.
        public var threads = 2

        /// The defaults: one file.
        public init(time: UInt64) { self.time = time }
    }

    /// Writes `point` to `path` (or to `path`.001, …). A file that exists is never replaced; the name exists only once all
    /// was written and read back.
    ///
    /// Throws `target.forbidden` when there is such a file, `set.damaged` when the point is, `store.full`, `store.failed`,
    /// `usage`, `interrupted`; nothing is kept then.
    public static func write(
        _ point: RecoveryPoint, to path: String, options: Options, events: @escaping EventHandler = { _ in }
    ) throws(Fault) -> ArchiveReport {
        let archive = try ArchiveWriter(
            path, partSize: options.partSize, folder: options.folder, time: options.time)
        return try write(point, to: archive, options, SetWriter.Options(), events)
    }

    /// Writes into an archive that was begun; `writing` for tests.
    static func write(
        _ point: RecoveryPoint, to archive: ArchiveWriter, _ options: Options, _ writing: SetWriter.Options,
        _ events: @escaping EventHandler
    ) throws(Fault) -> ArchiveReport {
        let store = ArchivingStore(archive)
        do throws(Fault) {
            var writing = writing
            let replica = try SetReplica(point.reader)
            writing.replica = replica
            // Lists are kept in memory until their pack is sealed.
            writing.listSize = .mebibytes(16)
            let writer = try SetWriter(store, options: writing, events: events)
            let summary: PointSummary
            do throws(Fault) {
                try PointCopy(point, into: writer).run(earlier: nil, threads: options.threads, events: events)
                summary = try writer.commit(
                    PointCopy.facts(of: point), number: point.summary.number, readBack: false, threads: options.threads,
                    events: events)
            } catch {
                writer.abandon()
                throw error
            }
            var files: [String] = []
            try store.finish { (name) throws(Fault) in
                files = options.partSize == nil ? [store.name] : try ArchiveFile.names(store.name, like: name)
                if options.readBack { try readBack(name, store.name, replica, options.threads, events) }
            }
            return ArchiveReport(
                source: point.summary, point: summary, files: files, size: store.size, statistics: writer.statistics)
        } catch {
            store.abandon()
            throw error
        }
    }

    /// Reads all of the archive from the medium, as a restore would.
    private static func readBack(
        _ name: String, _ path: String, _ replica: SetReplica, _ threads: Int, _ events: @escaping EventHandler
    ) throws(Fault) {
        events(.step("reading the archive back"))
        let bad: String
        do throws(Fault) {
            let store = try ArchiveStore(name)
            store.dropCaches()
            let report = try SetReader(store) { (_) in replica.keys }.verify(.full, threads: threads, events: events)
            guard let damage = report.damages.first else { return }
            bad = "\(damage.file): \(damage.what)"
        } catch {
            guard error.code != .interrupted else { throw error }
            bad = error.what
        }
        throw Fault(
            .storeFailed, what: "The archive reads back differently from what was written (\(bad)).", place: path,
            remedy: "Do not trust this medium or its cable; test the memory too. Nothing of the archive is kept.")
    }
}
