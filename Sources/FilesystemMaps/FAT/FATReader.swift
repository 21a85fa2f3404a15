// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import Threads
import MachineModel

/// FAT12, FAT16 and FAT32: everything before the first cluster (boot sectors, FSInfo, both tables, the fixed root
/// directory), and each cluster that is neither free nor bad in at least one copy of the table.
enum FATReader {
    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        var result = VolumeMap(identity: identity, whole: volume.length)
        let boot: FATBootSector
        do {
            boot = try FATBootSector(parsing: try volume.bytes(at: .zero, count: 512))
        } catch let error as FieldError {
            return result.whole(because: "Its boot sector is damaged: \(error).", .damaged)
        } catch let error as Fault {
            throw error
        } catch {
            return result.whole(because: "Its boot sector is damaged.", .damaged)
        }
        result.blockSize = boot.clusterBytes
        result.filesystemSize = boot.size
        guard boot.size <= volume.length else {
            return result.whole(
                because:
                    "The filesystem (\(boot.size)) is larger than the volume (\(volume.length)): its end is missing.",
                .damaged)
        }
        var walk = FATWalk(boot)
        do {
            try walk.run(over: volume)
        } catch {
            switch error {
            case .fault(let fault): throw fault
            case .damaged(let what): return result.whole(because: what, .damaged)
            }
        }
        result.used = walk.used.list
        result.states = boot.isMarkedDirty || walk.isMarkedDirty || walk.copiesDiffer ? [.dirty] : [.clean]
        return result
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

    enum Problem: Error {
        case fault(Fault)
        case damaged(String)
    }

    init(_ boot: FATBootSector) { self.boot = boot }

    /// Entries read at a time: a multiple of two, so that no entry of FAT12 is cut.
    private static let batch: UInt64 = 1 << 18

    mutating func run(over volume: any BlockSource) throws(Problem) {
        let sector = boot.bytesPerSector.bytes
        let dataStart = ByteCount(boot.firstDataSector * sector)
        used.add(Extent(from: .zero, to: dataStart))
        let width = boot.width
        // FAT32 may name one table as the only one kept up to date.
        var copies = Array(0..<boot.tables)
        if width == .fat32, boot.flags & 0x80 != 0 {
            let active = UInt64(boot.flags & 0xF)
            guard active < boot.tables else {
                throw .damaged("It names allocation table \(active) as the active one but has \(boot.tables).")
            }
            copies = [active]
        }
        let entries = boot.clusters + 2
        var first: UInt64 = 0
        while first < entries {
            do { try Interruption.check() } catch { throw .fault(error) }
            let count = min(FATWalk.batch, entries - first)
            var taken = [Bool](repeating: false, count: Int(count))
            var reference: [UInt8]?
            for copy in copies {
                let start = (boot.reservedSectors + copy * boot.tableSectors) * sector + first * width.bits / 8
                let bytes: [UInt8]
                do {
                    bytes = try volume.bytes(at: ByteCount(start), count: Int((count * width.bits + 7) / 8))
                } catch {
                    throw .fault(error)
                }
                if reference == bytes { continue }
                if reference != nil { copiesDiffer = true }
                if reference == nil { reference = bytes }
                take(bytes, width, first: first, into: &taken)
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
