// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FilesystemResize
import Findings
import Geometry
import LinuxDisks
import MachineModel
import Testing
import Tools

@Suite(.enabled(if: canMount && LoopDevice.isAvailable, "needs root and loop devices"), .serialized)
struct GrowTests {
    /// Grown on a loop device to three times its size, sound by its own checker, with the same files.
    @Test(
        arguments: [
            ("ext4", "mke2fs -q -F -t ext4", 120), ("ntfs", "mkntfs -Q -F -q", 120), ("xfs", "mkfs.xfs -q", 320),
            ("btrfs", "mkfs.btrfs -q", 160), ("f2fs", "mkfs.f2fs -q", 120),
        ] as [(String, String, UInt64)])
    func threeTimesLarger(_ kind: String, _ make: String, _ size: UInt64) throws {
        // The kernel here may lack a driver for what the tools make: an empty one is grown then.
        let canFill = try kind == "ntfs" || shell.run(["-c", "grep -qw \(kind) /proc/filesystems"]).status == 0
        let folder = try ScratchFolder()
        let image = canFill ? try FilledImage(kind, size: .mebibytes(size), percent: 50, make: make) : nil
        let path = image?.path ?? "\(folder.path)/empty.img"
        if image == nil { try shell.check(["-c", "truncate -s \(size)M \"$1\"; \(make) \"$1\"", "sh", path]) }
        try shell.check(["-c", "truncate -s \(size * 3)M \"$1\"", "sh", path])
        let tool = try #require(FilesystemTools.tool(for: ContentKind(rawValue: kind)))
        #expect(tool.canGrow)
        try tool.require(growing: true)
        do {
            let loop = try LoopDevice(
                file: path, extent: Extent(from: .zero, to: .mebibytes(size * 3)), sectorSize: .s512)
            try tool.grow(loop.path)
            let verdict = try tool.check(loop.path)
            #expect(verdict.isClean, "\(verdict.evidence)")
        }
        guard let image else { return }
        #expect(try FilledImage.mounted(path, kind, FilledImage.listing) == image.hashes)
        let bytes = try FilledImage.mounted(path, kind, "df --output=size -B1 . | tail -1 | tr -dc 0-9")
        #expect((UInt64(bytes) ?? 0) > (size * 5 / 2) << 20, "\(bytes) bytes")
    }
}
