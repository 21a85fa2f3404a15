// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import TestSupport
import Testing
import Tools

@testable import FilesystemMaps

/// What libblkid says, with and without a file to read itself.
struct IdentificationTests {
    struct Maker: Sendable, CustomTestStringConvertible {
        var kind: String
        var tool: String
        var package: String
        var options: [String]
        var mebibytes: UInt64 = 32
        var label: String? = "some-label"
        var usage = Identity.Usage.filesystem
        var testDescription: String { kind }
    }

    static let makers = [
        Maker(
            kind: "ext4", tool: "mke2fs", package: "e2fsprogs", options: ["-q", "-F", "-t", "ext4", "-L", "some-label"]),
        Maker(
            kind: "vfat", tool: "mkfs.fat", package: "dosfstools", options: ["-F", "32", "-n", "SOME-LABEL"],
            mebibytes: 600, label: "SOME-LABEL"),
        Maker(
            kind: "vfat", tool: "mkfs.fat", package: "dosfstools", options: ["-F", "16", "-n", "SOME-LABEL"],
            label: "SOME-LABEL"),
        Maker(kind: "swap", tool: "mkswap", package: "util-linux", options: ["-q", "-L", "some-label"], usage: .other),
        Maker(kind: "xfs", tool: "mkfs.xfs", package: "xfsprogs", options: ["-q", "-L", "some-label"], mebibytes: 400),
        Maker(
            kind: "btrfs", tool: "mkfs.btrfs", package: "btrfs-progs", options: ["-q", "-L", "some-label"],
            mebibytes: 200),
        Maker(kind: "ntfs", tool: "mkfs.ntfs", package: "ntfs-3g", options: ["-F", "-Q", "-q", "-L", "some-label"]),
        Maker(kind: "exfat", tool: "mkfs.exfat", package: "exfatprogs", options: ["-L", "some-label"]),
        Maker(
            kind: "f2fs", tool: "mkfs.f2fs", package: "f2fs-tools", options: ["-q", "-l", "some-label"], mebibytes: 100),
    ]

    @Test(arguments: makers)
    func kindLabelAndUUIDAreFound(maker: Maker) throws {
        let tool = Tool(maker.tool, package: maker.package)
        guard tool.path != nil else { return }
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(maker.mebibytes))
        try tool.check(maker.options + [image])
        let source = try FileSource(path: image)
        let identity = try Identification.identify(source)
        #expect(identity.kind.rawValue == maker.kind)
        #expect(identity.label == maker.label)
        #expect(identity.usage == maker.usage)
        #expect((identity.uuid?.utf8.count ?? 0) >= 9)
        #expect(try Identification.identify(withoutFile(source)) == identity)

        let map = try FilesystemMaps.map(source)
        #expect(map.wholeBecause == nil)
    }

    @Test func anEncryptedVolumeIsNamedAsSuch() throws {
        let tool = Tool("cryptsetup", package: "cryptsetup-bin")
        guard tool.path != nil else { return }
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(32))
        try tool.check(
            [
                "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
                "--key-file", "-", image,
            ],
            input: Array("secret".utf8))
        let map = try FilesystemMaps.map(try FileSource(path: image))
        #expect(map.identity.kind.rawValue == "crypto_LUKS")
        #expect(map.identity.usage == .encrypted)
        #expect(map.wholeBecause?.contains("encrypted") == true)
        #expect(map.used.byteCount == .mebibytes(32))
    }

    @Test func zerosAreEmptyAndNoiseIsUnknown() throws {
        let empty = try FilesystemMaps.map(MemoryDisk([UInt8](repeating: 0, count: 4 << 20)))
        #expect(empty.identity.kind == .empty)
        #expect(empty.used.byteCount == .mebibytes(4))
        var generator = Seeded(7)
        let noise = try FilesystemMaps.map(
            MemoryDisk((0..<65536).map { _ in UInt8.random(in: 0...255, using: &generator) }))
        #expect(noise.identity.kind == .unknown)
        #expect(noise.wholeBecause != nil)
    }

    @Test func twoSignaturesAreNeitherOfTheTwo() throws {
        let btrfs = Tool("mkfs.btrfs", package: "btrfs-progs")
        guard btrfs.path != nil, mke2fs.path != nil else { return }
        let folder = try ScratchFolder()
        let other = try folder.file("btrfs.img", .mebibytes(200))
        try btrfs.check(["-q", other])
        let image = try folder.file("x.img", .mebibytes(200))
        try mke2fs.check(["-q", "-F", "-t", "ext4", image])
        try poke(image, 65536, try FileSource(path: other).bytes(at: ByteCount(65536), count: 4096))
        let map = try FilesystemMaps.map(try FileSource(path: image))
        #expect(map.identity.kind == .unknown)
        #expect(Set(map.identity.ambivalent) == ["ext4", "btrfs"])
        #expect(map.wholeBecause?.contains("ext4") == true)
        #expect(map.used.byteCount == .mebibytes(200))
    }

    @Test func aVolumeTooSmallForAnythingIsNoError() throws {
        for count in [512, 1024, 4096] {
            let map = try FilesystemMaps.map(MemoryDisk([UInt8](repeating: 1, count: count)))
            #expect(map.used.byteCount == ByteCount(UInt64(count)))
        }
    }
}
