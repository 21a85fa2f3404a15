// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemResize
import Findings
public import Geometry
import MachineModel
public import PointDisk
import RestorePlanning

/// What was done to a volume so that it fits its new place, before the first write to any target.
public struct ReshapeReport: Hashable, Sendable, Encodable {
    /// The program, `resize2fs`; `relight` where no program is needed.
    public var by: String
    /// The volume's new size.
    public var size: ByteCount
    /// What the filesystem's own checker said of it then; `nil` where there is none.
    public var check: String?
    /// What went through the overlay and what it took.
    public var took: OverlayFigures

    /// For people: `shrunk by resize2fs to 240 MiB, 75 MiB moved, which took 2.1 MiB of memory`.
    public var words: String {
        let room = took.file == .zero ? "" : " and \(took.file) of temporary file"
        if by == "relight" { return "made anew for \(size)" }
        if by.hasPrefix("mkfs") {
            return
                "made anew by \(by) for \(size), \(took.moved) of files copied, which took \(took.memory) of memory\(room)"
        }
        return "shrunk by \(by) to \(size), \(took.moved) moved, which took \(took.memory) of memory\(room)"
    }
}

/// Makes what is written to a place where the volume as it was imaged does not fit. All of it happens before the first
/// write to any target, on overlays; the volume below stays as it was imaged.
enum Reshaping {
    /// Throws unless what the plan does with `volume` can be done here: `unsupported`, `tool.missing`, `plan.refused`.
    static func require(_ volume: VolumePlan) throws(Fault) {
        switch volume.treatment {
        case .copy: return
        case .shrink(let size, _):
            guard let tool = FilesystemTools.tool(for: volume.kind), tool.canShrink else { throw cannot(volume) }
            try tool.requireShrinking()
            guard size <= volume.target.length, size <= volume.source.length, size > .zero,
                size.isMultiple(of: SectorSize.s512.count)
            else {
                throw Fault(
                    .planRefused, what: "\(Restorer.name(volume)) cannot be shrunk to \(size.bytes) bytes.",
                    remedy: "Make the plan again from this point: `relight plan`.")
            }
        case .recreate:
            if volume.kind == .swap { return }
            guard let maker = FilesystemMakers.maker(for: volume.kind) else { throw cannot(volume) }
            try maker.require()
        }
    }

    private static func cannot(_ volume: VolumePlan) -> Fault {
        Fault(
            .unsupported,
            what:
                "The plan asks for \(Restorer.name(volume)) (\(volume.kind.rawValue)) to be made smaller or anew; this "
                + "version cannot do that.", remedy: "Make another plan: `relight plan`.")
    }

    /// What is written of `volume` where that is not what was imaged; `nil` where it is.
    static func made(
        of volume: VolumePlan, disk: Int, sectors: SectorSize, _ source: any RestoreSource, room: inout ScratchRoom,
        events: @escaping EventHandler
    ) throws(Fault) -> BlockStream? {
        switch volume.treatment {
        case .copy: return nil
        case .shrink(let size, _):
            return try shrunk(
                source, disk: disk, volume: volume.sourceNumber, kind: volume.kind, to: size, room: &room,
                events: events)
        case .recreate:
            let size = volume.target.length
            guard volume.kind != .swap else {
                return try swap(source, disk: disk, volume: volume.sourceNumber, to: size, events: events)
            }
            let original = try source.stream(disk: disk, volume: volume.sourceNumber)
            let recreator = try Recreator(volume.kind, room: room, events: events)
            let made = try recreator.recreate(
                try source.volume(disk: disk, volume: volume.sourceNumber), size: size, sectors: sectors)
            return noted(made, by: recreator.program, original, room: &room, events: events)
        }
    }

    private static func noted(
        _ made: ShrunkVolume, by program: String, _ original: any RestoreStream, room: inout ScratchRoom,
        events: EventHandler
    ) -> BlockStream {
        // The next one always has room for its tables; where there is a file, the rest goes there.
        room.memory = max(.mebibytes(64), room.memory.subtracting(made.figures.memory) ?? .zero)
        for notice in made.notices { events(.finding(notice)) }
        let report = ReshapeReport(
            by: program, size: made.content.length, check: made.check.evidence, took: made.figures)
        events(.step("\(made.content.name): \(report.words)"))
        return BlockStream(made.content, used: made.used, unreadable: original.unreadable, report)
    }

    /// The volume shrunk to `size` bytes by its own resizer. What the overlay takes is taken off `room`.
    static func shrunk(
        _ source: any RestoreSource, disk: Int, volume: Int, kind: ContentKind, to size: ByteCount,
        room: inout ScratchRoom, events: @escaping EventHandler
    ) throws(Fault) -> BlockStream {
        let original = try source.stream(disk: disk, volume: volume)
        let shrinker = try Shrinker(kind, room: room, events: events)
        let below = try source.volume(disk: disk, volume: volume)
        let shrunk: ShrunkVolume
        do throws(Fault) {
            shrunk = try shrinker.shrink(below, to: size)
        } catch {
            guard error.code == .toolFailed else { throw error }
            // On an overlay: no target has been touched.
            throw Fault(
                .cannotShrink, what: "\(error.what) Nothing was written.", place: error.place, remedy: error.remedy)
        }
        return noted(shrunk, by: shrinker.resizer, original, room: &room, events: events)
    }

    /// Swap space for `size` bytes with the identity of the volume.
    static func swap(
        _ source: any RestoreSource, disk: Int, volume: Int, to size: ByteCount, events: EventHandler
    ) throws(Fault) -> BlockStream {
        let below = try source.volume(disk: disk, volume: volume)
        let header = try SwapHeader(below)
        if header.isHibernated {
            events(
                .finding(
                    Finding(
                        .warning, "swap.hibernation-dropped",
                        what: "The hibernated system in it is not restored: the restored machine starts anew.",
                        place: below.name)))
        }
        let made = MadeVolume(
            try header.resized(to: size), length: size, name: below.name, sectorSize: below.sectorSize)
        return BlockStream(
            made, used: ExtentList(Extent(from: .zero, to: min(header.page, size))), unreadable: ExtentList(),
            ReshapeReport(by: "relight", size: size, check: nil, took: OverlayFigures()))
    }
}

/// A volume that begins with some bytes and is zero behind them.
private final class MadeVolume: BlockSource {
    let name: String
    let sectorSize: SectorSize
    let length: ByteCount
    private let head: [UInt8]

    init(_ head: [UInt8], length: ByteCount, name: String, sectorSize: SectorSize) {
        (self.head, self.length, self.name, self.sectorSize) = (head, length, name, sectorSize)
    }

    var file: FileWindow? { nil }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        let start = Int(clamping: offset.bytes)
        for index in 0..<buffer.byteCount {
            let (place, overflow) = start.addingReportingOverflow(index)
            buffer.storeBytes(
                of: !overflow && place < head.count ? head[place] : 0, toByteOffset: index, as: UInt8.self)
        }
    }
}
