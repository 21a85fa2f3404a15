// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import TestSupport
import Testing
import Tools

@testable import FilesystemMaps

/// Logs that wait to be replayed, written by the kernel before the power failed; the kernel's own replay and xfs_repair
/// judge.
@Suite(.enabled(if: canMountXFS && CrashSeries.isPossible, "xfsprogs, XFS in the kernel, python3 and root are needed"))
struct XFSJournalTests {
    static let shapes = [
        XFSTests.Shape(options: []),
        XFSTests.Shape(options: ["--unsupported", "-b", "size=1024", "-l", "size=10m"]),
        XFSTests.Shape(options: ["-m", "rmapbt=1,reflink=1", "-i", "nrext64=1"]),
        XFSTests.Shape(options: ["--unsupported", "-s", "size=4096", "-l", "size=12m"]),
        XFSTests.Shape(options: ["-d", "su=64k,sw=4,agcount=4", "-l", "su=256k"]),
        XFSTests.Shape(options: ["-m", "reflink=0,finobt=0,bigtime=0,inobtcount=0", "-i", "sparse=0"]),
        XFSTests.Shape(options: ["--unsupported", "-d", "agcount=9", "-l", "size=10m"]),
    ]

    @Test(arguments: shapes) func afterAPowerCutEverySyncedFileIsThere(shape: XFSTests.Shape) throws {
        let folder = try ScratchFolder()
        let image = try XFSTests.empty(shape, in: folder)
        let size = ByteCount.mebibytes(shape.mebibytes)
        let series = CrashSeries(folder: folder, image: image, size: size, options: ",nouuid")
        var replayed = 0
        for turn in 1...(isFullRun ? 20 : shape.options.isEmpty ? 3 : 1) {
            try series.crash(seed: turn)
            let source = try FileSource(path: image)
            let map = try FilesystemMaps.map(source)
            #expect(map.wholeBecause == nil, "turn \(turn): \(map.wholeBecause ?? "")")
            #expect(map.states == [.journalToReplay])
            #expect(map.used.byteCount < size)
            let copy = try series.restored(map.used, "copy.img")
            let difference = try series.difference(image, copy, options: ",nouuid")
            #expect(difference == nil, "turn \(turn): \(difference ?? "")")
            let problem = try series.problem(of: copy, options: ",nouuid")
            #expect(problem == nil, "turn \(turn): \(problem ?? "")")
            let verdict = try xfsrepair.run(["-n", "-f", copy])
            #expect(verdict.status == 0, "turn \(turn): \(verdict.lastWords)")
            // What the trees on the disk say is not what they say after the replay.
            let superblock = try XFSSuperblock(parsing: source.bytes(at: .zero, count: 512))
            let log = try XFSLog(source, superblock)
            replayed += try XFSReplay(source, superblock, log, log.head()).volume.changedBlocks
        }
        #expect(replayed > 0)
        if isFullRun { #expect(try series.promised() > 10) }
    }

    // MARK: - Damage

    /// A filesystem that lost its power after a few changes.
    static func crashed() throws -> (ScratchFolder, image: String) {
        let folder = try ScratchFolder()
        let image = try XFSTests.empty(XFSTests.Shape(options: ["--unsupported", "-l", "size=10m"]), in: folder)
        try XFSTests.mounted(
            image, in: folder,
            """
            set -e; cp -a /etc/services mnt/; mkdir mnt/d; seq 1 300 | (cd mnt/d; split -l 1 -a 3 - f)
            sync; rm mnt/d/*[aceg]; head -c 3000000 /dev/urandom > mnt/big; sync
            python3 -c 'import fcntl,os,struct; fcntl.ioctl(os.open("mnt", os.O_RDONLY), 0x8004587D, struct.pack("I", 1))'
            """)
        return (folder, image)
    }

    /// The records from the log's tail to its head.
    static func records(_ log: XFSLog) throws -> [XFSLogRecord] {
        let head = try log.head()
        var result: [XFSLogRecord] = []
        var place = head.last.tail & 0xFFFF_FFFF
        while place != head.block % log.count {
            let record = try XFSLogRecord(
                try log.blocks(place, 1).fields, at: place, round: head.round(of: place), uuid: log.uuid)
            result.append(record)
            place = (place + record.blocks) % log.count
        }
        return result
    }

    /// Makes the checksum of a record right.
    static func mend(_ bytes: inout [UInt8], _ record: XFSLogRecord) {
        var counted = Array(bytes[..<328])
        for index in 32..<36 { counted[index] = 0 }
        for index in 1..<max(1, Int((record.length + 32_767) / 32_768)) {
            counted += bytes[index * 512..<index * 512 + 260]
        }
        let start = Int(record.headers) * 512
        counted += bytes[start..<start + Int(record.length)]
        let check = CRC32.castagnoli.checksum(counted)
        for index in 0..<4 { bytes[32 + index] = UInt8(truncatingIfNeeded: check >> UInt32(8 * index)) }
    }

    @Test func aChangedLogMakesItWhole() throws {
        let (folder, image) = try Self.crashed()
        let source = try FileSource(path: image)
        let sound = try FilesystemMaps.map(source)
        #expect(sound.wholeBecause == nil, "\(sound.wholeBecause ?? "")")
        let log = try XFSLog(source, XFSSuperblock(parsing: source.bytes(at: .zero, count: 512)))
        for record in try Self.records(log) {
            let place = (log.place.start + ByteCount((record.place + record.headers) * 512 + 20)).bytes
            let old = try source.bytes(at: ByteCount(place), count: 1)
            try poke(image, place, [old[0] ^ 1])
            let map = try FilesystemMaps.map(source)
            #expect(map.wholeBecause?.contains("at block \(record.place) of its log is damaged") == true)
            #expect(map.states == [.journalToReplay, .damaged])
            #expect(map.used.byteCount == .mebibytes(320))
            try poke(image, place, old)
        }
        #expect(try FilesystemMaps.map(source) == sound)
        withExtendedLifetime(folder) {}
    }

    /// New kernels do not mount version 4, so the record of the unmount is made another.
    @Test func version4IsWhole() throws {
        let folder = try ScratchFolder()
        let image = try XFSTests.empty(XFSTests.Shape(options: ["-m", "crc=0"]), in: folder)
        let source = try FileSource(path: image)
        let log = try XFSLog(source, XFSSuperblock(parsing: source.bytes(at: .zero, count: 512)))
        let last = try log.head().last
        try poke(image, (log.place.start + ByteCount((last.place + last.headers) * 512 + 9)).bytes, [0])
        let map = try FilesystemMaps.map(source)
        XFSTests.expectWhole(map, [.journalToReplay], "version 4")
    }

    /// A filesystem that was grown and lost its power before the superblock was written.
    @Test(.enabled(if: Tool("xfs_growfs", package: "xfsprogs").path != nil, "xfs_growfs is needed"))
    func aResizeInTheLogMakesItWhole() throws {
        let folder = try ScratchFolder()
        let image = try XFSTests.empty(XFSTests.Shape(options: ["-d", "size=300m"]), in: folder)
        try XFSTests.mounted(
            image, in: folder,
            """
            set -e; echo x > mnt/file; sync; xfs_growfs mnt >/dev/null
            python3 -c 'import fcntl,os,struct; fcntl.ioctl(os.open("mnt", os.O_RDONLY), 0x8004587D, struct.pack("I", 1))'
            """)
        let map = try FilesystemMaps.map(try FileSource(path: image))
        XFSTests.expectWhole(map, [.journalToReplay], "its size")
    }
}
