// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Imaging
///
/// Brings the used blocks of surveyed disks into an image set. Each thread takes a whole piece of a volume: reads what
/// is in use, and gives it to the set, which masks, hashes, compares, compresses and stores it.
///
/// The source is only read. Bytes that are not in use are neither stored nor needed: where they cannot be read it does
/// not matter. A used sector that cannot be read ends the backup, or is recorded and reported, as the caller chose; it is
/// never passed over in silence.
public import Blocks
public import DiskSurvey
public import Findings
import FilesystemMaps
public import Geometry
public import ImageStore
import MachineModel
import Synchronization
import Threads

/// A disk to be imaged.
public struct ImagedDisk: Sendable {
    /// Its bytes.
    public var source: any BlockSource
    /// What is on it.
    public var survey: SurveyedDisk
    /// Numbers of the volumes to image; `nil` for all.
    public var volumes: Set<Int>?

    /// A disk to be imaged.
    public init(source: any BlockSource, survey: SurveyedDisk, volumes: Set<Int>? = nil) {
        self.source = source
        self.survey = survey
        self.volumes = volumes
    }
}

/// Images disks.
public enum Imager {
    /// Gives everything in use on `disks` to `writer`, without sealing the point. Returns what was noticed: what could
    /// not be read, and which files that was, are losses with the code `source.unreadable`.
    /// Throws `source.unreadable` under the policy `fail`, and what the writer throws.
    ///
    /// - Parameters:
    ///   - parents: the earlier points to compare with; without them all is looked up in the set's index.
    ///   - unchanged: the bytes of a volume that need not be read because they are as they were in the parent, counted from
    ///     the volume's start. Asked once for each volume that has a parent.
    public static func image(
        _ disks: [ImagedDisk], into writer: SetWriter, onReadError policy: ReadErrorPolicy,
        effort: ReadEffort = ReadEffort(), parents: ParentPoints? = nil,
        unchanged: ((ImagedDisk, SurveyedVolume, PointStream) throws(Fault) -> ExtentList)? = nil,
        events: @escaping EventHandler
    ) throws(Fault) -> [Finding] {
        let total = disks.reduce(ByteCount.zero) { sum, disk in
            disk.chosen.reduce(sum + disk.survey.remainder.byteCount) { $0 + $1.map.used.byteCount }
        }
        let done = Mutex(ByteCount.zero)
        let findings = Mutex<[Finding]>([])
        let time = BadPlaceTime(effort)
        var losses: [Loss] = []
        let report: @Sendable (Finding) -> Void = { finding in
            findings.withLock { $0.append(finding) }
            events(.finding(finding))
        }
        for (index, disk) in disks.enumerated() {
            let path = disk.survey.model.path
            var streams: [(StreamWriter, any BlockSource, String, ContentKind?)] = []
            let whole = Extent(from: .zero, to: disk.source.length)
            let rest = StreamDescription(disk: index, kind: .remainder, extent: whole, used: disk.survey.remainder)
            let model = disk.survey.model
            streams.append(
                (try writer.beginStream(rest, parent: parents?.parent(of: rest, on: model)), disk.source, path, nil))
            for volume in disk.chosen {
                let number = volume.model.number
                let name = number == 0 ? path : "\(path):\(number)"
                let window = try Window(disk.source, volume.model.extent, name: name)
                let description = StreamDescription(
                    disk: index, kind: .volume(number), extent: volume.model.extent, used: volume.map.used)
                let parent = parents?.parent(of: description, on: model)
                let stream = try writer.beginStream(description, parent: parent)
                if let parent, stream.hasParent, let unchanged { stream.trust(try unchanged(disk, volume, parent)) }
                streams.append((stream, window, name, volume.map.identity.kind))
            }
            for (stream, source, name, kind) in streams {
                if stream.description.kind != .remainder {
                    events(
                        .step(
                            "\(name): imaging \(stream.description.used.byteCount) in use of \(stream.description.length)"
                        ))
                }
                let reader = PieceReader(source: source, policy: policy, time: time)
                let lost = try image(stream, with: reader, writer) { piece in
                    let sum = done.withLock { sum in
                        sum += piece
                        return sum
                    }
                    events(.progress(Progress(phase: "imaging", done: sum, total: total)))
                }
                guard !lost.unreadable.isEmpty else { continue }
                let loss = Loss(source: source, name: name, kind: kind, lost: lost)
                loss.extents(effort).forEach(report)
                losses.append(loss)
            }
        }
        // Only now, for a failing disk may not live long: its data came first.
        for loss in losses {
            events(.step("\(loss.name): looking for the files that lost data"))
            try loss.names(effort).forEach(report)
        }
        return findings.withLock { $0 }
    }

    /// Images one stream; returns what could not be read.
    private static func image(
        _ stream: StreamWriter, with reader: PieceReader, _ writer: SetWriter,
        progress: @escaping @Sendable (ByteCount) -> Void
    ) throws(Fault) -> LostBytes {
        let lost = Mutex(LostBytes())
        try Workers.run(Workers.processors) { (_, stop) throws(Fault) in
            let worker = try UnitWorker(writer)
            var buffer = [UInt8](repeating: 0, count: 256 << 10)
            while !stop.isSet, let next = stream.nextPiece() {
                try Interruption.check()
                let piece = try worker.takeOver(next, of: stream)
                guard let count = piece.extent.length.int else { return }
                if count > buffer.count { buffer = [UInt8](repeating: 0, count: count) }
                var span = buffer.mutableSpan
                var all = unsafe span.mutableBytes
                var bytes = all._mutatingExtracting(0..<count)
                if !piece.toRead.isEmpty {
                    let bad = try reader.read(piece.toRead, from: piece.extent.start, into: &bytes)
                    for extent in bad.unreadable.extents { stream.markUnreadable(extent) }
                    if !bad.unreadable.isEmpty { lost.withLock { $0.add(bad) } }
                }
                try worker.add(piece, of: stream, &bytes)
                progress(piece.used.byteCount)
            }
        }
        return lost.withLock { $0 }
    }
}

extension ImagedDisk {
    /// The volumes to image, in the disk's order.
    var chosen: [SurveyedVolume] {
        survey.volumes.filter { volumes?.contains($0.model.number) ?? true }
    }
}
