// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # MediaBuilder
///
/// Makes the bootable medium: one hybrid ISO from the packages of one Debian suite and the `relight` binary.
///
/// ```
/// initramfs-hooks/*.hook ─┐                       ┌ files, libraries ┐
/// iso-builder/layout ─────┼> packages > unpacked ─┼ modules, firmware┼> cpio parts > initramfs ─┐
/// iso-builder/*.lock ─────┘            root       └ manifest         ┘                          ├> ISO
/// bootenv/ ────────────────────────────── /etc of the environment, GRUB's menu, signed loaders ─┘
/// ```
///
/// Everything that enters the medium, and every program that writes a piece of it, comes out of the downloaded packages;
/// the build machine lends apt, dpkg-deb and tar. The same packages, sources and `relight` give the same bytes.
///
/// What it does not promise: a medium for anything but amd64 PCs; the same bytes with another version of the packages
/// (the lock file says which were used) or of the libzstd that `relight` was linked with.
import FoundationEssentials
public import Findings

/// What medium to build and where things are.
public struct ISOOptions: Sendable {
    /// How the lock file is used.
    public enum LockUse: Sendable {
        /// Its versions where the archive still has them, newer ones else, said so.
        case preferred
        /// Its versions or nothing.
        case strict
        /// Newest versions; the lock file is written anew.
        case refresh
    }

    /// Relight's source folder, which holds `initramfs-hooks`, `bootenv` and `iso-builder`.
    public var source: String
    /// The static `relight` binary.
    public var relight: String
    /// The ISO to write.
    public var output: String
    /// Folder that gets `vmlinuz` and `initrd` for direct boots; `nil`: none.
    public var bootFolder: String?
    /// Folder for downloads and parts that are used again.
    public var cache: String
    /// Another Debian suite than the layout's.
    public var suite: String?
    /// A mirror; `nil`: that of the host's apt.
    public var mirror: String?
    /// Little compression, for tests.
    public var fast = false
    /// How the lock file is used.
    public var lock = LockUse.preferred

    /// Options with the usual places below `source`.
    public init(source: String, relight: String? = nil, output: String? = nil) {
        self.source = source
        self.relight = relight ?? source + "/build/relight"
        self.output = output ?? source + "/build/relight.iso"
        bootFolder = source + "/build/boot"
        cache = source + "/build/cache/media"
    }
}

/// What was built.
public struct ISOReport: Sendable, Codable, Hashable {
    /// A part of the initramfs.
    public struct Part: Sendable, Codable, Hashable {
        /// The hook's name.
        public var group: String
        /// Files in it.
        public var files: Int
        /// Bytes of these files.
        public var bytes: Int
        /// Bytes of the part as it lies on the medium.
        public var compressed: Int
    }
    /// The ISO's path.
    public var path: String
    /// Its size, bytes.
    public var size: UInt64
    /// Its SHA-256.
    public var sha256: String
    /// The Debian suite.
    public var suite: String
    /// The kernel's release, as `uname -r` will print it.
    public var kernel: String
    /// The packages it was made of.
    public var packages: Int
    /// Kernel modules in it.
    public var modules: Int
    /// Bytes of the compressed initramfs.
    public var initramfs: Int
    /// Memory a machine needs, MiB.
    public var neededMemory: Int
    /// The parts, in their order.
    public var parts: [Part]
    /// Firmware that modules name but the archive does not have: `module: file`.
    public var missingFirmware: [String]
}

/// The builder of media.
public enum MediaBuilder {
    /// Level of compression for a medium to keep, and for one to test with.
    static let (levelToKeep, levelToTest): (Int32, Int32) = (19, 3)

    /// Builds the ISO, and beside it `<ISO>.packages`, the lock file of what it was made of. Throws `media.…` faults; the old ISO stays until the new one is complete.
    public static func buildISO(_ options: ISOOptions, events: @escaping EventHandler) throws(Fault) -> ISOReport {
        let options = options.absolute
        guard case .file(_, let mode)? = Files.kind(options.relight), mode & 0o111 != 0 else {
            throw Fault(
                .missing, what: "There is no relight program to put on the medium.", place: options.relight,
                remedy: "Run `make build` first, or name it with --relight.")
        }
        if let bad = options.cache.first(where: { ":;\"\\[]".contains($0) || $0.isNewline }) {
            throw Fault(
                .usage,
                what: "The folder's name holds the character `\(bad)`, which apt or the loader takes for a separator.",
                place: options.cache, remedy: "Name another folder with --cache, or move Relight's source folder.")
        }
        let lock = try FolderLock(options.cache)
        defer { withExtendedLifetime(lock) {} }
        let layoutFile = options.source + "/iso-builder/layout"
        guard Files.exists(layoutFile) else {
            throw Fault(
                .missing, what: "This is not Relight's source folder: it has no iso-builder/layout.",
                place: options.source,
                remedy: "Run the builder in that folder, or name it with --source.")
        }
        var layout = try Layout(text: try Files.text(layoutFile), file: layoutFile)
        if let suite = options.suite { layout.suite = suite }
        let hooks = try HookSet(folder: options.source + "/initramfs-hooks").hooks

        let packages = try Packages.obtain(layout: layout, hooks: hooks, options: options, events: events)
        let root = try packages.unpacked(cache: options.cache, events: events)
        let kernel = try Kernel(root: root)
        let content = try EnvironmentContent(
            root: root, kernel: kernel, hooks: hooks, packages: packages.lock, options: options, events: events)
        let level = options.fast ? levelToTest : levelToKeep
        let initramfs = try Initramfs.build(
            content.tree, first: content.first, order: hooks.map(\.name) + [EnvironmentContent.indexGroup],
            level: level,
            time: packages.lock.time, cache: options.cache, events: events)

        let boot = options.bootFolder ?? options.cache + "/boot"
        try Files.write(initramfs.bytes, to: boot + "/initrd")
        try Files.remove(boot + "/vmlinuz")
        try Files.link(kernel.image, to: boot + "/vmlinuz")
        events(.step("Writing the image"))
        let image = BootImage(
            root: root, layout: layout, bootFolder: options.source + "/bootenv", time: packages.lock.time,
            kernel: boot + "/vmlinuz", initramfs: boot + "/initrd")
        try Files.makeFolder(Files.parent(of: options.output))
        _ = try image.build(work: options.cache + "/work", output: options.output)
        try Files.remove(options.cache + "/work")

        try Files.write(Data(packages.lock.text.utf8), to: options.output + ".packages")
        let bytes = try Files.bytes(options.output)
        return ISOReport(
            path: options.output, size: UInt64(bytes.count), sha256: try SHA256.hex(bytes), suite: layout.suite,
            kernel: kernel.release, packages: packages.lock.packages.count, modules: content.modules,
            initramfs: initramfs.bytes.count, neededMemory: initramfs.neededMemory,
            parts: initramfs.parts.map {
                ISOReport.Part(group: $0.group, files: $0.files, bytes: $0.bytes, compressed: $0.compressed)
            },
            missingFirmware: content.missingFirmware)
    }
}

extension ISOOptions {
    /// The same with absolute paths: programs run in other folders.
    fileprivate var absolute: ISOOptions {
        func full(_ path: String) -> String {
            let whole = path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
            return "/" + whole.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
        }
        var copy = self
        copy.source = full(source)
        copy.relight = full(relight)
        copy.output = full(output)
        copy.cache = full(cache)
        copy.bootFolder = bootFolder.map(full)
        return copy
    }
}
