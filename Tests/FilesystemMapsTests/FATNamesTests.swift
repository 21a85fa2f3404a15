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

private let mshowfat = Tool("mshowfat", package: "mtools")

/// Names of what lies at a place of a FAT filesystem; mtools judges.
@Suite(.enabled(if: mkfat.path != nil && mcopy.path != nil && mshowfat.path != nil, "dosfstools and mtools are needed"))
struct FATNamesTests {
    static func made(_ width: String, _ folder: ScratchFolder) throws -> String {
        let image = try folder.file("x.img", .mebibytes(width == "12" ? 4 : width == "16" ? 20 : 64))
        try mkfat.check(["-F", width] + (width == "32" ? ["-s", "1"] : []) + [image])
        let tree = try folder.tree(symbolicLinks: false)
        try shell.check(
            [
                "-c",
                """
                set -e; cd "$1"
                printf 'long' > 'A rather long name with ümlauts & more.text'; printf 'short' > SHORT.TXT
                mkdir -p 'sub/Deep folder'; head -c 9000 /dev/urandom > 'sub/Deep folder/data.bin'
                LC_ALL=C.UTF-8 mcopy -i "$2" -s * ::
                mdel -i "$2" ::file5000
                """, "x", tree, image,
            ])
        return image
    }

    /// The clusters of a file by mshowfat: `::/name <2-3> <7>`.
    static func clusters(_ path: String, _ image: String) throws -> [ClosedRange<UInt64>] {
        let said = try shell.check(["-c", "LC_ALL=C.UTF-8 mshowfat -i \"$1\" \"::$2\"", "x", image, path])
            .standardOutput
        return said.split(separator: "<").dropFirst().compactMap { part in
            let numbers = part.prefix { $0 != ">" }.split(separator: "-").compactMap { UInt64($0) }
            return numbers.first.map { $0...(numbers.last ?? $0) }
        }
    }

    static func place(_ cluster: UInt64, _ boot: FATBootSector) -> Extent {
        let start = boot.firstDataSector * boot.bytesPerSector.bytes + (cluster - 2) * boot.clusterBytes.bytes
        return Extent(from: ByteCount(start), to: ByteCount(start) + boot.clusterBytes)
    }

    /// However much free space was lost, whoever is waiting is asked on the way.
    @Test func theTimeLimitReachesFreeSpace() throws {
        let folder = try ScratchFolder()
        let source = try FileSource(path: try Self.made("32", folder))
        let end = Extent(from: .mebibytes(30), to: .mebibytes(60))
        let (few, all) = try StopCount.calls(of: .fat, source, last: end)
        #expect(all >= few + 10)
        let cut = try StopCount.stopped(after: few + 2, of: .fat, source, end)
        #expect(cut.notes.contains { $0.contains("time") })
        #expect(cut.items.reduce(.zero) { $0 + $1.bytes } == end.length)
        #expect(cut.items.contains { $0.kind == .unknown } && cut.items.contains { $0.kind == .free })
    }

    @Test(arguments: ["12", "16", "32"]) func eachClusterBelongsToWhatMtoolsSays(width: String) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(width, folder)
        let source = try FileSource(path: image)
        let boot = try FATBootSector(parsing: try source.bytes(at: .zero, count: 512))
        #expect(boot.width == (width == "12" ? .fat12 : width == "16" ? .fat16 : .fat32))
        for path in [
            "/file511", "/file4096", "/file700001", "/sub/copy65536", "/sub/deeper/s77", "/SHORT.TXT",
            "/A rather long name with ümlauts & more.text", "/sub/Deep folder/data.bin",
        ] {
            let runs = try Self.clusters(path, image)
            #expect(!runs.isEmpty)
            for cluster in Set(runs.flatMap { [$0.lowerBound, ($0.lowerBound + $0.upperBound) / 2, $0.upperBound] }) {
                let damaged = Self.place(cluster, boot)
                let found = try FileNames.at(ExtentList(damaged), of: source, kind: .fat)
                #expect(found.items.filter { $0.kind != .free }.map(\.name) == [path], "\(cluster): \(found)")
                #expect(found.items.reduce(0) { $0 + $1.bytes.bytes } == damaged.length.bytes)
                #expect(found.notes.isEmpty)
            }
        }
    }

    @Test(arguments: ["12", "16", "32"]) func directoriesTablesAndFreeSpaceAreNamed(width: String) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(width, folder)
        let source = try FileSource(path: image)
        let boot = try FATBootSector(parsing: try source.bytes(at: .zero, count: 512))
        func names(_ extent: Extent) throws -> [String] {
            try FileNames.at(ExtentList(extent), of: source, kind: .fat).items.map(\.name)
        }
        let sector = boot.bytesPerSector.bytes
        let table = (boot.reservedSectors + boot.tableSectors) * sector
        #expect(try names(Extent(from: ByteCount(table), to: ByteCount(table + 512))) == ["allocation table 2"])
        let deeper = try #require(try Self.clusters("/sub/deeper", image).first)
        #expect(try names(Self.place(deeper.lowerBound, boot)) == ["/sub/deeper"])
        if width != "32" {
            let root = (boot.reservedSectors + 2 * boot.tableSectors) * sector
            #expect(try names(Extent(from: ByteCount(root), to: ByteCount(root + 512))) == ["/"])
        }
        let free = try FilesystemMaps.map(source).used.complement(in: Extent(from: .zero, to: boot.size))
        #expect(
            Set(try free.extents.flatMap { try names($0) }).subtracting(["behind the last cluster"]) == ["free space"])
    }

    /// The boot sector itself is gone: nothing can be named, and that is said.
    @Test func withoutABootSectorItIsSaid() throws {
        let folder = try ScratchFolder()
        let source = try FileSource(path: try Self.made("12", folder))
        let found = try FileNames.at(ExtentList(Extent(from: .zero, to: ByteCount(512))), of: source, kind: .fat)
        #expect(found.items.map(\.kind) == [.unknown])
        #expect(found.notes.count == 1)
    }

    @Test func aFirstTableThatCannotBeReadIsReplacedByTheSecond() throws {
        let folder = try ScratchFolder()
        let image = try Self.made("16", folder)
        let source = try FileSource(path: image)
        let boot = try FATBootSector(parsing: try source.bytes(at: .zero, count: 512))
        let cluster = try #require(try Self.clusters("/file700001", image).last).upperBound
        let table = Extent(
            from: ByteCount(boot.reservedSectors * 512),
            to: ByteCount((boot.reservedSectors + boot.tableSectors) * 512))
        let found = try FileNames.at(ExtentList([table, Self.place(cluster, boot)]), of: source, kind: .fat)
        #expect(Set(found.items.filter { $0.kind != .free }.map(\.name)) == ["/file700001", "allocation table 1"])
    }
}
