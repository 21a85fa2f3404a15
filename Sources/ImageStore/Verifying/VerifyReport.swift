// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Geometry

/// How thoroughly to verify.
public enum VerifyDepth: String, Sendable, Codable {
    /// Structure only: every file that is needed is there with its size, headers, footers, points and lists are sound.
    case quick
    /// The structure, and every stored byte compared with the hashes the packs carry themselves. Needs no key: nothing is
    /// decrypted or decompressed but what turns out damaged.
    case stored
    /// The structure, and a share of the records read back, decompressed and compared with their hashes.
    case share
    /// Everything read back, decompressed and compared with its hashes.
    case full
}

/// Which records a verification of a share reads.
public struct VerifyShare: Hashable, Sendable, Codable {
    /// How many of a hundred records; 1 … 100.
    public var percent: Int
    /// Which of them. Records are spread over a circle by their pack and place; the share is the arc of `percent` that
    /// begins at `seed` times `percent`: as many seeds that follow each other as make up 100 percent read everything.
    public var seed: UInt64

    /// A share.
    public init(percent: Int, seed: UInt64) {
        self.percent = min(max(percent, 1), 100)
        self.seed = seed
    }

    /// Whether the record at `offset` of the pack named by `high` and `low` is read.
    func includes(_ high: UInt64, _ low: UInt64, _ offset: UInt32) -> Bool {
        var value = high ^ low.byteSwapped ^ UInt64(offset) &* 0x9E37_79B9_7F4A_7C15
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        let place = (value ^ value >> 31) % 100
        let start = seed % 100 * UInt64(percent) % 100
        return (place + 100 - start) % 100 < UInt64(percent)
    }
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
    /// Bytes of all the packs looked at, as far as they are records and parity.
    public var total = ByteCount.zero
    /// Which share of the records was read; `nil` unless that was asked for.
    public var share: VerifyShare?
    /// Whether the set was open: without its key, lists and content of an encrypted set are not looked into.
    public var isOpen = true
    /// Points of which only the stored bytes were checked, because the set was not open.
    public var closedPoints = 0
    /// Key slots that are sound in at least one copy.
    public var keySlots = 0
    /// Key slots of which no copy is sound.
    public var lostKeySlots = 0
    /// Packs that points need and that are not here, by name.
    public var missingPacks: [String] = []
    /// Packs of lists among those looked at: there are none but where a backup was nearly or quite done.
    public var listPacks = 0
    /// Bytes of the packs looked at, second copies left out.
    public var packBytes = ByteCount.zero
    /// Whether packs are here but no recovery point that refers to them: those of an interrupted first backup, or the points
    /// are gone.
    public var isOrphaned: Bool {
        points.isEmpty && closedPoints == 0 && packs > 0 && !damages.contains(where: \.pointLost)
    }
    /// Packs that are damaged, marked for removal and needed by nothing, by name: what a backup left whose read-back failed.
    /// They are no damage of the set.
    public var condemned: [String] = []
    /// Records that were damaged when they were read first, and sound when they were read again.
    public var secondReadings: [SecondReading] = []
    /// Everything that is damaged, in the order of files and offsets.
    public var damages: [Damage] = []

    /// Whether nothing is damaged, not even a copy.
    public var isSound: Bool { damages.isEmpty }
    /// Whether every byte of every point checked can be restored: only copies or unused data are damaged. As far as the
    /// depth tells; of a set that was not open, what a damage costs is not known.
    public var isComplete: Bool { isOpen ? damages.allSatisfy { $0.losses.isEmpty && !$0.pointLost } : isSound }

    /// A record that was read right the second time only: the medium holds the right bytes, but the way to it is at fault.
    public struct SecondReading: Hashable, Sendable {
        /// The file's name in the set.
        public var file: String
        /// Where in the file.
        public var offset: ByteCount
        /// A sentence that says what to suspect.
        public static let what = "Read right the second time only: suspect the cable, the port or the memory."
    }

    /// One damaged thing.
    public struct Damage: Hashable, Sendable {
        /// The file's name in the set.
        public var file: String
        /// The place it lies in, where the set lies in several and it is there; `nil` else.
        public var place: String?
        /// Where in the file; `nil` when all of it is concerned.
        public var offset: ByteCount?
        /// A sentence that says what is wrong.
        public var what: String
        /// What cannot be restored because of it. Empty when a second copy stands in, or nothing refers to it.
        public var losses: [Loss] = []
        /// Whether both copies of a recovery point are damaged, so that the point is lost.
        public var pointLost = false
        /// Whether the whole file is not there.
        public var isMissing = false
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
