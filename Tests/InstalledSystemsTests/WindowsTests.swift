// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import MachineModel
import TestSupport
import Testing

@testable import InstalledSystems

@Suite struct WindowsTests {
    static func windows(_ folder: String = "Windows") -> MemoryTree {
        let tree = MemoryTree(isCaseSensitive: false)
        tree.put("\(folder)/System32/config/SYSTEM", HiveMaker.system())
        tree.put("\(folder)/System32/config/SOFTWARE", HiveMaker.software())
        tree.put("hiberfil.sys", "\0\0\0\0")
        return tree
    }

    @Test func aWindowsIsKnownByItsHives() throws {
        let esp = MemoryTree(isCaseSensitive: false)
        esp.put("EFI/Microsoft/Boot/BCD", "regf")
        esp.put("EFI/Microsoft/Boot/bootmgfw.efi", efiProgram([(".text", "code")], isSigned: true))
        esp.put("EFI/Boot/bootx64.efi", efiProgram([(".text", "code")], isSigned: true))
        var machine = Machine()
        machine.add("/dev/sda:1", "vfat", esp)
        machine.add("/dev/sda:3", "ntfs", Self.windows())
        let seen = try machine.look()
        #expect(seen.findings.isEmpty, "\(seen.findings)")
        let system = try #require(seen.systems.first?.system)
        #expect(
            system.summary
                == "Windows 10 Pro on /dev/sda:3, x86_64, host OFFICE-7, 22H2 build 19045.3803, ControlSet001, "
                + "boot store for UEFI")
        #expect(system.root == "/Windows" && system.version == "10.0")
        let facts = try #require(system.windows)
        #expect(facts.edition == "Professional" && facts.systemRoot == "C:\\\\Windows" && facts.isServer == false)
        #expect(facts.hasFastStartup == true && facts.isHibernated == false)
        #expect(facts.bootStores == [BootStore(volume: "/dev/sda:1", path: "/EFI/Microsoft/Boot/BCD", firmware: .uefi)])
        let fallback = try #require(seen.programs.map(\.program).first { $0.isFallback })
        #expect(fallback.name == "Windows Boot Manager" && fallback.isSigned && fallback.architecture == "x86_64")
    }

    @Test func anOddlyNamedFolderIsFound() throws {
        var machine = Machine()
        machine.add("/dev/sda:1", "ntfs", Self.windows("WINNT.1"))
        #expect(try machine.look().systems.map(\.system.root) == ["/WINNT.1"])
    }

    @Test(arguments: ["hibr", "HIBR"]) func aHibernatedSessionIsTold(_ head: String) throws {
        let tree = Self.windows()
        tree.put("hiberfil.sys", head + "rest")
        var machine = Machine()
        machine.add("/dev/sda:1", "ntfs", tree)
        let system = try #require(try machine.look().systems.first?.system)
        #expect(system.windows?.isHibernated == true && system.summary.contains("hibernated"))
    }

    @Test func aBrokenHiveIsAFindingAndTheOtherIsRead() throws {
        let tree = Self.windows()
        tree.put("Windows/System32/config/SOFTWARE", [UInt8](repeating: 7, count: 9000))
        var machine = Machine()
        machine.add("/dev/sda:1", "ntfs", tree)
        let seen = try machine.look()
        #expect(seen.systems.first?.system.hostname == "OFFICE-7")
        #expect(seen.systems.first?.system.name == "Windows")
        let finding = try #require(seen.findings.first?.finding)
        #expect(seen.findings.count == 1 && finding.code.hasPrefix("hive."), "\(seen.findings)")
        #expect(finding.place.contains("SOFTWARE"))
    }

    @Test func aMissingHiveIsToldByName() throws {
        let tree = Self.windows()
        tree.files["windows/system32/config/system"] = nil
        var machine = Machine()
        machine.add("/dev/sda:1", "ntfs", tree)
        let seen = try machine.look()
        #expect(seen.systems.first?.system.name == "Windows 10 Pro")
        #expect(seen.findings.map(\.finding.what).contains { $0.contains("SYSTEM is missing") })
    }

    @Test func mutatedHivesDoNoHarm() throws {
        var random = Seeded(11)
        let (system, software) = (HiveMaker.system(), HiveMaker.software())
        for _ in 0..<1500 {
            let tree = Self.windows()
            var changed = random.mutated(system)
            // Length and places behind the base block matter most.
            for _ in 0..<8 {
                changed[Int.random(in: 4096..<changed.count, using: &random)] = random.next() > .max / 2 ? 0xFF : 0
            }
            tree.put("Windows/System32/config/SYSTEM", changed)
            tree.put("Windows/System32/config/SOFTWARE", random.mutated(software))
            var machine = Machine()
            machine.add("/dev/sda:1", "ntfs", tree)
            #expect(try machine.look().systems.count == 1)
        }
    }

    @Test func ofOthersThePartitionsTypeIsTold() throws {
        func partition(_ type: PartitionType) -> Partition {
            Partition(number: 1, first: LBA(64), sectors: 8, type: type)
        }
        let apfs = try #require(GUID("7c3457ef-0000-11aa-aa11-00306543ecac"))
        var machine = Machine()
        machine.add("/dev/sda:2", "apfs", nil, partition: partition(.gpt(apfs)))
        machine.add("/dev/sdb:1", "unknown", nil, disk: 1, partition: partition(.mbr(0xA5)))
        let seen = try machine.look()
        #expect(seen.systems.map(\.system.family) == [.macOS, .bsd])
        #expect(seen.systems.map(\.disk) == [0, 1])
    }
}

