// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Geometry

/// How thoroughly to verify.
public enum VerifyDepth: String, Sendable, Codable {
    /// Structure only: every file that is needed is there with its size, headers, footers, points and lists are sound.
    case quick
    /// Everything read back, decompressed and compared with its hashes.
    case full
}

/// What a verification found.
public struct VerifyReport: Hashable, Sendable {
    /// How thorough it was.
    public var depth: VerifyDepth
    /// The points that were checked, oldest first.
    public var points: [PointSummary] = []
    /// Number of pack files looked at, second copies included.
    public var packs = 0
    /// Number of records read back; 0 in a quick verification.
    public var records = 0
    /// Bytes of pack files read.
    public var read = ByteCount.zero
    /// Bytes that came out of decompression and matched their hashes.
    public var content = ByteCount.zero
    /// Everything that is damaged, in the order of files and offsets.
    public var damages: [Damage] = []

    /// Whether nothing is damaged, not even a copy.
    public var isSound: Bool { damages.isEmpty }
    /// Whether every byte of every point checked can be restored: only copies or unused data are damaged.
    public var isComplete: Bool { damages.allSatisfy { $0.losses.isEmpty && !$0.pointLost } }

    /// One damaged thing.
    public struct Damage: Hashable, Sendable {
        /// The file's name in the set.
        public var file: String
        /// Where in the file; `nil` when all of it is concerned.
        public var offset: ByteCount?
        /// A sentence that says what is wrong.
        public var what: String
        /// What cannot be restored because of it. Empty when a second copy stands in, or nothing refers to it.
        public var losses: [Loss] = []
        /// Whether both copies of a recovery point are damaged, so that the point is lost.
        public var pointLost = false
    }

    /// Part of a stream that cannot be restored.
    public struct Loss: Hashable, Sendable {
        /// The point's id.
        public var point: String
        /// The stream's index in the point.
        public var stream: Int
        /// The disk's index in the point.
        public var disk: Int
        /// What part of the disk the stream is.
        public var kind: StreamKind
        /// Used bytes that are lost, counted from the stream's start.
        public var extents: ExtentList
    }
}
