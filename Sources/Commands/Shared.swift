// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import Geometry
import ImageStore
import Operations

/// Options of commands that take disks.
struct DiskOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Sector size of disks given as image files: 512 or 4096.", valueName: "bytes"))
    var sectorSize: Int = 512

    func size() throws(Fault) -> SectorSize {
        guard let size = SectorSize(sectorSize), sectorSize <= 4096 else {
            throw Fault(
                .usage, what: "A sector size of \(sectorSize) bytes is not possible.", remedy: "Use 512 or 4096.")
        }
        return size
    }
}

/// Sizes as people write them.
enum SizeText {
    /// Bytes in `512`, `64K`, `256M`, `4G`, `1T` (powers of 1024; `KiB` and the like too); `nil` for anything else.
    static func parse(_ text: String) -> ByteCount? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let number = UInt64(digits) else { return nil }
        var unit = text.dropFirst(digits.count).uppercased()
        if unit.hasSuffix("IB") { unit.removeLast(2) }
        let factors = ["": 0, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40]
        guard let shift = factors[unit] else { return nil }
        return ByteCount(number).multiplied(by: UInt64(1) << UInt64(shift))
    }
}

extension OpenedSet {
    /// The point `name` stands for. Says which of its copies are damaged; and with `latest`, when a point that may be newer
    /// cannot be read.
    ///
    /// With `warning`, also says which one `latest` took where the set holds points of several machines: it is going to be
    /// written over a disk.
    func point(_ name: String, _ console: Console, warning: Bool = false) throws(Fault) -> RecoveryPoint {
        let point: RecoveryPoint
        do throws(Fault) { point = try reader.point(name) } catch { throw place.worded(error) }
        for finding in reader.findings + point.findings { console.receive(.finding(finding)) }
        if name == "latest" {
            let listing = try reader.points()
            if warning,
                let several = PointChoice.warning(
                    point.summary, among: listing.points, place: place.names.joined(separator: " + "))
            {
                console.receive(.finding(several))
            }
            for finding in listing.findings where finding.severity == .loss {
                var finding = finding
                finding.severity = .warning
                finding.what =
                    "This recovery point cannot be read, and may be newer than the one that is used as latest "
                    + "(\(point.summary.shortID)). \(finding.what)"
                console.receive(.finding(finding))
            }
        }
        return point
    }
}

extension Fault {
    /// The fault as something to know that ends nothing.
    var warning: Finding { Finding(.warning, code.rawValue, what: "\(what) \(remedy)", place: place) }
}
