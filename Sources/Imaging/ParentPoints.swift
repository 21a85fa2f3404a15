// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Geometry
public import ImageStore
public import MachineModel
import Synchronization

/// The earlier points of a set, to choose for each stream the one it is compared with.
///
/// The choice decides how fast what has not changed is recognised, and never what is stored; so a guess will do.
public final class ParentPoints: Sendable {
    private let reader: SetReader
    /// Newest first.
    private let points: [PointSummary]
    private let opened = Mutex<[String: [PointStream]]>([:])

    /// The points of the set behind `reader`. A point that cannot be read is no parent.
    public init(_ reader: SetReader) throws(Fault) {
        self.reader = reader
        points = try reader.points().points.reversed()
    }

    /// The stream of the newest readable point that holds the same part of the same disk: the disk with the same serial
    /// number or WWN, or, where either side has none, the same path and size; with the same kind, place and length.
    public func parent(of description: StreamDescription, on disk: DiskModel) -> PointStream? {
        var looked = 0
        for point in points {
            let same = point.facts.disks.indices.filter { ParentPoints.isSame(point.facts.disks[$0], disk) }
            guard !same.isEmpty else { continue }
            // A volume that is in none of the last few points is new, and opened points take memory.
            looked += 1
            if looked > 3 { return nil }
            let found = streams(point.id).first { stream in
                same.contains(stream.description.disk) && stream.description.kind == description.kind
                    && stream.description.extent == description.extent
            }
            if let found { return found }
        }
        return nil
    }

    /// Whether two descriptions are, as far as can be told, of one disk.
    static func isSame(_ known: DiskModel, _ disk: DiskModel) -> Bool {
        guard known.size == disk.size else { return false }
        if let (left, right) = both(known.wwn, disk.wwn) { return left == right }
        if let (left, right) = both(known.serial, disk.serial) { return left == right && known.model == disk.model }
        return known.path == disk.path
    }

    private static func both(_ left: String?, _ right: String?) -> (String, String)? {
        guard let left, let right, !left.isEmpty, !right.isEmpty else { return nil }
        return (left, right)
    }

    /// A point's streams, opened once. Only points that have the right disk get here.
    private func streams(_ id: String) -> [PointStream] {
        opened.withLock { opened in
            if let known = opened[id] { return known }
            let streams = (try? reader.point(id))?.streams ?? []
            opened[id] = streams
            return streams
        }
    }
}
