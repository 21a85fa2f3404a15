// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// Pages of logs that replace what a hive's file holds. Only where they lie is kept; their bytes stay in the logs.
struct LogOverlay: Sendable {
    /// The smallest piece a log replaces, bytes.
    static let sector = 512
    private var logs: [HiveSource] = []
    /// For a sector of the bins, which log has it (upper 8 bits) and at which byte of it.
    private var places: [UInt32: UInt64] = [:]

    /// Bytes that are replaced.
    var length: UInt64 { UInt64(places.count * LogOverlay.sector) }
    /// Whether nothing is replaced.
    var isEmpty: Bool { places.isEmpty }

    /// Begins with another log; what it replaces counts more than what came before.
    mutating func begin(_ log: HiveSource) { logs.append(log) }

    /// Replaces `count` bytes of the bins at `offset` by those of the present log at `place`; both multiples of 512.
    mutating func replace(_ offset: Int, _ count: Int, by place: UInt64) {
        for step in 0..<count / LogOverlay.sector {
            guard let sector = UInt32(exactly: offset / LogOverlay.sector + step) else { return }
            places[sector] = UInt64(logs.count - 1) << 56 | (place + UInt64(step * LogOverlay.sector))
        }
    }

    /// Puts the replaced sectors into `bytes`, which lie at `offset` of the bins, a multiple of 512.
    func lay(over bytes: inout [UInt8], from offset: Int) throws(Fault) {
        for start in stride(from: 0, to: bytes.count, by: LogOverlay.sector) {
            guard let place = places[UInt32(truncatingIfNeeded: (offset + start) / LogOverlay.sector)] else { continue }
            let count = min(LogOverlay.sector, bytes.count - start)
            let page = try logs[Int(place >> 56)].read(at: place & 0xFF_FFFF_FFFF_FFFF, count: count)
            bytes.replaceSubrange(start..<start + count, with: page)
        }
    }
}
