// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
import FilesystemMaps
public import Findings
public import Geometry
import LinuxDisks
public import MachineModel
public import PointDisk
public import Tools

/// Makes filesystems of one family that take the place of others.
public protocol FilesystemMaker: Sendable {
    /// The kinds it is for.
    var kinds: Set<ContentKind> { get }
    /// The program that makes them.
    var maker: Tool { get }
    /// The kernel's name of the filesystem.
    var type: String { get }
    /// What a mount needs besides.
    var mountOptions: [String] { get }
    /// Throws `tool.missing` unless its programs are installed.
    func require() throws(Fault)
    /// Makes a filesystem in the file at `path` with the identity and the features of the one in the file `old`, which is
    /// mounted at `folder`, for a disk of `sectors`.
    func make(_ path: String, as old: String, mountedAt folder: String, sectors: SectorSize) throws(Fault)
}

/// The table of families that are made anew.
public enum FilesystemMakers {
    /// One row per family.
    public static let table: [any FilesystemMaker] = [XFSMaker()]

    /// The row for `kind`; `nil` where there is none.
    public static func maker(for kind: ContentKind) -> (any FilesystemMaker)? {
        table.first { $0.kinds.contains(kind) }
    }
}

/// For filesystems that cannot be shrunk: makes a new one of another size on an overlay, and copies the files into it
/// with their attributes, extended attributes and access lists, hard links and holes. Copied data are references to the old
/// volume, so that they take almost nothing.
public struct Recreator: Sendable {
    private let maker: any FilesystemMaker
    private let checking: any FilesystemTool
    private let room: ScratchRoom
    private let events: EventHandler

    /// A recreator for `kind`. Throws `unsupported` where there is none, `tool.missing`.
    public init(_ kind: ContentKind, room: ScratchRoom, events: @escaping EventHandler) throws(Fault) {
        guard let maker = FilesystemMakers.maker(for: kind), let tool = FilesystemTools.tool(for: kind) else {
            throw Fault(
                .unsupported, what: "A filesystem of this kind (\(kind.rawValue)) is not made anew.",
                remedy: "Restore it to a place of its own size.")
        }
        try maker.require()
        _ = try tool.checker.requirePath()
        (self.maker, checking, self.room, self.events) = (maker, tool, room, events)
    }

    /// The program that makes the filesystem.
    public var program: String { maker.maker.name }

    /// A filesystem of `size` bytes, for a disk of `sectors`, with the files of the one in `volume`, compared with them and found sound by its own
    /// checker. Nothing of `volume` changes. Throws `tool.failed`, `scratch.full`, what reading `volume` throws,
    /// `interrupted`, `no-access`.
    public func recreate(
        _ volume: any BlockSource, size: ByteCount, sectors: SectorSize
    ) throws(Fault) -> ShrunkVolume {
        let old = OverlayVolume(volume, blockSize: .kibibytes(4), room: room, remembersAll: true)
        let place = ZeroVolume(length: size, sectorSize: sectors, name: volume.name)
        let new = OverlayVolume(place, copiedFrom: old, room: room)
        events(.step("\(volume.name): making \(maker.type) of \(size) and copying the files into it"))
        let (maker, checking, events) = (maker, checking, events)
        let verdict = try PrivateMounts.run { () throws(Fault) -> CheckVerdict in
            let oldFile = try VolumeFile(old)
            let newFile = try VolumeFile(new)
            let ticker = Ticker {
                events(.progress(Progress(phase: "copying files", done: new.figures.written, total: nil)))
            }
            defer { ticker.end() }
            do throws(Fault) {
                let paths = (old: oldFile.path, new: newFile.path)
                // Mounted for writing: a log that waits is replayed, on the overlay.
                try MountedVolume.use(paths.old, type: maker.type, options: ["loop"] + maker.mountOptions) {
                    (source) throws(Fault) in
                    try maker.make(paths.new, as: paths.old, mountedAt: source, sectors: sectors)
                    try MountedVolume.use(paths.new, type: maker.type, options: ["loop"] + maker.mountOptions) {
                        (target) throws(Fault) in
                        try Recreator.copy(source, target)
                    }
                }
                events(.step("\(volume.name): checking the new \(maker.type)"))
                let verdict = try checking.check(paths.new)
                if let fault = newFile.fault ?? oldFile.fault { throw fault }
                return verdict
            } catch {
                if error.code != .interrupted, let fault = newFile.fault ?? oldFile.fault { throw fault }
                throw error
            }
        }
        guard verdict.isClean else {
            throw Fault(
                .toolFailed, what: "Made anew, its own checker is not content: \(verdict.evidence)", place: volume.name,
                remedy: "Restore it to a place of its own size.")
        }
        let used = try FilesystemMaps.map(new).used
        let notice = Finding(
            .notice, "filesystem.recreated",
            what:
                "The filesystem was made anew and its files were copied: inode numbers, quotas, shared blocks of reflinked "
                + "files and the flags of chattr are not as they were.", place: volume.name)
        return ShrunkVolume(content: new, used: used, figures: new.figures, check: verdict, notices: [notice])
    }

    /// Copies everything below one folder into another, and compares.
    private static func copy(_ source: String, _ target: String) throws(Fault) {
        func failed(_ result: ToolOutput, _ what: String) -> Fault {
            Fault(
                .toolFailed, what: "\(what): \(result.lastWords)",
                remedy: "Give the volume more room, or restore it to a place of its own size.")
        }
        // Extended attributes (access lists, capabilities and labels among them) are named, so that losing one is a failure.
        let copied = try Tool("cp", package: "coreutils").run(
            [
                "--no-dereference", "--recursive", "--preserve=mode,ownership,timestamps,links,xattr", "--sparse=auto",
                "\(source)/.", "\(target)/",
            ], seconds: 24 * 3600)
        guard copied.status == 0 else { throw failed(copied, "The files cannot be copied") }
        // Names, kinds, rights, owners, sizes, links, times; and what is in the files.
        let listing = """
            cd "$1" && { find . ! -type d -printf '%P %y %m %U %G %s %n %T@ %l\\n'
              find . -type d -printf '%P %y %m %U %G\\n'; } | sort | sha256sum && \
            find . -type f -print0 | sort -z | xargs -0r sha256sum | sha256sum
            """
        var sums: [String] = []
        for folder in [source, target] {
            let summed = try Tool("sh", package: "dash").run(["-c", listing, "sh", folder], seconds: 24 * 3600)
            guard summed.status == 0 else { throw failed(summed, "The files cannot be compared") }
            sums.append(summed.standardOutput)
        }
        guard sums[0] == sums[1] else {
            throw Fault(
                .toolFailed, what: "The copied files, or their attributes, differ.",
                remedy: "Restore it to a place of its own size.")
        }
    }
}
