// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Rules on which the safety of sets rests.
///
/// Each has a place in this room where it is kept, and a test that notices when it is not. That the test does notice is
/// itself tested: by breaking the rule. Only tests can do that (`@testable import`), for the time of one call and its own
/// thread; nothing outside of the program reaches it.
enum SafetyRule: String, CaseIterable, Sendable {
    /// A file is flushed before it gets its final name.
    case fileFlush
    /// A file is flushed once more after it got its final name: FAT keeps its size and place in the entry of its folder.
    case renameFlush
    /// A folder is flushed after a file in it was renamed, made or removed.
    case folderFlush
    /// The folder a file was renamed out of is flushed too: FAT keeps the entry there until then.
    case temporaryFlush
    /// An unfinished file that may lie in the same place of the medium as a finished object is left alone.
    case sharedPlaces
    /// What was written is read back and compared.
    case readBack
    /// Every run that encrypts chooses a random salt of its own.
    case freshSalt
    /// Bytes of a unit that are not in use are zeroed before it is hashed and stored.
    case masking
    /// Lists and points are stored twice.
    case secondCopies
    /// A pack that is about to be removed is not built upon.
    case tombstones
    /// Unfinished files are locked by their writer.
    case leftoverLock
    /// A finished object is never replaced by another.
    case neverReplace
}

/// Which rules are kept: all, but in tests.
enum SafetyRules {
    @TaskLocal static var broken: Set<SafetyRule> = []

    /// Whether `rule` is kept.
    static func keep(_ rule: SafetyRule) -> Bool { !broken.contains(rule) }
}

/// What a folder store does to its medium, told to tests that compute what a power cut would leave.
enum FolderEvent: Sendable {
    case made(file: String)
    case wrote(file: String, offset: UInt64, bytes: [UInt8])
    case flushed(file: String)
    case renamed(from: String, to: String)
    case removed(file: String)
    case madeFolder(String)
    case flushedFolder(String)

    @TaskLocal static var observer: (@Sendable (FolderEvent) -> Void)?

    /// Tells the observer, if there is one.
    static func note(_ event: @autoclosure () -> FolderEvent) {
        if let observer { observer(event()) }
    }
}
