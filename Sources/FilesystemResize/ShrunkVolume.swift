// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
public import Findings
public import Geometry
public import PointDisk

/// A volume after its filesystem was shrunk on an overlay: what is to be written to a smaller place.
public struct ShrunkVolume: Sendable {
    /// The volume, as long as its new size.
    public let content: any BlockSource
    /// The bytes in use.
    public let used: ExtentList
    /// What the shrinking took.
    public let figures: OverlayFigures
    /// What the filesystem's own checker said afterwards.
    public let check: CheckVerdict
    /// What the user should know of it; empty for nothing.
    public let notices: [Finding]
}

/// The smallest size of a filesystem, found by trying.
public struct MeasuredMinimum: Hashable, Sendable, Codable {
    /// A size to which the filesystem was shrunk and found sound.
    public var size: ByteCount
    /// How that is known, a sentence fragment such as `resize2fs, 7 tries, each checked by e2fsck`.
    public var how: String
    /// What the try at that size took.
    public var figures: OverlayFigures
}
