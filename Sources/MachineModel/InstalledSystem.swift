// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// An operating system that is installed on a disk, as its own files tell. What could not be told is `nil`.
public struct InstalledSystem: Hashable, Sendable, Codable {
    /// Families of systems. Others than these may be met in points of later versions.
    public struct Family: Hashable, Sendable, Codable, RawRepresentable {
        /// The name stored: `linux`, `windows` …
        public var rawValue: String
        /// A family by name.
        public init(rawValue: String) { self.rawValue = rawValue }
        /// Linux.
        public static let linux = Family(rawValue: "linux")
        /// Windows.
        public static let windows = Family(rawValue: "windows")
        /// macOS. Only what the partition's type says is known.
        public static let macOS = Family(rawValue: "macos")
        /// FreeBSD, NetBSD, OpenBSD. Only what the partition's type says is known.
        public static let bsd = Family(rawValue: "bsd")
    }
    /// Which family it belongs to.
    public var family: Family
    /// Its name for people: `Debian GNU/Linux 12 (bookworm)`, `Windows 11 Pro`.
    public var name: String
    /// Its version as it states it: `12`, `10.0`.
    public var version: String?
    /// What processor it is made for, as Linux' `uname -m` has it: `x86_64`, `i686`, `aarch64` …
    public var architecture: String?
    /// The machine's name in it.
    public var hostname: String?
    /// The volume its root lies on: `/dev/sda:3`, `vg0/root`.
    public var volume: String
    /// Its root, counted from the root of that volume: `/`; `/@` of Btrfs; `/Windows`.
    public var root: String
    /// What only Linux has.
    public var linux: LinuxFacts?
    /// What only Windows has.
    public var windows: WindowsFacts?

    /// A system.
    public init(
        family: Family, name: String, version: String? = nil, architecture: String? = nil, hostname: String? = nil,
        volume: String, root: String, linux: LinuxFacts? = nil, windows: WindowsFacts? = nil
    ) {
        self.family = family
        self.name = name
        self.version = version
        self.architecture = architecture
        self.hostname = hostname
        self.volume = volume
        self.root = root
        self.linux = linux
        self.windows = windows
    }
}

/// What is known of an installed Linux.
public struct LinuxFacts: Hashable, Sendable, Codable {
    /// `ID` of os-release: `debian`, `fedora` …
    public var distribution: String?
    /// `ID_LIKE`: the distributions it is made from.
    public var like: [String]
    /// `VERSION_CODENAME`: `bookworm`.
    public var codename: String?
    /// The kernels, the newest first.
    public var kernels: [LinuxKernel]
    /// What its fstab mounts, in its order.
    public var mounts: [LinuxMount]
    /// The volume `/boot` lies on; `nil` where it is a folder of the root's volume, or was not found.
    public var bootVolume: String?
    /// The EFI system partition it mounts, or that has its loader.
    public var espVolume: String?
    /// The boot loaders set up in it.
    public var loaders: [BootLoader]
    /// What makes its initramfs: `initramfs-tools`, `dracut`, `mkinitcpio` …
    public var initramfsGenerator: String?
    /// `enforcing`, `permissive` or `disabled`; `nil` where SELinux is not set up.
    public var selinux: String?
    /// The Btrfs subvolume its root lies in.
    public var subvolume: String?

    /// Facts of which nothing is known.
    public init() {
        (like, kernels, mounts, loaders) = ([], [], [], [])
    }
}

/// A kernel of an installed Linux.
public struct LinuxKernel: Hashable, Sendable, Codable {
    /// Its release, as `uname -r` has it: `6.1.0-28-amd64`.
    public var release: String
    /// Its image: a path in the system (`/boot/vmlinuz-…`), or on the EFI system partition.
    public var image: String?
    /// The volume the image lies on.
    public var volume: String?
    /// The initramfs that belongs to it; `nil` where none was found, or it is inside the image.
    public var initramfs: String?
    /// Whether its modules are there.
    public var hasModules: Bool
    /// Whether it is a unified image: kernel, initramfs and command line in one EFI program.
    public var isUnified: Bool

    /// A kernel.
    public init(
        release: String, image: String? = nil, volume: String? = nil, initramfs: String? = nil,
        hasModules: Bool = false,
        isUnified: Bool = false
    ) {
        self.release = release
        self.image = image
        self.volume = volume
        self.initramfs = initramfs
        self.hasModules = hasModules
        self.isUnified = isUnified
    }
}

/// A line of an installed Linux' fstab.
public struct LinuxMount: Hashable, Sendable, Codable {
    /// What is mounted, as written there: `UUID=…`, `/dev/mapper/vg0-root`.
    public var source: String
    /// Where; `none` for swap.
    public var point: String
    /// The filesystem's type, as written.
    public var type: String
    /// The options, as written.
    public var options: String
    /// The volume that is, among those that were looked at.
    public var volume: String?
    /// Whether it names a volume by an id, a label or a layer's name and no such volume was seen. `false` for what is no
    /// volume (tmpfs, a server's folder), and for names that differ from machine to machine (`/dev/sda1`).
    public var isMissing: Bool

    /// A line.
    public init(
        source: String, point: String, type: String, options: String, volume: String? = nil, isMissing: Bool = false
    ) {
        self.source = source
        self.point = point
        self.type = type
        self.options = options
        self.volume = volume
        self.isMissing = isMissing
    }
}

/// A boot loader that is set up in a system.
public struct BootLoader: Hashable, Sendable, Codable {
    /// `GRUB`, `systemd-boot`, `extlinux`, `unified kernel image` …
    public var name: String
    /// The firmware it is set up for; `nil` where nothing tells.
    public var firmware: FirmwareMode?
    /// The volume its configuration, or the loader itself, lies on.
    public var volume: String
    /// Its configuration: a path on that volume.
    public var configuration: String?
    /// Its program: a path on that volume.
    public var program: String?

