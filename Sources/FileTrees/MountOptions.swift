// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Options with which the kernel mounts a filesystem for reading without touching its journal. Others than these are not
/// mounted.
enum MountOptions {
    /// By libblkid's names. Alternatives are tried in order: kernels differ in what they call it.
    static let known: [String: [String]] = [
        // A restored copy may have the UUID of one that is mounted.
        "xfs": ["norecovery,nouuid"],
        // The top of the tree, so that every subvolume is a folder.
        "btrfs": ["subvolid=5,rescue=nologreplay", "subvolid=5,nologreplay"],
        "f2fs": ["norecovery", "disable_roll_forward"],
    ]
}
