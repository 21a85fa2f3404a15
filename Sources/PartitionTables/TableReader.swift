// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
public import Findings
public import Geometry
public import MachineModel

/// What ``TableReader`` found.
public struct TableReading: Hashable, Sendable {
    /// The table; `nil` where the disk has none.
    public var table: PartitionTable?
    /// What was odd.
    public var findings: [Finding]
    /// Bytes of the disk that hold the table itself: sector 0, header and entries of both copies of a GPT, extended boot
    /// records. They lie within the disk.
    public var regions: ExtentList

    /// A result.
    public init(table: PartitionTable?, findings: [Finding] = [], regions: ExtentList = ExtentList()) {
        self.table = table
        self.findings = findings
        self.regions = regions
    }
}

/// Reads partition tables.
public enum TableReader {
    /// Reads the table of `source`. A boot sector of FAT, NTFS or exFAT is no table though it ends in 55 AA.
    ///
    /// Throws `source.unreadable` where sector 0 cannot be read, `disk.damaged` where a GPT has no sound copy left, and
    /// `wrong-kind` where a GPT was written for another sector size. Everything else that is wrong is a finding, and the
    /// table is returned as far as it can be trusted.
    public static func read(_ source: any BlockSource) throws(Fault) -> TableReading {
        guard source.sectorCount > 0 else { return TableReading(table: nil) }
        let sector0 = try source.sector(LBA(0))
        let boot = MBRSector(sector0)
        let named = boot?.used.filter { $0.slot.type != MBRSlot.protective } ?? []
        let isProtective = boot?.isProtective ?? false

        var result = TableReading(table: nil)
        if isProtective || named.isEmpty {
            var gpt = GPTReader(source, sector0: sector0, boot: boot)
            result.table = try gpt.read()
            result.findings = gpt.findings
            result.regions = ExtentList(gpt.regions)
        }
        if result.table == nil, let boot, !isProtective,
            let reading = readMBR(source, sector0: sector0, boot: boot)
        {
            result.table = reading.table
            result.findings += reading.findings
            result.regions = result.regions.union(reading.regions)
            if !named.isEmpty, (try? GPTCopy(source, at: LBA(1), source.sectorSize)) != nil {
                result.findings.append(
                    Finding(
                        .notice, "gpt.stale",
                        what:
                            "A GPT lies behind its MBR, but no protective entry says so; the MBR rules, as for the kernel.",
                        place: source.name))
            }
        }
        guard let table = result.table else { return result }
        result.regions.append(Extent(from: .zero, to: source.sectorSize.count))
        result.regions = result.regions.intersection(Extent(from: .zero, to: source.length))
        result.findings += complaints(about: table, name: source.name)
        return result
    }

    /// The table in a sector that has the form of a master boot record; `nil` where it is something else after all.
    private static func readMBR(
        _ source: any BlockSource, sector0: [UInt8], boot: MBRSector
    ) -> TableReading? {
        let sectors = source.sectorCount
        if sector0.looksLikeFilesystemBootSector {
            // Boot loaders write their code over the parameter block of a real MBR's sector, so the entries decide: those
            // of a real table lie on the disk, one behind the other; what a filesystem's boot code has there does not.
            var end: UInt64 = 1
            for slot in boot.used.map(\.slot).sorted(by: { $0.first < $1.first }) {
                let next = UInt64(slot.first) + UInt64(slot.sectors)
                if UInt64(slot.first) < end || next > sectors { return nil }
                end = next
            }
            if boot.used.isEmpty { return nil }
        }
        // Without entries only the disk signature tells a fresh table from any other boot code.
        if boot.used.isEmpty, sector0[440..<444].allSatisfy({ $0 == 0 }) { return nil }

        var partitions: [Partition] = []
        var logicals: [Partition] = []
        var findings: [Finding] = []
        var regions: [Extent] = []
        for (number, slot) in boot.used {
            let partition = Partition(
                number: number, first: LBA(UInt64(slot.first)), sectors: UInt64(slot.sectors), type: .mbr(slot.type),
                attributes: UInt64(slot.status))
            partitions.append(partition)
            guard partition.isExtendedContainer, partition.first.value > 0, partition.first.value < sectors else {
                continue
            }
            let chain = ExtendedChain(partition, on: source)
            logicals += chain.logicals
            findings += chain.findings
            for record in chain.records {
                guard let at = record.offset(source.sectorSize),
                    let extent = Extent(start: at, length: source.sectorSize.count)
                else { continue }
                regions.append(extent)
            }
        }
        for (index, logical) in logicals.enumerated() {
            var numbered = logical
            numbered.number = 5 + index
            partitions.append(numbered)
        }
        let table = PartitionTable(
            kind: .mbr, sectorSize: source.sectorSize, diskSectors: sectors, sector0: HexBytes(sector0),
            partitions: partitions)
        return TableReading(table: table, findings: findings, regions: ExtentList(regions))
    }

    /// What is wrong with a table on its own disk: partitions past the end, partitions that overlap.
    static func complaints(about table: PartitionTable, name: String) -> [Finding] {
        var findings: [Finding] = []
        for partition in table.partitions {
            guard let last = partition.last, last.value < table.diskSectors else {
                findings.append(
                    Finding(
                        .warning, "table.past-end",
                        what:
                            "Partition \(partition.number) (from sector \(partition.first.value), \(partition.sectors) sectors) "
                            + "passes the end of the disk at sector \(table.diskSectors).", place: name))
                continue
            }
        }
        findings += overlaps(table.volumes, name: name)
        findings += overlaps(table.partitions.filter { $0.describedAt == nil }, name: name)
        return findings.reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }

    private static func overlaps(_ partitions: [Partition], name: String) -> [Finding] {
        var findings: [Finding] = []
        var widest: (partition: Partition, last: LBA)?
        for partition in partitions.sorted(by: { $0.first < $1.first }) {
            guard let last = partition.last else { continue }
            if let before = widest, partition.first <= before.last {
                findings.append(
                    Finding(
                        .warning, "table.overlap",
                        what: "Partitions \(before.partition.number) and \(partition.number) overlap: sector "
                            + "\(partition.first.value) belongs to both.", place: name))
            }
            if widest.map({ last > $0.last }) ?? true { widest = (partition, last) }
        }
        return findings
    }
}
