// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Synchronization

/// An announcement that ends with its last holder, at the latest, on any store.
final class HeldAnnouncement: Sendable {
    private let base: any Announcement
    private let seconds: @Sendable () -> Int
    private let renewed: Atomic<Int>

    /// Holds `base`. `seconds` is a clock nobody sets.
    init(_ base: any Announcement, seconds: @escaping @Sendable () -> Int = { Renewals.now }) {
        self.base = base
        self.seconds = seconds
        renewed = Atomic(seconds())
    }

    deinit { base.end() }

    var id: String { base.id }
    func end() { base.end() }

    /// To be called all along: says about every hour that the owner still runs, for those who can only judge by age. Looks
    /// at the clock only, else.
    ///
    /// Throws `set.left-for-dead` when the announcement was taken away. That it cannot be renewed is left to the next
    /// try: 23 remain.
    func keep() throws(Fault) {
        let now = seconds()
        let last = renewed.load(ordering: .relaxed)
        guard now - last >= Renewals.interval,
            renewed.compareExchange(expected: last, desired: now, ordering: .relaxed).exchanged
        else { return }
        do throws(Fault) { try base.renew() } catch {
            guard error.code == .leftForDead else { return }
            throw error
        }
    }
}

extension FaultCode {
    /// Others took the run for one that has ended, and may have removed what it stored.
    public static let leftForDead = FaultCode("set.left-for-dead", exit: .store)
}

extension Fault {
    static func leftForDead(_ place: String) -> Fault {
        Fault(
            .leftForDead,
            what:
                "Others took this run for one that has ended, since nothing was heard of it for a day, and may have removed "
                + "what it stored.", place: place,
            remedy: "Run the command again: what is still there is used. Finished recovery points are not harmed.")
    }
}
