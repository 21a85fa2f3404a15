// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel

/// Finds, checks and chooses between the two copies of a GPT.
struct GPTReader {
    let source: any BlockSource
    let sector0: [UInt8]
    let boot: MBRSector?
    private(set) var findings: [Finding] = []
    private(set) var regions: [Extent] = []

    init(_ source: any BlockSource, sector0: [UInt8], boot: MBRSector?) {
        self.source = source
        self.sector0 = sector0
        self.boot = boot
    }

    /// The table; `nil` where the disk has no GPT. Throws `disk.damaged` where there was one and no copy is sound, and
    /// `wrong-kind` where it was written for another sector size.
    mutating func read() throws(Fault) -> PartitionTable? {
        let size = source.sectorSize
        let sectors = source.sectorCount
        guard sectors >= 6 else { return nil }
        let last = LBA(sectors - 1)
        let protected = boot?.isProtective ?? false

        let primary: GPTCopy
        let backup: GPTCopy?
        let primaryProblem: GPTCopy.Problem?
        do {
            primary = try GPTCopy(source, at: LBA(1), size)
            primaryProblem = nil
            backup = checkBackup(of: primary, last: last)
        } catch {
            if error == .absent, !protected {
                if (try? GPTCopy(source, at: last, size)) != nil {
                    note(
                        .notice, "gpt.only-backup",
                        "At its end lies a sound backup GPT, but its first sectors hold no sign of one; the kernel sees no "
                            + "table here")
                }
                return nil
            }
            try refuseOtherSectorSize()
            let found = findBackup(primary: error, last: last)
            guard let found else {
                throw Fault(
                    .diskDamaged,
                    what:
                        "Both copies of its GPT are damaged. Primary at LBA 1: \(error.text). Backup: none sound was found "
                        + "at LBA \(last.value), the end of the disk.", place: source.name,
                    remedy: "The disk can still be imaged whole; `testdisk` may find the partitions.")
            }
            note(
                .warning, "gpt.primary-damaged",
                "The primary GPT at LBA 1 is damaged: \(error.text). The backup at LBA \(found.header.myLBA.value) is "
                    + "sound and is used")
            primary = found
            backup = found
            primaryProblem = error
        }

        if !protected {
            note(
                .warning, "gpt.not-protected",
                "Sector 0 has no protective entry (type EE), so the kernel does not see the GPT; a restore writes one")
        }
        noteSize(primary.header, protected: protected, last: last)

        let parsed: (partitions: [Partition], impossible: [Int])
        do {
            parsed = try GPTEntries.parse(
                primary.entries, count: primary.header.entryCount, size: primary.header.entrySize)
        } catch {
            throw Fault(
                .diskDamaged, what: "The GPT's entries cannot be read: \(error).", place: source.name,
                remedy: "The disk can still be imaged whole.")
        }
        for number in parsed.impossible {
            note(
                .warning, "gpt.impossible-entry",
                "GPT entry \(number) ends before it begins and is left out")
        }
        for partition in parsed.partitions {
            guard let end = partition.last else { continue }
            if partition.first < primary.header.firstUsable || end > primary.header.lastUsable {
                note(
                    .notice, "gpt.outside-usable",
                    "Partition \(partition.number) (sectors \(partition.first.value) to \(end.value)) lies outside the usable "
                        + "sectors \(primary.header.firstUsable.value) to \(primary.header.lastUsable.value)")
            }
        }

        // A primary that is lost was at the usual place, unless its header survived and says otherwise.
        var entriesAt = primary.header.entriesLBA
        if let primaryProblem {
            entriesAt = LBA(2)
            if case .broken(_, let header?) = primaryProblem { entriesAt = header.entriesLBA }
            if let at = LBA(1).offset(size), let length = LBA(33).offset(size),
                let usual = Extent(start: at, length: length)
            {
                regions.append(usual)
            }
        }
        regions += primary.extents(size)
        if let backup { regions += backup.extents(size) }

        return PartitionTable(
            kind: .gpt, sectorSize: size, diskSectors: sectors, sector0: HexBytes(sector0),
            gpt: GPTFacts(
                diskGUID: primary.header.diskGUID, firstUsable: primary.header.firstUsable,
                lastUsable: primary.header.lastUsable, entryCount: primary.header.entryCount,
                entrySize: primary.header.entrySize, entriesAt: entriesAt),
            partitions: parsed.partitions)
    }

