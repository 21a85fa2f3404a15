// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import RestorePlanning

extension Restorer {
    /// A FAT or NTFS boot sector says how many sectors lie before it (BPB HiddenSectors, offset 0x1C); boot code and
    /// Windows believe it. FAT32 keeps a copy in the sector BPB_BkBootSec (offset 0x32) names, NTFS in the last sector.
    func mendHiddenSectors(_ volume: VolumePlan, _ target: any BlockTarget) throws(Fault) {
        guard volume.kind == .fat || volume.kind.rawValue == "ntfs" else { return }
        let size = target.sectorSize
        guard let hidden = LBA(offset: volume.target.start, size), let value = UInt32(exactly: hidden.value) else {
            return
        }
        var places: [ByteCount] = [.zero]
        let boot = try target.bytes(at: volume.target.start, count: 512)
        let backup = UInt64(boot[0x32]) | UInt64(boot[0x33]) << 8
        if volume.kind == .fat, boot[0x16] == 0, boot[0x17] == 0, backup > 0, backup < 64,
            let place = LBA(backup).offset(size)
        {
            places.append(place)
        } else if volume.kind.rawValue == "ntfs" {
            if let last = volume.source.length.subtracting(size.count) { places.append(last) }
        }
        for place in places {
            let at = volume.target.start + place
            var sector = try target.bytes(at: at, count: 512)
            guard sector[510] == 0x55, sector[511] == 0xAA else { continue }
            for index in 0..<4 { sector[0x1C + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(index))) }
            try unsafe target.write(at: at, sector.span.bytes)
            try target.flush()
            guard try target.bytes(at: at, count: 512) == sector else {
                throw Fault(
                    .readBack, what: "The boot sector at byte \(at.bytes) reads back differently.", place: target.name,
                    remedy: "Do not use this disk: its cable, controller or memory corrupts data.")
            }
        }
        events(.step("\(target.name): boot sector of \(Restorer.name(volume)) set to its new place"))
    }
}
