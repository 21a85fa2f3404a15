// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Glibc

/// How much of the long tests is run: `RELIGHT_TESTS=full`, which `make test-full` sets, is everything; else samples.
enum Thoroughness {
    static let isFull = unsafe getenv("RELIGHT_TESTS").map { unsafe String(cString: $0) } == "full"

    /// Numbers below `count` to be tried: all, or every `step`-th beginning anywhere below it, so that objects of one
    /// kind are sampled at different places. Ends are always among them.
    static func places(below count: Int, step: Int, start: Int) -> [Int] {
        guard !isFull, step > 1, count > 0 else { return Array(0..<max(0, count)) }
        let middle = Array(stride(from: start % step, to: count, by: step))
        return [0] + middle.filter { $0 > 0 && $0 < count - 1 } + (count > 1 ? [count - 1] : [])
    }
}
