// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemMaps
import Findings
import Geometry
import MachineModel
import Testing
import Tools
import VolumeStacks

@testable import DiskSurvey

/// An encrypted volume made by cryptsetup; what is in it is encrypted by Python's cryptography, since dm-crypt needs the
/// kernel.
final class LUKSDisk {
    let disk: ScratchDisk
    let folder: ScratchFolder
    let passphrase = "correct horse"
    private let keyFile: String
    private(set) var payload: UInt64 = 0
    private let sector: Int
    private let bits: Int
    let uuid: String

    init(_ size: ByteCount, _ options: [String], sector: Int = 512, bits: Int = 512) throws {
        disk = try ScratchDisk(size)
        folder = try ScratchFolder()
        self.sector = sector
        self.bits = bits
        keyFile = try folder.write("passphrase", passphrase)
        try cryptsetup.check(
            [
                "luksFormat", "-q", "--key-size", "\(bits)", "--pbkdf-force-iterations",
                options.contains("argon2id") ? "4" : "1000",
            ]
                + options + [disk.path, keyFile])
        let dump = try cryptsetup.check(["luksDump", "-q", "--dump-volume-key", "--key-file", keyFile, disk.path])
        var key = ""
        var isKey = false
        for line in dump.standardOutput.split(separator: "\n") {
            if line.hasPrefix("Payload offset:") {
                payload = (UInt64(line.split(separator: "\t").last ?? "") ?? 0) * 512
            }
            if line.hasPrefix("MK dump:") { isKey = true }
            if isKey { key += line.split(separator: "\t").last.map { $0.filter { $0 != " " } } ?? "" }
        }
        volumeKey = key
        uuid = try cryptsetup.check(["luksUUID", disk.path]).standardOutput.trimmingCharacters
    }
    let volumeKey: String

    /// `encrypt` or `decrypt` the payload from or to a file.
    private func crypt(_ mode: String, _ file: String, on path: String) throws {
        let script = """
            import sys
            from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
            mode, key, sector, payload, disk, plain = sys.argv[1:]
            key, sector, payload = bytes.fromhex(key), int(sector), int(payload)
            source, target = (plain, disk) if mode == "encrypt" else (disk, plain)
            with open(source, "rb") as s, open(target, "r+b") as t:
                (t if mode == "encrypt" else s).seek(payload)
                number = 0
                while True:
                    block = s.read(sector)
                    if len(block) < sector: break
                    c = Cipher(algorithms.AES(key), modes.XTS(number.to_bytes(16, "little")))
                    x = c.encryptor() if mode == "encrypt" else c.decryptor()
                    t.write(x.update(block) + x.finalize())
                    number += sector // 512
            """
        try python.check(["-c", script, mode, volumeKey, "\(sector)", "\(payload)", path, file])
    }

    /// Puts the encrypted form of `content` into the payload.
    func fill(_ content: ScratchDisk) throws { try crypt("encrypt", content.path, on: disk.path) }

    /// What is in the payload of a copy of the disk.
    func content(_ copy: ScratchDisk) throws -> ScratchDisk {
        let result = try ScratchDisk(ByteCount(disk.size.bytes - payload))
        try crypt("decrypt", result.path, on: copy.path)
        return result
    }

    func look(_ secrets: [String: String] = [:], _ disk: ScratchDisk? = nil) throws -> SurveyedDisk {
        try DiskSurvey.look(
            at: [DiskToSurvey(try FileSource(path: (disk ?? self.disk).path), path: "disk")],
            unlocking: Unlocking(secrets.mapValues { Array($0.utf8) }))[0]
    }
}

extension String {
    fileprivate var trimmingCharacters: String { filter { !$0.isWhitespace } }
}

extension ScratchDisk {
    /// Whether the file holds the bytes of `text`.
    func holds(_ text: String) throws -> Bool {
        try Tool("grep", package: "grep").run(["-a", "-q", "-F", "-e", text, path]).status == 0
    }
}

@Suite(.enabled(if: haveLUKS, "e2fsprogs, cryptsetup and python3 are needed"))
struct LUKSLayerTests {
    static let mark = "the-plaintext-that-must-not-appear"