    /// The backup of a sound primary, with findings about what is wrong with it.
    private mutating func checkBackup(of primary: GPTCopy, last: LBA) -> GPTCopy? {
        let place = primary.header.alternateLBA
        do {
            let backup = try GPTCopy(source, at: place, source.sectorSize)
            let same =
                backup.entries == primary.entries && backup.header.diskGUID == primary.header.diskGUID
                && backup.header.firstUsable == primary.header.firstUsable
                && backup.header.lastUsable == primary.header.lastUsable
            if !same {
                note(
                    .warning, "gpt.copies-differ",
                    "The two copies of the GPT differ though both are sound; the primary is used, as the kernel does")
            }
            return backup
        } catch {
            if place <= last {
                note(
                    .warning, "gpt.backup-damaged",
                    "The backup GPT at LBA \(place.value) is damaged: \(error.text). The primary is sound and is used")
            }
            if case .broken(_, let header?) = error { regions += GPTCopy.extents(header, source.sectorSize) }
            return nil
        }
    }

    /// A sound backup where the primary is not: at the end of the disk, where a damaged primary says, or at the end the
    /// protective entry names (the disk may have grown since).
    private func findBackup(primary: GPTCopy.Problem, last: LBA) -> GPTCopy? {
        var places = [last]
        if case .broken(_, let header?) = primary { places.append(header.alternateLBA) }
        for slot in boot?.slots ?? [] where slot.type == MBRSlot.protective && slot.sectors > 0 {
            places.append(LBA(UInt64(slot.first) + UInt64(slot.sectors) - 1))
        }
        for place in places where place > LBA(1) {
            if let copy = try? GPTCopy(source, at: place, source.sectorSize) { return copy }
        }
        return nil
    }

    /// Says where the table and the disk do not agree about the disk's size.
    private mutating func noteSize(_ header: GPTHeader, protected: Bool, last: LBA) {
        let backupAt = max(header.alternateLBA, header.myLBA)
        if backupAt < last {
            note(
                .notice, "gpt.disk-grown",
                "The backup GPT lies at LBA \(backupAt.value), but the disk ends at LBA \(last.value): it has grown since the "
                    + "table was written. A restore writes the backup at the end")
        } else if backupAt > last || header.lastUsable > last {
            note(
                .warning, "gpt.disk-shrunk",
                "The GPT was written for a disk ending at LBA \(max(backupAt, header.lastUsable).value), but this one ends at "
                    + "LBA \(last.value): part of it is missing")
        }
        guard protected, let boot else { return }
        let others = boot.used.filter { $0.slot.type != MBRSlot.protective }
        if !others.isEmpty {
            note(
                .notice, "gpt.hybrid",
                "Its MBR is a hybrid: entry \(others.map { "\($0.number)" }.joined(separator: ", ")) names a partition beside "
                    + "the protective entry. It is kept")
        }
    }

    /// Throws where a GPT for another sector size is found: an image of a 4Kn disk read as 512-byte sectors, a disk moved
    /// to another USB bridge.
    private func refuseOtherSectorSize() throws(Fault) {
        for size in [SectorSize.s512, .s4096] where size != source.sectorSize {
            guard (try? GPTCopy(source, at: LBA(1), size)) != nil else { continue }
            throw Fault(
                .wrongKind,
                what:
                    "Its GPT was written for sectors of \(size.bytes) bytes, but it is read as a disk with sectors of "
                    + "\(source.sectorSize.bytes) bytes.", place: source.name,
                remedy: source.file?.isDevice == true
                    ? "Attach the disk the way it was when the table was written (another adapter changes the sector size)."
                    : "Say `--sector-size \(size.bytes)` if this is the image of such a disk.")
        }
    }

    private mutating func note(_ severity: Finding.Severity, _ code: String, _ what: String) {
        findings.append(Finding(severity, code, what: what + ".", place: source.name))
    }
}
