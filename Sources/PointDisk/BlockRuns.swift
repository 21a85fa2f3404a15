// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Where the content of a changed block is.
enum BlockContent: Hashable, Sendable {
    /// Zeros; nothing is kept.
    case zeros
    /// Block of this number of the source that references point into.
    case reference(UInt64)
    /// A slot in memory.
    case memory(UInt64)
    /// A slot in the temporary file.
    case file(UInt64)

    private static let placeBits: UInt64 = 62

    /// In 64 bits: the kind above, the place below.
    fileprivate var code: UInt64 {
        let mask = (UInt64(1) << BlockContent.placeBits) - 1
        switch self {
        case .zeros: return 0
        case .reference(let place): return 1 << BlockContent.placeBits | place & mask
        case .memory(let place): return 2 << BlockContent.placeBits | place & mask
        case .file(let place): return 3 << BlockContent.placeBits | place & mask
        }
    }

    fileprivate init(code: UInt64) {
        let place = code & ((1 << BlockContent.placeBits) - 1)
        switch code >> BlockContent.placeBits {
        case 0: self = .zeros
        case 1: self = .reference(place)
        case 2: self = .memory(place)
        default: self = .file(place)
        }
    }

    /// What the block `count` further on holds in the same run: the next place, or zeros again.
    func advanced(by count: UInt64) -> BlockContent {
        switch self {
        case .zeros: .zeros
        case .reference(let place): .reference(place + count)
        case .memory(let place): .memory(place + count)
        case .file(let place): .file(place + count)
        }
    }
}

/// The changed blocks of a volume. Data that a resizer moves come in long runs, so runs are what is kept: in pages of 512
/// blocks, a few bytes each.
struct BlockRuns: Sendable {
    /// Blocks of a page.
    static let page: UInt64 = 512

    private struct Run: Sendable {
        var first: UInt16
        var count: UInt16
        var code: UInt64

        var end: UInt16 { first + count }
        func content(at index: UInt16) -> BlockContent {
            BlockContent(code: code).advanced(by: UInt64(index - first))
        }
    }

    private var pages: [UInt64: [Run]] = [:]
    private var runs = 0

    /// Bytes of memory taken, roughly: a run, and what a page takes in the table.
    var memory: UInt64 { UInt64(pages.count) * 112 + UInt64(runs) * 24 }

    /// Whether nothing is changed.
    var isEmpty: Bool { pages.isEmpty }

    /// What block `block` holds, `nil` when it is not changed, and the number of blocks from it on, at least one and at most
    /// `most`, of which the same can be said with rising places.
    func stretch(from block: UInt64, most: UInt64) -> (content: BlockContent?, count: UInt64) {
        let index = UInt16(block % BlockRuns.page)
        let left = UInt64(BlockRuns.page) - UInt64(index)
        guard let page = pages[block / BlockRuns.page] else { return (nil, max(1, min(left, most))) }
        let position = BlockRuns.position(in: page, after: index)
        guard position < page.count else { return (nil, max(1, min(left, most))) }
        let run = page[position]
        if run.first <= index { return (run.content(at: index), max(1, min(UInt64(run.end - index), most))) }
        return (nil, max(1, min(UInt64(run.first - index), most)))
    }

    /// What block `block` holds; `nil` when it is not changed.
    subscript(_ block: UInt64) -> BlockContent? { stretch(from: block, most: 1).content }

    /// Notes what block `block` holds; `nil` makes it an unchanged one.
    mutating func set(_ block: UInt64, _ content: BlockContent?) {
        let number = block / BlockRuns.page
        var page = pages.removeValue(forKey: number) ?? []
        runs -= page.count
        BlockRuns.replace(&page, UInt16(block % BlockRuns.page), content)
        runs += page.count
        if !page.isEmpty { pages[number] = page }
    }

    /// Makes the blocks `range` zeros. `release` is given whatever each of them held before.
    mutating func setZeros(_ range: Range<UInt64>, release: (BlockContent) -> Void) {
        var block = range.lowerBound
        while block < range.upperBound {
            let number = block / BlockRuns.page
            if block % BlockRuns.page == 0, range.upperBound - block >= BlockRuns.page {
                for run in pages[number] ?? [] {
                    for index in run.first..<run.end { release(run.content(at: index)) }
                }
                runs += 1 - (pages[number]?.count ?? 0)
                pages[number] = [Run(first: 0, count: UInt16(BlockRuns.page), code: BlockContent.zeros.code)]
                block += BlockRuns.page
            } else {
                if let before = self[block] { release(before) }
                set(block, .zeros)
                block += 1
            }
        }
    }

    /// Index of the first run that ends after `index`.
    private static func position(in page: [Run], after index: UInt16) -> Int {
        var low = 0
        var high = page.count
        while low < high {
            let middle = (low + high) / 2
            if page[middle].end > index { high = middle } else { low = middle + 1 }
        }
        return low
    }

    private static func replace(_ page: inout [Run], _ index: UInt16, _ content: BlockContent?) {
        var position = position(in: page, after: index)
        if position < page.count, page[position].first <= index {
            // Take the block out of the run it lies in.
            let run = page[position]
            var parts: [Run] = []
            if run.first < index { parts.append(Run(first: run.first, count: index - run.first, code: run.code)) }
            if index + 1 < run.end {
                parts.append(
                    Run(first: index + 1, count: run.end - index - 1, code: run.content(at: index + 1).code))
            }
            page.replaceSubrange(position...position, with: parts)
            if run.first < index { position += 1 }
        }
        guard let content else { return }
        var run = Run(first: index, count: 1, code: content.code)
        if position < page.count, page[position].first == index + 1, page[position].code == content.advanced(by: 1).code
        {
            run.count += page[position].count
            page.remove(at: position)
        }
        if position > 0 {
            let before = page[position - 1]
            if before.end == index, before.content(at: index) == content {
                page[position - 1].count += run.count
                return
            }
        }
        page.insert(run, at: position)
    }
}
