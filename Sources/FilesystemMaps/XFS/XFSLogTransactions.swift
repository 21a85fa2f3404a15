// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import MachineModel
import Threads

/// Puts the operations of a log together to the items of its transactions, from the tail to the head. "XFS Algorithms &
/// Data Structures", chapter 16.
///
/// An operation carries a region, or a piece of one, of an item of a transaction; transactions run side by side. An
/// item's first region says what it is and how many regions it has. A transaction counts once it was committed.
struct XFSLogTransactions {
    /// An item of a transaction that was committed.
    struct Item {
        /// Its first region.
        var format: Fields
        /// The other regions; empty where they were not asked for.
        var regions: [[UInt8]]
        /// The first record of its transaction: what orders it against blocks on the disk.
        var sequence: UInt64
    }

    /// Regions of one item, and transactions at one time, beyond which a log is a lie.
    private static let mostRegions = 4096
    private static let mostTransactions = 4096
    /// Bytes of items that are held until their transactions are committed.
    private static let mostBytes = 32 << 20
    /// A transaction's own header, and its magic.
    private static let headerSize = 16
    private static let headerMagic: UInt32 = 0x5452_414E

    private struct Flags: OptionSet {
        let rawValue: UInt8
        static let start = Flags(rawValue: 0x01)
        static let commit = Flags(rawValue: 0x02)
        static let goesOn = Flags(rawValue: 0x04)
        static let wentOn = Flags(rawValue: 0x08)
        static let end = Flags(rawValue: 0x10)
        static let unmount = Flags(rawValue: 0x20)
        static let known: Flags = [.start, .commit, .goesOn, .wentOn, .end, .unmount]
    }

    private struct Transaction {
        var sequence: UInt64
        var header: [UInt8] = []
        var items: [Building] = []
    }

    private struct Building {
        var format: [UInt8]
        var regions: [[UInt8]] = []
        /// Regions there are, the first one included, and those seen.
        var total: Int
        var seen = 1
        var isKept: Bool
    }

    private let keep: (Fields) throws(MapProblem) -> Bool
    private let found: (Item) throws(MapProblem) -> Void
    private var open: [UInt32: Transaction] = [:]
    private var held = 0
    /// Blocks from the tail to the head.
    private(set) var blocks: UInt64 = 0

    /// Reads `log`, which ends at `head`. `keep` says by an item's first region whether its other regions are wanted;
    /// `found` receives the items of each transaction in the order in which these were committed.
    init(
        _ log: XFSLog, _ head: XFSLog.Head, keep: @escaping (Fields) throws(MapProblem) -> Bool,
        found: @escaping (Item) throws(MapProblem) -> Void
    ) throws(MapProblem) {
        self.keep = keep
        self.found = found
        var place = head.last.tail & 0xFFFF_FFFF
        let round = UInt32(truncatingIfNeeded: head.last.tail >> 32)
        let end = head.block % log.count
        guard place < log.count, head.round(of: place) == round else {
            throw .damaged(
                "The last record of its log names a tail at block \(place) of round \(round), which is not there.")
        }
        var left = (end + log.count - place) % log.count
        if left == 0 { left = log.count }
        while left > 0 {
            do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
            let record = try XFSLogRecord(
                try log.blocks(place, 1).fields, at: place, round: head.round(of: place), uuid: log.uuid)
            guard record.blocks <= left else { throw .damaged("A record of its log passes the log's head.") }
            try take(try record.content(of: log, head), record)
            place = (place + record.blocks) % log.count
            left -= record.blocks
            blocks += record.blocks
        }
    }

    /// The operations of a record.
    private mutating func take(_ content: Fields, _ record: XFSLogRecord) throws(MapProblem) {
        var position = 0
        for _ in 0..<record.operations {
            if position >= content.bytes.count { break }
            let number = try content.big(UInt32.self, "oh_tid", at: position)
            let length = Int(try content.big(UInt32.self, "oh_len", at: position + 4))
            let client = try content.big(UInt8.self, "oh_clientid", at: position + 8)
            let flags = Flags(rawValue: try content.big(UInt8.self, "oh_flags", at: position + 9))
            position += 12
            guard client == 0x69 || client == 0xAA, flags.isSubset(of: .known), length <= content.bytes.count - position
            else { throw .damaged("An operation in \(content.name) is damaged.") }
            let bytes = content.bytes[position..<position + length]
            position += length
            guard open[number] != nil else {
                // What began before the tail is on the disk already.
                if flags.contains(.start) {
                    guard length == 0, open.count < XFSLogTransactions.mostTransactions else {
                        throw .damaged("A transaction in \(content.name) is damaged.")
                    }
                    open[number] = Transaction(sequence: record.sequence)
                }
                continue
            }
            var kind = flags.subtracting(.end)
            if kind.contains(.wentOn) { kind.remove(.goesOn) }
            switch kind {
            case .commit: try commit(number)
            case .unmount: forget(number)
            case .wentOn: try goOn(number, bytes)
            case [], .goesOn: try add(number, bytes)
            default: throw .damaged("An operation in \(content.name) has flags \(Hex.number(flags.rawValue)).")
            }
        }
    }

