// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Why a restore is not planned, beyond a target that is too small, in use or forbidden. All are found before the first
/// write.
extension FaultCode {
    /// A volume would have to become smaller, and nothing can make it so.
    public static let cannotShrink = FaultCode("volume.cannot-shrink", exit: .refused)
    /// A filesystem was not cleanly unmounted, and what is to be done with it needs that.
    public static let dirtyFilesystem = FaultCode("volume.dirty", exit: .refused)
    /// A volume holds a hibernated system, and what is to be done with it would destroy that.
    public static let hibernated = FaultCode("volume.hibernated", exit: .refused)
    /// An encrypted volume was not unlocked when it was imaged, and what is to be done needs to look inside.
    public static let needsUnlock = FaultCode("volume.locked", exit: .refused)
    /// A filesystem has features this program does not know.
    public static let filesystemNewer = FaultCode("volume.newer", exit: .refused)
    /// Nothing is known of a volume's content, so that it can only be copied as it is.
    public static let unknownRaw = FaultCode("volume.unknown", exit: .refused)
    /// A filesystem does not work on sectors of the target's size.
    public static let sectorSizeMismatch = FaultCode("target.sector-size", exit: .refused)
    /// A layout does not fit into the kind of table it would have.
    public static let tableTooLarge = FaultCode("table.too-large", exit: .refused)
    /// Nothing could start the system from the disk as it would be.
    public static let notBootable = FaultCode("boot.impossible", exit: .refused)
    /// A disk that is attached has the same identifiers as the target would have.
    public static let idCollision = FaultCode("id.collision", exit: .refused)
    /// A layer that lies on several volumes would be restored only in part.
    public static let containerPartial = FaultCode("container.partial", exit: .refused)
}
