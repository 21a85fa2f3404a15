// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import Threads

/// HFS+ and HFSX, also within an HFS wrapper: the blocks of the allocation file, the boot blocks with the volume header,
/// and its copy before the volume's end. A wrapper is used whole.
///
/// The allocation file is believed when the volume was cleanly unmounted, its journal is empty, as many blocks are free
/// as the header says, and the special files are in use by it. The copy of the header is not kept up to date in all
/// fields: it replaces a damaged header only where that is the same in those that tell how the volume lies, and what the
/// others say is then taken from the damaged one. Files that have more than eight pieces would need the extents overflow
/// file, which is not read: an allocation file with more makes the volume whole.
enum HFSPlusReader {
    /// Bytes of the allocation file read at a time: a multiple of eight.
    private static let batch = 1 << 20

    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        try VolumeMap.made(of: volume, identity) { (result) throws(MapProblem) in try map(volume, into: &result) }
    }

    private static func map(_ volume: any BlockSource, into result: inout VolumeMap) throws(MapProblem) {
        let block = try Fields(
            "the master directory block", of: volume, at: ByteCount(HFSPlusHeader.place), count: HFSPlusHeader.size)
        var place = Extent(from: .zero, to: volume.length)
        if let wrapper = HFSWrapper(parsing: block.bytes) {
            place = wrapper.embedded
            guard place.end <= volume.length, place.length >= ByteCount(4096) else {
                throw .damaged("The HFS+ volume in its wrapper lies outside of it.")
            }
        }
        let (header, isCopy) = try header(volume, place)
        result.blockSize = ByteCount(header.blockSize)
        result.filesystemSize = place.start + header.volumeSize
        guard header.volumeSize <= place.length else {
            throw .damaged(
                "The filesystem (\(header.volumeSize)) is larger than the volume (\(place.length)): its end is missing."
            )
        }
        guard !header.attributes.contains(.inconsistent) else {
            throw .whole("It is marked as inconsistent: run `fsck.hfsplus` or Disk Utility on it.", .dirty)
        }
        guard header.attributes.contains(.unmounted) else {
            throw .whole(
                "It was not cleanly unmounted: run `fsck.hfsplus` or Disk Utility on it before its allocation file can be "
                    + "relied on.", header.attributes.contains(.journaled) ? .journalToReplay : .dirty)
        }
        if header.attributes.contains(.journaled) { try requireEmptyJournal(volume, place, header) }

        let start = place.start
        let size = header.blockSize
        func extent(_ run: Range<UInt64>) -> Extent {
            Extent(from: start + ByteCount(run.lowerBound * size), to: start + ByteCount(run.upperBound * size))
        }
        var collected = RunCollector()
        let free = try header.blocks - allocated(volume, header, extent) { run in collected.add(extent(run)) }
        guard free == header.freeBlocks else {
            throw .damaged("Its allocation file has \(free) free blocks, its header says \(header.freeBlocks).")
        }
        let used = collected.list
        for (index, file) in header.files.enumerated() {
            guard file.listed <= file.blocks, file.extents.allSatisfy({ used.covers(extent($0)) }) else {
                throw .damaged("Its allocation file calls a part of \(HFSPlusHeader.names[index]) free.")
            }
        }
        // Boot blocks and header, and what no bit may stand for: the copy of the header and what follows it.
        let end = start + header.volumeSize
        var fixed = [
            Extent(from: start, to: start + .kibibytes(2)), Extent(from: end - .kibibytes(1), to: end),
            Extent(from: place.end - .kibibytes(1), to: place.end),
        ]
        if place.start > .zero || place.end < volume.length {
            fixed += [Extent(from: .zero, to: place.start), Extent(from: place.end, to: volume.length)]
        }
        result.used = used.union(ExtentList(fixed))
        if isCopy {
            result.damage =
                "Its volume header (byte \(place.start.bytes + HFSPlusHeader.place)) is damaged; the copy before its end was "
                + "used. Run `fsck.hfsplus` or Disk Utility on it, or on what is restored from its image."
            result.states.append(.damaged)
        }
        if result.states.isEmpty { result.states = [.clean] }
    }

    /// What libblkid does not recognise: a volume with a damaged header of which the copy tells how it must be.
    @Sendable static func recognise(_ volume: any BlockSource) throws(Fault) -> Identity? {
        let place = Extent(from: .zero, to: volume.length)
        guard volume.length >= .kibibytes(4), let (_, isCopy) = try? header(volume, place), isCopy else { return nil }
        return Identity(kind: .hfsPlus, usage: .filesystem)
    }

    /// The volume header, and whether parts of it are from its copy.
    private static func header(
        _ volume: any BlockSource, _ place: Extent
    ) throws(MapProblem) -> (HFSPlusHeader, isCopy: Bool) {
        let fields = try Fields(
            "the volume header", of: volume, at: place.start + ByteCount(HFSPlusHeader.place), count: HFSPlusHeader.size
        )
        let problem: FieldError
        do throws(FieldError) { return (try HFSPlusHeader(parsing: fields.bytes), false) } catch { problem = error }
        let copy = try? Fields(
            "the copy of the volume header", of: volume, at: place.end - .kibibytes(1), count: HFSPlusHeader.size)
        let isSound = copy.map { (try? HFSPlusHeader(parsing: $0.bytes)) != nil } ?? false
        // blockSize and totalBlocks, and where the special files lie: signature, version or dates are what is damaged. What
        // the copy may be behind in (attributes, the journal's place, free blocks) is the header's own.
        if isSound, let copy, fields.bytes[40..<48].elementsEqual(copy.bytes[40..<48]),
            fields.bytes[112..<512].elementsEqual(copy.bytes[112..<512])
        {
            var mended = copy.bytes
            for range in [4..<8, 12..<16, 48..<52] { mended.replaceSubrange(range, with: fields.bytes[range]) }
            if let header = try? HFSPlusHeader(parsing: mended) { return (header, true) }
        }
        throw .damaged(
            "Its volume header is damaged: \(problem)."
                + (isSound ? " The copy before its end is sound: `fsck.hfsplus` or Disk Utility can put it back." : ""))
    }

    /// Throws unless the journal has nothing to replay. TN1150, "Journal Info Block" and "Journal Header".
    private static func requireEmptyJournal(
        _ volume: any BlockSource, _ place: Extent, _ header: HFSPlusHeader
    ) throws(MapProblem) {
        guard header.journalInfo < header.blocks else { throw .damaged("Its journal info block lies outside of it.") }
        let info = try Fields(
            "the journal info block", of: volume, at: place.start + ByteCount(header.journalInfo * header.blockSize),
            count: 180)
        let flags = try info.big(UInt32.self, "flags", at: 0)
        guard flags & 2 == 0 else {
            throw .whole(
                "Its journal is on another device, so that nobody can tell whether something waits to be replayed.", nil
            )
        }
        guard flags & 1 != 0 else { throw .damaged("Its journal info block is damaged.") }
        // kJIJournalNeedInitMask: it was never written.
        if flags & 4 != 0 { return }
        let offset = try info.big(UInt64.self, "offset", at: 36)
        let size = try info.big(UInt64.self, "size", at: 44)
        guard offset < header.volumeSize.bytes, size <= header.volumeSize.bytes - offset, size >= 512 else {
            throw .damaged("Its journal lies outside of it.")
        }
        let journal = try Fields("the journal's header", of: volume, at: place.start + ByteCount(offset), count: 48)
        // Written in the byte order of the machine that made it.
        let isBig = try journal.big(UInt32.self, "endian", at: 4) == 0x1234_5678
        func number<T: FixedWidthInteger & BitwiseCopyable>(
            _ type: T.Type, _ field: StaticString, _ at: Int
        ) throws(MapProblem) -> T {
            isBig ? try journal.big(type, field, at: at) : try journal.little(type, field, at: at)
        }
        guard try number(UInt32.self, "magic", 0) == 0x4A4E_4C78, try number(UInt32.self, "endian", 4) == 0x1234_5678
        else { throw .damaged("Its journal is damaged.") }
        guard try number(UInt64.self, "start", 8) == number(UInt64.self, "end", 16) else {
            throw .whole(
                "Its journal waits to be replayed, and until then its allocation file does not tell what is in use.",
                .journalToReplay)
        }
    }

    /// Tells the runs of blocks in use and returns their number.
    private static func allocated(
        _ volume: any BlockSource, _ header: HFSPlusHeader, _ extent: (Range<UInt64>) -> Extent,
        _ found: (Range<UInt64>) -> Void
    ) throws(MapProblem) -> UInt64 {
        let file = header.files[0]
        let need = (header.blocks - 1) / 8 + 1
        guard file.listed == file.blocks else {
            throw .whole("Its allocation file is in more than eight pieces, which are not followed.", nil)
        }
        guard file.size >= need, file.listed * header.blockSize >= need else {
            throw .damaged("Its allocation file has too few bytes.")
        }
        var bits = BitRuns(count: header.blocks)
        var rest = need
        for run in file.extents {
            let place = extent(run)
            var position = place.start
            while position < place.end, rest > 0 {
                do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
                let count = min(UInt64(batch), (place.end - position).bytes, rest)
                let fields = try Fields("the allocation file", of: volume, at: position, count: Int(count))
                // The highest bit of a byte comes first.
                let mirrored = fields.bytes.map { BitRuns.mirrored($0) }
                bits.add(unsafe mirrored.span.bytes, found)
                position += ByteCount(count)
                rest -= count
            }
        }
        bits.finish(found)
        return bits.taken
    }
}
