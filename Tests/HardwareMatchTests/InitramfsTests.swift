// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import TestSupport
import Testing
import Tools

@testable import HardwareMatch

/// Initramfs images made by cpio and the packers themselves.
@Suite struct InitramfsTests {
    /// A file made by a shell script.
    static func make(_ script: String) throws -> [UInt8] {
        var template = Array("/tmp/relight-hardware-XXXXXX".utf8CString)
        try #require(unsafe mkdtemp(&template) != nil)
        let folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let common = """
            archive() { (cd "$1" && find . -mindepth 1 | LC_ALL=C sort | cpio -o -H newc --quiet); }
            mkdir -p early/kernel/x86/microcode main/usr/lib/modules/6.1/kernel main/etc more/usr/lib/modules/6.1/kernel
            echo code > early/kernel/x86/microcode/GenuineIntel.bin
            for n in ahci libahci usb-storage; do echo $n > main/usr/lib/modules/6.1/kernel/$n.ko; done
            head -c 100000 /dev/urandom > main/large; ln -s usr/lib main/lib; echo one > main/etc/conf; echo x > main/e
            echo nvme > more/usr/lib/modules/6.1/kernel/nvme.ko.xz; mkdir more/etc; echo two > more/etc/conf
            """
        try Tool("bash", package: "bash").check(["-euo", "pipefail", "-c", common + "\n" + script], directory: folder)
        return Array(try Data(contentsOf: URL(filePath: folder + "/out")))
    }

    static func canPack(_ tool: String) -> Bool {
        Tool(tool, package: tool).path != nil && Tool("cpio", package: "cpio").path != nil
    }

    @Test(arguments: [
        ("gzip -9", InitramfsImage.Packing.gzip), ("xz --check=crc32", .xz), ("xz --format=lzma", .lzma),
        ("zstd -q -19", .zstd), ("lz4 -q -l", .lz4), ("cat", .none),
    ])
    func everyPackingIsReadWithWhatFollowsIt(packer: String, packing: InitramfsImage.Packing) throws {
        try #require(Self.canPack("cpio"))
        let tool = String(packer.prefix { $0 != " " })
        guard Self.canPack(tool) else {
            print("\(tool) is not installed: this packing was not tried.")
            return
        }
        let file = try Self.make(
            """
            archive early > out; truncate -s %512 out
            archive main | \(packer) >> out; truncate -s %4 out
            archive more | gzip -n >> out
            """)
        let image = try InitramfsImage(file, place: "initrd") { $0.hasPrefix("etc/") }
        #expect(image.parts.map(\.packing) == [.none, packing, .gzip] && image.unread == nil)
        #expect(image.parts.map(\.entries) == [4, 13, 8])
        #expect(
            image.modules(of: "6.1") == ["ahci", "libahci", "usb_storage", "nvme"] && image.modules(of: "6.2").isEmpty)
        // Later files win, links keep their targets, other contents are not kept.
        #expect(image.entries["etc/conf"]?.content == Array("two\n".utf8))
        #expect(image.entries["lib"]?.content == Array("usr/lib".utf8) && image.entries["lib"]?.isLink == true)
        #expect(image.entries["large"]?.size == 100_000 && image.entries["large"]?.content == nil)
        #expect(image.entries["kernel/x86/microcode/GenuineIntel.bin"]?.isFile == true)
    }

    @Test func anArchiveThatIsCutOffIsDamaged() throws {
        try #require(Self.canPack("cpio"))
        for packer in ["gzip", "xz", "zstd -q", "cat"] where Self.canPack(String(packer.prefix { $0 != " " })) {
            let file = try Self.make("archive main | \(packer) > out")
            for part in [10, 3, 2] {
                let cut = Array(file[..<(file.count - file.count / part)])
                let fault = try #require(throws: Fault.self) { try InitramfsImage(cut, place: "initrd") }
                #expect(fault.code == .initramfsDamaged && fault.place == "initrd", "\(packer) \(part)")
            }
        }
    }

    @Test func whatIsNoArchiveIsSaidSo() throws {
        #expect(try InitramfsImage([], place: "x").entries.isEmpty)
        #expect(try InitramfsImage([UInt8](repeating: 0, count: 1000), place: "x").entries.isEmpty)
        #expect(throws: Fault.self) { try InitramfsImage(Array("hello, world".utf8), place: "x") }
        let file = try Self.make("archive main | gzip > out; printf 'BZh91AY' >> out")
        #expect(try InitramfsImage(file, place: "x").unread?.contains("bzip2") == true)
        let other = try Self.make("archive main | gzip > out; printf 'rubbish!' >> out")
        #expect(try InitramfsImage(other, place: "x").unread?.contains("no archive") == true)
    }

    @Test func randomChangesNeverEndTheProgram() throws {
        let file = try Self.make("rm main/large; archive early > out; archive main | gzip >> out; archive more >> out")
        var random = Seeded(9)
        var read = 0
        for _ in 0..<5_000 where (try? InitramfsImage(random.mutated(file), place: "x") { _ in true }) != nil {
            read += 1
        }
        #expect(read > 50 && read < 5_000)
    }
}
