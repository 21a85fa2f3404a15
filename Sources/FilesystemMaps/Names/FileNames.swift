// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
public import Findings
public import Geometry
public import MachineModel

/// Tells which files lie at places of a volume.
public enum FileNames {
    /// How much is named, and how much work that may be.
    public struct Limits: Sendable {
        /// Files and directories named; the others are counted.
        public var names = 100
        /// Inodes or clusters looked at.
        public var steps: UInt64 = 1 << 32
        /// Places that are not to be read again, for on a failing disk each costs seconds; `nil` for all that are damaged.
        public var spared: ExtentList?
        /// Asked before each read: when true, nothing more is read, and what is known then is the result.
        public var stop: @Sendable () -> Bool = { false }

        /// The limits Relight uses.
        public init() {}
    }

    /// What lies at `damaged` of a volume that holds a filesystem of `kind`. Reads metadata only. Content, however
    /// damaged, is no error: what cannot be told is among the notes. Throws `interrupted` only.
    public static func at(
        _ damaged: ExtentList, of volume: any BlockSource, kind: ContentKind, limits: Limits = Limits()
    ) throws(Fault) -> LostContent {
        let inside = damaged.intersection(Extent(from: .zero, to: volume.length))
        guard !inside.isEmpty else { return LostContent() }
        switch kind {
        case .ext2, .ext3, .ext4, ContentKind(rawValue: "ext4dev"):
            return try ExtNames.at(inside, of: volume, limits)
        case .fat: return try FATNames.at(inside, of: volume, limits)
        case .swap: return LostContent(items: [LostContent.Item(.metadata, "swap space", inside.byteCount)])
        default:
            return .untold(
                inside, because: "Which files lie there cannot be told: there is no reader for \(kind.rawValue).")
        }
    }
}
