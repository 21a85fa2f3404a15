// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
import FilesystemMaps
public import Findings
public import Geometry
import Glibc
import LinuxDisks
public import MachineModel
public import PointDisk
import Tools

/// Shrinks filesystems on copy-on-write overlays.
public struct Shrinker: Sendable {
    /// The kind of the filesystem.
    public let kind: ContentKind
    /// What its overlay may take.
    public let room: ScratchRoom
    private let tool: any FilesystemTool
    private let events: EventHandler

    /// A shrinker for `kind`. Throws `unsupported` where there is none, `tool.missing`.
    public init(_ kind: ContentKind, room: ScratchRoom, events: @escaping EventHandler) throws(Fault) {
        guard let tool = FilesystemTools.tool(for: kind) else { throw FilesystemTools.cannotShrink(kind.rawValue) }
        try tool.requireShrinking()
        self.kind = kind
        self.room = room
        self.tool = tool
        self.events = events
    }

    /// The program that shrinks.
    public var resizer: String { tool.resizer?.name ?? kind.rawValue }

    /// The filesystem in `volume` shrunk to `size` bytes, a multiple of the sector size, and found sound by its own
    /// checker. Nothing of `volume` changes. Throws `tool.failed` with the resizer's or the checker's words, `scratch.full`,
    /// what reading `volume` throws, `interrupted`, `no-access`.
    public func shrink(_ volume: any BlockSource, to size: ByteCount) throws(Fault) -> ShrunkVolume {
        guard size <= volume.length, size.isMultiple(of: volume.sectorSize.count), size > .zero else {
            throw Fault(
                .system, what: "\(size.bytes) bytes is no size for a volume of \(volume.length.bytes).",
                place: volume.name, remedy: "This is an error in the program: please report it.")
        }
        let overlay = OverlayVolume(volume, blockSize: Shrinker.blockSize(volume), room: room)
        events(.step("\(volume.name): shrinking \(kind.rawValue) from \(volume.length) to \(size) with \(resizer)"))
        let tool = tool
        let events = events
        let verdict = try presented(overlay) { (path) throws(Fault) -> CheckVerdict in
            try tool.shrink(path, to: size)
            guard unsafe truncate(path, off_t(truncatingIfNeeded: size.bytes)) == 0 else {
                throw Fault(
                    .system, what: "The file of the volume cannot be cut short: \(errorText(errno)).",
                    place: volume.name, remedy: "Look into the kernel log (`dmesg`).")
            }
            try tool.finishShrinking(overlay, to: size)
            events(.step("\(volume.name): checking the shrunk \(tool.kinds.contains(.ntfs) ? "NTFS" : "filesystem")"))
            return try tool.check(path)
        }
        guard verdict.isClean else {
            throw Fault(
                .toolFailed, what: "Shrunk to \(size), its own checker is not content: \(verdict.evidence)",
                place: volume.name, remedy: "Give it more room, or restore to a disk as large as the original.")
        }
        let content = try Window(overlay, Extent(from: .zero, to: size), name: volume.name)
        let used = try used(of: overlay, content)
        return ShrunkVolume(
            content: content, used: used, figures: overlay.figures, check: verdict,
            notices: (tool.noticeAfterShrinking.map {
                [Finding(.notice, "filesystem.shrunk", what: $0, place: volume.name)]
            }) ?? [])
    }

    /// Presents `overlay` as a file and calls `body` with its path. A fault of the overlay goes before what a program made
    /// of it.
    private func presented<T: Sendable>(
        _ overlay: OverlayVolume, _ body: @escaping @Sendable (_ path: String) throws(Fault) -> T
    ) throws(Fault) -> T {
        let events = events
        return try PrivateMounts.run { () throws(Fault) -> T in
            let file = try VolumeFile(overlay)
            let ticker = Ticker {
                events(.progress(Progress(phase: "shrinking", done: overlay.figures.written, total: nil)))
            }
            defer { ticker.end() }
            do throws(Fault) {
                let result = try body(file.path)
                // A program may go on after a failed write.
                if let fault = file.fault { throw fault }
                return result
            } catch {
                if error.code != .interrupted, let fault = file.fault { throw fault }
                throw error
            }
        }
    }

