// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// Which sectors of a hive a log of the old format holds, and where. Specification, "Dirty vector" and "Dirty pages".
enum DirtyVector {
    /// Lays the pages of `log` over the hive. Throws where the vector is not there or the log is shorter than it says.
    static func apply(_ log: TransactionLog, to overlay: inout LogOverlay) throws(TransactionLog.Problem) {
        let bits = Int(log.header.binsLength) / LogOverlay.sector
        let start = LogOverlay.sector
        let vectorEnd = start + 4 + (bits + 7) / 8
        let bytes: [UInt8]
        do {
            bytes = try log.source.read(at: UInt64(start), count: vectorEnd - start)
        } catch {
            throw TransactionLog.Problem(what: error.what)
        }
        guard bytes.starts(with: "DIRT".utf8) else { throw TransactionLog.Problem(what: "it has no dirty vector") }
        var place = UInt64((vectorEnd + LogOverlay.sector - 1) / LogOverlay.sector * LogOverlay.sector)
        overlay.begin(log.source)
        for bit in 0..<bits where bytes[4 + bit / 8] >> UInt8(bit % 8) & 1 == 1 {
            guard place + UInt64(LogOverlay.sector) <= log.source.length else {
                throw TransactionLog.Problem(what: "it ends before the last page it should hold")
            }
            overlay.replace(bit * LogOverlay.sector, LogOverlay.sector, by: place)
            place += UInt64(LogOverlay.sector)
        }
        guard !overlay.isEmpty else { throw TransactionLog.Problem(what: "it holds no page") }
    }
}
