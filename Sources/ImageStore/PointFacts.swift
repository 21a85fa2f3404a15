// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
public import MachineModel

/// What a recovery point tells about the machine it holds.
public struct PointFacts: Hashable, Sendable, Codable {
    /// The name given by the user; may be empty.
    public var name: String
    /// Seconds since 1970 (UTC) when the backup began, by the clock of the machine that made it.
    public var time: UInt64
    /// Version of the program that made it.
    public var tool: String
    /// The machine.
    public var machine: MachineFacts
    /// The disks, in the order the streams count them.
    public var disks: [DiskModel]
    /// What was noticed while imaging: what was skipped, unreadable or imaged whole, and why.
    public var findings: [Finding]
    /// How what had not changed was told from what had; `nil` in points that do not say: all was read.
    public var compare: Comparison?

    /// The point it is a copy of; `nil` when it is none.
    public var origin: Origin?

    /// Which point another one is a copy of. A copy of a copy names the first.
    public struct Origin: Hashable, Sendable, Codable {
        /// The set in which it was made: 32 hexadecimal digits.
        public var set: String
        /// Its id there.
        public var point: String

        /// The point `point` of the set `set`.
        public init(set: String, point: String) {
            self.set = set
            self.point = point
        }
    }

    /// How a backup finds out what has changed since the point before.
    public enum Comparison: String, Hashable, Sendable, Codable {
        /// Everything in use is read and compared.
        case full
        /// What the filesystem's metadata says is unchanged was taken over from the point before without being read.
        case metadata
    }

    /// Facts of a new point.
    public init(
        name: String, time: UInt64, tool: String, machine: MachineFacts, disks: [DiskModel], findings: [Finding] = [],
        compare: Comparison? = nil
    ) {
        self.name = name
        self.time = time
        self.tool = tool
        self.machine = machine
        self.disks = disks
        self.findings = findings
        self.compare = compare
    }
}

/// What part of a disk a stream holds.
public enum StreamKind: Hashable, Sendable {
    /// The volume with this number (0: the whole disk is the volume). The stream's bytes count from the volume's start.
    case volume(Int)
    /// Everything outside of the volumes: tables, gaps. The stream covers the whole disk; its used map names the areas.
    case remainder
}

/// One stream of a recovery point: an extent of a disk, and which of its bytes matter.
public struct StreamDescription: Hashable, Sendable {
    /// Index of the disk in ``PointFacts/disks``.
    public var disk: Int
    /// What part of the disk it is.
    public var kind: StreamKind
    /// Where it lies on the disk. The stream's offset 0 is the extent's start.
    public var extent: Extent
    /// The bytes that are stored, counted from the stream's start. All others are undefined and read as zeros.
    public var used: ExtentList

    /// A description. `used` must lie within `extent.length`.
    public init(disk: Int, kind: StreamKind, extent: Extent, used: ExtentList) {
        self.disk = disk
        self.kind = kind
        self.extent = extent
        self.used = used
    }

    /// Bytes in the stream.
    public var length: ByteCount { extent.length }
}

/// A recovery point in brief.
public struct PointSummary: Hashable, Sendable {
    /// 32 hexadecimal digits: the first half of the hash over everything in the point.
    public var id: String
    /// Number of the point in its set, from 1; points made at once by two machines may share one. The highest is the
    /// latest, whatever the clocks said.
    public var number: UInt64
    /// What it tells about the machine.
    public var facts: PointFacts
    /// Bytes that are in use in all its streams.
    public var used: ByteCount
    /// Bytes of used areas that could not be read when the point was made.
    public var unreadable: ByteCount

    /// The first ten digits of the id, for people.
    public var shortID: String { String(id.prefix(10)) }
}
