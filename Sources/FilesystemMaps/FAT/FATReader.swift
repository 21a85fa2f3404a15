// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import Threads

/// FAT12, FAT16 and FAT32: everything before the first cluster (boot sectors, FSInfo, both tables, the fixed root
/// directory), and each cluster that is neither free nor bad in at least one copy of the table.
///
/// The table is believed only where it begins as one does and where every directory and file has all of its clusters in
/// it (``FATTree``). Nothing orders what is written to a FAT: after a crash, or where sectors of the table were lost, a
/// directory may name files whose clusters the table calls free. All copies count, also where the boot sector says that
/// only one of them is kept up to date: not every system heeds that. A copy that cannot be read is done without.
///
/// A damaged boot sector of FAT32 is replaced by its backup in sector 6; FAT12 and FAT16 have none.
enum FATReader {
    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        try VolumeMap.made(of: volume, identity) { (result) throws(MapProblem) in try map(volume, into: &result) }
    }

    private static func map(_ volume: any BlockSource, into result: inout VolumeMap) throws(MapProblem) {
        let (boot, backup) = try boot(volume)
        result.blockSize = boot.clusterBytes
        result.filesystemSize = boot.size
        guard boot.size <= volume.length else {
            throw .damaged(
                "The filesystem (\(boot.size)) is larger than the volume (\(volume.length)): its end is missing.")
        }
        var walk = FATWalk(boot)
        try walk.run(over: volume)
        if boot.isMarkedDirty || walk.isMarkedDirty || walk.copiesDiffer { result.states.append(.dirty) }
        if walk.isCopyUnreadable {
            result.states.append(.damaged)
            result.damage =
                "A part of one of its two allocation tables cannot be read; the other was used. Image it now and replace "
                + "the disk."
        }
        if let backup {
            if !result.states.contains(.damaged) { result.states.append(.damaged) }
            let what =
                "Its boot sector (byte 0) is damaged; the backup at byte \(backup.bytes) was used. Run `fsck.fat` or chkdsk "
                + "on it, or on what is restored from its image."
            result.damage = result.damage.map { "\(what) \($0)" } ?? what
        }
        guard walk.hasHead else {
            throw .damaged("Its allocation table does not begin as one does: its first sectors were lost.")
        }
        var tree = FATTree(volume, boot)
        try tree.check()
        result.used = walk.used.list
        if result.states.isEmpty { result.states = [.clean] }
    }
}

extension FATReader {
    /// What libblkid does not recognise: a volume whose first sector still has FAT32's name, and whose backup boot sector is
    /// sound. Behind a blank one the backup may be that of an older filesystem.
    @Sendable static func recognise(_ volume: any BlockSource) throws(Fault) -> Identity? {
        guard volume.holds(512, at: .zero) else { return nil }
        let first = Fields("the boot sector", try volume.bytes(at: .zero, count: 512))
        guard first.matches(FATBootSector.name32, at: 82),
            let backup = try? backup(volume)
        else { return nil }
        let serial = Hex.number(backup.boot.serial)
        let digits = String(repeating: "0", count: max(0, 8 - serial.utf8.count)) + serial
        return Identity(
            kind: .fat, usage: .filesystem, uuid: "\(digits.prefix(4))-\(digits.suffix(4))", version: "FAT32")
    }

    /// The boot sector; where it is damaged its backup, and where that lies.
    private static func boot(_ volume: any BlockSource) throws(MapProblem) -> (FATBootSector, backup: ByteCount?) {
        let problem: FieldError
        let first = try Fields("the boot sector", of: volume, at: .zero, count: 512)
        do throws(FieldError) { return (try FATBootSector(parsing: first.bytes), nil) } catch { problem = error }
        guard let backup = try backup(volume) else { throw .damaged("Its boot sector is damaged: \(problem).") }
        return (backup.boot, backup.place)
    }

    /// FAT32's backup boot sector, which Microsoft's specification puts into sector 6 and nowhere else.
    private static func backup(
        _ volume: any BlockSource
    ) throws(MapProblem) -> (boot: FATBootSector, place: ByteCount)? {
        for size in [512, 1024, 2048, 4096] as [UInt64] {
            let place = ByteCount(6 * size)
            let fields: Fields
            do throws(MapProblem) {
                fields = try Fields("the backup boot sector", of: volume, at: place, count: 512)
            } catch {
                if case .fault(let fault) = error, fault.code == .interrupted { throw error }
                continue
            }
            guard fields.matches(FATBootSector.name32, at: 82), fields.bytes[510] == 0x55, fields.bytes[511] == 0xAA,
                let boot = try? FATBootSector(parsing: fields.bytes), boot.is32, boot.bytesPerSector.bytes == size,
                try fields.little(UInt16.self, "BPB_BkBootSec", at: 50) == 6, boot.size <= volume.length
            else { continue }
            return (boot, place)
        }
        return nil
    }
}

