// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings

extension FaultCode {
    /// A hook, layout or lock file is wrong.
    public static let mediaDescription = FaultCode("media.description", exit: .usage)
    /// The package archive cannot be reached or does not hold what is needed.
    public static let mediaArchive = FaultCode("media.archive", exit: .store)
    /// The packages of the archive are not those of the lock file, and only those were allowed.
    public static let mediaLock = FaultCode("media.lock", exit: .refused)
    /// Something a hook names is not in the downloaded packages.
    public static let mediaContent = FaultCode("media.content", exit: .failed)
    /// The image is larger than the limit.
    public static let mediaTooLarge = FaultCode("media.too-large", exit: .refused)
    /// A file of the build cannot be written.
    public static let mediaUnwritable = FaultCode("media.unwritable", exit: .failed)
    /// A program the builder runs failed.
    public static let mediaTool = FaultCode("media.tool", exit: .failed)
}
