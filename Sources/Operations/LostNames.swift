// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import FilesystemMaps
public import Findings
public import Geometry
public import ImageStore
import MachineModel
import PointDisk

/// Tells which files of a volume damage to the set costs.
public struct LostNames: Sendable {
    /// Files named for each volume; more are counted.
    public static let most = 10
    /// Spent on one volume at most: walking through a large filesystem takes a while.
    private static let patience = Duration.seconds(30)

    private let reader: SetReader

    /// Names files in points of the set of `reader`.
    public init(_ reader: SetReader) { self.reader = reader }

    /// What lies at `extents` of a stream of the point `id`; `nil` where nothing can be named: outside of volumes, or when
    /// the point cannot be read. Throws `interrupted` only.
    public func at(
        _ extents: ExtentList, point id: String, stream index: Int, most: Int = LostNames.most
    ) throws(Fault) -> LostContent? {
        let point: RecoveryPoint
        do throws(Fault) {
            point = try reader.point(id)
        } catch {
            if error.code == .interrupted { throw error }
            return nil
        }
        let streams = point.streams
        guard streams.indices.contains(index) else { return nil }
        return try LostNames.at(extents, of: streams[index], most: most)
    }

    /// As ``at(_:point:stream:most:)``, for a stream that is open.
    public static func at(
        _ extents: ExtentList, of stream: PointStream, most: Int = LostNames.most
    ) throws(Fault) -> LostContent? {
        let disks = stream.point.facts.disks
        guard disks.indices.contains(stream.description.disk), case .volume(let number) = stream.description.kind else {
            return nil
        }
        let disk = disks[stream.description.disk]
        guard let kind = disk.volumes.first(where: { $0.number == number })?.kind else { return nil }
        let volume = PointVolume(stream, sectorSize: disk.sectorSize, damage: .isOfTheDisk)
        var limits = FileNames.Limits()
        limits.names = most
        let end = ContinuousClock.now + patience
        limits.stop = { ContinuousClock.now > end }
        return try FileNames.at(extents, of: volume, kind: kind, limits: limits)
    }
}

/// What damage costs one volume, or a disk outside its volumes, of one point.
public struct LostVolume: Sendable {
    /// The point's id.
    public let point: String
    /// The disk's index in the point.
    public let disk: Int
    /// The volume's number; `nil` outside of volumes.
    public let volume: Int?
    /// Used bytes that are lost, counted from the start of the volume.
    public let extents: ExtentList
    /// The files they belong to; `nil` where that cannot be told.
    public let content: LostContent?
}

extension LostVolume {
    /// What is lost, as a sentence.
    public var sentence: String {
        let place = volume.map { $0 == 0 ? "disk \(disk + 1)" : "volume \($0) of disk \(disk + 1)" }
        return "\(extents.byteCount.bytes) bytes of \(place ?? "disk \(disk + 1) outside its volumes") are lost"
            + (content?.line.map { ": \($0)." } ?? ".")
    }
}

extension LostNames {
    /// Spent on all volumes of a verification at most.
    private static let longest = Duration.seconds(180)

    /// Everything that the damages of `report` cost, by points and streams, newest points first. Throws `interrupted` only.
    public func all(_ report: VerifyReport, most: Int = LostNames.most) throws(Fault) -> [LostVolume] {
        struct Key: Hashable {
            var point: String
            var stream: Int
        }
        var extents: [Key: [Extent]] = [:]
        var sums: [Key: VerifyReport.Loss] = [:]
        for loss in report.damages.flatMap(\.losses) {
            let key = Key(point: loss.point, stream: loss.stream)
            sums[key] = loss
            extents[key, default: []] += loss.extents.extents
        }
        for (key, extents) in extents { sums[key]?.extents = ExtentList(extents) }
        let end = ContinuousClock.now + LostNames.longest
        var result: [LostVolume] = []
        for point in report.points.reversed() {
            for loss in sums.values.filter({ $0.point == point.id }).sorted(by: { $0.stream < $1.stream }) {
                let volume: Int? = if case .volume(let number) = loss.kind { number } else { nil }
                let content =
                    ContinuousClock.now > end
                    ? nil : try at(loss.extents, point: loss.point, stream: loss.stream, most: most)
                result.append(
                    LostVolume(
                        point: loss.point, disk: loss.disk, volume: volume, extents: loss.extents, content: content))
            }
        }
        return result
    }
}

extension LostContent {
    /// In one line: `/etc/passwd, /var/log/x and 3 more`; `nil` when nothing is named.
    public var line: String? {
        let named = items.filter { $0.kind != .free }.map(\.name)
        guard !named.isEmpty else { return items.isEmpty ? nil : "unused space" }
        return named.joined(separator: ", ") + (more > 0 ? " and \(more) more" : "")
    }
}
