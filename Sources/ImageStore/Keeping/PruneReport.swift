// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry

/// How to reclaim space.
public struct PruneOptions: Sendable {
    /// A pack is rewritten when at least this percentage of its records is not needed: 1 ... 100.
    public var garbagePercent = 20
    /// … and at least so many bytes.
    public var leastGarbage = ByteCount.mebibytes(4)
    /// Size no new pack exceeds; also the free space that is needed to rewrite packs.
    public var packSize = ByteCount.gibibytes(1)
    /// Seconds for which a pack that is not needed is kept while backups run that might refer to it.
    public var grace = Announced.grace
    /// Find out what would be done, and write nothing at all.
    public var isRehearsal = false
    /// A clock nobody sets, in seconds; tests have their own.
    var seconds: @Sendable () -> Int = { Renewals.now }
    /// No recovery point of the set is left anywhere: what is stored goes even where no point is found.
    public var allPointsForgotten = false

    /// The defaults: 20 percent, 4 MiB, packs of 1 GiB, 24 hours.
    public init() {}
}

/// What reclaiming space found and did; in a rehearsal, what it would do.
public struct PruneReport: Hashable, Sendable {
    /// A pack and what became of it.
    public struct Pack: Hashable, Sendable {
        /// Its name in the set.
        public var name: String
        /// Bytes it takes, with its second copy.
        public var size: ByteCount
        /// Bytes of it that are not needed.
        public var garbage: ByteCount
        /// Why, in words; empty where the list says it.
        public var reason = ""
    }
    /// Whether nothing was written.
    public var isRehearsal = false
    /// Recovery points that were looked at.
    public var points = 0
    /// Packs that were looked at.
    public var packs = 0
    /// Bytes all packs took before.
    public var stored = ByteCount.zero
    /// Bytes in them that no point needs.
    public var garbage = ByteCount.zero
    /// Packs removed because nothing needs them.
    public var removed: [Pack] = []
    /// Packs whose needed records were moved, and which were removed.
    public var rewritten: [Pack] = []
    /// Packs with bytes that are not needed which were not removed, and why.
    public var kept: [Pack] = []
    /// Bytes of records that were moved.
    public var moved = ByteCount.zero
    /// Bytes of packs removed, less those of packs written.
    public var freed = ByteCount.zero
    /// Backups at work, which keep packs from being removed.
    public var writers = 0
    /// What else is worth knowing.
    public var findings: [Finding] = []
}
