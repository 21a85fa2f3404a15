// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry

/// Collects runs of used bytes in rising order within a bounded amount of memory: where a hostile or badly fragmented
/// map would make too many runs, the smallest gaps between them are taken as used.
struct RunCollector {
    private var runs: [Extent] = []
    private var gap = ByteCount.zero
    private let limit: Int

    /// At most about `limit` runs, 16 bytes each.
    init(limit: Int = 1 << 19) { self.limit = limit }

    /// Adds a run that begins at or after the start of the last one.
    mutating func add(_ run: Extent) {
        guard !run.isEmpty else { return }
        if let last = runs.last, let reach = last.end.adding(gap), run.start <= reach, run.start >= last.start {
            runs[runs.count - 1] = Extent(from: last.start, to: max(last.end, run.end))
            return
        }
        runs.append(run)
        if runs.count >= limit { thin() }
    }

    /// The runs collected.
    var list: ExtentList {
        var result = ExtentList()
        for run in runs { result.append(run) }
        return result
    }

    private mutating func thin() {
        while runs.count > limit / 2 {
            gap = max(ByteCount(gap.bytes << 1), .kibibytes(1))
            var kept: [Extent] = []
            kept.reserveCapacity(limit)
            for run in runs {
                if let last = kept.last, let reach = last.end.adding(gap), run.start <= reach {
                    kept[kept.count - 1] = Extent(from: last.start, to: max(last.end, run.end))
                } else {
                    kept.append(run)
                }
            }
            runs = kept
        }
    }
}