    /// The used bytes of what was shrunk.
    private func used(of overlay: OverlayVolume, _ content: any BlockSource) throws(Fault) -> ExtentList {
        var map = try FilesystemMaps.map(content)
        if map.wholeBecause != nil {
            // The resizer's mark alone keeps the map from being believed: read it without the mark.
            let copy = OverlayVolume(content, blockSize: overlay.blockSize, room: room)
            let tool = tool
            try presented(copy) { (path) throws(Fault) in try tool.readyForMapping(path) }
            map = try FilesystemMaps.map(copy)
        }
        // The last sector may hold a copy of the boot sector.
        let last = Extent(from: content.length.subtracting(content.sectorSize.count) ?? .zero, to: content.length)
        return map.used.union(ExtentList(last))
    }

    /// The block that the filesystem moves as a whole, as far as it matters.
    private static func blockSize(_ volume: any BlockSource) -> ByteCount {
        let found = (try? FilesystemMaps.map(volume))?.blockSize ?? .kibibytes(4)
        return min(max(found, ByteCount(512)), .kibibytes(4))
    }

    // MARK: The smallest size

    /// Most tries of a search.
    private static let most = 12

    /// The smallest size of the filesystem in `volume`, a multiple of 1 MiB, found by shrinking fresh overlays of it. It
    /// holds `used` bytes. Where `wanted` is given and it can be shrunk to that, that is the answer, after a single try.
    /// Throws what ``shrink(_:to:)`` throws, `tool.failed` when it cannot be shrunk at all.
    public func measureMinimum(
        _ volume: any BlockSource, used: ByteCount, wanted: ByteCount? = nil
    ) throws(Fault) -> MeasuredMinimum {
        var tries = 0
        func attempt(_ size: ByteCount) throws(Fault) -> OverlayFigures? {
            tries += 1
            do throws(Fault) {
                return try shrink(volume, to: size).figures
            } catch {
                // Only what the resizer or the checker said is an answer.
                guard error.code == .toolFailed else { throw error }
                return nil
            }
        }
        func found(_ size: ByteCount, _ figures: OverlayFigures) -> MeasuredMinimum {
            MeasuredMinimum(
                size: size,
                how: "\(resizer), \(tries) \(tries == 1 ? "try" : "tries"), checked by \(tool.checker.name)",
                figures: figures)
        }
        let grain = ByteCount.mebibytes(1)
        let whole = volume.length.roundedDown(to: volume.sectorSize.count)
        if let wanted = wanted?.roundedDown(to: volume.sectorSize.count), wanted <= whole,
            let figures = try attempt(wanted)
        {
            return found(wanted, figures)
        }
        let family = tool
        let overlay = OverlayVolume(volume, blockSize: .kibibytes(4), room: room)
        if let least = try presented(overlay, { (path) throws(Fault) in try family.leastSize(path) }) {
            // What it names is nearly always possible; a little above it always.
            for extra in [ByteCount.zero, .mebibytes(4), .mebibytes(32)] {
                guard let size = least.adding(extra)?.roundedUp(to: grain), size <= whole else { break }
                if let figures = try attempt(size) { return found(size, figures) }
            }
        }
        // Between a size that is too small and one that is possible.
        var low = used.roundedDown(to: grain)
        var high = whole
        guard var best = try attempt(high) else {
            throw Fault(
                .toolFailed, what: "\(resizer) cannot resize it at all.", place: volume.name,
                remedy: "Check the imaged volume with \(tool.checker.name), and image it again.")
        }
        let near = max(grain, ByteCount(whole.bytes / 100))
        // It is rarely far above what is used.
        var next = low + ByteCount((high.bytes - min(low.bytes, high.bytes)) / 8)
        while high > low, high - low > near, tries < Shrinker.most {
            let size = next.roundedDown(to: grain)
            guard size > low, size < high else { break }
            if let figures = try attempt(size) {
                high = size
                best = figures
            } else {
                low = size
            }
            next = low + ByteCount((high - low).bytes / 2)
        }
        return found(high, best)
    }
}
