// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import Threads

/// The transactions that wait in a JBD2 journal. Linux, Documentation/filesystems/ext4/journal.rst.
///
/// A transaction is descriptor blocks, each followed by the blocks it names the places of, revoke blocks, and a commit
/// block. It counts once its commit block is there. The log ends where no block with the number of the transaction
/// expected follows. A block is replayed as the last transaction that has it left it, unless one as new or newer has
/// revoked it.
///
/// All replayers agree on that only as long as nothing is damaged: so a wrong checksum, an unknown kind of block or a
/// place that cannot be in a transaction that was committed is no end of the log here but a reason to give up. What was
/// not committed may be torn, and is not looked at.
struct JournalLog {
    /// What a place of the filesystem is to hold.
    struct Write: Hashable {
        /// The block of the journal that holds it.
        var block: UInt32
        /// The transaction, counted from the first that waits.
        var transaction: UInt32
        /// Its first four bytes were those of a journal's block, and were zeroed in the journal.
        var isEscaped: Bool
    }

    /// Distinct blocks that may wait, and blocks that may be revoked: what a journal of 1 GiB with 4 KiB blocks can hold.
    static let mostBlocks = 1 << 18

    let place: JournalPlace
    let superblock: JournalSuperblock
    /// Blocks of the filesystem.
    private let blocks: UInt64
    private let seed: UInt32
    private var cursor: UInt32
    private var left: UInt32
    private var writes: [UInt64: Write] = [:]
    private var revoked: [UInt64: UInt32] = [:]
    /// Transactions found.
    private(set) var transactions: UInt32 = 0
    /// The number the next transaction would have.
    private(set) var sequence: UInt32
    private var hasWrapped = false

    private static let descriptor: UInt32 = 1
    private static let commit: UInt32 = 2
    private static let revoke: UInt32 = 5
    private static let headerSize = 12
    private static let tailSize = 4

    /// Reads the log at `place` of a filesystem of `blocks` blocks.
    init(_ place: JournalPlace, _ superblock: JournalSuperblock, blocks: UInt64) throws(MapProblem) {
        self.place = place
        self.superblock = superblock
        self.blocks = blocks
        seed = superblock.hasBlockChecksums ? JournalChecksum.crc32c(.max, superblock.uuid) : 0
        cursor = superblock.start
        // Behind that many blocks the log would have met its own beginning.
        left = superblock.end - superblock.first
        sequence = superblock.sequence
        guard superblock.start != 0 else { return }
        try read()
        if superblock.incompatible.contains(.fastCommit) { try requireNoFastCommits() }
    }

    /// What the places of the filesystem hold after the replay.
    var replayed: [UInt64: Write] {
        writes.filter { block, write in
            guard let last = revoked[block] else { return true }
            return last < write.transaction
        }
    }

    // MARK: - The walk

    /// A transaction that was not seen to be committed yet.
    private struct Transaction {
        var writes: [(block: UInt64, write: Write)] = []
        var revoked: [UInt64] = []
        /// What is wrong with it, should it be committed.
        var problem: String?
        /// The checksum of its blocks so far, of the oldest kind.
        var checksum: UInt32 = .max
    }

    private mutating func read() throws(MapProblem) {
        var transaction = Transaction()
        while true {
            do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
            let block = try place.block(cursor)
            guard try block.big(UInt32.self, "h_magic", at: 0) == JournalSuperblock.magic,
                try block.big(UInt32.self, "h_sequence", at: 8) == sequence
            else { return }
            try advance()
            switch try block.big(UInt32.self, "h_blocktype", at: 4) {
            case JournalLog.descriptor: try describe(block, &transaction)
            case JournalLog.revoke: try revoke(block, &transaction)
            case JournalLog.commit:
                try commit(block, transaction)
                transaction = Transaction()
            case let type: throw .damaged("Its journal has a block of type \(type), which is unknown.")
            }
        }
    }

    /// Goes on to the next block of the ring.
    private mutating func advance() throws(MapProblem) {
        guard left > 0 else { throw .damaged("Its journal has no end.") }
        left -= 1
        cursor += 1
        if cursor >= superblock.end {
            cursor = superblock.first
            hasWrapped = true
        }
    }

    /// A descriptor block: tags, each of which names the place of one of the blocks that follow.
    private mutating func describe(_ block: Fields, _ transaction: inout Transaction) throws(MapProblem) {
        var end = block.bytes.count
        if superblock.hasBlockChecksums {
            end -= JournalLog.tailSize
            if try !isSound(block) { transaction.problem = "the checksum of a descriptor block is wrong" }
        }
        let hasTotal = superblock.compatible.contains(.checksum)
        if hasTotal { transaction.checksum = JournalChecksum.crc32(transaction.checksum, block.bytes) }
        var position = JournalLog.headerSize
        while position + superblock.tagSize <= end {
            let flags = Tag(rawValue: try block.big(UInt16.self, "t_flags", at: position + 6))
            var target = UInt64(try block.big(UInt32.self, "t_blocknr", at: position))
            if superblock.incompatible.contains(.bits64) {
                target |= UInt64(try block.big(UInt32.self, "t_blocknr_high", at: position + 8)) << 32
            }
            let number = cursor
            try advance()
            if superblock.hasBlockChecksums || hasTotal {
                let content = try place.block(number)
                if hasTotal { transaction.checksum = JournalChecksum.crc32(transaction.checksum, content.bytes) }
                if superblock.hasBlockChecksums, try !isSound(content, tag: block, at: position) {
                    transaction.problem = "the checksum of a block is wrong"
                }
            }
            if target >= blocks {
                transaction.problem = "it changes block \(target), which the filesystem does not have"
            }
            guard transaction.writes.count < JournalLog.mostBlocks else { throw tooMuch }
            transaction.writes.append(
                (target, Write(block: number, transaction: transactions, isEscaped: flags.contains(.escaped))))
            position += superblock.tagSize + (flags.contains(.sameUUID) ? 0 : 16)
            if flags.contains(.last) { break }
        }
    }

