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
enum FATReader {
    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        try VolumeMap.made(of: volume, identity) { (result) throws(MapProblem) in try map(volume, into: &result) }
    }

    private static func map(_ volume: any BlockSource, into result: inout VolumeMap) throws(MapProblem) {
        let sector = try Fields("the boot sector", of: volume, at: .zero, count: 512)
        let boot: FATBootSector
        do throws(FieldError) { boot = try FATBootSector(parsing: sector.bytes) } catch {
            throw .damaged("Its boot sector is damaged: \(error).")
        }
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
        guard walk.hasHead else {
            throw .damaged("Its allocation table does not begin as one does: its first sectors were lost.")
        }
        var tree = FATTree(volume, boot)
        try tree.check()
        result.used = walk.used.list
        if result.states.isEmpty { result.states = [.clean] }
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
