// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
public import Geometry
import Glibc

/// The right to write to one disk. It cannot be copied, is claimed once, and ends with ``finish()``.
///
/// Claiming opens a block device with `O_EXCL`, so a mounted or otherwise held disk is refused, and nobody can mount it
/// while the right is held.
public struct WritableDisk: ~Copyable, Sendable {
    /// The disk for writing and reading back; use it only while the right is held.
    public let blocks: FileTarget

    /// Claims `path`. Throws `missing`, `no-access`, `wrong-kind`, `target.in-use`.
    public init(claiming path: String, fileSectorSize: SectorSize = .s512) throws(Fault) {
        self.blocks = try FileTarget(path: path, fileSectorSize: fileSectorSize)
    }

    /// Flushes and gives the right up.
    public consuming func finish() throws(Fault) { try blocks.flush() }
}

/// A plain file or block device that is written to. Made by ``WritableDisk`` only.
public final class FileTarget: BlockTarget {
    /// The path it was opened by.
    public let name: String
    /// Logical sector size.
    public let sectorSize: SectorSize
    /// Size in bytes.
    public let length: ByteCount
    private let handle: FileHandle

    fileprivate init(path: String, fileSectorSize: SectorSize) throws(Fault) {
        let handle = try FileHandle(path: path, writable: true, exclusive: true)
        (self.length, self.sectorSize) = try handle.geometry(fileSectorSize: fileSectorSize)
        self.handle = handle
        self.name = path
    }

    /// The file itself.
    public var file: FileWindow? {
        FileWindow(descriptor: handle.descriptor, offset: .zero, path: name, isDevice: handle.isDevice)
    }

    /// Fills `buffer` from byte `offset`.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        try handle.read(at: offset, into: &buffer)
    }

    /// Writes `bytes` at `offset`.
    public func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
        try requireInside(bytes.byteCount, at: offset)
        try handle.write(at: offset, bytes)
    }

    /// Zeroes `extent`: by the device's own command, by a hole in a file, or by writing zeros.
    public func zero(_ extent: Extent) throws(Fault) {
        guard !extent.isEmpty else { return }
        guard let end = extent.start.adding(extent.length), end <= length else {
            throw Fault(
                .system, what: "\(extent.length.bytes) bytes at \(extent.start.bytes) lie outside it.", place: name,
                remedy: "This is an error in the program: please report it.")
        }
        let grain = sectorSize.count
        let quick: Int32
        if handle.isDevice {
            quick =
                extent.start.isMultiple(of: grain) && extent.length.isMultiple(of: grain)
                ? relight_zero_out(handle.descriptor, extent.start.bytes, extent.length.bytes) : -EINVAL
        } else {
            quick = relight_punch_hole(handle.descriptor, extent.start.bytes, extent.length.bytes)
        }
        if quick == 0 { return }
        let piece = [UInt8](repeating: 0, count: 1 << 20)
        var position = extent.start
        while position < extent.end {
            let count = min((extent.end - position).int ?? piece.count, piece.count)
            try unsafe handle.write(at: position, piece.span.bytes.extracting(0..<count))
            position += ByteCount(UInt64(count))
        }
    }

    /// Discards `extent` where the target can; a file's range becomes a hole.
    public func discard(_ extent: Extent) throws(Fault) {
        guard !extent.isEmpty, extent.end <= length else { return }
        if handle.isDevice {
            _ = relight_discard(handle.descriptor, extent.start.bytes, extent.length.bytes)
        } else {
            _ = relight_punch_hole(handle.descriptor, extent.start.bytes, extent.length.bytes)
        }
    }

    /// fsync(2). An error here means that data written before may be lost, so it is never ignored.
    public func flush() throws(Fault) {
        while fsync(handle.descriptor) != 0 {
            if errno == EINTR { continue }
            throw Fault(
                .unwritable, what: "Flushing failed: \(errorText(errno)). Data written before may be lost.",
                place: name,
                remedy: "Do not trust this target: check its cable and the kernel log, then restore again.")
        }
    }

    /// Drops the kernel's cached pages so that the next read comes from the device.
    public func dropCaches() throws(Fault) {
        if handle.isDevice { _ = relight_flush_buffers(handle.descriptor) }
        _ = posix_fadvise(handle.descriptor, 0, 0, POSIX_FADV_DONTNEED)
    }

    /// Has the kernel read the device's partition table again; does nothing for a file.
    public func rereadPartitions() throws(Fault) {
        guard handle.isDevice else { return }
        var status: Int32 = 0
        for attempt in 0..<20 {
            status = relight_reread_partitions(handle.descriptor)
            if status != -EBUSY { break }
            if attempt < 19 { usleep(100_000) }
        }
        guard status == 0 || status == -EINVAL else {
            throw Fault(
                .system, what: "The kernel did not accept the new partition table: \(errorText(-status)).", place: name,
                remedy: "Nothing is lost: restart the machine, and the new table is used.")
        }
    }
}
