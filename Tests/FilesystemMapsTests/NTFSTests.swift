// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import Glibc
import MachineModel
import Testing
import Tools

@testable import FilesystemMaps

/// NTFS made by mkntfs and filled through ntfs-3g; ntfsinfo, ntfsclone and ntfsfix judge.
@Suite(.enabled(if: canMountNTFS, "ntfs-3g, FUSE and root are needed"))
struct NTFSTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var cluster: Int
        var sector = 512
        var mebibytes: UInt64 = 64
        var testDescription: String { "\(cluster)-byte clusters, \(sector)-byte sectors" }
    }

    static let shapes = [
        Shape(cluster: 512), Shape(cluster: 1024), Shape(cluster: 4096), Shape(cluster: 65536, mebibytes: 100),
        Shape(cluster: 131072, mebibytes: 200), Shape(cluster: 2_097_152, mebibytes: 600),
        Shape(cluster: 4096, sector: 4096), Shape(cluster: 65536, sector: 4096, mebibytes: 100),
        Shape(cluster: 2048, sector: 1024),
    ]

    /// A filesystem of `shape` without content.
    static func empty(_ shape: Shape, in folder: ScratchFolder) throws -> String {
        let image = try folder.file("source.img", .mebibytes(shape.mebibytes))
        try mkntfs.check(
            ["-F", "-Q", "-q", "-L", "label", "-s", "\(shape.sector)", "-c", "\(shape.cluster)", image])
        return image
    }

    /// Runs a script with `image` mounted at `mnt` in the folder.
    static func mounted(_ image: String, in folder: ScratchFolder, _ script: String, options: String = "") throws {
        try shell.check(
            [
                "-c",
                """
                set -e; cd "$1"; mkdir -p mnt
                ntfs-3g -o "no_detach$3" "$2" mnt >ntfs-3g.log 2>&1 & mount=$!
                for n in $(seq 1 200); do mountpoint -q mnt && break; sleep 0.05; done
                mountpoint -q mnt
                ( \(script) ) || { umount mnt; exit 1; }
                umount mnt; wait $mount
                """, "mounted", folder.path, image, options,
            ])
    }

    /// A filesystem with content, fragmented, some of which was deleted again.
    static func made(_ shape: Shape, in folder: ScratchFolder) throws -> String {
        let image = try empty(shape, in: folder)
        _ = try folder.tree(symbolicLinks: false)
        try mounted(
            image, in: folder,
            """
            set -e; cp -r tree/. mnt/; mkdir mnt/many
            for n in $(seq 1 300); do echo "$n" > "mnt/many/a file with a rather long name, number $n"; done
            for n in 1 2 3 4; do for f in p q r; do cat tree/file65536 >> "mnt/$f"; done; done
            ln mnt/file5000 mnt/sub/hard; truncate -s 3M mnt/sparse; echo end >> mnt/sparse
            rm mnt/q mnt/sub/copy700001 mnt/file131073 mnt/many/*7
            """)
        return image
    }

    /// Whether both filesystems hold the same files.
    static func same(_ one: String, _ other: String, in folder: ScratchFolder) throws -> Bool {
        for (image, name) in [(one, "theirs"), (other, "ours")] {
            try mounted(image, in: folder, "cp -r mnt \(name)", options: ",ro")
        }
        let difference = try Tool("diff", package: "diffutils").run(
            ["-r", "\(folder.path)/theirs", "\(folder.path)/ours"])
        return difference.status == 0
    }

    @Test(arguments: shapes)
    func onlyUsedClustersMakeTheSameFilesystem(shape: Shape) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(shape, in: folder)
        let source = try FileSource(path: image)
        let map = try FilesystemMaps.map(source)
        #expect(map.wholeBecause == nil)
        #expect(map.states == [.clean])
        #expect(map.identity.kind == .ntfs)
        #expect(map.identity.label == "label")
        #expect(map.identity.version == "3.1")
        #expect(map.blockSize?.bytes == UInt64(shape.cluster))

        // Exactly what ntfsinfo calls not free, and what lies behind the last cluster.
        let report = try ntfsinfo.check(["-m", image]).standardOutput
        func number(_ name: String) throws -> UInt64 {
            let line = try #require(report.split(separator: "\n").first { $0.contains(name) })
            return try #require(line.split(separator: ":").last?.split(separator: " ").first.flatMap { UInt64($0) })
        }
        let clusters = try number("Volume Size in Clusters")
        let cluster = UInt64(shape.cluster)
        let inClusters = map.used.intersection(Extent(from: .zero, to: ByteCount(clusters * cluster)))
        #expect(inClusters.byteCount.bytes == (clusters - (try number("Free Clusters"))) * cluster)
        #expect(map.used.covers(Extent(from: source.length - ByteCount(UInt64(shape.sector)), to: source.length)))
        #expect(map.used.byteCount.bytes - inClusters.byteCount.bytes <= cluster + UInt64(shape.sector))

        let copy = try folder.file("copy.img", .mebibytes(shape.mebibytes))
        try restored(source, map.used, to: copy)
        #expect(try ntfsfix.run(["-n", copy]).status == 0)
        #expect(try Self.same(image, copy, in: folder))
    }

    /// ntfsclone reads every file's runs and compares them with the bitmap before it saves anything.
    @Test(arguments: [Shape(cluster: 512), Shape(cluster: 4096), Shape(cluster: 65536, mebibytes: 100)])
    func ntfscloneSavesTheSameClusters(shape: Shape) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(shape, in: folder)
        let map = try FilesystemMaps.map(try FileSource(path: image))
        let saved = "\(folder.path)/saved"
        try ntfsclone.check(["-q", "--save-image", "--output", saved, image])
        // Sources are whole sectors.
        try Tool("truncate", package: "coreutils").check(["-s", "%512", saved])
        let clusters = try Self.saved(saved)
        let cluster = ByteCount(UInt64(shape.cluster))
        let size = try #require(map.filesystemSize)
        let end = size.roundedDown(to: cluster)
        #expect(clusters.byteCount > .mebibytes(2))
        #expect(
            clusters.intersection(Extent(from: .zero, to: end)) == map.used.intersection(Extent(from: .zero, to: end)))
    }

    /// The clusters a file saved by ntfsclone holds: after a header, byte 1 and a cluster, or byte 0 and how many
    /// clusters are left out.
    static func saved(_ path: String) throws -> ExtentList {
        let file = try FileSource(path: path)
        let bytes = try file.bytes(at: .zero, count: file.length.int ?? 0)
        let span = unsafe bytes.span.bytes
        let size = Int(try span.littleEndian(UInt32.self, "cluster_size", at: 18))
        var at = Int(try span.littleEndian(UInt32.self, "offset_to_image_data", at: 46))
        var cluster: UInt64 = 0
        var result = ExtentList()
        while at < bytes.count - 9 {
            if bytes[at] == 0 {
                cluster += try span.littleEndian(UInt64.self, "count", at: at + 1)
                at += 9
            } else {
                let start = ByteCount(cluster * UInt64(size))
                result.append(Extent(from: start, to: start + ByteCount(UInt64(size))))
                cluster += 1
                at += 1 + size
            }
        }
        return result
    }

    @Test func withoutAFileTheMapIsTheSame() throws {
        let folder = try ScratchFolder()
        let source = try FileSource(path: try Self.made(Shape(cluster: 4096), in: folder))
        #expect(try FilesystemMaps.map(withoutFile(source)) == FilesystemMaps.map(source))
    }

    @Test func afterNtfsresizeTheBackupBootSectorIsStillUsed() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Shape(cluster: 65536, mebibytes: 200), in: folder)
        try Tool("ntfsresize", package: "ntfs-3g").check(
            ["-f", "-s", "\(100 << 20 + 3 * 512)", image], input: Array("y\n".utf8))
        // It leaves the volume marked dirty, so that Windows checks it.
        #expect(try FilesystemMaps.map(try FileSource(path: image)).states == [.dirty])
        try ntfsfix.check(["-d", image])
        let whole = try FileSource(path: image)
        let map = try FilesystemMaps.map(whole)
        #expect(map.wholeBecause == nil)
        // Its sectors with the name of NTFS are all used, wherever they are.
        var found = 0
        for sector in stride(from: UInt64(100 << 20) - 131_072, to: (100 << 20) + 131_072, by: 512)
        where try whole.bytes(at: ByteCount(sector + 3), count: 8) == Array("NTFS    ".utf8) {
            found += 1
            #expect(map.used.contains(ByteCount(sector)))
        }
        #expect(found == 1)
    }

    // MARK: - States

    static func volume(_ image: String) throws -> NTFSVolume {
        let source = try FileSource(path: image)
        return try NTFSVolume(source, NTFSBootSector(parsing: source.bytes(at: .zero, count: 512)))
    }

    /// Where a system file's data begin.
    static func first(_ file: NTFSVolume.SystemFile, of volume: NTFSVolume) throws -> Extent {
        let extents = volume.extents(try volume.data(file))
        return try #require(extents.first)
    }

    /// The map after something was done to an empty filesystem.
    static func spoiled(_ shape: Shape = Shape(cluster: 4096), _ body: (String) throws -> Void) throws -> VolumeMap {
        let folder = try ScratchFolder()
        let image = try empty(shape, in: folder)
        try body(image)
        return try FilesystemMaps.map(try FileSource(path: image))
    }

    static func expectWhole(_ map: VolumeMap, _ states: [VolumeState], _ reason: String) {
        #expect(map.states == states)
        #expect(map.used.byteCount == .mebibytes(64))
        #expect(map.used.extents.count == 1)
        #expect(map.wholeBecause?.contains(reason) == true, "\(map.wholeBecause ?? "mapped")")
    }

    /// Where record `number` and its copy lie.
    static func places(_ number: UInt64, _ image: String) throws -> [UInt64] {
        let boot = try volume(image).boot
        let offset = number * UInt64(boot.recordSize)
        let size = boot.clusterSize.bytes
        return number < 4 ? [boot.mft * size + offset, boot.mirror * size + offset] : [boot.mft * size + offset]
    }

    /// Where the value of a resident attribute of a record lies in the record.
    static func value(_ type: UInt32, _ number: UInt64, _ image: String) throws -> UInt64 {
        let bytes = try FileSource(path: image).bytes(at: ByteCount(try places(number, image)[0]), count: 1024)
        let span = unsafe bytes.span.bytes
        var at = Int(try span.littleEndian(UInt16.self, "attrs_offset", at: 20))
        while try span.littleEndian(UInt32.self, "type", at: at) != type {
            at += Int(try span.littleEndian(UInt32.self, "length", at: at + 4))
        }
        return UInt64(at + Int(try span.littleEndian(UInt16.self, "value_offset", at: at + 20)))
    }

    @Test(arguments: [(UInt8(1), UInt8(0)), (0, 0x40)])
    func aDirtyVolumeIsWhole(low: UInt8, high: UInt8) throws {
        let map = try Self.spoiled { image in
            let flags = try Self.value(NTFSAttribute.volumeInformation, 3, image) + 10
            for place in try Self.places(3, image) { try poke(image, place + flags, [low, high]) }
        }
        Self.expectWhole(map, [.dirty], "chkdsk")
    }

    @Test func anUnknownVersionIsWhole() throws {
        let map = try Self.spoiled { image in
            let version = try Self.value(NTFSAttribute.volumeInformation, 3, image) + 8
            for place in try Self.places(3, image) { try poke(image, place + version, [4, 0]) }
        }
        Self.expectWhole(map, [.unknownFeatures], "4.0")
    }

    /// A restart page of 4 KiB.
    static func restartPage(lsn: UInt64, major: UInt8 = 1, minor: UInt8 = 1, inUse: Bool, clean: Bool) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: 4096)
        func put(_ bytes: [UInt8], _ at: Int) { page.replaceSubrange(at..<at + bytes.count, with: bytes) }
        put(Array("RSTR".utf8) + [30, 0, 9, 0], 0)
        put([0, 0x10, 0, 0, 0, 0x10, 0, 0, 48, 0, minor, 0, major, 0], 16)
        put((0..<8).map { UInt8(truncatingIfNeeded: lsn >> (8 * $0)) }, 48)
        put(inUse ? [1, 0, 0xFF, 0xFF, 0, 0] : [1, 0, 0, 0, 0xFF, 0xFF], 56)
        put([clean ? 2 : 0, 0], 62)
        for end in stride(from: 512, through: 4096, by: 512) { put([7, 0], end - 2) }
        put([7, 0], 30)
        return page
    }

    struct Log: Sendable, CustomTestStringConvertible {
        var name: String
        var pages: [[UInt8]]
        var state: VolumeState?
        var testDescription: String { name }
    }

    static let logs = [
        Log(
            name: "closed and clean",
            pages: [restartPage(lsn: 9, inUse: false, clean: true), restartPage(lsn: 8, inUse: true, clean: false)]),
        Log(
            name: "clean flag, still listed",
            pages: [restartPage(lsn: 7, inUse: true, clean: false), restartPage(lsn: 8, inUse: true, clean: true)]),
        Log(
            name: "open and not clean",
            pages: [restartPage(lsn: 9, inUse: true, clean: false), restartPage(lsn: 8, inUse: false, clean: true)],
            state: .journalToReplay),
        Log(
            name: "the second page is the later",
            pages: [restartPage(lsn: 7, inUse: false, clean: true), restartPage(lsn: 8, inUse: true, clean: false)],
            state: .journalToReplay),
        Log(
            name: "equally late, one not clean",
            pages: [restartPage(lsn: 7, inUse: false, clean: true), restartPage(lsn: 7, inUse: true, clean: false)],
            state: .journalToReplay),
        Log(
            name: "fast startup",
            pages: [
                restartPage(lsn: 9, major: 2, minor: 0, inUse: true, clean: true),
                restartPage(lsn: 8, inUse: false, clean: true),
            ], state: .journalToReplay),
        Log(
            name: "unknown version",
            pages: [
                restartPage(lsn: 9, major: 3, inUse: false, clean: true),
                restartPage(lsn: 8, inUse: false, clean: true),
            ], state: .unknownFeatures),
        Log(
            name: "torn second page",
            pages: [
                restartPage(lsn: 9, inUse: false, clean: true),
                Array(restartPage(lsn: 8, inUse: false, clean: true).prefix(511)) + [9]
                    + restartPage(lsn: 8, inUse: false, clean: true).dropFirst(512),
            ], state: .damaged),
        Log(name: "zeros", pages: [[UInt8](repeating: 0, count: 8192)], state: .damaged),
        Log(
            name: "half emptied",
            pages: [[UInt8](repeating: 0xFF, count: 4096), restartPage(lsn: 8, inUse: true, clean: false)],
            state: .damaged),
        Log(
            name: "chkdsk's mark",
            pages: [Array("CHKD".utf8) + restartPage(lsn: 9, inUse: false, clean: true).dropFirst(4)],
            state: .damaged),
    ]

    @Test(arguments: logs)
    func onlyACleanLogLetsTheBitmapSpeak(log: Log) throws {
        let map = try Self.spoiled { image in
            let volume = try Self.volume(image)
            let start = try Self.first(.logFile, of: volume).start
            try poke(image, start.bytes, Array(log.pages.joined()))
        }
        #expect(map.states == [log.state ?? .clean], "\(map.wholeBecause ?? "")")
        #expect((map.wholeBecause == nil) == (log.state == nil))
        if log.name == "fast startup" {
            #expect(map.wholeBecause?.contains("attach it there and eject it") == true)
        }
        #expect((map.used.byteCount == .mebibytes(64)) == (log.state != nil))
    }

    @Test(
        arguments: [
            ("hibr", VolumeState.hibernated), ("HIBR", .hibernated), ("what", .hibernated), ("wake", .clean),
            ("RSTR", .clean), ("\0\0\0\0", .clean),
        ])
    func aHibernatedWindowsMakesItWhole(mark: String, state: VolumeState) throws {
        let folder = try ScratchFolder()
        let image = try Self.empty(Shape(cluster: 4096), in: folder)
        // Enough files for an index outside of the directory's record.
        try Self.mounted(
            image, in: folder,
            """
            for n in $(seq 1 200); do : > "mnt/file number $n"; done
            head -c 100000 /dev/zero > mnt/HiberFil.sys
            """)
        let volume = try Self.volume(image)
        let source = try FileSource(path: image)
        // The first cluster of the only file that begins like this.
        let records = (64..<400).compactMap { try? volume.record($0) }
        let name = Array("H\0i\0b\0e\0r\0F\0".utf8)
        let record = try #require(records.first { $0.raw.bytes.contains(subsequence: name) })
        let stream = try volume.stream(record, type: NTFSAttribute.data, named: "", "hiberfil.sys")
        let data = try #require(stream)
        let cluster = try #require(volume.extents(data).first)
        try poke(image, cluster.start.bytes, Array(mark.utf8))
        let map = try FilesystemMaps.map(source)
        #expect(map.states == [state], "\(map.wholeBecause ?? "")")
        #expect((map.wholeBecause == nil) == (state == .clean))
    }

    // MARK: - Damage

    @Test func aBrokenBootSectorIsReadFromItsBackup() throws {
        let sound = try Self.spoiled { _ in }
        // Bytes per sector, where libblkid gives up.
        let map = try Self.spoiled { try poke($0, 11, [0, 0]) }
        #expect(map.wholeBecause == nil)
        #expect(map.states == [.damaged])
        #expect(map.damage?.contains("boot sector") == true)
        #expect(map.used == sound.used)
        #expect(map.identity.kind == .ntfs)
    }

    @Test func aBackupAloneSaysNothing() throws {
        let map = try Self.spoiled { try poke($0, 0, (0..<512).map { UInt8(truncatingIfNeeded: $0 * 7 + 1) }) }
        #expect(map.identity.kind == .unknown)
        #expect(map.used.byteCount == .mebibytes(64))
    }

    @Test func withoutAnyBootSectorItIsWhole() throws {
        let map = try Self.spoiled {
            try poke($0, 11, [0, 0])
            try poke($0, 64 << 20 - 512, [UInt8](repeating: 0, count: 512))
        }
        #expect(map.used.byteCount == .mebibytes(64))
        #expect(map.wholeBecause != nil)
    }

    @Test(arguments: [UInt64(0), 1, 2, 3])
    func aTornRecordIsReadFromTheMirror(number: UInt64) throws {
        let sound = try Self.spoiled { _ in }
        let torn = try Self.spoiled { try poke($0, try Self.places(number, $0)[0] + 510, [0xEE, 0xEE]) }
        #expect(torn.wholeBecause == nil)
        #expect(torn.states == [.damaged])
        #expect(torn.damage?.contains("record \(number)") == true)
        #expect(torn.used == sound.used)
        let mirror = try Self.spoiled { try poke($0, try Self.places(number, $0)[1] + 510, [0xEE, 0xEE]) }
        #expect(mirror.states == [.damaged])
        #expect(mirror.used == sound.used)
    }

    @Test func copiesThatContradictEachOtherMakeItWhole() throws {
        let map = try Self.spoiled { try poke($0, try Self.places(3, $0)[1] + 8, [0x55]) }
        Self.expectWhole(map, [.damaged], "not the same")
    }

    @Test func aTornRecordOfTheBitmapMakesItWhole() throws {
        let map = try Self.spoiled { try poke($0, try Self.places(6, $0)[0] + 510, [0xEE, 0xEE]) }
        Self.expectWhole(map, [.damaged], "only in part")
    }

    @Test func aBitmapThatCallsTheTableFreeMakesItWhole() throws {
        let map = try Self.spoiled { image in
            let volume = try Self.volume(image)
            let bitmap = try Self.first(.bitmap, of: volume).start.bytes
            try poke(image, bitmap + volume.boot.mft / 8, [0])
        }
        Self.expectWhole(map, [.damaged], "free")
    }

    /// The record and clusters of a file of several clusters.
    static func someFile(_ volume: NTFSVolume) throws -> (number: UInt64, extents: [Extent]) {
        for number in 64..<UInt64(200) {
            guard let record = try? volume.record(number),
                let data = try? volume.stream(record, type: NTFSAttribute.data, named: "", "the file"),
                data.size > 60_000
            else { continue }
            return (number, volume.extents(data))
        }
        throw Fault(.system, what: "no file", remedy: "")
    }

    /// Clears the bits of an extent in $Bitmap.
    static func free(_ extent: Extent, _ volume: NTFSVolume, _ image: String) throws {
        let bitmap = try first(.bitmap, of: volume).start.bytes
        let size = volume.boot.clusterSize.bytes
        for cluster in extent.start.bytes / size..<extent.end.bytes / size {
            let place = bitmap + cluster / 8
            let old = try FileSource(path: image).bytes(at: ByteCount(place), count: 1)[0]
            try poke(image, place, [old & ~(1 << UInt8(cluster % 8))])
        }
    }

    /// A driver without a log was cut off: the file's record is on the disk, its bits in the bitmap are not.
    @Test(arguments: [Shape(cluster: 512), Shape(cluster: 4096)])
    func clustersOfRecordsThatTheBitmapCallsFreeAreUsed(shape: Shape) throws {
        let folder = try ScratchFolder()
        let image = try Self.made(shape, in: folder)
        let before = try FilesystemMaps.map(try FileSource(path: image))
        let volume = try Self.volume(image)
        let (_, extents) = try Self.someFile(volume)
        for extent in extents { try Self.free(extent, volume, image) }
        let map = try FilesystemMaps.map(try FileSource(path: image))
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.states == [.damaged])
        #expect(map.damage?.contains("\(ExtentList(extents).byteCount) of its files' clusters free") == true)
        #expect(map.used == before.used)
    }

    @Test func aRecordThatCannotBeReadMakesItWholeAfterSuchADriver() throws {
        let folder = try ScratchFolder()
        let image = try Self.made(Shape(cluster: 4096), in: folder)
        let (number, _) = try Self.someFile(Self.volume(image))
        let place = try Self.places(number, image)[0]
        try poke(image, place + 510, [0xEE, 0xEE])
        Self.expectWhole(try FilesystemMaps.map(try FileSource(path: image)), [.damaged], "only in part")
        try poke(image, place, Array("BAAD".utf8))
        Self.expectWhole(try FilesystemMaps.map(try FileSource(path: image)), [.damaged], "no FILE record")
    }

    @Test(arguments: [(UInt8(1), true), (0, false)])
    func shadowCopiesAreTold(catalogue: UInt8, told: Bool) throws {
        let map = try Self.spoiled { image in
            let guid: [UInt8] = [
                0x6B, 0x87, 0x08, 0x38, 0x76, 0xC1, 0x48, 0x4E, 0xB7, 0xAE, 0x04, 0x04, 0x6E, 0x6C, 0xC7, 0x52,
            ]
            try poke(image, 0x1E00, guid + [1, 0, 0, 0, 1, 0, 0, 0])
            try poke(image, 0x1E00 + 50, [catalogue])
        }
        #expect(map.wholeBecause == nil)
        #expect(map.warnings.map(\.code) == (told ? ["volume.snapshots"] : []))
        #expect(map.warnings.allSatisfy { $0.what.contains("--whole") })
        let full = map.inFull(length: .mebibytes(64))
        #expect(full.warnings.isEmpty)
        #expect(full.used.byteCount == .mebibytes(64))
        #expect(full.wholeBecause?.contains("--whole") == true)
    }

    @Test func anotherNumberOfClustersThanTheBitmapsMakesItWhole() throws {
        for sectors in [UInt32(60 << 11), 32 << 11] {
            let map = try Self.spoiled { image in
                try poke(image, 40, (0..<4).map { UInt8(truncatingIfNeeded: sectors >> (8 * $0)) })
            }
            Self.expectWhole(map, [.damaged], "")
        }
    }

    @Test func aFilesystemLargerThanItsVolumeIsDamaged() throws {
        let folder = try ScratchFolder()
        let image = try Self.empty(Shape(cluster: 4096), in: folder)
        let window = try Window(try FileSource(path: image), Extent(from: .zero, to: .mebibytes(40)), name: "cut")
        let map = try FilesystemMaps.map(window)
        #expect(map.states == [.damaged])
        #expect(map.used.byteCount == .mebibytes(40))
        #expect(map.wholeBecause?.contains("larger than the volume") == true)
    }

    /// Bits behind the last cluster are set by every formatter; unset they mean nothing either.
    @Test func bitsBehindTheLastClusterMeanNothing() throws {
        let sound = try Self.spoiled { _ in }
        let map = try Self.spoiled { image in
            let volume = try Self.volume(image)
            let bitmap = try volume.data(.bitmap)
            let last = try Self.first(.bitmap, of: volume).start.bytes + bitmap.size - 1
            let old = try FileSource(path: image).bytes(at: ByteCount(last), count: 1)[0]
            #expect(old & 0x80 != 0)
            try poke(image, last, [old & 0x7F])
        }
        #expect(map.wholeBecause == nil)
        #expect(map.used == sound.used)
    }

    /// $Bad of $BadClus, a hole as large as the volume, gets a run of `count` clusters at `lcn`.
    static func makeBad(_ lcn: UInt64, _ count: UInt64, _ image: String) throws {
        let place = try places(8, image)[0]
        let bytes = try FileSource(path: image).bytes(at: ByteCount(place), count: 1024)
        let span = unsafe bytes.span.bytes
        var at = Int(try span.littleEndian(UInt16.self, "attrs_offset", at: 20))
        while bytes[at] != 0x80 || bytes[at + 9] != 4 {
            at += Int(try span.littleEndian(UInt32.self, "length", at: at + 4))
        }
        let pairs = at + Int(try span.littleEndian(UInt16.self, "mapping_pairs_offset", at: at + 32))
        let length = Int(try span.littleEndian(UInt32.self, "length", at: at + 4))
        // One hole of four bytes, then zeros: room enough after the attribute was made longer.
        let clusters = try volume(image).boot.clusters
        func four(_ value: UInt64) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
        let runs = [0x04] + four(lcn) + [0x44] + four(count) + four(lcn) + [0x04] + four(clusters - lcn - count) + [0]
        var attribute = Array(bytes[at..<pairs]) + runs
        while attribute.count % 8 != 0 { attribute.append(0) }
        attribute.replaceSubrange(4..<8, with: four(UInt64(attribute.count)))
        let end = Array(bytes[(at + length)..<(at + length + 8)])
        try poke(image, place + UInt64(at), attribute + end)
        try poke(image, place + 24, four(UInt64(at + attribute.count + 8)))
    }

    @Test func badClustersAreNotRead() throws {
        let sound = try Self.spoiled { _ in }
        let map = try Self.spoiled { image in
            try Self.makeBad(9000, 5, image)
            // A cluster is bad and in use by the bitmap, as Windows has it.
            let volume = try Self.volume(image)
            let bitmap = try Self.first(.bitmap, of: volume).start.bytes
            try poke(image, bitmap + 9000 / 8, [0x1F])
        }
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.used == sound.used)
    }

    @Test func badClustersThatCannotBeMakeItWhole() throws {
        let free = try Self.spoiled { try Self.makeBad(9000, 5, $0) }
        Self.expectWhole(free, [.damaged], "free")
        let many = try Self.spoiled { try Self.makeBad(4000, 9000, $0) }
        Self.expectWhole(many, [.damaged], "not believed")
        let table = try Self.spoiled { try Self.makeBad(try Self.volume($0).boot.mft, 2, $0) }
        Self.expectWhole(table, [.damaged], "$MFT")
    }

    @Test func anUnreadableBitmapMakesItWholeInsteadOfFailing() throws {
        let folder = try ScratchFolder()
        let image = try Self.empty(Shape(cluster: 4096), in: folder)
        let volume = try Self.volume(image)
        let bitmap = try Self.first(.bitmap, of: volume)
        let map = try FilesystemMaps.map(Faulty(try FileSource(path: image), bad: ExtentList(bitmap)))
        #expect(map.states == [.damaged])
        #expect(map.wholeBecause?.contains("Input/output error") == true)
    }
}

extension [UInt8] {
    /// Whether `other` lies somewhere in it.
    func contains(subsequence other: [UInt8]) -> Bool {
        count >= other.count && indices.dropLast(other.count - 1).contains { self[$0...].starts(with: other) }
    }
}
