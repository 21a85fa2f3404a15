// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry

/// One of the two copies of a GPT, sound: header and entry array both pass their checks.
struct GPTCopy: Hashable {
    var header: GPTHeader
    var entries: [UInt8]

    /// Why a place holds no sound copy.
    enum Problem: Error, Hashable {
        /// There is no GPT header at all.
        case absent
        /// There is one, but it is wrong; a clause that says what.
        case broken(String, header: GPTHeader?)

        /// The problem as a clause.
        var text: String {
            switch self {
            case .absent: "there is no GPT header"
            case .broken(let what, _): what
            }
        }
    }

    /// Reads the copy whose header should be at `lba`, on a disk taken to have sectors of `size`.
    init(_ source: any BlockSource, at lba: LBA, _ size: SectorSize) throws(Problem) {
        let sectors = source.length.bytes / UInt64(size.bytes)
        guard let place = lba.offset(size), lba.value < sectors else { throw .absent }
        let sector: [UInt8]
        do {
            sector = try source.bytes(at: place, count: Int(size.bytes))
        } catch {
            throw .broken("the header cannot be read (\(error.what))", header: nil)
        }
        guard unsafe sector.span.bytes.matches(GPTHeader.signature, at: 0) else { throw .absent }
        let header: GPTHeader
        do {
            header = try GPTHeader(parsing: sector, at: lba)
        } catch {
            throw .broken("\(error)", header: nil)
        }
        let (end, overflow) = header.entriesLBA.value.addingReportingOverflow(header.entrySectors(size))
        guard !overflow, end <= sectors, header.entriesLBA.value > 0, let start = header.entriesLBA.offset(size),
            !(header.entriesLBA.value...(end - 1)).contains(lba.value)
        else {
            throw .broken(
                "PartitionEntryLBA \(header.entriesLBA.value) puts the entries outside the disk or over the header",
                header: nil)
        }
        let entries: [UInt8]
        do {
            entries = try source.bytes(at: start, count: header.entryBytes)
        } catch {
            throw .broken("the entries cannot be read (\(error.what))", header: header)
        }
        let computed = CRC32.ieee.checksum(entries)
        guard computed == header.entriesCRC else {
            throw .broken(
                "PartitionEntryArrayCRC32 is \(Hex.number(header.entriesCRC)), the entries at LBA "
                    + "\(header.entriesLBA.value) give \(Hex.number(computed))", header: header)
        }
        self.header = header
        self.entries = entries
    }

    /// Where header and entries lie.
    func extents(_ size: SectorSize) -> [Extent] {
        GPTCopy.extents(header, size)
    }

    /// Where a header that passes its own check, and its entries, lie.
    static func extents(_ header: GPTHeader, _ size: SectorSize) -> [Extent] {
        var result: [Extent] = []
        if let at = header.myLBA.offset(size), let extent = Extent(start: at, length: size.count) {
            result.append(extent)
        }
        if let at = header.entriesLBA.offset(size),
            let length = size.count.multiplied(by: header.entrySectors(size)),
            let extent = Extent(start: at, length: length)
        {
            result.append(extent)
        }
        return result
    }
}
