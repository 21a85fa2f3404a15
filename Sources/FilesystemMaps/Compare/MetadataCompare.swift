// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
public import Findings
public import Geometry
public import MachineModel

/// Tells by metadata alone which bytes of a volume are what they were at an earlier time.
///
/// The answer rests on the kernel's habit to set a file's change time at each change. It cannot see: a change of which a
/// crash lost the time but not the data, a change made to the blocks behind the filesystem's back, and what a clock set
/// back makes look old to the very nanosecond. So it is for those who ask for it, and it is left out where there is any
/// sign of such things; where in doubt a byte is not among the unchanged ones.
public enum MetadataCompare {
    /// What a comparison found.
    public enum Outcome: Hashable, Sendable {
        /// Bytes of regular files that are as they were, and how many files. Never among them: any metadata, directories,
        /// the journal, links, what two inodes claim.
        case unchanged(ExtentList, files: Int)
        /// Nothing can be said; why not, as a part of a sentence.
        case unknown(String)
    }

    /// A file changed less than so many seconds before the old image was made is not trusted: what came after may bear
    /// the same time.
    static let margin: UInt64 = 5

    /// The bytes of `new` that are the same in `old`.
    ///
    /// - Parameters:
    ///   - new: the volume as it is now, not mounted.
    ///   - old: the same volume as it was, unused bytes undefined.
    ///   - kind: what lies in both.
    ///   - imaged: when `old` was read, seconds since 1970.
    /// Throws `interrupted` only.
    public static func compare(
        _ new: any BlockSource, with old: any BlockSource, kind: ContentKind, imaged: UInt64
    ) throws(Fault) -> Outcome {
        switch kind {
        case .ext2, .ext3, .ext4: return try ExtCompare.compare(new, old, imaged: imaged)
        case .fat: return .unknown("this filesystem's times are too coarse")
        default: return .unknown("there is no reader for the metadata of \(kind.rawValue)")
        }
    }
}
