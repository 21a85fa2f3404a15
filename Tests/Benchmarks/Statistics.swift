// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// The middle of the values: half are below it. 0 for none.
func median(_ values: [Double]) -> Double {
    guard !values.isEmpty else { return 0 }
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/// One step of one contender in one round.
struct Sample {
    var wall: Double
    var cpu: Double
    /// Bytes of the largest process.
    var peak: UInt64
    /// Bytes written, or added by a second backup; `nil` where a job leaves nothing.
    var output: UInt64?
}

/// All rounds of one contender at one job.
struct Result {
    let contender: String
    let job: Job
    /// Why there is nothing, or not everything.
    var remark: String?
    var samples: [Sample] = []

    var wall: Double { median(samples.map(\.wall)) }
    var cpu: Double { median(samples.map(\.cpu)) }
    /// Bytes.
    var peak: Double { median(samples.map { Double($0.peak) }) }
    /// Bytes; `nil` where the job leaves nothing.
    var output: Double? {
        let sizes = samples.compactMap(\.output)
        return sizes.isEmpty ? nil : median(sizes.map { Double($0) })
    }
}

/// `value` with two decimals.
func fixed(_ value: Double, _ places: Int = 2) -> String {
    guard value.isFinite, value < 1e12 else { return "-" }
    let scale = (0..<places).reduce(1) { scale, _ in scale * 10 }
    let scaled = Int((value * Double(scale)).rounded())
    guard places > 0 else { return "\(scaled)" }
    let rest = "\(scaled % scale)"
    return "\(scaled / scale)." + String(repeating: "0", count: places - rest.count) + rest
}