    /// A new region, or the transaction's header, or the first piece of one of them.
    private mutating func add(_ number: UInt32, _ bytes: ArraySlice<UInt8>) throws(MapProblem) {
        guard !bytes.isEmpty, var transaction = open.removeValue(forKey: number) else { return }
        defer { open[number] = transaction }
        guard transaction.header.count == XFSLogTransactions.headerSize else {
            guard transaction.header.isEmpty, bytes.count <= XFSLogTransactions.headerSize else {
                throw .damaged("The header of a transaction in its log is damaged.")
            }
            transaction.header = Array(bytes)
            try check(transaction.header)
            return
        }
        let last = transaction.items.count - 1
        if last >= 0, transaction.items[last].seen < transaction.items[last].total {
            transaction.items[last].seen += 1
            // An empty one holds the place where it is not wanted.
            transaction.items[last].regions.append(transaction.items[last].isKept ? Array(bytes) : [])
            if transaction.items[last].isKept { try hold(bytes.count) }
            return
        }
        let format = Fields("an item of its log", Array(bytes))
        let total = Int(try format.little(UInt16.self, "size", at: 2))
        guard total > 0, total <= XFSLogTransactions.mostRegions else {
            throw .damaged("An item of its log claims to have \(total) regions.")
        }
        try hold(bytes.count + 64)
        transaction.items.append(
            Building(format: format.bytes, total: total, isKept: try isWanted(format)))
    }

    /// The next piece of the region, or of the header, that came last.
    private mutating func goOn(_ number: UInt32, _ bytes: ArraySlice<UInt8>) throws(MapProblem) {
        guard !bytes.isEmpty, var transaction = open.removeValue(forKey: number) else { return }
        defer { open[number] = transaction }
        let last = transaction.items.count - 1
        guard last >= 0 else {
            guard transaction.header.count + bytes.count <= XFSLogTransactions.headerSize else {
                throw .damaged("The header of a transaction in its log is damaged.")
            }
            transaction.header += bytes
            try check(transaction.header)
            return
        }
        if transaction.items[last].seen == 1 {
            transaction.items[last].format += bytes
            try hold(bytes.count)
            transaction.items[last].isKept = try isWanted(
                Fields("an item of its log", transaction.items[last].format))
        } else if transaction.items[last].isKept {
            let region = transaction.items[last].regions.count - 1
            guard region >= 0 else { throw .damaged("A region of its log goes on that never began.") }
            transaction.items[last].regions[region] += bytes
            try hold(bytes.count)
        }
    }

    /// A first region of which most is still to come cannot be asked about yet.
    private func isWanted(_ format: Fields) throws(MapProblem) -> Bool {
        if format.bytes.count < 8 { return true }
        return try keep(format)
    }

    private func check(_ header: [UInt8]) throws(MapProblem) {
        guard header.count == XFSLogTransactions.headerSize else { return }
        guard
            try Fields("a transaction's header", header).little(UInt32.self, "th_magic", at: 0)
                == XFSLogTransactions.headerMagic
        else { throw .damaged("The header of a transaction in its log is damaged.") }
    }

    private mutating func hold(_ bytes: Int) throws(MapProblem) {
        held += bytes
        guard held <= XFSLogTransactions.mostBytes else {
            throw .whole("Transactions in its log take more than \(XFSLogTransactions.mostBytes >> 20) MiB.", nil)
        }
    }

    private mutating func commit(_ number: UInt32) throws(MapProblem) {
        guard let transaction = open[number] else { return }
        forget(number)
        for item in transaction.items {
            guard item.seen == item.total else {
                throw .damaged("An item of a transaction in its log is not complete.")
            }
            try found(
                Item(
                    format: Fields("an item of its log", item.format), regions: item.isKept ? item.regions : [],
                    sequence: transaction.sequence))
        }
    }

    private mutating func forget(_ number: UInt32) {
        guard let transaction = open.removeValue(forKey: number) else { return }
        for item in transaction.items {
            held -= item.format.count + 64 + item.regions.reduce(0) { $0 + $1.count }
        }
    }
}