    @Test(
        arguments: [
            (["--type", "luks2", "--sector-size", "512", "--pbkdf", "pbkdf2"], 512, 512),
            (["--type", "luks1"], 512, 512),
            (["--type", "luks1"], 512, 256),
            (["--type", "luks2", "--pbkdf", "argon2id", "--pbkdf-memory", "65536"], 4096, 512),
        ])
    func anUnlockedVolumeIsImagedByTheSectorsInUseAndStaysEncrypted(options: [String], sector: Int, bits: Int) throws {
        let volume = try LUKSDisk(
            .mebibytes(80), options + (sector == 4096 ? ["--sector-size", "4096"] : []), sector: sector, bits: bits)
        let tree = try Content.tree(volume.folder, mark: Self.mark)
        let size = ByteCount(volume.disk.size.bytes - volume.payload)
        let plain = try Content.ext4(size, tree)
        try volume.fill(plain)
        try #require(try plain.holds(Self.mark))
        try #require(try !volume.disk.holds(Self.mark))
        let before = try volume.disk.hash

        let locked = try volume.look()
        #expect(locked.volumes[0].map.wholeBecause?.contains("locked") == true)
        #expect(locked.used.byteCount == .mebibytes(80))
        #expect(locked.nested.isEmpty)

        let seen = try volume.look(["disk": volume.passphrase])
        let inner = try #require(seen.nested["luks-\(volume.uuid)"])
        #expect(inner.kind == .ext4 && inner.layout == "crypt" && inner.states == [.clean])
        #expect(seen.volumes[0].map.wholeBecause == nil)
        #expect(seen.model.findings.map(\.code) == ["luks.pattern-visible"])
        #expect(seen.used.covers(Extent(from: .zero, to: ByteCount(volume.payload))))
        #expect(seen.used.byteCount < ByteCount(volume.payload) + .mebibytes(16))
        let copy = try volume.disk.restored(seen.used)
        #expect(try !copy.holds(Self.mark))
        #expect(try Content.isWhole(volume.content(copy), tree, volume.folder))
        // cryptsetup opens the copy.
        let key = try volume.folder.write("again", volume.passphrase)
        try cryptsetup.check(["open", "--test-passphrase", "--key-file", key, copy.path])
        #expect(try volume.disk.hash == before)
    }

    @Test func itIsFoundByItsUUIDAndByAPassphraseFileWithALineEnd() throws {
        let volume = try LUKSDisk(.mebibytes(40), ["--type", "luks2", "--sector-size", "512", "--pbkdf", "pbkdf2"])
        #expect(try volume.look([volume.uuid: volume.passphrase + "\n"]).nested.count == 1)
        let unlocking = Unlocking(["other": [1]])
        _ = try DiskSurvey.look(at: [DiskToSurvey(try FileSource(path: volume.disk.path))], unlocking: unlocking)
        #expect(unlocking.unused == ["other"])
    }

    @Test func aWrongPassphraseIsSaid() throws {
        let volume = try LUKSDisk(.mebibytes(40), ["--type", "luks2", "--sector-size", "512", "--pbkdf", "pbkdf2"])
        let fault = #expect(throws: Fault.self) { try volume.look(["disk": "wrong"]) }
        #expect(fault?.code == .wrongKey)
        #expect(fault?.place == "disk")
    }