@Suite struct EFIProgramTests {
    @Test func shimAndItsCompanionsAreTold() throws {
        let rows =
            "sbat,1,SBAT Version,sbat,1,u\nshim,4,UEFI shim,shim,1,u\nshim.debian,1,Debian,shim,15.8-1~deb12u1,u\n"
        let esp = MemoryTree(isCaseSensitive: false)
        for name in ["shimx64.efi", "mmx64.efi", "fbx64.efi"] {
            esp.put("EFI/debian/\(name)", efiProgram([(".sbat", rows)], isSigned: true))
        }
        esp.put("EFI/BOOT/BOOTAA64.EFI", efiProgram([("mods", "x")], machine: 0xAA64))
        esp.put("EFI/debian/empty.efi", "")
        var machine = Machine()
        machine.add("/dev/sda:1", "vfat", esp)
        let seen = try machine.look()
        let told = seen.programs.map { "\($0.program.path) \($0.program.name ?? "-") \($0.program.version ?? "-")" }
        #expect(
            told == [
                "/EFI/BOOT/BOOTAA64.EFI GRUB -", "/EFI/debian/empty.efi - -",
                "/EFI/debian/fbx64.efi shim fallback 15.8-1~deb12u1", "/EFI/debian/mmx64.efi MokManager 15.8-1~deb12u1",
                "/EFI/debian/shimx64.efi shim 15.8-1~deb12u1",
            ])
        #expect(seen.programs.first?.program.architecture == "aarch64")
        #expect(seen.findings.map(\.finding.code) == ["efi.no-program"])
    }

    @Test func aProgramThatWasCutShortIsTold() throws {
        let esp = MemoryTree(isCaseSensitive: false)
        esp.put(
            "EFI/debian/grubx64.efi", Array(efiProgram([(".text", String(repeating: "x", count: 5000))]).dropLast(100)))
        var machine = Machine()
        machine.add("/dev/sda:1", "vfat", esp)
        #expect(try machine.look().findings.map(\.finding.code) == ["efi.cut-short"])
    }

    @Test func mutatedHeadsDoNoHarm() {
        var random = Seeded(3)
        let sound = efiProgram([(".sbat", "a,1,b,c,d,e"), (".linux", "x"), (".osrel", "y")], isSigned: true)
        var read = 0
        for _ in 0..<5000 {
            if (try? PEImage(parsing: random.mutated(sound))) != nil { read += 1 }
        }
        #expect(read > 500)
    }
}
