// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel
import Synchronization

@testable import FilesystemMaps

/// How often the search for names asks whether it is to stop.
enum StopCount {
    private final class Counter: Sendable {
        let count = Mutex(0)
    }

    private static func run(
        _ kind: ContentKind, _ source: any BlockSource, _ damaged: Extent, after limit: Int
    ) throws -> (LostContent, Int) {
        let counter = Counter()
        var limits = FileNames.Limits()
        limits.stop = {
            counter.count.withLock {
                $0 += 1
                return $0 > limit
            }
        }
        let found = try FileNames.at(ExtentList(damaged), of: source, kind: kind, limits: limits)
        return (found, counter.count.withLock { $0 })
    }

    /// Calls where the first 512 bytes of `last` are lost, and where all of it is.
    static func calls(of kind: ContentKind, _ source: any BlockSource, last: Extent) throws -> (few: Int, all: Int) {
        let start = Extent(from: last.start, to: last.start + ByteCount(512))
        return (try run(kind, source, start, after: .max).1, try run(kind, source, last, after: .max).1)
    }

    /// What is found when the answer is yes from call `limit` on.
    static func stopped(
        after limit: Int, of kind: ContentKind, _ source: any BlockSource, _ damaged: Extent
    ) throws -> LostContent {
        try run(kind, source, damaged, after: limit).0
    }
}
