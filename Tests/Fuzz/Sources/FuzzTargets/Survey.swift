// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import DiskSurvey
import FilesystemMaps
import Findings
import Geometry
import MachineModel

extension FuzzTarget {
    /// A whole small disk: table, partitions, libblkid (by a file in memory, so a few hundred a second), used maps and
    /// what lies outside of them.
    static let survey = FuzzTarget(
        name: "survey", longest: 60_000, seeds: SurveySeeds.make, mend: TableSeeds.mend
    ) { input in
        let disk = SparseDisk(input, limit: .mebibytes(4))
        guard let survey = try? DiskSurvey.look(at: disk) else { return }
        keep(survey.model)
        promise(survey.remainder.end <= disk.length, "what lies outside the volumes lies on the disk")
        for volume in survey.volumes {
            promise(volume.extent.end <= disk.length, "volumes lie on the disk")
            promise(volume.map.used.end <= volume.extent.length, "used bytes lie in their volume")
        }
    }
}

enum SurveySeeds {
    /// An MBR with an ext2, a FAT and a swap partition; and bare volumes.
    @Sendable static func make() throws -> [(name: String, bytes: [UInt8])] {
        var result: [(name: String, bytes: [UInt8])] = []
        func plain(_ seeds: [(name: String, bytes: [UInt8])], _ name: String) throws -> [UInt8] {
            guard let seed = seeds.first(where: { $0.name == name })?.bytes else { return [] }
            let disk = SparseDisk(seed, limit: .mebibytes(64))
            return try disk.bytes(at: .zero, count: Int(disk.length.bytes))
        }
        let ext = try plain(try ExtSeeds.make(), "ext4")
        let fat = try plain(try FATSeeds.make(), "fat12")
        let swap = try plain(try SwapSeeds.make(), "swap")
        let image = try Scratch(bytes: 2 << 20)
        try image.run(
            "sfdisk", "fdisk", ["--no-reread", "--no-tell-kernel", "-q", image.path],
            """
            label: dos
            label-id: 0x1badf00d
            start=64, size=512, type=83
            start=640, size=1024, type=c
            start=2048, size=512, type=82

            """)
        var bytes = try image.bytes()
        for (start, content) in [(64, ext), (640, fat), (2048, swap)] {
            bytes.replaceSubrange(start * 512..<start * 512 + content.count, with: content)
        }
        result.append(("mbr", SparseDisk.input(bytes, length: UInt64(bytes.count), block: 128)))
        result.append(("bare-ext4", SparseDisk.input(ext, length: UInt64(ext.count), block: 128)))
        return result
    }
}
