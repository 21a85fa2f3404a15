// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import Glibc
import MachineModel
import Tools

@testable import PartitionTables

let sgdisk = Tool("sgdisk", package: "gdisk")
let sfdisk = Tool("sfdisk", package: "fdisk")
let parted = Tool("parted", package: "parted")
let losetup = Tool("losetup", package: "mount")

/// Whether loop devices can be made here.
let haveLoop = unsafe access("/dev/loop-control", W_OK) == 0 && losetup.path != nil && geteuid() == 0

/// A file that goes away with the value.
final class ScratchFile {
    let path: String

    init(_ size: ByteCount) throws {
        var template = Array("/tmp/relight-tables-XXXXXX.img".utf8CString)
        let descriptor = unsafe mkstemps(&template, 4)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard descriptor >= 0, ftruncate(descriptor, off_t(size.bytes)) == 0 else {
            throw Fault(.system, what: "no scratch file", remedy: "")
        }
        close(descriptor)
    }

    deinit { unsafe unlink(path) }

    /// Reads the table with the sector size given.
    func reading(_ size: SectorSize = .s512) throws -> TableReading {
        try TableReader.read(try FileSource(path: path, fileSectorSize: size))
    }

    /// Writes the bytes of `table` and reads them back.
    func write(_ table: PartitionTable) throws {
        let disk = try WritableDisk(claiming: path, fileSectorSize: table.sectorSize)
        let image = try TableWriter.image(of: table)
        try image.write(to: disk.blocks)
        try image.verify(on: disk.blocks)
        try disk.finish()
    }

    /// Changes bytes of the file.
    func poke(_ offset: UInt64, _ bytes: [UInt8]) throws {
        let disk = try WritableDisk(claiming: path)
        try disk.blocks.write(at: ByteCount(offset), unsafe bytes.span.bytes)
        try disk.finish()
    }

    func bytes(_ offset: UInt64, _ count: Int) throws -> [UInt8] {
        try FileSource(path: path).bytes(at: ByteCount(offset), count: count)
    }
}

/// Attaches a file as a block device with a sector size, and detaches it afterwards.
func withLoop<R>(_ file: ScratchFile, sectorSize: Int, _ body: (String) throws -> R) throws -> R {
    let device =
        try losetup.check(["--find", "--show", "--sector-size", "\(sectorSize)", file.path]).standardOutput
        .split(separator: "\n").first.map(String.init) ?? ""
    defer {
        // Partitions the kernel was told of outlive the loop device's file.
        _ = try? Tool("partx", package: "util-linux").run(["--delete", device])
        _ = try? losetup.run(["--detach", device])
    }
    return try body(device)
}

/// sgdisk's own check says that there is nothing to complain about.
func sgdiskIsContent(_ path: String) throws -> Bool {
    try sgdisk.check(["-v", path]).standardOutput.contains("No problems found")
}

let linux = GUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
let esp = GUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")

/// A GPT with an ESP, a hole in the numbers, a long name and attribute bits.
let gptScript = """
    label: gpt
    label-id: 11111111-2222-3333-4444-555555555555
    first-lba: 34
    1 : start=2048, size=8192, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=AAAAAAAA-0000-4000-8000-000000000001, name="EFI System Partition"
    3 : start=10240, size=20480, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=AAAAAAAA-0000-4000-8000-000000000003, name="rööt, Wörter bis sechsunddreißig Zei", attrs="RequiredPartition LegacyBIOSBootable GUID:60,63"
    4 : start=34, size=2014, type=21686148-6449-6E6F-744E-656564454649, uuid=AAAAAAAA-0000-4000-8000-000000000004

    """

/// Two primaries, an extended partition of three logicals.
let mbrScript = """
    label: dos
    label-id: 0x1badf00d
    1 : start=2048, size=8192, type=83, bootable
    2 : start=10240, size=2048, type=82
    3 : start=12288, size=40960, type=5
    5 : start=14336, size=4096, type=83
    6 : start=20480, size=4096, type=8e
    7 : start=26624, size=8192, type=c

    """

/// A disk file partitioned by sfdisk.
func partitioned(_ script: String, _ size: ByteCount = .mebibytes(64)) throws -> ScratchFile {
    let file = try ScratchFile(size)
    try sfdisk.check(["--no-reread", "--no-tell-kernel", "-q", file.path], input: Array(script.utf8))
    return file
}
