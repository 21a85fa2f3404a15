// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import TestSupport
import Testing
import Tools

@testable import HardwareMatch

/// A kernel's module index, and what follows from it.
@Suite struct ModuleIndexTests {
    static let index = ModuleIndex(
        .init(
            dependencies: """
                kernel/drivers/block/virtio_blk.ko.xz:
                kernel/drivers/ata/ahci.ko: kernel/drivers/ata/libahci.ko kernel/drivers/ata/libata.ko kernel/drivers/scsi/scsi_mod.ko
                kernel/drivers/ata/libahci.ko: kernel/drivers/ata/libata.ko kernel/drivers/scsi/scsi_mod.ko
                kernel/drivers/ata/libata.ko: kernel/drivers/scsi/scsi_mod.ko
                kernel/drivers/scsi/scsi_mod.ko:
                kernel/drivers/usb/storage/usb-storage.ko.zst: kernel/drivers/scsi/scsi_mod.ko
                kernel/loop/a.ko: kernel/loop/b.ko
                kernel/loop/b.ko: kernel/loop/a.ko
                kernel/fs/ext4/ext4.ko:
                kernel/lib/crc32c.ko:
                """,
            aliases: """
                # Aliases extracted from modules themselves.
                alias virtio:d00000002v* virtio_blk
                alias pci:v*d*sv*sd*bc01sc06i01* ahci
                alias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* usb_storage
                alias dmi*:svn*A B*: a
                """,
            builtIn: "kernel/drivers/nvme/host/nvme.ko\n",
            builtInInfo: "nvme.license=GPL\0nvme.alias=pci:v*d*sv*sd*bc01sc08i02*\0ext-2.alias=fs-ext2\0",
            soft: "softdep ext4 pre: crc32c\n"))

    @Test func devicesFindTheirDrivers() {
        #expect(Self.index.drivers(of: "virtio:d00000002v00001AF4") == [.module("virtio_blk")])
        #expect(Self.index.drivers(of: "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01") == [.module("ahci")])
        #expect(Self.index.drivers(of: "pci:v00001B36d00000010sv0sd0bc01sc08i02") == [.builtIn("nvme")])
        #expect(Self.index.drivers(of: "fs-ext2") == [.builtIn("ext_2")])
        #expect(Self.index.drivers(of: "dmi:bvn:svnA B:") == [.module("a")])
        #expect(Self.index.drivers(of: "pci:").isEmpty && Self.index.drivers(of: "").isEmpty)
    }

    @Test func whatAModuleNeedsComesBeforeIt() {
        #expect(Self.index.closure("ahci") == ["scsi_mod", "libata", "libahci", "ahci"])
        #expect(Self.index.closure("usb-storage") == ["scsi_mod", "usb_storage"])
        #expect(Self.index.closure("ext4") == ["crc32c", "ext4"])
        #expect(Self.index.closure("ext4", companions: false) == ["ext4"])
        #expect(Set(Self.index.closure("a")) == ["a", "b"])
        #expect(Self.index.closure("nvme").isEmpty && Self.index.closure("none").isEmpty)
    }

    @Test func theBestDriverDecides() {
        let ahci = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"
        func verdict(_ modalias: String, _ initramfs: Set<String>, _ blacklist: Set<String> = []) -> DriverVerdict {
            DriverVerdict(of: modalias, Self.index, initramfs: initramfs, blacklist: blacklist)
        }
        #expect(verdict(ahci, []) == .onDisk("ahci"))
        #expect(verdict(ahci, ["ahci", "libahci"]) == .incomplete("ahci", missing: ["scsi_mod", "libata"]))
        #expect(verdict(ahci, ["ahci", "libahci", "libata", "scsi_mod"]) == .inInitramfs("ahci"))
        #expect(verdict(ahci, ["ahci", "libahci", "libata", "scsi_mod"], ["ahci"]) == .blacklisted(["ahci"]))
        #expect(verdict("pci:v1d1sv0sd0bc01sc08i02", []) == .builtIn("nvme"))
        #expect(verdict("pci:v1d1sv0sd0bc02sc00i00", []) == .none)
        #expect(verdict(ahci, []).isReady == false && verdict("pci:v1d1sv0sd0bc01sc08i02", []).isReady)
    }

    @Test func namesAreThoseTheKernelKeeps() {
        #expect(ModuleIndex.name(of: "kernel/drivers/usb/storage/usb-storage.ko.zst") == "usb_storage")
        #expect(ModuleIndex.name(of: "a-b.ko") == "a_b" && ModuleIndex.name(of: "") == "")
    }
}

/// The index of a real kernel, where the medium's builder has left one, compared with modprobe.
@Suite struct RealKernelTests {
    /// The folder that holds `lib/modules/VERSION`, and the version.
    static let kernel: (root: String, version: String)? = {
        let repository = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let cache = repository + "/build/cache/media"
        for name in (try? FileManager.default.contentsOfDirectory(atPath: cache)) ?? []
        where name.hasPrefix("module-index-") {
            let root = "\(cache)/\(name)"
            if let version = try? FileManager.default.contentsOfDirectory(atPath: root + "/lib/modules").first {
                return (root, version)
            }
        }
        return nil
    }()
    static let canRun = kernel != nil && Tool("modprobe", package: "kmod").path != nil

    static func text(_ path: String) throws -> String {
        String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
    }

    @Test(.enabled(if: canRun, "needs kmod, and a module index that building the medium leaves"))
    func theDriversAreThoseThatModprobeFinds() throws {
        let kernel = try #require(Self.kernel)
        let folder = "\(kernel.root)/lib/modules/\(kernel.version)/"
        let aliases = try Self.text(folder + "modules.alias")
        let index = ModuleIndex(
            .init(
                dependencies: try Self.text(folder + "modules.dep"), aliases: aliases,
                builtIn: try Self.text(folder + "modules.builtin"),
                builtInInfo: try Self.text(folder + "modules.builtin.modinfo"),
                soft: (try? Self.text(folder + "modules.softdep")) ?? ""))
        let patterns = aliases.split(separator: "\n").filter {
            $0.hasPrefix("alias ") && $0.split(separator: " ").count == 3
        }
        try #require(patterns.count > 5000)
        var random = Seeded(5)
        var found = 0
        for _ in 0..<150 {
            // A device the pattern names: what is left open filled with digits.
            let pattern = String(patterns.randomElement(using: &random)?.split(separator: " ")[1] ?? "")
            if pattern.contains(where: { "[?\\".contains($0) }) { continue }
            let name = pattern.replacing("*", with: "0")
            let said = try Tool("modprobe", package: "kmod").run(["-S", kernel.version, "-d", kernel.root, "-R", name])
            let expected = Set(said.standardOutput.split(separator: "\n").map { ModuleIndex.normal($0) })
            // modprobe leaves out what is inside the kernel, where it knows.
            let modules = Set(index.drivers(of: name).map(\.name))
            #expect(modules.subtracting(index.builtIn) == expected.subtracting(index.builtIn), "\(name)")
            if !expected.isEmpty { found += 1 }
        }
        #expect(found > 80)
    }
}
