// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import RestorePlanning

/// Boot sectors say where on the disk they lie; boot code and Windows believe it.
extension Restorer {
    func mend(_ volume: VolumePlan, _ writer: VolumeWriter) throws(Fault) {
        for fixUp in volume.fixUps {
            switch fixUp {
            case .hiddenSectors(let sector): try mendHiddenSectors(volume, sector, writer)
            case .partitionOffset(let sector): try mendPartitionOffset(volume, sector, writer)
            case .bootRepair: continue
            }
            events(.step("\(writer.target.name): boot sector of \(Restorer.name(volume)) set to its new place"))
        }
    }

    /// BPB HiddenSectors, offset 0x1C. FAT32 keeps a copy of its boot sector in the sector BPB_BkBootSec (offset 0x32)
    /// names; NTFS in the last sector of the volume, which tools place by the partition's size, and by the sectors it
    /// counts (offset 0x28).
    private func mendHiddenSectors(_ volume: VolumePlan, _ sector: UInt32, _ writer: VolumeWriter) throws(Fault) {
        let boot = try writer.bytes(at: volume.target.start, count: 512)
        let size = UInt64(boot[0x0B]) | UInt64(boot[0x0C]) << 8
        guard [512, 1024, 2048, 4096].contains(size) else { return }
        var places: Set<UInt64> = [0]
        if volume.kind == .fat {
            let backup = UInt64(boot[0x32]) | UInt64(boot[0x33]) << 8
            if boot[0x16] == 0, boot[0x17] == 0, backup > 0, backup < 64 { places.insert(backup * size) }
        } else {
            for length in [volume.source.length, volume.target.length] where length.bytes > size {
                places.insert(length.bytes - size)
            }
            if case .shrink(let length, _) = volume.treatment, length.bytes > size {
                places.insert(length.bytes - size)
            }
            var sectors: UInt64 = 0
            for index in 0..<8 { sectors |= UInt64(boot[0x28 + index]) << (8 * UInt64(index)) }
            let end = sectors.multipliedReportingOverflow(by: size)
            if !end.overflow { places.insert(end.partialValue) }
        }
        for place in places.sorted() {
            guard let end = ByteCount(place).adding(ByteCount(512)), end <= volume.target.length else { continue }
            let at = volume.target.start + ByteCount(place)
            var bytes = place == 0 ? boot : try writer.bytes(at: at, count: 512)
            // What is no copy of the boot sector is somebody's data.
            guard bytes[510] == 0x55, bytes[511] == 0xAA, bytes[3..<11] == boot[3..<11], bytes[0x0B] == boot[0x0B],
                bytes[0x0C] == boot[0x0C]
            else { continue }
            for index in 0..<4 { bytes[0x1C + index] = UInt8(truncatingIfNeeded: sector >> (8 * UInt32(index))) }
            try writer.put(bytes, at: at)
        }
    }

    /// PartitionOffset, offset 0x40 of both boot regions of an exFAT, and the checksum in the twelfth sector of each,
    /// over the eleven before without VolumeFlags and PercentInUse (exFAT file system specification, sections 3.1.3, 3.4).
    private func mendPartitionOffset(_ volume: VolumePlan, _ sector: UInt64, _ writer: VolumeWriter) throws(Fault) {
        let shift = Int(try writer.bytes(at: volume.target.start, count: 512)[0x6C])
        guard (9...12).contains(shift) else { return }
        let size = 1 << shift
        for region in 0..<2 {
            let at = volume.target.start + ByteCount(UInt64(region * 12 * size))
            guard at + ByteCount(UInt64(12 * size)) <= volume.target.end else { return }
            var bytes = try writer.bytes(at: at, count: 12 * size)
            guard bytes[3..<11].elementsEqual("EXFAT   ".utf8) else { continue }
            for index in 0..<8 { bytes[0x40 + index] = UInt8(truncatingIfNeeded: sector >> (8 * UInt64(index))) }
            var sum: UInt32 = 0
            for index in 0..<11 * size where index != 106 && index != 107 && index != 112 {
                sum = (sum << 31 | sum >> 1) &+ UInt32(bytes[index])
            }
            for index in 0..<size {
                bytes[11 * size + index] = UInt8(truncatingIfNeeded: sum >> (8 * UInt32(index % 4)))
            }
            try writer.put(bytes, at: at)
        }
    }
}

extension VolumeWriter {
    /// Bytes of the target as they will be once what is held back has been written.
    func bytes(at offset: ByteCount, count: Int) throws(Fault) -> [UInt8] {
        let extent = Extent(from: offset, to: offset + ByteCount(UInt64(count)))
        guard let heldBack, heldBack.extent.contains(extent) else { return try target.bytes(at: offset, count: count) }
        var bytes = [UInt8](repeating: 0, count: count)
        var span = bytes.mutableSpan
        var part = unsafe span.mutableBytes
        heldBack.fill(&part, from: offset)
        return bytes
    }

    /// Writes `bytes` and reads them back, or keeps them with what is held back. Throws `target.read-back`.
    func put(_ bytes: [UInt8], at offset: ByteCount) throws(Fault) {
        let extent = Extent(from: offset, to: offset + ByteCount(UInt64(bytes.count)))
        if let heldBack, heldBack.extent.contains(extent) { return unsafe heldBack.keep(bytes.span.bytes, at: offset) }
        try unsafe target.write(at: offset, bytes.span.bytes)
        try target.flush()
        guard try target.bytes(at: offset, count: bytes.count) == bytes else {
            throw Fault(
                .readBack, what: "The boot sector at byte \(offset.bytes) reads back differently.", place: target.name,
                remedy: "Do not use this disk: its cable, controller or memory corrupts data.")
        }
    }
}
