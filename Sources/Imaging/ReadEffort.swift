// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization

/// What to do about a source sector that cannot be read.
public enum ReadErrorPolicy: String, Sendable, Codable, CaseIterable {
    /// End the backup.
    case fail
    /// Go on: the unreadable sectors are recorded and hold zeros.
    case skip
}

/// How much is done to read a bad place all the same, and for how long.
///
/// A span that fails is read again forwards in steps of 64 KiB, what fails of that in steps of 4 KiB, then sector by
/// sector; the sectors left are tried once backwards, and then ``retries`` times more. A failing disk may take seconds
/// for each try, so there is an end to it: when a bad place has taken ``regionTime``, what is left of it is not divided
/// any further; when all bad places together have taken ``totalTime``, each further one is tried once as a whole.
public struct ReadEffort: Sendable {
    /// Further rounds over the single sectors left, after one forwards and one backwards.
    public var retries = 2
    /// Time for one bad place (a piece of at most 256 KiB).
    public var regionTime = Duration.seconds(30)
    /// Time for all bad places of the backup together.
    public var totalTime = Duration.seconds(600)
    /// Time to find out afterwards which files lost data.
    public var namingTime = Duration.seconds(120)
    /// The clock: time since some moment. Tests give their own.
    public var now: @Sendable () -> Duration

    /// The effort Relight makes unless told otherwise.
    public init() {
        let start = ContinuousClock.now
        now = { ContinuousClock.now - start }
    }
}

/// The time that the bad places of one backup have taken, shared by all threads.
final class BadPlaceTime: Sendable {
    let effort: ReadEffort
    private let spent = Mutex(Duration.zero)

    init(_ effort: ReadEffort) { self.effort = effort }

    /// Adds time.
    func add(_ time: Duration) { spent.withLock { $0 += time } }

    /// Whether no time is left for any bad place.
    var isOver: Bool { spent.withLock { $0 } >= effort.totalTime }
}

/// What of a piece could not be read.
struct LostBytes: Sendable {
    /// All of it.
    var unreadable = ExtentList()
    /// What of it was not tried sector by sector, for want of time.
    var givenUp = ExtentList()

    /// Adds what another piece lost.
    mutating func add(_ other: LostBytes) {
        unreadable = unreadable.union(other.unreadable)
        givenUp = givenUp.union(other.givenUp)
    }
}