    /// t_flags.
    private struct Tag: OptionSet {
        let rawValue: UInt16
        static let escaped = Tag(rawValue: 1)
        static let sameUUID = Tag(rawValue: 2)
        static let last = Tag(rawValue: 8)
    }

    /// A revoke block: numbers of blocks that older transactions must not bring back.
    private mutating func revoke(_ block: Fields, _ transaction: inout Transaction) throws(MapProblem) {
        var end = block.bytes.count
        if superblock.hasBlockChecksums {
            end -= JournalLog.tailSize
            if try !isSound(block) { transaction.problem = "the checksum of a revoke block is wrong" }
        }
        // r_count counts the bytes in use, the header's included.
        let used = Int(try block.big(UInt32.self, "r_count", at: JournalLog.headerSize))
        guard used <= end else {
            transaction.problem = "a revoke block claims to have \(used) bytes"
            return
        }
        let isWide = superblock.incompatible.contains(.bits64)
        var position = JournalLog.headerSize + 4
        while position + (isWide ? 8 : 4) <= used {
            guard transaction.revoked.count < JournalLog.mostBlocks else { throw tooMuch }
            transaction.revoked.append(
                isWide
                    ? try block.big(UInt64.self, "blocknr", at: position)
                    : UInt64(try block.big(UInt32.self, "blocknr", at: position)))
            position += isWide ? 8 : 4
        }
    }

    /// A commit block: what came before counts.
    private mutating func commit(_ block: Fields, _ transaction: Transaction) throws(MapProblem) {
        func broken(_ what: String) -> MapProblem {
            .damaged("Transaction \(sequence) of its journal is damaged: \(what).")
        }
        if let problem = transaction.problem { throw broken(problem) }
        let stored = try block.big(UInt32.self, "h_chksum", at: 16)
        if superblock.hasBlockChecksums {
            guard stored == JournalChecksum.crc32c(seed, block.bytes, without: 16) else {
                throw broken("the checksum of its commit block is wrong")
            }
        } else {
            var isChecked = false
            if superblock.compatible.contains(.checksum) {
                let kind = try block.big(UInt8.self, "h_chksum_type", at: 12)
                let size = try block.big(UInt8.self, "h_chksum_size", at: 13)
                // A commit block may be without a checksum.
                if kind != 0 || size != 0 || stored != 0 {
                    guard kind == 1, size == 4, stored == transaction.checksum else {
                        throw broken("its checksum is wrong")
                    }
                    isChecked = true
                }
            }
            guard isChecked || !superblock.incompatible.contains(.asyncCommit) else {
                throw broken("it was committed before its blocks were written, and has no checksum")
            }
        }
        for (target, write) in transaction.writes { writes[target] = write }
        for target in transaction.revoked { revoked[target] = transactions }
        guard writes.count <= JournalLog.mostBlocks, revoked.count <= JournalLog.mostBlocks else { throw tooMuch }
        transactions += 1
        sequence &+= 1
    }

    private var tooMuch: MapProblem {
        .whole("More than \(JournalLog.mostBlocks) blocks wait in its journal.", nil)
    }

    // MARK: - Checksums

    /// Whether the checksum at the end of a descriptor or revoke block is right.
    private func isSound(_ block: Fields) throws(MapProblem) -> Bool {
        let place = block.bytes.count - JournalLog.tailSize
        return try block.big(UInt32.self, "t_checksum", at: place)
            == JournalChecksum.crc32c(seed, block.bytes, without: place)
    }

    /// Whether the checksum in the tag at `position` of a descriptor block is that of `content`.
    private func isSound(_ content: Fields, tag: Fields, at position: Int) throws(MapProblem) -> Bool {
        let number = (0..<4).map { UInt8(truncatingIfNeeded: sequence >> (24 - 8 * $0)) }
        let value = JournalChecksum.crc32c(JournalChecksum.crc32c(seed, number), content.bytes)
        if superblock.incompatible.contains(.checksum3) {
            return try tag.big(UInt32.self, "t_checksum", at: position + 12) == value
        }
        return try tag.big(UInt16.self, "t_checksum", at: position + 4) == UInt16(truncatingIfNeeded: value)
    }

    // MARK: - Fast commits

    /// Throws where fast commits wait behind the ring: they are not replayed here. They wait when their first block
    /// begins with a head that names the transaction after the last one.
    private func requireNoFastCommits() throws(MapProblem) {
        guard !hasWrapped else {
            // e2fsck 1.47 and older kernels take the blocks of the fast commits for a part of the ring.
            throw .whole(
                "Its journal has room for fast commits and its log goes round, which programs replay in different ways.",
                nil)
        }
        for number in [superblock.end, superblock.end + 1] where number < superblock.length {
            let block = try place.block(number)
            let tag = try block.little(UInt16.self, "fc_tag", at: 0)
            let transaction = try block.little(UInt32.self, "fc_tid", at: 8)
            guard tag != JournalLog.fastCommitHead || transaction != sequence else {
                throw .whole("Fast commits wait in its journal, which are not replayed here.", nil)
            }
        }
    }

    private static let fastCommitHead: UInt16 = 9
}
