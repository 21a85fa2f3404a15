// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FileTrees
import Findings
import MachineModel

/// What the files of one Linux tell.
struct LinuxReader {
    private(set) var system: InstalledSystem
    private(set) var notes: Notes
    private let view: SystemView
    private var facts = LinuxFacts()
    private let volumes: [SeenVolume]
    private let index: Int
    private let trees: TreePool
    private let programs: [Int: [EFIProgram]]
    /// EFI system partitions that belong to it, and the path they are mounted at.
    private var partitions: [(index: Int, point: String?)] = []

    /// Reads the system whose root is the folder `root` of volume `index`. Throws `interrupted` only.
    init(
        _ volumes: [SeenVolume], at index: Int, root: String, trees: TreePool, programs: [Int: [EFIProgram]],
        notes: Notes
    ) throws(Fault) {
        self.volumes = volumes
        self.index = index
        self.trees = trees
        self.programs = programs
        self.notes = notes
        system = InstalledSystem(family: .linux, name: "Linux", volume: volumes[index].name, root: "/\(root)")
        guard let tree = try trees.tree(index) else {
            view = SystemView(EmptyTree(), volume: volumes[index].name, root: root)
            return
        }
        view = SystemView(tree, volume: volumes[index].name, root: root)
        if volumes[index].kind.rawValue == "btrfs", !root.isEmpty { facts.subvolume = root }
        try readMounts()
        try readRelease()
        try readHostname()
        try readArchitecture()
        try readSecurity()
        try readGenerator()
        var kernels = KernelSearch(view, partitions.compactMap(\.point), self.notes)
        try kernels.run()
        self.notes = kernels.notes
        facts.kernels = kernels.kernels
        try readUnifiedKernels()
        facts.kernels = Array(
            facts.kernels.sorted { Versions.isNewer($0.release, $1.release) }.prefix(KernelSearch.most))
        try readLoaders()
        system.linux = facts
    }

    // MARK: Mounts

    private mutating func readMounts() throws(Fault) {
        let view = view
        let fstab = try notes.attempt { () throws(Fault) in try view.file("etc/fstab") } ?? []
        let crypttab = try notes.attempt { () throws(Fault) in try view.file("etc/crypttab") } ?? []
        facts.mounts = Fstab(fstab, crypttab: crypttab, volumes).mounts
        for mount in facts.mounts {
            guard let name = mount.volume, let found = volumes.firstIndex(where: { $0.name == name }), found != index,
                ["/boot", "/boot/efi", "/efi", "/usr"].contains(mount.point)
            else { continue }
            guard let tree = try trees.tree(found) else { continue }
            view.mount(tree, volume: name, at: mount.point)
            if mount.point == "/boot" { facts.bootVolume = name }
            if programs[found] != nil, mount.point != "/usr" {
                facts.espVolume = name
                partitions.append((found, mount.point))
            }
        }
        for mount in facts.mounts where mount.isMissing {
            notes.add(
                Finding(
                    .notice, "system.volume-missing",
                    what: "Its fstab mounts \(mount.source) at \(mount.point), which was not found.",
                    place: volumes[index].name))
        }
    }

    // MARK: Identity

    private mutating func readRelease() throws(Fault) {
        let view = view
        for path in ["etc/os-release", "usr/lib/os-release"] {
            guard let bytes = try notes.attempt({ () throws(Fault) in try view.file(path, limit: 64 << 10) }) else {
                continue
            }
            let values = PlainText.assignments(bytes)
            guard !values.isEmpty else { continue }
            facts.distribution = values["ID"].flatMap { PlainText.safe($0, limit: 64) }
            facts.like = (values["ID_LIKE"] ?? "").split(whereSeparator: \.isWhitespace).prefix(8)
                .compactMap { PlainText.safe($0, limit: 64) }
            facts.codename = values["VERSION_CODENAME"].flatMap { PlainText.safe($0, limit: 64) }
            system.version = values["VERSION_ID"].flatMap { PlainText.safe($0, limit: 64) }
            let plain = [values["NAME"], values["VERSION"]].compactMap { $0 }.joined(separator: " ")
            if let name = PlainText.safe(values["PRETTY_NAME"] ?? "") ?? PlainText.safe(plain) {
                system.name = name
                return
            }
        }
        for (path, id, name) in [
            ("etc/debian_version", "debian", "Debian"), ("etc/alpine-release", "alpine", "Alpine Linux"),
            ("etc/slackware-version", "slackware", ""), ("etc/redhat-release", "rhel", ""),
            ("etc/SuSE-release", "suse", ""), ("etc/gentoo-release", "gentoo", ""),
            ("etc/arch-release", "arch", "Arch Linux"),
        ] {
            guard let bytes = try notes.attempt({ () throws(Fault) in try view.file(path, limit: 64 << 10) }) else {
                continue
            }
            let line = PlainText.lines(bytes).first.flatMap { PlainText.safe($0) }
            system.name = [name.isEmpty ? nil : name, line].compactMap { $0 }.joined(separator: " ")
            if system.name.isEmpty { system.name = "Linux" }
            if facts.distribution == nil { facts.distribution = id }
            if system.version == nil {
                system.version = line?.split(separator: " ").first { $0.first?.isNumber == true }.map(String.init)
            }
            return
        }
    }

