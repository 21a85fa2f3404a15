// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Blocks
///
/// Things that hold numbered sectors, and layers of them: image files, block devices, memory; windows onto part of a
/// disk, copy-on-write overlays, and disks that fail on purpose (for tests).
///
/// Reading and writing are separate rights. A ``BlockSource`` cannot be written through; a disk that may be written is
/// a ``WritableDisk``, which cannot be copied and is claimed once. Offsets are bytes from the start of the source and
/// need not be aligned. Every call either fills the whole buffer or throws a ``Fault`` that names the place.
///
/// The room promises no caching and no ordering of writes except through ``BlockTarget/flush()``.
public import Findings
public import Geometry

/// Something sectors can be read from. Safe to read from several threads at once.
public protocol BlockSource: AnyObject, Sendable {
    /// What to call it in messages: a path, or a path and a partition.
    var name: String { get }
    /// Logical sector size.
    var sectorSize: SectorSize { get }
    /// Size in bytes.
    var length: ByteCount { get }
    /// Fills `buffer` from byte `offset`. Throws ``FaultCode/unreadable`` with the extent that could not be read.
    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault)
    /// The open file this source is a window of, for libraries that insist on one; `nil` where there is none.
    var file: FileWindow? { get }
}

/// Part of an open file.
public struct FileWindow: Sendable {
    /// The open descriptor; owned by the source it came from, which must outlive its use.
    public var descriptor: Int32
    /// Where the window starts in the file.
    public var offset: ByteCount
    /// Path the file was opened by.
    public var path: String
    /// Whether the file is a block device.
    public var isDevice: Bool

    /// A window of an open file.
    public init(descriptor: Int32, offset: ByteCount, path: String, isDevice: Bool) {
        self.descriptor = descriptor
        self.offset = offset
        self.path = path
        self.isDevice = isDevice
    }
}

/// Something sectors can be written to.
public protocol BlockTarget: BlockSource {
    /// Writes `bytes` at byte `offset`. Throws ``FaultCode/unwritable`` with the extent that could not be written.
    func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault)
    /// Makes `extent` read as zeros, the quickest way the target has.
    func zero(_ extent: Extent) throws(Fault)
    /// Tells the target that `extent` holds nothing of value; afterwards it reads as anything. May do nothing.
    func discard(_ extent: Extent) throws(Fault)
    /// Returns after everything written before has reached stable storage.
    func flush() throws(Fault)
    /// Forgets cached content, so that the next read comes from the device. May do nothing.
    func dropCaches() throws(Fault)
}

extension BlockSource {
    /// Whether `count` bytes at `offset` lie within the source.
    public func holds(_ count: Int, at offset: ByteCount) -> Bool {
        guard let count = ByteCount(exactly: count), let end = offset.adding(count) else { return false }
        return end <= length
    }

    /// Throws a fault unless `count` bytes at `offset` lie within the source.
    public func requireInside(_ count: Int, at offset: ByteCount) throws(Fault) {
        guard holds(count, at: offset) else {
            throw Fault(
                .diskDamaged,
                what: "\(count) bytes at byte \(offset.bytes) lie outside it; it ends at \(length.bytes).",
                place: name, remedy: "Something on the disk points past its end: check the disk's size and its table.")
        }
    }

    /// A copy of `count` bytes at `offset`. For small reads; `count` is refused above 64 MiB.
    public func bytes(at offset: ByteCount, count: Int) throws(Fault) -> [UInt8] {
        guard count >= 0, count <= 64 << 20 else {
            throw Fault(
                .diskDamaged, what: "A structure of \(count) bytes is implausible.", place: name,
                remedy: "The metadata there are damaged; the volume can still be imaged whole.")
        }
        try requireInside(count, at: offset)
        var result = [UInt8](repeating: 0, count: count)
        var span = result.mutableSpan
        var raw = unsafe span.mutableBytes
        try read(at: offset, into: &raw)
        return result
    }

    /// The sector at `lba`.
    public func sector(_ lba: LBA) throws(Fault) -> [UInt8] {
        guard let offset = lba.offset(sectorSize) else {
            throw Fault(
                .diskDamaged, what: "Sector \(lba.value) lies outside any disk.", place: name,
                remedy: "The table that names it is damaged.")
        }
        return try bytes(at: offset, count: Int(sectorSize.bytes))
    }

    /// Number of whole sectors.
    public var sectorCount: UInt64 { length.bytes / UInt64(sectorSize.bytes) }
}
