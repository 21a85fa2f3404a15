// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// An announcement that ends with its last holder, at the latest, on any store.
final class HeldAnnouncement: Sendable {
    private let base: any Announcement

    init(_ base: any Announcement) { self.base = base }

    deinit { base.end() }

    var id: String { base.id }
    func end() { base.end() }
}
