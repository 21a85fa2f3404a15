// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization

/// Counts work from several threads and reports it.
final class Meter: Sendable {
    private let state = Mutex<ByteCount>(.zero)
    private let total: ByteCount
    private let phase: String
    private let events: EventHandler

    init(total: ByteCount, phase: String, _ events: @escaping EventHandler) {
        self.total = total
        self.phase = phase
        self.events = events
    }

    func add(_ count: ByteCount) {
        let done = state.withLock { done in
            done += count
            return done
        }
        events(.progress(Progress(phase: phase, done: done, total: total)))
    }
}
