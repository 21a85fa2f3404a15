// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry

/// A partition's node, addressed by places on its disk. What lies outside of it cannot be reached.
final class PartTarget: BlockTarget {
    let name: String
    let sectorSize: SectorSize
    let length: ByteCount
    private let base: any BlockTarget
    private let start: ByteCount

    /// `base` is the part of a disk of `length` bytes that begins at `start`.
    init(_ base: any BlockTarget, at start: ByteCount, of length: ByteCount) {
        name = base.name
        sectorSize = base.sectorSize
        self.base = base
        self.start = start
        self.length = length
    }

    /// No file: its places are not the node's.
    var file: FileWindow? { nil }

    private func place(_ offset: ByteCount) throws(Fault) -> ByteCount {
        guard let place = offset.subtracting(start) else {
            throw Fault(
                .system, what: "Byte \(offset.bytes) of the disk lies before the partition.", place: name,
                remedy: "This is an error in the program: please report it.")
        }
        return place
    }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try base.read(at: place(offset), into: &buffer)
    }
    func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) { try base.write(at: place(offset), bytes) }
    func zero(_ extent: Extent) throws(Fault) {
        let from = try place(extent.start)
        try base.zero(Extent(from: from, to: from + extent.length))
    }
    func discard(_ extent: Extent) throws(Fault) {
        let from = try place(extent.start)
        try base.discard(Extent(from: from, to: from + extent.length))
    }
    func flush() throws(Fault) { try base.flush() }
    func dropCaches() throws(Fault) { try base.dropCaches() }
}
