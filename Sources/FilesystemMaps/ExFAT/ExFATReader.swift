// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import Threads

/// exFAT: everything before the cluster heap (boot regions and the allocation table), and the clusters of the
/// allocation bitmap.
///
/// The bitmap alone says what is in use: the table's entries of other clusters mean nothing. It is believed when the
/// volume is not marked dirty and when root directory, bitmap and table of upper-case letters are in use by it. A broken
/// boot region is replaced by the backup. Since that one's flags are not kept up to date, the first one's must be
/// readable: then, in the fields around them, the two may differ in nothing.
enum ExFATReader {
    /// Bytes of the bitmap read at a time: a multiple of eight.
    private static let batch = 1 << 20

    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        try VolumeMap.made(of: volume, identity) { (result) throws(MapProblem) in try map(volume, into: &result) }
    }

    /// What libblkid does not recognise: a volume that begins with exFAT's name, or with a blank sector, and has a sound
    /// backup boot region. In the second case nobody can tell whether it was unmounted, which its map says.
    @Sendable static func recognise(_ volume: any BlockSource) throws(Fault) -> Identity? {
        guard volume.holds(512, at: .zero) else { return nil }
        let first = Fields("the boot sector", try volume.bytes(at: .zero, count: 512))
        let known: ExFATBootSector?
        if Lost.isBlank(first.bytes) {
            known =
                [512, 1024, 2048, 4096].lazy.compactMap { size in
                    try? region(volume, ExFATBootSector.regionSectors, size: size).boot
                }.first
        } else {
            known = first.matches(ExFATBootSector.name, at: 3) ? try? boot(volume).0 : nil
        }
        guard let boot = known else { return nil }
        return Identity(kind: .exFAT, usage: .filesystem, uuid: boot.serialText)
    }

    private static func map(_ source: any BlockSource, into result: inout VolumeMap) throws(MapProblem) {
        let (boot, isBackup) = try boot(source)
        result.blockSize = ByteCount(boot.clusterSize)
        result.filesystemSize = boot.size
        if result.identity.uuid == nil { result.identity.uuid = boot.serialText }
        guard boot.size <= source.length else {
            throw .damaged(
                "The filesystem (\(boot.size)) is larger than the volume (\(source.length)): its end is missing.")
        }
        guard boot.tables == 1, !boot.flags.contains(.secondIsActive) else {
            throw .whole("It is TexFAT, with two tables and bitmaps of which one counts at a time.", .unknownFeatures)
        }
        guard boot.flags.isSubset(of: .known) else {
            throw .whole(
                "It has flags unknown here (\(Hex.number(boot.flags.rawValue))).", .unknownFeatures)
        }
        if boot.flags.contains(.dirty) {
            throw .whole(
                "It is marked dirty: run `fsck.exfat` or chkdsk on it before its bitmap can be relied on.", .dirty)
        }
        if isBackup {
            result.damage =
                "Its boot region (from byte 0 on) is damaged; the backup in sector \(ExFATBootSector.regionSectors) was used. Run `fsck.exfat` or chkdsk on it, or on what is "
                + "restored from its image."
            result.states.append(.damaged)
        } else if boot.flags.contains(.mediaFailure) {
            result.damage = "It is marked with a failure of its medium: copy what is on it soon."
            result.states.append(.damaged)
        }

        let table = ExFATTable(source, boot)
        let root = try directory(source, boot, table, &result)
        var used = RunCollector()
        used.add(Extent(from: .zero, to: boot.heap))
        try read(root.bitmap, source, boot, &used)
        result.used = used.list
        for extent in root.known where !result.used.covers(extent) {
            throw .damaged("Its bitmap calls a part of its own metadata free.")
        }
        if result.states.isEmpty { result.states = [.clean] }
    }

    // MARK: - Boot regions

    /// The boot sector of the first sound boot region, and whether that is the backup.
    private static func boot(_ volume: any BlockSource) throws(MapProblem) -> (ExFATBootSector, isBackup: Bool) {
        var problem: MapProblem?
        for size in [512, 1024, 2048, 4096] as [UInt64] {
            do throws(MapProblem) { return (try region(volume, 0, size: size).boot, false) } catch {
                if case .fault(let fault) = error, fault.code == .interrupted { throw error }
                if size == 512 { problem = error }
            }
        }
        let first = try Fields("the boot sector", of: volume, at: .zero, count: 512)
        for size in [512, 1024, 2048, 4096] as [UInt64] {
            guard let backup = try? region(volume, ExFATBootSector.regionSectors, size: size) else { continue }
            // From VolumeLength to NumberOfFats, without the flags and, before them, what a volume's move changes.
            guard first.bytes[72..<106].elementsEqual(backup.bytes[72..<106]),
                first.bytes[108..<111].elementsEqual(backup.bytes[108..<111])
            else {
                throw .damaged(
                    "Its boot sector is damaged, so that nobody can tell whether it was cleanly unmounted. Its backup is "
                        + "sound: `fsck.exfat` can put it back.")
            }
            var boot = backup.boot
            boot.flags = ExFATBootSector.Flags(rawValue: try first.little(UInt16.self, "VolumeFlags", at: 106))
            return (boot, true)
        }
        throw problem ?? .damaged("Its boot sector is damaged.")
    }

    /// A boot region with sectors of `size` bytes and a right checksum.
    private static func region(
        _ volume: any BlockSource, _ sector: UInt64, size: UInt64
    ) throws(MapProblem) -> (boot: ExFATBootSector, bytes: [UInt8]) {
        let name = sector == 0 ? "the boot region" : "the backup boot region"
        let fields = try Fields(
            name, of: volume, at: ByteCount(sector * size), count: Int(ExFATBootSector.regionSectors * size))
        let boot: ExFATBootSector
        do throws(FieldError) { boot = try ExFATBootSector(parsing: fields.bytes) } catch {
            throw .damaged("\(name.capitalizedFirst) is damaged: \(error).")
        }
        guard boot.sectorSize == size else { throw .damaged("\(name.capitalizedFirst) has sectors of another size.") }
        let end = 11 * Int(size)
        let stored = try fields.little(UInt32.self, "BootChecksum", at: end)
        guard stored == ExFATBootSector.checksum(fields.bytes[..<end]) else {
            throw .damaged("The checksum of \(name) is wrong.")
        }
        return (boot, fields.bytes)
    }

    // MARK: - Root directory and bitmap

    private struct Root {
        /// Where the bitmap lies, in its order.
        var bitmap: [Extent]
        /// What must be in use.
        var known: [Extent]
    }

    /// The root directory's entries for bitmap, upper-case table and label. Sections 7.1 to 7.3.
    private static func directory(
        _ volume: any BlockSource, _ boot: ExFATBootSector, _ table: ExFATTable, _ result: inout VolumeMap
    ) throws(MapProblem) -> Root {
        // 256 MiB is the largest directory.
        let runs = try table.chain(from: boot.root, most: max(1, (256 << 20) / boot.clusterSize), "the root directory")
        var found: Root?
        var known = runs
        search: for run in runs {
            var position = run.start
            while position < run.end {
                do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
                let count = Int(min(UInt64(batch), (run.end - position).bytes))
                let fields = try Fields("the root directory", of: volume, at: position, count: count)
                for at in stride(from: 0, to: count, by: 32) {
                    let kind = try fields.little(UInt8.self, "EntryType", at: at)
                    let cluster = try fields.little(UInt32.self, "FirstCluster", at: at + 20)
                    let length = try fields.little(UInt64.self, "DataLength", at: at + 24)
                    switch kind {
                    case 0: break search
                    case 0x81:
                        let need = (boot.clusters - 1) / 8 + 1
                        guard found == nil, try fields.little(UInt8.self, "BitmapFlags", at: at + 1) & 1 == 0,
                            length == need
                        else { throw .damaged("Its root directory describes the allocation bitmap wrongly.") }
                        let bitmap = try table.extents(from: cluster, length: length, "the allocation bitmap")
                        known += bitmap
                        found = Root(bitmap: trimmed(bitmap, to: need), known: [])
                    case 0x82:
                        guard length > 0, length <= 1 << 20 else {
                            throw .damaged("Its table of upper-case letters is damaged.")
                        }
                        known += try table.extents(from: cluster, length: length, "the table of upper-case letters")
                    case 0x83 where result.identity.label == nil:
                        let letters = Int(try fields.little(UInt8.self, "CharacterCount", at: at + 1))
                        let text = UTF16Text.decode(
                            try fields.bytes("VolumeLabel", at: at + 2, count: 2 * min(letters, 11)))
                        result.identity.label = text.isEmpty ? nil : text
                    default: break
                    }
                }
                position += ByteCount(UInt64(count))
            }
        }
        guard var root = found else { throw .damaged("Its root directory has no allocation bitmap.") }
        root.known = known
        return root
    }

    /// The first `length` bytes of `extents`.
    private static func trimmed(_ extents: [Extent], to length: UInt64) -> [Extent] {
        var rest = length
        var result: [Extent] = []
        for extent in extents where rest > 0 {
            let count = min(rest, extent.length.bytes)
            result.append(Extent(from: extent.start, to: extent.start + ByteCount(count)))
            rest -= count
        }
        return result
    }

    private static func read(
        _ bitmap: [Extent], _ volume: any BlockSource, _ boot: ExFATBootSector, _ used: inout RunCollector
    ) throws(MapProblem) {
        var bits = BitRuns(count: boot.clusters)
        func found(_ run: Range<UInt64>) {
            used.add(Extent(from: boot.place(run.lowerBound + 2), to: boot.place(run.upperBound + 2)))
        }
        for extent in bitmap {
            var position = extent.start
            while position < extent.end {
                do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
                // Clusters are multiples of eight bytes: a piece ends within a word only at the bitmap's end.
                let count = Int(min(UInt64(batch), (extent.end - position).bytes))
                let fields = try Fields("the allocation bitmap", of: volume, at: position, count: count)
                bits.add(unsafe fields.bytes.span.bytes, found)
                position += ByteCount(UInt64(count))
            }
        }
        bits.finish(found)
    }
}