    @Test func oneOfTwoHeadersIsEnough() throws {
        let volume = try LUKSDisk(.mebibytes(40), ["--type", "luks2", "--sector-size", "512", "--pbkdf", "pbkdf2"])
        try volume.disk.poke(4096 + 100, [0xFF])
        let seen = try volume.look()
        #expect(seen.model.findings.contains { $0.code == "luks.damaged" })
        #expect(seen.volumes[0].map.wholeBecause?.contains("locked") == true)
        try volume.disk.poke(16384 + 4096 + 100, [0xFF])
        #expect(
            try volume.look(["disk": volume.passphrase]).volumes[0].map.wholeBecause?.contains("Both copies") == true)
    }

    @Test(
        arguments: [
            ["--type", "luks2", "--pbkdf", "pbkdf2", "--cipher", "serpent-xts-plain64"],
            ["--type", "luks1", "--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"],
        ])
    func otherCiphersAreWhole(options: [String]) throws {
        let disk = try ScratchDisk(.mebibytes(40))
        let folder = try ScratchFolder()
        let key = try folder.write("k", "x")
        // The kernel's ciphers are not here; cryptsetup may need them to write the key slot.
        guard
            try cryptsetup.run(
                ["luksFormat", "-q", "--pbkdf-force-iterations", "1000"] + options + [disk.path, key]
            ).status == 0
        else { return }
        let seen = try DiskSurvey.look(
            at: [DiskToSurvey(try FileSource(path: disk.path), path: "disk")], unlocking: Unlocking(["disk": [0x78]]))
        #expect(seen[0].volumes[0].map.wholeBecause?.contains("not read here") == true)
        #expect(seen[0].used.byteCount == .mebibytes(40))
    }

    @Test func aVolumeThatIsBeingEncryptedAnewIsWhole() throws {
        let volume = try LUKSDisk(.mebibytes(80), ["--type", "luks2", "--sector-size", "512", "--pbkdf", "pbkdf2"])
        let key = try volume.folder.write("p", volume.passphrase)
        let begun = try cryptsetup.run([
            "reencrypt", "-q", "--init-only", "--key-file", key, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations",
            "1000",
            volume.disk.path,
        ])
        try #require(begun.status == 0, "\(begun.lastLine)")
        let seen = try volume.look(["disk": volume.passphrase])
        #expect(seen.volumes[0].map.wholeBecause?.contains("anew") == true)
        #expect(seen.used.byteCount == .mebibytes(80))
    }

    @Test(.enabled(if: haveLVM, "root, loop devices and lvm2 are needed"))
    func anEncryptedLogicalVolumeAndAPhysicalVolumeInAnEncryptedOne() throws {
        let inner = try LUKSDisk(.mebibytes(60), ["--type", "luks2", "--sector-size", "512", "--pbkdf", "pbkdf2"])
        let tree = try Content.tree(inner.folder, mark: Self.mark)
        try inner.fill(Content.ext4(.mebibytes(44), tree))
        // LUKS in a logical volume.
        let disks = try LVMDisks()
        try disks.create("crypt", ["-l", "60"], on: [1])
        try disks.fill("vg0/crypt", inner.disk)
        let seen = try disks.look(Unlocking(["vg0/crypt": Array(inner.passphrase.utf8)]))
        let nested = seen[1].nested
        #expect(nested["vg0/crypt"]?.memberOf?.format == "LUKS2")
        #expect(nested["luks-\(inner.uuid)"]?.kind == .ext4)
        #expect(seen[1].used.byteCount < .mebibytes(36))
        let copy = try disks.content("vg0/crypt", disks.restored(seen), .mebibytes(60))
        #expect(try Content.isWhole(inner.content(copy), tree, inner.folder))

        // A physical volume in LUKS: the disk of the other group, with a filesystem, encrypted as a whole.
        let outer = try LUKSDisk(.mebibytes(136), ["--type", "luks2", "--sector-size", "512", "--pbkdf", "pbkdf2"])
        let plain = try ScratchDisk(.mebibytes(120))
        let loop = try Loop(plain)
        let tools = try LVMTools([loop])
        try tools.run(["pvcreate", "-q", "-ff", "-y", loop.path])
        try tools.run(["vgcreate", "-q", "-s", "1m", "vg9", loop.path])
        try tools.run(["lvcreate", "-q", "-an", "-Zn", "-Wn", "-n", "home", "-l", "50", "vg9"])
        let home = try Content.ext4(.mebibytes(50), tree)
        for piece in try tools.pieces("vg9/home") {
            try plain.copy(home.path, at: piece.offset, piece.count, to: piece.place)
        }
        try outer.fill(plain)
        let both = try outer.look(["disk": outer.passphrase])
        #expect(both.nested["luks-\(outer.uuid)"]?.memberOf?.name == "vg9")
        #expect(both.nested["vg9/home"]?.kind == .ext4)
        #expect(both.used.byteCount < .mebibytes(34))
        let back = try outer.content(outer.disk.restored(both.used))
        let part = try ScratchDisk(.mebibytes(50))
        for piece in try tools.pieces("vg9/home") {
            try part.copy(back.path, at: piece.place, piece.count, to: piece.offset)
        }
        #expect(try Content.isWhole(part, tree, outer.folder))
    }
}
