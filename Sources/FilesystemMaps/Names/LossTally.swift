// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry

/// Collects which damaged bytes belong to what, in bounded memory.
struct LossTally {
    /// The damaged bytes.
    let damaged: ExtentList
    private let limit: Int
    private var claimed: [Extent] = []
    private var order: [String] = []
    private var items: [String: LostContent.Item] = [:]
    private var rest = ByteCount.zero
    private(set) var notes: [String] = []

    /// Runs of damaged bytes remembered as belonging to something; past it the rest is not told apart.
    private static let mostClaims = 1 << 20

    init(_ damaged: ExtentList, limit: Int) {
        self.damaged = damaged
        self.limit = limit
    }

    /// The damaged bytes of `extent`.
    func hit(_ extent: Extent) -> ExtentList { damaged.intersection(extent) }

    /// Damaged bytes among `parts` that nobody claimed yet; from now on they are claimed.
    mutating func claim(_ parts: ExtentList) {
        if claimed.count < LossTally.mostClaims { claimed += parts.extents }
    }

    /// Claims what of `extent` is damaged for something that is no file.
    mutating func region(_ kind: LostContent.Kind, _ name: @autoclosure () -> String, _ extent: Extent) {
        let parts = hit(extent)
        guard !parts.isEmpty else { return }
        claim(parts)
        add(kind, name(), parts.byteCount)
    }

    /// Adds bytes to the item of this name.
    mutating func add(_ kind: LostContent.Kind, _ name: String, _ bytes: ByteCount) {
        let key = "\(kind.rawValue) \(name)"
        if items[key] != nil {
            items[key]?.bytes += bytes
        } else if items.count < limit {
            order.append(key)
            items[key] = LostContent.Item(kind, name, bytes)
        } else {
            rest += bytes
        }
    }

    /// Joins what follows each other and is alike, so that a terabyte of blocks costs an item's name once.
    struct Alike {
        private var kind = LostContent.Kind.unknown
        private var name: StaticString = ""
        private var bytes = ByteCount.zero

        /// Adds bytes of a name, which is compared by place.
        mutating func add(_ kind: LostContent.Kind, _ name: StaticString, _ bytes: ByteCount, to tally: inout LossTally)
        {
            if unsafe kind != self.kind || name.utf8Start != self.name.utf8Start {
                end(&tally)
                (self.kind, self.name) = (kind, name)
            }
            self.bytes += bytes
        }

        /// Hands over what is left.
        mutating func end(_ tally: inout LossTally) {
            if bytes > .zero { tally.add(kind, "\(name)", bytes) }
            bytes = .zero
        }
    }

    /// Adds a sentence once.
    mutating func note(_ sentence: String) { if !notes.contains(sentence) { notes.append(sentence) } }

    /// What was claimed by nobody.
    var unclaimed: ExtentList { unclaimed(of: damaged) }

    /// What of `parts` was claimed by nobody.
    func unclaimed(of parts: ExtentList) -> ExtentList { parts.subtracting(ExtentList(claimed)) }

    /// Everything that is no file.
    var others: [LostContent.Item] {
        var result = order.compactMap { items[$0] }
        if rest > .zero { result.append(LostContent.Item(.metadata, "further places", rest)) }
        return result
    }
}
