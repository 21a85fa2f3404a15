// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Where a stream that does not fit into its record lies: its mapping pairs, decoded. Linux-NTFS documentation, "Data
/// Runs".
struct NTFSRuns: Hashable {
    /// Clusters that follow each other.
    struct Run: Hashable {
        /// First cluster within the stream.
        var vcn: UInt64
        /// First cluster on the volume; `nil` for a hole.
        var lcn: UInt64?
        /// Number of clusters.
        var count: UInt64
    }

    private(set) var runs: [Run] = []
    /// Where the first run begins within the stream.
    private let start: UInt64

    /// No runs yet; the first begins at cluster `start` of the stream.
    init(from start: UInt64 = 0) { self.start = start }

    /// First cluster behind the last run.
    var end: UInt64 { runs.last.map { $0.vcn + $0.count } ?? start }

    /// More runs than this are not believed: a stream needs a record for some hundred of them.
    static let most = 1 << 20

    /// Adds the mapping pairs of one attribute, which cover `first` up to, not including, `end`, on a volume of
    /// `clusters` clusters.
    mutating func add(
        pairs: ArraySlice<UInt8>, from first: UInt64, to end: UInt64, clusters: UInt64, _ name: String
    ) throws(MapProblem) {
        guard first == self.end else {
            throw .damaged("\(name.capitalizedFirst) has a gap before its cluster \(first).")
        }
        var vcn = first
        var lcn: Int64 = 0
        var rest = pairs
        while let head = rest.first, head != 0 {
            let lengthBytes = Int(head & 15)
            let offsetBytes = Int(head >> 4)
            guard (1...8).contains(lengthBytes), offsetBytes <= 8, rest.count > lengthBytes + offsetBytes else {
                throw .damaged("The list of \(name)'s clusters is damaged.")
            }
            let length = NTFSRuns.signed(rest.dropFirst().prefix(lengthBytes))
            let offset = NTFSRuns.signed(rest.dropFirst(1 + lengthBytes).prefix(offsetBytes))
            rest = rest.dropFirst(1 + lengthBytes + offsetBytes)
            guard length > 0, let count = UInt64(exactly: length), count <= end - vcn else {
                throw .damaged("\(name.capitalizedFirst) has a run of \(length) clusters where \(end - vcn) are left.")
            }
            var place: UInt64?
            if offsetBytes > 0 {
                let (sum, overflow) = lcn.addingReportingOverflow(offset)
                guard !overflow, let start = UInt64(exactly: sum), start < clusters, count <= clusters - start else {
                    throw .damaged("\(name.capitalizedFirst) has clusters outside the volume.")
                }
                lcn = sum
                place = start
            }
            guard runs.count < NTFSRuns.most else { throw .damaged("\(name.capitalizedFirst) is in too many pieces.") }
            runs.append(Run(vcn: vcn, lcn: place, count: count))
            vcn += count
        }
        guard vcn == end, rest.first == 0 else {
            throw .damaged("The list of \(name)'s clusters ends at \(vcn) instead of \(end).")
        }
    }

    /// Index of the run that holds cluster `vcn`; `nil` behind the last.
    func index(of vcn: UInt64) -> Int? {
        var low = 0
        var high = runs.count
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].vcn + runs[middle].count > vcn { high = middle } else { low = middle + 1 }
        }
        return low < runs.count ? low : nil
    }

    /// Up to eight bytes as a signed little-endian number; 0 for none.
    private static func signed(_ bytes: ArraySlice<UInt8>) -> Int64 {
        guard let last = bytes.last else { return 0 }
        var value: Int64 = last & 0x80 != 0 ? -1 : 0
        for byte in bytes.reversed() { value = value << 8 | Int64(byte) }
        return value
    }
}
