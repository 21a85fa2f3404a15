// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Pages of a hive that were read lately. The one that was not used for longest, nearly, makes room ("second chance").
struct PageCache {
    /// Bytes of a page.
    static let pageLength = 16_384
    /// Pages that are kept.
    static let most = 256

    private var slots: [Slot] = []
    private var places: [Int: Int] = [:]
    private var hand = 0

    private struct Slot {
        var page: Int
        var bytes: [UInt8]
        var wasUsed: Bool
    }

    /// The bytes of `page`, if it is kept.
    mutating func bytes(_ page: Int) -> [UInt8]? {
        guard let place = places[page] else { return nil }
        slots[place].wasUsed = true
        return slots[place].bytes
    }

    /// Keeps a page.
    mutating func keep(_ page: Int, _ bytes: [UInt8]) {
        let slot = Slot(page: page, bytes: bytes, wasUsed: true)
        guard slots.count >= PageCache.most else {
            places[page] = slots.count
            slots.append(slot)
            return
        }
        while slots[hand].wasUsed {
            slots[hand].wasUsed = false
            hand = (hand + 1) % slots.count
        }
        places[slots[hand].page] = nil
        places[page] = hand
        slots[hand] = slot
        hand = (hand + 1) % slots.count
    }
}
