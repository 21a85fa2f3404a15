// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
public import FilesystemResize
public import Findings
public import Geometry
public import ImageStore
import LinuxDisks
public import MachineModel
public import PointDisk
import RestorePlanning
import Restoring

extension ScratchRoom {
    /// A quarter of the memory that is free now, at least 64 MiB; beyond that a temporary file in `folder`.
    public static func usual(folder: String? = nil) -> ScratchRoom {
        let free =
            KernelFiles.live.lines("/proc/meminfo").first { $0.hasPrefix("MemAvailable:") }
            .flatMap { UInt64($0.filter(\.isNumber)) } ?? 0
        return ScratchRoom(memory: max(.mebibytes(64), ByteCount.kibibytes(free / 4)), folder: folder)
    }
}

extension Restore {
    /// The smallest size of volume `volume` of the point's disk `disk` (counted from 0), found by shrinking overlays of it.
    /// Where it can be shrunk to `wanted`, that is the answer, after one try; else several are made. Throws what
    /// `Shrinker` throws: `unsupported` where the kind cannot be shrunk, `tool.missing`, `tool.failed`, `scratch.full`.
    public static func measureMinimum(
        _ point: RecoveryPoint, disk: Int, volume: Int, wanted: ByteCount? = nil, room: ScratchRoom,
        events: @escaping EventHandler
    ) throws(Fault) -> MeasuredMinimum {
        let disks = point.facts.disks
        guard disks.indices.contains(disk), let model = disks[disk].volumes.first(where: { $0.number == volume }) else {
            throw Fault(
                .missing, what: "The recovery point holds no volume \(volume) of disk \(disk + 1).",
                place: point.summary.shortID, remedy: "`relight show` lists what a point holds.")
        }
        let source = try PointSource(point).volume(disk: disk, volume: volume)
        return try Shrinker(model.kind, room: room, events: events)
            .measureMinimum(source, used: model.used, wanted: wanted)
    }

    /// The point's disks as they were imaged, with the smallest sizes of those volumes of the disks `chosen` measured that
    /// can be shrunk. A volume that its resizer refuses keeps what is known of it, and a notice says why.
    public static func measured(
        _ point: RecoveryPoint, _ chosen: Set<Int>, room: ScratchRoom, events: @escaping EventHandler
    ) throws(Fault) -> [DiskModel] {
        var disks = point.facts.disks
        for index in disks.indices where chosen.contains(index) {
            for (position, volume) in disks[index].volumes.enumerated() {
                guard FilesystemTools.tool(for: volume.kind)?.canShrink == true, volume.wholeBecause == nil else {
                    continue
                }
                do throws(Fault) {
                    let found = try measureMinimum(
                        point, disk: index, volume: volume.number, room: room, events: events)
                    disks[index].volumes[position].minimum = found.size
                    disks[index].volumes[position].minimumIs = "measured"
                } catch {
                    guard [.toolFailed, .toolMissing, .unsupported].contains(error.code) else { throw error }
                    events(
                        .finding(
                            Finding(
                                .notice, "volume.not-measured", what: "\(error.what) \(error.remedy)",
                                place: "\(disks[index].path):\(volume.number)")))
                }
            }
        }
        return disks
    }

    /// What shrinking takes, as far as it can be known before: about so much data must move as lie beyond the new ends.
    static func scratchNeeds(_ point: RecoveryPoint, _ plan: RestorePlan, _ room: ScratchRoom) -> [Finding] {
        var result: [Finding] = []
        for disk in plan.disks {
            for volume in disk.volumes {
                guard case .shrink(let size, let tool) = volume.treatment,
                    let stream = point.streams.first(where: {
                        $0.description.disk == disk.sourceIndex && $0.description.kind == .volume(volume.sourceNumber)
                    })
                else { continue }
                let beyond = stream.description.used.intersection(Extent(from: size, to: stream.length)).byteCount
                // Measured: up to an eighth of what is moved is changed on the way; the rest is kept as references.
                let need = ByteCount.mebibytes(1) + ByteCount(beyond.bytes / 8 + stream.length.bytes / 2048)
                let fits = need <= room.memory
                result.append(
                    Finding(
                        fits || room.folder != nil ? .notice : .warning, "volume.shrinks",
                        what:
                            "\(tool) shrinks it to \(size) before anything is written, and moves about \(beyond). That "
                            + "takes about \(need) of memory"
                            + (fits
                                ? "."
                                : room.folder.map { " or of a temporary file in \($0)." }
                                    ?? ", more than there may be: name a folder for a temporary file with --scratch."),
                        place: "\(disk.sourcePath):\(volume.sourceNumber)"))
            }
        }
        return result
    }
}
