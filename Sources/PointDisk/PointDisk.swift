// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # PointDisk
///
/// A recovery point as something sectors can be read from: ``PointVolume`` is one stream of it, ``PointDisk`` a whole disk
/// with its volumes where they lay. Whatever looks into an image reads it through these, with the same code as a real disk.
///
/// Every byte handed out has been checked against the hash of its unit. Bytes that were not in use when the point was made
/// read as zeros, and so do those that could not be read then; ``PointVolume/unreadable`` says which. The room promises no
/// speed for reading a whole disk (a restore goes through `PieceCursor`).
///
/// ``OverlayVolume`` is a volume that can be written to without a byte below it being changed, which is what a
/// filesystem's own resizer works on during a restore.
public import Blocks
public import Findings
public import Geometry
public import ImageStore
import MachineModel

/// A whole disk of a recovery point.
public final class PointDisk: BlockSource {
    /// What to call it in messages.
    public let name: String
    /// The disk's logical sector size.
    public let sectorSize: SectorSize
    /// The disk's size.
    public let length: ByteCount
    private let remainder: PointVolume?
    /// By their place on the disk.
    private let volumes: [(extent: Extent, volume: PointVolume)]

    /// Disk `index` of `point`, counted from 0. Throws `missing` when the point has no such disk.
    public init(_ point: RecoveryPoint, disk index: Int = 0) throws(Fault) {
        guard point.facts.disks.indices.contains(index) else {
            throw Fault(
                .missing,
                what: "The recovery point holds \(point.facts.disks.count) disks; there is no disk \(index + 1).",
                place: point.summary.shortID, remedy: "`relight show` lists the disks of a point.")
        }
        let model = point.facts.disks[index]
        name = "\(point.summary.shortID):\(model.path)"
        sectorSize = model.sectorSize
        length = model.size
        var remainder: PointVolume?
        var volumes: [(extent: Extent, volume: PointVolume)] = []
        for stream in point.streams where stream.description.disk == index {
            let volume = PointVolume(stream, sectorSize: model.sectorSize)
            switch stream.description.kind {
            case .remainder: remainder = volume
            case .volume: volumes.append((stream.description.extent, volume))
            }
        }
        self.remainder = remainder
        self.volumes = volumes.sorted { $0.extent.start < $1.extent.start }
    }

    /// No file.
    public var file: FileWindow? { nil }

    /// Fills `buffer` from byte `offset`. Throws `set.damaged`, `store.failed`.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        let wanted = Extent(from: offset, to: offset + ByteCount(UInt64(buffer.byteCount)))
        for index in 0..<buffer.byteCount { buffer.storeBytes(of: 0, toByteOffset: index, as: UInt8.self) }
        if let remainder {
            try read(
                remainder, wanted.intersection(Extent(from: .zero, to: remainder.length)), at: .zero, offset, &buffer)
        }
        for (extent, volume) in volumes {
            try read(volume, wanted.intersection(extent), at: extent.start, offset, &buffer)
        }
    }

    /// Copies `part` of the disk from a volume that begins at `start`.
    private func read(
        _ volume: PointVolume, _ part: Extent, at start: ByteCount, _ offset: ByteCount, _ buffer: inout MutableRawSpan
    ) throws(Fault) {
        guard !part.isEmpty, let from = (part.start - offset).int, let count = part.length.int else { return }
        var target = buffer._mutatingExtracting(from..<from + count)
        try volume.read(at: part.start - start, into: &target)
    }
}
