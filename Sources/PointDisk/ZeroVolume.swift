// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
public import Findings
public import Geometry

/// A volume of zeros, for an overlay in which something new is made.
public final class ZeroVolume: BlockSource {
    /// What to call it in messages.
    public let name: String
    /// Logical sector size.
    public let sectorSize: SectorSize
    /// Bytes in the volume.
    public let length: ByteCount

    /// `length` bytes of zeros.
    public init(length: ByteCount, sectorSize: SectorSize, name: String) {
        (self.length, self.sectorSize, self.name) = (length, sectorSize, name)
    }

    /// No file.
    public var file: FileWindow? { nil }

    /// Fills `buffer` with zeros.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        _ = unsafe buffer.withUnsafeMutableBytes { unsafe $0.initializeMemory(as: UInt8.self, repeating: 0) }
    }
}
