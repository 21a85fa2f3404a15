// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import Testing
import Tools

@testable import FilesystemMaps

@Suite(.enabled(if: mkswap.path != nil, "util-linux is needed"))
struct SwapTests {
    static func made(_ folder: ScratchFolder, _ options: [String] = []) throws -> String {
        let image = try folder.file("swap.img", .mebibytes(16))
        try mkswap.check(["-L", "swapspace", "-U", "01234567-89ab-4def-8123-456789abcdef"] + options + [image])
        return image
    }

    @Test(arguments: [4096, 8192, 65536])
    func onlyTheHeaderPageIsUsed(page: UInt64) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(folder, ["-p", "\(page)"])
        let source = try FileSource(path: image)
        let map = try FilesystemMaps.map(source)
        #expect(map.identity.kind == .swap)
        #expect(map.identity.label == "swapspace")
        #expect(map.identity.uuid == "01234567-89ab-4def-8123-456789abcdef")
        #expect(map.used == ExtentList(Extent(from: .zero, to: ByteCount(page))))
        #expect(map.filesystemSize == .mebibytes(16))
        #expect(map.states == [.clean])
        let copy = try folder.file("copy.img", .mebibytes(16))
        try restored(source, map.used, to: copy)
        #expect(try Identification.identify(try FileSource(path: copy)) == map.identity)
    }

    @Test(arguments: ["S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"])
    func aHibernatedSystemIsKeptWhole(magic: String) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(folder)
        try poke(image, 4086, Array(magic.utf8) + [UInt8](repeating: 0, count: 10 - magic.utf8.count))
        let map = try FilesystemMaps.map(try FileSource(path: image))
        #expect(map.states == [.hibernated])
        #expect(map.used.byteCount == .mebibytes(16))
        #expect(map.wholeBecause?.contains("hibernated") == true)
    }

    @Test func swapWithoutItsEndIsDamaged() throws {
        let folder = try ScratchFolder()
        let map = try FilesystemMaps.map(
            try Window(
                try FileSource(path: try Self.made(folder)), Extent(from: .zero, to: .mebibytes(8)), name: "cut"))
        #expect(map.states == [.damaged])
    }
}
