// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry

/// A physical volume as it says of itself: label, header, metadata areas. The formats are those of LVM2's
/// `lib/label/label.h`, `lib/format_text/layout.h`.
struct LVMPhysicalVolume: Sendable {
    /// 32 characters without dashes.
    let uuid: String
    /// The newest metadata in its areas; `nil` where they hold none: it is in no volume group, or only others say so.
    var stored: LVMStored?
    /// Metadata areas that could not be read or are damaged, sentences.
    var problems: [String] = []
    /// Whether its areas contradict each other, or a change was under way.
    var unsettled: String?

    /// LVM2 keeps sectors of 512 bytes whatever the disk has.
    static let sector = 512

    /// LVM2's CRC: that of IEEE 802.3 with another beginning and without the last inversion (`lib/misc/crc.c`).
    static func crc(_ bytes: RawSpan) -> UInt32 { ~CRC32.ieee.checksum(bytes, continuing: ~0xF597_A6CF) }

    init(_ source: any BlockSource) throws(LayerProblem) {
        let head: [UInt8]
        do throws(Fault) {
            head = try source.bytes(at: .zero, count: min(source.length.int ?? 2048, 2048))
        } catch { throw .fault(error) }
        let areas: [(UInt64, UInt64)]
        do {
            guard let (sector, content) = try LVMPhysicalVolume.label(head) else {
                throw LayerProblem.whole("It has no sound LVM label in its first four sectors.")
            }
            (uuid, areas) = try LVMPhysicalVolume.header(sector, content)
        } catch let problem as LayerProblem {
            throw problem
        } catch {
            throw .whole("Its LVM label is damaged: \(error).")
        }
        for area in areas { try read(area, of: source) }
    }

    /// UUID and metadata areas of the header at `content` of the label's sector.
    private static func header(_ bytes: [UInt8], _ content: Int) throws -> (String, [(UInt64, UInt64)]) {
        let sector = unsafe bytes.span.bytes
        let id = try sector.bytes("pv_uuid", at: content, count: 32)
        guard id.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw LayerProblem.whole("The UUID in its LVM label is damaged.")
        }
        var position = content + 40
        // Data areas, then metadata areas; each list ends with zeros.
        _ = try areas(sector, &position)
        return (String(decoding: id, as: UTF8.self), try areas(sector, &position))
    }

    /// The sector of a sound label, and where its content begins in it.
    private static func label(_ head: [UInt8]) throws(FieldError) -> ([UInt8], Int)? {
        for index in 0..<4 {
            guard head.count >= (index + 1) * sector else { break }
            let bytes = Array(head[index * sector..<(index + 1) * sector])
            let label = unsafe bytes.span.bytes
            guard label.matches("LABELONE".utf8, at: 0) else { continue }
            let number = try label.littleEndian(UInt64.self, "sector_xl", at: 8)
            let check = try label.littleEndian(UInt32.self, "crc_xl", at: 16)
            let content = Int(try label.littleEndian(UInt32.self, "offset_xl", at: 20))
            guard number == UInt64(index), label.matches("LVM2 001".utf8, at: 24),
                crc(label.extracting(20..<sector)) == check, content >= 32, content < sector
            else { continue }
            return (bytes, content)
        }
        return nil
    }

    private static func areas(_ sector: RawSpan, _ position: inout Int) throws(FieldError) -> [(UInt64, UInt64)] {
        var result: [(UInt64, UInt64)] = []
        while true {
            let offset = try sector.littleEndian(UInt64.self, "disk_locn.offset", at: position)
            let size = try sector.littleEndian(UInt64.self, "disk_locn.size", at: position + 8)
            position += 16
            if offset == 0 { return result }
            result.append((offset, size))
        }
    }

    private mutating func read(_ area: (UInt64, UInt64), of source: any BlockSource) throws(LayerProblem) {
        let found: LVMMetadataArea
        do throws(LayerProblem) {
            found = try LVMMetadataArea(source, start: area.0, size: area.1)
        } catch {
            switch error {
            case .fault(let fault):
                guard fault.code == .unreadable else { throw error }
                problems.append("A metadata area cannot be read: \(fault.what)")
            case .whole(let reason): problems.append(reason)
            }
            return
        }
        if found.isUnderWay { unsettled = "A change of its volume group was under way when it was last used." }
        guard let stored = found.stored else { return }
        guard let known = self.stored else {
            self.stored = stored
            return
        }
        if known.group.id != stored.group.id {
            unsettled = "Its metadata areas tell of different volume groups."
        } else if stored.group.sequence > known.group.sequence {
            self.stored = stored
        } else if !known.isSame(as: stored), known.group.sequence == stored.group.sequence {
            unsettled = "Its metadata areas contradict each other."
        }
    }
}

