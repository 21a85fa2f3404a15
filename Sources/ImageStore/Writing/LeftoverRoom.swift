// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Synchronization

/// What interrupted runs left unfinished, as room on a medium that is full: the one being read goes first, since most of it
/// may have been taken over already.
final class LeftoverRoom: Sendable {
    private let leftovers: [any ObjectLeftover]
    private let state = Mutex(State())

    private struct State {
        var current = 0
        var gone: Set<Int> = []
    }

    init(_ leftovers: [any ObjectLeftover]) { self.leftovers = leftovers }

    /// Leftover `number` is read from now on; false when it is gone.
    func begin(_ number: Int) -> Bool {
        state.withLock { state in
            state.current = number
            return !state.gone.contains(number)
        }
    }

    func has(_ number: Int) -> Bool { state.withLock { !$0.gone.contains(number) } }

    /// Whether any was removed for its room.
    var wasMade: Bool { state.withLock { !$0.gone.isEmpty } }

    /// Removes one; false when there is none left, or it cannot be removed.
    func make() -> Bool {
        let number: Int? = state.withLock { state in
            let left = (state.current..<leftovers.count).filter { !state.gone.contains($0) }
            guard let first = left.first, let number = first == state.current ? first : left.last else { return nil }
            state.gone.insert(number)
            return number
        }
        guard let number else { return false }
        do { try leftovers[number].remove() } catch { return false }
        return true
    }
}
