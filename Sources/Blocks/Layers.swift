// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Synchronization

/// A part of another source, presented as a source of its own: a partition, for instance.
public final class Window: BlockSource {
    /// What to call it in messages.
    public let name: String
    /// Logical sector size of the disk below.
    public let sectorSize: SectorSize
    /// Size in bytes.
    public let length: ByteCount
    private let base: any BlockSource
    private let start: ByteCount

    /// The bytes of `base` in `extent`. Throws when the extent passes the end of `base`.
    public init(_ base: any BlockSource, _ extent: Extent, name: String) throws(Fault) {
        guard extent.end <= base.length else {
            throw Fault(
                .diskDamaged,
                what: "It ends at byte \(extent.end.bytes), past the end of the disk at \(base.length.bytes).",
                place: name,
                remedy: "The disk is smaller than its table says: image the original disk, or `--volume` the others.")
        }
        self.base = base
        self.start = extent.start
        self.length = extent.length
        self.name = name
        self.sectorSize = base.sectorSize
    }

    /// The same file, further on.
    public var file: FileWindow? {
        guard var window = base.file, let offset = window.offset.adding(start) else { return nil }
        window.offset = offset
        return window
    }

    /// Fills `buffer` from byte `offset` of the window.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        try base.read(at: start + offset, into: &buffer)
    }
}

/// A disk in memory, for tests and small structures.
public final class MemoryDisk: BlockTarget {
    /// What to call it in messages.
    public let name: String
    /// Logical sector size.
    public let sectorSize: SectorSize
    /// Size in bytes.
    public let length: ByteCount
    private let content: Mutex<[UInt8]>

    /// A disk holding `bytes`.
    public init(_ bytes: [UInt8], sectorSize: SectorSize = .s512, name: String = "memory") {
        self.length = ByteCount(UInt64(bytes.count))
        self.content = Mutex(bytes)
        self.sectorSize = sectorSize
        self.name = name
    }

    /// No file.
    public var file: FileWindow? { nil }

    /// A copy of the whole content.
    public var bytes: [UInt8] { content.withLock { $0 } }

    /// Fills `buffer` from byte `offset`.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        let count = buffer.byteCount
        let copy = content.withLock { Array($0[Int(offset.bytes)..<Int(offset.bytes) + count]) }
        unsafe buffer.withUnsafeMutableBytes { pointer in unsafe pointer.copyBytes(from: copy) }
    }

    /// Writes `bytes` at `offset`.
    public func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
        try requireInside(bytes.byteCount, at: offset)
        let copy = unsafe bytes.withUnsafeBytes { unsafe Array($0) }
        content.withLock { $0.replaceSubrange(Int(offset.bytes)..<Int(offset.bytes) + copy.count, with: copy) }
    }

    /// Fills `extent` with zeros.
    public func zero(_ extent: Extent) throws(Fault) {
        guard let count = extent.length.int else { return }
        try requireInside(count, at: extent.start)
        content.withLock {
            $0.replaceSubrange(
                Int(extent.start.bytes)..<Int(extent.end.bytes), with: repeatElement(0, count: count))
        }
    }

    /// Fills `extent` with a pattern that is not zero: what was discarded may read as anything.
    public func discard(_ extent: Extent) throws(Fault) {
        guard let count = extent.length.int else { return }
        try requireInside(count, at: extent.start)
        content.withLock {
            $0.replaceSubrange(
                Int(extent.start.bytes)..<Int(extent.end.bytes), with: repeatElement(0xDB, count: count))
        }
    }

    /// Nothing to do.
    public func flush() throws(Fault) {}
    /// Nothing to do.
    public func dropCaches() throws(Fault) {}
}

/// A disk with sectors that are not to be read: for tests, and to spare a failing disk further tries at places known to
/// be bad.
public final class Faulty: BlockSource {
    private let base: any BlockSource
    private let bad: ExtentList

    /// `base`, failing wherever a read touches `bad`.
    public init(_ base: any BlockSource, bad: ExtentList) {
        self.base = base
        self.bad = bad
    }

    /// The name of the disk below.
    public var name: String { base.name }
    /// The sector size of the disk below.
    public var sectorSize: SectorSize { base.sectorSize }
    /// The size of the disk below.
    public var length: ByteCount { base.length }
    /// No file: nobody may read around the faults.
    public var file: FileWindow? { nil }

    /// Fills `buffer`, or throws where it touches a bad sector.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        let wanted = Extent(from: offset, to: offset + ByteCount(UInt64(buffer.byteCount)))
        if let hit = bad.intersection(wanted).extents.first {
            throw Fault(
                .unreadable, what: "Reading at byte \(hit.start.bytes) failed: Input/output error.", place: name,
                remedy: "The disk may be failing: image it now with `--on-read-error skip`, then replace it.",
                extent: Extent(from: hit.start, to: wanted.end))
        }
        try base.read(at: offset, into: &buffer)
    }
}
