// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import Testing
import Tools

@testable import FilesystemMaps

/// FAT volumes made by mkfs.fat and filled by mtools; fsck.fat judges.
@Suite(.enabled(if: mkfat.path != nil && mcopy.path != nil, "dosfstools and mtools are needed"))
struct FATTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var options: [String]
        var mebibytes: UInt64
        var testDescription: String { options.joined(separator: " ") }
    }

    static let shapes = [
        Shape(options: ["-F", "12", "-s", "8"], mebibytes: 8),
        Shape(options: ["-F", "16"], mebibytes: 32),
        Shape(options: ["-F", "16", "-f", "1", "-r", "512"], mebibytes: 64),
        Shape(options: ["-F", "32"], mebibytes: 64),
        Shape(options: ["-F", "32", "-s", "1"], mebibytes: 40),
        Shape(options: ["-F", "32", "-f", "1", "-R", "64"], mebibytes: 100),
        Shape(options: ["-F", "32", "-S", "4096"], mebibytes: 300),
    ]

    static func made(_ shape: Shape, in folder: ScratchFolder) throws -> String {
        let image = try folder.file("source.img", .mebibytes(shape.mebibytes))
        let tree = try folder.tree(symbolicLinks: false)
        try mkfat.check(["-n", "ESP"] + shape.options + [image])
        try shell.check(["-c", #"cd "$2" && mcopy -s -i "$1" * ::"#, "copy", image, tree])
        try mdel.check(["-i", image, "::sub/copy131073", "::file65536"])
        return image
    }

    @Test(arguments: shapes)
    func onlyUsedClustersMakeTheSameFilesystem(shape: Shape) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(shape, in: folder)
        let source = try FileSource(path: image)
        let map = try FilesystemMaps.map(source)
        #expect(map.wholeBecause == nil)
        #expect(map.states == [.clean])
        #expect(map.identity.kind == .fat)
        #expect(map.identity.label == "ESP")

        // "image: 140 files, 420/8167 clusters", and where the data begin, by fsck.fat.
        let report = try fsckfat.run(["-nv", image]).standardOutput
        let last = try #require(report.split(separator: "\n").last { $0.hasSuffix("clusters") })
        let clusters = try #require(
            last.split(separator: " ").dropLast().last.flatMap { $0.split(separator: "/").first }.flatMap { UInt64($0) }
        )
        let start = try #require(
            report.split(separator: "\n").first { $0.hasPrefix("Data area starts at byte") }
                .flatMap { $0.split(separator: " ").dropFirst(5).first }.flatMap { UInt64($0) })
        let size = try #require(map.filesystemSize)
        let inFilesystem = map.used.intersection(Extent(from: .zero, to: size)).byteCount.bytes
        #expect(inFilesystem == start + clusters * (map.blockSize?.bytes ?? 0))

        let copy = try folder.file("copy.img", .mebibytes(shape.mebibytes))
        try restored(source, map.used, to: copy)
        #expect(try fsckfat.run(["-n", copy]).status == 0)
        func contents(_ image: String, _ name: String) throws -> String {
            let out = "\(folder.path)/\(name)"
            try Tool("mkdir", package: "coreutils").check([out])
            try mcopy.check(["-s", "-n", "-i", image, "::", out])
            return out
        }
        let difference = try Tool("diff", package: "diffutils").run(
            ["-r", contents(image, "theirs"), contents(copy, "ours")])
        #expect(difference.status == 0)
    }

    @Test func badClustersAreNotUsedAndTheirNeighboursAre() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Self.shapes[1], in: folder)
        let before = try FilesystemMaps.map(try FileSource(path: image))
        let boot = try FATBootSector(parsing: try FileSource(path: image).bytes(at: .zero, count: 512))
        // The last cluster is free; mark it bad in both tables.
        for table in 0..<boot.tables {
            let at = (boot.reservedSectors + table * boot.tableSectors) * 512 + (boot.clusters + 1) * 2
            try poke(image, at, [0xF7, 0xFF])
        }
        #expect(try FilesystemMaps.map(try FileSource(path: image)).used == before.used)
        for table in 0..<boot.tables {
            let at = (boot.reservedSectors + table * boot.tableSectors) * 512 + (boot.clusters + 1) * 2
            try poke(image, at, [0xFF, 0xFF])
        }
        let after = try FilesystemMaps.map(try FileSource(path: image))
        #expect(after.used.byteCount == before.used.byteCount + boot.clusterBytes)
    }

    @Test func aClusterUsedInOneCopyOnlyIsUsed() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Self.shapes[3], in: folder)
        let before = try FilesystemMaps.map(try FileSource(path: image))
        let boot = try FATBootSector(parsing: try FileSource(path: image).bytes(at: .zero, count: 512))
        try poke(
            image, (boot.reservedSectors + boot.tableSectors) * 512 + (boot.clusters + 1) * 4, [0xFF, 0xFF, 0xFF, 0x0F])
        let after = try FilesystemMaps.map(try FileSource(path: image))
        #expect(after.used.byteCount == before.used.byteCount + boot.clusterBytes)
        #expect(after.states == [.dirty])
    }

    @Test func aDirtyVolumeSaysSo() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Self.shapes[3], in: folder)
        try poke(image, 65, [1])
        let map = try FilesystemMaps.map(try FileSource(path: image))
        #expect(map.states == [.dirty])
        #expect(map.wholeBecause == nil)
    }

    static func boot(_ image: String) throws -> FATBootSector {
        try FATBootSector(parsing: try FileSource(path: image).bytes(at: .zero, count: 512))
    }

    /// Empties all copies of the table from byte `first` of each on.
    static func emptyTables(_ image: String, from first: UInt64) throws {
        let boot = try boot(image)
        let size = boot.bytesPerSector.bytes
        for table in 0..<boot.tables {
            let start = (boot.reservedSectors + table * boot.tableSectors) * size
            try poke(image, start + first, [UInt8](repeating: 0, count: Int(boot.tableSectors * size - first)))
        }
    }

    static func expectWhole(_ image: String, _ states: [VolumeState], _ reason: String) throws {
        let source = try FileSource(path: image)
        let map = try FilesystemMaps.map(source)
        #expect(map.states == states)
        #expect(map.used == ExtentList(Extent(from: .zero, to: source.length)))
        #expect(map.wholeBecause?.contains(reason) == true, "\(map.wholeBecause ?? "mapped")")
    }

    @Test(arguments: [2, 3, 5])
    func aTableThatCallsEverythingFreeIsNotBelieved(shape: Int) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Self.shapes[shape], in: folder)
        let bits = try Self.boot(image).width.bits
        try Self.emptyTables(image, from: 2 * bits / 8)
        try Self.expectWhole(image, [.damaged], "calls free")
    }

    @Test func aTableWithoutItsHeadIsNotBelieved() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Self.shapes[3], in: folder)
        try Self.emptyTables(image, from: 0)
        try Self.expectWhole(image, [.dirty, .damaged], "does not begin as one does")
    }

    /// As after a crash: the directories are written, the table's later sectors are not.
    @Test func aDirtyVolumeWhoseTableLagsBehindIsWhole() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Self.shapes[4], in: folder)
        try poke(image, 65, [1])
        try Self.emptyTables(image, from: 512)
        try Self.expectWhole(image, [.dirty, .damaged], "calls free")
    }

    @Test func aFileWhoseChainEndsEarlyMakesItWhole() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Self.shapes[3], in: folder)
        let boot = try Self.boot(image)
        // The first chain that goes on for two more clusters ends at its first.
        let table = FATTable(try FileSource(path: image), boot)
        let all = (3..<UInt32(boot.clusters)).first { table.next($0) == $0 + 1 && table.next($0 + 1) == $0 + 2 }
        let cluster = UInt64(try #require(all))
        for copy in 0..<boot.tables {
            let start = (boot.reservedSectors + copy * boot.tableSectors) * 512
            try poke(image, start + cluster * 4, [0xFF, 0xFF, 0xFF, 0x0F])
        }
        try Self.expectWhole(image, [.damaged], "end before")
    }

    @Test func aDirectoryThatWasNeverWrittenMakesItWhole() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Self.shapes[3], in: folder)
        let source = try FileSource(path: image)
        let all = try source.bytes(at: .zero, count: 64 << 20)
        // The directory `sub` begins with its entry of itself.
        let itself = Array(".          ".utf8) + [0x10]
        let boot = try Self.boot(image)
        let start = Int(boot.firstDataSector * 512)
        let place = stride(from: start, to: all.count, by: Int(boot.clusterBytes.bytes))
            .first { Array(all[$0..<$0 + 12]) == itself }
        try poke(image, UInt64(try #require(place)), [UInt8](repeating: 0, count: 512))
        try Self.expectWhole(image, [.damaged], "does not begin")
    }

    /// Whatever the boot sector says of one table being the only one kept up to date: Linux reads the first.
    @Test func allCopiesCountWithoutMirroring() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Self.shapes[3], in: folder)
        let before = try FilesystemMaps.map(try FileSource(path: image))
        let boot = try Self.boot(image)
        try poke(image, 40, [0x81])
        try poke(
            image, boot.reservedSectors * 512 + (boot.clusters + 1) * 4, [0xFF, 0xFF, 0xFF, 0x0F])
        let after = try FilesystemMaps.map(try FileSource(path: image))
        #expect(after.used.byteCount == before.used.byteCount + boot.clusterBytes)
        #expect(after.states == [.dirty])
    }

    @Test(arguments: [UInt64(0), 1])
    func aCopyThatCannotBeReadIsDoneWithout(copy: UInt64) throws {
        let folder = try ScratchFolder()
        let source = try FileSource(path: try Self.made(Self.shapes[3], in: folder))
        let boot = try FATBootSector(parsing: source.bytes(at: .zero, count: 512))
        let before = try FilesystemMaps.map(source)
        func bad(_ copies: ClosedRange<UInt64>) -> any BlockSource {
            Faulty(
                source,
                bad: ExtentList(
                    copies.map { copy in
                        let start = ByteCount((boot.reservedSectors + copy * boot.tableSectors) * 512)
                        return Extent(from: start, to: start + ByteCount(4096))
                    }))
        }
        let map = try FATReader.map(bad(copy...copy), before.identity)
        #expect(map.wholeBecause == nil)
        #expect(map.states == [.damaged])
        #expect(map.damage?.contains("allocation tables") == true)
        #expect(map.used == before.used.intersection(Extent(from: .zero, to: boot.size)))
        let none = try FilesystemMaps.map(bad(0...1), identified: before.identity)
        #expect(none.used.byteCount == source.length)
        #expect(none.wholeBecause != nil)
    }

    @Test func aVolumeWithoutItsEndIsDamaged() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Self.shapes[3], in: folder)
        let map = try FilesystemMaps.map(
            try Window(try FileSource(path: image), Extent(from: .zero, to: .mebibytes(50)), name: "cut"))
        #expect(map.states == [.damaged])
        #expect(map.used.byteCount == .mebibytes(50))
    }

    @Test func entriesOf12BitsAreCutRight() throws {
        var bytes = [UInt8](repeating: 0, count: 512 * 20)
        bytes.replaceSubrange(0..<3, with: [0xEB, 0x3C, 0x90])
        bytes.replaceSubrange(11..<13, with: [0, 2])
        bytes[13] = 1
        bytes[14] = 1
        bytes[16] = 1
        bytes[17] = 16
        bytes[19] = 20
        bytes[22] = 1
        bytes[21] = 0xF8
        // Media and end, then clusters 2 free, 3 used, 4 free, 5 used, 6 bad, 7 used.
        let entries: [UInt16] = [0xFF8, 0xFFF, 0, 0x123, 0, 0x0F0, 0xFF7, 0xF00]
        for (index, entry) in entries.enumerated() {
            let at = 512 + index * 3 / 2
            if index % 2 == 0 {
                bytes[at] = UInt8(truncatingIfNeeded: entry)
                bytes[at + 1] |= UInt8(entry >> 8)
            } else {
                bytes[at] |= UInt8(truncatingIfNeeded: entry << 4)
                bytes[at + 1] = UInt8(truncatingIfNeeded: entry >> 4)
            }
        }
        let map = try FATReader.map(MemoryDisk(bytes), Identity(kind: .fat))
        // Sectors 0, 1, 2 (boot, table, root), then the clusters from sector 3 on.
        let expected = [(0, 3), (4, 5), (6, 7), (8, 9)].map {
            Extent(from: ByteCount(UInt64($0.0) * 512), to: ByteCount(UInt64($0.1) * 512))
        }
        #expect(map.used == ExtentList(expected))
    }
}