/// A volume group's metadata as an area holds it.
struct LVMStored: Sendable {
    let group: LVMGroup
    let size: UInt64
    let crc: UInt32

    /// Whether both are one text, if they are of one sequence number.
    func isSame(as other: LVMStored) -> Bool {
        group.sequence != other.group.sequence || (size == other.size && crc == other.crc)
    }
}

/// A metadata area: a header of 512 bytes, and texts in a ring behind it.
struct LVMMetadataArea {
    /// The metadata in force; `nil` where there is none or it is to be ignored.
    let stored: LVMStored?
    /// Whether a text was written but not put in force.
    let isUnderWay: Bool

    private static let magic: [UInt8] = [
        0x20, 0x4C, 0x56, 0x4D, 0x32, 0x20, 0x78, 0x5B, 0x35, 0x41, 0x25, 0x72, 0x30, 0x4E, 0x2A, 0x3E,
    ]
    private static let headSize = 512
    /// Longest text that is read; a volume group of ten thousand logical volumes needs about half of it.
    private static let mostText: UInt64 = 8 << 20

    init(_ source: any BlockSource, start: UInt64, size: UInt64) throws(LayerProblem) {
        func bytes(_ offset: UInt64, _ count: Int) throws(LayerProblem) -> [UInt8] {
            do throws(Fault) { return try source.bytes(at: ByteCount(offset), count: count) } catch {
                throw .fault(error)
            }
        }
        guard let area = Extent(start: ByteCount(start), length: ByteCount(size)), area.end <= source.length,
            size > UInt64(LVMMetadataArea.headSize)
        else { throw .whole("A metadata area lies past the end of the physical volume.") }
        let head = try bytes(start, LVMMetadataArea.headSize)
        let span = unsafe head.span.bytes
        do {
            let check = try span.littleEndian(UInt32.self, "checksum_xl", at: 0)
            guard LVMPhysicalVolume.crc(span.extracting(4..<LVMMetadataArea.headSize)) == check,
                span.matches(LVMMetadataArea.magic, at: 4),
                try span.littleEndian(UInt32.self, "version", at: 20) == 1,
                try span.littleEndian(UInt64.self, "start", at: 24) == start,
                try span.littleEndian(UInt64.self, "size", at: 32) == size
            else { throw LayerProblem.whole("The header of the metadata area at byte \(start) is damaged.") }
            // raw_locns: the text in force, and one that is being written.
            let offset = try span.littleEndian(UInt64.self, "raw_locn.offset", at: 40)
            let count = try span.littleEndian(UInt64.self, "raw_locn.size", at: 48)
            let textCheck = try span.littleEndian(UInt32.self, "raw_locn.checksum", at: 56)
            let flags = try span.littleEndian(UInt32.self, "raw_locn.flags", at: 60)
            let ignored = flags & 1 != 0
            isUnderWay =
                try !ignored && span.littleEndian(UInt64.self, "raw_locn.offset", at: 64) != 0
                && span.littleEndian(UInt64.self, "raw_locn.size", at: 72) != 0
            guard offset != 0, !ignored else {
                stored = nil
                return
            }
            let first = UInt64(LVMMetadataArea.headSize)
            guard offset >= first, offset < size, count <= size - first, count <= LVMMetadataArea.mostText,
                let length = Int(exactly: count)
            else { throw LayerProblem.whole("The metadata text at byte \(start) has an impossible place or size.") }
            let behind = min(length, Int(min(size - offset, count)))
            var text = try bytes(start + offset, behind)
            // The ring goes on behind the header.
            if behind < length { text += try bytes(start + first, length - behind) }
            guard unsafe LVMPhysicalVolume.crc(text.span.bytes) == textCheck else {
                throw LayerProblem.whole("The metadata text at byte \(start + offset) has a wrong checksum.")
            }
            stored = LVMStored(group: try LVMGroup(LVMText.parse(text)), size: count, crc: textCheck)
        } catch let problem as LayerProblem {
            throw problem
        } catch {
            throw .whole("The metadata area at byte \(start) is damaged: \(error).")
        }
    }
}
