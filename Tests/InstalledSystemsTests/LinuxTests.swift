// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import FileTrees
import Findings
import Geometry
import MachineModel
import TestSupport
import Testing

@testable import InstalledSystems

@Suite struct LinuxTests {
    static let debianRelease = """
        PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
        NAME="Debian GNU/Linux"
        VERSION_ID="12"
        VERSION="12 (bookworm)"
        VERSION_CODENAME=bookworm
        ID=debian
        """

    /// A Debian with merged /usr, as its installer makes it.
    static func debian() -> MemoryTree {
        let tree = MemoryTree([
            "usr/lib/os-release": debianRelease, "etc/os-release": "->../usr/lib/os-release",
            "lib": "->usr/lib", "bin": "->usr/bin", "sbin": "->usr/sbin",
            "etc/hostname": "# the name\nweb01\n", "usr/sbin/update-initramfs": "#!/bin/sh",
            "usr/sbin/init": "->../lib/systemd/systemd", "usr/bin/env": "",
            "usr/lib/modules/6.1.0-9-amd64/modules.dep": "", "usr/lib/modules/6.1.0-28-amd64/modules.dep": "",
            "boot/initrd.img-6.1.0-28-amd64": "cpio", "boot/initrd.img-6.1.0-9-amd64": "cpio",
            "boot/grub/grub.cfg": "", "boot/grub/i386-pc/core.img": "core",
            "etc/fstab": """
            # comment
            UUID=1234 / ext4 errors=remount-ro 0 1
            /dev/vg0/data /srv/my\\040data ext4 defaults 0 2
            tmpfs /tmp tmpfs defaults 0 0
            """,
        ])
        tree.put("usr/lib/systemd/systemd", elf)
        for release in ["6.1.0-9-amd64", "6.1.0-28-amd64"] { tree.put("boot/vmlinuz-\(release)", kernelImage(release)) }
        tree.put("boot/vmlinuz", "->vmlinuz-6.1.0-28-amd64")
        return tree
    }

