// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
public import Findings
import Synchronization

/// How the files of a volume are read.
public enum TreeFormat: String, Sendable, CaseIterable {
    /// ext2, ext3, ext4: libext2fs.
    case ext
    /// FAT: this program.
    case fat
    /// NTFS: libntfs-3g.
    case ntfs
    /// The kernel, by a read-only mount.
    case mounted

    /// The way for what libblkid calls `kind`; `nil` where there is none.
    public init?(kind: String) {
        switch kind {
        case "ext2", "ext3", "ext4", "ext4dev": self = .ext
        case "vfat": self = .fat
        case "ntfs": self = .ntfs
        default:
            guard MountOptions.known[kind] != nil else { return nil }
            self = .mounted
        }
    }
}

/// Bounds on one volume's probe.
public struct ProbeLimits: Hashable, Sendable {
    /// Bytes of address space of the child.
    public var memory: UInt64 = 512 << 20
    /// Seconds without a word from the child, while it has something to do.
    public var silence: Double = 20
    /// Seconds in all.
    public var seconds: Double = 120
    /// Bytes of the volume that are handed out.
    public var bytes: UInt64 = 1 << 30

    /// The limits Relight uses.
    public init() {}
}

/// Where trees are read: in this process, or in children that may crash.
public struct ProbeHost: Sendable {
    enum Way: Hashable, Sendable {
        case inProcess
        case child(String)
    }
    let way: Way
    /// Bounds on each child.
    public var limits = ProbeLimits()
    /// Whether what only the kernel reads may be mounted, read-only and seen by nobody else. Nowhere but in the booted
    /// environment: a kernel that crashes on a hostile filesystem takes the machine with it.
    public var allowsMounting = false

    /// In this process: for tests, and for disks that are one's own.
    public static let inProcess = ProbeHost(way: .inProcess)

    /// In children: `program` is executed with the word ``ProbeChild/verb``.
    public static func child(program: String) -> ProbeHost { ProbeHost(way: .child(program)) }

    /// In children of this program where it serves them (``ProbeChild/serveIfAsked(_:)``); else in this process.
    public static var standard: ProbeHost {
        ProbeChild.isServed.withLock { $0 } ? .child(program: "/proc/self/exe") : .inProcess
    }

    /// The files of `source`, in which lies what libblkid calls `kind`.
    ///
    /// Throws `tree.damaged`, `probe.failed`, `interrupted`; `unsupported` where there is no way to read it here, with the
    /// reason.
    public func tree(of source: any BlockSource, kind: String) throws(Fault) -> any FileTree {
        guard let format = TreeFormat(kind: kind) else {
            throw Fault(
                .unsupported, what: "Files of \(kind) are not read.", place: source.name,
                remedy: "Mount it on a system that knows it.")
        }
        switch (format, way) {
        case (.fat, _): return try FATFileTree(source)
        case (.mounted, _):
            guard allowsMounting, case .child(let program) = way else {
                throw Fault(
                    .unsupported, what: "Files of \(kind) are read in the booted environment only.", place: source.name,
                    remedy: "Start the machine from the Relight medium.")
            }
            let device = try LoopView(of: source)
            return try ProbedTree(program, source, .mounted, device: device, kind: kind, limits)
        case (.ext, .inProcess): return try ExtFileTree(source)
        case (.ntfs, .inProcess): return try NTFSFileTree(source)
        case (.ext, .child(let program)), (.ntfs, .child(let program)):
            return try ProbedTree(program, source, format, device: nil, kind: kind, limits)
        }
    }
}