    /// A loader.
    public init(
        name: String, firmware: FirmwareMode? = nil, volume: String, configuration: String? = nil,
        program: String? = nil
    ) {
        self.name = name
        self.firmware = firmware
        self.volume = volume
        self.configuration = configuration
        self.program = program
    }
}

/// What is known of an installed Windows.
public struct WindowsFacts: Hashable, Sendable, Codable {
    /// `EditionID`: `Professional`, `ServerStandard`.
    public var edition: String?
    /// `23H2`, `Service Pack 1`.
    public var release: String?
    /// The build, with its update: `22631.3007`.
    public var build: String?
    /// Whether it is a server.
    public var isServer: Bool?
    /// Where Windows sees itself: `C:\Windows`.
    public var systemRoot: String?
    /// The control set it starts with: `ControlSet001`.
    public var controlSet: String?
    /// Whether its session, or its kernel after a fast shutdown, is kept in its hibernation file.
    public var isHibernated: Bool?
    /// Whether it is set to keep its kernel's session when it shuts down.
    public var hasFastStartup: Bool?
    /// Boot configuration stores that may be its own: those on the disks its volume lies on.
    public var bootStores: [BootStore]

    /// Facts of which nothing is known.
    public init() { bootStores = [] }
}

/// A Windows boot configuration store (BCD).
public struct BootStore: Hashable, Sendable, Codable {
    /// The volume it lies on.
    public var volume: String
    /// Its path there.
    public var path: String
    /// The firmware whose boot manager reads it.
    public var firmware: FirmwareMode

    /// A store.
    public init(volume: String, path: String, firmware: FirmwareMode) {
        self.volume = volume
        self.path = path
        self.firmware = firmware
    }
}

/// An EFI program on an EFI system partition.
public struct EFIProgram: Hashable, Sendable, Codable {
    /// The volume it lies on.
    public var volume: String
    /// Its path there, with `/`.
    public var path: String
    /// Bytes.
    public var size: UInt64
    /// What it is: `shim`, `GRUB`, `Windows Boot Manager`, `systemd-boot`, `unified kernel image` …; `nil` where nothing
    /// tells.
    public var name: String?
    /// Its version, as it states it.
    public var version: String?
    /// The processor it is for, as ``InstalledSystem/architecture``.
    public var architecture: String?
    /// Whether it bears a signature. Whether that is good is not looked at.
    public var isSigned: Bool
    /// Whether the firmware starts it without a boot entry, from its path alone (`EFI/BOOT/BOOTX64.EFI`).
    public var isFallback: Bool

    /// A program.
    public init(
        volume: String, path: String, size: UInt64, name: String? = nil, version: String? = nil,
        architecture: String? = nil, isSigned: Bool = false, isFallback: Bool = false
    ) {
        self.volume = volume
        self.path = path
        self.size = size
        self.name = name
        self.version = version
        self.architecture = architecture
        self.isSigned = isSigned
        self.isFallback = isFallback
    }
}

extension InstalledSystem {
    /// One line for people: `Debian GNU/Linux 12 (bookworm) on /dev/sda:3, x86_64, kernel 6.1.0-28-amd64 (+ initramfs),
    /// GRUB for BIOS and UEFI`.
    public var summary: String {
        var parts = ["\(name) on \(volume)\(root == "/" || family != .linux ? "" : " (\(root))")"]
        if let architecture { parts.append(architecture) }
        if let hostname { parts.append("host \(hostname)") }
        if let linux { parts += linux.words }
        if let windows { parts += windows.words(named: name) }
        return parts.joined(separator: ", ")
    }
}

extension LinuxFacts {
    fileprivate var words: [String] {
        var parts: [String] = []
        if let kernel = kernels.first(where: { $0.image != nil }) ?? kernels.first {
            var text = "kernel \(kernel.release)"
            if kernel.isUnified {
                text += " (unified image)"
            } else if kernel.image == nil {
                text += " (modules only)"
            } else {
                text += kernel.initramfs == nil ? " (no initramfs)" : " (+ initramfs)"
            }
            if kernels.count > 1 { text += " and \(kernels.count - 1) more" }
            parts.append(text)
        } else {
            parts.append("no kernel found")
        }
        var names: [String] = []
        for loader in loaders where !names.contains(loader.name) { names.append(loader.name) }
        for name in names {
            let modes = loaders.filter { $0.name == name }.compactMap(\.firmware)
            let firmware = [FirmwareMode.bios, .uefi].filter(modes.contains).map { $0.rawValue.uppercased() }
            parts.append(firmware.isEmpty ? name : "\(name) for \(firmware.joined(separator: " and "))")
        }
        if loaders.isEmpty { parts.append("no boot loader found") }
        return parts
    }
}

extension WindowsFacts {
    fileprivate func words(named name: String) -> [String] {
        var parts: [String] = []
        if let build {
            let release = release.flatMap { name.contains($0) ? nil : "\($0) " } ?? ""
            parts.append("\(release)build \(build)")
        }
        if let controlSet { parts.append(controlSet) }
        if isHibernated == true { parts.append("hibernated") }
        let modes = [FirmwareMode.bios, .uefi].filter { mode in bootStores.contains { $0.firmware == mode } }
        if !modes.isEmpty {
            parts.append("boot store for \(modes.map { $0.rawValue.uppercased() }.joined(separator: " and "))")
        }
        return parts
    }
}