    @Test func aDebianIsToldInFull() throws {
        var machine = Machine()
        machine.add("/dev/sda:1", "ext4", Self.debian(), uuid: "1234")
        machine.add("vg0/data", "ext4", MemoryTree(["lost+found/x": ""]))
        let seen = try machine.look()
        let system = try #require(seen.systems.first?.system)
        #expect(seen.systems.count == 1 && seen.findings.isEmpty, "\(seen.findings)")
        #expect(
            system.summary
                == "Debian GNU/Linux 12 (bookworm) on /dev/sda:1, x86_64, host web01, "
                + "kernel 6.1.0-28-amd64 (+ initramfs) and 1 more, GRUB for BIOS")
        let facts = try #require(system.linux)
        #expect(facts.kernels.map(\.release) == ["6.1.0-28-amd64", "6.1.0-9-amd64"])
        #expect(facts.kernels.allSatisfy { $0.hasModules && $0.initramfs == "/boot/initrd.img-\($0.release)" })
        #expect(facts.initramfsGenerator == "initramfs-tools" && facts.distribution == "debian")
        #expect(facts.mounts.map(\.point) == ["/", "/srv/my data", "/tmp"])
        #expect(facts.mounts.map(\.volume) == ["/dev/sda:1", "vg0/data", nil])
        #expect(!facts.mounts.contains { $0.isMissing })
    }

    @Test func bootAndTheESPOfTheirOwnAreLookedInto() throws {
        let root = MemoryTree([
            "etc/os-release": "ID=fedora\nPRETTY_NAME='Fedora Linux 41 (Server)'\nVERSION_ID=41\n",
            "etc/selinux/config": "# x\nSELINUX=enforcing\nSELINUXTYPE=targeted\n", "usr/bin/dracut": "",
            "usr/lib/modules/6.11.4-301.fc41.x86_64/vmlinuz": "",
            "etc/fstab":
                "UUID=r / xfs defaults 0 0\nUUID=b /boot xfs defaults 0 0\nUUID=C0DE-0001 /boot/efi vfat umask=0077 0 2\n",
        ])
        let boot = MemoryTree([
            "initramfs-6.11.4-301.fc41.x86_64.img": "cpio", "grub2/grub.cfg": "",
            "loader/entries/abc.conf":
                "title Fedora\nversion 6.11.4-301.fc41.x86_64\nlinux /vmlinuz-6.11.4-301.fc41.x86_64\n"
                + "initrd /initramfs-6.11.4-301.fc41.x86_64.img\n",
        ])
        boot.put("vmlinuz-6.11.4-301.fc41.x86_64", kernelImage("6.11.4-301.fc41.x86_64"))
        let esp = MemoryTree(isCaseSensitive: false)
        esp.put(
            "EFI/fedora/grubx64.efi", efiProgram([(".sbat", "sbat,1,SBAT Version,sbat,1,u\ngrub,4,FSF,grub,2.12,u\n")]))
        var machine = Machine()
        machine.add("/dev/sda:1", "vfat", esp, uuid: "c0de-0001")
        machine.add("/dev/sda:2", "xfs", boot, uuid: "b")
        machine.add("/dev/sda:3", "xfs", root, uuid: "r")
        let seen = try machine.look()
        #expect(seen.findings.isEmpty, "\(seen.findings)")
        let system = try #require(seen.systems.first?.system)
        let facts = try #require(system.linux)
        #expect(system.volume == "/dev/sda:3" && system.name == "Fedora Linux 41 (Server)")
        #expect(facts.bootVolume == "/dev/sda:2" && facts.espVolume == "/dev/sda:1" && facts.selinux == "enforcing")
        #expect(facts.initramfsGenerator == "dracut")
        let kernel = try #require(facts.kernels.first)
        #expect(facts.kernels.count == 1 && kernel.volume == "/dev/sda:2", "\(facts.kernels)")
        #expect(kernel.image == "/boot/vmlinuz-6.11.4-301.fc41.x86_64")
        #expect(kernel.initramfs == "/boot/initramfs-6.11.4-301.fc41.x86_64.img" && kernel.hasModules)
        #expect(
            facts.loaders.map { [$0.name, $0.volume, $0.program ?? $0.configuration ?? ""] } == [
                ["GRUB", "/dev/sda:2", "/grub2/grub.cfg"], ["GRUB", "/dev/sda:1", "/EFI/fedora/grubx64.efi"],
            ])
    }

    @Test func systemdBootAndUnifiedKernelsAreTold() throws {
        let root = MemoryTree([
            "etc/os-release": "ID=arch\nPRETTY_NAME=\"Arch Linux\"\n", "usr/bin/mkinitcpio": "",
            "usr/lib/modules/6.12.1-arch1-1/vmlinuz": "", "etc/fstab": "LABEL=ESP /boot vfat defaults 0 0\n",
        ])
        let esp = MemoryTree(isCaseSensitive: false)
        esp.put(
            "EFI/systemd/systemd-bootx64.efi",
            efiProgram(
                [(".sdmagic", "#### LoaderInfo: systemd-boot 256.7-1-arch ####"), (".sbat", "")], isSigned: true))
        esp.put("EFI/BOOT/BOOTX64.EFI", esp.files["efi/systemd/systemd-bootx64.efi"] ?? [])
        esp.put(
            "EFI/Linux/arch-linux.efi",
            efiProgram([(".linux", "x"), (".initrd", "y"), (".osrel", "ID=arch"), (".uname", "6.12.1-arch1-1")]))
        esp.put("loader/loader.conf", "default arch\n")
        esp.put("vmlinuz-linux", kernelImage("6.12.1-arch1-1"))
        esp.put("initramfs-linux.img", "cpio")
        var machine = Machine()
        machine.add("/dev/nvme0n1:1", "vfat", esp, label: "ESP")
        machine.add("/dev/nvme0n1:2", "btrfs", nil)
        let volume = MemoryTree()
        for (path, bytes) in root.files { volume.put("@/\(path)", bytes) }
        machine.trees["/dev/nvme0n1:2"] = volume
        let seen = try machine.look()
        let system = try #require(seen.systems.first?.system)
        let facts = try #require(system.linux)
        #expect(system.root == "/@" && facts.subvolume == "@")
        #expect(facts.kernels.map(\.release) == ["6.12.1-arch1-1", "6.12.1-arch1-1"])
        #expect(facts.kernels.contains { $0.isUnified && $0.image == "/EFI/Linux/arch-linux.efi" })
        #expect(
            facts.kernels.contains { $0.image == "/boot/vmlinuz-linux" && $0.initramfs == "/boot/initramfs-linux.img" })
        #expect(facts.loaders.contains { $0.name == "systemd-boot" && $0.configuration == "/loader/loader.conf" })
        let programs = seen.programs.map(\.program)
        let fallback = try #require(programs.first { $0.isFallback })
        #expect(fallback.name == "systemd-boot" && fallback.version == "256.7-1-arch" && fallback.isSigned)
        #expect(programs.first { $0.path == "/EFI/Linux/arch-linux.efi" }?.version == "6.12.1-arch1-1")
    }

    @Test func aSnapshotOfOpenSUSEIsTheRoot() throws {
        let tree = MemoryTree()
        for number in [1, 17] {
            tree.put(
                "@/.snapshots/\(number)/snapshot/etc/os-release",
                "ID=opensuse-leap\nPRETTY_NAME=\"openSUSE Leap 15.6\"\n")
        }
        var machine = Machine()
        machine.add("/dev/sda:2", "btrfs", tree)
        #expect(try machine.look().systems.map(\.system.root) == ["/@/.snapshots/17/snapshot"])
    }

    @Test(arguments: [
        ("etc/debian_version", "6.0.10\n", "Debian 6.0.10", "6.0.10"),
        ("etc/redhat-release", "CentOS release 6.10 (Final)\n", "CentOS release 6.10 (Final)", "6.10"),
        ("etc/alpine-release", "3.4.6\n", "Alpine Linux 3.4.6", "3.4.6"),
    ])
    func distributionsFromBeforeOSReleaseAreKnown(_ path: String, _ text: String, _ name: String, _ version: String)
        throws
    {
        var machine = Machine()
        machine.add("/dev/sda:1", "ext3", MemoryTree([path: text]))
        let system = try #require(try machine.look().systems.first?.system)
        #expect(system.name == name && system.version == version)
    }

    @Test func aDataVolumeIsNoSystem() throws {
        var machine = Machine()
        machine.add("/dev/sda:1", "ext4", MemoryTree(["etc/notes.txt": "x", "home/a": "y"]))
        machine.add("/dev/sda:2", "ntfs", MemoryTree(["Windows/readme.txt": "x"], isCaseSensitive: false))
        machine.add("/dev/sda:3", "vfat", MemoryTree(["DCIM/1.jpg": "x"], isCaseSensitive: false))
        let seen = try machine.look()
        #expect(seen.systems.isEmpty && seen.programs.isEmpty && seen.findings.isEmpty)
    }

    @Test func linksThatLeadOutOfTheRootStayInside() throws {
        let tree = MemoryTree([
            "etc/os-release": "->/../../../usr/lib/os-release", "usr/lib/os-release": "ID=x\nPRETTY_NAME=Inside\n",
            "etc/hostname": "->hostname", "etc/fstab": "->/etc/a", "etc/a": "->/etc/b", "etc/b": "->/etc/a",
        ])
        var machine = Machine()
        machine.add("/dev/sda:1", "ext4", tree)
        let seen = try machine.look()
        #expect(seen.systems.map(\.system.name) == ["Inside"])
        #expect(seen.systems.first?.system.hostname == nil)
    }

    @Test func whatIsBrokenIsAFindingAndTheRestIsTold() throws {
        let tree = Self.debian()
        tree.broken = ["etc/fstab", "boot/vmlinuz-6.1.0-28-amd64"]
        tree.put("boot/initrd.img-6.1.0-9-amd64", "")
        var machine = Machine()
        machine.add("/dev/sda:1", "ext4", tree)
        machine.add("/dev/sda:2", "ext4", nil)
        machine.faults["/dev/sda:2"] = Fault(.treeDamaged, what: "Its files cannot be read.", remedy: "")
        machine.add("/dev/sda:3", "xfs", nil)
        let seen = try machine.look()
        #expect(seen.systems.first?.system.hostname == "web01")
        let told = seen.findings.map { "\($0.finding.severity.rawValue) \($0.finding.code) \($0.finding.place)" }
        #expect(
            told == [
                "warning tree.damaged /dev/sda:1: etc/fstab",
                "warning tree.damaged /dev/sda:1: boot/vmlinuz-6.1.0-28-amd64",
                "warning system.initramfs-empty /dev/sda:1", "warning tree.damaged /dev/sda:2",
                "notice system.not-looked-into /dev/sda:3",
            ])
    }

    @Test func namesOfEveryKindAreResolved() throws {
        let guid = try #require(GUID("01234567-89ab-cdef-0123-456789abcdef"))
        let gpt = Partition(number: 2, first: LBA(64), sectors: 8, type: .gpt(guid), guid: guid, name: "root part")
        let mbr = Partition(number: 5, first: LBA(64), sectors: 8, type: .mbr(0x83))
        var machine = Machine()
        machine.add("/dev/sda:2", "ext4", nil, uuid: "AAAA", label: "my disk", partition: gpt)
        machine.add("/dev/sdb:5", "ext4", nil, partition: mbr, signature: 0x1bad_f00d)
        machine.add("my-vg/the-root", "ext4", nil)
        machine.add("luks-6c4f", "ext4", nil)
        machine.add("md/home", "ext4", nil)
        let crypt = ["secret": "UUID=6C4F"]
        func name(_ source: String) -> String? {
            Fstab.volume(source, crypt, machine.volumes).map { machine.volumes[$0].name }
        }
        for source in [
            "UUID=aaaa", "UUID=\"AAAA\"", "LABEL=my disk", "PARTUUID=01234567-89AB-cdef-0123-456789abcdef",
            "PARTLABEL=root part", "/dev/disk/by-label/my\\x20disk", "/dev/disk/by-uuid/AAAA",
        ] {
            #expect(name(source) == "/dev/sda:2", "\(source)")
        }
        #expect(name("PARTUUID=1bad f00d-05") == nil)
        #expect(name("PARTUUID=1badf00d-05") == "/dev/sdb:5")
        #expect(
            name("/dev/mapper/my--vg-the--root") == "my-vg/the-root" && name("/dev/my-vg/the-root") == "my-vg/the-root")
        #expect(name("/dev/mapper/secret") == "luks-6c4f" && name("/dev/mapper/luks-6c4f") == "luks-6c4f")
        #expect(name("/dev/md/home") == "md/home")
        for source in ["/dev/sda2", "tmpfs", "//server/share", "UUID=", "LABEL="] {
            #expect(name(source) == nil, "\(source)")
        }
    }

    @Test func releasesAreInTheOrderOfTime() {
        let given = ["6.1.0-9-amd64", "6.1.0-28-amd64", "5.10.0-33-amd64", "6.1.0-28-cloud-amd64", "6.12.0-rc1"]
        #expect(
            given.sorted { Versions.isNewer($0, $1) } == [
                "6.12.0-rc1", "6.1.0-28-cloud-amd64", "6.1.0-28-amd64", "6.1.0-9-amd64", "5.10.0-33-amd64",
            ])
    }

    @Test func textsForTheTerminalAreMadeSafe() throws {
        var machine = Machine()
        machine.add("/dev/sda:1", "ext4", MemoryTree(["etc/os-release": "ID=x\nPRETTY_NAME=\"Evil\u{1B}[2JOS\"\n"]))
        let name = try #require(try machine.look().systems.first?.system.name)
        #expect(!name.contains("\u{1B}") && name.contains("Evil"))
    }

    /// Thousands of changes to every file that is parsed: nothing traps, and the search ends.
    @Test func mutatedFilesDoNoHarm() throws {
        var random = Seeded(4)
        let paths = [
            "usr/lib/os-release", "etc/fstab", "etc/hostname", "boot/vmlinuz-6.1.0-28-amd64", "usr/lib/systemd/systemd",
        ]
        for _ in 0..<1500 {
            let tree = Self.debian()
            for path in paths { tree.put(path, random.mutated(tree.files[path] ?? [])) }
            tree.put(
                "boot/loader/entries/x.conf", random.mutated(Array("linux /vmlinuz-1\ninitrd /x\nversion 1\n".utf8)))
            tree.put("etc/crypttab", random.mutated(Array("secret UUID=1 none luks\n".utf8)))
            tree.put("etc/fstab", random.mutated(Array("UUID=1 / ext4\n\"x\" \\040\\777 a b\nLABEL=\\x /y".utf8)))
            var machine = Machine()
            machine.add("/dev/sda:1", "ext4", tree, uuid: "1234")
            let seen = try machine.look()
            #expect(seen.systems.count <= 1)
        }
    }
}
