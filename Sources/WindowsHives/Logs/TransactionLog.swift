// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// A transaction log with a base block of its own. Specification, "Format of transaction log files".
struct TransactionLog: Sendable {
    let source: HiveSource
    let header: HiveHeader

    /// Larger ones are not read: Windows keeps logs smaller than their hive.
    static let longest: UInt64 = 256 << 20

    /// Why a log is no use.
    struct Problem: Error {
        let what: String
    }

    init(_ source: HiveSource) throws(Problem) {
        self.source = source
        guard source.length <= TransactionLog.longest else { throw Problem(what: "it has \(source.length) bytes") }
        let bytes: [UInt8]
        do {
            bytes = try source.read(at: 0, count: Int(min(source.length, UInt64(HiveHeader.length))))
        } catch {
            throw Problem(what: error.what)
        }
        guard let header = HiveHeader(bytes) else { throw Problem(what: "it has no base block") }
        guard header.isSound else { throw Problem(what: "the checksum of its base block is wrong") }
        guard header.primarySequence == header.secondarySequence else {
            throw Problem(what: "it was not written to its end")
        }
        guard header.majorVersion == 1, (3...6).contains(header.minorVersion), header.fileFormat == 1,
            header.clusteringFactor == 1, HiveHeader.isPlausible(binsLength: header.binsLength)
        else { throw Problem(what: "its base block is not one that is understood") }
        switch header.fileType {
        case .log, .earlyLog, .entryLog: break
        default: throw Problem(what: "it is not a transaction log")
        }
        self.header = header
    }

    /// Whether the log has entries, instead of a dirty vector.
    var hasEntries: Bool { header.fileType == .entryLog }
    /// Number of the first thing in it.
    var sequence: UInt32 { header.primarySequence }

    /// Whether `left` comes before `right`; sequence numbers begin again after 2^32.
    static func precedes(_ left: UInt32, _ right: UInt32) -> Bool { Int32(bitPattern: left &- right) < 0 }
}