/// A pass over all copies of a file allocation table.
struct FATWalk {
    let boot: FATBootSector
    /// Runs of used bytes.
    var used = RunCollector()
    /// Whether the bits of entry 1 say "not cleanly unmounted" or "read errors".
    var isMarkedDirty = false
    /// Whether the copies are not equal.
    var copiesDiffer = false
    /// Whether a part of one copy cannot be read, while the other's can.
    var isCopyUnreadable = false
    /// Whether entry 0 of a copy is what it must be: BPB_Media below, ones above.
    var hasHead = false

    init(_ boot: FATBootSector) { self.boot = boot }

    /// Entries read at a time: a multiple of two, so that no entry of FAT12 is cut.
    private static let batch: UInt64 = 1 << 18

    mutating func run(over volume: any BlockSource) throws(MapProblem) {
        let sector = boot.bytesPerSector.bytes
        let dataStart = ByteCount(boot.firstDataSector * sector)
        used.add(Extent(from: .zero, to: dataStart))
        let width = boot.width
        let entries = boot.clusters + 2
        var first: UInt64 = 0
        while first < entries {
            do { try Interruption.check() } catch { throw .fault(error) }
            let count = min(FATWalk.batch, entries - first)
            var taken = [Bool](repeating: false, count: Int(count))
            var reference: [UInt8]?
            var unreadable: Fault?
            for copy in 0..<boot.tables {
                let start = (boot.reservedSectors + copy * boot.tableSectors) * sector + first * width.bits / 8
                let bytes: [UInt8]
                do throws(Fault) {
                    bytes = try volume.bytes(at: ByteCount(start), count: Int((count * width.bits + 7) / 8))
                } catch {
                    guard error.code == .unreadable else { throw .fault(error) }
                    unreadable = error
                    continue
                }
                if reference == bytes { continue }
                if reference != nil { copiesDiffer = true }
                if reference == nil { reference = bytes }
                take(bytes, width, first: first, into: &taken)
            }
            if let unreadable {
                guard reference != nil else { throw .fault(unreadable) }
                isCopyUnreadable = true
            }
            var run: Extent?
            for index in 0..<taken.count where taken[index] {
                let cluster = first + UInt64(index)
                if cluster < 2 { continue }
                let start = dataStart + ByteCount((cluster - 2) * boot.clusterBytes.bytes)
                let end = start + boot.clusterBytes
                if let open = run, open.end == start {
                    run = Extent(from: open.start, to: end)
                } else {
                    if let run { used.add(run) }
                    run = Extent(from: start, to: end)
                }
            }
            if let run { used.add(run) }
            first += count
        }
    }

    private mutating func take(_ bytes: [UInt8], _ width: FATWidth, first: UInt64, into taken: inout [Bool]) {
        let span = unsafe bytes.span.bytes
        for index in 0..<taken.count {
            let value: UInt32?
            switch width {
            case .fat12:
                let pair = try? span.littleEndian(UInt16.self, "FAT entry", at: index * 3 / 2)
                value = pair.map { UInt32(index % 2 == 0 ? $0 & 0xFFF : $0 >> 4) }
            case .fat16: value = (try? span.littleEndian(UInt16.self, "FAT entry", at: index * 2)).map { UInt32($0) }
            case .fat32:
                value = (try? span.littleEndian(UInt32.self, "FAT entry", at: index * 4)).map { $0 & 0x0FFF_FFFF }
            }
            if first == 0, index == 0, value == width.ones & ~0xFF | UInt32(boot.media) { hasHead = true }
            if first == 0, index == 1, let value {
                switch width {
                case .fat12: break
                case .fat16: if value & 0xC000 != 0xC000 { isMarkedDirty = true }
                case .fat32: if value & 0x0C00_0000 != 0x0C00_0000 { isMarkedDirty = true }
                }
            }
            if let value, value == 0 || value == width.bad { continue }
            taken[index] = true
        }
    }
}
