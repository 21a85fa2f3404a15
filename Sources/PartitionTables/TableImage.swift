// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
public import Findings
public import Geometry

/// Consecutive sectors of a table.
public struct TableRegion: Hashable, Sendable {
    /// First sector.
    public var at: LBA
    /// Whole sectors.
    public var bytes: [UInt8]
    /// What they are, e.g. `backup GPT header`.
    public var what: String

    /// A region.
    public init(at: LBA, bytes: [UInt8], what: String) {
        self.at = at
        self.bytes = bytes
        self.what = what
    }
}

/// Every byte of a partition table, in the order it is to be committed.
public struct TableImage: Hashable, Sendable {
    /// Sector size the regions are in.
    public var sectorSize: SectorSize
    /// What is written together; a flush follows each batch. Sector 0 is the last batch: until it is there, the disk has
    /// its old table or none, afterwards the new one.
    public var batches: [[TableRegion]]

    /// An image.
    public init(sectorSize: SectorSize, batches: [[TableRegion]]) {
        self.sectorSize = sectorSize
        self.batches = batches
    }

    /// All bytes it covers.
    public var extents: ExtentList {
        ExtentList(
            batches.joined().compactMap { region in
                region.at.offset(sectorSize).flatMap {
                    Extent(start: $0, length: ByteCount(UInt64(region.bytes.count)))
                }
            })
    }

    /// Writes the batches, flushing after each. Throws `target.unwritable`.
    public func write(to target: any BlockTarget) throws(Fault) {
        for batch in batches {
            for region in batch {
                try target.write(at: try offset(of: region, on: target), unsafe region.bytes.span.bytes)
            }
            try target.flush()
        }
    }

    /// Reads everything back. Throws `target.read-back` where a byte differs.
    public func verify(on source: any BlockSource) throws(Fault) {
        for region in batches.joined() {
            let at = try offset(of: region, on: source)
            let seen = try source.bytes(at: at, count: region.bytes.count)
            guard seen == region.bytes else {
                let first = zip(seen, region.bytes).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? 0
                throw Fault(
                    .readBack,
                    what:
                        "The \(region.what) at sector \(region.at.value) reads back differently from byte \(first) on.",
                    place: source.name, remedy: "The disk does not keep what is written to it: use another one.",
                    extent: Extent(start: at, length: ByteCount(UInt64(region.bytes.count))))
            }
        }
    }

    private func offset(of region: TableRegion, on disk: any BlockSource) throws(Fault) -> ByteCount {
        guard disk.sectorSize == sectorSize, let offset = region.at.offset(sectorSize) else {
            throw Fault(
                .planRefused,
                what: "The table is made for sectors of \(sectorSize.bytes) bytes, the disk has sectors of "
                    + "\(disk.sectorSize.bytes) bytes.", place: disk.name,
                remedy: "Make the plan for this disk.")
        }
        return offset
    }
}
