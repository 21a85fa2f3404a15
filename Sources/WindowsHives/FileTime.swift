// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// A point in time as Windows stores it: 100-nanosecond steps since 1601-01-01, UTC.
public struct FileTime: Hashable, Sendable, Comparable {
    /// Steps of 100 ns since 1601-01-01 00:00 UTC.
    public let ticks: UInt64

    /// The time `ticks` steps of 100 ns after 1601-01-01.
    public init(ticks: UInt64) { self.ticks = ticks }

    /// Whether `left` is earlier.
    public static func < (left: FileTime, right: FileTime) -> Bool { left.ticks < right.ticks }

    /// Whole seconds since 1970-01-01; negative before.
    public var unixSeconds: Int64 { Int64(ticks / 10_000_000) - 11_644_473_600 }
}

extension FileTime: CustomStringConvertible {
    /// `2026-11-21T09:53:13Z`.
    public var description: String {
        let seconds = Int(ticks / 10_000_000)
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        // Years that begin in March, counted from 1 March 1600: leap days then come last.
        let day = seconds / 86_400 + 306
        let era = day / 146_097
        let inEra = day % 146_097
        let yearOfEra = (inEra - inEra / 1460 + inEra / 36_524 - inEra / 146_096) / 365
        let inYear = inEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let march = (5 * inYear + 2) / 153
        let month = march < 10 ? march + 3 : march - 9
        let year = 1600 + era * 400 + yearOfEra + (month <= 2 ? 1 : 0)
        let date = "\(year)-\(two(month))-\(two(inYear - (153 * march + 2) / 5 + 1))"
        return "\(date)T\(two(seconds / 3600 % 24)):\(two(seconds / 60 % 60)):\(two(seconds % 60))Z"
    }
}
