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

/// exFAT made by mkfs.exfat and filled through exfat-fuse; fsck.exfat judges.
@Suite(.enabled(if: canMountExFAT, "exfatprogs, exfat-fuse, /dev/fuse and root are needed"))
struct ExFATTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var options: [String] = []
        var sector = 512
        var mebibytes: UInt64 = 96
        var testDescription: String { "\(options.joined(separator: " ")), \(mebibytes) MiB, sectors of \(sector)" }
    }

    static let shapes = [
        Shape(), Shape(options: ["-c", "512"]), Shape(options: ["-c", "32K"]), Shape(options: ["-c", "1M"]),
        Shape(options: ["-c", "32M"], mebibytes: 1024), Shape(sector: 4096),
        Shape(options: ["-c", "64K", "--pack-bitmap"], sector: 4096), Shape(options: ["-b", "4M"], mebibytes: 600),
        // A bitmap of several clusters.
        Shape(options: ["-c", "512"], mebibytes: 400),
    ]

    static func empty(_ shape: Shape, in folder: ScratchFolder) throws -> String {
        let image = try folder.file("source.img", .mebibytes(shape.mebibytes))
        if shape.sector == 512 {
            try mkexfat.check(["-L", "some label"] + shape.options + [image])
        } else {
            try shell.check(
                [
                    "-c",
                    """
                    i=$1; s=$2; shift 2; l=$(losetup --find --show -b $s "$i") || exit 1
                    mkfs.exfat -L 'some label' "$@" $l; status=$?; losetup -d $l; exit $status
                    """, "make", image, "\(shape.sector)",
                ] + shape.options)
        }
        return image
    }

    /// Runs a script with `image` mounted at `mnt` in the folder.
    static func mounted(_ image: String, in folder: ScratchFolder, _ script: String, options: String = "rw") throws {
        try shell.check(
            [
                "-c",
                """
                set -e; cd "$1"; mkdir -p mnt; l=$(losetup --find --show "$2"); trap 'losetup -d $l' EXIT
                mount.exfat-fuse -o $3 $l mnt >/dev/null
                ( \(script) ) || { umount mnt; exit 1; }
                umount mnt; sync $l
                """, "mounted", folder.path, image, options,
            ])
    }

    /// A filesystem with content and holes in its free space.
    static func made(_ shape: Shape, in folder: ScratchFolder) throws -> String {
        _ = try folder.tree(symbolicLinks: false)
        let image = try empty(shape, in: folder)
        let many = shape.options.contains("32M") ? 10 : shape.options.contains("1M") ? 40 : 400
        let few = many < 100
        try mounted(
            image, in: folder,
            """
            set -e; mkdir mnt/many; seq 1 \(many) | (cd mnt/many; split -l 1 -a 4 - f)
            cp -r tree/\(few ? "file131073" : ".") mnt/; rm mnt/many/*[acegikmoqsuwy]
            cp tree/file700001 mnt/long; cat tree/file65536 >> mnt/long; \(few ? ":" : "rm mnt/file131073 mnt/sub/copy65536")
            """)
        return image
    }

    static func same(_ one: String, _ other: String, in folder: ScratchFolder) throws -> Bool {
        for (image, name) in [(one, "theirs"), (other, "ours")] {
            try mounted(image, in: folder, "mkdir \(name); cp -a mnt/. \(name)/", options: "ro")
        }
        return try Tool("diff", package: "diffutils").run(["-r", "\(folder.path)/theirs", "\(folder.path)/ours"]).status
            == 0
    }

    /// Bytes of clusters in use by fsck.exfat's eyes: those of dump.exfat.
    static func figure(_ image: String) throws -> UInt64 {
        let report = try Tool("dump.exfat", package: "exfatprogs").check([image]).standardOutput
        func number(_ name: String) throws -> UInt64 {
            let line = try #require(report.split(separator: "\n").first { $0.hasPrefix(name) })
            return try #require(line.split(whereSeparator: { " \t".contains($0) }).last.flatMap { UInt64($0) })
        }
        return try (number("Total Clusters:") - number("Free Clusters:")) * number("Cluster size:")
    }

    @Test(arguments: sampled(shapes))
    func onlyUsedClustersMakeTheSameFilesystem(shape: Shape) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(shape, in: folder)
        let source = try FileSource(path: image)
        let map = try FilesystemMaps.map(source)
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.states == [.clean])
        #expect(map.identity.kind == .exFAT)
        #expect(map.identity.label == "some label")
        let boot = try ExFATBootSector(parsing: try source.bytes(at: .zero, count: 512))
        #expect(boot.sectorSize == UInt64(shape.sector))
        #expect(map.used.byteCount.bytes == boot.heap.bytes + (try Self.figure(image)))
        #expect(map.used.byteCount < source.length)
        #expect(try map == FilesystemMaps.map(withoutFile(source)))

        let copy = try folder.file("copy.img", source.length)
        try restored(source, map.used, to: copy, garbage: 0xFF)
        let verdict = try fsckexfat.run(["-n", copy])
        #expect(verdict.status == 0, "\(verdict.standardOutput)")
        #expect(try Self.same(image, copy, in: folder))
    }

    @Test(.enabled(if: Tool("partclone.exfat", package: "partclone").path != nil, "partclone is needed"))
    func partcloneCountsTheSame() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Shape(), in: folder)
        let map = try FilesystemMaps.map(try FileSource(path: image))
        let run = try Tool("partclone.exfat", package: "partclone").run(
            ["-c", "-q", "-L", "\(folder.path)/log", "-s", image, "-O", "\(folder.path)/saved"])
        let report = run.standardOutput + run.standardError
        let line = try #require(report.split(whereSeparator: \.isNewline).last { $0.contains("Space in use:") })
        let blocks = try #require(
            line.split(separator: "=").last?.split(separator: " ").first.flatMap { UInt64($0) })
        let difference = Int64(map.used.byteCount.bytes / 512) - Int64(blocks)
        #expect(abs(difference) <= 64, "\(map.used.byteCount.bytes / 512) and \(blocks) sectors")
    }

    // MARK: - States and damage

    static func spoiled(_ body: (String) throws -> Void) throws -> VolumeMap {
        let folder = try ScratchFolder()
        let image = try empty(Shape(), in: folder)
        try body(image)
        return try FilesystemMaps.map(try FileSource(path: image))
    }

    static func expectWhole(_ map: VolumeMap, _ states: [VolumeState], _ reason: String) {
        #expect(map.states == states, "\(map.wholeBecause ?? "mapped")")
        #expect(map.used == ExtentList(Extent(from: .zero, to: .mebibytes(96))))
        #expect(map.wholeBecause?.contains(reason) == true, "\(map.wholeBecause ?? "mapped")")
    }

    /// Changes fields of the boot sector and mends the checksum.
    static func change(_ image: String, _ changes: [(Int, [UInt8])]) throws {
        var region = try FileSource(path: image).bytes(at: .zero, count: 12 * 512)
        for (offset, bytes) in changes { region.replaceSubrange(offset..<offset + bytes.count, with: bytes) }
        let sum = ExFATBootSector.checksum(region[..<(11 * 512)])
        for index in 0..<512 { region[11 * 512 + index] = UInt8(truncatingIfNeeded: sum >> UInt32(index % 4 * 8)) }
        try poke(image, 0, region)
    }

    @Test func aDirtyVolumeIsWhole() throws {
        Self.expectWhole(try Self.spoiled { try poke($0, 106, [2]) }, [.dirty], "dirty")
    }

    @Test func aMediaFailureIsToldButMapped() throws {
        let map = try Self.spoiled { try poke($0, 106, [4]) }
        #expect(map.wholeBecause == nil && map.states == [.damaged])
        #expect(map.damage?.contains("medium") == true)
    }

    @Test func texFATAndUnknownFlagsAreWhole() throws {
        Self.expectWhole(try Self.spoiled { try Self.change($0, [(110, [2])]) }, [.unknownFeatures], "TexFAT")
        Self.expectWhole(try Self.spoiled { try poke($0, 106, [0x40]) }, [.unknownFeatures], "flags unknown")
        let version = try Self.spoiled {
            try Self.change($0, [(105, [2])])
            try poke($0, 12 * 512 + 105, [2])
        }
        #expect(version.wholeBecause != nil && version.used.byteCount == .mebibytes(96))
    }

    @Test func aBrokenBootRegionIsReplacedByTheBackup() throws {
        let sound = try Self.spoiled { _ in }
        // An extended boot sector, the checksum's sector, the boot code.
        for (place, bytes) in [(UInt64(3 * 512 + 7), [UInt8(1)]), (11 * 512, [1, 2, 3, 4]), (200, [7])] {
            let map = try Self.spoiled { try poke($0, place, bytes) }
            #expect(map.wholeBecause == nil, "byte \(place): \(map.wholeBecause ?? "")")
            #expect(map.states == [.damaged])
            #expect(map.used == sound.used)
            #expect(map.identity.kind == .exFAT)
        }
        let dirty = try Self.spoiled {
            try poke($0, 200, [7])
            try poke($0, 106, [2])
        }
        Self.expectWhole(dirty, [.dirty], "dirty")
        // Where the flags' neighbours are damaged, the flags may be too.
        let fields = try Self.spoiled { try poke($0, 88, [0xFF, 0xFF]) }
        #expect(fields.wholeBecause != nil && fields.used.byteCount == .mebibytes(96))
        let both = try Self.spoiled {
            try poke($0, 200, [7])
            try poke($0, 12 * 512 + 200, [7])
        }
        #expect(both.wholeBecause != nil && both.used.byteCount == .mebibytes(96))
    }

    @Test func aBitmapThatCallsItsOwnClustersFreeIsNotBelieved() throws {
        let map = try Self.spoiled { image in
            let source = try FileSource(path: image)
            let boot = try ExFATBootSector(parsing: try source.bytes(at: .zero, count: 512))
            // Cluster 2, the bitmap itself, is its first bit.
            let old = try source.bytes(at: boot.place(2), count: 1)[0]
            try poke(image, boot.place(2).bytes, [old & 0xFE])
        }
        Self.expectWhole(map, [.damaged], "own metadata")
    }

    @Test func aChainThatBitesItsTailEnds() throws {
        let map = try Self.spoiled { image in
            let boot = try ExFATBootSector(parsing: try FileSource(path: image).bytes(at: .zero, count: 512))
            let entry = boot.tableStart * 512 + UInt64(boot.root) * 4
            try poke(image, entry, (0..<4).map { UInt8(truncatingIfNeeded: boot.root >> (8 * $0)) })
            // The directory has no end either.
            let cluster = try FileSource(path: image).bytes(at: boot.place(UInt64(boot.root)), count: 4096)
            let filled = (0..<4096).map { $0 >= 96 && $0 % 32 == 0 ? UInt8(5) : cluster[$0] }
            try poke(image, boot.place(UInt64(boot.root)).bytes, filled)
        }
        Self.expectWhole(map, [.damaged], "more clusters than it can have")
    }

    @Test func aFilesystemLargerThanItsVolumeIsDamaged() throws {
        let folder = try ScratchFolder()
        let image = try Self.empty(Shape(), in: folder)
        let window = try Window(try FileSource(path: image), Extent(from: .zero, to: .mebibytes(64)), name: "cut")
        let map = try FilesystemMaps.map(window)
        #expect(map.states == [.damaged])
        #expect(map.wholeBecause?.contains("larger than the volume") == true)
    }
}
