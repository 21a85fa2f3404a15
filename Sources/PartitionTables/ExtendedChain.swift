// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel

/// The chain of extended boot records inside an extended container: each describes a logical partition, counted from
/// the record itself, and links to the next record, counted from the container's first sector.
struct ExtendedChain {
    /// Logical partitions in the order of the chain, all with number 0.
    var logicals: [Partition] = []
    /// Sectors of the records.
    var records: [LBA] = []
    /// What was odd.
    var findings: [Finding] = []

    /// No system makes more; a longer chain is a fault in the table.
    static let mostRecords = 128

    /// Follows the chain of `container`. Unreadable or broken links end it with a finding.
    init(_ container: Partition, on source: any BlockSource) {
        let limit = container.first.value.addingReportingOverflow(container.sectors)
        let end = limit.overflow ? UInt64.max : limit.partialValue
        var position = container.first
        var seen: Set<LBA> = []
        while true {
            guard seen.insert(position).inserted else {
                complain(
                    "extended.loop", "The chain of logical partitions leads back to sector \(position.value)", source)
                return
            }
            guard records.count < ExtendedChain.mostRecords else {
                complain(
                    "extended.too-long", "The chain has more than \(ExtendedChain.mostRecords) links; it ends there",
                    source)
                return
            }
            let bytes: [UInt8]
            do {
                bytes = try source.sector(position)
            } catch {
                complain(
                    "extended.unreadable",
                    "The extended boot record at sector \(position.value) cannot be read, so logical partitions behind it "
                        + "are not known", source, .loss)
                return
            }
            guard let record = MBRSector(bytes) else {
                // A container that was never filled has no record at all; that is not worth a word.
                if records.isEmpty, bytes.allSatisfy({ $0 == 0 }) { return }
                complain(
                    "extended.no-record",
                    "At sector \(position.value) an extended boot record should be (signature 55 AA at byte 510); logical "
                        + "partitions behind it are not known", source)
                return
            }
            records.append(position)
            for (number, slot) in record.used where !slot.isExtended {
                let first = position.value.addingReportingOverflow(UInt64(slot.first))
                let last = first.partialValue.addingReportingOverflow(UInt64(slot.sectors))
                let inside = !first.overflow && !last.overflow && slot.first > 0 && last.partialValue <= end
                // The kernel takes the last two entries of a record only where they lie inside the container.
                if number > 2 && !inside { continue }
                guard !first.overflow, !last.overflow, slot.first > 0 else {
                    complain(
                        "extended.bad-logical",
                        "The logical partition described at sector \(position.value) begins at the record itself or past "
                            + "the end of any disk; it is left out", source)
                    continue
                }
                if !inside {
                    complain(
                        "extended.outside",
                        "The logical partition described at sector \(position.value) ends at sector "
                            + "\(last.partialValue - 1), past its extended partition", source)
                }
                logicals.append(
                    Partition(
                        number: 0, first: LBA(first.partialValue), sectors: UInt64(slot.sectors), type: .mbr(slot.type),
                        attributes: UInt64(slot.status), describedAt: position))
            }
            guard let link = record.used.first(where: { $0.slot.isExtended })?.slot else { return }
            let next = container.first.value.addingReportingOverflow(UInt64(link.first))
            guard !next.overflow, link.first > 0 || records.count > 1, next.partialValue < end else {
                complain(
                    "extended.bad-link",
                    "The extended boot record at sector \(position.value) links to sector \(next.partialValue), outside its "
                        + "extended partition; logical partitions behind it are not known", source)
                return
            }
            position = LBA(next.partialValue)
        }
    }

    private mutating func complain(
        _ code: String, _ what: String, _ source: any BlockSource, _ severity: Finding.Severity = .warning
    ) {
        findings.append(Finding(severity, code, what: what + ".", place: source.name))
    }
}
