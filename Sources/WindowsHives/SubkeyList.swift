// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// The lists that name a key's subkeys: leaves of three kinds, and roots of leaves. Specification, "Index leaf" to
/// "Index root".
struct SubkeyList {
    let image: HiveImage
    /// The list's cell.
    let cell: UInt32
    /// How many subkeys the key says it has.
    let count: Int

    /// One name in a leaf.
    struct Element {
        /// The subkey's cell.
        var key: UInt32
        /// Of its name in upper case; only hash leaves have it.
        var hash: UInt32?
    }

    /// The smallest cell a key has.
    private static let smallestKey = 80

    /// The cells of all subkeys in stored order. A list that names a key twice, or another number of keys than it should,
    /// is refused.
    func keys() throws(Fault) -> [UInt32] {
        var result: [UInt32] = []
        try forEach { (element) throws(Fault) -> Bool in
            result.append(element.key)
            return true
        }
        guard result.count == count else {
            throw image.damaged("The list names \(result.count) subkeys, but the key has \(count).", cell: cell)
        }
        let sorted = result.sorted()
        for (left, right) in zip(sorted, sorted.dropFirst()) where left == right {
            throw image.damaged("The list names the key at 0x\(String(left, radix: 16)) twice.", cell: cell)
        }
        return result
    }

    /// Hands over every element in turn, until `body` says `false`.
    func forEach(_ body: (Element) throws(Fault) -> Bool) throws(Fault) {
        guard count > 0 else { return }
        guard count <= image.length / SubkeyList.smallestKey else {
            throw image.damaged(
                "A key is said to have \(count) subkeys, more than fit a hive of \(image.length) bytes.", cell: cell)
        }
        var seen = 0
        let head = try image.cell(cell, most: 4, "A list of subkeys")
        guard head.signature == "ri" else {
            _ = try leaf(cell, &seen, body)
            return
        }
        let leaves = Int(try head.number(UInt16.self, "Number of elements", at: 2))
        let list = try image.cell(cell, most: 4 + 4 * leaves, "A list of lists of subkeys")
        for index in 0..<leaves {
            let place = try list.number(UInt32.self, "Subkeys list offset", at: 4 + 4 * index)
            guard try leaf(place, &seen, body) else { return }
        }
    }

    /// Hands over a leaf's elements; `false` when `body` wants no more.
    private func leaf(
        _ place: UInt32, _ seen: inout Int, _ body: (Element) throws(Fault) -> Bool
    ) throws(Fault) -> Bool {
        let head = try image.cell(place, most: 4, "A list of subkeys")
        let width: Int
        switch head.signature {
        case "li": width = 4
        case "lf", "lh": width = 8
        default: throw head.damaged("A list of subkeys should be there, but it is none.")
        }
        let elements = Int(try head.number(UInt16.self, "Number of elements", at: 2))
        guard elements <= count - seen else {
            throw head.damaged("The lists name more subkeys than the \(count) that the key has.")
        }
        seen += elements
        let isHashed = head.signature == "lh"
        let list = try image.cell(place, most: 4 + width * elements, "A list of subkeys")
        for index in 0..<elements {
            let key = try list.number(UInt32.self, "Key node offset", at: 4 + width * index)
            let hash = isHashed ? try list.number(UInt32.self, "Hash", at: 8 + width * index) : nil
            guard try body(Element(key: key, hash: hash)) else { return false }
        }
        return true
    }
}