    private mutating func readHostname() throws(Fault) {
        let view = view
        for path in ["etc/hostname", "etc/HOSTNAME"] {
            guard let bytes = try notes.attempt({ () throws(Fault) in try view.file(path, limit: 4096) }) else {
                continue
            }
            let line = PlainText.lines(bytes).map { PlainText.trim($0) }.first { !$0.isEmpty && !$0.hasPrefix("#") }
            system.hostname = line.flatMap { PlainText.safe($0, limit: 253) }
            if system.hostname != nil { return }
        }
        for (path, key) in [("etc/sysconfig/network", "HOSTNAME"), ("etc/conf.d/hostname", "hostname")] {
            guard let bytes = try notes.attempt({ () throws(Fault) in try view.file(path, limit: 64 << 10) }) else {
                continue
            }
            system.hostname = PlainText.assignments(bytes)[key].flatMap { PlainText.safe($0, limit: 253) }
            if system.hostname != nil { return }
        }
    }

    private mutating func readArchitecture() throws(Fault) {
        let view = view
        for path in [
            "usr/lib/systemd/systemd", "sbin/init", "bin/busybox", "usr/bin/bash", "bin/sh", "usr/bin/env",
        ] {
            guard let head = try notes.attempt({ () throws(Fault) in try view.start(of: path, count: 64) }),
                let name = ELFHead.architecture(head)
            else { continue }
            system.architecture = name
            return
        }
    }

    private mutating func readSecurity() throws(Fault) {
        let view = view
        guard
            let bytes = try notes.attempt({ () throws(Fault) in try view.file("etc/selinux/config", limit: 64 << 10) })
        else { return }
        let mode = PlainText.assignments(bytes)["SELINUX"]?.lowercased()
        facts.selinux = ["enforcing", "permissive", "disabled"].first { $0 == mode }
    }

    private mutating func readGenerator() throws(Fault) {
        let view = view
        for (name, paths) in [
            ("initramfs-tools", ["usr/sbin/update-initramfs"]), ("dracut", ["usr/bin/dracut", "usr/sbin/dracut"]),
            ("mkinitcpio", ["usr/bin/mkinitcpio"]), ("booster", ["usr/bin/booster"]),
            ("mkinitfs", ["sbin/mkinitfs", "usr/sbin/mkinitfs"]), ("make-initrd", ["usr/sbin/make-initrd"]),
            ("genkernel", ["usr/bin/genkernel"]), ("mkinitrd", ["sbin/mkinitrd", "usr/sbin/mkinitrd"]),
        ] {
            for path in paths {
                guard try notes.attempt({ () throws(Fault) in try view.find(path) }) != nil else { continue }
                facts.initramfsGenerator = name
                return
            }
        }
    }

    // MARK: Boot

    /// Unified images in `EFI/Linux` of its own EFI system partitions.
    private mutating func readUnifiedKernels() throws(Fault) {
        for (index, _) in partitions {
            for program in programs[index] ?? [] where program.name == EFIPartition.unified {
                facts.kernels.append(
                    KernelSearch.unified(program.version ?? program.path, program.path, program.volume))
            }
        }
    }

