// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import ImageStore
import MachineModel
import Testing

/// The independent reader and what it needs.
enum Judge {
    static let script: String = {
        let parts = #filePath.split(separator: "/").dropLast(2)
        return "/" + parts.joined(separator: "/") + "/Judges/read_set.py"
    }()

    static func run(_ command: String) -> Int32 {
        let status = unsafe system(command)
        return status == -1 ? -1 : (status >> 8) & 0xFF
    }

    static let canDecrypt = run("/usr/bin/python3 -c 'import cryptography' 2>/dev/null") == 0

    static let canRun =
        run("/usr/bin/python3 -c 'import zstandard' 2>/dev/null") == 0
        || run("/usr/bin/python3 -c 'import ctypes; ctypes.CDLL(\"libzstd.so.1\")' 2>/dev/null") == 0
        || run("/usr/bin/python3 -c 'pass' 2>/dev/null && zstd --version >/dev/null 2>&1") == 0
}

/// The independent reader `Tests/Judges/read_set.py` restores what the program stored, knowing docs/image-format.md only.
@Suite(.enabled(if: Judge.canRun, "needs python3, and the module zstandard, libzstd.so.1 or the program zstd"))
struct JudgeTests {
    static func file(_ path: String) throws -> [UInt8] {
        let handle = try #require(try FolderStore(path: "/").open(String(path.dropFirst())))
        var bytes = [UInt8](repeating: 0, count: Int(handle.size.bytes))
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        try handle.read(at: .zero, into: &raw)
        return bytes
    }

    static func write(_ bytes: [UInt8], to path: String) throws {
        let file = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        try #require(file >= 0)
        #expect(unsafe Glibc.write(file, bytes, bytes.count) == bytes.count)
        close(file)
    }

    @Test(
        arguments: [ByteCount.kibibytes(64), .kibibytes(16)],
        [nil, NewEncryption.Cipher.aes256, NewEncryption.Cipher.aes128])
    func anIndependentReaderRestoresTheSameBytes(unitSize: ByteCount, cipher: NewEncryption.Cipher?) throws {
        if cipher != nil, !Judge.canDecrypt { try Test.cancel("needs Python's module cryptography") }
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        // One disk: two volumes with maps, and the rest of the disk; several pages; duplicates; a second point.
        let size = 72 << 20
        var disk = [UInt8](repeating: 0, count: size)
        let pattern = Sample.content(3 << 20, seed: 71)
        for place in stride(from: 0, to: size - pattern.count, by: pattern.count * 2 + 12_345) {
            disk.replaceSubrange(place..<place + pattern.count, with: pattern)
        }
        let volumes = [
            Extent(from: .mebibytes(1), to: .mebibytes(40)),
            Extent(from: .mebibytes(41), to: ByteCount(UInt64(size) - 1000)),
        ]
        let maps = [
            ExtentList(
                (0..<300).map { Extent(from: ByteCount($0 * 130_000 + 17), to: ByteCount($0 * 130_000 + 100_001)) }),
            ExtentList(Extent(from: .zero, to: volumes[1].length)),
        ]
        let store = FolderStore(path: folder + "/set")
        let passphrase = Array("ein ganz langes Wort: äöü".utf8)
        let keys = KeyRing(.passphrase(Secret(passphrase)))
        try Self.write(passphrase + [10], to: folder + "/passphrase")
        let key = cipher == nil ? "" : "--passphrase-file '\(folder)/passphrase'"
        var expected: [UInt8] = []
        for round in 0..<2 {
            disk[50 << 20] = UInt8(round + 1)
            expected = [UInt8](repeating: 0, count: size)
            let encryption = cipher.map { NewEncryption($0, cost: 10) }
            let writer = try SetWriter(store, options: .init(unitSize: unitSize, encryption: encryption), keys: keys)
            let worker = try UnitWorker(writer)
            let rest = ExtentList([
                Extent(from: .zero, to: .mebibytes(1)), Extent(from: .mebibytes(40), to: .mebibytes(41)),
                Extent(from: ByteCount(UInt64(size) - 1000), to: ByteCount(UInt64(size))),
            ])
            let streams = [
                StreamDescription(
                    disk: 0, kind: .remainder, extent: Extent(from: .zero, to: ByteCount(UInt64(size))), used: rest),
                StreamDescription(disk: 0, kind: .volume(1), extent: volumes[0], used: maps[0]),
                StreamDescription(disk: 0, kind: .volume(2), extent: volumes[1], used: maps[1]),
            ]
            for description in streams {
                let stream = try writer.beginStream(description)
                while let piece = stream.nextPiece() {
                    let start = Int((description.extent.start + piece.extent.start).bytes)
                    var bytes = Array(disk[start..<start + Int(piece.extent.length.bytes)])
                    var span = bytes.mutableSpan
                    var raw = unsafe span.mutableBytes
                    try worker.add(piece, of: stream, &raw)
                }
                for extent in description.used.extents {
                    let start = Int((description.extent.start + extent.start).bytes)
                    let range = start..<start + Int(extent.length.bytes)
                    expected.replaceSubrange(range, with: disk[range])
                }
            }
            var facts = Sample.facts("round \(round)")
            facts.disks = [DiskModel(path: "/dev/sda", size: ByteCount(UInt64(size)), sectorSize: .s512)]
            _ = try writer.commit(facts)
        }
        let out = folder + "/out"
        #expect(unsafe mkdir(out, 0o755) == 0)
        #expect(Judge.run("/usr/bin/python3 '\(Judge.script)' \(key) restore '\(folder)/set' latest '\(out)'") == 0)
        #expect(try Self.file(out + "/disk0.img") == expected)
        #expect(Judge.run("/usr/bin/python3 '\(Judge.script)' check '\(folder)/set'") == 0)
        #expect(
            Judge.run("/usr/bin/python3 '\(Judge.script)' \(key) list '\(folder)/set' | grep -c round | grep -qx 2")
                == 0)
    }

    @Test func theIndependentReaderRefusesDamage() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let store = FolderStore(path: folder + "/set")
        try Sample.backup([(Sample.content(400_000, seed: 5), nil)], to: store)
        let pack = try #require(try store.list("packs").max { $0.size < $1.size }?.name)
        let file = unsafe open("\(folder)/set/\(pack)", O_RDWR)
        #expect(unsafe pwrite(file, "damage", 6, 5_000) == 6)
        close(file)
        #expect(
            Judge.run("/usr/bin/python3 '\(Judge.script)' restore '\(folder)/set' latest '\(folder)' 2>/dev/null") == 1)
        #expect(Judge.run("/usr/bin/python3 '\(Judge.script)' check '\(folder)/set' 2>/dev/null") == 1)
    }
}
