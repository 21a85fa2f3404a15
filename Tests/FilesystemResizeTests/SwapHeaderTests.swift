// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemMaps
import FilesystemResize
import Findings
import Geometry
import Testing
import Tools

@Suite(.enabled(if: Tool("mkswap", package: "util-linux").path != nil, "needs mkswap"))
struct SwapHeaderTests {
    private static let id = "0f8a2d2c-8a5e-4c5e-9d0e-3b6f4a7c1d22"

    private func made(_ folder: ScratchFolder) throws -> String {
        let path = "\(folder.path)/swap"
        try shell.check(["-c", "truncate -s 64M \"$1\"; mkswap -L pages -U \(SwapHeaderTests.id) \"$1\"", "sh", path])
        return path
    }

    /// As blkid and the kernel's own reader see it.
    @Test(arguments: [24, 64, 200] as [UInt64]) func sizeChangesAndIdentityStays(_ mebibytes: UInt64) throws {
        let folder = try ScratchFolder()
        let header = try SwapHeader(try FileSource(path: try made(folder)))
        #expect(!header.isHibernated)
        let target = "\(folder.path)/new"
        try shell.check(["-c", "truncate -s \(mebibytes)M \"$1\"", "sh", target])
        let disk = try WritableDisk(claiming: target)
        let bytes = try header.resized(to: .mebibytes(mebibytes))
        try disk.blocks.write(at: .zero, unsafe bytes.span.bytes)
        try disk.finish()
        let seen = try shell.check(["-c", "blkid -p -o export \"$1\"", "sh", target]).standardOutput
        #expect(seen.contains("TYPE=swap") && seen.contains("LABEL=pages") && seen.contains(SwapHeaderTests.id))
        let map = try FilesystemMaps.map(try FileSource(path: target))
        #expect(map.filesystemSize == .mebibytes(mebibytes) && map.wholeBecause == nil)
    }

    @Test func aHibernatedSystemIsDropped() throws {
        let folder = try ScratchFolder()
        let path = try made(folder)
        try shell.check(["-c", "printf S1SUSPEND'\\0' | dd of=\"$1\" bs=1 seek=4086 conv=notrunc", "sh", path])
        let header = try SwapHeader(try FileSource(path: path))
        #expect(header.isHibernated)
        let bytes = try header.resized(to: .mebibytes(64))
        #expect(Array(bytes.suffix(10)) == Array("SWAPSPACE2".utf8))
    }

    @Test func whatIsNoSwapIsRefused() {
        let disk = MemoryDisk([UInt8](repeating: 0x41, count: 1 << 20))
        #expect {
            try SwapHeader(disk)
        } throws: {
            ($0 as? Fault)?.code == .diskDamaged
        }
    }

    @Test func tooSmallIsRefused() throws {
        let folder = try ScratchFolder()
        let header = try SwapHeader(try FileSource(path: try made(folder)))
        #expect {
            try header.resized(to: .kibibytes(36))
        } throws: {
            ($0 as? Fault)?.code == .unsupported
        }
    }
}