    private mutating func readLoaders() throws(Fault) {
        let view = view
        var found: [BootLoader] = []
        func place(_ path: String) throws(Fault) -> (volume: String, path: String)? {
            guard let place = try view.find(path) else { return nil }
            return view.place(place.path)
        }
        let result = try notes.attempt { () throws(Fault) -> [BootLoader]? in
            var loaders: [BootLoader] = []
            for folder in ["boot/grub", "boot/grub2"] {
                guard let own = try place(folder) else { continue }
                let configuration = try place("\(folder)/grub.cfg")
                let names = Set(try view.names(in: folder, most: 256).map(\.name))
                if names.contains("i386-pc"), let core = try place("\(folder)/i386-pc/core.img") {
                    loaders.append(
                        BootLoader(
                            name: "GRUB", firmware: .bios, volume: own.volume, configuration: configuration?.path,
                            program: core.path))
                }
                if names.contains(where: { $0.hasSuffix("-efi") }) {
                    loaders.append(
                        BootLoader(
                            name: "GRUB", firmware: .uefi, volume: own.volume, configuration: configuration?.path))
                }
                if loaders.isEmpty, let configuration {
                    loaders.append(
                        BootLoader(name: "GRUB", volume: own.volume, configuration: configuration.path))
                }
            }
            if let own = try place("boot/grub/menu.lst"), loaders.isEmpty {
                loaders.append(
                    BootLoader(name: "GRUB Legacy", firmware: .bios, volume: own.volume, configuration: own.path))
            }
            for path in [
                "boot/extlinux/extlinux.conf", "boot/extlinux.conf", "extlinux.conf", "boot/syslinux/syslinux.cfg",
            ] {
                guard let own = try place(path) else { continue }
                let name = path.contains("syslinux") ? "syslinux" : "extlinux"
                loaders.append(BootLoader(name: name, volume: own.volume, configuration: own.path))
                break
            }
            if let own = try place("etc/lilo.conf") {
                loaders.append(BootLoader(name: "LILO", firmware: .bios, volume: own.volume, configuration: own.path))
            }
            return loaders
        }
        found += result ?? []
        found += try onPartitions(found)
        facts.loaders = found
    }

    /// Loaders on EFI system partitions: those the system mounts; else those of its own disk that bear its name.
    private mutating func onPartitions(_ known: [BootLoader]) throws(Fault) -> [BootLoader] {
        var own = partitions.map(\.index)
        if own.isEmpty {
            own = programs.keys.sorted().filter { volumes[$0].disk == volumes[index].disk }
        }
        let isMounted = !partitions.isEmpty
        var result: [BootLoader] = []
        for index in own {
            let volume = volumes[index].name
            for program in programs[index] ?? [] {
                guard let name = program.name, program.architecture != nil else { continue }
                let folder = program.path.split(separator: "/").dropLast().last.map { $0.lowercased() } ?? ""
                let isNamed = folder == facts.distribution?.lowercased() || facts.like.contains(folder)
                switch name {
                case "GRUB" where (isNamed || (isMounted && folder == "grub")):
                    let configuration = known.first { $0.name == "GRUB" }?.configuration
                    result.append(
                        BootLoader(
                            name: name, firmware: .uefi, volume: volume, configuration: configuration,
                            program: program.path))
                case "systemd-boot" where folder == "systemd", "rEFInd":
                    let tree = try trees.tree(index)
                    let path = name == "rEFInd" ? "EFI/\(folder)/refind.conf" : "loader/loader.conf"
                    let configuration = try notes.attempt { () throws(Fault) in try tree?.find(path) }
                    result.append(
                        BootLoader(
                            name: name, firmware: .uefi, volume: volume,
                            configuration: configuration.map { "/" + $0.path.joined(separator: "/") },
                            program: program.path))
                case EFIPartition.unified where isMounted:
                    result.append(BootLoader(name: name, firmware: .uefi, volume: volume, program: program.path))
                default: continue
                }
                if facts.espVolume == nil { facts.espVolume = volume }
            }
        }
        return result
    }
}

/// The tree of a volume that went away between two looks.
private final class EmptyTree: FileTree {
    var isCaseSensitive: Bool { true }
    func step(_ path: [String]) throws(Fault) -> TreeStep { .missing }
    func list(_ path: [String], most: Int) throws(Fault) -> [TreeEntry] { [] }
    func read(_ path: [String], stream: String?, from offset: UInt64, count: Int) throws(Fault) -> [UInt8] { [] }
    func streams(_ path: [String]) throws(Fault) -> [TreeStream] { [] }
}

/// The head of an ELF program. System V ABI, chapter 4.
enum ELFHead {
    /// What `uname -m` calls the processor it is for; `nil` for what is no ELF, or for another processor.
    static func architecture(_ head: [UInt8]) -> String? {
        guard head.count >= 20, head[0..<4].elementsEqual([0x7F, 0x45, 0x4C, 0x46]), (1...2).contains(head[5]) else {
            return nil
        }
        let isLittle = head[5] == 1
        let machine = isLittle ? UInt16(head[18]) | UInt16(head[19]) << 8 : UInt16(head[19]) | UInt16(head[18]) << 8
        switch machine {
        case 3: return "i686"
        case 8: return isLittle ? "mipsel" : "mips"
        case 20: return "ppc"
        case 21: return isLittle ? "ppc64le" : "ppc64"
        case 22: return "s390x"
        case 40: return "armv7l"
        case 62: return "x86_64"
        case 183: return "aarch64"
        case 243: return head[4] == 2 ? "riscv64" : "riscv32"
        case 258: return "loongarch64"
        default: return nil
        }
    }
}
