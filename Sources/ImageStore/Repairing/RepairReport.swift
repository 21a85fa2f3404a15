// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Geometry

/// What is damaged in a set, how it can be repaired, and what came of it.
public struct RepairReport: Hashable, Sendable {
    /// Where the right bytes come from.
    public enum Source: Hashable, Sendable {
        /// The pack's own parity; so many of its blocks of 4 KiB are damaged.
        case parity(blocks: Int)
        /// The other copy of the file, by name.
        case copy(String)
        /// The pack's records: only what follows from them is damaged.
        case records
        /// The set header, of which every pack and point holds a copy.
        case header
        /// A list of what the set holds, from which the catalogue is made.
        case listing
    }

    /// What is, or was, done about a damaged file.
    public enum Outcome: Hashable, Sendable {
        /// It can be repaired; nothing was done yet.
        case planned
        /// It is again what it was, byte for byte.
        case repaired
        /// It cannot be repaired as a whole; a sentence that says why. With parity as the source, a part of it can.
        case impossible(String)
    }

    /// A damaged or missing file.
    public struct Item: Hashable, Sendable {
        /// Its name in the set.
        public var file: String
        /// The place it lies in, where the set lies in several and it is there; `nil` else.
        public var place: String?
        /// Its size as far as it is there; `nil` when it is missing.
        public var size: ByteCount?
        /// A sentence that says what is wrong with it.
        public var what: String
        /// Where the right bytes come from; `nil` when from nowhere.
        public var source: Source?
        /// Where the set lies in several places, the one the copy lies in that it is made from.
        public var sourcePlace: String?
        /// What is or was done.
        public var outcome: Outcome
        /// Whether it is a pack that was marked: no backup builds upon it any more, so the next one stores anew what its
        /// source still holds of it.
        public var isCondemned = false
    }

    /// Damaged and missing files, in the order of their names.
    public var items: [Item] = []
    /// Number of files that were looked at.
    public var files = 0
    /// Bytes that were read.
    public var read = ByteCount.zero

    /// Whether nothing is damaged, or nothing any more.
    public var isSound: Bool { items.allSatisfy { $0.outcome == .repaired } }
    /// Files that can be repaired and were not yet.
    public var planned: Int { items.count { $0.outcome == .planned } }
    /// Files that were repaired.
    public var repaired: Int { items.count { $0.outcome == .repaired } }
    /// Damaged files that no backup builds upon any more.
    public var condemned: Int { items.count { $0.isCondemned } }
    /// Files that cannot be repaired.
    public var impossible: Int { items.count - planned - repaired }
}
